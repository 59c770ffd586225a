"""Fitting the fusion and its calibration on out-of-fold stream outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits

from avdetect.bundle import Calibration
from avdetect.config import FusionConfig, FusionFitConfig, ModelConfig
from avdetect.datasets.manifest import LABELS, folds
from avdetect.datasets.splits import origins
from avdetect.errors import ManifestError
from avdetect.evaluation.metrics import weights as origin_weights
from avdetect.fusion import OUTPUTS, Fusion
from avdetect.pooling import NUM_VALUES
from avdetect.training.losses import masked_bce
from avdetect.types import Float

CLIPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # bounds of the probabilities, to be chosen from
INNER_FOLDS = (5, 3, 2)  # the most that the data allows
FoldBy = Literal["group", "dataset"]


def label_matrix(table: pd.DataFrame) -> Float:
    """(N, 3) labels in the order of OUTPUTS; -1 where unknown."""
    return table[list(LABELS)].astype("Int8").fillna(-1).to_numpy(np.float32)


def class_weights(table: pd.DataFrame, labels: Float, features: Float) -> Float:
    """(N, 3) weights: among files with the same streams every generator and every source of real material weighs alike,
    and files with a face and a voice weigh as much as all others together, for they are what is mostly scored.

    Both classes of each output weigh alike, also among the files that lack the same streams: which streams are missing
    must not speak for a class. Where a pattern of missing streams holds one class only, it is not trained on.
    """
    pattern = features[:, NUM_VALUES:] @ [1, 2, 4]
    whole = features[:, NUM_VALUES : NUM_VALUES + 2].all(axis=1)
    weights = np.zeros(labels.shape)
    for column in range(labels.shape[1]):
        for half in (whole, ~whole):
            known = half & (labels[:, column] >= 0)
            for value in np.unique(pattern[known]):
                rows = known & (pattern == value)
                y = labels[rows, column]
                if len(np.unique(y)) == 2:
                    count = len(np.unique(origins(table[rows], y == 1)))
                    weights[rows, column] = origin_weights(y, table[rows]) * count
            weights[known, column] /= max(float(weights[known, column].sum()), 1e-12)
    return (weights * len(table)).astype(np.float32)


def fit_fusion(
    features: Float, labels: Float, weights: Float, config: FusionConfig, fit: FusionFitConfig, seed: int
) -> Fusion:
    """Full-batch AdamW on a cosine; features (N, F), labels and weights (N, 3)."""
    torch.manual_seed(seed)
    fusion = Fusion(config)
    x, y, w = (torch.from_numpy(a) for a in (features, labels, weights))
    fusion.fit_scale(x)
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    for step in range(fit.steps):
        fusion.train()
        for group in optimizer.param_groups:
            group["lr"] = fit.lr * 0.5 * (1 + math.cos(math.pi * step / fit.steps))
        loss = masked_bce(fusion(x), y, fit.label_smoothing, w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return fusion.eval()


def fit_parts(features: Float, labels: Float, weights: Float, source: np.ndarray, config: FusionConfig) -> Fusion:
    """The noisy-or: the slope of each part from differences within sources, its bias from all of them.

    A logistic regression with an intercept for each source (fixed effects) gives the slope: how sources differ as
    wholes says nothing of forgeries, and with few sources it would drown what differs inside them. features (N, F),
    labels and weights (N, 3), source (N,) numbers.
    """
    fusion = Fusion(config)
    slopes, biases = [], []
    for part in (0, 1):
        known = (labels[:, 1 + part] >= 0) & (weights[:, 1 + part] > 0) & (features[:, NUM_VALUES + part] > 0)
        x, y, w = features[known, part].astype(float), labels[known, 1 + part], weights[known, 1 + part].astype(float)
        if len(np.unique(y)) < 2:
            slopes.append(0.0)
            biases.append(0.0)
            continue
        own = np.unique(source[known], return_inverse=True)[1]
        effects = np.eye(own.max() + 1)[own]
        regression = LogisticRegression(C=10.0, max_iter=1000).fit(np.column_stack([x, effects]), y, sample_weight=w)
        slope = max(0.0, float(regression.coef_[0, 0]))
        slopes.append(slope)
        biases.append(_offset(slope * x, y, w))
    with torch.no_grad():
        fusion.slope.copy_(torch.tensor(slopes))
        fusion.bias.copy_(torch.tensor(biases))
    return fusion.eval()


def _offset(logits: np.ndarray, labels: Float, weights: np.ndarray) -> float:
    """The bias that makes the weighted mean probability the share of fakes."""
    low, high = -30.0, 30.0
    for _ in range(60):  # the mean rises with the bias
        middle = (low + high) / 2
        excess = (weights * (1 / (1 + np.exp(-(logits + middle).clip(-500, 500))) - labels)).sum()
        low, high = (low, middle) if excess > 0 else (middle, high)
    return (low + high) / 2


def logits_of(fusion: Fusion, features: Float) -> Float:
    """(N, F) -> (N, 3)."""
    with torch.inference_mode():
        return fusion(torch.from_numpy(features)).numpy()


@dataclass(frozen=True)
class FittedFusion:
    """A fusion fitted on every row, and a calibration from fusions that did not see the row's group."""

    kind: str  # mlp, logistic or parts
    config: FusionConfig
    fusion: Fusion
    calibration: Calibration
    calibrated_by: str  # platt or temperature
    oof_logits: Float  # (N, 3) of the rows that have a stream
    oof_labels: Float  # (N, 3)
    oof_probabilities: Float  # (N, 3) by fusions and calibrations that did not see the row's fold
    log_loss: tuple[float, ...]  # of fake, video_fake, audio_fake by oof_probabilities; nan: not measured


