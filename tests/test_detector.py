"""From a file to a Detection with the default bundle: the verdict's parts, missing streams, windows, and parity with
training."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from media_factory import RENDERER
from readme_media import SAMPLE

import avdetect
from avdetect.config import MediaLimits
from avdetect.datasets.cache.build import Options, preprocess
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import validate
from avdetect.detector import Detector
from avdetect.errors import ConfigError, MediaError
from avdetect.faces import build_detector
from avdetect.preprocess import Preprocessor
from avdetect.scoring import StreamOutputs, StreamScorer, audio_mel
from avdetect.speech import speech_mask
from avdetect.types import FPS, HOP, SAMPLE_RATE, Detection
from avdetect.verdict import verdict_of


@pytest.fixture(scope="module")
def detector() -> Detector:
    return avdetect.load_detector(device="cpu")


@pytest.fixture(scope="module")
def sample(detector: Detector) -> Detection:
    return detector.score(SAMPLE)


def make(target: Path, *options: str) -> Path:
    subprocess.run([RENDERER, "-v", "error", "-y", *options, str(target)], check=True)
    return target


def test_the_sample_gets_a_whole_detection(sample: Detection) -> None:
    assert sample.verdict == verdict_of(sample.fake, sample.undecided_threshold, sample.fake_threshold)
    assert 0 < sample.undecided_threshold < sample.fake_threshold < 1
    assert sample.limit == "A score is not proof: do not accuse, block, punish or publish on the strength of it."
    for name, rate in sample.rates.items():
        assert rate.probability <= getattr(sample, name)
    assert set(sample.rates) == {"fake", "video_fake", "audio_fake", "mismatch"}
    assert all(0 < p < 1 for p in (sample.fake, sample.video_fake, sample.audio_fake))
    assert [s.name for s in sample.streams] == ["visual", "audio", "sync"]
    assert sample.missing == {}
    assert sample.warnings == ()
    assert sample.duration_seconds == pytest.approx(6.16, abs=0.05)
    for stream in sample.streams:
        (curve,) = stream.curves
        assert curve.score == stream.score
        assert all(t % 1 == 0.5 for t in curve.times_seconds)  # the middles of whole seconds
        assert set(np.diff(curve.times_seconds)) == {1.0}
        assert len(curve.values) >= 5
    assert sample.model["face_detector"] == "mtcnn"
    assert set(sample.timing_seconds) == {"probe", "decode", "faces", "networks", "total"}


def test_the_same_file_gets_the_same_score(detector: Detector, sample: Detection) -> None:
    again = detector.score(SAMPLE)
    assert again.fake == pytest.approx(sample.fake, abs=1e-6)
    assert again.streams == sample.streams


@pytest.mark.parametrize("name", ["a.mov", "a.mkv", "a.m2ts", "a.flv", "a.avi"])
def test_the_same_streams_in_another_wrapping_get_the_same_scores(
    detector: Detector, sample: Detection, tmp_path: Path, name: str
) -> None:
    """Some containers put the picture a frame or two behind the sound: the same pictures are judged all the same."""
    path = make(tmp_path / name, "-i", str(SAMPLE), "-c", "copy")
    found = detector.score(path)
    for part in ("fake", "video_fake", "audio_fake"):
        assert getattr(found, part) == pytest.approx(getattr(sample, part), abs=0.02), part


def test_without_sound_only_the_face_is_judged(detector: Detector, tmp_path: Path) -> None:
    found = detector.score(make(tmp_path / "mute.mp4", "-i", str(SAMPLE), "-an", "-c", "copy"))
    assert found.missing == {"audio": "no audio stream", "sync": "no audio stream"}
    assert found.audio_fake is None
    assert 0 < found.video_fake < 1
    assert found.sync is None


def test_silence_is_no_voice(detector: Detector, tmp_path: Path) -> None:
    found = detector.score(make(tmp_path / "silent.mp4", "-i", str(SAMPLE), "-af", "volume=0", "-c:v", "copy"))
    assert found.missing["audio"] == "silent"
    assert found.audio_fake is None


def test_without_picture_only_the_voice_is_judged(detector: Detector, tmp_path: Path) -> None:
    found = detector.score(make(tmp_path / "voice.m4a", "-i", str(SAMPLE), "-vn", "-c", "copy"))
    assert found.missing == {"visual": "no video stream", "sync": "no video stream"}
    assert found.video_fake is None
    assert 0 < found.audio_fake < 1


def test_without_face_and_voice_it_abstains(detector: Detector, tmp_path: Path) -> None:
    found = detector.score(make(tmp_path / "bars.mp4", "-f", "lavfi", "-i", "testsrc2=size=320x240:duration=2"))
    assert found.verdict == "abstain"
    assert found.fake is None
    assert "no face" in found.reason
    assert "no audio stream" in found.reason


def test_audio_that_starts_late_comes_out_as_an_offset(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    late = make(tmp_path / "late.mkv", "-i", str(SAMPLE), "-itsoffset", "0.4", "-i", str(SAMPLE),
                "-map", "0:v", "-map", "1:a", "-c", "copy")  # fmt: skip
    found = detector.score(late)
    assert found.sync.offset_seconds - sample.sync.offset_seconds == pytest.approx(0.4, abs=0.041)


def test_a_rotated_phone_video_is_scored_upright(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    turned = make(tmp_path / "turned.mp4", "-i", str(SAMPLE), "-vf", "transpose=1", "-c:a", "copy")
    phone = make(tmp_path / "phone.mp4", "-display_rotation:v:0", "90", "-i", str(turned), "-c", "copy")
    found = detector.score(phone)
    assert "visual" not in found.missing
    assert found.video_fake == pytest.approx(sample.video_fake, abs=0.2)


def test_a_variable_frame_rate_keeps_the_clock(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    vfr = make(tmp_path / "vfr.mp4", "-i", str(SAMPLE), "-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "vfr",
               "-c:a", "copy")  # fmt: skip
    found = detector.score(vfr)
    assert found.duration_seconds == pytest.approx(sample.duration_seconds, abs=0.1)
    assert found.sync.offset_seconds == pytest.approx(sample.sync.offset_seconds, abs=0.041)


def test_a_truncated_file_is_scored_or_refused(detector: Detector, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.mkv", "-i", str(SAMPLE), "-c", "copy")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found = detector.score(cut)
    assert 0.5 < found.duration_seconds < 5
    headless = tmp_path / "cut.mp4"  # an MP4 whose index, at its end, is gone
    headless.write_bytes(make(tmp_path / "tail.mp4", "-i", str(SAMPLE), "-c", "copy").read_bytes()[:20000])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        detector.score(headless)


def test_a_playlist_in_disguise_reaches_nothing(detector: Detector, tmp_path: Path) -> None:
    fake = tmp_path / "clip.mp4"
    fake.write_text("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        detector.score(fake)


def test_a_window_shows_what_the_whole_shows_there(detector: Detector) -> None:
    whole = {c.start_seconds: c for c in detector.preprocessor.clips(SAMPLE)}[0.0]
    with detector.preprocessor.open(SAMPLE, 2.0, 2.0) as stream:
        (part,) = list(stream)
    assert (part.start_seconds, part.duration_seconds) == (2.0, 2.0)
    samples = whole.waveform.samples[2 * SAMPLE_RATE : 4 * SAMPLE_RATE]
    np.testing.assert_array_equal(part.waveform.samples, samples)
    (track,) = part.tracks
    assert track.first_frame == 2 * FPS
    assert len(track.mouth_crops) == 2 * FPS
    assert track.face_frames.min() >= 2 * FPS
    assert track.face_frames.max() < 4 * FPS


def test_training_sees_what_the_detector_sees(detector: Detector, tmp_path: Path) -> None:
    """The parity that most detectors lack: one file through the training cache and through the Detector."""

    class Recorder:
        """Networks that keep what they are given."""

        def __init__(self) -> None:
            self.seen: dict[str, list[np.ndarray]] = {}

        def __getattr__(self, graph: str):
            def run(array: np.ndarray) -> np.ndarray:
                self.seen.setdefault(graph, []).append(array.copy())
                return getattr(detector.networks, graph)(array)

            return run

    info = detector.bundle.info
    row = {"path": str(SAMPLE), "fake": 0, "video_fake": 0, "audio_fake": 0, "group": "a", "split": "train"}
    table = validate(pd.DataFrame([row | {"dataset": "sample", "method": ""}]))
    assert preprocess(table, tmp_path, info.preprocess, Options()).failures.empty
    archive = ClipArchive(tmp_path)
    cached = [archive.load(clip) for clip in range(len(archive))]
    tensors = []
    for clips in (cached, detector.preprocessor.clips(SAMPLE)):
        recorder = Recorder()
        scorer, outputs = StreamScorer(recorder, info.model), StreamOutputs()
        for clip in clips:
            scorer.add(outputs, clip)
        tensors.append(recorder.seen)
    assert set(tensors[0]) == {"visual", "speech", "audio", "mouth", "voice"}
    for graph in tensors[0]:
        for a, b in zip(tensors[0][graph], tensors[1][graph], strict=True):
            np.testing.assert_array_equal(a, b)
    samples = cached[0].waveform.samples
    size = round(info.model.audio.window_seconds * SAMPLE_RATE)
    mel = audio_mel(samples[:size], speech_mask(samples)[: size // HOP], info.model.audio)
    np.testing.assert_array_equal(tensors[0]["speech"][0][0], mel)


def test_a_long_file_is_scored_clip_by_clip(detector: Detector, tmp_path: Path) -> None:
    """A file is scored clip by clip: 12 s at a time, the track keeping its id across the boundary."""
    long = make(tmp_path / "long.mp4", "-stream_loop", "2", "-i", str(SAMPLE), "-t", "15", "-c", "copy")
    with detector.preprocessor.open(long) as stream:
        clips = list(stream)
    assert [c.start_seconds for c in clips] == [0.0, 12.0]
    assert clips[0].duration_seconds == 12.0
    assert {t.track_id for t in clips[0].tracks} & {t.track_id for t in clips[1].tracks}
    assert detector.score(long).duration_seconds == pytest.approx(15, abs=0.2)


@pytest.mark.parametrize("window", [(-1.0, None), (float("inf"), None), (float("nan"), None), (0.0, -2.0)])
def test_a_window_that_is_none_is_refused(detector: Detector, window: tuple[float, float | None]) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        detector.score(SAMPLE, start_seconds=window[0], duration_seconds=window[1])


def test_a_window_behind_the_end_is_an_error(detector: Detector) -> None:
    with pytest.raises(MediaError, match="ends before 100 s"):
        detector.score(SAMPLE, start_seconds=100)


def test_curves_are_in_the_units_of_their_cause(detector: Detector, sample: Detection) -> None:
    """The default fusion is a noisy-or: the whole of the voice's curve is what its cause says, and both rise alike."""
    visual, audio, sync = sample.streams
    assert audio.curves[0].probability == pytest.approx(sample.audio_fake, abs=1e-4)
    assert max(curve.probability for curve in visual.curves) == pytest.approx(sample.video_fake, abs=1e-4)
    for curve in (*visual.curves, *audio.curves):
        assert len(curve.probabilities) == len(curve.values)
        by_value = [p for _, p in sorted(zip(curve.values, curve.probabilities, strict=True))]
        assert by_value == sorted(curve.probabilities)
        assert len(set(by_value)) > 1
    assert all(not curve.probabilities and curve.probability is None for curve in sync.curves)
    low, high = detector.cause_probabilities("visual", [-50.0, 50.0])
    clip = detector.bundle.info.calibration.clip
    assert (low, high) == (pytest.approx(clip), pytest.approx(1 - clip)), "within the clip, as the cards"
    assert detector.cause_probabilities("audio", []) == []


