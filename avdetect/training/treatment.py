"""What every kind of batch shares: its part of the items, the forgeries to draw from, and one treatment for a pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from avdetect.datasets.augment.codecs import Recipe, through_audio_codec, through_video_codec
from avdetect.datasets.augment.faces import augment_faces
from avdetect.datasets.augment.voice import augment_voice
from avdetect.datasets.crops import FaceCrops
from avdetect.errors import ConfigError
from avdetect.types import Float, UInt8


def share_of(count: int, part: int, parts: int, what: str) -> range:
    """The items of part `part` when `count` items are shared among `parts`."""
    if count % parts or not count:
        raise ConfigError(f"{what}: {count} cannot be shared among {parts} parts; change batch_size or accumulate")
    return range(part * count // parts, (part + 1) * count // parts)


def choices(named: Mapping[str, float], known: Mapping[str, object], where: str) -> tuple[list[str], np.ndarray]:
    """Names and probabilities of the forgeries to draw from; an empty mapping means all of them alike."""
    for name in named:
        if name not in known:
            raise ConfigError(f"{where}.forgeries: unknown forgery {name!r}; known: {', '.join(known)}")
    weights = dict(named) or dict.fromkeys(known, 1.0)
    total = sum(weights.values())
    if min(weights.values()) < 0 or total <= 0:
        raise ConfigError(f"{where}.forgeries: weights must be at least 0 and not all 0, got {weights}")
    return list(weights), np.array(list(weights.values())) / total


def treated_faces(faces: FaceCrops, codec: float, treatment: int, light: bool = False) -> UInt8:
    """(T, S, S, 3): `faces` through what the number `treatment` stands for; with probability `codec` a real codec."""
    rng = np.random.default_rng(treatment)
    recipe = Recipe.draw(rng)  # drawn whether used or not, so that what follows is alike
    crops = through_video_codec(faces.crops, recipe.video) if rng.random() < codec else faces.crops
    return augment_faces(FaceCrops(crops, faces.landmarks), rng, light)


def treated_voice(samples: Float, codec: float, treatment: int) -> Float:
    """(n,): `samples` through what the number `treatment` stands for; with probability `codec` a real codec."""
    rng = np.random.default_rng(treatment)
    recipe = Recipe.draw(rng)
    samples = through_audio_codec(samples, recipe.audio) if rng.random() < codec else samples
    return augment_voice(samples, rng)
