"""Clips to stream outputs with networks whose answer is known: offsets, windows, and reasons for what is missing."""

import dataclasses

import numpy as np
import pytest
from clips import CODES, FIRST_BAND, MOUTH_FRAMES, ToneNetworks, codes_of, make_track, speech, talking_clip, tones
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import MIN_AUDIO_SECONDS, N_MELS, log_mel
from avdetect.config import AudioConfig, FusionConfig, ModelConfig
from avdetect.pooling import FEATURES, SyncReading, per_second
from avdetect.scoring import (
    MIN_FACE_SIDE,
    STAND_STILL,
    WINDOWS_AT_ONCE,
    StreamOutputs,
    StreamScorer,
    audio_windows,
    spread,
    voice_by_frame,
    voice_stretches,
)
from avdetect.speech import level
from avdetect.types import HOP, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, Float, Waveform

AUDIO = AudioConfig()


def score(
    *clips: Clip, missing: dict[str, str] | None = None, networks: ToneNetworks | None = None, **config
) -> StreamOutputs:
    scorer = StreamScorer(networks or ToneNetworks(), ModelConfig(**({"audio": AUDIO} | config)))
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, clip)
    return scorer.finish(outputs, missing or {})


def reading(outputs: StreamOutputs, track: int = 0) -> SyncReading:
    found = outputs.sync_reading()
    assert found is not None
    assert found[0] == track
    return found[1]


# -- sync, from pixels and samples


@pytest.mark.parametrize("lag", [-15, 0, 5])
def test_sound_that_comes_late_is_a_positive_offset(lag: int) -> None:
    outputs = score(talking_clip(75, lag=lag))
    found = reading(outputs)
    assert found.offset_seconds == lag / 25
    assert found.min_distance < 0.2
    assert found.confidence > 0.5
    assert outputs.missing == {}


@pytest.mark.parametrize(("face_from", "sound_from"), [(0, 10), (300, 292)])
def test_one_clock_for_face_and_sound(face_from: int, sound_from: int) -> None:
    """A face and a waveform that begin at different times, each at its right place, are in step."""
    codes = codes_of(100)
    begin = min(face_from, sound_from)
    track = make_track(codes[face_from - begin :][:75], face_from)
    wave = Waveform(tones(codes[sound_from - begin :]), sound_from / 25)
    found = reading(score(Clip(begin / 25, 4, (track,), wave)))
    assert found.offset_seconds == 0
    assert found.min_distance < 0.2
    seconds = [second for second, _ in found.curve]
    assert face_from / 25 - 1 < seconds[0] <= seconds[-1] < (face_from + 75) / 25 + 1, "on the file's clock"


def test_a_file_in_two_clips_reads_like_one() -> None:
    codes, heard = codes_of(120), codes_of(120)
    heard[3:] = codes[:-3]  # 3 frames late
    parts = [
        Clip(b / 25, 60 / 25, (make_track(codes[b : b + 60], b),), Waveform(tones(heard[b : b + 60]), b / 25))
        for b in (0, 60)
    ]
    outputs = score(*parts)
    assert reading(outputs).offset_seconds == 3 / 25
    assert reading(outputs).curve[-1][0] == 4.5
    assert [round(s, 2) for s, _ in outputs.visual[0]] == [i / 5 for i in range(24)]


def test_of_two_faces_the_one_who_speaks_is_measured() -> None:
    clip = talking_clip(75, lag=2)
    listener = make_track(np.zeros(75, int), track_id=9)
    outputs = score(dataclasses.replace(clip, tracks=(listener, *clip.tracks)))
    assert reading(outputs).offset_seconds == 2 / 25
    assert outputs.missing == {}
    assert set(outputs.readings) == {0}
    alone = score(dataclasses.replace(clip, tracks=(listener,)))
    assert alone.missing == {"sync": STAND_STILL}
    assert alone.features()[-3:].tolist() == [1, 1, 0]


# -- what is missing


