"""Forged voices: what must stay equal to the original (length, level, time, everything outside the segments), and that
the rest has changed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import log_mel, rms
from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL, NEEDS_OTHER, TAKES_OTHER, ForgedSound
from avdetect.types import SAMPLE_RATE, SAMPLES_PER_FRAME, Float

ALL = {**AUDIO, **AUDIOVISUAL}
COPIES = ("griffin_lim", "world", "pitch")  # same words, same time


def voice(seconds: float, seed: int = 0, level: float = 0.1) -> Float:
    """Speech at an RMS of `level`."""
    sound = speech(seconds, seed)
    return (sound / rms(sound) * level).clip(-1, 1).astype(np.float32)


def forge(name: str, samples: Float, seed: int = 0, other: Float | None = None) -> ForgedSound:
    return ALL[name](samples, np.random.default_rng(seed), other)


def check(result: ForgedSound, samples: Float) -> np.ndarray:
    """What holds of every forgery; True where a segment lies."""
    inside = np.zeros(len(samples), bool)
    for start, stop in result.segments:
        assert 0 <= start < stop <= len(samples) / SAMPLE_RATE
        inside[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)] = True
    assert (result.samples.shape, result.samples.dtype) == (samples.shape, np.float32)
    assert np.abs(result.samples).max() <= 1
    assert np.array_equal(result.samples[~inside], samples[~inside])
    return inside


def alike(forged: Float, samples: Float) -> float:
    """Correlation of the log-mels."""
    return float(np.corrcoef(log_mel(forged).ravel(), log_mel(samples).ravel())[0, 1])


@pytest.mark.parametrize("name", ALL)
@given(
    seed=st.integers(0, 2**31),
    seconds=st.sampled_from([0.25, 0.61803, 1.2]),
    level=st.sampled_from([0.0005, 0.01, 0.2]),
)
@settings(deadline=None, max_examples=3, derandomize=True)
def test_what_every_forgery_keeps(name: str, seed: int, seconds: float, level: float) -> None:
    samples, other = voice(seconds, seed % 3, level), voice(1.1, 50, 0.03)
    before, other_before = samples.copy(), other.copy()
    result = forge(name, samples, seed, other)
    assert np.array_equal(samples, before)
    assert np.array_equal(other, other_before)
    forged, inside = result.samples, check(result, samples)
    assert len(result.segments) == 1
    assert np.mean(forged[inside] != samples[inside]) > 0.9
    level_change = 20 * np.log10(rms(forged[inside]) / rms(samples[inside]))
    assert abs(level_change) < (3 if name == "splice" else 1)
    assert abs(float(forged.mean() - samples.mean())) < 0.03 * level
    again = forge(name, samples, seed, other)
    assert np.array_equal(again.samples, forged)
    assert again.segments == result.segments


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_says_the_same_words_at_the_same_time(name: str) -> None:
    samples = voice(1.0)
    forged = forge(name, samples).samples
    lag = int(np.argmax([alike(np.roll(forged, -16 * ms), samples) for ms in range(-12, 13)])) - 12
    assert abs(lag) <= (8 if name == "pitch" else 4), "10 ms is a quarter of a video frame"
    assert alike(forged, samples) > (0.7 if name == "pitch" else 0.85)
    assert alike(forged, samples) < 0.9995, "a copy that leaves no trace has the wrong label"
    for end in (slice(None, 160), slice(-160, None)):
        assert rms(forged[end]) > 0.2 * rms(samples[end]), "no silence leads or ends it"


STRANGE = ("clipped", "noise", "tone", "biased", "tiny", "half silent", "click")
# A vocoder sees all of it; what the methods without one do with it is alike.
STRANGE_CASES = [*((name, kind) for name in COPIES for kind in STRANGE), ("splice", "biased"), ("splice", "click")]
STRANGE_CASES += [("offset", "clipped"), ("other_voice", "biased"), ("other_voice", "clipped"), ("partial", "click")]


@pytest.mark.parametrize(("name", "kind"), STRANGE_CASES)
def test_strange_sound_is_forged_sanely(name: str, kind: str) -> None:
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    samples = {
        "clipped": np.clip(voice(0.5) * 30, -1, 1),
        "noise": np.random.default_rng(1).uniform(-1, 1, len(time)),
        "tone": 0.5 * np.sin(2 * np.pi * 220 * time),
        "biased": voice(0.5, level=0.02) + 0.5,
        "tiny": voice(0.5, level=3e-5),
        "half silent": voice(0.5) * (time > 0.25),
        "click": np.eye(1, len(time), 4000)[0],
    }[kind].astype(np.float32)
    result = forge(name, samples, 1, voice(0.7, 3))
    check(result, samples)
    assert float(result.samples.mean()) == pytest.approx(float(samples.mean()), abs=0.01)


@pytest.mark.parametrize("name", ALL)
def test_silence_comes_back_unforged_and_bad_sound_is_refused(name: str) -> None:
    assert pickle.loads(pickle.dumps(ALL[name]))  # noqa: S301 - our own bytes, as a spawned DataLoader sends them
    for value in (0.0, 0.3, -1.0):
        samples = np.full(SAMPLE_RATE, value, np.float32)
        result = forge(name, samples, 0, voice(1.0))
        assert result.segments == ()
        assert np.array_equal(result.samples, samples)
    with pytest.raises(ValueError, match=r"0\.188 s of sound is too short"):
        forge(name, voice(0.1875), 0, voice(1.0))
    for bad in (np.zeros((2, 8000), np.float32), np.full(8000, np.nan, np.float32)):
        with pytest.raises(ValueError, match="finite"):
            forge(name, bad, 0, voice(1.0))


@pytest.mark.parametrize("name", ALL)
def test_who_takes_from_another_voice_is_named(name: str) -> None:
    """`NEEDS_OTHER` and `TAKES_OTHER` say whose groups a forgery joins: all others do not look at `other`."""
    samples, noise = voice(0.6), np.random.default_rng(9).standard_normal(SAMPLE_RATE).astype(np.float32) * 0.1
    differs = [
        not np.array_equal(forge(name, samples, seed, noise).samples, forge(name, samples, seed, -noise).samples)
        for seed in range(4 if name in TAKES_OTHER else 1)
    ]
    assert any(differs) == (name in TAKES_OTHER)
    if name in NEEDS_OTHER:
        for missing in (None, np.zeros(SAMPLE_RATE, np.float32)):
            with pytest.raises(ValueError, match="another clip"):
                forge(name, samples, 0, missing)
    else:
        assert forge(name, samples).segments


def test_an_offset_is_the_own_sound_moved_by_whole_frames_both_ways() -> None:
    moves = []
    for seed, seconds in enumerate((0.5, 0.77, 1.0, 1.5, 2.0, 3.0, 3.0, 3.0)):
        samples = speech(seconds, seed % 5)
        forged = forge("offset", samples, seed).samples
        assert np.abs(np.diff(forged)).max() < 2 * np.abs(np.diff(samples)).max(), "no click at the join"
        fits = {k: np.mean(np.abs(np.roll(samples, 640 * k) - forged) < 1e-3) for k in range(-25, 26)}
        moves.append(min((k for k, share in fits.items() if share > 0.9), key=abs))
        assert 2 <= abs(moves[-1]) <= max(2, len(samples) / SAMPLES_PER_FRAME / 2)
    assert min(moves) < 0 < max(moves)
    click = np.zeros(4 * SAMPLE_RATE, np.float32)
    click[30000:30100] = 0.5
    lags = {int(np.argmax(forge("offset", click, seed).samples)) - 30000 for seed in range(60)}
    assert min(lags) < -SAMPLES_PER_FRAME < SAMPLES_PER_FRAME < max(lags)
    assert all(lag % SAMPLES_PER_FRAME == 0 and abs(lag) <= 25 * SAMPLES_PER_FRAME for lag in lags)


@pytest.mark.parametrize(("name", "seeds"), [("splice", 8), ("partial", 5)])
def test_segments_lie_where_somebody_speaks_and_have_no_click(name: str, seeds: int) -> None:
    samples = voice(3.0)
    samples[: 2 * SAMPLE_RATE] *= 0.001
    tone = (0.3 * np.sin(2 * np.pi * 100.3 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    for seed in range(seeds):
        assert forge(name, samples, seed).segments[0][1] > 2.0
        result = forge(name, tone, seed)
        for edge in (round(second * SAMPLE_RATE) for second in result.segments[0]):
            around = result.samples[max(edge - 2, 0) : edge + 2]
            assert np.abs(np.diff(around)).max(initial=0) < 0.015, "a hard cut would jump by up to 0.6"
