"""What the report and the documents show: one table of text for each question, cut from the CSV files.

The HTML page and the Markdown of README and MODEL_CARD are two renderings of these views, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

NONE = "–"  # a cell that holds no number
# What a score answers, for readers; scores that are not named here are shown as they are called in metrics.csv.
SCORES = {
    "p_fake": "whole clip (fake)",
    "p_video_fake": "face (video_fake)",
    "p_audio_fake": "voice (audio_fake)",
    "visual_logit": "face stream",
    "audio_logit": "voice stream",
    "sync_at_zero": "sync: distance at offset 0",
    "-sync_confidence": "sync: minus confidence",
    "sync_min_distance": "sync: smallest distance",
    "no_video:p_fake": "whole clip, video removed",
    "no_audio:p_fake": "whole clip, sound removed",
}
CHANCE, OURS = "chance", "this bundle"  # rows of the comparison
ANSWERS = {"p_fake": "fake", "p_video_fake": "video_fake", "p_audio_fake": "audio_fake"}  # score -> its label


@dataclass(frozen=True)
class View:
    """A table of text. The first `texts` columns hold words, the others numbers."""

    title: str
    text: str  # how to read it, in plain words
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 2


@dataclass(frozen=True)
class Column:
    title: str
    cell: Callable[[Mapping[str, Any]], str]


def number(value: object, digits: int = 3) -> str:
    """A number with `digits` decimals, a dash for what is missing."""
    try:
        real = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return NONE
    return f"{real:.{digits}f}" if math.isfinite(real) else NONE


def share(value: object) -> str:
    """A share as a percentage."""
    text = number(value)
    return text if text == NONE else f"{100 * float(text):.1f} %"


def interval(row: Mapping[str, Any], name: str) -> str:
    """`0.653 [0.58–0.72]` of a metric and its 95 % bounds."""
    value, low, high = number(row.get(name)), number(row.get(f"{name}_low"), 2), number(row.get(f"{name}_high"), 2)
    return value if NONE in (value, low, high) else f"{value} [{low}–{high}]"


def count(row: Mapping[str, Any]) -> str:
    """`202 (129)`: files, and how many of them are fake."""
    return f"{int(row['n'])} ({int(row['fakes'])})" if number(row.get("n")) != NONE else NONE


def metric(title: str, name: str) -> Column:
    return Column(title, lambda row: interval(row, name))


def plain(title: str, name: str, digits: int = 3) -> Column:
    return Column(title, lambda row: number(row.get(name), digits))


def text(title: str, name: str) -> Column:
    return Column(title, lambda row: SCORES.get(str(row.get(name, "")), str(row.get(name, ""))))


MEASURED_ON, SCORE = text("measured on", "subset"), text("score", "score")
FILES = Column("files (fakes)", count)
ABSTAINED = plain("abstained", "abstained", 0)
AUC, AP, EER = metric("ROC AUC [95 %]", "auc"), metric("AP", "ap"), metric("EER", "eer")
TPR = (metric("TPR at 1 % FPR", "tpr_at_fpr_1"), metric("TPR at 5 % FPR", "tpr_at_fpr_5"))
LOG_LOSS, ECE = metric("log loss", "log_loss"), metric("ECE", "ece")
PROPER = (LOG_LOSS, metric("log loss, classes alike", "log_loss_balanced"), ECE)
DECISION = (metric("balanced accuracy", "balanced_accuracy"), metric("false alarms", "false_alarms"))


def part_of(metrics: pd.DataFrame, part: str, *tables: str) -> pd.DataFrame:
    """The rows of metrics.csv that belong to one part of the manifest and to these tables."""
    return metrics[(metrics["part"] == part) & metrics["table"].isin(tables)]


def view(title: str, words: str, rows: pd.DataFrame, columns: Sequence[Column], texts: int = 2) -> View:
    cells = tuple(tuple(c.cell(row) for c in columns) for row in rows.to_dict("records"))
    return View(title, words, tuple(c.title for c in columns), cells, texts)


def best_shortcuts(metrics: pd.DataFrame, part: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(subset, label) -> the audit's row with the highest AUC: what knowing nothing of faces and voices reaches."""
    rows = part_of(metrics, part, "audit").dropna(subset=["auc"]).sort_values("auc", ascending=False, kind="stable")
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        best.setdefault((str(row["subset"]), str(row["label"])), row)
    return best


