"""The main tables as text. The page and the Markdown of the documents render the same ones, so they cannot disagree.

All other numbers stand in the CSV files. A new view is one entry of VIEWS.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avdetect.evaluation.audit import best_shortcuts
from avdetect.evaluation.metrics import MIN_FILES, TOO_FEW
from avdetect.evaluation.tables import MODALITIES

Row = Mapping[str, Any]  # of metrics.csv
NONE = "–"  # a cell that holds no number
# What a score answers, for readers; others are shown as metrics.csv calls them.
SCORES = {
    "p_fake": "whole clip (fake)",
    "p_video_fake": "face (video_fake)",
    "p_audio_fake": "voice (audio_fake)",
    "p_mismatch": "match (mismatch)",
    "visual_logit": "face stream",
    "audio_logit": "voice stream",
    "-sync_match": "match stream",
    "-sync_confidence": "match: minus confidence",
    "sync_min_distance": "match: smallest distance",
}


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` decimals, a dash for what is missing."""
    try:
        real = float(value)
    except (TypeError, ValueError):
        return NONE
    return f"{real:.{digits}f}" if math.isfinite(real) else NONE


def share(value: Any) -> str:
    """A share as a percentage."""
    text = number(value)
    return text if text == NONE else f"{100 * float(text):.1f} %"


def interval(row: Row, name: str) -> str:
    """`0.653 [0.58–0.72]` of a metric and its 95 % bounds; `0.653 (too few)` where there are too few files for any."""
    value, low, high = number(row.get(name)), number(row.get(f"{name}_low"), 2), number(row.get(f"{name}_high"), 2)
    if value != NONE and row.get("note") == TOO_FEW:
        return f"{value} ({TOO_FEW})"
    return value if NONE in (value, low, high) else f"{value} [{low}–{high}]"


def count(row: Row) -> str:
    """`202 (129)`: files, and how many of them are fake."""
    return f"{int(row['n'])} ({int(row['fakes'])})" if number(row.get("n")) != NONE else NONE


def _worst(row: Row) -> str:
    """`23.1 % (talks, 13 files)`"""
    if not (worst := row["worst"]):
        return NONE
    source = worst["subset"].removeprefix(f"{row['subset']}: ")
    return f"{share(worst['false_alarms'])} ({source}, {int(worst['n'])} files)"


def _shortcut(row: Row) -> str:
    best = row["shortcut"]
    return f"{best['score']}: {interval(best, 'auc')}" if best else "not measured"


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: SCORES.get(str(row[name]), str(row[name]))


def _metric(name: str) -> Callable[[Row], str]:
    return lambda row: interval(row, name)


def _plain(name: str, digits: int = 3) -> Callable[[Row], str]:
    return lambda row: number(row[name], digits)


def _chosen(row: Row) -> str:
    return number(row["shortcut"].get("auc"))


COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {  # title and cell; \u00a0: a space that does not break
    "on": ("measured on", _text("subset")),
    **{name: (name, _text("subset")) for name in ("source", "kind", "generator")},
    "score": ("score", _text("score")),
    "files": ("files (fakes)", count),
    "auc": ("balanced AUC [95\u00a0%]", _metric("auc")),
    "pooled": ("pooled AUC", _plain("auc_pooled")),
    "within": ("AUC within sources", _plain("auc_within")),
    "eer": ("EER", _metric("eer")),
    "recall": ("recall at 5 % false alarms", _metric("tpr_at_fpr_5")),
    "log_loss": ("log loss", _metric("log_loss")),
    "ece": ("ECE", _metric("ece")),
    "accuracy": ("balanced accuracy", _metric("balanced_accuracy")),
    "alarms": ("false alarms", _metric("false_alarms")),
    "abstained": ("abstained", _plain("abstained", 0)),
    "shortcut": ("best shortcut: balanced AUC", _shortcut),
    "chosen": ("best shortcut's balanced AUC", _chosen),
    "chosen_short": ("best shortcut's", _chosen),
    "worst": ("worst source's false alarms", _worst),
    "real_files": ("real files", lambda row: number(row["n"], 0) + f" ({TOO_FEW})" * (row["note"] == TOO_FEW)),
    "alarm_share": ("false alarms", lambda row: share(row["false_alarms"])),
    "alarm_share_at_5": ("at 5 % on average", lambda row: share(row["false_alarms_at_5"])),
}


