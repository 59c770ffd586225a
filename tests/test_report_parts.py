"""Facts, and the file of a report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from media_factory import encode
from media_facts import AUDIO, VIDEO, described
from readme_media import SAMPLE

from avdetect import Detector, cli
from avdetect._media.info import MAX_TAG_LENGTH, MAX_TAGS
from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.media import probe
from avdetect.report.evidence import Evidence
from avdetect.report.facts import media_facts
from avdetect.report.files import check_report

Run = Callable[..., int]


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


def test_a_phone_is_named_as_it_names_itself() -> None:
    info = described(
        VIDEO | {"tags": {"handler_name": "VideoHandle"}},
        AUDIO,
        **{"duration": 5_000_000, "bit_rate": 17_130_000, "tags": {"major_brand": "mp42", "com.android.version": "14"}},
    )
    assert (info.bit_rate, info.video.bit_rate, info.audio.bit_rate) == (17_130_000, 17_000_000, 128_000)
    assert media_facts(info)["device, it says"] == "14"


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
    assert all("\x1b" not in value and len(value) < 500 for value in media_facts(info).values())
    many = described(*(AUDIO | {"tags": {"encoder": "x"}} for _ in range(500)), limits=MediaLimits(max_streams=500))
    assert len(many.tags) == MAX_TAGS


@pytest.mark.parametrize(
    ("path", "says"), [("x.txt", r"\.html"), ("absent/x.html", "make it first"), ("avdetect.html", "cannot be written")]
)
def test_a_place_that_will_not_do_is_refused_before_scoring(path: str, says: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "avdetect.html").mkdir()
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


@pytest.fixture
def run(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`avdetect score`, with the detector of all tests."""
    monkeypatch.setattr(ScoringOptions, "load", lambda *_: detector)
    return lambda *arguments: cli.run(["score", *arguments])


def test_a_page_is_written_beside_the_table(run: Run, page: list[Evidence], tmp_path: Path, capfd) -> None:
    html, out = (str(tmp_path / f"out.{kind}") for kind in ("html", "csv"))
    Path(html).write_text("older")
    assert run(str(SAMPLE), "--duration", "1", "--json", "--report", html, "--out", out) == 0
    shown, err = capfd.readouterr()
    assert shown.startswith("{")
    assert [line for line in err.splitlines() if line.startswith("report: ")] == [f"report: {html}"]
    assert Path(html).read_text() == "<html>page</html>"
    assert (page[0].detection.path, page[0].asked_seconds) == (str(SAMPLE), 1)
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
    place: str, fails: object, says: str, run: Run, page: list[Evidence], tmp_path: Path, monkeypatch, capfd
) -> None:
    target = tmp_path / "out.html"
    target.write_text("older")
    monkeypatch.setattr(place, fails)
    assert run(str(SAMPLE), "--duration", "0.5", "--report", str(target)) == 1
    out, err = capfd.readouterr()
    assert "P(fake)" in out
    assert says in err
    assert len(err.splitlines()) == 1
    assert target.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]


def test_what_has_no_report(run: Run, page: list[Evidence], tmp_path: Path, capfd) -> None:
    target = tmp_path / "out.html"
    (tmp_path / "empty.mp4").touch()
    assert run(str(tmp_path / "empty.mp4"), "--report", str(target)) == 1
    for more in (("--workers", "2"), (str(SAMPLE),)):
        assert run(str(SAMPLE), *more, "--report", str(target)) == 2
        assert "score it alone" in capfd.readouterr().err
    assert not target.exists()
    assert page == []


def test_the_demo_ends_with_its_report_where_one_can_be_written(
    detector: Detector, page: list[Evidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setattr("avdetect.detector.load_detector", lambda bundle, device: detector)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[-1] == "report: avdetect-demo.html"
    assert any(line.endswith("sample.mp4") and Path(line).exists() for line in said), "a name that can be copied"
    (tmp_path / "avdetect-demo.html").unlink()
    (tmp_path / "avdetect-demo.html").mkdir()
    assert cli.run(["demo"]) == 1
    out, err = capfd.readouterr()
    assert "FAKE" in out
    assert "no report: avdetect-demo.html cannot be written here" in err
    assert cli.run(["demo", "--report", str(tmp_path / "absent" / "x.html")]) == 2
    assert "make it first" in capfd.readouterr().err
