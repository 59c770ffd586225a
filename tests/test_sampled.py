"""A few clips of a long file: which they are, that they are the file's own, and that it is said."""

from __future__ import annotations

import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from media_factory import RENDERER
from readme_media import SAMPLE

from avdetect import preprocess
from avdetect.detector import Detector, _percent_judged
from avdetect.errors import ConfigError, MediaError
from avdetect.media import MediaReader
from avdetect.report.page import render_page
from avdetect.report.recorder import Recorder
from avdetect.report.rows import unseen
from avdetect.report.sound import SoundStrip
from avdetect.report.text import render
from avdetect.types import FPS, SAMPLE_RATE, Clip, VideoFrames, Waveform


def a_minute(folder: Path, suffix: str) -> Path:
    """The sample over and over, five clips long."""
    looped = ("-stream_loop", "-1", "-i", str(SAMPLE), "-c", "copy", "-t", "58")
    subprocess.run([RENDERER, "-v", "error", *looped, str(folder / f"minute.{suffix}")], check=True)
    return folder / f"minute.{suffix}"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_minute(tmp_path_factory.mktemp("long"), "mkv")


@pytest.fixture(scope="module")
def without_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport stream has none: it is decoded in one go."""
    return a_minute(tmp_path_factory.mktemp("long"), "ts")


@pytest.fixture(scope="module", params=["indexed", "without_index"])
def minute(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def clips(detector: Detector, path: Path, **options: Any) -> list[Clip]:
    with detector.preprocessor.open(path, **options) as stream:
        return list(stream)


def faces(clip: Clip) -> dict[int, np.ndarray]:
    """Frame number -> box."""
    return {int(n): box for track in clip.tracks for n, box in zip(track.face_frames, track.boxes, strict=True)}


def test_sampled_clips_are_those_of_the_whole_file(detector: Detector, minute: Path) -> None:
    whole, some = clips(detector, minute), clips(detector, minute, sample=2)
    assert [clip.start_seconds for clip in whole] == [0, 12, 24, 36, 48]
    assert [clip.start_seconds for clip in some] == [12, 36]
    for clip in some:
        same = whole[int(clip.start_seconds / 12)]
        assert clip.duration_seconds == same.duration_seconds
        assert clip.waveform is not None
        assert same.waveform is not None
        assert np.array_equal(clip.waveform.samples, same.waveform.samples)
        boxes, found = faces(same), faces(clip)
        assert len(found) >= 0.8 * len(boxes) > 0
        # Where a face is sought anew it is found a little elsewhere.
        assert all(np.allclose(box, boxes[n], atol=0.1 * (box[2] - box[0])) for n, box in found.items() if n in boxes)


def test_a_sample_of_all_clips_is_the_whole_file(detector: Detector, indexed: Path) -> None:
    for sample in (0, 5):
        with detector.preprocessor.open(indexed, sample=sample) as stream:
            assert stream.windows == ()
    with pytest.raises(ConfigError, match="0 for all"):
        detector.score(SAMPLE, sample=-1)


def test_only_the_windows_are_decoded_where_an_index_leads_to_them(
    detector: Detector, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    read = MediaReader.video

    def video(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        asked.append(window["start_seconds"])
        return read(self, **window)

    monkeypatch.setattr(MediaReader, "video", video)
    clips(detector, minute, sample=2)
    assert asked == ([12.0] if minute.suffix == ".ts" else [12.0, 36.0])


def test_a_window_that_cannot_be_decoded_leaves_the_others(
    detector: Detector, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MediaReader.video

    def video(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        if window["start_seconds"] < 20:
            raise MediaError("damaged here")
        yield from read(self, **window)

    monkeypatch.setattr(MediaReader, "video", video)
    with detector.preprocessor.open(indexed, sample=2) as stream:
        first, second = stream
    assert not first.tracks
    assert second.tracks
    assert "the video cannot be decoded from 12 to 24 s: damaged here" in stream.warnings


@pytest.fixture
def cut(indexed: Path, tmp_path: Path) -> Path:
    """The first two fifths of the minute, whose header still states all of it: some 23 seconds."""
    path, whole = tmp_path / "cut.mp4", tmp_path / "whole.mp4"
    front = ("-i", str(indexed), "-c", "copy", "-movflags", "+faststart", str(whole))
    subprocess.run([RENDERER, "-v", "error", *front], check=True)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5])
    return path


def test_stretches_that_a_cut_file_lacks_are_not_said_to_be_judged(detector: Detector, cut: Path) -> None:
    found = detector.score(cut, sample=2)
    ((start, end),) = found.windows
    assert (start, end) == (12, pytest.approx(23, abs=1.5))
    assert f"a sample was judged: 1 stretch, {end - start:.0f} of 58 s" in found.warnings[0]
    assert found.warnings[1].startswith("1 of 2 stretches hold nothing")


def test_a_sample_that_finds_nothing_is_no_verdict(detector: Detector, cut: Path) -> None:
    with pytest.raises(MediaError, match="holds nothing where it was sampled"):
        detector.score(cut, sample=1)


def test_pictures_beside_a_window_are_not_in_its_clip(
    detector: Detector, without_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MediaReader.video

    def video(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        return read(self, **window, batch=7)  # as behind a gap: batches do not end where windows do

    monkeypatch.setattr(MediaReader, "video", video)
    for clip in clips(detector, without_index, sample=2):
        frames = [n for track in clip.tracks for n in track.face_frames]
        first = round(clip.start_seconds * FPS)
        assert first <= min(frames) < first + 25
        assert first + 250 < max(frames) < first + 300


def test_the_silence_between_two_stretches_takes_no_room() -> None:
    tracemalloc.start()
    strip = SoundStrip()
    for start in (0, 4 * 3600):
        strip.add(Waveform(np.full(SAMPLE_RATE, 0.1, np.float32), start))
    assert strip.end_seconds == pytest.approx(4 * 3600 + 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


def test_the_detection_says_what_was_judged(detector: Detector, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "LONG_SECONDS", 30)
    monkeypatch.setattr(preprocess, "SAMPLED_CLIPS", 2)
    seen: list[tuple[float, float | None]] = []
    found = detector.score(indexed, on_progress=lambda done, of: seen.append((done, of)))
    assert found.reason.endswith(", in the 41 % of the file that was judged")
    assert "24.0 of 58." in str(render(found))
    assert found.windows == ((12, 24), (36, 48))
    assert "2 stretches, 24 of 58 s (41 %); --sample 0 judges all of it" in found.warnings[0]
    assert (found.start_seconds, found.duration_seconds) == (0, pytest.approx(58, abs=0.5))
    assert seen == [(12, 24), (24, 24)]
    times = [t for stream in found.streams for curve in stream.curves for t in curve.times_seconds]
    assert times
    assert all(12 <= t <= 24 or 36 <= t <= 48 for t in times)


@pytest.mark.parametrize(("expected", "said"), [(58.0, "21 %"), (1200.0, "1 %"), (14_400.0, "0.1 %")])
def test_a_small_share_is_not_rounded_away(expected: float, said: str) -> None:
    assert _percent_judged(SimpleNamespace(judged=((12, 24),), expected_seconds=expected)) == said


def test_a_part_of_the_file_is_sampled_as_the_file_is(detector: Detector, indexed: Path) -> None:
    some = clips(detector, indexed, start_seconds=5, duration_seconds=30, sample=1)
    assert [(clip.start_seconds, clip.duration_seconds) for clip in some] == [(17, 12)]
    assert some[0].tracks[0].first_frame >= 17 * FPS


def test_the_report_shows_what_was_not_judged(detector: Detector, indexed: Path) -> None:
    recorder = Recorder(sample=2)
    found = detector.score(indexed, sample=2, observer=recorder)
    evidence = recorder.evidence(detector, found)
    gaps = unseen(found)
    assert gaps == [(0, 12), (24, 36), (48, pytest.approx(58, abs=0.5))]
    page = render_page(evidence)
    assert page.count('class="unseen') == len(gaps) * 5  # face, voice, waveform, offset, confidence
    assert "--sample 2" in page
    assert evidence.sound is not None  # it starts with the first stretch, and what lies between takes its time
    assert (evidence.sound.start_seconds, evidence.sound.duration_seconds) == (12, pytest.approx(36, abs=0.1))