@dataclass(frozen=True)
class View:
    """A table of text. Its first columns hold words, the others numbers."""

    title: str
    text: str  # how to read it, in plain words
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    stacked: bool = False  # intervals stand below their numbers, so that many columns fit

    @property
    def texts(self) -> int:
        """How many columns hold words."""
        return 1 if self.stacked else 2


@dataclass(frozen=True)
class Spec:
    """Which rows of metrics.csv a view shows, in which of COLUMNS."""

    title: str
    rows: str  # their column `table`
    columns: str
    text: str = ""
    keep: Callable[[Row], bool] = lambda row: True


_EACH = (
    "with at least five fakes, against every real file with the same media. The recall is of the threshold that alarms "
    "on 5 % of those, where every source weighs the same."
)
VIEWS = {  # name in a document's markers -> view
    "readme": Spec("Results", "output", "on score files auc pooled within chosen eer log_loss ece"),
    "modalities": Spec(
        "Each modality by itself, in pairs, and all three",
        "modality",
        "",  # its columns are what was measured against: `_modalities`
        "Balanced AUC [95 %] of the shipped model with only these streams, the others masked as if they were missing; "
        "nothing is refitted. All lines are of the same clips. Raw: what a stream ranks by, before calibration. P: the "
        "probability of its own cause. Pairs and all three: P(fake). Columns: first what is asked of all clips, then "
        "one class of fakes against RVRA, which are real clips; the last is the share of these at or above the "
        "threshold. Out of fold the streams never saw a file's source; the fusion, a few numbers, has.",
    ),
    "outputs": Spec(
        "The outputs",
        "output",
        "on score files auc pooled within shortcut eer recall log_loss ece accuracy alarms worst abstained",
        "Each probability that the detector reports, against the best shortcut: a classifier that sees only facts of "
        "the container, lengths, silence, loudness or noise, trained out of fold and measured on the same files. "
        "Every generator and every source weighs the same, and so do the classes; only the pooled AUC takes files as "
        "they come. The worst source is that of at least ten real files. Abstentions are counted and not scored.",
    ),
    "kinds": Spec("By kind", "kind", "kind score files auc eer recall", f"Each kind of fake {_EACH}"),
    "generators": Spec(
        "By generator", "method", "generator score files auc eer recall", f"Each generator (method) {_EACH}"
    ),
    "alarms": Spec(
        "False alarms by source",
        "false alarms",
        "source score real_files alarm_share alarm_share_at_5 abstained",
        "The share of real files called fake in each source with at least five of them, the worst first: at the "
        "shipped threshold, and at the one that alarms on 5 % of reals where every source weighs the same.",
    ),
    "short": Spec(  # of recordings and stills the whole is their one cause
        "In short",
        "output",
        "on score files auc chosen_short recall",
        keep=lambda row: row["subset"] == "clips" or row["score"] == "p_fake",
    ),
}
_AGAINST = {  # (subset, label) of the table "modality" -> title of the column
    ("clips", "fake"): "fake: anything",
    ("clips", "video_fake"): "face: video_fake",
    ("clips", "audio_fake"): "voice: audio_fake",
    ("clips", "mismatch"): "match: mismatch",
    ("RVFA", "fake"): "RVFA: real face, fake voice",
    ("FVRA", "fake"): "FVRA: fake face, real voice",
    ("FVFA", "fake"): "FVFA: both fake",
    ("mismatch", "fake"): "swap: real face, real voice, of two clips",
}