def fit_candidates(
    table: pd.DataFrame,
    features: Float,
    config: ModelConfig,
    fit: FusionFitConfig,
    seed: int,
    by: FoldBy = "group",
) -> list[FittedFusion]:
    """The MLP (unless `config.fusion.hidden` is 0) and, always beside it, the plain logistic regression and the
    noisy-or of the parts; the better one first. `by`: what their own folds never split.

    `features` must be out-of-fold stream outputs. What is better is decided by the log loss out of fold of `fake`,
    unless `fit.kind` names one. Raises ManifestError where an output cannot be calibrated.
    """
    judged = features[:, NUM_VALUES:].any(axis=1)  # the Detector abstains on the others
    table, features = table[judged].reset_index(drop=True), features[judged]
    labels = label_matrix(table)
    weights = class_weights(table, labels, features)
    fold = _inner_folds(table, by)
    outputs = [True, "visual" in config.streams, "audio" in config.streams]  # a part without a stream has no output
    _check_classes(labels, weights, outputs)
    kinds = {
        "mlp": replace(config.fusion, parts=False),
        "logistic": replace(config.fusion, hidden=0, parts=False),
        "parts": replace(config.fusion, hidden=0, parts=True),
    }
    if not config.fusion.hidden:
        del kinds["mlp"]
    if config.streams == ("sync",):
        del kinds["parts"]
    source = np.unique(table["dataset"].to_numpy(object), return_inverse=True)[1]
    data = _Data(features, labels, weights, source, fold)
    fitted = [_fit_one(kind, one, data, fit, seed) for kind, one in kinds.items()]
    return sorted(fitted, key=lambda f: (fit.kind not in ("best", f.kind), f.log_loss[0]))


def _inner_folds(table: pd.DataFrame, by: FoldBy) -> np.ndarray:
    """(N,) as many folds as small data allows."""
    for number in INNER_FOLDS[:-1]:
        try:
            return folds(table, number, by=by).to_numpy()
        except ManifestError:
            continue
    return folds(table, INNER_FOLDS[-1], by=by).to_numpy()