def test_tracks_say_who_and_when(sample: Detection) -> None:
    (track,) = sample.tracks
    assert track.start_seconds == 0
    assert track.end_seconds == pytest.approx(6, abs=0.2)
    x0, y0, x1, y1 = track.box
    assert 60 < x1 - x0 < 480
    assert 60 < y1 - y0 < 480
    visual = next(s for s in sample.streams if s.name == "visual")
    assert [c.track_id for c in visual.curves] == [track.track_id]
    assert visual.score == visual.curves[0].score


def test_a_face_model_needs_its_detector(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--detector"):
        avdetect.load_detector(face_model=tmp_path / "scrfd.onnx")


def test_broken_audio_leaves_the_face(detector: Detector, tmp_path: Path) -> None:
    """One half that cannot be decoded is missing with a warning; the other half is judged."""
    whole = make(tmp_path / "whole.avi", "-i", str(SAMPLE), "-t", "2", "-c:v", "mpeg4", "-q:v", "3", "-c:a", "ac3")
    data = bytearray(whole.read_bytes())
    at = 0
    while (at := data.find(b"01wb", at)) >= 0:  # every audio chunk of the AVI
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 8 : at + 8 + size] = bytes(size)
        at += 8 + size
    broken = tmp_path / "broken.avi"
    broken.write_bytes(data)
    found = detector.score(broken)
    assert found.missing["audio"] == "the audio track gives no sound"  # ffmpeg finds no frame, and nothing wrong
    assert found.warnings
    assert 0 < found.video_fake < 1


def test_another_face_detector_warns(detector: Detector) -> None:
    class Renamed:
        name, min_confidence = "another", 0.9

        def __init__(self) -> None:
            self.inner = build_detector("mtcnn")

        def __getattr__(self, name: str):
            return getattr(self.inner, name)

    info = detector.bundle.info
    other = Detector(detector.bundle, Preprocessor(info.preprocess, Renamed(), MediaLimits()), detector.networks)
    (warning,) = other.score(SAMPLE, duration_seconds=1).warnings
    assert "another" in warning
    assert "mtcnn" in warning
