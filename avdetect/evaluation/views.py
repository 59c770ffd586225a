"""What the report and the documents show: one table of text for each question, cut from the CSV files.

The HTML page and the Markdown of README and MODEL_CARD are two renderings of these views, so they cannot disagree.
A new view is one entry of VIEWS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from avdetect.evaluation.audit import best_shortcuts
from avdetect.evaluation.cells import COLUMNS, SCORES, View, count, interval, number
from avdetect.evaluation.metrics import MIN_FILES
from avdetect.evaluation.modalities import modalities


@dataclass(frozen=True)
class Spec:
    """Which rows a view shows, in which of COLUMNS."""

    title: str
    rows: str  # the column `table` of metrics.csv; "": all rows of a CSV file of the view's own
    columns: str  # names of COLUMNS
    text: str = ""  # how to read it, in plain words
    texts: int = 2  # so many columns hold words, the others numbers
    keep: Callable[[Mapping[str, Any]], bool] = lambda row: True


_EACH = (
    "with at least five fakes, against every real file with the same media. The recall is of the threshold that alarms "
    "on 5 % of those, where every source weighs the same."
)
VIEWS = {  # name in a document's markers -> view of metrics.csv
    "readme": Spec("Results", "output", "on score files auc pooled within chosen eer log_loss ece"),
    "modalities": Spec(
        "Each modality by itself, in pairs, and all three",
        "modality",
        "",  # its columns are what was measured against: `modalities`
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
    "comparison": Spec(
        "Side by side",
        "comparison",
        "on label what files auc pooled within eer log_loss ece gap",
        "For each label, on the files that this bundle judged; a row that does not judge all of them shows fewer. "
        "Chance says 0.5 of every file, a shortcut sees none of the content; then come the bundles put beside this "
        "one, this bundle with fewer streams or another fusion, and this bundle. The last column is its balanced AUC "
        "minus that of the row, on the row's files; every resample draws the same ones for both. Above 0 this bundle "
        "is better.",
        texts=3,
    ),
    "streams": Spec(
        "Streams alone",
        "stream",
        "on score answers files auc pooled within eer recall",
        "What each stream says by itself, before the fusion. For the sync stream all three readings are shown, with "
        "the sign in which a manipulation is expected to raise them; an AUC below 0.5 says that here it lowers them.",
        texts=3,
    ),
    "ablations": Spec(
        "Fusion kinds",
        "ablation",
        "on streams fusion files auc pooled within eer log_loss ece",
        "P(fake) of other fusions, each refitted out of fold on all or some of the streams; max is the highest of the "
        "single-stream probabilities. The shipped model's own ablation is the first table. Files that have none of "
        "these streams are not in the row.",
        texts=3,
    ),
    "classes": Spec(
        "By class",
        "class",
        "class score files auc eer recall",
        "R and F: real and fake; V and A: video and audio. FVRA is a fake face with a real voice; mismatch is a real "
        "face with a real voice that do not belong together. Each is measured against RVRA with the same media.",
    ),
    "sources": Spec(
        "Within sources",
        "source",
        "source score files auc eer",
        "Real against fake within one source, for the whole clip among files that have the same streams: here a model "
        "cannot win by knowing the look of a source, though formats may still differ inside one. Their mean is the "
        "“AUC within sources” of the other tables.",
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
    "audit": Spec(
        "Shortcut audit",
        "audit",
        "on label facts files auc pooled within eer",
        "What a classifier reaches that sees none of the content, trained on the other folds. A detector that does not "
        "exceed these numbers may have learned the files and not the forgeries.",
        texts=3,
    ),
    "pairs": Spec(
        "Pairs of a fake and its original",
        "pairs",
        "on score files pairs in_order",
        "How often a fake scores above the real file that it was made from or that shares its person or page; ties "
        "count half, every person or page weighs alike.",
    ),
    "removed": Spec(
        "Modality removed",
        "modality removed",
        "on score files auc eer log_loss ece",
        "The same clips whole, and with the video or the sound taken away before scoring.",
    ),
    "short": Spec(  # of recordings and stills the whole is their one cause
        "In short",
        "output",
        "on score files auc chosen_short recall",
        keep=lambda row: row["subset"] == "clips" or row["score"] == "p_fake",
    ),
}
TABLE_VIEWS = {  # name in a document's markers, and of its CSV file -> view
    "missing": Spec(
        "",
        "",
        "on stream reason num_files subset_share",
        "How often a stream could not be judged, and why. What is missing is said, not guessed.",
        texts=3,
    ),
    "sync": Spec(
        "",
        "",
        "on score n recovered frames auc",
        "On files with at least 2.5 s of a face and its own voice. Shifted: the audio is moved by -15 to +15 frames of "
        "40 ms and the offset must be found again. Another voice: the same face with its own voice (real) and with the "
        "voice of somebody else (fake).",
    ),
    "robustness": Spec(
        "",
        "",
        "on treatment severity score files auc mean_p_real mean_p_fake abstained",
        "The same files after each treatment. An AUC that falls says that the evidence is gone; a mean P(fake) of "
        "reals that rises, that the treatment itself looks like a forgery.",
        texts=4,
    ),
    "localisation": Spec(
        "",
        "",
        "curve method num_files segments failed ap_50 ap_75 ap_95 ap_mean real with_segment whole covered",
        "Average precision of forged segments, where one counts as found when it overlaps the true one by this "
        "intersection over union (IoU), as LAV-DF defines it: of every stretch that the per-second curves suggest "
        "(proposals), and of the few that a result names (segments). Of those also the share of real files with any, "
        "and how much of the files that are fake from end to end they cover.",
    ),
}
NAMES = (*VIEWS, *TABLE_VIEWS)


def view(name: str, table: pd.DataFrame, part: str = "") -> View:
    """One of NAMES, of the CSV file that holds it: `metrics`, of which a part is asked for, or NAME."""
    spec = VIEWS.get(name) or TABLE_VIEWS[name]
    rows = rows_of(table, part, spec.rows) if spec.rows else table.to_dict("records")
    if name == "modalities":
        return View(spec.title, spec.text, *modalities(rows), spec.texts, stacked=True)
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
