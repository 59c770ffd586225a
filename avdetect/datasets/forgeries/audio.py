"""Forged voices (AUDIO), and real ones that do not belong to the picture (AUDIOVISUAL).

What they have in common with the original is made equal on purpose, so that a detector cannot use it: length, level,
DC, the absence of leading silence. At the edges of a segment the two are cross-faded over 5-10 ms inside it. A shifted
voice is never padded: what leaves at one end of the clip comes back at the other, cross-faded at the join.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from avdetect.datasets.forgeries.vocoders import VOCODERS, Vocoder
from avdetect.types import SAMPLE_RATE, SAMPLES_PER_FRAME, Float

MIN_SECONDS = 0.25  # shorter sound holds no syllable to forge
MIN_SAMPLES = round(MIN_SECONDS * SAMPLE_RATE)
FADE_SECONDS = (0.005, 0.010)  # shorter fades click, longer ones are heard as two voices
NOTHING = 1e-5  # -100 dBFS, under half a step of 16 bits: digital silence or a constant
KNEE = 0.9  # a forged peak above it is bent, so that it ends below 1
WORKING_LEVEL = 0.1  # -20 dBFS RMS: what the vocoders see, so that a quiet file is forged like a loud one
LEAD_SAMPLES = (1024, 2048)  # of mirrored sound around what a vocoder sees
SHARES = (0.25, 0.6)  # of the sound, what a partial forgery covers
LONGEST_PART_SECONDS = 4.0
OFFSET_FRAMES = (2, 25)  # of the video; viewers notice from about 2 frames on (ITU-R BT.1359-1)


@dataclass(frozen=True, repr=False)
class ForgedSound:
    """A forged voice and where it is forged. Digital silence cannot be forged: it comes back with no segments."""

    samples: Float  # (n,) float32 in [-1, 1], as long as the input
    segments: tuple[tuple[float, float], ...]  # seconds from the first sample; outside, bit for bit the input


# Samples (n,) at 16 kHz, random numbers, samples of another speaker or None. The input is never changed.
# Raises ValueError if the sound is shorter than MIN_SECONDS or not finite.
AudioForgery = Callable[[Float, np.random.Generator, Float | None], ForgedSound]
# The same arguments -> the first sample that is replaced, and what replaces it and those after it, of any level.
Replacement = Callable[[Float, np.random.Generator, Float | None], tuple[int, Float]]


def copied(vocoder: Vocoder, samples: Float, rng: np.random.Generator, other: Float | None) -> tuple[int, Float]:
    """The whole sound through `vocoder`.

    The lead takes the vocoder's own edges. It is of random length, for pyworld's noise begins alike at every call.
    """
    lead = int(rng.integers(*LEAD_SAMPLES))
    centred = (samples - samples.mean(dtype=np.float64)) * (WORKING_LEVEL / max(loudness(samples), NOTHING))
    copy = vocoder(np.pad(centred, lead, mode="reflect").astype(np.float32), rng)
    return 0, copy[lead : lead + len(samples)]


def copied_in_part(samples: Float, rng: np.random.Generator, other: Float | None) -> tuple[int, Float]:
    """One vocoder on one random stretch, where somebody speaks; the rest stays."""
    start, stop = _part(samples, rng)
    vocoder = VOCODERS[str(rng.choice(list(VOCODERS)))]
    return start, copied(vocoder, samples[start:stop], rng, other)[1]


def splice(samples: Float, rng: np.random.Generator, other: Float | None) -> tuple[int, Float]:
    """Cut and joined: a stretch is replaced by one from elsewhere in the sound, or from `other`."""
    start, stop = _part(samples, rng)
    count = stop - start
    if other is not None and len(other) >= MIN_SAMPLES and loudness(other) >= NOTHING and rng.random() < 0.5:
        donor = looped(checked(other), 0, max(len(other), count), rng)
    else:  # at least a quarter of the stretch's length away, around the end too
        away = count // 4
        donor = looped(samples, (start + away) % len(samples), len(samples) - 2 * away + count, rng)
    first = pick(donor, count, rng)
    return start, donor[first : first + count]


def offset(samples: Float, rng: np.random.Generator, other: Float | None) -> tuple[int, Float]:
    """The voice 2 to 25 video frames late (lags) or early, at most half the sound."""
    most = min(OFFSET_FRAMES[1], len(samples) // (2 * SAMPLES_PER_FRAME))
    frames = int(rng.integers(OFFSET_FRAMES[0], most + 1) * rng.choice([-1, 1]))
    return 0, looped(samples, -frames * SAMPLES_PER_FRAME % len(samples), len(samples), rng)


def other_voice(samples: Float, rng: np.random.Generator, other: Float | None) -> tuple[int, Float]:
    """The voice of another clip at the level of this one; a shorter one begins again.

    Whose voice `other` is, the caller chooses: the same speaker's words from another clip (only the lips tell), or
    another speaker's. Never this clip's own. Raises ValueError without a voice.
    """
    if other is None or loudness(checked(other)) < NOTHING:
        raise ValueError("other_voice needs the sound of another clip, with a voice in it")
    donor = checked(other)
    first = pick(donor, len(samples), rng) if len(donor) > len(samples) else int(rng.integers(len(donor)))
    return 0, looped(donor, first, len(samples), rng)


def _forged(make: Replacement, samples: Float, rng: np.random.Generator, other: Float | None) -> ForgedSound:
    """What `make` gives, at the level of what it replaces."""
    samples = checked(samples)
    start, piece = make(samples, rng, other)
    stop = start + len(piece)
    if loudness(samples[start:stop]) < NOTHING:
        return ForgedSound(samples, ())
    forged = like(piece, samples[start:stop])
    if len(piece) < len(samples):
        piece, forged = forged, samples.copy()
        overlay(forged, start, piece, round(rng.uniform(*FADE_SECONDS) * SAMPLE_RATE))
    return ForgedSound(forged, ((start / SAMPLE_RATE, stop / SAMPLE_RATE),))


def _part(samples: Float, rng: np.random.Generator) -> tuple[int, int]:
    """First and last + 1 sample of a stretch to forge; all of a sound that is too short to have parts."""
    longest = round(LONGEST_PART_SECONDS * SAMPLE_RATE)
    count = min(max(round(rng.uniform(*SHARES) * len(samples)), MIN_SAMPLES), longest, len(samples))
    start = pick(samples, count, rng)
    return start, start + count


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
    """`samples` with the mean and the level of `model`: neither loudness nor a DC offset may tell. Peaks are bent below
    1, and what that takes from the level is given back to the rest."""
    moving = samples - samples.mean(dtype=np.float64)
    level, middle = loudness(model), float(model.mean(dtype=np.float64))
    gain, shift = level / max(loudness(moving), 1e-12), middle
    for _ in range(4):
        out = moving * gain + shift
        size = np.abs(out)
        if size.max() <= 1:
            break
        bent = KNEE + (1 - KNEE) * np.tanh((size - KNEE) / (1 - KNEE))
        out = np.where(size > KNEE, np.sign(out) * bent, out)
        gain, shift = gain * level / max(loudness(out), 1e-12), shift + middle - float(out.mean())
    return out.astype(np.float32)


def overlay(out: Float, start: int, piece: Float, fade: int) -> None:
    """Write `piece` into `out` from sample `start`, cross-faded inside the piece's own ends with what stands there.
    There is no fade at an end of `out` itself."""
    weight: Float = np.ones(len(piece), np.float32)
    if start:
        weight[:fade] *= _ramp(fade)
    if start + len(piece) < len(out):
        weight[-fade:] *= _ramp(fade)[::-1]
    place = out[start : start + len(piece)]
    place += weight * (piece - place)


def looped(samples: Float, start: int, count: int, rng: np.random.Generator) -> Float:
    """`count` samples from `start` on, going on at the first sample after the last one.

    The join is a cross-fade of the beginning with the mirrored end: a jump would be a click that no real file has.
    """
    fade = min(round(rng.uniform(*FADE_SECONDS) * SAMPLE_RATE), len(samples) // 4)
    again = samples.copy()
    again[:fade] += _ramp(fade)[::-1] * (samples[: -fade - 1 : -1] - samples[:fade])
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


def _ramp(length: int) -> Float:
    """(length,) rising half of a Hann window, open at both ends; with its mirror it sums to 1."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


AUDIO: dict[str, AudioForgery] = {
    **{name: partial(_forged, partial(copied, vocoder)) for name, vocoder in VOCODERS.items()},
    "splice": partial(_forged, splice),
    "partial": partial(_forged, copied_in_part),
}
AUDIOVISUAL: dict[str, AudioForgery] = {
    "offset": partial(_forged, offset),
    "other_voice": partial(_forged, other_voice),
}
TAKES_OTHER = frozenset({"splice", "other_voice"})  # the others do not look at `other`
NEEDS_OTHER = frozenset({"other_voice"})
