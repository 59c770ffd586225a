"""The clip of `avdetect demo`: small, decodable, and its mouth moves with its voice."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from readme_media import SAMPLE

SIZE, FPS, SAMPLE_RATE = 480, 25, 16_000


def decode(*arguments: str) -> bytes:
    """What ffmpeg writes to its standard output for the sample."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(SAMPLE), *arguments, "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def luma() -> np.ndarray:
    """(T, H, W) uint8."""
    raw = decode("-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "gray")
    return np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE)


@pytest.fixture(scope="module")
def envelope(luma: np.ndarray) -> np.ndarray:
    """(T,) RMS of the voice within each video frame."""
    raw = decode("-map", "0:a:0", "-f", "s16le", "-ac", "1", "-ar", str(SAMPLE_RATE))
    samples = np.frombuffer(raw, "<i2").astype(float) / 32768.0
    need = len(luma) * SAMPLE_RATE // FPS
    assert abs(len(samples) - need) < 0.1 * SAMPLE_RATE, "the two streams differ in length by more than AAC's padding"
    samples = np.pad(samples, (0, max(0, need - len(samples))))[:need]
    return np.sqrt((samples.reshape(len(luma), -1) ** 2).mean(axis=1))


def test_file_is_small_and_no_still(luma: np.ndarray) -> None:
    assert Path(SAMPLE).stat().st_size <= 400_000
    assert 6.0 <= len(luma) / FPS <= 8.0
    upper_face = luma[:, 60:260].astype(np.int16)
    assert np.abs(upper_face[1:] - upper_face[:-1]).mean() > 0.2, "it moves away from the mouth too"


def test_mouth_opens_with_the_voice(luma: np.ndarray, envelope: np.ndarray) -> None:
    # Opening uncovers the dark between teeth and lower lip. The box holds the lips in every pose of the head.
    mouth = luma[8:-8, 275:350, 165:310].astype(float)
    darkness = np.clip(70.0 - mouth, 0.0, None).mean(axis=(1, 2))
    lags = list(range(-8, 9))
    r = [np.corrcoef(darkness, envelope[8 - lag : len(envelope) - 8 - lag])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(r))]) <= 1
    assert r[lags.index(0)] > 0.6


def test_voice_is_speech_like_and_not_clipped(envelope: np.ndarray) -> None:
    assert 0.05 < envelope.max() < 0.6
    # Syllables: it rises out of near-silence again and again.
    loud = envelope > 0.35 * envelope.max()
    assert int((np.diff(loud.astype(int)) == 1).sum()) >= 8
