"""The clip of `avdetect demo`: small, decodable, and its mouth moves with its voice."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from readme_media import SAMPLE

SIZE, FPS, SAMPLE_RATE = 480, 25, 16_000


def decode(*arguments: str) -> bytes:
    """What ffmpeg writes to its standard output for the sample."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(SAMPLE), *arguments, "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def test_mouth_opens_with_the_voice() -> None:
    assert Path(SAMPLE).stat().st_size <= 400_000
    raw = decode("-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "gray")
    luma = np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE)
    assert 6.0 <= len(luma) / FPS <= 8.0
    assert np.abs(np.diff(luma[:, 60:260].astype(np.int16), axis=0)).mean() > 0.2, "it moves away from the mouth too"
    raw = decode("-map", "0:a:0", "-f", "s16le", "-ac", "1", "-ar", str(SAMPLE_RATE))
    samples, need = np.frombuffer(raw, "<i2").astype(float) / 32768.0, len(luma) * SAMPLE_RATE // FPS
    assert abs(len(samples) - need) < 0.1 * SAMPLE_RATE, "the two streams differ in length by more than AAC's padding"
    samples = np.pad(samples, (0, max(0, need - len(samples))))[:need]
    envelope = np.sqrt((samples.reshape(len(luma), -1) ** 2).mean(axis=1))
    assert 0.05 < envelope.max() < 0.6
    assert (np.diff((envelope > 0.35 * envelope.max()).astype(int)) == 1).sum() >= 8, "syllables"
    # Opening uncovers the dark between teeth and lower lip. The box holds the lips in every pose of the head.
    mouth = luma[8:-8, 275:350, 165:310].astype(float)
    darkness = np.clip(70.0 - mouth, 0.0, None).mean(axis=(1, 2))
    lags = list(range(-8, 9))
    r = [np.corrcoef(darkness, envelope[8 - lag : len(envelope) - 8 - lag])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(r))]) <= 1
    assert r[lags.index(0)] > 0.6
