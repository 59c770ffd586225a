"""Metrics of one score against one label, each with a 95 % bootstrap interval.

Balanced, for one generator with 400 files must not decide the result: every generator weighs the same among the fakes,
every source among the reals, and both classes weigh the same (`weights`). Of any score (higher = more fake):
    auc              balanced area under the ROC curve: the first number everywhere
    eer              equal error rate, on the ROC curve drawn with straight lines
    tpr_at_fpr_5     recall of fakes at the most lenient threshold that alarms on at most 5 % of the reals
Of probabilities only (`proper`):
    log_loss         natural logarithm
    ece              expected calibration error (Guo et al., 2017): 10 bins of equal width over p, |mean p - share of
                     fakes| of each, weighted by its files
and, with a threshold ("fake" is p >= threshold):
    balanced_accuracy  mean of the shares of fakes and of reals that are judged rightly
    false_alarms     share of reals at or above the threshold
Beside them, without an interval (PLAIN):
    auc_pooled       every file weighs the same
    auc_within       mean of the AUC inside each source that holds both classes (`columns.Files` knows which)

The values are scikit-learn's where it has the metric. The intervals need every metric some hundred times: there, a
resample is a weight for each file, and all resamples are computed at once. Files of one source, or of one person, are
no independent evidence: whole sources are drawn with replacement where each class stands in MIN_FILES of them, else
whole groups. Fewer than MIN_FILES files of a class are too few for any interval.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

from avdetect.datasets.splits import origins

BINS = 10  # of the calibration error
MIN_FILES = 10  # of a class, for an interval
SEED = 0  # of everything in an evaluation that is drawn
TOO_FEW = "too few"  # the note that stands in its place
RANKING = ("auc", "eer", "tpr_at_fpr_5")
PROPER = ("log_loss", "ece")
DECISIONS = ("balanced_accuracy", "false_alarms")
METRICS = (*RANKING, *PROPER, *DECISIONS)
PLAIN = ("auc_pooled", "auc_within", "false_alarms_at_5")  # the last one: `tables`, of single sources
_CHUNK = 2**17  # weights held at once: what stays in a processor's cache is twice as fast
_EPS = float(np.finfo(np.float64).eps)  # as scikit-learn's log_loss clips


def measure(
    labels: ArrayLike,
    scores: ArrayLike,
    files: pd.DataFrame,
    *,
    proper: bool,
    threshold: float | None = None,
    rounds: int = 500,
) -> dict[str, Any]:
    """n, fakes, `note`, every metric that applies with `<name>_low` and `<name>_high`, and `auc_pooled`.

    Empty when a class is missing. Bounds are NaN where a class has too few files (then `note` is TOO_FEW), and of a
    single group, of which there are no resamples that differ.

    labels (N,) of 0 and 1; scores (N,), probabilities if `proper`; files: N rows with the manifest's columns `group`,
    `dataset` and `method`; without the last two all are of one source. A file without a label or without a score is
    the caller's to leave out and to count: it raises ValueError here.
    """
    y, p = _checked(labels, scores, proper)
    if len(np.unique(y)) < 2:
        return {}
    few = min(np.sum(y == 0), np.sum(y == 1)) < MIN_FILES
    row: dict[str, Any] = {"n": len(y), "fakes": int(y.sum()), "note": TOO_FEW if few else ""}
    values = _point(y, p, weights(y, files), proper, threshold)
    alone = few or files["group"].nunique() < 2
    drawn = {} if alone else resampled(y, p, files, proper=proper, threshold=threshold, rounds=rounds)
    for name, value in values.items():
        low, high = (math.nan, math.nan) if alone else interval(drawn[name])
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row | {"auc_pooled": float(roc_auc_score(y, p))}


def weights(labels: ArrayLike, files: pd.DataFrame) -> np.ndarray:
    """(N,) of each file, for scikit-learn's `sample_weight`: every generator (`method`) weighs the same among the
    fakes, every source (`dataset`) among the reals, and each class sums to 1."""
    y = np.asarray(labels, np.float64)
    origin = pd.factorize(origins(files, y == 1))[0] * 2 + y.astype(np.int64)
    _, place, size = np.unique(origin, return_inverse=True, return_counts=True)
    share = 1 / size[place]
    for value in (0, 1):
        share[y == value] /= max(share[y == value].sum(), _EPS)
    return share


def alarm_limit(scores: np.ndarray, share: np.ndarray, allowed: float = 0.05) -> float:
    """The lowest score (N,) of reals from which on at most `allowed` of them alarm; `share` (N,): weights, sum 1.
    Infinite where even the highest score alarms too often."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    fine = np.flatnonzero(share[order].cumsum()[ends] <= allowed + 1e-12)
    return float(scores[order][ends[fine[-1]]]) if len(fine) else math.inf


