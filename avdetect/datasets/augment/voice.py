"""Augmentation of a voice: level, room, equaliser, band limit, noise and clipping. None of them delays the sound.

Levels, codecs and noise floors are known shortcuts of voice datasets; a detector must not learn them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avdetect.types import SAMPLE_RATE, Float

_ROOM_SECONDS = 0.25  # of the longest echo
_TAIL = int(_ROOM_SECONDS * SAMPLE_RATE)


@dataclass(frozen=True)
class VoiceTreatment:
    """What is done to a recording. None: the operation is left out."""

    gain_db: float
    room_seconds: float | None  # in which the echo falls to 1 / e
    room_level: float  # of the echo, to the direct sound
    low_cut_hz: float | None  # -3 dB, 12 dB an octave
    tilt_db: float | None  # an octave, about 1 kHz
    cutoff_hz: float | None  # the middle of the fall to silence
    slope_hz: float  # of that fall
    snr_db: float | None
    noise_color: float  # power falls as frequency to the -color: 0 white, 1 pink, 2 brown
    seed: int  # of room and noise
    clip: float | None  # of the peak: what is louder is cut off

    @classmethod
    def draw(cls, rng: np.random.Generator) -> VoiceTreatment:
        """Always the same number of draws, whatever is used of them."""
        room, low_cut, tilt, band, noise, clip = (rng.random(6) < (0.2, 0.2, 0.3, 0.45, 0.5, 0.1)).tolist()
        room_seconds, low_cut_hz, tilt_db = rng.uniform(0.01, 0.06), rng.uniform(50, 350), rng.uniform(-3, 3)
        cutoff_hz, snr_db, clip_level = rng.uniform(3000, 8000), rng.uniform(10, 45), rng.uniform(0.25, 0.9)
        return cls(
            gain_db=rng.uniform(-12, 6),
            room_seconds=room_seconds if room else None,
            room_level=rng.uniform(0.15, 0.9),  # 1 to 16 dB below the direct sound
            low_cut_hz=low_cut_hz if low_cut else None,
            tilt_db=tilt_db if tilt else None,
            cutoff_hz=cutoff_hz if band else None,
            slope_hz=rng.uniform(100, 1500),
            snr_db=snr_db if noise else None,
            noise_color=rng.uniform(0, 2),
            seed=int(rng.integers(2**32)),
            clip=clip_level if clip else None,
        )


def augment_voice(samples: Float, rng: np.random.Generator) -> Float:
    """(num_samples,) mono at 16 kHz in [-1, 1] -> same shape and range, where it was in time."""
    return treat_voice(samples, VoiceTreatment.draw(rng))


def treat_voice(samples: Float, treatment: VoiceTreatment) -> Float:
    """(num_samples,) under a given treatment. Silence stays silent; no samples stay none."""
    count = len(samples)
    if not count:
        return np.zeros(0, np.float32)
    rng = np.random.default_rng(treatment.seed)
    echo = rng.standard_normal(_TAIL)
    # Room for the echo: without it the end of the recording would come round to its beginning.
    size = 1 << (count + _TAIL - 1).bit_length()
    spectrum = np.fft.rfft(samples.astype(np.float64), size) * _response(treatment, echo, size)
    out = np.fft.irfft(spectrum, size)[:count] * 10 ** (treatment.gain_db / 20)
    if treatment.snr_db is not None:
        noise = _noise(size, treatment.noise_color, rng)[:count]
        level = np.sqrt(np.mean(out**2)) * 10 ** (-treatment.snr_db / 20)
        out = out + noise * level / (np.sqrt(np.mean(noise**2)) + 1e-9)
    if treatment.clip is not None:
        limit = np.abs(out).max() * treatment.clip
        out = np.clip(out, -limit, limit)
    return np.clip(out, -1, 1).astype(np.float32)


def _response(treatment: VoiceTreatment, echo: np.ndarray, size: int) -> np.ndarray:
    """(size // 2 + 1,) room and filters as one spectrum. The filters are of zero phase: they move nothing in time."""
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    response: np.ndarray = np.ones(len(frequency))
    if treatment.low_cut_hz is not None:
        ratio = (frequency / treatment.low_cut_hz) ** 4
        response = response * np.sqrt(ratio / (1 + ratio))
    if treatment.tilt_db is not None:
        octaves = np.log2(np.maximum(frequency, 60) / 1000)
        response = response * 10 ** (treatment.tilt_db * octaves / 20)
    if treatment.cutoff_hz is not None:
        above = np.clip((frequency - treatment.cutoff_hz) / treatment.slope_hz * 4, -50, 50)
        response = response / (1 + np.exp(above))
    if treatment.room_seconds is not None:
        room = echo * np.exp(-np.arange(_TAIL) / (SAMPLE_RATE * treatment.room_seconds))
        room *= treatment.room_level / np.sqrt(np.sum(room**2))
        room[0] = 1  # the direct sound comes first, and as it was
        response = response * np.fft.rfft(room, size)
    return response


def _noise(size: int, color: float, rng: np.random.Generator) -> np.ndarray:
    """(size,) noise without what is below 20 Hz."""
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    shape = np.where(frequency < 20, 0, np.maximum(frequency, 20) ** (-color / 2))
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape, size)
