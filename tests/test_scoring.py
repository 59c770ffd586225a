"""Clips to stream outputs with networks whose answer is known: offsets, windows, and reasons for what is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from clips import ToneNetworks, codes_of, make_track, speech, talking_clip, tones
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import MIN_AUDIO_SECONDS, N_MELS, log_mel
from avdetect.config import AudioConfig, ModelConfig
from avdetect.pooling import FEATURES
from avdetect.scoring import (
    SYNC_FRAMES,
    SYNC_MELS,
    StreamOutputs,
    StreamScorer,
    audio_windows,
    mouth_windows,
    voice_windows,
)
from avdetect.speech import level
from avdetect.types import HOP, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, Waveform

AUDIO = AudioConfig()


def score(*clips: Clip, missing: dict[str, str] | None = None, networks: ToneNetworks | None = None) -> StreamOutputs:
    scorer = StreamScorer(networks or ToneNetworks(), ModelConfig(audio=AUDIO))
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, clip)
    return scorer.finish(outputs, missing or {})


# -- sync, from pixels and samples


@pytest.mark.parametrize("lag", [-15, -10, -1, 0, 1, 5, 15])
def test_sound_that_comes_late_is_a_positive_offset(lag: int) -> None:
    outputs = score(talking_clip(75, lag=lag))
    found = outputs.sync_reading()
    assert found is not None
    track, reading = found
    assert track == 0
    assert reading.offset_seconds == lag / 25
    assert reading.min_distance < 0.2
    assert reading.confidence > 0.5
    assert outputs.missing == {}


def test_silence_before_the_voice_is_a_lag() -> None:
    """DESIGN section 1: audio that starts 0.4 s late comes out as an offset of 0.4 s."""
    codes = codes_of(75)
    late = np.concatenate([np.zeros(10 * SAMPLES_PER_FRAME, np.float32), tones(codes)])[: 75 * SAMPLES_PER_FRAME]
    outputs = score(Clip(0, 3, (make_track(codes),), Waveform(late)))
    found = outputs.sync_reading()
    assert found is not None
    assert found[1].offset_seconds == pytest.approx(0.4)


@pytest.mark.parametrize(("face_from", "sound_from"), [(0, 10), (10, 0), (30, 22), (300, 300)])
def test_one_clock_for_face_and_sound(face_from: int, sound_from: int) -> None:
    """A face and a waveform that begin at different times, each at its right place, are in step."""
    codes = codes_of(100)
    begin = min(face_from, sound_from)
    track = make_track(codes[face_from - begin :][:60], face_from)
    wave = Waveform(tones(codes[sound_from - begin :]), sound_from / 25)
    outputs = score(Clip(begin / 25, 4, (track,), wave))
    found = outputs.sync_reading()
    assert found is not None
    assert found[1].offset_seconds == 0
    assert found[1].min_distance < 0.2
    seconds = [second for second, _ in found[1].curve]
    assert face_from / 25 - 1 < seconds[0] <= seconds[-1] < (face_from + 60) / 25 + 1, "on the file's clock"


def test_a_file_in_two_clips_reads_like_one() -> None:
    codes, heard = codes_of(120), codes_of(120)
    heard[3:] = codes[:-3]  # 3 frames late
    parts = [
        Clip(b / 25, 60 / 25, (make_track(codes[b : b + 60], b),), Waveform(tones(heard[b : b + 60]), b / 25))
        for b in (0, 60)
    ]
    outputs = score(*parts)
    found = outputs.sync_reading()
    assert found is not None
    assert found[1].offset_seconds == 3 / 25
    assert found[1].curve[-1][0] == 4.5
    assert [round(s, 2) for s, _ in outputs.visual[0]] == [i / 5 for i in range(24)]


def test_of_two_faces_the_one_who_speaks_is_measured() -> None:
    clip = talking_clip(75, lag=2)
    listener = make_track(np.zeros(75, int), track_id=9)
    found = score(dataclasses.replace(clip, tracks=(listener, *clip.tracks))).sync_reading()
    assert found is not None
    assert found[0] == 0
    assert found[1].offset_seconds == 2 / 25


# -- what is missing


def test_everything_present() -> None:
    networks = ToneNetworks(visual_logit=1.5, audio_logit=-0.5)
    outputs = score(talking_clip(75), networks=networks)
    assert outputs.missing == {}
    assert outputs.visual_logit() == pytest.approx(1.5 * 15 / 20)  # 15 crops beside a prior of 5
    assert outputs.audio_logit() == pytest.approx(-0.5)
    vector = dict(zip(FEATURES, outputs.features().tolist(), strict=True))
    assert vector["visual_logit"] == pytest.approx(1.5 * 15 / 20)
    assert [vector[n] for n in ("has_visual", "has_audio", "has_sync")] == [1, 1, 1]
    assert networks.calls == {"visual": 15, "audio": 2, "mouth": 71, "voice": 71}


def test_silent_audio_is_missing_not_neutral() -> None:
    clip = talking_clip(75)
    networks = ToneNetworks()
    silent = dataclasses.replace(clip, waveform=Waveform(np.zeros(75 * SAMPLES_PER_FRAME, np.float32)))
    outputs = score(silent, missing={"audio": "silent"}, networks=networks)
    assert outputs.missing == {"audio": "silent", "sync": "silent"}
    assert outputs.audio_logit() is None
    assert networks.calls["audio"] == networks.calls["voice"] == 0
    assert outputs.features()[-3:].tolist() == [1, 0, 0]


@pytest.mark.parametrize("loudness", [1e-3, 0.3])
def test_without_speech_neither_voice_nor_match_is_judged(loudness: float) -> None:
    hiss = loudness * np.random.default_rng(0).standard_normal(75 * SAMPLES_PER_FRAME)
    networks = ToneNetworks()
    clip = dataclasses.replace(talking_clip(75), waveform=Waveform(hiss.astype(np.float32)))
    outputs = score(clip, networks=networks)
    assert outputs.missing == {"audio": "no speech", "sync": "no speech"}
    assert networks.calls["audio"] == networks.calls["voice"] == 0
    assert outputs.speech_seconds == 0


def test_too_little_speech_is_said() -> None:
    outputs = StreamOutputs(speech_seconds=0.3)
    missing = StreamScorer(ToneNetworks(), ModelConfig(audio=AUDIO)).finish(outputs, {"audio": "silent"}).missing
    assert missing["audio"] == "less than 0.4 s of speech", "heard, whatever the level of the whole"


def test_seconds_of_speech_add_up_over_clips() -> None:
    sound, pause = speech(3.0), np.zeros(3 * SAMPLE_RATE, np.float32)
    outputs = score(*(Clip(3 * i, 3, (), Waveform(x, 3.0 * i)) for i, x in enumerate((sound, pause, sound))))
    assert outputs.speech_seconds == pytest.approx(6, abs=0.2)


def test_no_audio_stream() -> None:
    outputs = score(dataclasses.replace(talking_clip(75), waveform=None), missing={"audio": "no audio stream"})
    assert outputs.missing == {"audio": "no audio stream", "sync": "no audio stream"}
    assert outputs.visual_logit() is not None


def test_no_face() -> None:
    outputs = score(dataclasses.replace(talking_clip(75), tracks=()), missing={"video": "no face"})
    assert outputs.missing == {"visual": "no face", "sync": "no face"}
    assert outputs.features()[-3:].tolist() == [0, 1, 0]


def test_reasons_when_the_input_gives_none() -> None:
    assert score().missing == {"visual": "no face", "audio": "no speech", "sync": "no speech"}
    clip = talking_clip(75)
    short = score(dataclasses.replace(clip, tracks=(make_track(codes_of(75)[:23]),)))  # 19 windows
    assert set(short.missing) == {"sync"}
    assert "1 s" in short.missing["sync"]


def test_a_clip_shorter_than_half_a_second() -> None:
    outputs = score(talking_clip(8))
    assert set(outputs.missing) == {"audio", "sync"}
    assert outputs.visual_logit() == pytest.approx(1.5 * 2 / 7)  # two crops beside a prior of five


def test_a_track_shorter_than_a_sync_window_does_no_harm() -> None:
    clip = talking_clip(75)
    brief = make_track(np.arange(SYNC_FRAMES - 1), track_id=4)
    outputs = score(dataclasses.replace(clip, tracks=(*clip.tracks, brief)))
    assert set(outputs.visual) == {0, 4}
    assert set(outputs.sync) == {0}


def test_a_track_without_face_crops_still_has_lips() -> None:
    track = talking_clip(75).tracks[0]
    bare = {n: getattr(track, n)[:0] for n in ("face_crops", "face_frames", "boxes", "landmarks", "confidences")}
    clip = dataclasses.replace(talking_clip(75), tracks=(dataclasses.replace(track, **bare),))
    outputs = score(clip, missing={})
    assert set(outputs.missing) == {"visual"}


# -- windows of the audio stream


def waveform(samples: int, start: float = 0.0) -> Waveform:
    return Waveform(speech(samples / SAMPLE_RATE + 0.01)[:samples], start)


def everywhere(wave: Waveform) -> np.ndarray:
    return np.ones(len(wave.samples) // HOP, bool)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 7 * SAMPLE_RATE))
def test_windows_cover_the_whole_waveform(count: int) -> None:
    wave = waveform(count)
    centres, mels = audio_windows(wave, everywhere(wave), AUDIO)
    assert len(centres) == len(mels)
    if count < MIN_AUDIO_SECONDS * SAMPLE_RATE:
        assert centres == []
        return
    half = min(AUDIO.window_seconds, count / SAMPLE_RATE) / 2
    assert centres[0] - half == pytest.approx(0, abs=1e-6)
    assert centres[-1] + half == pytest.approx(count / SAMPLE_RATE, abs=1e-6)
    assert (np.diff(centres) <= AUDIO.stride_seconds + 1e-6).all()
    assert (np.diff(centres) > 0).all(), "no window twice"
    assert len({m.shape for m in mels}) == 1


def test_the_tail_is_heard() -> None:
    samples = np.zeros(int(3.5 * SAMPLE_RATE), np.float32)
    samples[-8000:] = speech(0.5)
    mask = np.arange(350) >= 300
    centres, mels = audio_windows(Waveform(samples), mask, AUDIO)
    assert centres == [2.5]
    np.testing.assert_array_equal(mels[0], log_mel(level(samples[-2 * SAMPLE_RATE :], mask[-200:])))


def test_windows_stand_on_the_clock_of_the_file() -> None:
    waves = waveform(48_000), waveform(48_000, 12.4)
    plain, later = (audio_windows(wave, everywhere(wave), AUDIO) for wave in waves)
    assert plain[0] == [1.0, 2.0]
    assert later[0] == pytest.approx([13.4, 14.4])
    np.testing.assert_array_equal(plain[1], later[1])


def test_windows_without_speech_are_left_out() -> None:
    wave = waveform(6 * SAMPLE_RATE)
    centres, _ = audio_windows(wave, np.arange(600) >= 300, AUDIO)
    assert centres == [3.0, 4.0, 5.0]
    centres, _ = audio_windows(wave, np.arange(600) >= 361, AUDIO)
    assert centres == [4.0, 5.0], "0.39 s of speech is too little"


def test_a_window_is_a_log_mel_of_its_samples() -> None:
    wave = waveform(48_000)
    mels = audio_windows(wave, everywhere(wave), AUDIO)[1]
    assert mels[0].shape == (200, N_MELS)
    window = wave.samples[SAMPLE_RATE : 3 * SAMPLE_RATE]
    np.testing.assert_array_equal(mels[1], log_mel(level(window, np.ones(200, bool))))


# -- windows of the sync stream


@pytest.mark.parametrize(("frames", "count"), [(0, 0), (4, 0), (5, 1), (6, 2), (50, 46)])
def test_voice_windows_begin_on_video_frames(frames: int, count: int) -> None:
    wave = waveform(frames * SAMPLES_PER_FRAME + 100)
    windows, valid = voice_windows(wave, everywhere(wave))
    assert windows.shape == (count, SYNC_MELS, N_MELS)
    assert windows.dtype == np.float32
    assert valid.shape == (count,)
    mels = log_mel(level(wave.samples, everywhere(wave)))
    for i in range(count):
        np.testing.assert_array_equal(windows[i], mels[4 * i : 4 * i + SYNC_MELS])


def test_voice_windows_without_speech_are_not_valid() -> None:
    _, valid = voice_windows(waveform(2 * SAMPLE_RATE), np.arange(200) >= 100)
    np.testing.assert_array_equal(np.flatnonzero(~valid), np.arange(23))  # of window 23 eight frames of 20 are before


def test_mouth_windows_hold_five_frames_each() -> None:
    crops = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    crops[:, 0, 2] = 99
    windows = mouth_windows(crops)
    assert windows.shape == (4, 5, 3, 3)
    assert windows.flags.c_contiguous
    np.testing.assert_array_equal(windows[2, :, 1, 1], [2, 3, 4, 5, 6])
    assert (windows[:, :, 0, 2] == 99).all(), "rows and columns keep their places"


def test_mouth_and_voice_windows_of_a_span_are_as_many() -> None:
    clip = talking_clip(60)
    assert clip.waveform is not None
    windows, _ = voice_windows(clip.waveform, everywhere(clip.waveform))
    assert len(mouth_windows(clip.tracks[0].mouth_crops)) == len(windows) == 56