def resampled(
    labels: ArrayLike,
    scores: ArrayLike,
    files: pd.DataFrame,
    *,
    proper: bool = False,
    threshold: float | None = None,
    rounds: int = 500,
) -> dict[str, np.ndarray]:
    """Each metric in each of `rounds` resamples of whole sources or groups, (rounds,); NaN where a class was not drawn.
    A file keeps its weight, times how often its source or group was drawn."""
    y, p = _checked(labels, scores, proper)
    share = weights(y, files)
    unit, names = pd.factorize(_drawn_whole(y, files))
    parts = []
    for times in multiplicities(len(names), rounds, SEED, max(1, _CHUNK // max(len(y), 1))):
        found = _ranking(y, p, share, unit, times)
        if proper:
            found |= _proper(y, p, share, unit, times, threshold)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _drawn_whole(y: np.ndarray, files: pd.DataFrame) -> np.ndarray:
    """(N,) names of what is drawn: sources where each class stands in MIN_FILES of them, else groups."""
    if "dataset" in files:
        source = files["dataset"].to_numpy(object)
        if min(len(np.unique(source[y == value])) for value in (0, 1)) >= MIN_FILES:
            return source
    return files["group"].to_numpy(object)


def multiplicities(count: int, rounds: int, seed: int, chunk: int) -> Iterator[np.ndarray]:
    """How often each of `count` units is drawn in each round: (up to `chunk`, count); the same for any `chunk`."""
    rng = np.random.default_rng(seed)
    for begin in range(0, rounds, chunk):
        size = min(chunk, rounds - begin)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values; NaN where there are none."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
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


def _point(y: np.ndarray, p: np.ndarray, share: np.ndarray, proper: bool, threshold: float | None) -> dict[str, float]:
    fpr, tpr, _ = roc_curve(y, p, sample_weight=share, drop_intermediate=False)
    values = {"auc": roc_auc_score(y, p, sample_weight=share)} | _of_curve(fpr, tpr)
    if proper:
        gaps = np.abs(np.bincount(_bins(p), share * (p - y), BINS))
        values |= {"log_loss": log_loss(y, p, sample_weight=share), "ece": gaps.sum() / share.sum()}
    if proper and threshold is not None:
        alarm = p >= threshold
        values["balanced_accuracy"] = balanced_accuracy_score(y, alarm, sample_weight=share)
        values["false_alarms"] = np.average(alarm[y == 0], weights=share[y == 0])
    return {name: float(value) for name, value in values.items()}


def _bins(p: np.ndarray) -> np.ndarray:
    return np.minimum((p * BINS).astype(np.int64), BINS - 1)


def _of_curve(fpr: np.ndarray, tpr: np.ndarray) -> dict[str, Any]:
    """EER and TPR at FPR; fpr and tpr (..., K) rise from (0, 0) to (1, 1)."""
    excess = fpr + tpr - 1  # rises from -1 to 1; it is 0 where as many reals are taken for fakes as fakes are missed
    after = np.argmax(excess >= 0, axis=-1)[..., None]
    f0, f1, e0, e1 = (np.take_along_axis(a, after - back, -1)[..., 0] for a in (fpr, excess) for back in (1, 0))
    allowed = fpr <= 0.05 + 1e-12  # room for the rounding of a sum of weights
    return {"eer": f0 + (f1 - f0) * -e0 / (e1 - e0), "tpr_at_fpr_5": np.where(allowed, tpr, 0).max(axis=-1)}


def _ranking(
    y: np.ndarray, p: np.ndarray, share: np.ndarray, unit: np.ndarray, times: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of the order alone. times (R, U): how often each unit counts in each of R resamples -> (R,) each."""
    order = np.argsort(-p, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # of each run of equal scores: K of them
    counted = times[:, unit[order]] * share[order]  # (R, N)
    # Reals and fakes above each threshold, the first above all scores.
    curves = np.zeros((2, len(times), len(ends) + 1))
    for curve, value in zip(curves, (0, 1), strict=True):
        curve[:, 1:] = (counted * (y[order] == value)).cumsum(axis=1)[:, ends]
    reals, fakes = curves[..., -1]
    drawn = (reals > 0) & (fakes > 0)
    fp, tp = curves[:, drawn]
    fpr, tpr = fp / fp[:, -1:], tp / tp[:, -1:]
    found = _of_curve(fpr, tpr)
    found["auc"] = (np.diff(fpr) * (tpr[:, 1:] - np.diff(tpr) / 2)).sum(axis=1)  # pairs in the right order, ties half
    values = np.full((len(RANKING), len(times)), np.nan)
    values[:, drawn] = [found[name] for name in RANKING]
    return dict(zip(RANKING, values, strict=True))


def _proper(
    y: np.ndarray, p: np.ndarray, share: np.ndarray, unit: np.ndarray, times: np.ndarray, threshold: float | None
) -> dict[str, np.ndarray]:
    """The metrics that are sums over files: of each unit once, then of the resamples. times (R, U) -> (R,) each."""

    def total(values: np.ndarray) -> np.ndarray:
        """(N,) a file -> (R,)"""
        return times @ np.bincount(unit, weights=values * share, minlength=times.shape[1])

    fakes, reals = total(y), total(1 - y)
    drawn = (fakes > 0) & (reals > 0)
    fakes, reals = (np.where(drawn, n, np.nan) for n in (fakes, reals))

    def mean(values: np.ndarray) -> np.ndarray:
        """(N,) a file -> (R,) with both classes alike."""
        return (total(values * y) / fakes + total(values * (1 - y)) / reals) / 2

    clipped, bins = np.clip(p, _EPS, 1 - _EPS), _bins(p)
    found = {
        "log_loss": mean(-np.where(y == 1, np.log(clipped), np.log1p(-clipped))),
        "ece": np.sum([np.abs(mean((p - y) * (bins == k))) for k in range(BINS)], axis=0),
    }
    if threshold is not None:
        alarm = p >= threshold
        found |= {"balanced_accuracy": mean(alarm == y), "false_alarms": total(alarm * (1 - y)) / reals}
    return found
