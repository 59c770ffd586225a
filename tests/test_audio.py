"""Log-mel: the same numbers as librosa and torchaudio, four frames a video frame, and no surprise at the edges."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import FLOOR, N_FFT, N_MELS, SILENCE_RMS, WIN_LENGTH, log_mel, mel_filters, rms
from avdetect.types import HOP, MELS_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    click = np.zeros(5000)
    click[[0, 1234, 4999]] = 1
    return {
        "speech": speech(1.0),
        "noise": rng.uniform(-1, 1, 12_345),
        "quiet noise": rng.standard_normal(8000) * 1e-4,
        "sweep": np.sin(2 * np.pi * (50 + 3900 * time) * time),
        "loud low tone": np.sin(2 * np.pi * 220 * time),
        "clicks": click,
        "shorter than a window": rng.uniform(-1, 1, 200),
    }


@pytest.mark.parametrize("name", signals())
@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
def test_equals_librosa(name: str) -> None:
    samples = signals()[name].astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=SAMPLE_RATE,
        n_fft=N_FFT,
        win_length=WIN_LENGTH,
        hop_length=HOP,
        pad_mode="constant",
        n_mels=N_MELS,
        dtype=np.float64,
    )
    expected = np.log(np.maximum(power, FLOOR)).T[: len(samples) // HOP]
    np.testing.assert_allclose(log_mel(samples), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", signals())
def test_equals_torchaudio(name: str) -> None:
    samples = signals()[name].astype(np.float32)
    transform = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=N_FFT,
        win_length=WIN_LENGTH,
        hop_length=HOP,
        pad_mode="constant",
        n_mels=N_MELS,
        norm="slaney",
        mel_scale="slaney",
    ).double()
    power = transform(torch.from_numpy(samples).double()).numpy()
    expected = np.log(np.maximum(power, FLOOR)).T[: len(samples) // HOP]
    # Its filters are rounded to float32 at every step, which shows where a sweep's far leakage is all a band hears.
    tolerance = 2e-4 if name == "sweep" else 1e-4
    np.testing.assert_allclose(log_mel(samples), expected, atol=tolerance, rtol=0)


def test_filters_equal_librosa() -> None:
    expected = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(), expected, atol=1e-7)
    assert (mel_filters().max(1) > 0).all(), "a band without a single bin hears nothing"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 6000))
def test_frame_count_is_the_number_of_whole_hops(length: int) -> None:
    mels = log_mel(np.full(length, 0.1, np.float32))
    assert mels.shape == (length // HOP, N_MELS)
    assert mels.dtype == np.float32
    assert np.isfinite(mels).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 40))
def test_four_mel_frames_a_video_frame(frames: int) -> None:
    assert len(log_mel(np.zeros(frames * SAMPLES_PER_FRAME, np.float32))) == MELS_PER_FRAME * frames


def test_silence_is_the_floor() -> None:
    np.testing.assert_array_equal(log_mel(np.zeros(3200, np.float32)), np.float32(np.log(FLOOR)))


@pytest.mark.parametrize("frame", [0, 1, 7, 19])
def test_an_impulse_is_loudest_in_the_frame_centred_on_it(frame: int) -> None:
    samples = np.zeros(20 * HOP, np.float32)
    samples[frame * HOP] = 1
    level = log_mel(samples).mean(1)
    assert level.argmax() == frame
    near = np.abs(np.arange(20) - frame) <= 1  # a window of 25 ms reaches 12.5 ms each way
    assert (level[near] > np.log(FLOOR) + 1).all()
    np.testing.assert_allclose(level[~near], np.log(FLOOR), atol=1e-5)


def test_an_impulse_between_two_frames_is_equally_loud_in_both() -> None:
    samples = np.zeros(20 * HOP, np.float32)
    samples[7 * HOP + HOP // 2] = 1
    mels = log_mel(samples)
    np.testing.assert_allclose(mels[7], mels[8], atol=1e-4)


def test_a_tone_is_loudest_in_its_band() -> None:
    centres = librosa.mel_frequencies(n_mels=N_MELS + 2, fmax=SAMPLE_RATE / 2)[1:-1]
    for band in (10, 40, 75):
        tone = 0.5 * np.sin(2 * np.pi * centres[band] * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
        assert log_mel(tone.astype(np.float32))[5:-5].mean(0).argmax() == band


def test_level_shifts_the_logarithm() -> None:
    samples = speech(1.0)
    loud, quiet = log_mel(samples)[:-2], log_mel(samples / 2)[:-2]  # the last frames are cut
    above = quiet > np.log(2 * FLOOR)
    assert above.mean() > 0.5
    np.testing.assert_allclose((loud - quiet)[above], 2 * np.log(2), atol=1e-3)


def test_the_input_is_not_changed() -> None:
    samples = speech(0.2)
    before = samples.copy()
    log_mel(samples)
    np.testing.assert_array_equal(samples, before)


def test_rms() -> None:
    assert rms(np.zeros(0, np.float32)) == 0
    assert rms(np.full(100, -0.5, np.float32)) == pytest.approx(0.5)
    # The sum of squares of an hour of quiet audio must not vanish in float32.
    assert rms(np.full(10_000_000, 1e-3, np.float32)) == pytest.approx(1e-3, rel=1e-6)
    assert pytest.approx(-55) == 20 * np.log10(SILENCE_RMS)