def outputs(metrics: pd.DataFrame, part: str) -> View:
    """The headline: each output, and beside it the best shortcut."""
    best = best_shortcuts(metrics, part)

    def shortcut(row: Mapping[str, Any]) -> str:
        found = best.get((str(row["subset"]), ANSWERS.get(str(row["score"]), str(row["score"]))))
        return f"{found['score']}: {interval(found, 'auc')}" if found else "not measured"

    columns = (MEASURED_ON, SCORE, FILES, AUC, Column("best shortcut: AUC", shortcut), AP, EER, *TPR, *PROPER)
    return view(
        "The outputs",
        "Each probability that the detector reports, against the best shortcut: a classifier that sees only facts of "
        "the container, lengths, silence, loudness or noise, trained out of fold and measured on the same files. "
        "Abstentions are counted and not scored. Log loss and ECE are of the data as found; the column “classes "
        "alike” weighs reals and fakes equally, as the probabilities assume.",
        part_of(metrics, part, "output"),
        (*columns, *DECISION, ABSTAINED),
    )


def headline(metrics: pd.DataFrame, part: str) -> View:
    """The few numbers for a README."""
    rows = part_of(metrics, part, "output")
    best = best_shortcuts(metrics, part)

    def shortcut(row: Mapping[str, Any]) -> str:
        found = best.get((str(row["subset"]), ANSWERS.get(str(row["score"]), str(row["score"]))))
        return number(found["auc"]) if found else NONE

    columns = (MEASURED_ON, SCORE, FILES, AUC, Column("best shortcut's AUC", shortcut), EER, LOG_LOSS, ECE)
    return view("Results", "", rows, columns)


def streams(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "What each stream says by itself, before the fusion. For the sync stream all three readings are shown, with "
        "the sign in which a manipulation is expected to raise them; an AUC below 0.5 says that here it lowers them."
    )
    columns = (MEASURED_ON, SCORE, text("answers", "label"), FILES, AUC, AP, EER, *TPR)
    return view("Streams alone", words, part_of(metrics, part, "stream"), columns, texts=3)


def ablations(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "P(fake) with only some of the streams, by kind of fusion; max is the highest of the single-stream "
        "probabilities. Files that have none of these streams are not in the row."
    )
    used = Column("streams", lambda r: str(r["score"]).partition(":")[0])
    fusion = Column("fusion", lambda r: str(r["score"]).partition(":")[2])
    columns = (MEASURED_ON, used, fusion, FILES, AUC, AP, EER, LOG_LOSS, ECE)
    return view("Ablations", words, part_of(metrics, part, "ablation"), columns, texts=3)


def classes(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "R and F: real and fake; V and A: video and audio. FVRA is a fake face with a real voice; mismatch is a real "
        "face with a real voice that do not belong together. Each is measured against RVRA with the same media."
    )
    columns = (Column("class", lambda r: str(r["subset"])), SCORE, FILES, AUC, AP, EER)
    return view("By class", words, part_of(metrics, part, "class"), columns)


def kinds(metrics: pd.DataFrame, part: str) -> View:
    words = "Each kind of fake and each method with at least five fakes, against every real file with the same media."
    columns = (text("by", "table"), Column("kind or method", lambda r: str(r["subset"])), SCORE, FILES, AUC, EER)
    return view("By kind and by method", words, part_of(metrics, part, "kind", "method"), columns, texts=3)


def sources(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "Real against fake within one source, for the whole clip among files that have the same streams: here a model "
        "cannot win by knowing the look of a source, though formats may still differ inside one."
    )
    columns = (Column("source", lambda r: str(r["subset"])), SCORE, FILES, AUC, AP, EER)
    return view("Within sources", words, part_of(metrics, part, "source"), columns)


def pairs(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "How often a fake scores above the real file that it was made from or that shares its person or page; ties "
        "count half, every person or page weighs alike."
    )
    columns = (MEASURED_ON, SCORE, FILES, plain("pairs", "pairs", 0), metric("pairs in order [95 %]", "auc"))
    return view("Pairs of a fake and its original", words, part_of(metrics, part, "pairs"), columns)


def removed(metrics: pd.DataFrame, part: str) -> View:
    words = "The same clips whole, and with the video or the sound taken away before scoring."
    columns = (MEASURED_ON, SCORE, FILES, AUC, EER, LOG_LOSS, ECE)
    return view("Modality removed", words, part_of(metrics, part, "modality removed"), columns)


def audit(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "What a classifier reaches that sees none of the content, trained on the other folds. A detector that does not "
        "exceed these numbers may have learned the files and not the forgeries."
    )
    columns = (MEASURED_ON, text("label", "label"), text("shortcut", "score"), FILES, AUC, EER)
    return view("Shortcut audit", words, part_of(metrics, part, "audit"), columns, texts=3)


