"""Forged voices: what must stay equal to the original (length, level, time, everything outside the segments), and that
the rest has changed."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import log_mel, rms
from avdetect.datasets.forgeries import sounds, vocoders
from avdetect.datasets.forgeries.audio import AUDIO, TAKES_OTHER, ForgedSound
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL, NEEDS_OTHER, drift, offset
from avdetect.types import SAMPLE_RATE, SAMPLES_PER_FRAME, Float

ALL = {**AUDIO, **AUDIOVISUAL}
COPIES = ("griffin_lim", "world", "lpc", "formant", "pitch")  # same words, same time
WORTH = settings(deadline=None, max_examples=15, derandomize=True)


def voice(seconds: float, seed: int = 0, level: float = 0.1) -> Float:
    """The samples of `syllables` at an RMS of `level`."""
    sound = syllables(seconds, seed)
    return (sound / np.sqrt(np.mean(sound**2)) * level).clip(-1, 1).astype(np.float32)


@cache
def syllables(seconds: float, seed: int) -> np.ndarray:
    """A buzz with a moving pitch through three moving resonances, opened four times a second, and hisses between."""
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    pitch = rng.uniform(110, 200) * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * time) + 0.02 * np.sin(2 * np.pi * 5 * time))
    turns = np.cumsum(pitch) / SAMPLE_RATE
    centres = [(500, 200, 1.7), (1500, 500, 1.1), (2700, 200, 0.7)]
    formants = [middle + swing * np.sin(2 * np.pi * speed * time + seed) for middle, swing, speed in centres]
    buzz = np.zeros(count)
    for number in range(1, int(7500 / pitch.max())):
        gains = sum(1 / (1 + ((number * pitch - formant) / 120) ** 2) for formant in formants)
        buzz += (gains + 0.01) * np.sin(2 * np.pi * number * turns)
    places = np.sort(rng.uniform(0, seconds, max(2, round(4 * seconds))))
    open_ = sum(np.exp(-(((time - place) / 0.07) ** 2)) for place in places)
    return buzz * open_ + rng.standard_normal(count) * (0.02 + 0.1 * np.abs(np.sin(2 * np.pi * 2.3 * time + seed)) ** 8)


def decibels(forged: Float, samples: Float) -> float:
    return 20 * float(np.log10(rms(forged) / rms(samples)))


def outside(result: ForgedSound) -> np.ndarray:
    """True where no segment lies."""
    untouched = np.ones(len(result.samples), bool)
    for start, stop in result.segments:
        assert 0 <= start < stop <= len(result.samples) / SAMPLE_RATE
        untouched[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)] = False
    return untouched


def lag_ms(forged: Float, samples: Float, reach: int = 12) -> int:
    """Milliseconds by which the forged sound is late: the shift that makes the log-mels most alike."""
    shifts = range(-reach, reach + 1)
    return shifts[int(np.argmax([alike(np.roll(forged, -16 * shift), samples) for shift in shifts]))]


def alike(forged: Float, samples: Float) -> float:
    """Correlation of the log-mels."""
    return float(np.corrcoef(log_mel(forged).ravel(), log_mel(samples).ravel())[0, 1])


def test_the_names_are_those_the_recipes_use() -> None:
    assert set(AUDIO) == {"griffin_lim", "world", "lpc", "pitch", "formant", "tempo", "splice", "partial"}
    assert set(AUDIOVISUAL) == {"offset", "other_voice", "drift"}
    assert set(AUDIOVISUAL) >= NEEDS_OTHER


@pytest.mark.parametrize("name", ALL)
@given(
    seed=st.integers(0, 2**31),
    seconds=st.sampled_from([0.25, 0.5, 0.61803, 1.0, 2.0]),
    level=st.sampled_from([0.0005, 0.01, 0.1, 0.2]),
)
@settings(deadline=None, max_examples=5, derandomize=True)
def test_what_every_forgery_keeps(name: str, seed: int, seconds: float, level: float) -> None:
    samples, other = voice(seconds, seed % 3, level), voice(1.1, 50, 0.03)
    before, other_before = samples.copy(), other.copy()
    result = ALL[name](samples, np.random.default_rng(seed), other)
    assert np.array_equal(samples, before)
    assert np.array_equal(other, other_before)
    forged = result.samples
    assert forged.shape == samples.shape
    assert forged.dtype == np.float32
    assert np.isfinite(forged).all()
    assert np.abs(forged).max() <= 1
    assert len(result.segments) == 1
    untouched = outside(result)
    assert np.array_equal(forged[untouched], samples[untouched])
    assert np.mean(forged[~untouched] != samples[~untouched]) > 0.9
    assert abs(decibels(forged[~untouched], samples[~untouched])) < (3 if name == "splice" else 1)
    assert abs(float(forged.mean() - samples.mean())) < 0.03 * level
    again = ALL[name](samples, np.random.default_rng(seed), other)
    assert np.array_equal(again.samples, forged)
    assert again.segments == result.segments


@pytest.mark.parametrize("name", [name for name in ALL if name not in NEEDS_OTHER])
def test_no_other_voice_is_needed(name: str) -> None:
    assert ALL[name](voice(0.6), np.random.default_rng(0), None).segments


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_says_the_same_words_at_the_same_time(name: str) -> None:
    lags, likeness = [], []
    for seed in range(6):
        samples = voice(1.0, seed % 3)
        forged = AUDIO[name](samples, np.random.default_rng(seed), None).samples
        lags.append(lag_ms(forged, samples))
        likeness.append(alike(forged, samples))
    assert max(np.abs(lags)) <= (8 if name == "pitch" else 4), "10 ms is a quarter of a video frame"
    assert abs(float(np.median(lags))) <= 2
    assert min(likeness) > (0.7 if name in ("formant", "pitch") else 0.85)
    assert max(likeness) < 0.9995, "a copy that leaves no trace has the wrong label"


def test_the_lag_measure_sees_a_lag() -> None:
    samples = voice(1.0)
    assert lag_ms(np.roll(samples, 160), samples) == 10


@pytest.mark.parametrize("name", [*COPIES, "tempo"])
def test_no_silence_leads_or_ends_a_forgery(name: str) -> None:
    samples = speech(1.0)
    for seed in range(4):
        forged = AUDIO[name](samples, np.random.default_rng(seed), None).samples
        for end in (slice(None, 160), slice(-160, None)):
            assert rms(forged[end]) > 0.2 * rms(samples[end])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["clipped", "noise", "tone", "biased", "tiny", "half silent", "click"])
def test_strange_sound_is_forged_sanely(name: str, kind: str) -> None:
    count = SAMPLE_RATE
    time = np.arange(count) / SAMPLE_RATE
    sounds_ = {
        "clipped": np.clip(voice(1.0) * 30, -1, 1),
        "noise": np.random.default_rng(1).uniform(-1, 1, count),
        "tone": 0.5 * np.sin(2 * np.pi * 220 * time),
        "biased": voice(1.0, level=0.02) + 0.5,
        "tiny": voice(1.0, level=3e-5),
        "half silent": voice(1.0) * (time > 0.5),
        "click": np.eye(1, count, 8000)[0],
    }
    samples = sounds_[kind].astype(np.float32)
    for seed in range(2):
        result = ALL[name](samples, np.random.default_rng(seed), voice(0.7, 3))
        assert np.isfinite(result.samples).all()
        assert np.abs(result.samples).max() <= 1
        untouched = outside(result)
        assert np.array_equal(result.samples[untouched], samples[untouched])
        assert abs(float(result.samples.mean() - samples.mean())) < 0.01
        if kind == "biased":
            assert result.samples.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
def test_silence_comes_back_unforged_and_says_so(name: str, value: float) -> None:
    samples = np.full(SAMPLE_RATE, value, np.float32)
    result = ALL[name](samples, np.random.default_rng(0), voice(1.0))
    assert result.segments == ()
    assert np.array_equal(result.samples, samples)


@pytest.mark.parametrize("name", ALL)
def test_bad_sound_is_refused(name: str) -> None:
    rng, other = np.random.default_rng(0), voice(1.0)
    with pytest.raises(ValueError, match=r"0\.188 s of sound is too short"):
        ALL[name](voice(0.1875), rng, other)
    for bad in (np.zeros((2, 8000), np.float32), np.full(8000, np.nan, np.float32)):
        with pytest.raises(ValueError, match="finite"):
            ALL[name](bad, rng, other)


@pytest.mark.parametrize("other", [None, np.zeros(SAMPLE_RATE, np.float32)])
def test_other_voice_needs_a_voice(other: Float | None) -> None:
    with pytest.raises(ValueError, match="another clip"):
        AUDIOVISUAL["other_voice"](voice(1.0), np.random.default_rng(0), other)


@given(seed=st.integers(0, 2**31), seconds=st.floats(0.5, 3))
@WORTH
def test_an_offset_is_the_own_sound_moved_by_whole_frames(seed: int, seconds: float) -> None:
    samples = speech(seconds, seed % 5)
    forged = offset(samples, np.random.default_rng(seed)).samples
    fits = {k: np.mean(np.abs(np.roll(samples, 640 * k) - forged) < 1e-3) for k in range(-25, 26)}
    frames = min((k for k, share in fits.items() if share > 0.9), key=abs)
    assert 2 <= abs(frames) <= max(2, len(samples) / SAMPLES_PER_FRAME / 2)


def test_offsets_go_both_ways_and_lag_where_positive() -> None:
    samples = np.zeros(4 * SAMPLE_RATE, np.float32)
    samples[30000:30100] = 0.5
    moves = {int(np.argmax(offset(samples, np.random.default_rng(s)).samples)) - 30000 for s in range(60)}
    assert min(moves) < -SAMPLES_PER_FRAME < SAMPLES_PER_FRAME < max(moves)
    assert all(move % SAMPLES_PER_FRAME == 0 and abs(move) <= 25 * SAMPLES_PER_FRAME for move in moves)


@pytest.mark.parametrize("seed", range(4))
def test_a_drift_slides_steadily(seed: int) -> None:
    samples = np.zeros(4 * SAMPLE_RATE, np.float32)
    samples[16000::16000] = 0.8  # clicks at 1, 2 and 3 s
    forged = drift(samples, np.random.default_rng(seed)).samples
    found = [16000 * k + int(np.argmax(forged[16000 * k - 4000 : 16000 * k + 4000])) - 4000 for k in (1, 2, 3)]
    slips = np.array(found) - np.array([16000, 32000, 48000])
    assert 0.015 < abs(slips[0]) / 16000 < 0.09
    np.testing.assert_allclose(slips / slips[0], [1, 2, 3], atol=0.03)


@given(seed=st.integers(0, 2**31), start=st.integers(0, 7999), count=st.integers(1, 30000))
@WORTH
def test_a_loop_has_no_jump(seed: int, start: int, count: int) -> None:
    samples = np.sin(np.arange(8000) * 2 * np.pi * 100.3 / SAMPLE_RATE).astype(np.float32)
    out = sounds.looped(samples, start, count, np.random.default_rng(seed))
    assert len(out) == count
    assert np.abs(np.diff(out)).max(initial=0) < 0.06, "the tone itself moves by at most 0.04 a sample"


@pytest.mark.parametrize("name", ["splice", "partial"])
def test_segments_have_no_click_at_their_edges(name: str) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 100.3 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    for seed in range(12):
        result = ALL[name](tone, np.random.default_rng(seed), None)
        for edge in (round(second * SAMPLE_RATE) for second in result.segments[0]):
            around = result.samples[max(edge - 2, 0) : edge + 2]
            assert np.abs(np.diff(around)).max(initial=0) < 0.015, "a hard cut would jump by up to 0.6"


def test_segments_lie_where_somebody_speaks() -> None:
    samples = voice(6.0)
    samples[: 4 * SAMPLE_RATE] *= 0.001
    starts = [AUDIO["splice"](samples, np.random.default_rng(s), None).segments[0] for s in range(20)]
    assert all(stop > 4.0 for _, stop in starts)


def test_splices_take_from_the_other_voice_too() -> None:
    tone = (0.1 * np.sin(2 * np.pi * 3000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    shares = [
        np.abs(np.fft.rfft(AUDIO["splice"](voice(1.0), np.random.default_rng(s), tone).samples))[3000]
        for s in range(20)
    ]
    assert 0 < sum(share > 100 for share in shares) < 20


def test_frames_and_their_inverse_give_the_sound_back() -> None:
    samples = voice(0.7)
    for length in (320, 512, 1024, 2048):
        assert (
            np.abs(sounds.istft(sounds.stft(samples, length, length), length, length, len(samples)) - samples).max()
            < 1e-5
        )
        wide = sounds.istft(sounds.stft(samples, length, 4 * length), length, 4 * length, len(samples))
        assert np.abs(wide - samples).max() < 1e-5


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.2])
def test_stretching_keeps_pitch_and_place(rate: float) -> None:
    samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    samples[SAMPLE_RATE:] *= 0.1
    out = vocoders.stretched(samples, rate, 1024)
    assert len(out) == round(len(samples) / rate)
    half = len(out) // 2
    assert np.argmax(np.abs(np.fft.rfft(out[:half]))) * SAMPLE_RATE / half == pytest.approx(440, abs=2)
    level = np.sqrt(np.convolve(out**2, np.ones(160) / 160, "same"))
    assert np.argmax(level < 0.12) / SAMPLE_RATE == pytest.approx(1 / rate, abs=0.02)


def test_griffin_lim_converges_to_the_magnitudes_it_is_given() -> None:
    """With more iterations the mel of the copy comes closer to the mel of the sound."""
    samples = voice(1.0)
    distances = []
    for seed in range(8):
        forged = AUDIO["griffin_lim"](samples, np.random.default_rng(seed), None).samples
        distances.append(float(np.abs(log_mel(forged) - log_mel(samples)).mean()))
    assert max(distances) < 1.3
    noise = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32) * 0.1
    assert float(np.abs(log_mel(noise) - log_mel(samples)).mean()) > 2


def test_forgeries_travel_to_worker_processes() -> None:
    """A DataLoader that spawns its workers sends the table to them."""
    assert set(pickle.loads(pickle.dumps(ALL))) == set(ALL)  # noqa: S301 - our own bytes


def test_an_lpc_copy_adds_no_rumble() -> None:
    """Pulses of one sign once left a line below 60 Hz through the whole copy, silent gaps included."""
    samples = voice(2.0)
    quiet = log_mel(samples)[:, 0]
    for seed in range(12):
        forged = AUDIO["lpc"](samples, np.random.default_rng(seed), None).samples
        assert np.median(log_mel(forged)[:, 0] - quiet) < 1.0, f"seed {seed}"


@pytest.mark.parametrize("name", sorted(ALL))
def test_who_takes_from_another_voice_is_named(name: str) -> None:
    """`NEEDS_OTHER` and `TAKES_OTHER` say whose groups a forgery joins: all others do not look at `other`."""
    noise = np.random.default_rng(9).standard_normal(2 * SAMPLE_RATE).astype(np.float32) * 0.1
    changed = 0
    for seed in range(1 if name not in NEEDS_OTHER | TAKES_OTHER else 8):
        one, two = (
            ALL[name](voice(1.0), np.random.default_rng(seed), other).samples for other in (noise, noise[::-1].copy())
        )
        changed += not np.array_equal(one, two)
    assert (changed > 0) == (name in NEEDS_OTHER | TAKES_OTHER)


def test_other_voice_leaves_the_choice_of_the_speaker_to_the_caller() -> None:
    assert "the caller chooses" in " ".join((AUDIOVISUAL["other_voice"].__doc__ or "").split())
