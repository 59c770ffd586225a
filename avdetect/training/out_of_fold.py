"""What streams, fusion and calibration say of files whose source (or group) none of them saw: `out_of_fold.csv.gz`.

It travels in the bundle. The numbers of a model that was trained on all that there is come from nowhere else.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.config import TrainConfig
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.tables import with_outputs
from avdetect.files import replacing
from avdetect.pooling import FEATURES, NUM_VALUES
from avdetect.training.ablation import ablations
from avdetect.training.fusion import FittedFusion
from avdetect.training.outputs import FoldOutputs


def out_of_fold(config: TrainConfig, held: Sequence[FoldOutputs], best: FittedFusion) -> pd.DataFrame:
    """A row for each file of the folds: the manifest's columns, `fold`, the features, the probabilities and
    `ablation:<what>`. `best` was fitted on all of them, in this order."""
    table = pd.concat([fold.table for fold in held], ignore_index=True)
    features = np.concatenate([fold.features for fold in held])
    judged = features[:, NUM_VALUES:].any(axis=1)
    probabilities = np.full((len(table), len(OUTPUTS)), np.nan, np.float32)
    probabilities[judged] = np.clip(best.oof_probabilities, best.calibration.clip, 1 - best.calibration.clip)
    scores = with_outputs(table, features, probabilities, best.config.silent)
    tried = ablations(table, features, config.model, config.fusion, config.seed, config.fold_by)
    scores = scores.assign(**{f"ablation:{name}": p for name, p in tried.items()})
    is_file = np.concatenate([np.arange(len(fold.table)) < fold.files for fold in held])
    scores["fold"] = np.concatenate([np.full(len(fold.table), k) for k, fold in enumerate(held)])
    return scores[is_file].reset_index(drop=True)


def write(scores: pd.DataFrame, path: Path) -> None:
    """What cannot be read from a manifest: contents, fold, outputs. The same bytes for the same scores."""
    kept = [name for name in scores if name.startswith("ablation:")]
    columns = ["sha256", "fold", *FEATURES, *OUTPUTS, *kept]
    text = scores[columns].drop_duplicates("sha256").to_csv(index=False, float_format="%.5g")
    with replacing(path, sync=True) as file:
        file.write(gzip.compress(text.encode(), mtime=0))