def comparison(metrics: pd.DataFrame, part: str) -> View:
    words = (
        "For each label, on the files that this bundle judged; a row that does not judge all of them shows fewer. "
        "Chance says 0.5 of every file, a shortcut sees none of the content; then come the bundles put beside this "
        "one, this bundle with fewer streams or another fusion, and this bundle. The last column is its AUC minus that "
        "of the row, on the row's files; every resample draws the same groups for both. Above 0 this bundle is better."
    )

    def what(row: Mapping[str, Any]) -> str:
        return OURS if row["score"] in ANSWERS else SCORES.get(str(row["score"]), str(row["score"]))

    columns = (MEASURED_ON, text("label", "label"), Column("what", what), FILES, AUC, AP, EER, LOG_LOSS, ECE)
    gap = Column("this bundle's AUC minus this [95 %]", difference)
    return view("Side by side", words, part_of(metrics, part, "comparison"), (*columns, gap), texts=3)


def difference(row: Mapping[str, Any]) -> str:
    """`+0.053 [-0.01 to +0.12]` of `auc_gap` and its bounds."""
    value, low, high = (row.get(f"auc_gap{end}") for end in ("", "_low", "_high"))
    if NONE in map(number, (value, low, high)):
        return NONE
    return f"{value:+.3f} [{low:+.2f} to {high:+.2f}]"


# name in a document's markers -> view of metrics.csv
METRIC_VIEWS: dict[str, Callable[[pd.DataFrame, str], View]] = {
    "readme": headline,
    "outputs": outputs,
    "comparison": comparison,
    "streams": streams,
    "ablations": ablations,
    "classes": classes,
    "sources": sources,
    "kinds": kinds,
    "audit": audit,
    "pairs": pairs,
    "removed": removed,
}


def missing(table: pd.DataFrame) -> View:
    """missing.csv."""
    words = "How often a stream could not be judged, and why. What is missing is said, not guessed."
    share_column = Column("share of the subset", lambda r: share(r["share"]))
    files = plain("files", "files", 0)
    return view(
        "", words, table, (MEASURED_ON, text("stream", "stream"), text("reason", "reason"), files, share_column), 3
    )


def sync(table: pd.DataFrame) -> View:
    """sync.csv: known shifts found, and swapped voices told apart."""
    words = (
        "On files with at least 2.5 s of a face and its own voice. Shifted: the audio is moved by -15 to +15 frames"
        " of 40 ms and the offset must be found again. Another voice: the same face with its own voice (real) and "
        "with the voice of somebody else (fake)."
    )
    columns = (
        *(MEASURED_ON, SCORE, plain("files", "n", 0)),
        metric("within ±1 frame [95 %]", "recovered"),
        metric("mean error (frames)", "mean_error_frames"),
        AUC,
    )
    return view("", words, table, columns)


def robustness(table: pd.DataFrame) -> View:
    """robustness.csv: what re-encoding, noise and low rates cost."""
    words = (
        "The same files after each treatment. An AUC that falls says that the evidence is gone; a mean P(fake) of "
        "reals that rises, that the treatment itself looks like a forgery."
    )
    columns = (
        *(MEASURED_ON, text("treatment", "condition"), Column("severity", severity), SCORE, FILES, AUC),
        plain("mean P of reals", "mean_p_real"),
        plain("mean P of fakes", "mean_p_fake"),
        ABSTAINED,
    )
    return view("", words, table, columns, texts=4)


def severity(row: Mapping[str, Any]) -> str:
    """`28 crf`; a dash for the files as they are."""
    value = number(row["severity"], 0)
    return value if value == NONE else f"{value} {row['unit']}"


def localisation(table: pd.DataFrame) -> View:
    """localisation.csv: average precision of forged segments, false alarms and what of a whole forgery is covered."""
    words = (
        "Average precision of forged segments, where one counts as found when it overlaps the true one by this "
        "intersection over union (IoU), as LAV-DF defines it: of every stretch that the per-second curves suggest "
        "(proposals), and of the few that a result names (segments). Of those also the share of real files with any, "
        "and how much of the files that are fake from end to end they cover."
    )
    names = {"ap_50": "AP at IoU 0.5", "ap_75": "AP at IoU 0.75", "ap_95": "AP at IoU 0.95", "ap_mean": "mean"}
    columns = (
        text("curve", "score"),
        text("method", "method"),
        *(plain(name, name, 0) for name in ("files", "segments", "failed")),
        *(plain(title, name) for name, title in names.items()),
        plain("real files", "real", 0),
        Column("with a segment", lambda row: share(row.get("false_alarms"))),
        plain("wholly fake", "whole", 0),
        Column("covered", lambda row: share(row.get("covered"))),
    )
    return view("", words, table, columns)


# name in a document's markers, and of its CSV file -> view
TABLE_VIEWS: dict[str, Callable[[pd.DataFrame], View]] = {
    "missing": missing,
    "sync": sync,
    "robustness": robustness,
    "localisation": localisation,
}
