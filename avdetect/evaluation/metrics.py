"""Log loss and ROC AUC with 95 % intervals, for the three outputs and for each stream alone.

Rows whose label is unknown, or for which the model abstains, are counted and left out; they are never scored as 0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from avdetect.datasets.manifest import LABELS
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE
from avdetect.types import Float

# stream alone: (its score, the label it answers for)
_ALONE = {
    "visual alone": ("visual_logit", "video_fake"),
    "audio alone": ("audio_logit", "audio_fake"),
    "sync alone (distance at 0)": ("sync_at_zero", "fake"),
    "sync alone (- confidence)": ("sync_confidence", "fake"),
}


def evaluate(
    table: pd.DataFrame, labels: Float, features: Float, probabilities: Float, threshold: float
) -> dict[str, Any]:
    """labels, probabilities (N, 3) in the order of LABELS, -1 = unknown; features (N, F) of `pooling.FEATURES`.

    Returns "rows" (one a measurement) and "summary" (the few numbers that go into a bundle). Files that have a picture
    and a voice are kept apart from speech without a picture and stills without a voice.
    """
    has = features[:, NUM_VALUES:] > 0  # (N, 3) visual, audio, sync
    kinds = table["kind"] if "kind" in table else pd.Series("clip", index=table.index)
    subsets = {
        "clips": ~kinds.isin(["speech", "still"]).to_numpy(),
        "speech": (kinds == "speech").to_numpy(),
        "stills": (kinds == "still").to_numpy(),
    }
    needed = {"fake": has.any(axis=1), "video_fake": has[:, 0], "audio_fake": has[:, 1]}
    rows: list[dict[str, Any]] = []
    for subset, mask in subsets.items():
        for column, output in enumerate(LABELS):
            keep = mask & needed[output] & (labels[:, column] >= 0)
            row = _measure(labels[keep, column], probabilities[keep, column], table["group"][keep], proper=True)
            if row and output == "fake":
                row["balanced_accuracy"] = balanced_accuracy_score(labels[keep, 0], probabilities[keep, 0] >= threshold)
            rows.append({"subset": subset, "score": output, "abstained": int((mask & ~needed[output]).sum()), **row})
        for name, (feature, label) in _ALONE.items():
            index = FEATURES.index(feature)
            column = LABELS.index(label)
            keep = mask & has[:, STREAM_OF_VALUE[index]] & (labels[:, column] >= 0)
            sign = -1 if feature == "sync_confidence" else 1
            row = _measure(labels[keep, column], sign * features[keep, index], table["group"][keep], proper=False)
            rows.append({"subset": subset, "score": f"{name} -> {label}", **row})
    rows += _by_kind(table, labels, features, has)
    rows += _within_sources(table, labels, features, has)
    rows = [row for row in rows if "auc" in row]
    summary = {f"{r['subset']}/{r['score']}": {k: round(r[k], 4) for k in ("auc", "log_loss") if k in r} for r in rows}
    return {"rows": rows, "summary": summary}


def _by_kind(table: pd.DataFrame, labels: Float, features: Float, has: np.ndarray) -> list[dict[str, Any]]:
    """AUC of each stream alone on each kind of fake (`kind` column) against every real file of the same media."""
    if "kind" not in table:
        return []
    rows = []
    media = has @ [1, 1, 0]  # files with a face and a voice are compared with their like
    for name, (feature, label) in _ALONE.items():
        index, column = FEATURES.index(feature), LABELS.index(label)
        usable = has[:, STREAM_OF_VALUE[index]] & (labels[:, column] >= 0)
        sign = -1 if feature == "sync_confidence" else 1
        for kind in sorted(table["kind"][usable & (labels[:, column] == 1)].unique()):
            fakes = usable & (table["kind"] == kind).to_numpy() & (labels[:, column] == 1)
            reals = usable & (labels[:, 0] == 0) & np.isin(media, media[fakes])
            keep = fakes | reals
            row = _measure(labels[keep, column], sign * features[keep, index], table["group"][keep], proper=False)
            rows.append({"subset": f"kind {kind}", "score": f"{name} -> {label}", **row})
    return rows


def _within_sources(table: pd.DataFrame, labels: Float, features: Float, has: np.ndarray) -> list[dict[str, Any]]:
    """AUC inside each source that holds both classes: what a source's look gives away cannot help there."""
    rows = []
    for stream, (feature, label) in enumerate(list(_ALONE.values())[:2]):
        column = LABELS.index(label)
        for source in sorted(table["dataset"].unique()):
            keep = (table["dataset"] == source).to_numpy() & has[:, stream] & (labels[:, column] >= 0)
            counts = np.bincount(labels[keep, column].astype(int), minlength=2)
            if counts.min() >= 5:
                row = _measure(
                    labels[keep, column], features[keep, FEATURES.index(feature)], table["group"][keep], proper=False
                )
                rows.append({"subset": source, "score": f"{feature} within source", **row})
    return rows


def _measure(labels: Float, scores: Float, groups: pd.Series, proper: bool) -> dict[str, Any]:
    """AUC with its interval and, for probabilities (`proper`), the log loss; empty when a class is missing."""
    if len(np.unique(labels)) < 2:
        return {}
    low, high = bootstrap_auc(labels, scores, groups)
    row = {
        "n": len(labels),
        "fakes": int(labels.sum()),
        "auc": roc_auc_score(labels, scores),
        "auc_low": low,
        "auc_high": high,
    }
    return row | ({"log_loss": log_loss(labels, scores.astype(float), labels=[0, 1])} if proper else {})


def bootstrap_auc(
    labels: Float, scores: Float, groups: pd.Series, rounds: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the AUC, resampling whole groups: clips of one person are no independent evidence."""
    rng = np.random.default_rng(seed)
    rank = np.unique(scores, return_inverse=True)[1]
    group, names = pd.factorize(groups)
    values = []
    for _ in range(rounds):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[group]  # each row is drawn
        fake, real = (np.bincount(rank, weights=times * (labels == value)) for value in (1, 0))
        if fake.any() and real.any():  # Mann and Whitney: pairs in the right order, ties half
            values.append(fake @ (np.cumsum(real) - real / 2) / (fake.sum() * real.sum()))
    return (
        (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        if values
        else (float("nan"), float("nan"))
    )
