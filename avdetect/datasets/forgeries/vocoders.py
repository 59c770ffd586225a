"""Copies of a voice through vocoders without network weights: Griffin-Lim, linear prediction, the phase vocoder.

A copy says the same words at the same time (but for `tempo`); what it adds are a vocoder's traces: lost phase, a coarse
spectrum, an artificial excitation. WaveFake (Frank & Schönherr, NeurIPS 2021) and Wang & Yamagishi ("Spoofed training
data for speech spoofing countermeasure can be efficiently created using neural vocoders", ICASSP 2023) show that copy
synthesis of real speech trains detectors of fakes made by other systems.
Sound is (n,) float32 at 16 kHz with n >= MIN_SAMPLES, about -20 dBFS; results have the same length, no fixed level.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import librosa
import numpy as np
import scipy.fft
import scipy.ndimage

from avdetect.datasets.forgeries.sounds import Complex, frames_at, istft, looped, stft
from avdetect.datasets.forgeries.world import SEMITONES, Double, formant, pitch_track, revoiced, world
from avdetect.types import SAMPLE_RATE, Float

Vocoder = Callable[[Float, np.random.Generator], Float]

# (frame length, mel bands): narrow bands need long frames, or a filter would hold no bin.
RESOLUTIONS = ((512, 40), (512, 64), (1024, 64), (1024, 80), (1024, 100), (2048, 80), (2048, 128))
ITERATIONS = (16, 60)
MOMENTUM = 0.99
RUMBLE_HERTZ = 120  # most voices' pitch lies above
ORDERS = (16, 33)
STRETCH = (0.06, 0.25)
TINY = np.float32(1e-8)


@cache
def _mel_pair(length: int, bands: int) -> tuple[Float, Float, Float]:
    """Filters (bands, bins), their pseudo-inverse, and their transpose with rows that sum to 1: two ways back."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=length, n_mels=bands).astype(np.float32)
    inverse = np.linalg.pinv(filters).astype(np.float32)
    # Seen from a bin: the weighted mean of the band levels (a band's level is its sum over its area).
    back = (filters / np.maximum(filters.max(axis=1, keepdims=True), TINY)).T
    back = back / np.maximum(back.sum(axis=1, keepdims=True), TINY) / filters.sum(axis=1)
    return filters, inverse, back.astype(np.float32)


def griffin_lim(samples: Float, rng: np.random.Generator) -> Float:
    """Phase found anew for a mel spectrogram: Griffin & Lim (1984) with the momentum of Perraudin et al. (2013)."""
    length, bands = RESOLUTIONS[rng.integers(len(RESOLUTIONS))]
    iterations = round(np.exp(rng.uniform(*np.log(ITERATIONS))))  # few are cheap and common
    filters, inverse, back = _mel_pair(length, bands)
    spectra = stft(samples, length, length)
    exponent = float(rng.choice([1.0, 2.0]))
    mel = np.abs(spectra) ** np.float32(exponent) @ filters.T
    linear = mel @ (inverse if rng.random() < 0.5 else back).T
    magnitudes = np.maximum(linear, 0) ** np.float32(1 / exponent)
    turn = rng.random(magnitudes.shape, np.float32) * np.float32(2 * np.pi)
    current = magnitudes * np.exp(1j * turn)
    before = np.zeros_like(current)
    for _ in range(iterations):
        rebuilt = stft(istft(current, length, length, len(samples)), length, length)
        current, before = _ahead(rebuilt, before, magnitudes), rebuilt
    return istft(current, length, length, len(samples))


def _ahead(rebuilt: Complex, before: Complex, magnitudes: Float) -> Complex:
    """`magnitudes` with the phase of rebuilt + MOMENTUM * (rebuilt - before); overwrites `before`.

    In place and without `np.abs`: half the time of the plain expression, and this is where copies spend theirs.
    """
    before *= np.float32(-MOMENTUM)
    before += np.float32(1 + MOMENTUM) * rebuilt
    size = before.real**2
    size += before.imag**2
    size += TINY**2
    np.sqrt(size, out=size)
    before *= np.divide(magnitudes, size, out=size)
    return before


