"""The columns of a scores table as arrays, and one measurement of some of its files.

A measurement has the columns
    table      modality, output, stream, class, kind, method, source, false alarms, pairs, ablation, audit
    subset     which files: "clips", "clips: <source>", "FVRA" ... Unique together with table, score and label
    score      the column of the scores table, with a minus where a low value is the suspicious one; in the table audit
               the name of what is measured
    label      what it was measured against: fake, video_fake, audio_fake, mismatch
    n, fakes   files measured, and the fakes among them
    abstained  files of the subset whose label is known and whose score is missing: counted, never scored
    pairs      of a fake and a real file (table "pairs" only, where abstained is empty)
    note       "too few": fewer than ten files of a class, so no bounds
and the metrics of `evaluation.metrics`, NaN where they do not apply or a class is missing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from avdetect.datasets.manifest import LABELS, OWN_VOICE, mismatch
from avdetect.datasets.splits import media, texts
from avdetect.evaluation.metrics import METRICS, PLAIN, measure, weights
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE

ANSWERS = (*LABELS, "mismatch")  # what the outputs answer
OUTPUTS = {f"p_{label}": label for label in ANSWERS}
COUNTS = ("n", "fakes", "abstained", "pairs")
COLUMNS = ("table", "subset", "score", "label", *COUNTS, "note")
MIN_CLASS = 5  # files of a class below which a kind, a method or a source is not measured on its own
SUBSETS = ("clips", "speech", "stills")


def subset_masks(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """clips, speech and stills -> (N,) bool."""
    medium = media(scores)
    return {subset: medium == subset for subset in SUBSETS}


def score_values(scores: pd.DataFrame, score: str) -> np.ndarray:
    """(N,) values of a column, negated for a name with a minus; NaN where the stream behind it is missing."""
    name = score.removeprefix("-")
    values = numbers(scores, name)
    if name in FEATURES[:NUM_VALUES]:
        stream = FEATURES[NUM_VALUES + STREAM_OF_VALUE[FEATURES.index(name)]]
        values = np.where(numbers(scores, stream) == 1, values, np.nan)
    return -values if score.startswith("-") else values


def numbers(scores: pd.DataFrame, column: str) -> np.ndarray:
    """(N,) float64; NaN where unknown, or where there is no such column."""
    if column not in scores:
        return np.full(len(scores), np.nan)
    return pd.to_numeric(scores[column]).astype("Float64").to_numpy(np.float64, na_value=np.nan)


def label_values(scores: pd.DataFrame, label: str) -> np.ndarray:
    """(N,) 0, 1 or NaN of one of ANSWERS. Only clips have any of a mismatch: speech has no lips, stills no voice."""
    if label != "mismatch":
        return numbers(scores, label)
    known = pd.DataFrame({name: numbers(scores, name) for name in (*LABELS, OWN_VOICE)})
    return np.where(media(scores) == "clips", mismatch(known).to_numpy(np.float64, na_value=np.nan), np.nan)


def measurement_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Measurements as a table: all columns, also where no row has the metric; counts may be <NA>."""
    values = [*(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")), *PLAIN]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *values])
    frame["note"] = frame["note"].astype(object).where(frame["note"].notna(), "")
    return frame.astype(dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(values, "float64"))


class Files:
    """A scores table as arrays, and how it is measured."""

    def __init__(self, scores: pd.DataFrame, threshold: float | None, rounds: int) -> None:
        """threshold: of the decisions on `fake`; None: no decision is measured."""
        self.scores, self.threshold, self.rounds = scores, threshold, rounds
        self.labels = {label: label_values(scores, label) for label in ANSWERS}
        self.files = pd.DataFrame({name: texts(scores, name) for name in ("group", "dataset", "method")})
        self.groups = self.column("group")
        self.masks = subset_masks(scores)
        # Files are compared with files that have the same streams: what is missing must not speak for a class.
        self.media = np.nan_to_num(numbers(scores, "has_visual")) + 2 * np.nan_to_num(numbers(scores, "has_audio"))

    def column(self, name: str) -> np.ndarray:
        return texts(self.scores, name).to_numpy(object)

    def row(self, table: str, subset: str, score: str, label: str, mask: np.ndarray) -> dict[str, Any]:
        """One measurement of the files in `mask`; without metrics where a class is missing. (N,) mask."""
        y, values = self.labels[label], score_values(self.scores, score)
        known = mask & ~np.isnan(y)
        judged = known & ~np.isnan(values)
        proper = score.startswith(("p_", "ablation:", "masked:"))
        row = {
            **{"table": table, "subset": subset, "score": score.removeprefix("ablation:"), "label": label},
            **{"n": int(judged.sum()), "fakes": int((y[judged] == 1).sum())},
            "abstained": int(known.sum() - judged.sum()),
        }
        threshold = self.threshold if proper else None
        options: dict[str, Any] = {"proper": proper, "threshold": threshold, "rounds": self.rounds}
        measured = measure(y[judged], values[judged], self.files[judged], **options)
        return row | measured | ({"auc_within": self.auc_within(score, label, mask)} if measured else {})

    def auc_within(self, score: str, label: str, mask: np.ndarray) -> float:
        """The mean of the AUC inside each of `inside`; every source weighs alike. NaN where there is none."""
        y, values = self.labels[label], score_values(self.scores, score)
        found = []
        for source in self.inside(score, label, mask):
            rows = source & (y >= 0) & ~np.isnan(values)
            found.append(roc_auc_score(y[rows], values[rows], sample_weight=weights(y[rows], self.files[rows])))
        return float(np.mean(found)) if found else float("nan")

    def inside(self, score: str, label: str, mask: np.ndarray) -> list[np.ndarray]:
        """The files (N,) of each source in `mask` that holds enough of both classes, with the same streams there."""
        judged = [mask & self.judged(score, label, value) for value in (0, 1)]
        names = self.column("dataset")
        counts = [pd.Series(names[rows]).value_counts() for rows in judged]
        both = sorted(set(counts[0].index[counts[0] >= MIN_CLASS]) & set(counts[1].index[counts[1] >= MIN_CLASS]))
        found = [self.comparable(score, label, mask & (names == name)) for name in both]
        return [m for m in found if min((m & rows).sum() for rows in judged) >= MIN_CLASS]

    def judged(self, score: str, label: str, value: int) -> np.ndarray:
        return (self.labels[label] == value) & ~np.isnan(score_values(self.scores, score))

    def comparable(self, score: str, label: str, mask: np.ndarray) -> np.ndarray:
        """The files of `mask` whose streams there are in both classes; a stream's own score needs no other stream."""
        if score != "p_fake":
            return mask
        media = [set(self.media[mask & self.judged(score, label, value)]) for value in (0, 1)]
        return mask & np.isin(self.media, list(media[0] & media[1]))

    def like(self, fakes: np.ndarray, subset: np.ndarray) -> np.ndarray:
        """The reals of the subset that have a face and a voice, or only one of them, as some of `fakes` do."""
        return subset & (self.labels["fake"] == 0) & np.isin(self.media, self.media[fakes])