def test_everything_present_with_so_many_crops_of_a_clip_at_most() -> None:
    networks = ToneNetworks(visual_logit=1.5, audio_logit=-0.5)
    outputs = score(talking_clip(75), networks=networks)
    assert outputs.missing == {}
    assert outputs.visual_logit() == pytest.approx(1.5)
    assert outputs.audio_logit() == pytest.approx(-0.5)
    vector = dict(zip(FEATURES, outputs.features().tolist(), strict=True))
    assert vector["visual_logit"] == pytest.approx(1.5)
    assert [vector[n] for n in ("has_visual", "has_audio", "has_sync")] == [1, 1, 1]
    assert networks.calls == {"visual": 15, "speech": 2, "audio": 2, "mouth": 75, "voice": 2}
    networks = ToneNetworks()
    score(talking_clip(75), networks=networks, visual=dataclasses.replace(ModelConfig().visual, crops=6))
    assert networks.calls["visual"] == 6


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(0, 60), most=st.integers(0, 20))
def test_spread_numbers_are_in_order_and_even(count: int, most: int) -> None:
    numbers = np.arange(count) * 3 + 7
    found = spread(numbers, most)
    assert len(found) == (min(count, most) if most else count)
    assert np.isin(found, numbers).all()
    gaps = np.diff((found - 7) // 3)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


HISS = (0.3 * np.random.default_rng(0).standard_normal(75 * SAMPLES_PER_FRAME)).astype(np.float32)


@pytest.mark.parametrize(
    ("wave", "missing", "reason"),
    [
        (Waveform(np.zeros(75 * SAMPLES_PER_FRAME, np.float32)), {"audio": "silent"}, "silent"),
        (Waveform(HISS), {}, "no speech"),
        (None, {"audio": "no audio stream"}, "no audio stream"),
    ],
)
def test_without_speech_neither_voice_nor_match_is_judged(wave, missing, reason):
    networks = ToneNetworks()
    outputs = score(dataclasses.replace(talking_clip(75), waveform=wave), missing=missing, networks=networks)
    assert outputs.missing == {"audio": reason, "sync": reason}
    assert networks.calls["speech"] == networks.calls["audio"] == networks.calls["voice"] == 0
    assert (outputs.speech_seconds, outputs.audio_logit()) == (0, None)
    assert outputs.features()[-3:].tolist() == [1, 0, 0]


def test_reasons_of_the_picture_and_of_too_little_speech() -> None:
    clip = talking_clip(75)
    outputs = score(dataclasses.replace(clip, tracks=()), missing={"video": "no picture"})
    assert outputs.missing == {"visual": "no picture", "sync": "no picture"}
    assert outputs.features()[-3:].tolist() == [0, 1, 0]
    assert score().missing == {"visual": "no face", "audio": "no speech", "sync": "no speech"}
    short = score(dataclasses.replace(clip, tracks=(make_track(codes_of(75)[:61]),)))
    assert short.missing == {"sync": "less than 2.5 s of a face with voice"}
    assert score(dataclasses.replace(clip, tracks=(make_track(codes_of(75)[:62]),))).missing == {}
    scorer, heard = StreamScorer(ToneNetworks(), ModelConfig(audio=AUDIO)), StreamOutputs(speech_seconds=0.3)
    missing = scorer.finish(heard, {"audio": "silent"}).missing
    assert missing["audio"] == "less than 0.4 s of speech", "heard, whatever the level of the whole"


class BandNetworks(ToneNetworks):
    """The audio logit goes from -4 to 4 with the share of frames in which the highest tone sounds."""

    def audio(self, frames: Float) -> Float:
        assert super().audio(frames) is not None
        heard = frames[:, :, 0, FIRST_BAND - 1 :].argmax(2) // 2 == CODES - 1
        return (8 * heard.mean(1) - 4).astype(np.float32)


def test_each_stretch_of_a_window_is_judged_by_itself() -> None:
    """Two seconds of one voice, then two of another, from second 7 on; the last windows overlap."""
    wave = Waveform(tones(np.repeat([0, CODES - 1], 50)), 7.0)
    audio = AudioConfig("whisper-tiny.en", frozen=True, window_seconds=2.0, stride_seconds=0.8, stretch_seconds=0.8)
    outputs = score(Clip(7.0, 4.0, (), wave), networks=BandNetworks(), audio=audio)
    starts, ends, logits = np.array(outputs.stretches).T
    assert ends - starts == pytest.approx(0.8)
    assert (starts.min(), ends.max()) == pytest.approx((7, 11))
    later = np.clip(ends - 9, 0, 0.8) / 0.8  # share of a stretch that is the second voice
    assert logits == pytest.approx(8 * later - 4, abs=1.2), "a fifth of a second beside it would be 2"
    assert len(outputs.audio) == 4, "the score is of whole windows"
    whole = dataclasses.replace(audio, stretch_seconds=None)
    outputs = score(Clip(7.0, 4.0, (), wave), networks=BandNetworks(), audio=whole)
    assert [logit for _, _, logit in outputs.stretches] == outputs.audio
    assert [(start, end) for start, end, _ in outputs.stretches] == [(7, 9), (7.8, 9.8), (8.6, 10.6), (9, 11)]


def test_a_stretch_without_speech_is_not_judged_and_a_short_sound_is_one() -> None:
    audio = AudioConfig("whisper-tiny.en", frozen=True, window_seconds=2.0, stretch_seconds=0.8)
    wave = Waveform(tones(np.full(50, 3)))
    silent_end = np.arange(200) < 100  # of the log-mel frames
    (window,) = audio_windows(wave, silent_end, audio)
    frames = window.mel[:, None]
    found = voice_stretches(ToneNetworks(), window, frames, 1.0, silent_end, audio)
    assert [start for start, _, _ in found] == [0.0, 0.2, 0.4, 0.6], "the next one would hold less than 0.4 s"
    short = Waveform(tones(np.full(15, 3)), 5.0)
    (window,) = audio_windows(short, everywhere(short), audio)
    found = voice_stretches(ToneNetworks(), window, window.mel[:, None], 1.0, everywhere(short), audio)
    assert found == [(5.0, pytest.approx(5.6), 1.0)], "repeated to fill a window, but no longer than it is"


@pytest.mark.parametrize("stream", ["visual", "audio", "sync"])
def test_a_stream_of_which_nothing_was_learned_is_left_out_and_says_so(stream: str) -> None:
    networks = ToneNetworks()
    outputs = score(talking_clip(75), networks=networks, fusion=FusionConfig(silent=(stream,)))
    assert outputs.missing == {stream: "the model learned nothing of it"}
    unused = {"visual": {"visual"}, "audio": {"audio"}, "sync": {"mouth", "voice"}}[stream]
    assert {name for name, count in networks.calls.items() if not count} == unused


def test_the_most_suspicious_track_speaks_for_the_file() -> None:
    real, fake = ([(second, logit) for second in range(4)] for logit in (-4.0, 2.0))
    assert StreamOutputs("mean", {1: real, 2: fake}).visual_logit() == pytest.approx(0.5)
    assert StreamOutputs("mean", {1: real}).visual_logit() == pytest.approx(-4.0)
    assert StreamOutputs().visual_logit() is None


def test_short_clips_and_tracks_do_no_harm() -> None:
    brief = score(talking_clip(8))
    assert set(brief.missing) == {"audio", "sync"}
    assert brief.visual_logit() == pytest.approx(1.5)
    clip = talking_clip(75)
    brief_track = make_track(np.arange(MOUTH_FRAMES - 1), track_id=4)
    outputs = score(dataclasses.replace(clip, tracks=(*clip.tracks, brief_track)))
    assert (set(outputs.visual), set(outputs.sync)) == ({0, 4}, {0})
    track = clip.tracks[0]  # one without face crops still has lips
    bare = {n: getattr(track, n)[:0] for n in ("face_crops", "face_frames", "boxes", "landmarks", "confidences")}
    assert set(score(dataclasses.replace(clip, tracks=(dataclasses.replace(track, **bare),))).missing) == {"visual"}


def test_small_faces_are_not_judged_and_their_size_is_said() -> None:
    clip = talking_clip(75)
    (track,) = clip.tracks
    largest = float((track.boxes[:, 2:] - track.boxes[:, :2]).max())
    for side, judged in ((MIN_FACE_SIDE - 1, False), (MIN_FACE_SIDE, True)):
        scale = np.float32(side / largest)
        sized = dataclasses.replace(track, boxes=track.boxes * scale, landmarks=track.landmarks * scale)
        outputs = score(dataclasses.replace(clip, tracks=(sized,)))
        assert (outputs.visual_logit() is not None) == judged
        assert judged or outputs.missing["visual"] == "face too small to judge (63 px; needs 64)"
        assert outputs.sync_reading() is not None, "lip-sync is another matter"


def test_speech_is_encoded_once_a_few_windows_at_a_time() -> None:
    """For voice and match together, and not at all for what no stream asks for."""
    shapes: list[int] = []
    clip, networks = talking_clip(300), ToneNetworks()
    encode = networks.speech
    networks.speech = lambda mels: shapes.append(len(mels)) or encode(mels)
    score(clip, networks=networks)
    assert sum(shapes) == networks.calls["audio"] == networks.calls["voice"] == 11
    assert max(shapes) == WINDOWS_AT_ONCE
    for streams, faces, calls in (
        (("visual", "audio"), clip.tracks, (11, 11, 0)),
        (("visual", "sync"), clip.tracks, (11, 0, 11)),
        (("visual", "sync"), (), (0, 0, 0)),
    ):
        networks = ToneNetworks()
        score(dataclasses.replace(clip, tracks=faces), networks=networks, streams=streams)
        assert tuple(networks.calls[name] for name in ("speech", "audio", "voice")) == calls


# -- windows of speech


def waveform(samples: int, start: float = 0.0) -> Waveform:
    return Waveform(speech(samples / SAMPLE_RATE + 0.01)[:samples], start)


def everywhere(wave: Waveform) -> np.ndarray:
    return np.ones(len(wave.samples) // HOP, bool)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 7 * SAMPLE_RATE), st.sampled_from([1.0, 0.5, 0.33]))
def test_windows_cover_the_whole_waveform(count: int, stride: float) -> None:
    wave = waveform(count, 12.4)
    windows = audio_windows(wave, everywhere(wave), dataclasses.replace(AUDIO, stride_seconds=stride))
    if count < MIN_AUDIO_SECONDS * SAMPLE_RATE:
        assert windows == []
        return
    length = min(AUDIO.window_seconds, count / SAMPLE_RATE)
    starts = [window.start_seconds - 12.4 for window in windows]
    assert windows[0].start_frame == 0
    assert starts == pytest.approx([window.start_frame / 25 for window in windows])
    assert count / SAMPLE_RATE - 1 / 25 < starts[-1] + length <= count / SAMPLE_RATE + 1e-6, "but for part of a frame"
    assert (np.diff(starts) <= stride + 1 / 25 + 1e-6).all()
    assert (np.diff(starts) > 0).all(), "no window twice"
    assert {window.mel.shape for window in windows} == {(200, N_MELS)}
    assert {window.frames for window in windows} == {min(count, 2 * SAMPLE_RATE) // SAMPLES_PER_FRAME}


def test_the_tail_is_heard_and_a_window_is_a_log_mel_of_its_samples() -> None:
    samples = np.zeros(int(3.5 * SAMPLE_RATE), np.float32)
    samples[-8000:] = speech(0.5)
    mask = np.arange(350) >= 300
    (window,) = audio_windows(Waveform(samples), mask, AUDIO)
    assert (window.start_frame, window.start_seconds) == (37, 1.48), "1.5 s is no whole number of frames"
    np.testing.assert_array_equal(window.mel, log_mel(level(samples[23_680:55_680], mask[148:348])))


@pytest.mark.parametrize("frames", [20, 130])
def test_a_frame_is_taken_from_the_window_in_whose_middle_it_stands(frames: int) -> None:
    wave = waveform(frames * SAMPLES_PER_FRAME + 100)
    windows = audio_windows(wave, everywhere(wave), AUDIO)
    marks = [np.stack([np.full(50, i), np.arange(50)], axis=1).astype(np.float32) for i in range(len(windows))]
    voice, valid = voice_by_frame(windows, marks, everywhere(wave))
    assert voice.shape == (frames, 2)
    assert valid.all()
    for frame, (chosen, place) in enumerate(voice.tolist()):
        assert windows[int(chosen)].start_frame + place == frame, "each window at its own place"
        away = [abs(frame - w.start_frame - (w.frames - 1) / 2) for w in windows]
        assert away[int(chosen)] == min(away)


def test_frames_without_speech_or_window_are_not_valid() -> None:
    wave = waveform(6 * SAMPLE_RATE)
    mask = np.arange(600) >= 401
    mask[10:12] = True  # spoken to, but in no window with enough of it
    windows = audio_windows(wave, mask, AUDIO)
    voice, valid = voice_by_frame(windows, [np.zeros((50, 2), np.float32) for _ in windows], mask)
    assert len(voice) == 150
    np.testing.assert_array_equal(np.flatnonzero(valid), np.arange(100, 150))


def test_a_judged_picture_stands_for_the_time_around_it() -> None:
    """Else the curve of a face, of which few pictures are judged, would have a gap after every second."""
    outputs = StreamOutputs()
    outputs.boxes[0] = [(k * 0.4, np.zeros(4)) for k in range(45)]  # 18 s, of which the last are beyond any judged one
    outputs.hidden[0] = [0.4]
    outputs.visual[0] = [(1.6, 5.0), (4.8, -1.0), (8.0, -2.0)]
    points = outputs.face_points(0)
    assert [second for second, _ in points] == pytest.approx([k * 0.4 for k in range(28) if k != 1])
    assert [logit for _, logit in points] == [5.0] * 8 + [-1.0] * 8 + [-2.0] * 11
    assert set(per_second(points)) == set(range(11))
