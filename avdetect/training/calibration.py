"""Logits out of fold -> probabilities, the clip that bounds them, the two thresholds of the verdict, measured rates."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits

from avdetect.bundle import Calibration
from avdetect.errors import ManifestError
from avdetect.evaluation.metrics import alarm_limit
from avdetect.fusion import OUTPUTS
from avdetect.types import Float, Rate

# Bounds of the probabilities, to be chosen from. Wider ones would win a little log loss, but make all that is beyond
# them alike: of the most suspicious files none could be told from another.
CLIPS = (0.001, 0.002, 0.005, 0.01)
UNCHANGED = Calibration((1.0,) * len(OUTPUTS), (0.0,) * len(OUTPUTS), 1e-4, 0.5, 0.5)
RATES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01)  # shares of real files
FAKE_RATES = tuple(k / 20 for k in range(19, 0, -1))


def calibrate(logits: Float, labels: Float, weights: Float, fold: np.ndarray) -> tuple[Calibration, str]:
    """Platt scaling (1999) or temperature alone (Guo et al., 2017), whichever has the lower log loss of `fake` when
    fitted on all folds but one and measured on that one. The thresholds are to follow (see `thresholded`).

    logits, labels, weights (N, 4); fold (N,): no group may stand in two. The probabilities are not clipped yet. An
    output with one class only keeps its logits (its stream was not trained).
    """
    tried = {how: crossed(logits, labels, weights, fold, how) for how in ("temperature", "platt")}
    losses = {how: weighted_log_loss(p[:, 0], labels[:, 0], weights[:, 0]) for how, p in tried.items()}
    how = min(losses, key=lambda name: losses[name])
    return _calibration(logits, labels, weights, how), how


def thresholded(
    calibration: Calibration, logits: Float, labels: Float, weights: Float, max_false_alarms: float
) -> Calibration:
    """With both thresholds of `fake`: `best_threshold` and `undecided_threshold`. Arguments as of `calibrate`."""
    known = labels[:, 0] >= 0
    p, y, w = calibration.probabilities(logits)[known, 0], labels[known, 0], weights[known, 0]
    upper = best_threshold(p, y, w, max_false_alarms)
    return replace(calibration, fake_threshold=upper, undecided_threshold=undecided_threshold(p, y, w, upper))


def crossed(logits: Float, labels: Float, weights: Float, fold: np.ndarray, how: str) -> Float:
    """(N, 4) probabilities of each fold by the calibration of the others."""
    result = np.empty_like(logits)
    for k in np.unique(fold):
        held = fold == k
        calibration = _calibration(logits[~held], labels[~held], weights[~held], how)
        result[held] = calibration.probabilities(logits[held])
    return result


def _calibration(logits: Float, labels: Float, weights: Float, how: str) -> Calibration:
    scale, bias = [], []
    for column in range(len(OUTPUTS)):
        known = (labels[:, column] >= 0) & (weights[:, column] > 0)
        if len(np.unique(labels[known, column])) < 2:
            scale.append(1.0)
            bias.append(0.0)
            continue
        regression = LogisticRegression(C=1e3, fit_intercept=how == "platt").fit(
            logits[known, column : column + 1], labels[known, column], sample_weight=weights[known, column]
        )
        # A negative slope would mean that out-of-fold evidence points the wrong way: state "no evidence" instead.
        scale.append(max(0.0, float(regression.coef_[0, 0])))
        bias.append(float(np.ravel(regression.intercept_)[0]) if how == "platt" else 0.0)
    return replace(UNCHANGED, scale=tuple(scale), bias=tuple(bias))


def choose_clip(
    calibration: Calibration, logits: Float, labels: Float, weights: Float | None = None
) -> tuple[Calibration, dict[float, float]]:
    """The calibration with the clip that gives the lowest log loss of `fake` on other data (dev), and the log loss of
    every clip tried. The thresholds are kept inside the clip, the lower one above its floor: a file at the floor is
    never undecided.

    logits, labels (N, 4); weights (N,): None for both classes alike. Raises ManifestError when a class is missing.
    """
    known = labels[:, 0] >= 0
    y = labels[known, 0]
    if len(np.unique(y)) < 2:
        raise ManifestError("fake is never both 0 and 1: there is nothing to choose the probability clip by")
    share = np.where(y == 1, 1 / (y == 1).sum(), 1 / (y == 0).sum()) if weights is None else weights[known]
    tried = {}
    for clip in CLIPS:
        p = replace(calibration, clip=clip).probabilities(logits[known])[:, 0]
        tried[clip] = weighted_log_loss(p, y, share)
    clip = min(tried, key=lambda c: tried[c])
    low, high = clip + 1e-4, float(np.float32(1 - clip))  # a probability has single precision: it must reach the upper
    fake = float(np.clip(calibration.fake_threshold, low, high))
    undecided = float(np.clip(calibration.undecided_threshold, low, fake))
    return replace(calibration, clip=clip, fake_threshold=fake, undecided_threshold=undecided), tried


def with_rates(calibration: Calibration, logits: Float, labels: Float, weights: Float) -> Calibration:
    """With what was measured out of fold of each output, under the weights that the thresholds were chosen by; of
    `fake` also at the thresholds themselves. logits, labels, weights (N, 4)."""
    p = calibration.probabilities(logits)
    found = {name: measured_rates(p[:, c], labels[:, c], weights[:, c]) for c, name in enumerate(OUTPUTS)}
    thresholds = (calibration.undecided_threshold, calibration.fake_threshold)
    if found["fake"]:
        classes = [(labels[:, 0] == value) & (weights[:, 0] > 0) for value in (0, 1)]
        own = [Rate(t, *(_share(p[:, 0], rows, weights[:, 0], t) for rows in classes)) for t in thresholds]
        found["fake"] = _rarer([*found["fake"], *own])
    return replace(calibration, rates={name: rates for name, rates in found.items() if rates})


def measured_rates(probabilities: Float, labels: Float, weights: Float) -> tuple[Rate, ...]:
    """For each of RATES the lowest probability that no more of the real files reach, and for each of FAKE_RATES that no
    more of the fakes do: each with the shares of both. With the first alone the share of the fakes falls by half from
    one probability to the next where hardly any real file is.

    All (N,). Left out is what no probability does: where 2 in 100 have the highest there is, none is reached by 1; and
    what no more of the fakes reach than of the real files, which is no sign. Empty without both classes.
    """
    real, fake = ((labels == value) & (weights > 0) for value in (0, 1))
    if not real.any() or not fake.any():
        return ()
    found = []
    for rows, steps in ((real, RATES), (fake, FAKE_RATES)):
        shares = weights[rows].astype(np.float64) / weights[rows].sum(dtype=np.float64)
        for step in steps:
            limit = alarm_limit(probabilities[rows].astype(np.float64), shares, step)
            if math.isfinite(limit):
                of_real = step if rows is real else _share(probabilities, real, weights, limit)
                found.append(Rate(limit, of_real, _share(probabilities, fake, weights, limit)))
    return _rarer(rate for rate in found if rate.fakes > rate.reals)


def _rarer(rates: Iterable[Rate]) -> tuple[Rate, ...]:
    """In the order of their probability, those that fewer files of either class reach than of any before them."""
    kept: list[Rate] = []
    for rate in sorted(rates, key=lambda rate: (rate.probability, rate.reals)):
        if not kept or (rate.reals, rate.fakes) < (kept[-1].reals, kept[-1].fakes):
            kept.append(rate)
    return tuple(kept)


def _share(probabilities: Float, rows: np.ndarray, weights: Float, limit: float) -> float:
    return round(float(np.average(probabilities[rows] >= limit, weights=weights[rows])), 4)


def weighted_log_loss(probabilities: Float, labels: Float, weights: Float) -> float:
    """Over known labels; nan without any. All (N,)."""
    known = (labels >= 0) & (weights > 0)
    if not known.any():
        return float("nan")
    p, y, w = (torch.from_numpy(a[known].astype(np.float64)) for a in (probabilities, labels, weights))
    losses = binary_cross_entropy_with_logits(torch.logit(p), y, reduction="none")
    return float((losses * w).sum() / w.sum())


def best_threshold(probabilities: Float, labels: Float, weights: Float, max_false_alarms: float = 1.0) -> float:
    """The threshold with the best weighted (hence balanced) accuracy, between neighbouring probabilities, among those
    that call at most the share `max_false_alarms` of the reals fake; where none does, the highest. 0.5 when all are
    equal. Equal probabilities cannot be told apart by any threshold."""
    order = np.argsort(probabilities)
    p, y, w = probabilities[order].astype(np.float64), labels[order], weights[order]
    cuts = np.round((p[1:] + p[:-1]) / 2, 4)
    apart = (p[:-1] < cuts) & (cuts <= p[1:])
    if not apart.any():
        return 0.5
    below = np.cumsum(w * (y == 0))[:-1]  # reals that the cut after row i calls no fake
    above = np.cumsum((w * (y == 1))[::-1])[::-1][1:]
    reals = float((w * (y == 0)).sum())
    allowed = apart & (reals - below <= max_false_alarms * reals + 1e-9)
    if not allowed.any():
        return float(cuts[np.flatnonzero(apart)[-1]])
    return float(cuts[int(np.argmax(np.where(allowed, below + above, -np.inf)))])


def undecided_threshold(probabilities: Float, labels: Float, weights: Float, fake_threshold: float) -> float:
    """Where half of the fakes that the upper threshold misses are still at or above it: their weighted median.

    Few false alarms cost most fakes, so "no sign found" right below the upper threshold would be wrong too often. Half
    of what it misses is told apart by this one; to tell more would put most real files among the undecided as well.
    Never above `fake_threshold`; equal to it where none is missed. The others (N,).
    """
    missed = (labels == 1) & (weights > 0) & (probabilities < fake_threshold)
    if not missed.any():
        return fake_threshold
    order = np.argsort(-probabilities[missed])
    p, above = probabilities[missed][order], np.cumsum(weights[missed][order], dtype=np.float64)
    return math.floor(1e4 * float(p[np.searchsorted(above, above[-1] / 2)])) / 1e4