def _check_classes(labels: Float, weights: Float, outputs: Sequence[bool]) -> None:
    for column, name in enumerate(LABELS):
        used = (labels[:, column] >= 0) & (weights[:, column] > 0)
        if outputs[column] and len(np.unique(labels[used, column])) < 2:
            raise ManifestError(
                f"{name} is never both 0 and 1 among files with the same streams: it cannot be calibrated. "
                "Label more files, or let fusion.forged make forgeries of the real ones"
            )


@dataclass(frozen=True)
class _Data:
    features: Float  # (N, F)
    labels: Float  # (N, 3)
    weights: Float  # (N, 3)
    source: np.ndarray  # (N,) number of the dataset
    fold: np.ndarray  # (N,)

    def fit(self, rows: np.ndarray, config: FusionConfig, fit: FusionFitConfig, seed: int) -> Fusion:
        """A fusion of some of the rows."""
        arrays = (self.features[rows], self.labels[rows], self.weights[rows])
        return fit_parts(*arrays, self.source[rows], config) if config.parts else fit_fusion(*arrays, config, fit, seed)


def _fit_one(kind: str, config: FusionConfig, data: _Data, fit: FusionFitConfig, seed: int) -> FittedFusion:
    labels, weights, fold = data.labels, data.weights, data.fold
    oof = np.zeros_like(labels)
    for k in np.unique(fold):
        held = fold == k
        oof[held] = logits_of(data.fit(~held, config, fit, seed), data.features[held])
    # The parts of a noisy-or are calibrated by how they were fitted; only the whole is left.
    columns = (0,) if config.parts else (0, 1, 2)
    calibration, how = calibrate(oof, labels, weights, fold, fit.max_false_alarms, columns)
    honest = crossed(oof, labels, weights, fold, how, columns)
    losses = tuple(_log_loss(honest[:, c], labels[:, c], weights[:, c]) for c in range(3))
    fusion = data.fit(np.ones(len(fold), bool), config, fit, seed)
    return FittedFusion(kind, config, fusion, calibration, how, oof, labels, honest, losses)


def calibrate(
    logits: Float,
    labels: Float,
    weights: Float,
    fold: np.ndarray,
    max_false_alarms: float = 1.0,
    columns: Sequence[int] = (0, 1, 2),
) -> tuple[Calibration, str]:
    """Platt scaling (1999) or temperature alone (Guo et al., 2017), whichever has the lower log loss of `fake` when
    fitted on all folds but one and measured on that one; and the threshold (see `best_threshold`).

    logits, labels, weights (N, 3); fold (N,): no group may stand in two. The probabilities are not clipped yet. An
    output with one class only keeps its logits (its stream was not trained), and so do those not in `columns`.
    """
    tried = {how: crossed(logits, labels, weights, fold, how, columns) for how in ("temperature", "platt")}
    losses = {how: _log_loss(p[:, 0], labels[:, 0], weights[:, 0]) for how, p in tried.items()}
    how = min(losses, key=lambda name: losses[name])
    calibration = _calibration(logits, labels, weights, how, columns)
    known = labels[:, 0] >= 0
    p = calibration.probabilities(logits)[known, 0]
    threshold = best_threshold(p, labels[known, 0], weights[known, 0], max_false_alarms)
    return replace(calibration, threshold=threshold), how


def crossed(
    logits: Float, labels: Float, weights: Float, fold: np.ndarray, how: str, columns: Sequence[int] = (0, 1, 2)
) -> Float:
    """(N, 3) probabilities of each fold by the calibration of the others."""
    result = np.empty_like(logits)
    for k in np.unique(fold):
        held = fold == k
        calibration = _calibration(logits[~held], labels[~held], weights[~held], how, columns)
        result[held] = calibration.probabilities(logits[held])
    return result


