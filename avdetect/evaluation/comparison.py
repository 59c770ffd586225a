"""Side by side on the same files: chance, the shortcuts, other bundles, the ablations, and what this bundle says.

Another bundle is put beside by the folder of its own, finished evaluation of the same files. What it said of them are
the columns `beside:<name>:<output>` of the scores table, so every row but the audit's follows from that table alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.errors import ConfigError
from avdetect.evaluation.audit import FEATURE_SETS, guess_column
from avdetect.evaluation.cells import CHANCE, OURS, SCORES
from avdetect.evaluation.columns import ANSWERS, BESIDE, OUTPUTS, Files, measurement_frame, score_values
from avdetect.evaluation.metrics import GAP, auc_gap
from avdetect.evaluation.tables import STREAM_SCORES

STREAMS = {"visual_logit": "has_visual", "audio_logit": "has_audio"}  # what the face and the voice rest on
NAME = re.compile(r"\w[\w .+-]*")  # of a bundle put beside; rows of our own may hold a colon, these may not
OWN_NAMES = {CHANCE, OURS, *FEATURE_SETS, *SCORES, *SCORES.values()}
# 0.5 for every file, where both classes weigh the same.
GUESSING = {**dict.fromkeys(("auc", "auc_pooled", "auc_within", "eer"), 0.5), "log_loss": math.log(2), "ece": 0.0}


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """{"cnn": Path("results")} of "cnn=results". Raises ConfigError."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--beside {word}: it must be NAME=FOLDER, as in cnn=results/cnn")
        if name in found:
            raise ConfigError(f"--beside {word}: the name {name!r} is given twice")
        found[name] = Path(folder)
    return found


def read_beside(folders: Mapping[str, Path], paths: pd.Series) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What the evaluations in `folders` say of the files `paths` (N,): name -> digest of the bundle, and
    `beside:<name>:<output>` -> (N,). Raises ConfigError, naming what is wrong."""
    bundles: dict[str, str] = {}
    outputs: dict[str, np.ndarray] = {}
    for name, folder in folders.items():
        where = f"--beside {name}={folder}"
        if name in OWN_NAMES or not NAME.fullmatch(name):
            why = "it is a row of every comparison" if name in OWN_NAMES else "letters, digits, spaces, . + - _ only"
            raise ConfigError(f"{where}: choose another name ({why})")
        scores = _read(where, folder / "scores.csv")
        missing = int((~paths.isin(scores.index)).sum())
        if missing:
            raise ConfigError(
                f"{where}: its scores.csv lacks {missing} of the {len(paths)} files that are measured: evaluate that "
                "bundle on the same files, or measure only those it has (--split)"
            )
        found = scores.loc[paths]
        bundles[name] = str(found["bundle"].iloc[0])
        outputs |= {f"{BESIDE}{name}:{score}": found[score].to_numpy() for score in (*OUTPUTS, *STREAMS)}
    return bundles, outputs


def _read(where: str, path: Path) -> pd.DataFrame:
    """path (index), the bundle's digest, OUTPUTS and STREAMS."""
    types = {"path": str, "bundle": str} | dict.fromkeys((*OUTPUTS, *STREAMS, *STREAMS.values()), np.float64)
    try:
        scores = pd.read_csv(path, usecols=list(types), dtype=types, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: it holds no finished evaluation, no scores.csv to be read ({reason})") from error
    p = scores[list(OUTPUTS)]
    if scores["path"].duplicated().any() or ((p < 0) | (p > 1)).any(axis=None):
        raise ConfigError(f"{where}: its scores.csv states a file twice, or holds outputs that are no probabilities")
    for stream, has in STREAMS.items():
        scores[stream] = scores[stream].where(scores[has] == 1)
    return scores.set_index("path")


def comparison(scores: pd.DataFrame, audit_rows: pd.DataFrame, rounds: int = 500) -> pd.DataFrame:
    """One measurement (`evaluation.columns`) of each row on each subset and label; table is "comparison".

    All on the files that the bundle judged and whose label is known; `abstained` counts those of them that the row did
    not judge. And GAP: the AUC of the bundle's output on the row's files, minus the row's. audit_rows: of
    `audit.shortcuts`, taken as they are; the gap to them needs the columns of `audit.guesses` in `scores`.
    """
    files = Files(scores, None, rounds)
    rows = [row for subset in files.masks for label in ANSWERS for row in _block(files, subset, label, audit_rows)]
    return measurement_frame(rows).assign(**{name: [float(row.get(name, math.nan)) for row in rows] for name in GAP})


def _block(files: Files, subset: str, label: str, audit_rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one subset and label; none where our output cannot be measured."""
    ours = f"p_{label}"
    judged = files.masks[subset] & (files.judged(ours, label, 0) | files.judged(ours, label, 1))
    output = files.row("comparison", subset, ours, label, judged)
    if "auc" not in output:
        return
    counts = {name: output[name] for name in ("table", "subset", "label", "n", "fakes", "abstained")}
    yield {**counts, "score": CHANCE, **GUESSING}
    for row in audit_rows.to_dict("records"):
        if (row["subset"], row["label"]) == (subset, label):
            gap = _gap(files, judged, label, guess_column(label, row["score"]))
            yield row | {"table": "comparison", "score": f"shortcut: {row['score']}"} | gap
    for name, column in _others(files.scores, label):
        row = files.row("comparison", subset, column, label, judged)
        if "auc" in row or column.startswith(BESIDE):  # a bundle that judges none of them is told, an ablation is not
            yield row | {"score": name} | _gap(files, judged, label, column)
    yield output


def _others(scores: pd.DataFrame, label: str) -> Iterator[tuple[str, str]]:
    """(name of the row, column): the bundles put beside, then the ablations; of a part, its own stream alone.

    Of a bundle beside also the stream: a fusion whose evidence pointed the wrong way out of fold says 0.5 of all files.
    """
    columns = [str(column) for column in scores]
    streams = [stream for stream, answers in STREAM_SCORES.items() if answers == label]
    for column in (c for c in columns if c.startswith(BESIDE)):
        _, name, score = column.split(":")
        if score == f"p_{label}":
            yield name, column
        elif score in streams:
            yield f"{name}, stream alone", column
    if label == "fake":
        yield from ((c.replace(":", ": ", 1), c) for c in columns if c.startswith("ablation:"))
    yield from ((stream, stream) for stream in streams)


def _gap(files: Files, judged: np.ndarray, label: str, column: str) -> dict[str, float]:
    ours, theirs = (score_values(files.scores, name) for name in (f"p_{label}", column))
    both = judged & ~np.isnan(theirs)
    return auc_gap(files.labels[label][both], ours[both], theirs[both], files.files[both], rounds=files.rounds)