def lpc(samples: Float, rng: np.random.Generator) -> Float:
    """Linear prediction (Atal & Hanauer, 1971): the vocal tract kept, the excitation replaced.

    By pulses at the voice's pitch and noise between (LPC-10), by noise alone (a whisper), or by the residual
    rounded to a few levels (residual-excited coders).
    """
    order, length = int(rng.integers(*ORDERS)), int(rng.choice([320, 400, 512]))
    n_fft = 4 * length
    kind = rng.choice(["pulses", "noise", "rounded"], p=[0.5, 0.15, 0.35])
    spectra = stft(samples, length, n_fft)
    inverse, gain = _predictor(spectra, length, order)
    if kind == "rounded":
        residual = istft(spectra * inverse, length, n_fft, len(samples))
        excitation = _rounded(residual, rng)
        return istft(stft(excitation, length, n_fft) / inverse, length, n_fft, len(samples))
    excitation = rng.standard_normal(len(samples)).astype(np.float32)
    if kind == "pulses":
        excitation = _pulsed(samples, excitation, rng.uniform(0, 0.35))
    return istft(stft(excitation, length, n_fft) * gain / inverse, length, n_fft, len(samples))


def _predictor(spectra: Complex, length: int, order: int) -> tuple[Complex, Float]:
    """The inverse filter A of each frame as a spectrum (F, bins), and the level of its residual (F, 1)."""
    n_fft = 2 * (spectra.shape[1] - 1)
    lags = scipy.fft.irfft(np.abs(spectra).astype(np.float64) ** 2, n_fft, axis=1)[:, : order + 1]
    lags[:, 0] = lags[:, 0] * 1.0001 + 1e-9  # -40 dB of white noise: keeps the equations of silence solvable
    rows = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    weights = np.linalg.solve(lags[:, rows], lags[:, 1:, None])[..., 0]
    energy = np.maximum(lags[:, 0] - (weights * lags[:, 1:]).sum(axis=1), 0)
    weights *= 0.994 ** np.arange(1, order + 1)  # widens the resonances a little, so that none rings on
    taps = np.concatenate([np.ones((len(lags), 1)), -weights], axis=1)
    inverse = scipy.fft.rfft(taps, n_fft, axis=1).astype(np.complex64)
    gain = np.sqrt(energy / (0.375 * length))[:, None]  # a Hann window's mean square is 0.375
    return inverse, gain.astype(np.float32)


def _rounded(residual: Float, rng: np.random.Generator) -> Float:
    """The residual in units of its own level (over 20 ms), rounded to 3, 5 or 7 values."""
    steps, size = int(rng.integers(1, 4)), rng.uniform(0.6, 1.2)
    power = np.convolve(residual.astype(np.float64) ** 2, np.ones(320) / 320, "same")
    level = np.sqrt(np.maximum(power, 0)) + 1e-9
    return (np.clip(np.round(residual / level / size), -steps, steps) * level).astype(np.float32)


def _pulsed(samples: Float, noise: Float, breath: float) -> Float:
    """Unit power: a pulse a pitch period where the voice has a pitch (with a share `breath` of noise), else noise."""
    pitch, times = pitch_track(samples, 10.0)
    positions = np.arange(len(samples))
    voiced = np.interp(positions / SAMPLE_RATE, times, pitch > 0) > 0.5
    if not voiced.any():
        return noise
    hertz: Double = np.interp(positions / SAMPLE_RATE, times[pitch > 0], pitch[pitch > 0])
    turns = np.floor(np.cumsum(hertz / SAMPLE_RATE))
    pulses = np.diff(turns, prepend=0.0) * np.sqrt(SAMPLE_RATE / hertz)
    mixed = np.sqrt(1 - breath) * pulses + np.sqrt(breath) * noise
    return np.where(voiced, mixed, noise).astype(np.float32)


