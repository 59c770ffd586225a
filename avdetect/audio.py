"""Waveform -> log-mel.

80 Slaney-scale mel bands (Slaney's Auditory Toolbox, 1998: linear below 1 kHz, logarithmic above, unit-area triangles)
over 0-8 kHz of the power spectrum, periodic Hann window of 25 ms, hop 10 ms, natural logarithm. The framing follows
Whisper (Radford et al., 2022): frame i is centred on sample 160 * i, the frame past the end is dropped, so that exactly
four log-mel frames belong to a 25 fps video frame. Vocoder traces sit high, hence no upper band limit.

In NumPy, so that training and scoring run the same code without torch; the tests hold it against librosa.
"""

from functools import cache

import numpy as np

from avdetect.types import HOP, SAMPLE_RATE, Float

N_FFT = 512
WIN_LENGTH = 400
N_MELS = 80
FLOOR = 1e-5  # -50 dB of power under a full-scale tone's band; keeps digital silence finite
WHISPER_FLOOR = 1e-10  # as Whisper's own log-mel: what is quiet between words belongs to what it learned

SILENCE_RMS = 10 ** (-55 / 20)  # -55 dBFS: below it there is no voice to judge
MIN_AUDIO_SECONDS = 0.5


@cache
def mel_filters() -> Float:
    """(N_MELS, N_FFT // 2 + 1) triangular filters, as `librosa.filters.mel(htk=False, norm="slaney")`."""
    linear_step, knee_hz = 200.0 / 3, 1000.0
    log_step = np.log(6.4) / 27
    knee = knee_hz / linear_step
    top = knee + np.log(SAMPLE_RATE / 2 / knee_hz) / log_step
    mels = np.linspace(0, top, N_MELS + 2)
    edges = np.where(mels < knee, mels * linear_step, knee_hz * np.exp(log_step * (mels - knee)))
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


@cache
def _window() -> np.ndarray:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WIN_LENGTH) / WIN_LENGTH)
    margin = (N_FFT - WIN_LENGTH) // 2
    return np.pad(hann, (margin, N_FFT - WIN_LENGTH - margin))


def log_mel(samples: Float, floor: float = FLOOR) -> Float:
    """(num_samples,) at 16 kHz -> (num_samples // HOP, N_MELS); silence gives log(floor). The spectrum is computed in
    float64: in float32 the rounding of a loud band is audible in a quiet one."""
    count = len(samples) // HOP
    padded = np.pad(samples.astype(np.float64), N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:count]
    spectrum = np.fft.rfft(frames * _window(), axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = power @ mel_filters().T.astype(np.float64)
    return np.log(np.maximum(mel, floor)).astype(np.float32)


def rms(samples: Float) -> float:
    """Root mean square; 0 for no samples."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
