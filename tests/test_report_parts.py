"""Facts, and the file of a report."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Here
from evidence_samples import undecided_with_segments
from media_factory import encode
from media_facts import AUDIO, VIDEO, described
from readme_media import SAMPLE

from avdetect import Detection, Detector
from avdetect._media.info import MAX_TAG_LENGTH, MAX_TAGS
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.media import probe
from avdetect.report.evidence import Evidence
from avdetect.report.facts import media_facts
from avdetect.report.files import check_report
from avdetect.report.text import render


def test_the_terminal_says_how_much_speech_there_is_and_what_stands_out(sample: Detection) -> None:
    (voice,) = [line for line in render(sample).plain.splitlines() if line.startswith("  voice")]
    assert voice.endswith(f", {sample.media.speech_seconds:.1f} s of speech")
    lines = render(undecided_with_segments().detection).plain.splitlines()
    marked = [line.strip() for line in lines if line.endswith("stands out")]
    assert marked == [
        "from 1.0 to 2.0 s the face of track 0 stands out",
        "from 1.5 to 4.0 s the voice stands out",
        "from 4.0 to 5.0 s the face of track 1 stands out",
    ]


def test_facts_are_those_of_the_header(tmp_path: Path) -> None:
    flat = encode(
        tmp_path / "clip.mp4",
        *("-f", "lavfi", "-i", "testsrc=duration=2:size=320x180:rate=30", "-itsoffset", "0.4"),
        *("-f", "lavfi", "-i", "sine=duration=1:sample_rate=16000", "-pix_fmt", "yuv420p"),
        *("-metadata", "creation_time=2020-01-02T03:04:05", "-metadata", "comment=not shown"),
    )
    facts = media_facts(probe(flat))
    exact = {"container": "MP4 / QuickTime (brand isom)", "video": "h264, 320 × 180 pixels", "rotation": "none"}
    exact |= {"frame rate": "30 a second", "sample rate": "16000 Hz"}
    assert {name: facts[name] for name in exact} == exact
    parts = {"created, it says": "2020-01-02T03:04:05", "written by": "Lavf", "video encoder": "libx264"}
    assert [name for name, part in (parts | {"bit rate": "kbit/s"}).items() if part not in facts[name]] == []
    assert "not shown" not in str(facts)
    turned = encode(tmp_path / "turned.mp4", "-display_rotation:v:0", "90", "-i", str(flat), "-c", "copy")
    facts = media_facts(probe(turned))
    assert facts["rotation"].startswith("270°")
    assert facts["video"] == "h264, 180 × 320 pixels (stored as 320 × 180)"


def test_hostile_tags_are_bounded_and_cannot_steer() -> None:
    phone = {"duration": 5_000_000, "bit_rate": 17_130_000, "tags": {"com.android.version": "14"}}
    info = described(VIDEO | {"tags": {"handler_name": "VideoHandle"}}, AUDIO, **phone)
    assert (info.bit_rate, info.video.bit_rate, info.audio.bit_rate) == (17_130_000, 17_000_000, 128_000)
    assert media_facts(info)["device, it says"] == "14", "a phone is named as it names itself"
    evil = "\x1b[2J<script>alert(1)</script>" + "a" * 5000
    tags = {"handler_name": evil, "encoder": "second", "Encoder": "third"}
    info = described(VIDEO | {"tags": tags}, AUDIO, tags={"encoder": evil, "title": evil})
    assert all(len(tag.value) <= MAX_TAG_LENGTH for tag in info.tags)
    assert [(tag.stream, tag.name) for tag in info.tags] == [(None, "encoder"), (0, "handler_name"), (0, "encoder")]
    assert info.tags[2].value == "second"
    assert all("\x1b" not in value and len(value) < 500 for value in media_facts(info).values())
    many = described(*(AUDIO | {"tags": {"encoder": "x"}} for _ in range(500)), limits=MediaLimits(max_streams=500))
    assert len(many.tags) == MAX_TAGS


def test_a_place_that_will_not_do_is_refused_before_scoring(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "avdetect.html").mkdir()
    refused = {"x.txt": r"\.html", "absent/x.html": "make it first", "avdetect.html": "cannot be written"}
    for path, says in refused.items():
        with pytest.raises(ConfigError, match=says):
            check_report(Path(path))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[Evidence]:
    """Stands for `report.page`; what it was given."""
    seen: list[Evidence] = []
    module = ModuleType("avdetect.report.page")
    module.render_page = lambda found: seen.append(found) or "<html>page</html>"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "avdetect.report.page", module)
    return seen


SCORE = ("score", SAMPLE, "--duration", "0.5")


def test_a_page_is_written_beside_the_table(here: Here, page: list[Evidence], tmp_path: Path) -> None:
    html, out = tmp_path / "out.html", tmp_path / "out.csv"
    html.write_text("older")
    done = here(*SCORE, "--json", "--report", html, "--out", out, code=0)
    assert done.stdout.startswith("{")
    assert [line for line in done.stderr.splitlines() if line.startswith("report: ")] == [f"report: {html}"]
    assert html.read_text() == "<html>page</html>"
    assert (page[0].detection.path, page[0].asked_seconds) == (str(SAMPLE), 0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.csv.journal", "out.html"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("place", "fails", "says"),
    [
        ("avdetect.files.os.replace", full, "No space left on device"),
        ("avdetect.report.recorder.Recorder.evidence", lambda *_: 1 / 0, "no report could be made: ZeroDivisionError"),
    ],
)
def test_a_report_that_fails_leaves_the_verdict_and_the_old_page(
    place: str, fails: object, says: str, here: Here, page: list[Evidence], tmp_path: Path, monkeypatch
) -> None:
    target = tmp_path / "out.html"
    target.write_text("older")
    monkeypatch.setattr(place, fails)
    done = here(*SCORE, "--report", target, code=1)
    assert "P(fake)" in done.stdout
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert target.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]


def test_what_has_no_report(here: Here, page: list[Evidence], tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    (tmp_path / "empty.mp4").touch()
    here("score", tmp_path / "empty.mp4", "--report", target, code=1)
    for more in ("--workers=2", SAMPLE):
        assert "score it alone" in here("score", SAMPLE, more, "--report", target, code=2).stderr
    assert not target.exists()
    assert page == []


def test_the_demo_ends_with_its_report_where_one_can_be_written(
    here: Here, detector: Detector, sample: Detection, page: list[Evidence], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("avdetect.detector.load_detector", lambda bundle, device: detector)
    done = here("demo", cwd=tmp_path, code=0).stdout.splitlines()
    assert done[-1] == "report: avdetect-demo.html"
    assert any(line.endswith("sample.mp4") and Path(line).exists() for line in done), "a name that can be copied"
    (tmp_path / "avdetect-demo.html").unlink()
    (tmp_path / "avdetect-demo.html").mkdir()
    monkeypatch.setattr(Detector, "score", lambda *_, **__: sample)
    done = here("demo", cwd=tmp_path, code=1)
    assert "FAKE" in done.stdout
    assert "no report: avdetect-demo.html cannot be written here" in done.stderr
    assert "make it first" in here("demo", "--report", tmp_path / "absent" / "x.html", code=2).stderr
