"""The main tables as text. The page and the Markdown of the documents render the same ones, so they cannot disagree.

All other numbers stand in the CSV files. A new view is one entry of VIEWS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avdetect.evaluation.audit import best_shortcuts
from avdetect.evaluation.cells import COLUMNS, NONE, SCORES, count, interval, number, share
from avdetect.evaluation.metrics import MIN_FILES
from avdetect.evaluation.tables import MODALITIES


@dataclass(frozen=True)
class View:
    """A table of text. The first `texts` columns hold words, the others numbers."""

    title: str
    text: str  # how to read it, in plain words
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 2
    stacked: bool = False  # intervals stand below their numbers, so that many columns fit


@dataclass(frozen=True)
class Spec:
    """Which rows of metrics.csv a view shows, in which of COLUMNS."""

    title: str
    rows: str  # their column `table`
    columns: str
    text: str = ""
    texts: int = 2
    keep: Callable[[Mapping[str, Any]], bool] = lambda row: True


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
        texts=1,
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
        return View(spec.title, spec.text, *_modalities(rows), spec.texts, stacked=True)
    columns = [COLUMNS[column] for column in spec.columns.split()]
    cells = tuple(tuple(column.cell(row) for column in columns) for row in rows if spec.keep(row))
    return View(spec.title, spec.text, tuple(column.title for column in columns), cells, spec.texts)


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


def _modalities(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
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
        f"worst source's false alarms {COLUMNS['worst'].cell(row)}; files (fakes): {count(row)}"
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
