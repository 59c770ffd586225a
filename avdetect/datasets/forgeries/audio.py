"""Forged voices: vocoder copies, splices, and clips forged in part only.

What they have in common with the original is made equal on purpose, so that a detector cannot use it: length, level,
DC, the absence of leading silence. At the edges of a segment the two are cross-faded over 5-10 ms inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from avdetect.datasets.forgeries.sounds import (
    MIN_SAMPLES,
    NOTHING,
    checked,
    fade_length,
    like,
    looped,
    loudness,
    overlay,
    pick,
)
from avdetect.datasets.forgeries.vocoders import VOCODERS, Vocoder
from avdetect.types import SAMPLE_RATE, Float


@dataclass(frozen=True, repr=False)
class ForgedSound:
    """A forged voice and where it is forged. Digital silence cannot be forged: it comes back with no segments."""

    samples: Float  # (n,) float32 in [-1, 1], as long as the input
    segments: tuple[tuple[float, float], ...]  # seconds from the first sample; outside, bit for bit the input

    def __repr__(self) -> str:
        return f"ForgedSound({len(self.samples) / SAMPLE_RATE:.2f} s, forged at {self.segments})"


# Samples (n,) at 16 kHz, random numbers, samples of another speaker or None. The input is never changed.
# Raises ValueError if the sound is shorter than MIN_SECONDS or not finite.
AudioForgery = Callable[[Float, np.random.Generator, Float | None], ForgedSound]

WORKING_LEVEL = 0.1  # -20 dBFS RMS: what the vocoders see, so that a quiet file is forged like a loud one
LONGEST_PART_SECONDS = 4.0
TAKES_OTHER = frozenset({"splice"})  # may take a stretch of `other`; the rest of AUDIO does not look at it
SHARES = (0.25, 0.6)  # of the sound, what a partial forgery covers


def partly_forgeable() -> tuple[str, ...]:
    """The vocoders that may replace a segment: those that keep time, or the words at its edges would be cut."""
    return tuple(name for name in VOCODERS if name != "tempo")


def _forge(vocoder: Vocoder, samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """The whole sound through `vocoder`."""
    samples = checked(samples)
    if loudness(samples) < NOTHING:
        return ForgedSound(samples, ())
    return ForgedSound(_copy(vocoder, samples, rng), _segment(0, len(samples)))


def _copy(vocoder: Vocoder, samples: Float, rng: np.random.Generator) -> Float:
    """A vocoder's copy with the level and mean of `samples`."""
    centred = samples - samples.mean(dtype=np.float64)
    copy = vocoder((centred * (WORKING_LEVEL / loudness(samples))).astype(np.float32), rng)
    return like(copy, samples)


def forge_part(samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """One vocoder on one random stretch, where somebody speaks; the rest stays."""
    samples = checked(samples)
    start, stop = _part(samples, rng)
    name = str(rng.choice(partly_forgeable()))
    if loudness(samples[start:stop]) < NOTHING:
        return ForgedSound(samples, ())
    # The vocoder sees the sound around the segment too, so that its own edges fall outside.
    first, last = max(0, start - MIN_SAMPLES), min(len(samples), stop + MIN_SAMPLES)
    whole = _copy(VOCODERS[name], samples[first:last], rng)
    piece = like(whole[start - first : stop - first], samples[start:stop])
    return _pasted(samples, start, piece, rng)


def splice(samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """Cut and joined: pieces in another order, or a stretch from elsewhere in the sound or from `other`."""
    samples = checked(samples)
    donors = [] if other is None or len(other) < MIN_SAMPLES or loudness(other) < NOTHING else [checked(other)]
    start, stop = _part(samples, rng)
    if loudness(samples[start:stop]) < NOTHING:
        return ForgedSound(samples, ())
    way = rng.choice(["order", "own", "other"] if donors else ["order", "own"])
    if way == "order":
        return _reordered(samples, start, stop, rng)
    if way == "other":
        return _pasted(samples, start, _from_donor(donors[0], samples[start:stop], rng), rng)
    return _pasted(samples, start, _from_elsewhere(samples, start, stop, rng), rng)


def _part(samples: Float, rng: np.random.Generator) -> tuple[int, int]:
    """First and last + 1 sample of a stretch to forge; all of a sound that is too short to have parts."""
    longest = round(LONGEST_PART_SECONDS * SAMPLE_RATE)
    count = min(max(round(rng.uniform(*SHARES) * len(samples)), MIN_SAMPLES), longest, len(samples))
    start = pick(samples, count, rng)
    return start, start + count


def _pasted(samples: Float, start: int, piece: Float, rng: np.random.Generator) -> ForgedSound:
    """`piece` in the place of the samples from `start` on; no fade at an end of the sound itself."""
    out, stop, fade = samples.copy(), start + len(piece), fade_length(rng)
    overlay(out, start, piece, fade if start else 0, fade if stop < len(samples) else 0)
    return ForgedSound(out, _segment(start, stop))


def _reordered(samples: Float, start: int, stop: int, rng: np.random.Generator) -> ForgedSound:
    """Two to four pieces of the stretch in another order, each joined to what followed the one before it."""
    fade = fade_length(rng)
    number = int(np.clip((stop - start) // (MIN_SAMPLES // 2), 2, rng.integers(2, 5)))
    even = np.linspace(start, stop, number + 1)
    jitter = rng.uniform(-0.25, 0.25, number - 1) * (stop - start) / number
    cuts = [start, *np.round(even[1:-1] + jitter).astype(int).tolist(), stop]
    order = np.roll(np.arange(number), rng.integers(1, number))  # no piece stays where it was
    out, place = samples.copy(), start
    for rank, index in enumerate(order):
        first, last = cuts[index], cuts[index + 1]
        final = rank == number - 1
        piece = samples[first : last if final else min(last + fade, len(samples))]
        ends = fade if final and stop < len(samples) else 0
        overlay(out, place, piece[: stop - place], fade if place else 0, ends)
        place += last - first
    return ForgedSound(out, _segment(start, stop))


def _from_donor(other: Float, model: Float, rng: np.random.Generator) -> Float:
    """As much of `other` as `model` is long, at its level; a short donor is told forwards and backwards in time."""
    if len(other) < len(model):
        other = np.pad(other, (0, len(model) - len(other)), mode="symmetric")
    first = pick(other, len(model), rng)
    return like(other[first : first + len(model)], model)


def _from_elsewhere(samples: Float, start: int, stop: int, rng: np.random.Generator) -> Float:
    """The sound itself where somebody speaks, at least a quarter of the stretch's length away (around the end too)."""
    count = stop - start
    away = count // 4
    rest = looped(samples, (start + away) % len(samples), len(samples) - 2 * away + count, rng)
    first = pick(rest, count, rng)
    return like(rest[first : first + count], samples[start:stop])


def _segment(start: int, stop: int) -> tuple[tuple[float, float], ...]:
    return ((start / SAMPLE_RATE, stop / SAMPLE_RATE),)


AUDIO: dict[str, AudioForgery] = {
    **{name: partial(_forge, vocoder) for name, vocoder in VOCODERS.items()},
    "splice": splice,
    "partial": forge_part,
}
