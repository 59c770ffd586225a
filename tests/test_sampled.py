"""A few clips of a long file: which they are, that they are the file's own, and that it is said."""

import dataclasses
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from media_factory import encode
from readme_media import SAMPLE

from avdetect import preprocess
from avdetect.config import MediaLimits
from avdetect.detector import Detector, _percent_judged
from avdetect.errors import ConfigError, MediaError
from avdetect.media import MediaReader
from avdetect.preprocess import Preprocessor
from avdetect.report.page import render_page
from avdetect.report.recorder import Recorder
from avdetect.report.rows import unseen
from avdetect.report.sound import SoundStrip
from avdetect.report.text import render
from avdetect.types import FPS, SAMPLE_RATE, Clip, VideoFrames, Waveform
from avdetect.verdict import judge

CLIP = 3.0  # seconds: a film of fourteen is as long as five clips


@pytest.fixture(scope="module")
def detector(detector: Detector) -> Detector:
    """The default one, with shorter clips."""
    faces, config = detector.preprocessor.detector, detector.bundle.info.preprocess
    preprocessor = Preprocessor(dataclasses.replace(config, clip_seconds=CLIP), faces, MediaLimits(), threads=1)
    return Detector(detector.bundle, preprocessor, detector.networks)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample over and over, five clips long, with an index; and as a transport stream, which has none: it is
    decoded in one go."""
    folder, looped = tmp_path_factory.mktemp("long"), ("-stream_loop", "-1", "-i", str(SAMPLE), "-c", "copy")
    return {suffix: encode(folder / f"film.{suffix}", *looped, "-t", "14.4") for suffix in ("mkv", "ts")}


@pytest.fixture(scope="module")
def indexed(films: dict[str, Path]) -> Path:
    return films["mkv"]


def clips(detector: Detector, path: Path, **options: Any) -> list[Clip]:
    with detector.preprocessor.open(path, **options) as stream:
        return list(stream)


def faces(clip: Clip) -> dict[int, np.ndarray]:
    """Frame number -> box."""
    return {int(n): box for track in clip.tracks for n, box in zip(track.face_frames, track.boxes, strict=True)}


@pytest.mark.parametrize(("suffix", "decoded_from"), [("mkv", [3.0, 9.0]), ("ts", [3.0])])
def test_sampled_clips_are_those_of_the_whole_file(detector, films, suffix, decoded_from, monkeypatch):
    """Where an index leads to them, only they are decoded."""
    whole, asked = clips(detector, films[suffix]), []
    read = MediaReader.video

    def video(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        asked.append(window["start_seconds"])
        return read(self, **window, batch=7)  # as behind a gap: batches do not end where windows do

    monkeypatch.setattr(MediaReader, "video", video)
    some = clips(detector, films[suffix], sample=2)
    assert asked == decoded_from
    assert [clip.start_seconds for clip in whole] == [0, 3, 6, 9, 12]
    assert [clip.start_seconds for clip in some] == [3, 9]
    assert {track.track_id for track in whole[0].tracks} & {track.track_id for track in whole[1].tracks}, "one person"
    for clip in some:
        same = whole[int(clip.start_seconds / CLIP)]
        assert clip.duration_seconds == same.duration_seconds
        assert np.array_equal(clip.waveform.samples, same.waveform.samples)
        boxes, found = faces(same), faces(clip)
        assert len(found) >= 0.8 * len(boxes) > 0
        # Where a face is sought anew it is found a little elsewhere.
        assert all(np.allclose(box, boxes[n], atol=0.1 * (box[2] - box[0])) for n, box in found.items() if n in boxes)
        first = round(clip.start_seconds * FPS)
        assert first <= min(found) < first + 15, "no picture beside the window is in its clip"
        assert first + 60 < max(found) < first + 75


def test_a_sample_of_all_clips_is_the_whole_file(detector: Detector, indexed: Path) -> None:
    for sample in (0, 5):
        with detector.preprocessor.open(indexed, sample=sample) as stream:
            assert stream.windows == ()
    with pytest.raises(ConfigError, match="0 for all"):
        detector.score(SAMPLE, sample=-1)


def test_a_window_that_cannot_be_decoded_leaves_the_others(detector, indexed, monkeypatch):
    read = MediaReader.video

    def video(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        if window["start_seconds"] < 4:
            raise MediaError("damaged here")
        yield from read(self, **window)

    monkeypatch.setattr(MediaReader, "video", video)
    with detector.preprocessor.open(indexed, sample=2) as stream:
        first, second = stream
    assert not first.tracks
    assert second.tracks
    assert "the video cannot be decoded from 3 to 6 s: damaged here" in stream.warnings


def test_stretches_that_a_cut_file_lacks_are_not_said_to_be_judged(detector, indexed, tmp_path):
    """Of some six seconds, whose header states fourteen; a sample that finds nothing is no verdict."""
    path = encode(tmp_path / "cut.mp4", "-i", str(indexed), "-c", "copy", "-movflags", "+faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    found = detector.score(path, sample=2)
    ((start, end),) = found.windows
    assert (start, end) == (3, pytest.approx(5.7, abs=0.8))
    assert f"a sample was judged: 1 stretch, {end - start:.0f} of 14 s" in found.warnings[0]
    assert found.warnings[1].startswith("1 of 2 stretches hold nothing")
    with pytest.raises(MediaError, match="holds nothing where it was sampled"):
        detector.score(path, sample=1)


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
    monkeypatch.setattr(preprocess, "LONG_SECONDS", 5)
    monkeypatch.setattr(preprocess, "SAMPLED_CLIPS", 2)
    seen: list[tuple[float, float | None]] = []
    recorder, judged = Recorder(sample=2), Mock(wraps=judge)
    monkeypatch.setattr("avdetect.detector.judge", judged)
    found = detector.score(indexed, on_progress=lambda done, of: seen.append((done, of)), observer=recorder)
    assert found.reason.endswith(" (41 % of the file was judged)")
    assert "6.0 of 14." in str(render(found))
    assert found.windows == ((3, 6), (9, 12))
    assert judged.call_args.args[-1] == pytest.approx(6), "seconds, of which segments are a share"
    every = detector.bundle.info.preprocess.faces.crop_every
    assert recorder.evidence(detector, found).crop_seconds == pytest.approx(every / 25)
    assert "2 stretches, 6 of 15 s (41 %); --sample 0 judges all of it" in found.warnings[0]
    assert (found.start_seconds, found.duration_seconds) == (0, pytest.approx(14.5, abs=0.2))
    assert seen == [(3, 6), (6, 6)]
    assert {stream.name for stream in found.streams} == {"visual", "audio", "sync"}
    times = [t for stream in found.streams for curve in stream.curves for t in curve.times_seconds]
    assert times
    assert all(3 <= t <= 6 or 9 <= t <= 12 for t in times)
    # And the report shows what was not.
    evidence = recorder.evidence(detector, found)
    gaps = unseen(found)
    assert gaps == [(0, 3), (6, 9), (12, pytest.approx(14.5, abs=0.2))]
    page = render_page(evidence)
    assert page.count('class="unseen') == len(gaps) * 5  # face, voice, waveform, offset, confidence
    assert "--sample 2" in page
    assert evidence.sound is not None  # it starts with the first stretch, and what lies between takes its time
    assert (evidence.sound.start_seconds, evidence.sound.duration_seconds) == (3, pytest.approx(9, abs=0.1))


@pytest.mark.parametrize(("expected", "said"), [(58.0, "21 %"), (1200.0, "1 %"), (14_400.0, "0.1 %")])
def test_a_small_share_is_not_rounded_away(expected: float, said: str) -> None:
    assert _percent_judged(SimpleNamespace(judged=((12, 24),), expected_seconds=expected)) == said


def test_a_part_of_the_file_is_sampled_as_the_file_is(detector: Detector, indexed: Path) -> None:
    some = clips(detector, indexed, start_seconds=1, duration_seconds=9, sample=1)
    assert [(clip.start_seconds, clip.duration_seconds) for clip in some] == [(4, 3)]
    assert some[0].tracks[0].first_frame >= 4 * FPS
