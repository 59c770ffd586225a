"""Log-mel: the same numbers as librosa, four frames a video frame, and no surprise at the edges."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import FLOOR, N_FFT, N_MELS, SILENCE_RMS, WIN_LENGTH, log_mel, rms
from avdetect.types import HOP, SAMPLE_RATE


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    click = np.zeros(5000)
    click[[0, 1234, 4999]] = 1
    return {
        "speech": speech(1.0),
        "noise": rng.uniform(-1, 1, 12_345),
        "quiet noise": rng.standard_normal(8000) * 1e-4,
        "silence": np.zeros(3200),
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


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 6000))
def test_frame_count_is_the_number_of_whole_hops(length: int) -> None:
    mels = log_mel(np.full(length, 0.1, np.float32))
    assert mels.shape == (length // HOP, N_MELS)
    assert mels.dtype == np.float32
    assert np.isfinite(mels).all()


def test_rms() -> None:
    assert rms(np.zeros(0, np.float32)) == 0
    assert rms(np.full(100, -0.5, np.float32)) == pytest.approx(0.5)
    # The sum of squares of an hour of quiet audio must not vanish in float32.
    assert rms(np.full(10_000_000, 1e-3, np.float32)) == pytest.approx(1e-3, rel=1e-6)
    assert pytest.approx(-55) == 20 * np.log10(SILENCE_RMS)
