"""Fitting the fusion and its calibration on out-of-fold stream outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from avdetect.bundle import Calibration
from avdetect.config import FusionConfig, LoopConfig
from avdetect.datasets.manifest import LABELS, fold_of
from avdetect.errors import ManifestError
from avdetect.fusion import OUTPUTS, Fusion
from avdetect.pooling import NUM_VALUES
from avdetect.training.batches import source_weights
from avdetect.training.loop import learning_rate
from avdetect.training.losses import masked_bce
from avdetect.types import Float


def label_matrix(table: pd.DataFrame) -> Float:
    """(N, 3) labels in the order of OUTPUTS; -1 where unknown."""
    return table[list(LABELS)].astype("Int8").fillna(-1).to_numpy(np.float32)


def class_weights(table: pd.DataFrame, labels: Float, features: Float) -> Float:
    """(N, 3) weights: sources weigh by the square root of their size, and files with a face and a voice as much as all
    others together, for they are what is mostly scored.

    Both classes of each output weigh alike, also among the files that lack the same streams: which streams are missing
    must not speak for a class. Where a pattern of missing streams holds one class only, it is not trained on.
    """
    base = source_weights(table["dataset"])
    pattern = features[:, NUM_VALUES:] @ [1, 2, 4]
    whole = features[:, NUM_VALUES : NUM_VALUES + 2].all(axis=1)
    for part in (whole, ~whole):
        base[part] /= max(float(base[part].sum()), 1e-12)
    weights = np.zeros_like(labels)
    for column in range(labels.shape[1]):
        for value in np.unique(pattern):
            classes = [(pattern == value) & (labels[:, column] == label) for label in (0, 1)]
            if all(rows.any() for rows in classes):
                for rows in classes:
                    weights[rows, column] = base[rows] / base[rows].sum() * base[pattern == value].sum()
    return (weights * len(table)).astype(np.float32)


def fit_fusion(
    features: Float, labels: Float, weights: Float, config: FusionConfig, loop: LoopConfig, seed: int
) -> Fusion:
    """Full-batch AdamW; features (N, F), labels and weights (N, 3)."""
    torch.manual_seed(seed)
    fusion = Fusion(config)
    x, y, w = (torch.from_numpy(a) for a in (features, labels, weights))
    fusion.fit_scale(x)
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=loop.lr, weight_decay=loop.weight_decay)
    for step in range(loop.steps):
        fusion.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, loop)
        loss = masked_bce(fusion(x), y, loop.label_smoothing, w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return fusion.eval()


def logits_of(fusion: Fusion, features: Float) -> Float:
    """(N, F) -> (N, 3)."""
    with torch.inference_mode():
        return fusion(torch.from_numpy(features)).numpy()


@dataclass(frozen=True)
class FittedFusion:
    fusion: Fusion
    calibration: Calibration
    oof_logits: Float  # (N, 3) of the rows that have a stream, from fusions that did not see the row's group


def fit_and_calibrate(
    table: pd.DataFrame, features: Float, config: FusionConfig, loop: LoopConfig, seed: int, folds: int = 5
) -> FittedFusion:
    """`features` must be out-of-fold stream outputs. Platt scaling (1999) and the threshold are fitted on the logits of
    fusions that did not see the row's group; the fusion that is returned is fitted on every row."""
    judged = features[:, NUM_VALUES:].any(axis=1)  # the Detector abstains on the others
    table, features = table[judged].reset_index(drop=True), features[judged]
    labels = label_matrix(table)
    weights = class_weights(table, labels, features)
    fold = fold_of(table["group"], folds).to_numpy()
    oof = np.zeros_like(labels)
    for k in range(folds):
        held = fold == k
        if held.any() and not held.all():
            part = fit_fusion(features[~held], labels[~held], weights[~held], config, loop, seed)
            oof[held] = logits_of(part, features[held])
    scale, bias = [], []
    for column in range(len(OUTPUTS)):
        known = labels[:, column] >= 0
        if len(np.unique(labels[known, column])) < 2:
            raise ManifestError(f"{LABELS[column]} is never both 0 and 1 in this split: it cannot be calibrated")
        platt = LogisticRegression(C=1e3).fit(
            oof[known, column : column + 1], labels[known, column], sample_weight=weights[known, column]
        )
        # A negative slope would mean that out-of-fold evidence points the wrong way: state "no evidence" instead.
        scale.append(max(0.0, float(platt.coef_[0, 0])))
        bias.append(float(platt.intercept_[0]))
    calibration = Calibration(tuple(scale), tuple(bias), clip=0.01, threshold=0.5)
    known = labels[:, 0] >= 0
    threshold = _best_threshold(calibration.probabilities(oof)[known, 0], labels[known, 0], weights[known, 0])
    calibration = Calibration(tuple(scale), tuple(bias), clip=0.01, threshold=threshold)
    return FittedFusion(fit_fusion(features, labels, weights, config, loop, seed), calibration, oof)


def _best_threshold(probabilities: Float, labels: Float, weights: Float) -> float:
    """The threshold with the best weighted (hence balanced) accuracy, between neighbouring probabilities.

    0.5 when all are equal. Equal probabilities (many are clipped to one value) cannot be told apart by any threshold.
    """
    order = np.argsort(probabilities)
    p, y, w = probabilities[order].astype(np.float64), labels[order], weights[order]
    cuts = np.round((p[1:] + p[:-1]) / 2, 4)
    apart = (p[:-1] < cuts) & (cuts <= p[1:])
    if not apart.any():
        return 0.5
    below = np.cumsum(w * (y == 0))[:-1]  # reals that the cut after row i calls real
    above = np.cumsum((w * (y == 1))[::-1])[::-1][1:]
    return float(cuts[int(np.argmax(np.where(apart, below + above, -np.inf)))])
