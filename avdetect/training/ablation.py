"""What every file's probability would be with fewer streams, or with a simpler fusion: refitted, out of fold.

The streams behind a file's outputs never saw its fold, and neither did the fusion and the calibration applied here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from avdetect.config import FusionFitConfig, ModelConfig
from avdetect.errors import ManifestError
from avdetect.pooling import NUM_VALUES, STREAM_OF_VALUE, STREAMS
from avdetect.training.fusion import FoldBy, fit_candidates
from avdetect.types import Float


def only(features: Float, streams: tuple[str, ...]) -> Float:
    """(N, F) features without the values and the bits of all other streams."""
    kept = features.copy()
    for index, name in enumerate(STREAMS):
        if name not in streams:
            kept[:, [c for c, stream in enumerate(STREAM_OF_VALUE) if stream == index]] = 0
            kept[:, NUM_VALUES + index] = 0
    return kept


def ablations(
    table: pd.DataFrame, features: Float, config: ModelConfig, fit: FusionFitConfig, seed: int, by: FoldBy
) -> dict[str, Float]:
    """`<streams>:<kind>` -> (N,) probability of fake; NaN where a file has none of the streams.

    Every combination of the model's streams with each fusion of `fit_candidates`;
    and `max`: the highest of the single streams' calibrated probabilities. What cannot be fitted, because too few files
    have such streams, is left out.
    """
    found: dict[str, Float] = {}
    names = [name for name in STREAMS if name in config.streams]
    for size in range(1, len(names) + 1):
        for streams in combinations(names, size):
            kept = only(features, streams)
            some = kept[:, NUM_VALUES:].any(axis=1)
            try:
                candidates = fit_candidates(table, kept, replace(config, streams=streams), fit, seed, by)
            except ManifestError:
                continue
            label = "all" if size == len(names) else "+".join(streams)
            for candidate in candidates:
                p = np.full(len(table), np.nan, np.float32)
                p[some] = candidate.oof_probabilities[:, 0]
                found[f"{label}:{candidate.kind}"] = p
    alone = [found[f"{name}:logistic"] for name in names if f"{name}:logistic" in found]
    if len(alone) > 1:
        # A file whose streams are all missing stays NaN; fmax says nothing of it either.
        found["all:max"] = np.fmax.reduce(alone)
    return found