def view(name: str, metrics: pd.DataFrame, part: str) -> View:
    """One of VIEWS, of one part of the manifest in metrics.csv."""
    spec = VIEWS[name]
    rows = rows_of(metrics, part, spec.rows)
    if name == "modalities":
        return View(spec.title, spec.text, *_modalities(rows), stacked=True)
    titles, cells = zip(*(COLUMNS[column] for column in spec.columns.split()), strict=True)
    shown = tuple(tuple(cell(row) for cell in cells) for row in rows if spec.keep(row))
    return View(spec.title, spec.text, titles, shown)


def rows_of(metrics: pd.DataFrame, part: str, table: str) -> list[dict[Any, Any]]:
    """The rows of metrics.csv of one part of the manifest and one table.

    Each row of the table "output" also holds two rows that belong to it, {} where there is none: `shortcut`, the
    audit's best, and `worst`, the source with most false alarms, of those with enough files.
    """
    metrics = metrics[metrics["part"] == part]
    rows = metrics[metrics["table"] == table].to_dict("records")
    if table == "output":
        best = best_shortcuts(metrics[metrics["table"] == "audit"]).to_dict("records")
        alarms = metrics[(metrics["table"] == "false alarms") & (metrics["n"] >= MIN_FILES)]
        worst = alarms.sort_values("false_alarms", ascending=False, kind="stable").to_dict("records")
        for row in rows:
            row["shortcut"] = next((r for r in best if all(r[k] == row[k] for k in ("subset", "label"))), {})
            of_output = (r for r in worst if r["score"] == row["score"])
            row["worst"] = next((r for r in of_output if r["subset"].startswith(f"{row['subset']}: ")), {})
    return rows


def _modalities(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Titles and cells: a line for each of MODALITIES, what it is measured against in columns."""
    found = {(row["score"], row["subset"], row["label"]): row for row in rows}
    asked = [key for key in _AGAINST if any((score, *key) in found for score in MODALITIES)]
    cells = []
    for score, name in MODALITIES.items():
        of_score = [found.get((score, *key), {}) for key in asked]
        called = next((share(row["false_alarms"]) for row in of_score if row.get("subset", "clips") != "clips"), NONE)
        if any(of_score):
            cells.append((name, *(interval(row, "auc") for row in of_score), called))
    if cells:
        counted = (next(found[score, *key] for score in MODALITIES if (score, *key) in found) for key in asked)
        cells.insert(0, ("files (fakes)", *map(count, counted), ""))
    titles = ("streams", *(_AGAINST[key] for key in asked), "RVRA: real clips called fake")
    return titles, tuple(cells)


def in_words(metrics: pd.DataFrame, part: str) -> list[str]:
    """A line for each output that was measured, for a terminal."""
    return [
        f"{row['subset']}, {SCORES[row['score']]}: balanced AUC {interval(row, 'auc')}, "
        f"pooled {number(row['auc_pooled'])}, within sources {number(row['auc_within'])}, "
        f"worst source's false alarms {_worst(row)}; files (fakes): {count(row)}"
        for row in rows_of(metrics, part, "output")
        if pd.notna(row["auc"])
    ]


def modalities_in_words(metrics: pd.DataFrame, part: str) -> list[str]:
    """The first table for a terminal of 80 columns or more, without the intervals; [] where nothing was measured."""
    table = view("modalities", metrics, part)
    if not table.rows:
        return []
    names = [title.partition(":")[0] for title in table.columns]
    counts = ["fakes", *(cell.partition("(")[2].rstrip(")") for cell in table.rows[0][1:])]
    lines = [names, counts, *([cell.partition(" [")[0] for cell in row] for row in table.rows[1:])]
    shown = [f"{first:<15}" + "".join(f"{cell:>7}" for cell in cells) for first, *cells in lines]
    return [f"{table.title}: balanced AUC against", *shown, *(f"  {title}" for title in table.columns if ":" in title)]
