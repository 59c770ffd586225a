"""Real voices that do not belong to the picture: shifted, drifting, or of another clip. Neither half is synthetic.

The sound is never padded: what leaves at one end of the clip comes back at the other, cross-faded at the join, so that
no silence gives the forgery away.
"""

from __future__ import annotations

import numpy as np

from avdetect.datasets.forgeries.audio import AudioForgery, ForgedSound
from avdetect.datasets.forgeries.sounds import NOTHING, checked, like, looped, loudness, pick
from avdetect.datasets.forgeries.vocoders import faster
from avdetect.types import SAMPLE_RATE, SAMPLES_PER_FRAME, Float

OFFSET_FRAMES = (2, 25)  # viewers notice from about 2 frames on (ITU-R BT.1359-1)
DRIFT = (0.02, 0.08)
SLIP_SECONDS = 0.1  # by which a drifting voice is off at the end of the clip, if DRIFT allows


def offset(samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """The voice 2 to 25 video frames late (lags) or early, at most half the sound."""
    samples = checked(samples)
    most = min(OFFSET_FRAMES[1], len(samples) // (2 * SAMPLES_PER_FRAME))
    frames = int(rng.integers(OFFSET_FRAMES[0], most + 1) * rng.choice([-1, 1]))
    return _whole(samples, looped(samples, -frames * SAMPLES_PER_FRAME % len(samples), len(samples), rng))


def drift(samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """The voice 2 to 8 % too fast or too slow: in step at the first sample, ever further off after it."""
    samples = checked(samples)
    least = min(max(DRIFT[0], SLIP_SECONDS * SAMPLE_RATE / len(samples)), DRIFT[1])
    rate = 1 + rng.uniform(least, DRIFT[1]) * rng.choice([-1, 1])
    source = looped(samples, 0, int(np.ceil(len(samples) * rate)) + 32, rng)
    return _whole(samples, faster(source, rate, len(samples)))


def other_voice(samples: Float, rng: np.random.Generator, other: Float | None = None) -> ForgedSound:
    """The voice of another clip at the level of this one; a shorter one begins again.

    Whose voice `other` is, the caller chooses: the same speaker's words from another clip (only the lips tell), or
    another speaker's. Never this clip's own. Raises ValueError without a voice.
    """
    samples = checked(samples)
    if other is None or loudness(checked(other)) < NOTHING:
        raise ValueError("other_voice needs the sound of another clip, with a voice in it")
    donor = checked(other)
    first = pick(donor, len(samples), rng) if len(donor) > len(samples) else int(rng.integers(len(donor)))
    return _whole(samples, looped(donor, first, len(samples), rng))


def _whole(samples: Float, forged: Float) -> ForgedSound:
    """`forged` at the level of `samples`; nothing if there is no sound to be out of step."""
    if loudness(samples) < NOTHING:
        return ForgedSound(samples, ())
    return ForgedSound(like(forged, samples), ((0.0, len(samples) / SAMPLE_RATE),))


AUDIOVISUAL: dict[str, AudioForgery] = {"offset": offset, "other_voice": other_voice, "drift": drift}
NEEDS_OTHER: frozenset[str] = frozenset({"other_voice"})
