"""Fitting the fusion on out-of-fold stream outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from avdetect.bundle import Calibration
from avdetect.config import FusionConfig, FusionFitConfig, ModelConfig
from avdetect.datasets.manifest import LABELS, folds, mismatch
from avdetect.datasets.splits import media, origins
from avdetect.errors import ManifestError
from avdetect.evaluation.metrics import multiplicities
from avdetect.evaluation.metrics import weights as origin_weights
from avdetect.fusion import OUTPUTS, PART_SIGNS, PART_VALUES, Fusion, noisy_or
from avdetect.pooling import NUM_VALUES, STREAMS
from avdetect.training.calibration import UNCHANGED, calibrate, crossed, thresholded, weighted_log_loss
from avdetect.training.losses import masked_bce
from avdetect.types import Float, StreamName

INNER_FOLDS = (20, 10, 5, 3, 2)  # the most that the data allows: the fewer sources one lacks, the more alike all are
ROUNDS = 200  # of resampled sources
LEAST_FACTOR = 0.3  # of the slopes from within sources
FoldBy = Literal["group", "dataset"]


@dataclass(frozen=True)
class Rows:
    """What a fusion is fitted on: files and forgeries that have a stream."""

    features: Float  # (N, F)
    labels: Float  # (N, 4) in the order of OUTPUTS, -1 unknown
    weights: Float  # (N, 4)
    source: np.ndarray  # (N,) number of the dataset

    def __getitem__(self, chosen: np.ndarray) -> Rows:
        return Rows(self.features[chosen], self.labels[chosen], self.weights[chosen], self.source[chosen])

    def evidence(self) -> np.ndarray:
        """(N, 3) the value of each part's own stream; higher is more fake."""
        return self.features[:, PART_VALUES].astype(float) * PART_SIGNS

    def known(self, part: int) -> tuple[np.ndarray, Float, Float, np.ndarray]:
        """Evidence, labels, weights and sources of the rows (M,) whose label of that part counts."""
        rows = (self.labels[:, 1 + part] >= 0) & (self.weights[:, 1 + part] > 0)
        mine = self[rows]
        return mine.evidence()[:, part], mine.labels[:, 1 + part], mine.weights[:, 1 + part], mine.source


def label_matrix(table: pd.DataFrame) -> Float:
    """(N, 4) labels in the order of OUTPUTS; -1 where unknown."""
    labels = table[list(LABELS)].assign(mismatch=mismatch(table))
    return labels.astype("Int8").fillna(-1).to_numpy(np.float32)


def class_weights(table: pd.DataFrame, labels: Float, features: Float) -> Float:
    """(N, 4) weights: among files with the same streams every generator and every source of real material weighs alike,
    and files with a face and a voice weigh as much as all others together, for they are what is mostly scored.

    Both classes of each output weigh alike, also among the files that lack the same streams: which streams are missing
    must not speak for a class. Where a pattern of missing streams holds one class only, it is not trained on, nor is a
    part whose own stream is missing.
    """
    pattern = features[:, NUM_VALUES:] @ [1, 2, 4]
    whole = features[:, NUM_VALUES : NUM_VALUES + 2].all(axis=1)
    weights = np.zeros(labels.shape)
    there = np.column_stack([np.ones(len(table), bool), features[:, NUM_VALUES:] > 0])
    for column in range(labels.shape[1]):
        for half in (whole, ~whole):
            known = half & there[:, column] & (labels[:, column] >= 0)
            for value in np.unique(pattern[known]):
                rows = known & (pattern == value)
                y = labels[rows, column]
                if len(np.unique(y)) == 2:
                    count = len(np.unique(origins(table[rows], y == 1)))
                    weights[rows, column] = origin_weights(y, table[rows]) * count
            weights[known, column] /= max(float(weights[known, column].sum()), 1e-12)
    return (weights * len(table)).astype(np.float32)


