"""The contract of Recorder: what a report shows of real files, and that an hour of it is as small as a minute."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import ToneNetworks, codes_of, make_track, talking_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from media_factory import encode
from readme_media import SAMPLE

from avdetect.audio import log_mel, mel_filters
from avdetect.config import ModelConfig
from avdetect.detector import Detector
from avdetect.report import sound
from avdetect.report.evidence import Evidence, Picture
from avdetect.report.match import MouthKeeper, sync_curves
from avdetect.report.moments import MomentKeeper
from avdetect.report.pictures import FRAME_BYTES, MAX_FRAMES, FrameStrip, jpeg
from avdetect.report.recorder import Recorder
from avdetect.report.sound import MAX_COLUMNS, Thinned
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.types import FPS, SAMPLE_RATE, Clip, Detection, VideoFrames


class Watching(Recorder):
    """Keeps what the networks said of each crop."""

    def scored(self, clip: Clip, outputs: StreamOutputs) -> None:
        self.points = outputs.visual
        super().scored(clip, outputs)


def evidence_of(detector: Detector, path: Path, recorder: Recorder | None = None, **window: float) -> Evidence:
    recorder = recorder or Recorder()
    with pytest.raises(ValueError, match="nothing was scored"):
        recorder.evidence(detector, None)  # type: ignore[arg-type]
    detection = detector.score(path, observer=recorder, **window)
    with pytest.raises(ValueError, match="one file"):
        recorder.opened(recorder._info)
    return recorder.evidence(detector, detection)


def pixels(picture: Picture) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.shape[:2] == (picture.height, picture.width)
    return found


def hold(evidence: Evidence) -> None:
    """What must be true of any evidence."""
    detection = evidence.detection
    begin, end = detection.start_seconds, detection.start_seconds + detection.duration_seconds
    seconds = [frame.seconds for frame in evidence.frames]
    assert seconds == sorted(set(seconds))
    assert len(seconds) <= MAX_FRAMES
    assert all(begin <= s < end for s in (*seconds, *(moment.seconds for moment in evidence.moments)))
    for frame in evidence.frames:
        assert max(pixels(frame.picture).shape) <= 480
        assert len(frame.picture.data) <= FRAME_BYTES
    tracks = {track.track_id for track in detection.tracks}
    assert {each.track_id for each in (*evidence.moments, *evidence.sync)} <= tracks
    if evidence.sound:
        assert evidence.sound.start_seconds == begin
        assert begin + evidence.sound.duration_seconds <= end + 0.04
        assert pixels(evidence.sound.mel).shape[1] <= MAX_COLUMNS
        assert all(-1 <= low <= high <= 1 for low, high in evidence.sound.peaks)
    if evidence.mouths:
        strip = pixels(evidence.mouths.picture)
        assert strip.shape[1] == strip.shape[0] * evidence.mouths.count
        assert begin <= evidence.mouths.start_seconds <= end - evidence.mouths.duration_seconds
    assert evidence.facts
    assert evidence.limits


def test_the_sample_shows_everything_with_the_extremes_of_its_track(detector: Detector, sample: Detection) -> None:
    recorder = Watching()
    found = evidence_of(detector, SAMPLE, recorder)
    hold(found)
    assert len(found.frames) > 20
    assert found.sound
    assert found.sound.duration_seconds == pytest.approx(6.16, abs=0.1)
    (curve,) = found.sync
    assert len(curve.points) >= 6
    assert found.mouths
    assert found.mouths.duration_seconds == 2
    for name in ("fake", "streams", "sync"):
        assert getattr(found.detection, name) == getattr(sample, name), "watching changes no score"
    (points,) = recorder.points.values()
    (most, second), (least, other) = ([m for m in found.moments if m.kind == kind] for kind in ("most", "least"))
    for moment, choose in ((most, max), (least, min)):
        seconds, logit = choose(points, key=lambda point: point[1])
        assert moment.seconds == seconds
        assert moment.probability == pytest.approx(detector.cause_probabilities("visual", [logit])[0])
    assert most.probability >= second.probability > other.probability >= least.probability
    assert abs(most.seconds - second.seconds) >= 1


def test_a_window_shows_the_window_each_time_alike(detector: Detector) -> None:
    found, again = (evidence_of(detector, SAMPLE, start_seconds=2.0, duration_seconds=3.0) for _ in range(2))
    hold(found)
    assert found.frames[0].seconds == 2.0
    assert found.sound
    assert found.mouths
    assert (found.sound.start_seconds, found.sound.duration_seconds) == (2.0, 3.0)
    for name in ("facts", "frames", "moments", "sound", "sync", "mouths", "limits"):
        assert getattr(again, name) == getattr(found, name), name


def test_what_is_not_there_is_not_shown(detector: Detector, tmp_path: Path) -> None:
    cut = ("-i", str(SAMPLE), "-t", "1.3", "-c", "copy")
    made = {
        **{"mute.mp4": (*cut, "-an"), "voice.m4a": (*cut, "-vn")},
        "bars.mp4": ("-f", "lavfi", "-i", "testsrc2=size=320x240:duration=1"),
    }
    mute, voice, bars = (evidence_of(detector, encode(tmp_path / name, *how)) for name, how in made.items())
    for found, gone in (
        (mute, ("sound", "sync", "mouths")),
        (voice, ("frames", "moments", "sync", "mouths")),
        (bars, ("moments", "sound", "sync", "mouths")),
    ):
        hold(found)
        shown = ("frames", "moments", "sound", "sync", "mouths")
        assert [name for name in shown if not getattr(found, name)] == [name for name in shown if name in gone]
    assert (bars.detection.verdict, bars.detection.fake) == ("abstain", None)
    assert all(reason in bars.detection.reason for reason in ("no face", "no audio stream"))


def test_two_people_come_in_the_order_of_their_suspicion(detector: Detector, tmp_path: Path) -> None:
    pair = ("-filter_complex", "[0:v]split[a][b];[b]hflip,gblur=2[c];[a][c]hstack")
    found = evidence_of(detector, encode(tmp_path / "two.mp4", "-i", str(SAMPLE), "-t", "1.5", *pair, "-c:a", "copy"))
    hold(found)
    visual = next(score for score in found.detection.streams if score.name == "visual")
    suspicion = {curve.track_id: curve.score for curve in visual.curves}
    assert len(suspicion) == 2
    shown = list(dict.fromkeys(moment.track_id for moment in found.moments))
    assert shown == sorted(suspicion, key=lambda track: -suspicion[track])


def test_an_hour_of_pictures_is_as_many_as_a_minute() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (480, 480, 3), np.uint8)
    assert len(jpeg(noise, FRAME_BYTES).data) <= FRAME_BYTES
    strip, counts = FrameStrip(), []
    for first in range(0, 3600 * FPS, 500):
        strip.add(VideoFrames(np.broadcast_to(noise[:30, :32, 0], (500, 30, 32)), first))
        counts.append(len(strip.frames()))
    assert max(counts) <= MAX_FRAMES
    assert min(counts[1:]) > MAX_FRAMES // 2 - 1
    steps = np.diff([frame.seconds for frame in strip.frames()])
    np.testing.assert_allclose(steps, steps[0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12).filter(any))
def test_thinned_rows_stand_for_what_was_added(lengths: list[int]) -> None:
    thinned = Thinned(64, lambda rows: rows.mean(1))
    series = np.arange(sum(lengths), dtype=np.float32)
    for part in np.split(series, np.cumsum(lengths)[:-1]):
        thinned.add(part)
    rows = thinned.rows()
    assert len(rows) <= 64
    assert len(rows) == -(-len(series) // thinned.step)
    expected = [series[i : i + thinned.step].mean() for i in range(0, len(series), thinned.step)]
    np.testing.assert_allclose(rows, expected)


def test_an_hour_of_faces_keeps_a_few_crops() -> None:
    keeper, outputs = MomentKeeper(), StreamOutputs()
    rng = np.random.default_rng(0)
    for clip_index in range(60):
        first = clip_index * 12 * FPS
        tracks = tuple(make_track(codes_of(50), first, track_id=3 * clip_index + i, size=16) for i in range(3))
        for track in tracks:
            logits = rng.normal(track.track_id % 7 - 3, 1, len(track.face_frames)).tolist()
            outputs.visual[track.track_id] += zip((track.face_frames / FPS).tolist(), logits, strict=True)
        keeper.add(Clip(first / FPS, 12.0, tracks, None), outputs)
        assert len(keeper._tracks) <= 8
        assert all(len(extremes.kept) <= 4 for track in keeper._tracks.values() for extremes in track)
    moments = keeper.moments(outputs, list)
    assert len({moment.track_id for moment in moments}) == 4
    for one, other in combinations(moments, 2):
        alike = (one.track_id, one.kind) == (other.track_id, other.kind)
        assert not alike or abs(one.seconds - other.seconds) >= 1, "neighbouring crops show the same"
    assert all(moment.track_id % 7 == 6 for moment in moments)  # the most suspicious of 180 tracks


def test_a_tone_is_a_line_at_its_height_and_its_time() -> None:
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.5 * np.sin(2 * np.pi * 3000 * time) * (time >= 1)).astype(np.float32)
    grey = sound.mel_picture(np.exp(log_mel(tone))).astype(int).sum(2)
    assert grey[:, :95].max() < 60  # silence is dark
    rows = grey[:, 150].argmax()
    band = mel_filters()[:, round(3000 / 8000 * 256)].argmax()
    assert abs((sound.MEL_HEIGHT - 1 - rows) // 2 - band) <= 1  # low frequencies are at the bottom
    # Silence is not stretched to full brightness.
    assert sound.mel_picture(np.exp(log_mel(np.zeros(SAMPLE_RATE, np.float32)))).max() < 20


def of_tones(*parts: Clip) -> tuple[StreamOutputs, MouthKeeper]:
    """Of clips whose mouths and voice state the same codes, by the networks of tests/clips.py."""
    scorer, keeper = StreamScorer(ToneNetworks(), ModelConfig()), MouthKeeper()
    outputs = scorer.start()
    for clip in parts:
        scorer.add(outputs, clip)
        keeper.add(clip, outputs)
    scorer.finish(outputs, {})
    return outputs, keeper


@pytest.mark.parametrize("lag", [-8, 5])
def test_the_curve_of_a_file_shows_its_delay_with_its_sign(lag: int) -> None:
    outputs, _ = of_tones(*(talking_clip(150, lag=lag, seed=i, start_frame=150 * i) for i in range(2)))
    (curve,) = sync_curves(outputs)
    assert [point.seconds for point in curve.points] == [i + 0.5 for i in range(12)]
    assert {point.offset_seconds for point in curve.points} == {lag / FPS}


def test_the_mouths_are_of_the_stretch_that_is_out_of_step() -> None:
    parts = [talking_clip(150, lag=lag, seed=i, start_frame=150 * i) for i, lag in enumerate((0, 9, 0))]
    outputs, keeper = of_tones(*parts)
    found = keeper.strip(outputs)
    assert found is not None
    assert 6 <= found.start_seconds < 12
    assert found.offset_seconds == 9 / FPS
    assert (found.count, found.duration_seconds) == (25, 2.0)
    first = round(found.start_seconds * FPS) - 150
    shown = [int(m.mean()) for m in np.split(pixels(found.picture), found.count, axis=1)]
    expected = parts[1].tracks[0].mouth_crops[first : first + 50 : 2, 0, 0]
    np.testing.assert_allclose(shown, expected, atol=6)
    outputs, keeper = of_tones(talking_clip(10))  # without a reading there is nothing to show
    assert (keeper.strip(outputs), sync_curves(outputs)) == (None, ())
