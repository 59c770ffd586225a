"""Copies of a voice through vocoders without network weights: Griffin-Lim, WORLD, the phase vocoder.

A copy says the same words at the same time; what it adds are a vocoder's traces: lost phase, a coarse spectrum, an
artificial excitation. Wang & Yamagishi ("Spoofed training data for speech spoofing countermeasure can be efficiently
created using neural vocoders", ICASSP 2023) show that such copies train detectors of fakes made by other systems.

Sound is (n,) float32 at 16 kHz, n > 2048, about -20 dBFS; results are as long, but for less than a WORLD frame, and of
no fixed level.
"""

from collections.abc import Callable
from functools import cache

import librosa
import numpy as np
import pyworld

from avdetect.types import SAMPLE_RATE, Float

Vocoder = Callable[[Float, np.random.Generator], Float]

# (frame length, mel bands): narrow bands need long frames, or a filter would hold no bin.
RESOLUTIONS = ((512, 40), (512, 64), (1024, 64), (1024, 80), (1024, 100), (2048, 80), (2048, 128))
ITERATIONS = (16, 60)
BANDS = (24, 60)  # coefficients of a coarsely coded envelope
SEMITONES = (0.5, 4.0)


def griffin_lim(samples: Float, rng: np.random.Generator) -> Float:
    """Phase found anew for a mel spectrogram: Griffin & Lim (1984) with the momentum of Perraudin et al. (2013)."""
    length, bands = RESOLUTIONS[rng.integers(len(RESOLUTIONS))]
    iterations = round(np.exp(rng.uniform(*np.log(ITERATIONS))))  # few are cheap and common
    filters, inverse = _mel_pair(length, bands)
    mel = filters @ np.abs(librosa.stft(samples, n_fft=length))
    return librosa.griffinlim(np.maximum(inverse @ mel, 0), n_iter=iterations, length=len(samples), random_state=rng)


@cache
def _mel_pair(length: int, bands: int) -> tuple[Float, Float]:
    """Mel filters (bands, bins), and their pseudo-inverse."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=length, n_mels=bands)
    return filters, np.linalg.pinv(filters)


def world(samples: Float, rng: np.random.Generator) -> Float:
    """Pitch, envelope and noise by WORLD, and a voice made of them; often the envelope is coarse, the noise averaged.

    Morise, Yokomori & Ozawa (IEICE Trans. Inf. & Syst., 2016): the analysis and the synthesis of many TTS and
    voice-conversion systems before neural vocoders.
    """
    period_ms = float(rng.choice([5.0, 8.0, 10.0]))
    coarse, plain = rng.random(2) < (0.5, 0.4)
    sound = samples.astype(np.float64)
    # Pitch at half the rate: a third of the time, the same result. At a quarter DIO loses voiced frames.
    rough, times = pyworld.dio(sound, SAMPLE_RATE, frame_period=period_ms, speed=2)
    hertz = pyworld.stonemask(sound, rough, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(sound, hertz, times, SAMPLE_RATE)
    noise = pyworld.d4c(sound, hertz, times, SAMPLE_RATE)
    if coarse:
        coded = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE, int(rng.integers(*BANDS)))
        envelope = pyworld.decode_spectral_envelope(coded, SAMPLE_RATE, 2 * (envelope.shape[1] - 1))
    voiced = hertz > 0
    if plain and voiced.any():
        noise[voiced] = noise[voiced].mean(axis=0)
    return np.asarray(pyworld.synthesize(hertz, envelope, noise, SAMPLE_RATE, period_ms), np.float32)


def pitch(samples: Float, rng: np.random.Generator) -> Float:
    """Half a semitone to four up or down, formants with it: the phase vocoder of Flanagan & Golden (1966)."""
    steps = rng.choice([-1.0, 1.0]) * rng.uniform(*SEMITONES)
    return librosa.effects.pitch_shift(samples, sr=SAMPLE_RATE, n_steps=steps, n_fft=int(rng.choice([512, 1024])))


VOCODERS: dict[str, Vocoder] = {"griffin_lim": griffin_lim, "world": world, "pitch": pitch}