def fit_logistic(rows: Rows, config: FusionConfig, fit: FusionFitConfig, seed: int) -> Fusion:
    """The logistic regression, by full-batch AdamW on a cosine."""
    torch.manual_seed(seed)
    fusion = Fusion(config)
    x, y, w = (torch.from_numpy(a) for a in (rows.features, rows.labels, rows.weights))
    fusion.fit_scale(x)
    optimizer = torch.optim.AdamW(fusion.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
    fusion.train()
    for step in range(fit.steps):
        for group in optimizer.param_groups:
            group["lr"] = fit.lr * 0.5 * (1 + math.cos(math.pi * step / fit.steps))
        loss = masked_bce(fusion(x), y, fit.label_smoothing, w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return fusion.eval()


def fit_parts(rows: Rows, config: FusionConfig) -> Fusion:
    """The noisy-or: the slope of each part from differences within sources; then all biases, and a factor on each
    slope, together: sources differ in level, which slopes from within them do not know of. A part of `config.silent`
    has no slope."""
    heard = np.array([name not in config.silent for name in STREAMS])
    slopes = np.array([_slope(*rows.known(part)) if heard[part] else 0.0 for part in range(len(STREAMS))])
    present = (rows.features[:, NUM_VALUES:] > 0) & heard
    fusion = Fusion(config)
    factors, biases = _levels(slopes * rows.evidence(), present, rows.labels, rows.weights)
    with torch.no_grad():
        fusion.slope.copy_(torch.from_numpy(factors * slopes))
        fusion.bias.copy_(torch.from_numpy(biases))
    return fusion.eval()


def _slope(x: np.ndarray, y: Float, w: Float, source: np.ndarray) -> float:
    """At least 0. A logistic regression with an intercept for each source (fixed effects): how sources differ as wholes
    says nothing of forgeries, and with few sources it would drown what differs inside them. All (N,)."""
    spread = float(x.std()) if len(x) else 0.0
    if len(np.unique(y)) < 2 or not spread:
        return 0.0
    own = np.unique(source, return_inverse=True)[1]
    inputs = np.column_stack([x / spread, np.eye(own.max() + 1)[own]])
    regression = LogisticRegression(C=10.0, max_iter=1000).fit(inputs, y, sample_weight=w)
    return max(0.0, float(regression.coef_[0, 0])) / spread


def _levels(evidence: np.ndarray, present: np.ndarray, labels: Float, weights: Float) -> tuple[np.ndarray, np.ndarray]:
    """A factor on the evidence of each part (3,) and its bias (3,), by maximum likelihood: the weighted cross-entropies
    of each part, and of the whole, which counts as much as its parts together. So all are calibrated together.

    A factor is between LEAST_FACTOR and 1: where sources differ in level, evidence from within them is too sure of
    itself, but it must not drown. evidence, present (N, 3): slope times value, and whether it is there.
    """
    judged = np.column_stack([present.any(axis=1), present]) & (labels >= 0)
    w = np.where(judged, weights, 0).astype(float)
    w /= np.maximum(w.sum(axis=0), 1e-12)
    w[:, 0] *= evidence.shape[1]
    z, there, y, share = (torch.from_numpy(a.astype(float)) for a in (evidence, present, np.maximum(labels, 0), w))
    bias = torch.zeros(evidence.shape[1], dtype=torch.float64, requires_grad=True)
    place = torch.zeros_like(bias, requires_grad=True)  # of the factors between their bounds, as logits
    optimizer = torch.optim.LBFGS([bias, place], max_iter=200, line_search_fn="strong_wolfe")

    def factors() -> Tensor:
        return LEAST_FACTOR + (1 - LEAST_FACTOR) * place.sigmoid()

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = noisy_or(z * factors() + bias, there)
        total = binary_cross_entropy_with_logits(logits, y, weight=share, reduction="sum")
        total.backward()
        return total

    optimizer.step(loss)
    return factors().detach().numpy(), bias.detach().numpy()


def silent_parts(rows: Rows) -> tuple[StreamName, ...]:
    """The streams that carry no information about their part: inside sources, more evidence does not surely mean more
    fakes. The outputs are of sources left out already; resampled are the sources, and the lower end of the 90 %
    interval must be above 0."""
    return tuple(name for part, name in enumerate(STREAMS) if not _informs(*rows.known(part)))


def _informs(x: np.ndarray, y: Float, w: Float, source: np.ndarray) -> bool:
    """Whether the slope of `_slope` is above 0 in all but a twentieth of resampled sources. All (N,).

    The likelihood of a slope with an intercept for each source is concave, so its maximum is above 0 exactly where its
    derivative at 0 is: the sum over the sources of the covariance of value and label inside each.
    """
    place = np.unique(source, return_inverse=True)[1]
    mean = np.bincount(place, w * y) / np.bincount(place, w)
    pull = np.bincount(place, w * (y - mean[place]) * x)[(mean > 0) & (mean < 1)]
    if not len(pull):
        return False
    drawn = np.concatenate([times @ pull for times in multiplicities(len(pull), ROUNDS, 0, ROUNDS)])
    return float(np.quantile(drawn, 0.05)) > 0


def logits_of(fusion: Fusion, features: Float) -> Float:
    """(N, F) -> (N, 4)."""
    with torch.inference_mode():
        return fusion(torch.from_numpy(features)).numpy()


@dataclass(frozen=True)
class FittedFusion:
    """A fusion fitted on every row, and a calibration from fusions that did not see the row's group."""

    kind: str  # logistic or parts
    config: FusionConfig
    fusion: Fusion
    calibration: Calibration
    calibrated_by: str  # platt, temperature, or the biases of the parts
    oof_logits: Float  # (N, 4) of the rows that have a stream
    oof_labels: Float  # (N, 4)
    oof_weights: Float  # (N, 4)
    scored_weights: Float  # (N, 4) the same, 0 for still pictures: of the verdict's thresholds and rates
    oof_probabilities: Float  # (N, 4) by fusions and calibrations that did not see the row's fold
    log_loss: tuple[float, ...]  # of OUTPUTS by oof_probabilities; nan: not measured


def fit_candidates(
    table: pd.DataFrame,
    features: Float,
    config: ModelConfig,
    fit: FusionFitConfig,
    seed: int,
    by: FoldBy = "group",
) -> list[FittedFusion]:
    """The noisy-or of the parts and the logistic regression; `fit.kind` first. `by`: what their own folds never split.
    A stream that carries no information about its part is silent in the noisy-or; in both the match is, where nothing
    is known of any.

    `features` must be out-of-fold stream outputs. Raises ManifestError where an output cannot be calibrated.
    """
    judged = features[:, NUM_VALUES:].any(axis=1)  # the Detector abstains on the others
    table, features = table[judged].reset_index(drop=True), features[judged]
    labels = label_matrix(table)
    weights = class_weights(table, labels, features)
    fold = _inner_folds(table, by)
    _check_classes(labels, weights, config.streams)
    rows = Rows(features, labels, weights, np.unique(table["dataset"].to_numpy(object), return_inverse=True)[1])
    unmatched: tuple[StreamName, ...] = () if len(np.unique(labels[weights[:, 3] > 0, 3])) == 2 else ("sync",)
    silent = {"parts": silent_parts(rows), "logistic": unmatched}
    scored = weights * _not_stills(table, labels)[:, None]
    fitted = []
    for kind in sorted(silent, key=lambda kind: kind != fit.kind):
        own = tuple(name for name in silent[kind] if name in config.streams)
        one = replace(config.fusion, parts=kind == "parts", silent=own)
        fitted.append(_fit_one(kind, one, rows, fold, scored, fit, seed))
    return fitted


def _not_stills(table: pd.DataFrame, labels: Float) -> np.ndarray:
    """(N,) which files the verdict's thresholds and rates are of: not still pictures, which train the face but are
    never scored; all, where the others lack a class."""
    rows = media(table) != "stills"
    return rows if len(np.unique(labels[rows & (labels[:, 0] >= 0), 0])) == 2 else np.ones(len(rows), bool)


def _inner_folds(table: pd.DataFrame, by: FoldBy) -> np.ndarray:
    for number in INNER_FOLDS[:-1]:
        try:
            return folds(table, number, by=by).to_numpy()
        except ManifestError:
            continue
    return folds(table, INNER_FOLDS[-1], by=by).to_numpy()


def _check_classes(labels: Float, weights: Float, streams: Sequence[str]) -> None:
    for column, (name, stream) in enumerate(zip(LABELS, ("", "visual", "audio"), strict=True)):
        if stream and stream not in streams:
            continue  # a part without a stream has no output
        used = (labels[:, column] >= 0) & (weights[:, column] > 0)
        if len(np.unique(labels[used, column])) < 2:
            raise ManifestError(
                f"{name} is never both 0 and 1 among files with the same streams: it cannot be calibrated. "
                "Label more files, or let fusion.forged make forgeries of the real ones"
            )


def _fit_one(
    kind: str, config: FusionConfig, rows: Rows, fold: np.ndarray, scored: Float, fit: FusionFitConfig, seed: int
) -> FittedFusion:
    """fold (N,); scored (N, 4): weights of what the thresholds are chosen by."""
    labels, weights = rows.labels, rows.weights

    def fitted(chosen: np.ndarray) -> Fusion:
        return fit_parts(rows[chosen], config) if config.parts else fit_logistic(rows[chosen], config, fit, seed)

    oof = np.zeros_like(labels)
    for k in np.unique(fold):
        oof[fold == k] = logits_of(fitted(fold != k), rows.features[fold == k])
    if config.parts:  # calibrated by how it was fitted
        calibration, how = thresholded(UNCHANGED, oof, labels, scored, fit.max_false_alarms), "biases"
        honest = calibration.probabilities(oof)
    else:
        calibration, how = calibrate(oof, labels, weights, fold)
        calibration = thresholded(calibration, oof, labels, scored, fit.max_false_alarms)
        honest = crossed(oof, labels, weights, fold, how)
    heard = [True, *(name not in config.silent for name in STREAMS)]
    losses = tuple(
        weighted_log_loss(honest[:, c], labels[:, c], weights[:, c]) if heard[c] else float("nan")
        for c in range(len(OUTPUTS))
    )
    fusion = fitted(np.ones(len(fold), bool))
    return FittedFusion(kind, config, fusion, calibration, how, oof, labels, weights, scored, honest, losses)
