"""Occlusion, facts, signs, the static picture, and the files of a report."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from media_factory import RENDERER
from media_facts import AUDIO, VIDEO, described
from readme_media import SAMPLE

from avdetect import cli
from avdetect._media.info import MAX_TAG_LENGTH, MAX_TAGS
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.files import Replacement
from avdetect.media import MediaInfo, probe
from avdetect.report.evidence import Evidence, Frame, Picture, Sound, SyncCurve, SyncPoint
from avdetect.report.facts import media_facts
from avdetect.report.files import ReportFiles
from avdetect.report.occlusion import FULL_DROP, GRID, drops, overlay
from avdetect.report.pictures import jpeg, png
from avdetect.report.plot import DPI, HEIGHT_INCHES, WIDTH_INCHES, draw_plot
from avdetect.report.signs import editing_signs
from avdetect.report.text import render
from avdetect.report.words import causes
from avdetect.types import Curve, Detection, Rate, Segment, StreamScore, SyncScore

SIZE = 160


# -- occlusion


@pytest.mark.parametrize("row", [1, 3, 5])
@pytest.mark.parametrize("column", [1, 4])
def test_the_overlay_peaks_where_the_network_looks(row: int, column: int) -> None:
    """A network that sees nothing but the grain of one patch."""
    crop = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    y, x = (round((place + 1) / (GRID + 1) * SIZE) for place in (row, column))

    def grain(crops: np.ndarray) -> np.ndarray:
        assert len(crops) == 1 + GRID**2
        return crops[:, y - 8 : y + 8, x - 8 : x + 8].astype(np.float32).std(axis=(1, 2, 3)) / 30

    fallen = drops(grain, crop)
    assert np.unravel_index(fallen.argmax(), fallen.shape) == (row, column)
    assert np.count_nonzero(fallen > 0.6 * fallen.max()) == 1
    alpha = decoded(overlay(fallen, SIZE))[..., 3]
    at = np.unravel_index(alpha.argmax(), alpha.shape)
    assert max(abs(at[0] - y), abs(at[1] - x)) <= 6
    assert alpha[SIZE - y, SIZE - x] < alpha.max() / 4 or (row, column) == (3, 4)


def test_small_effects_stay_pale_and_rises_are_clear() -> None:
    small, large = np.full((GRID, GRID), FULL_DROP / 20), np.full((GRID, GRID), 3 * FULL_DROP)
    assert decoded(overlay(small, SIZE))[..., 3].max() < 20
    assert decoded(overlay(large, SIZE))[..., 3].min() == 200
    assert decoded(overlay(-large, SIZE))[..., 3].max() == 0
    assert drops(lambda crops: np.zeros(len(crops)), np.zeros((64, 64, 3), np.uint8)).max() == 0


def decoded(picture: Picture) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_UNCHANGED)


# -- facts and signs


def make(target: Path, *options: str) -> MediaInfo:
    subprocess.run([RENDERER, "-v", "error", "-y", *options, str(target)], check=True)
    return probe(target)


def test_facts_are_those_of_the_header(tmp_path: Path) -> None:
    info = make(
        tmp_path / "clip.mp4", "-f", "lavfi", "-i", "testsrc=duration=2:size=320x180:rate=30", "-itsoffset", "0.4",
        "-f", "lavfi", "-i", "sine=duration=1:sample_rate=16000", "-pix_fmt", "yuv420p", "-metadata",
        "creation_time=2020-01-02T03:04:05", "-metadata", "comment=not shown",
    )  # fmt: skip
    assert info.bit_rate is not None
    assert info.video is not None
    assert info.video.bit_rate is not None
    assert info.audio is not None
    assert info.audio.start_seconds == pytest.approx(0.4, abs=0.1)
    facts = {fact.name: fact.value for fact in media_facts(info)}
    assert facts["container"] == "MP4 / QuickTime (brand isom)"
    assert facts["video"] == "h264, 320 × 180 pixels"
    assert facts["frame rate"] == "30 a second"
    assert facts["rotation"] == "none"
    assert facts["sample rate"] == "16000 Hz"
    assert facts["created, it says"].startswith("2020-01-02T03:04:05")
    assert facts["written by"].startswith("Lavf")
    assert "libx264" in facts["video encoder"]
    assert "kbit/s" in facts["bit rate"]
    assert "not shown" not in str(facts)
    signs = " ".join(editing_signs(info, 2.0, 1.4))
    for words in ("Lavf", "libx264", "starts about 0.", "16000 Hz", "ends at 2.00 s and the sound at 1.40 s"):
        assert words in signs, words


def test_rotation_and_interlacing_are_facts(tmp_path: Path) -> None:
    flat = tmp_path / "flat.mp4"
    make(flat, "-f", "lavfi", "-i", "testsrc=duration=1:size=320x180", "-pix_fmt", "yuv420p")
    turned = make(tmp_path / "turned.mp4", "-display_rotation:v:0", "90", "-i", str(flat), "-c", "copy")
    facts = {fact.name: fact.value for fact in media_facts(turned)}
    assert facts["rotation"].startswith("270°")
    assert facts["video"] == "h264, 180 × 320 pixels (stored as 320 × 180)"


def test_a_phone_s_own_file_has_no_signs() -> None:
    info = described(
        VIDEO | {"tags": {"handler_name": "VideoHandle"}},
        AUDIO,
        **{"duration": 5_000_000, "bit_rate": 17_130_000, "tags": {"major_brand": "mp42", "com.android.version": "14"}},
    )
    assert (info.bit_rate, info.video.bit_rate, info.audio.bit_rate) == (17_130_000, 17_000_000, 128_000)
    assert editing_signs(info, 5.0, 5.01) == ()
    assert "14" in {fact.name: fact.value for fact in media_facts(info)}["device, it says"]


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (described(VIDEO | {"bit_rate": 400_000}, AUDIO), "0.006 bits a pixel"),
        (described(VIDEO | {"rate": [234, 10]}, AUDIO), "no usual rate"),
        (described(VIDEO, AUDIO | {"start": [1, 2]}), "0.50 s after the picture"),
        (described(VIDEO | {"tags": {"encoder": "AVC Coding"}}, AUDIO), "Adobe"),
        (described(VIDEO, tags={"ENCODER": "HandBrake 1.7.3 2024020100"}), "re-encodes videos"),
        (described(VIDEO | {"tags": {"handler_name": "Twitter-vork muxer"}}, AUDIO), "Twitter"),
    ],
)
def test_each_sign_is_seen(info: MediaInfo, says: str) -> None:
    (sign,) = editing_signs(info, None, None)
    assert says in sign


def test_hostile_tags_are_bounded_and_cannot_steer() -> None:
    evil = "\x1b[2J<script>alert(1)</script>" + "a" * 5000
    info = described(
        VIDEO | {"tags": {"handler_name": evil, "encoder": "second", "Encoder": "third"}},
        AUDIO,
        tags={"encoder": evil, "title": evil},
    )
    assert all(len(tag.value) <= MAX_TAG_LENGTH for tag in info.tags)
    assert [(tag.stream, tag.name) for tag in info.tags] == [(None, "encoder"), (0, "handler_name"), (0, "encoder")]
    assert info.tags[2].value == "second"
    assert all("\x1b" not in fact.value and len(fact.value) < 500 for fact in media_facts(info))
    many = described(*(AUDIO | {"tags": {"encoder": "x"}} for _ in range(500)), limits=MediaLimits(max_streams=500))
    assert len(many.tags) == MAX_TAGS


# -- the static picture


LEVELS = {"visual": 0.9, "audio": 0.8}


def evidence(**changes: object) -> Evidence:
    curves = (Curve((0.5, 1.5, 2.5), (0.1, 2.0, -1.0), 0.9, 3, (0.5, 0.9, 0.3), 0.7),)
    detection = Detection(
        path="clip $x^2$.mp4", verdict="fake", reason="the face looks manipulated", fake=0.8, video_fake=0.7,
        audio_fake=0.6, mismatch=None, fake_threshold=0.5, undecided_threshold=0.4, start_seconds=0.0,
        duration_seconds=3.0, sync=None,
        streams=(
            StreamScore("visual", 0.9, curves),
            StreamScore("audio", 0.4, (Curve((1.0,), (0.4,), 0.4, None, (0.6,), 0.6),)),
        ),
        tracks=(),
        segments=(Segment(1.0, 2.0, "visual", 2.0, 3),), missing={"sync": "less than 1 s of a face with voice"},
        warnings=("a \x1b warning",), model={"bundle": "b", "bundle_digest": "0", "avdetect": "0"}, timing_seconds={},
    )  # fmt: skip
    mel = png(np.random.default_rng(0).integers(0, 256, (160, 300, 3), np.uint8))
    points = (SyncPoint(0.5, 0.04, 0.3), SyncPoint(1.5, None, None))
    base = Evidence(detection, (), (), (), (), Sound(0.0, 3.0, mel, ()), (SyncCurve(3, points),), None, (), LEVELS)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_the_picture_has_its_size_and_is_the_same_again() -> None:
    data = draw_plot(evidence())
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (HEIGHT_INCHES * DPI, WIDTH_INCHES * DPI, 3)
    assert draw_plot(evidence()) == data
    assert draw_plot(evidence(sync=())) != data


def test_a_picture_as_narrow_as_a_hair_is_not_shown_a_thousand_times(monkeypatch: pytest.MonkeyPatch) -> None:
    hair = Frame(0.0, jpeg(np.zeros((480, 1, 3), np.uint8), 20_000))
    shown: list[object] = []
    monkeypatch.setattr("avdetect.report.plot.decoded", lambda picture: shown.append(picture) or decoded(picture))
    assert draw_plot(evidence(frames=(hair,), sound=None)).startswith(b"\x89PNG")
    assert 1 < len(shown) < 30


def lines_of(found: Evidence, monkeypatch: pytest.MonkeyPatch) -> list[Line2D]:
    """The lines that are drawn, from top to bottom."""
    figures: list[Figure] = []
    keep = Figure.__init__
    monkeypatch.setattr(Figure, "__init__", lambda figure, **about: figures.append(figure) or keep(figure, **about))
    draw_plot(found)
    return [line for axes in figures[0].axes for line in axes.get_lines() if line.get_marker() == "o"]


def test_a_track_has_one_colour_and_a_gap_stays_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evidence()
    faces = (
        Curve((0.5, 1.5), (-1.0, -2.0), -1.5, 0, (0.3, 0.2), 0.25),
        Curve((0.5, 4.5), (3.0, 4.0), 3.5, 1, (0.9, 0.95), 0.92),
    )
    found = dataclasses.replace(whole.detection, streams=(StreamScore("visual", 3.5, faces),))
    points = (SyncPoint(0.5, 0.04, 0.3), SyncPoint(4.5, 0.08, 0.3))
    drawn = lines_of(dataclasses.replace(whole, detection=found, sync=(SyncCurve(0, points), SyncCurve(1, points))),
                     monkeypatch)  # fmt: skip
    worst, other, match_0, match_1 = drawn
    assert worst.get_color() == match_1.get_color()
    assert other.get_color() == match_0.get_color() != worst.get_color()
    for line in (worst, match_0):
        assert np.isnan(line.get_ydata()).tolist() == [False, True, False]
    assert not np.isnan(other.get_ydata()).any()


def test_a_name_that_the_font_lacks_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    draw_plot(evidence(detection=dataclasses.replace(evidence().detection, path="中文.mp4")))
    assert list(recwarn) == []


@pytest.mark.parametrize(
    ("probability", "said", "headline", "tone"),
    [
        (0.8, "strong signs", "Strong signs of another voice", "fake"),
        (0.45, "moderate signs", "Moderate signs of another voice", "undecided"),
        (0.2, "no sign found", "In step", "plain"),
    ],
)
def test_the_match_is_told_with_its_probability(probability: float, said: str, headline: str, tone: str) -> None:
    found = dataclasses.replace(
        evidence().detection, mismatch=probability, sync=SyncScore(0.04, 0.3, 0.8, 3), missing={},
        timing_seconds={"total": 1.0}, rates={"mismatch": Rate(0.2, 0.05, 0.6)},
        model={"bundle": "b", "bundle_digest": "0", "avdetect": "0", "face_detector": "f"},
    )  # fmt: skip
    card = causes(found)[2]
    assert (card.headline, card.tone, card.probability) == (headline, tone, probability)
    line = next(line for line in render(found).plain.splitlines() if line.startswith("  match "))
    assert line.startswith(f"  match  {probability:.2f}  ")
    assert line.endswith(f"  {said}, offset +0.04 s (in step)")
    assert len(line) <= 80


def test_a_picture_of_nothing_says_so() -> None:
    bare = dataclasses.replace(
        evidence().detection, verdict="abstain", fake=None, video_fake=None, audio_fake=None, mismatch=None, streams=(),
        segments=(),
        missing={"visual": "no face", "audio": "silent", "sync": "no face"}, duration_seconds=0.0,
    )  # fmt: skip
    assert draw_plot(evidence(detection=bare, sound=None, sync=())).startswith(b"\x89PNG")


# -- files and commands


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (ReportFiles(report=Path("x.txt")), r"\.html"),
        (ReportFiles(plot=Path("x.jpg")), r"\.png"),
        (ReportFiles(report=Path("absent/x.html")), "make it first"),
        (ReportFiles(plot=Path("avdetect.png")), "cannot be written"),
    ],
)
def test_a_place_that_will_not_do_is_refused_before_scoring(
    files: ReportFiles, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "avdetect.png").mkdir()
    with pytest.raises(ConfigError, match=says):
        files.check()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[Evidence]:
    """Stands for `report.page`; what it was given."""
    seen: list[Evidence] = []
    module = ModuleType("avdetect.report.page")
    module.render_page = lambda found: seen.append(found) or "<html>page</html>"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "avdetect.report.page", module)
    return seen


def run(*arguments: str) -> int:
    return cli.run(["score", *arguments])


def test_a_page_and_a_picture_are_written_beside_the_table(
    page: list[Evidence], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = {kind: tmp_path / f"out.{kind}" for kind in ("html", "png", "csv")}
    names["html"].write_text("older")
    assert run(str(SAMPLE), "--duration", "1", "--json", "--report", str(names["html"]), "--plot", str(names["png"]),
               "--out", str(names["csv"])) == 0  # fmt: skip
    out, err = capfd.readouterr()
    assert out.startswith("{")
    assert [line for line in err.splitlines() if line.startswith("report: ")] == [
        f"report: {names['html']}",
        f"report: {names['png']}",
    ]
    assert names["html"].read_text() == "<html>page</html>"
    assert names["png"].read_bytes().startswith(b"\x89PNG")
    assert page[0].detection.path == str(SAMPLE)
    assert page[0].asked_seconds == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.csv.journal", "out.html", "out.png"]


def test_no_report_takes_the_place_of_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip.html"
    clip.write_bytes(SAMPLE.read_bytes())
    assert run(str(clip), "--report", str(clip)) == 2
    assert "the file to be scored" in capfd.readouterr().err
    assert clip.read_bytes() == SAMPLE.read_bytes()


def test_a_failed_file_has_no_report(page: list[Evidence], tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert run(str(tmp_path / "empty.mp4"), "--report", str(tmp_path / "out.html")) == 1
    assert not (tmp_path / "out.html").exists()
    assert page == []


def test_what_cannot_be_written_leaves_the_verdict_and_the_old_page(
    page: list[Evidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.html"
    target.write_text("older")

    def full(replacement: Replacement, *, sync: bool = False) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Replacement, "finish", full)
    assert run(str(SAMPLE), "--duration", "1", "--report", str(target)) == 1
    out, err = capfd.readouterr()
    assert "P(fake)" in out
    assert "No space left on device" in err
    assert target.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.parametrize("more", [("--workers", "2"), (str(SAMPLE),)])
def test_several_files_have_no_report(more: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(str(SAMPLE), *more, "--report", str(tmp_path / "out.html")) == 2
    assert "score it alone" in capfd.readouterr().err


def test_the_demo_ends_with_its_report(
    page: list[Evidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "report: avdetect-demo.html"
    assert (tmp_path / "avdetect-demo.html").exists()


def test_a_demo_where_nothing_can_be_written_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "avdetect-demo.html").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo"]) == 1
    out, err = capfd.readouterr()
    assert "FAKE" in out
    assert "no report: avdetect-demo.html cannot be written here" in err
    assert "--report" not in err
    assert cli.run(["demo", "--report", str(tmp_path / "absent" / "x.html")]) == 2
    assert "make it first" in capfd.readouterr().err


def test_a_report_that_fails_is_one_line_behind_the_verdict(
    page: list[Evidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avdetect.report.recorder.Recorder.evidence", lambda *_: 1 / 0)
    assert run(str(SAMPLE), "--duration", "1", "--report", str(tmp_path / "out.html")) == 1
    out, err = capfd.readouterr()
    assert "P(fake)" in out
    assert "no report could be made: ZeroDivisionError" in err
