"""Metrics of one score against one label, each with a 95 % bootstrap interval over groups.

Any score (higher = more fake):
    auc              area under the ROC curve
    ap               average precision
    eer              equal error rate, on the ROC curve drawn with straight lines
    tpr_at_fpr_1     share of fakes found at the most lenient threshold that alarms on at most 1 % of the reals
    tpr_at_fpr_5     the same for 5 %
Probabilities only (`proper`):
    log_loss         natural logarithm; as many fakes as the data holds
    log_loss_balanced  mean of the log loss of fakes and that of reals: the probabilities assume equal priors, the data
                     seldom has them
    ece              expected calibration error (Guo et al., 2017): 10 bins of equal width over p, |mean p - share of
                     fakes| of each, weighted by its files; as many fakes as the data holds
and, with a threshold ("fake" is p >= threshold):
    balanced_accuracy  mean of the shares of fakes and of reals that are judged rightly
    false_alarms     share of reals at or above the threshold

And of two scores of the same files (`auc_gap`): how much higher the AUC of the first is.

The values are scikit-learn's where it has the metric. The intervals need every metric some hundred times: there, a
resample is a weight for each file, and all resamples are computed at once. Clips of one person are no independent
evidence, so whole groups are drawn, with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

BINS = 10  # of the calibration error
RANKING = ("auc", "ap", "eer", "tpr_at_fpr_1", "tpr_at_fpr_5")
PROPER = ("log_loss", "log_loss_balanced", "ece")
DECISIONS = ("balanced_accuracy", "false_alarms")
METRICS = (*RANKING, *PROPER, *DECISIONS)
GAP = ("auc_gap", "auc_gap_low", "auc_gap_high")
_CHUNK = 2**17  # weights held at once: what stays in a processor's cache is twice as fast
_EPS = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips


def measure(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    proper: bool,
    threshold: float | None = None,
    rounds: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """n, fakes, and every metric that applies with `<name>_low` and `<name>_high`; empty when a class is missing.

    Of a single group there are no resamples that differ, hence no bounds: NaN.

    labels (N,) of 0 and 1; scores (N,), probabilities if `proper`; groups (N,) of any names. A file without a label or
    without a score is the caller's to leave out and to count: it raises ValueError here.
    """
    y, p = _checked(labels, scores, proper)
    if len(np.unique(y)) < 2:
        return {}
    values = _point(y, p, proper, threshold)
    drawn = resampled(y, p, groups, proper=proper, threshold=threshold, rounds=rounds, seed=seed)
    row: dict[str, Any] = {"n": len(y), "fakes": int(y.sum())}
    alone = len(np.unique(np.asarray(groups))) < 2
    for name, value in values.items():
        low, high = (math.nan, math.nan) if alone else interval(drawn[name])
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row


def auc_gap(
    labels: ArrayLike, ours: ArrayLike, theirs: ArrayLike, groups: ArrayLike, *, rounds: int = 500, seed: int = 0
) -> dict[str, float]:
    """GAP: the AUC of `ours` minus that of `theirs` on the same files, with its interval; empty without both classes.

    Paired: each resample draws the same groups for both, so that files which are hard for both widen no interval.
    """
    if len(np.unique(np.asarray(labels))) < 2:
        return {}
    first, second = (resampled(labels, p, groups, rounds=rounds, seed=seed)["auc"] for p in (ours, theirs))
    value = roc_auc_score(labels, ours) - roc_auc_score(labels, theirs)
    return dict(zip(GAP, (float(value), *interval(first - second)), strict=True))


def resampled(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    proper: bool = False,
    threshold: float | None = None,
    rounds: int = 500,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Each metric in each of `rounds` resamples of whole groups, (rounds,); NaN where a class was not drawn."""
    y, p = _checked(labels, scores, proper)
    group, names = pd.factorize(np.asarray(groups))
    parts = []
    for times in multiplicities(len(names), rounds, seed, max(1, _CHUNK // max(len(y), 1))):
        found = _ranking(y, p, group, times)
        if proper:
            found |= _proper(y, p, group, times, threshold)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def multiplicities(count: int, rounds: int, seed: int, chunk: int) -> Iterator[np.ndarray]:
    """How often each of `count` groups is drawn in each round: (up to `chunk`, count); the same for any `chunk`."""
    rng = np.random.default_rng(seed)
    for begin in range(0, rounds, chunk):
        size = min(chunk, rounds - begin)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values; NaN where there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _checked(labels: ArrayLike, scores: ArrayLike, proper: bool) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"labels {y.shape} and scores {p.shape} must be two rows of the same length")
    if not np.isin(y, (0, 1)).all() or not np.isfinite(p).all():
        raise ValueError("leave out files whose label is unknown or whose score is missing, and count them")
    if proper and ((p < 0) | (p > 1)).any():
        raise ValueError("a proper score is a probability in [0, 1]")
    return y, p


def _point(y: np.ndarray, p: np.ndarray, proper: bool, threshold: float | None) -> dict[str, float]:
    """Every metric of the files as they are."""
    fpr, tpr, _ = roc_curve(y, p, drop_intermediate=False)
    values = {"auc": roc_auc_score(y, p), "ap": average_precision_score(y, p)} | _of_curve(fpr, tpr)
    if proper:
        losses = [log_loss(y[y == value], p[y == value], labels=[0, 1]) for value in (0, 1)]
        bins = _bins(p)
        gaps = [abs((p[bins == k] - y[bins == k]).sum()) for k in range(BINS)]
        values |= {"log_loss": log_loss(y, p), "log_loss_balanced": np.mean(losses), "ece": sum(gaps) / len(y)}
        if threshold is not None:
            values["balanced_accuracy"] = balanced_accuracy_score(y, p >= threshold)
            values["false_alarms"] = np.mean(p[y == 0] >= threshold)
    return {name: float(value) for name, value in values.items()}


def _bins(p: np.ndarray) -> np.ndarray:
    return np.minimum((p * BINS).astype(np.int64), BINS - 1)


def _of_curve(fpr: np.ndarray, tpr: np.ndarray) -> dict[str, Any]:
    """EER and TPR at FPR; fpr and tpr (..., K) rise from (0, 0) to (1, 1)."""
    excess = fpr + tpr - 1  # rises from -1 to 1; it is 0 where as many reals are taken for fakes as fakes are missed
    after = np.argmax(excess >= 0, axis=-1)[..., None]
    f0, f1, e0, e1 = (np.take_along_axis(a, after - back, -1)[..., 0] for a in (fpr, excess) for back in (1, 0))
    found = {"eer": f0 + (f1 - f0) * -e0 / (e1 - e0)}
    for percent in (1, 5):
        allowed = fpr <= percent / 100 + 1e-12  # room for the rounding of a sum of weights
        found[f"tpr_at_fpr_{percent}"] = np.where(allowed, tpr, 0).max(axis=-1)
    return found


def _ranking(y: np.ndarray, p: np.ndarray, group: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of the order alone. times (R, G): how often each group counts in each of R resamples -> (R,) each."""
    order = np.argsort(-p, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # of each run of equal scores: K of them
    weights = times[:, group[order]]  # (R, N)
    curves = np.zeros(
        (2, len(times), len(ends) + 1)
    )  # reals and fakes above each threshold, the first above all scores
    for curve, value in zip(curves, (0, 1), strict=True):
        curve[:, 1:] = (weights * (y[order] == value)).cumsum(axis=1)[:, ends]
    reals, fakes = curves[..., -1]
    drawn = (reals > 0) & (fakes > 0)
    fp, tp = curves[:, drawn]
    fpr, tpr = fp / fp[:, -1:], tp / tp[:, -1:]
    steps = np.diff(tpr)
    found = _of_curve(fpr, tpr)
    found["auc"] = (np.diff(fpr) * (tpr[:, 1:] - steps / 2)).sum(axis=1)  # pairs in the right order, ties half
    found["ap"] = (steps * tp[:, 1:] / np.maximum(tp[:, 1:] + fp[:, 1:], 1)).sum(axis=1)
    return {name: _spread(found[name], drawn) for name in RANKING}


def _spread(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    out = np.full(len(drawn), np.nan)
    out[drawn] = values
    return out


def _proper(
    y: np.ndarray, p: np.ndarray, group: np.ndarray, times: np.ndarray, threshold: float | None
) -> dict[str, np.ndarray]:
    """The metrics that are sums over files: of each group once, then of the resamples. times (R, G) -> (R,) each."""

    def total(values: np.ndarray) -> np.ndarray:
        """(N,) a file -> (R,)"""
        return times @ np.bincount(group, weights=values, minlength=times.shape[1])

    clipped = np.clip(p, _EPS, 1 - _EPS)
    loss = -np.where(y == 1, np.log(clipped), np.log1p(-clipped))
    fakes, reals = total(y), total(1 - y)
    drawn = (fakes > 0) & (reals > 0)
    count, fakes, reals = (np.where(drawn, n, np.nan) for n in (fakes + reals, fakes, reals))
    bins = _bins(p)
    gaps = sum(np.abs(total((p - y) * (bins == k))) for k in range(BINS))
    found: Mapping[str, np.ndarray] = {
        "log_loss": total(loss) / count,
        "log_loss_balanced": (total(loss * y) / fakes + total(loss * (1 - y)) / reals) / 2,
        "ece": gaps / count,
    }
    if threshold is None:
        return dict(found)
    alarm = p >= threshold
    false_alarms = total(alarm * (1 - y)) / reals
    return {
        **found,
        "balanced_accuracy": (total(alarm * y) / fakes + 1 - false_alarms) / 2,
        "false_alarms": false_alarms,
    }
