"""Where somebody speaks, and how loud: what the voice's and the lip-sync network are allowed to hear.

Silero VAD 6.2 (Silero Team, MIT; `weights/silero/README.md`) gives a probability of speech for every 32 ms, for 1 to
2 ms of CPU a second of sound. Each waveform is judged by itself: nothing of a clip is remembered for the next.

Level is not evidence. The sound is brought to one level before speech is sought, and speech to one level before it
becomes a log-mel (`level`), so that a quiet copy of a recording gives the same windows.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._onnx import shipped_network
from avdetect.audio import rms
from avdetect.types import HOP, SAMPLE_RATE, Bool, Float

WEIGHTS = Path(__file__).parent / "weights" / "silero" / "vad.onnx"
MAX_BYTES = 16 * 1024**2  # of that file

STEP, CONTEXT, STATE = 512, 64, 128  # samples judged at a time, samples before them that are seen too, LSTM units
BLOCK = 1024  # steps in one run of the network, 33 s: bounds the memory
ENTER, LEAVE = 0.5, 0.35  # probability at which speech begins, and below which it ends
MIN_PAUSE, MIN_SPEECH, PAD = 3, 8, 1  # steps: 96 ms, 256 ms, 32 ms; Silero's own 100, 250, 30 ms
LOUD = 10 ** (-20 / 20)  # level at which speech is sought: of the steps that 95 % are below
SPEECH_RMS = 10 ** (-20 / 20)  # level of speech that the networks hear
MIN_SPEECH_SECONDS = 0.4  # in a window that is worth judging: one word


def speech_probability(samples: Float) -> Float:
    """(num_samples,) at 16 kHz -> (ceil(num_samples / STEP),) probability of speech. Raises ModelError."""
    steps = -(-len(samples) // STEP)
    if not steps:
        return np.zeros(0, np.float32)
    sound = np.pad(_at_one_level(samples), (CONTEXT, steps * STEP - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(sound, CONTEXT + STEP)[::STEP]
    h = c = np.zeros((1, 1, STATE), np.float32)
    parts = []
    for first in range(0, steps, BLOCK):
        inputs = {"input": np.ascontiguousarray(frames[first : first + BLOCK]), "h": h, "c": c}
        part, h, c = _network().run(None, inputs)
        parts.append(part)
    return np.concatenate(parts)


def speech_mask(samples: Float) -> Bool:
    """(num_samples,) at 16 kHz -> (num_samples // HOP,) bool: which log-mel frames are speech. Raises ModelError. Short
    pauses belong to the speech around them, short noises do not count."""
    speech = _stretches(speech_probability(samples))
    middles = np.arange(len(samples) // HOP) * HOP + HOP // 2
    return speech[middles // STEP]


def level(samples: Float, mask: Bool) -> Float:
    """`samples` as loud as all are heard: their speech, as `mask` (num_samples // HOP,) has it, at SPEECH_RMS.

    Where nothing is speech, all of it counts; digital silence stays. The mean is taken away: the constant that cheap
    microphones add is not heard, and is no loudness.
    """
    heard = samples[: len(mask) * HOP].reshape(-1, HOP)[mask].ravel()
    heard = heard if len(heard) else samples
    mean = heard.mean(dtype=np.float64) if len(heard) else 0.0
    loudness = rms(heard - mean)
    return samples if loudness == 0 else ((samples - mean) * (SPEECH_RMS / loudness)).astype(np.float32)


def enough_speech(mask: Bool) -> bool:
    """Whether a window with this `speech_mask` is worth judging."""
    return int(mask.sum()) * HOP >= MIN_SPEECH_SECONDS * SAMPLE_RATE


def _at_one_level(samples: Float) -> Float:
    """The loud part at LOUD, NaN and infinity as silence. A bang must not decide, so the loudest steps do not count."""
    clean = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    clean -= np.median(clean)  # what a microphone adds; damaged samples do not move it
    power = np.square(np.pad(clean, (0, -len(clean) % STEP)).reshape(-1, STEP)).mean(1)
    loud = np.sqrt(np.quantile(power, 0.95))
    return np.clip(clean * (LOUD / loud) if loud > 0 else clean, -1, 1).astype(np.float32)


def _stretches(probability: Float) -> Bool:
    """(N,) probabilities -> (N,) bool, by Silero's rule: hysteresis, pauses filled, short stretches dropped, padded."""
    known = np.where(probability >= ENTER, 1, np.where(probability < LEAVE, 0, -1))
    last = np.maximum.accumulate(np.where(known >= 0, np.arange(len(known)), -1))
    speech = (last >= 0) & (known[last] == 1)
    speech = _without_short(speech, False, MIN_PAUSE)
    speech = _without_short(speech, True, MIN_SPEECH)
    return np.convolve(speech, np.ones(2 * PAD + 1), "same") > 0 if len(speech) else speech


def _without_short(values: Bool, kind: bool, least: int) -> Bool:
    """(N,) bool with the runs of `kind` that are shorter than `least` turned over; but no pause at the ends."""
    edges = np.flatnonzero(np.diff(values.astype(np.int8), prepend=-1, append=-1))  # of all runs, ends included
    values = values.copy()
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = start > 0 and stop < len(values)
        if values[start] == kind and stop - start < least and (kind or inside):
            values[start:stop] = not kind
    return values


@cache
def _network() -> Any:
    """The session, one for the process: running it changes nothing in it, so threads share it."""
    return shipped_network(WEIGHTS, MAX_BYTES, "Silero's", ["CPUExecutionProvider"])[0]