def stretched(samples: Float, rate: float, length: int) -> Float:
    """(n,) -> (round(n / rate),): `rate` times faster at the same pitch, frames of `length` samples.

    A phase vocoder (Flanagan & Golden, 1966): each frame's phase advances by what it did in the sound over one
    synthesis step, measured against a frame exactly that far back, so that no phase needs unwrapping.
    """
    step, count = length // 4, round(len(samples) / rate)
    padded = np.pad(samples, (2 * length, 3 * length), mode="symmetric")
    # Frame k of the result is centred `length / 2` after k * step - length (see `istft`).
    number = (count + 2 * length) // step
    middles = (np.arange(number) * step - length / 2) * rate
    starts = np.clip(np.round(middles - length / 2).astype(np.int64) + 2 * length, step, len(padded) - length)
    now, back = frames_at(padded, starts, length, length), frames_at(padded, starts - step, length, length)
    advance = np.angle(now * np.conj(back)).astype(np.float64)
    advance[0] = np.angle(now[0])
    phase = np.cumsum(advance, axis=0)
    return istft((np.abs(now) * np.exp(1j * phase)).astype(np.complex64), length, length, count)


def faster(samples: Float, rate: float, count: int) -> Float:
    """`count` samples of the sound played `rate` times faster, pitch and all: a band-limited resampling."""
    out = librosa.resample(samples, orig_sr=SAMPLE_RATE * rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    return np.pad(out, (0, max(0, count - len(out))), mode="edge")[:count]


def pitch(samples: Float, rng: np.random.Generator) -> Float:
    """Half a semitone to four up or down, formants with it (phase vocoder) or kept (WORLD)."""
    ratio = 2 ** (rng.choice([-1.0, 1.0]) * rng.uniform(*SEMITONES) / 12)
    if rng.random() < 0.5:
        return revoiced(samples, rng, ratio)
    length = int(rng.choice([512, 1024]))
    return faster(stretched(samples, 1 / ratio, length), ratio, len(samples))


def tempo(samples: Float, rng: np.random.Generator) -> Float:
    """6 to 25 % faster or slower at the same pitch: the end is lost, or the beginning comes again.

    Never filled with silence: its length would tell.
    """
    rate = (1 + rng.uniform(*STRETCH)) ** rng.choice([-1.0, 1.0])
    length = int(rng.choice([512, 1024]))
    source = looped(samples, 0, int(np.ceil(len(samples) * rate)) + 1, rng)
    return stretched(source, rate, length)[: len(samples)]


def without_rumble(vocoder: Vocoder, samples: Float, rng: np.random.Generator) -> Float:
    """`vocoder`, with no more sound below RUMBLE_HERTZ than the input has there at that moment.

    Pulses of one sign and coarse envelopes leak energy below the voice. It is heard by nobody, but a detector would
    learn it instead of what real synthesisers leave.
    """
    length = 1024
    bins = round(RUMBLE_HERTZ / SAMPLE_RATE * length) + 1
    copy = stft(vocoder(samples, rng), length, length)
    # Over a few frames: a copy's phase is its own, and so are the ups and downs of single frames.
    ours, theirs = (
        scipy.ndimage.uniform_filter1d(np.abs(x[:, :bins]), 5, axis=0) for x in (copy, stft(samples, length, length))
    )
    copy[:, :bins] *= np.minimum(1, theirs / np.maximum(ours, TINY))
    return istft(copy, length, length, len(samples))


VOCODERS: dict[str, Vocoder] = {
    "griffin_lim": griffin_lim,
    "world": partial(without_rumble, world),
    "lpc": partial(without_rumble, lpc),
    "pitch": pitch,
    "formant": partial(without_rumble, formant),
    "tempo": tempo,
}
