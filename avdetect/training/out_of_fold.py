"""What streams, fusion and calibration say of files whose source (or group) none of them saw: `out_of_fold.csv.gz`.

It travels in the bundle. The numbers of a model that was trained on all that there is come from nowhere else. Beside
them stand ablations: what every file's probability would be with fewer streams, or with a simpler fusion.
"""

import gzip
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.config import FusionFitConfig, ModelConfig, TrainConfig
from avdetect.errors import ManifestError
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.tables import with_outputs
from avdetect.files import write_whole
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE, STREAMS
from avdetect.training.fusion import FittedFusion, FoldBy, fit_candidates
from avdetect.training.outputs import FoldOutputs
from avdetect.types import Float


def out_of_fold(config: TrainConfig, outputs: FoldOutputs, best: FittedFusion) -> pd.DataFrame:
    """A row for each file of the folds: the manifest's columns, the features, the probabilities, `ablation:<what>` and
    `fold`. `best` was fitted on all of them, in this order."""
    table, features = outputs.table, outputs.features
    probabilities = np.full((len(table), len(OUTPUTS)), np.nan, np.float32)
    clip = best.calibration.clip
    probabilities[features[:, NUM_VALUES:].any(axis=1)] = np.clip(best.oof_probabilities, clip, 1 - clip)
    scores = with_outputs(table, features, probabilities, best.config.silent)
    tried = ablations(table, features, config.model, config.fusion, config.seed, config.fold_by)
    scores = scores.assign(**{f"ablation:{name}": p for name, p in tried.items()}, fold=outputs.fold)
    return scores[outputs.is_file].reset_index(drop=True)


def write(scores: pd.DataFrame, path: Path) -> None:
    """What cannot be read from a manifest: contents, fold, outputs. The same bytes for the same scores."""
    kept = [name for name in scores if name.startswith("ablation:")]
    columns = ["sha256", "fold", *FEATURES, *OUTPUTS, *kept]
    text = scores[columns].drop_duplicates("sha256").to_csv(index=False, float_format="%.5g")
    write_whole(path, gzip.compress(text.encode(), mtime=0), sync=True)


def ablations(
    table: pd.DataFrame, features: Float, config: ModelConfig, fit: FusionFitConfig, seed: int, by: FoldBy
) -> dict[str, Float]:
    """`<streams>:<kind>` -> (N,) probability of fake, refitted; NaN where a file has none of the streams.

    Every combination of the model's streams with each fusion of `fit_candidates`; and `max`: the highest of the single
    streams' calibrated probabilities. What cannot be fitted, because too few files have such streams, is left out.
    """
    found: dict[str, Float] = {}
    names = [name for name in STREAMS if name in config.streams]
    for streams in (some for size in range(1, len(names) + 1) for some in combinations(names, size)):
        kept = only(features, streams)
        try:
            candidates = fit_candidates(table, kept, replace(config, streams=streams), fit, seed, by)
        except ManifestError:
            continue
        label = "all" if len(streams) == len(names) else "+".join(streams)
        for candidate in candidates:
            p = np.full(len(table), np.nan, np.float32)
            p[kept[:, NUM_VALUES:].any(axis=1)] = candidate.oof_probabilities[:, 0]
            found[f"{label}:{candidate.kind}"] = p
    alone = [found[f"{name}:logistic"] for name in names if f"{name}:logistic" in found]
    if len(alone) > 1:
        # A file whose streams are all missing stays NaN; fmax says nothing of it either.
        found["all:max"] = np.fmax.reduce(alone)
    return found


def only(features: Float, streams: tuple[str, ...]) -> Float:
    """(N, F) features without the values and the bits of all other streams."""
    kept = features.copy()
    for index, name in enumerate(STREAMS):
        if name not in streams:
            kept[:, [c for c, stream in enumerate(STREAM_OF_VALUE) if stream == index]] = 0
            kept[:, NUM_VALUES + index] = 0
    return kept
