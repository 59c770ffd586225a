"""Cutting and joining sound without leaving a trace that is no part of the forgery: levels, fades, loops, frames.

Sound is (n,) float32 at 16 kHz in [-1, 1] throughout.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from avdetect.types import SAMPLE_RATE, Float

Complex = NDArray[np.complex64]

MIN_SECONDS = 0.25  # shorter sound holds no syllable to forge
MIN_SAMPLES = round(MIN_SECONDS * SAMPLE_RATE)
FADE_SECONDS = (0.005, 0.010)  # shorter fades click, longer ones are heard as two voices
NOTHING = 1e-5  # -100 dBFS, under half a step of 16 bits: digital silence or a constant
KNEE = 0.9  # a forged peak above it is bent, so that it ends below 1


def checked(samples: Float) -> Float:
    """The sound as float32. Raises ValueError if it is not (n,), not finite, or shorter than MIN_SECONDS."""
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError(f"sound to forge must be (n,) finite samples, got shape {samples.shape}")
    if len(samples) < MIN_SAMPLES:
        have = len(samples) / SAMPLE_RATE
        raise ValueError(f"{have:.3f} s of sound is too short to forge: give at least {MIN_SECONDS} s")
    return samples.astype(np.float32)


def loudness(samples: NDArray[np.floating]) -> float:
    """RMS without the constant part; 0 for no samples."""
    return float(samples.std(dtype=np.float64)) if len(samples) else 0.0


def like(samples: Float, model: Float) -> Float:
    """`samples` with the mean and the level of `model`: neither loudness nor a DC offset may tell.

    Peaks are bent below 1, and what that takes from the level is given back to the rest.
    """
    moving = samples - samples.mean(dtype=np.float64)
    level, middle = loudness(model), float(model.mean(dtype=np.float64))
    gain, shift = level / max(loudness(moving), 1e-12), middle
    for _ in range(4):
        out = moving * gain + shift
        if np.abs(out).max() <= 1:
            break
        out = _bent(out)
        gain, shift = gain * level / max(loudness(out), 1e-12), shift + middle - float(out.mean())
    return out.astype(np.float32)


def _bent(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.abs(samples)
    return np.where(size > KNEE, np.sign(samples) * (KNEE + (1 - KNEE) * np.tanh((size - KNEE) / (1 - KNEE))), samples)


def fade_length(rng: np.random.Generator) -> int:
    """Samples of one cross-fade."""
    return round(rng.uniform(*FADE_SECONDS) * SAMPLE_RATE)


def ramp(length: int) -> Float:
    """(length,) rising half of a Hann window, open at both ends; with its mirror it sums to 1."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def overlay(out: Float, start: int, piece: Float, fade_in: int, fade_out: int) -> None:
    """Write `piece` into `out` from sample `start`, cross-faded with what stands there inside the piece's own ends."""
    weight: Float = np.ones(len(piece), np.float32)
    if fade_in:
        weight[:fade_in] *= ramp(fade_in)
    if fade_out:
        weight[-fade_out:] *= ramp(fade_out)[::-1]
    place = out[start : start + len(piece)]
    place += weight * (piece - place)


def looped(samples: Float, start: int, count: int, rng: np.random.Generator) -> Float:
    """`count` samples from `start` on, going on at the first sample after the last one.

    The join is a cross-fade of the beginning with the mirrored end: a jump would be a click that no real file has.
    """
    fade = min(fade_length(rng), len(samples) // 4)
    again = samples.copy()
    again[:fade] += ramp(fade)[::-1] * (samples[: -fade - 1 : -1] - samples[:fade])
    turns = [samples] + [again] * ((start + count) // len(samples))
    return np.concatenate(turns)[start : start + count]


def pick(samples: Float, count: int, rng: np.random.Generator) -> int:
    """First sample of a stretch of `count` samples, drawn in proportion to its energy: where somebody speaks."""
    last = len(samples) - count
    if last <= 0:
        return 0
    starts = np.unique(np.linspace(0, last, 64).astype(int))
    power = np.concatenate([[0.0], np.cumsum(np.square(samples - samples.mean(), dtype=np.float64))])
    energy = power[starts + count] - power[starts] + 1e-12
    return int(rng.choice(starts, p=energy / energy.sum()))


@cache
def hann(length: int) -> Float:
    """(length,) periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def frames_at(samples: Float, starts: NDArray[np.int64], length: int, n_fft: int) -> Complex:
    """(F, n_fft // 2 + 1) spectra of the Hann-windowed frames of `length` that begin at `starts`."""
    cut = np.lib.stride_tricks.sliding_window_view(samples, length)[starts]
    return scipy.fft.rfft(cut * hann(length), n_fft, axis=1)


def stft(samples: Float, length: int, n_fft: int) -> Complex:
    """Frames a quarter of `length` apart over the sound with `length` samples mirrored at both ends."""
    step = length // 4
    padded = np.pad(samples, (length, 2 * length), mode="reflect")
    return frames_at(padded, np.arange((len(samples) + 2 * length) // step) * step, length, n_fft)


def istft(spectra: Complex, length: int, n_fft: int, count: int) -> Float:
    """`count` samples whose `stft` comes closest to `spectra` (F, n_fft // 2 + 1); least squares for n_fft = length.

    With n_fft > length the tails of filtered frames are kept: they are added up without a second window.
    """
    step = length // 4
    frames = scipy.fft.irfft(spectra, n_fft, axis=1)
    if n_fft == length:
        frames *= hann(length) / 1.5  # the squared windows of four overlapping frames sum to 1.5
    else:
        frames *= 0.5  # the windows themselves sum to 2
    parts = n_fft // step
    out = np.zeros((len(frames) + parts, step), np.float32)
    for part in range(parts):
        out[part : part + len(frames)] += frames[:, part * step : (part + 1) * step]
    return out.reshape(-1)[length : length + count]
