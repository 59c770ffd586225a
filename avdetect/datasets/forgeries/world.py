"""Voices taken apart by WORLD (pitch, spectral envelope, aperiodicity) and put together again.

WORLD: Morise, Yokomori & Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications" (IEICE Trans. Inf. & Syst., 2016), through pyworld. The analysis and the synthesis of many TTS and
voice-conversion systems before neural vocoders, and of WaveFake's and ASVspoof's conventional attacks.
Sound is (n,) float32 at 16 kHz, whatever its level; results have the same length and the level of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyworld
from numpy.typing import NDArray

from avdetect.types import SAMPLE_RATE, Float

Double = NDArray[np.float64]

MAX_LEAD = 800  # samples in front of the sound; see `_resynthesised`
BANDS = (24, 60)  # coefficients of a coarsely coded envelope
SMOOTH = (3, 15)  # frames over which pitch is averaged
WARP = (0.06, 0.2)  # how far formants move, as a share of their frequency
SEMITONES = (0.5, 4.0)


@dataclass(frozen=True)
class Voice:
    """WORLD's three parts, one row a frame."""

    pitch_hz: Double  # (F,), 0 where unvoiced
    envelope: Double  # (F, B) power spectrum
    aperiodicity: Double  # (F, B) share of noise, 0..1
    period_ms: float


def pitch_track(samples: Float, period_ms: float) -> tuple[Double, Double]:
    """Pitch in Hz (F,), 0 where unvoiced, and the times of the frames in seconds (DIO, refined by StoneMask)."""
    sound = samples.astype(np.float64)
    # At half the rate: a third of the time, the same pitch. At a quarter DIO loses voiced frames.
    rough, times = pyworld.dio(sound, SAMPLE_RATE, frame_period=period_ms, speed=2)
    return pyworld.stonemask(sound, rough, times, SAMPLE_RATE), times


def world(samples: Float, rng: np.random.Generator) -> Float:
    """A copy synthesis: the same words and speaker; at random a coarse envelope, smooth pitch, averaged noise."""
    coarse, smooth, plain = rng.random(3) < (0.4, 0.5, 0.3)
    bands, width = int(rng.integers(*BANDS)), int(rng.integers(*SMOOTH))

    def change(voice: Voice) -> Voice:
        if coarse:
            coded = pyworld.code_spectral_envelope(voice.envelope, SAMPLE_RATE, bands)
            size = 2 * (voice.envelope.shape[1] - 1)
            voice = replace(voice, envelope=pyworld.decode_spectral_envelope(coded, SAMPLE_RATE, size))
        if smooth:
            voice = replace(voice, pitch_hz=_smoothed(voice.pitch_hz, width))
        if plain and voice.pitch_hz.any():
            spoken = voice.pitch_hz > 0
            noise = voice.aperiodicity.copy()
            noise[spoken] = noise[spoken].mean(axis=0)
            voice = replace(voice, aperiodicity=noise)
        return voice

    return _resynthesised(samples, rng, change)


def formant(samples: Float, rng: np.random.Generator) -> Float:
    """Another vocal tract at the same pitch: the envelope stretched along frequency by 6-20 % either way."""
    ratio = (1 + rng.uniform(*WARP)) ** rng.choice([-1.0, 1.0])

    def change(voice: Voice) -> Voice:
        bins = np.arange(voice.envelope.shape[1])
        source = np.minimum(bins / ratio, bins[-1])  # beyond the top, the top bin goes on
        below = np.minimum(source.astype(int), bins[-1] - 1)
        part = source - below
        logs = np.log(voice.envelope)
        warped = np.exp(logs[:, below] * (1 - part) + logs[:, below + 1] * part)
        noise = voice.aperiodicity[:, below] * (1 - part) + voice.aperiodicity[:, below + 1] * part
        return replace(voice, envelope=warped, aperiodicity=noise)

    return _resynthesised(samples, rng, change)


def revoiced(samples: Float, rng: np.random.Generator, ratio: float) -> Float:
    """The same vocal tract at `ratio` times the pitch."""
    return _resynthesised(samples, rng, lambda voice: replace(voice, pitch_hz=voice.pitch_hz * ratio))


def _resynthesised(samples: Float, rng: np.random.Generator, change: Callable[[Voice], Voice]) -> Float:
    """Analyse, change, synthesise; same length.

    pyworld's noise begins alike at every call. A mirrored lead of random length keeps it from standing at the same
    place of every forgery, and takes the fade-in of the synthesis off the front.
    """
    lead = int(rng.integers(MAX_LEAD // 2, MAX_LEAD))
    period_ms = float(rng.choice([5.0, 8.0, 10.0]))
    padded = np.pad(samples, lead, mode="reflect")
    sound = np.ascontiguousarray(padded, np.float64)
    pitch, times = pitch_track(padded, period_ms)
    envelope = pyworld.cheaptrick(sound, pitch, times, SAMPLE_RATE)
    noise = pyworld.d4c(sound, pitch, times, SAMPLE_RATE)
    voice = change(Voice(pitch, envelope, noise, period_ms))
    pitch, envelope, noise = (np.ascontiguousarray(x) for x in (voice.pitch_hz, voice.envelope, voice.aperiodicity))
    out = pyworld.synthesize(pitch, envelope, noise, SAMPLE_RATE, voice.period_ms)[lead:]
    return np.pad(out, (0, max(0, len(samples) - len(out))))[: len(samples)].astype(np.float32)


def _smoothed(pitch: Double, width: int) -> Double:
    """Moving average over voiced frames only: the even melody of parametric synthesis."""
    kernel = np.ones(width)
    voiced = (pitch > 0).astype(np.float64)
    count = np.convolve(voiced, kernel, "full")[width // 2 :][: len(pitch)]
    total = np.convolve(pitch, kernel, "full")[width // 2 :][: len(pitch)]
    return np.where(pitch > 0, total / np.maximum(count, 1), 0.0)
