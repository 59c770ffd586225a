"""From a file to a Detection with the default bundle: the verdict's parts, missing streams, windows, and parity with
training."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import PoolHere
from manifests import manifest_of
from media_factory import encode
from readme_media import SAMPLE

import avdetect
from avdetect.config import MediaLimits
from avdetect.datasets.cache.build import Options, preprocess
from avdetect.datasets.clips import ClipArchive
from avdetect.detector import Detector
from avdetect.errors import ConfigError, MediaError
from avdetect.faces.mtcnn import MTCNN
from avdetect.media import MediaReader
from avdetect.preprocess import Preprocessor
from avdetect.scoring import StreamOutputs, StreamScorer, audio_mel
from avdetect.speech import speech_mask
from avdetect.types import FPS, HOP, SAMPLE_RATE, Detection
from avdetect.verdict import verdict_of


def test_the_sample_gets_a_whole_detection(sample: Detection) -> None:
    assert sample.verdict == verdict_of(sample.fake, sample.undecided_threshold, sample.fake_threshold)
    assert 0 < sample.undecided_threshold < sample.fake_threshold < 1
    assert sample.limit.startswith("A score is not proof")
    for name, rate in sample.rates.items():
        assert rate.probability <= getattr(sample, name)
    assert set(sample.rates) == {"fake", "video_fake", "audio_fake", "mismatch"}
    assert all(0 < p < 1 for p in (sample.fake, sample.video_fake, sample.audio_fake))
    assert [s.name for s in sample.streams] == ["visual", "audio", "sync"]
    assert sample.missing == {}
    voice = [segment for segment in sample.segments if segment.stream == "audio"]
    assert (voice[0].start_seconds, voice[-1].end_seconds) == (0.0, sample.duration_seconds)
    assert sample.warnings == ()
    assert sample.duration_seconds == pytest.approx(6.16, abs=0.05)
    for stream in sample.streams:
        (curve,) = stream.curves
        assert curve.score == stream.score
        assert all(t % 1 == 0.5 for t in curve.times_seconds)  # the middles of whole seconds
        assert set(np.diff(curve.times_seconds)) == {1.0}
        assert len(curve.values) >= 5
    (track,) = sample.tracks
    assert (track.start_seconds, track.end_seconds) == (0, pytest.approx(6, abs=0.2))
    assert all(60 < side < 480 for side in np.subtract(track.box[2:], track.box[:2]))
    assert sample.streams[0].curves[0].track_id == track.track_id
    assert sample.model["face_detector"] == "mtcnn"
    assert set(sample.timing_seconds) == {"probe", "decode", "faces", "networks", "total"}


def test_the_same_streams_in_another_wrapping_get_the_same_scores(detector, sample, tmp_path):
    """Some containers put the picture a frame or two behind the sound: the same pictures are judged all the same."""
    found = detector.score(encode(tmp_path / "a.m2ts", "-i", str(SAMPLE), "-c", "copy"))
    for part in ("fake", "video_fake", "audio_fake"):
        assert getattr(found, part) == pytest.approx(getattr(sample, part), abs=0.02), part


@pytest.mark.parametrize(
    ("name", "options", "missing", "judged"),
    [
        ("mute.mp4", ("-an", "-c", "copy"), {"audio": "no audio stream", "sync": "no audio stream"}, "video_fake"),
        ("silent.mp4", ("-af", "volume=0", "-c:v", "copy"), {"audio": "silent", "sync": "silent"}, "video_fake"),
        ("voice.m4a", ("-vn", "-c", "copy"), {"visual": "no video stream", "sync": "no video stream"}, "audio_fake"),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_judged(detector, tmp_path, name, options, missing, judged):
    found = detector.score(encode(tmp_path / name, "-t", "1", "-i", str(SAMPLE), *options))
    assert found.missing == missing
    known = {cause for cause in ("video_fake", "audio_fake", "mismatch") if getattr(found, cause) is not None}
    assert (known, found.sync) == ({judged}, None)
    assert 0 < getattr(found, judged) < 1


def test_audio_that_starts_late_comes_out_as_an_offset(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    sample_twice = ("-i", str(SAMPLE), "-itsoffset", "0.4", "-i", str(SAMPLE))
    found = detector.score(encode(tmp_path / "late.mkv", *sample_twice, "-map", "0:v", "-map", "1:a", "-c", "copy"))
    assert found.video_fake == pytest.approx(sample.video_fake, abs=1e-4)
    assert found.sync.offset_seconds - sample.sync.offset_seconds == pytest.approx(0.4, abs=0.041)


def test_a_window_shows_what_the_whole_shows_there(detector: Detector) -> None:
    with detector.preprocessor.open(SAMPLE, 2.0, 2.0) as stream, MediaReader(SAMPLE) as reader:
        (part,) = list(stream)
        (whole,) = reader.audio(12.0)
    assert (part.start_seconds, part.duration_seconds) == (2.0, 2.0)
    np.testing.assert_array_equal(part.waveform.samples, whole.samples[2 * SAMPLE_RATE : 4 * SAMPLE_RATE])
    (track,) = part.tracks
    assert track.first_frame == 2 * FPS
    assert len(track.mouth_crops) == 2 * FPS
    assert track.face_frames.min() >= 2 * FPS
    assert track.face_frames.max() < 4 * FPS


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open shard of a worker
def test_training_sees_what_the_detector_sees(detector, tmp_path, monkeypatch):
    """The parity that most detectors lack: one file through the training cache and through the Detector."""

    class Recorder:
        """Networks that keep what they are given."""

        def __init__(self) -> None:
            self.seen: dict[str, list[np.ndarray]] = defaultdict(list)

        def __getattr__(self, graph: str) -> Callable[[np.ndarray], np.ndarray]:
            return lambda array: self.seen[graph].append(array.copy()) or getattr(detector.networks, graph)(array)

    info = detector.bundle.info
    monkeypatch.setattr("avdetect.datasets.cache.build.Pool", PoolHere)
    short = encode(tmp_path / "short.mp4", "-t", "2", "-i", str(SAMPLE), "-c", "copy")
    assert preprocess(manifest_of([short]), tmp_path / "cache", info.preprocess, Options()).failures.empty
    archive = ClipArchive(tmp_path / "cache")
    cached = [archive.load(clip) for clip in range(len(archive))]
    tensors = []
    for clips in (cached, detector.preprocessor.clips(short)):
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


def test_a_window_that_is_none_is_refused(detector: Detector) -> None:
    for start, duration in ((-1.0, None), (float("nan"), None), (0.0, -2.0), (0.0, 0.0)):
        with pytest.raises(ConfigError, match="seconds"):
            detector.score(SAMPLE, start_seconds=start, duration_seconds=duration)
    with pytest.raises(MediaError, match="ends before 100 s"):
        detector.score(SAMPLE, start_seconds=100.0)


def test_a_stretch_alone_makes_a_file_undecided(detector: Detector) -> None:
    info = detector.bundle.info
    strict = replace(info.calibration, fake_threshold=0.9999, undecided_threshold=0.9999)
    bundle = replace(detector.bundle, info=replace(info, calibration=strict))
    found = Detector(bundle, detector.preprocessor, detector.networks).score(SAMPLE, duration_seconds=3)
    assert found.verdict == "undecided"
    assert found.reason == "the voice stands out from 0.0 to 3.0 s, though the file as a whole does not"


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


def test_another_face_detector_warns(detector: Detector) -> None:
    class Renamed(MTCNN):
        name = "another"

    with pytest.raises(ConfigError, match="--detector"):
        avdetect.load_detector(face_model=Path("scrfd.onnx"))  # which needs its detector
    info = detector.bundle.info
    other = Detector(detector.bundle, Preprocessor(info.preprocess, Renamed(), MediaLimits()), detector.networks)
    (warning,) = other.score(SAMPLE, duration_seconds=3).warnings
    assert "another" in warning
    assert "mtcnn" in warning


def test_a_voice_that_says_little_is_judged_with_a_warning(detector: Detector) -> None:
    (warning,) = detector.score(SAMPLE, duration_seconds=1).warnings
    assert re.fullmatch(r"the voice was judged by [01]\.\d s of speech, less than the model .* \(1\.6 s\): .*", warning)
    assert not detector.score(SAMPLE, duration_seconds=4).warnings
