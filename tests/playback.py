"""What a file plays, by the reader that scoring uses: its pictures, its sound, when it flashes and clicks."""

from functools import cache
from pathlib import Path

import numpy as np

from avdetect.media import MediaReader
from avdetect.types import FPS, SAMPLE_RATE, Float, UInt8


@cache
def luma(path: Path) -> UInt8:
    """(T, H, W)."""
    with MediaReader(path) as reader:
        return np.concatenate([batch.i420[:, : batch.height] for batch in reader.video()])


@cache
def sound(path: Path) -> Float:
    """(num_samples,)"""
    with MediaReader(path) as reader:
        return np.concatenate([chunk.samples for chunk in reader.audio(60.0)])


def psnr(one: np.ndarray, two: np.ndarray, peak: float = 255.0) -> float:
    """Of equal shapes, in decibels; taken apart along the first axis to save memory."""
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(one, two, strict=True)])
    return float(10 * np.log10(peak**2 / max(float(error), 1e-12)))


def clap_seconds(path: Path) -> np.ndarray:
    """When the picture flashes and the sound clicks, and how long either half lasts on the clock."""
    with MediaReader(path) as reader:
        first = next(iter(reader.video())).first_frame
    light, heard = luma(path).mean((1, 2)), np.abs(sound(path))
    flash, click = int(np.argmax(light > 128)), int(np.argmax(heard > heard.max() / 2))
    return np.array([(first + flash) / FPS, click / SAMPLE_RATE, (first + len(light)) / FPS, len(heard) / SAMPLE_RATE])