def _calibration(logits: Float, labels: Float, weights: Float, how: str, columns: Sequence[int]) -> Calibration:
    scale, bias = _scale_and_bias(logits, labels, weights, how, columns)
    return Calibration(scale, bias, clip=1e-4, threshold=0.5)


def _scale_and_bias(
    logits: Float, labels: Float, weights: Float, how: str, columns: Sequence[int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    scale, bias = [], []
    for column in range(len(OUTPUTS)):
        known = (labels[:, column] >= 0) & (weights[:, column] > 0)
        if column not in columns or len(np.unique(labels[known, column])) < 2:
            scale.append(1.0)
            bias.append(0.0)
            continue
        regression = LogisticRegression(C=1e3, fit_intercept=how == "platt").fit(
            logits[known, column : column + 1], labels[known, column], sample_weight=weights[known, column]
        )
        # A negative slope would mean that out-of-fold evidence points the wrong way: state "no evidence" instead.
        scale.append(max(0.0, float(regression.coef_[0, 0])))
        bias.append(float(np.ravel(regression.intercept_)[0]) if how == "platt" else 0.0)
    return tuple(scale), tuple(bias)


def choose_clip(calibration: Calibration, logits: Float, labels: Float) -> tuple[Calibration, dict[float, float]]:
    """The calibration with the clip that gives the lowest log loss of `fake` on other data (dev), both classes weighing
    alike, and the log loss of every clip tried. The threshold is kept inside the clip.

    logits, labels (N, 3). Raises ManifestError when a class is missing.
    """
    known = labels[:, 0] >= 0
    y = labels[known, 0]
    if len(np.unique(y)) < 2:
        raise ManifestError("fake is never both 0 and 1: there is nothing to choose the probability clip by")
    weights = np.where(y == 1, 1 / max(1, (y == 1).sum()), 1 / max(1, (y == 0).sum()))
    tried = {}
    for clip in CLIPS:
        p = replace(calibration, clip=clip).probabilities(logits[known])[:, 0]
        tried[clip] = _log_loss(p, y, weights)
    clip = min(tried, key=lambda c: tried[c])
    threshold = float(np.clip(calibration.threshold, clip, 1 - clip))
    return replace(calibration, clip=clip, threshold=threshold), tried


def _log_loss(probabilities: Float, labels: Float, weights: Float) -> float:
    """Weighted, over known labels; nan without any."""
    known = (labels >= 0) & (weights > 0)
    if not known.any():
        return float("nan")
    p, y, w = (torch.from_numpy(a[known].astype(np.float64)) for a in (probabilities, labels, weights))
    losses = binary_cross_entropy_with_logits(torch.logit(p), y, reduction="none")
    return float((losses * w).sum() / w.sum())


def best_threshold(probabilities: Float, labels: Float, weights: Float, max_false_alarms: float = 1.0) -> float:
    """The threshold with the best weighted (hence balanced) accuracy, between neighbouring probabilities, among those
    that call at most the share `max_false_alarms` of the reals fake; where none does, the highest.

    0.5 when all are equal. Equal probabilities cannot be told apart by any threshold.
    """
    order = np.argsort(probabilities)
    p, y, w = probabilities[order].astype(np.float64), labels[order], weights[order]
    cuts = np.round((p[1:] + p[:-1]) / 2, 4)
    apart = (p[:-1] < cuts) & (cuts <= p[1:])
    if not apart.any():
        return 0.5
    below = np.cumsum(w * (y == 0))[:-1]  # reals that the cut after row i calls real
    above = np.cumsum((w * (y == 1))[::-1])[::-1][1:]
    reals = float((w * (y == 0)).sum())
    allowed = apart & (reals - below <= max_false_alarms * reals + 1e-9)
    if not allowed.any():
        return float(cuts[np.flatnonzero(apart)[-1]])
    return float(cuts[int(np.argmax(np.where(allowed, below + above, -np.inf)))])
