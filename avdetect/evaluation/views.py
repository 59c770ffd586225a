"""What the report and the documents show: one table of text for each question, cut from the CSV files.

The HTML page and the Markdown of README and MODEL_CARD are two renderings of these views, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from avdetect.evaluation.cells import NONE, SCORES, Column, View, count, interval, metric, number, plain, share, text
from avdetect.evaluation.metrics import MIN_FILES, TOO_FEW

CHANCE, OURS = "chance", "this bundle"  # rows of the comparison
# score -> its label
ANSWERS = {"p_fake": "fake", "p_video_fake": "video_fake", "p_audio_fake": "audio_fake", "p_mismatch": "mismatch"}

MEASURED_ON, SCORE = text("measured on", "subset"), text("score", "score")
FILES = Column("files (fakes)", count)
ABSTAINED = plain("abstained", "abstained", 0)
AUC, EER = metric("balanced AUC [95 %]", "auc"), metric("EER", "eer")
AUCS = (AUC, plain("pooled AUC", "auc_pooled"), plain("AUC within sources", "auc_within"))
RECALL = metric("recall at 5 % false alarms", "tpr_at_fpr_5")
LOG_LOSS, ECE = metric("log loss", "log_loss"), metric("ECE", "ece")
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


def worst_source(metrics: pd.DataFrame, part: str) -> Callable[[Mapping[str, Any]], str]:
    """`23.1 % (talks, 13 files)` of a row: the source with most false alarms, of those with enough files."""
    rows = part_of(metrics, part, "false alarms")
    rows = rows[rows["n"] >= MIN_FILES].sort_values("false_alarms", ascending=False, kind="stable")

    def worst(row: Mapping[str, Any]) -> str:
        prefix = f"{row['subset']}: "
        for found in rows[rows["score"] == row["score"]].to_dict("records"):
            if str(found["subset"]).startswith(prefix):
                source = str(found["subset"]).removeprefix(prefix)
                return f"{share(found['false_alarms'])} ({source}, {int(found['n'])} files)"
        return NONE

    return worst


def outputs(metrics: pd.DataFrame, part: str) -> View:
    """Each output, and beside it the best shortcut and the worst source."""
    best = best_shortcuts(metrics, part)

    def shortcut(row: Mapping[str, Any]) -> str:
        found = best.get((str(row["subset"]), str(row["label"])))
        return f"{found['score']}: {interval(found, 'auc')}" if found else "not measured"

    columns = (MEASURED_ON, SCORE, FILES, *AUCS, Column("best shortcut: balanced AUC", shortcut), EER, RECALL)
    worst = Column("worst source's false alarms", worst_source(metrics, part))
    return view(
        "The outputs",
        "Each probability that the detector reports, against the best shortcut: a classifier that sees only facts of "
        "the container, lengths, silence, loudness or noise, trained out of fold and measured on the same files. "
        "Every generator and every source weighs the same, and so do the classes; only the pooled AUC takes files as "
        "they come. The worst source is that of at least ten real files. Abstentions are counted and not scored.",
        part_of(metrics, part, "output"),
        (*columns, LOG_LOSS, ECE, *DECISION, worst, ABSTAINED),
    )


def headline(metrics: pd.DataFrame, part: str) -> View:
    """The few numbers for a README."""
    best = best_shortcuts(metrics, part)
    chosen = Column(
        "best shortcut's balanced AUC",
        lambda row: number(best.get((str(row["subset"]), str(row["label"])), {}).get("auc")),
    )
    columns = (MEASURED_ON, SCORE, FILES, *AUCS, chosen, EER, LOG_LOSS, ECE)
    return view("Results", "", part_of(metrics, part, "output"), columns)


def in_words(metrics: pd.DataFrame, part: str) -> list[str]:
    """A line for each output that was measured, for a terminal."""
    worst, lines = worst_source(metrics, part), []
    for row in part_of(metrics, part, "output").dropna(subset=["auc"]).to_dict("records"):
        beside = f"pooled {number(row['auc_pooled'])}, within sources {number(row['auc_within'])}"
        alarms = f"worst source's false alarms {worst(row)}"
        lines.append(
            f"{row['subset']}, {SCORES[row['score']]}: balanced AUC {interval(row, 'auc')}, {beside}, {alarms}; "
            f"files (fakes): {count(row)}"
        )
    return lines


def of_tables(
    title: str, words: str, columns: Sequence[Column], *tables: str, texts: int = 2
) -> Callable[[pd.DataFrame, str], View]:
    """The view of these tables of metrics.csv, row by row."""
    return lambda metrics, part: view(title, words, part_of(metrics, part, *tables), columns, texts)


NAMED = partial(text, name="subset")  # title -> the rows' own names
streams = of_tables(
    "Streams alone",
    "What each stream says by itself, before the fusion. For the sync stream all three readings are shown, with the "
    "sign in which a manipulation is expected to raise them; an AUC below 0.5 says that here it lowers them.",
    (MEASURED_ON, SCORE, text("answers", "label"), FILES, *AUCS, EER, RECALL),
    "stream",
    texts=3,
)
ablations = of_tables(
    "Ablations",
    "P(fake) with only some of the streams, by kind of fusion; max is the highest of the single-stream probabilities. "
    "Files that have none of these streams are not in the row.",
    (
        MEASURED_ON,
        Column("streams", lambda row: str(row["score"]).partition(":")[0]),
        Column("fusion", lambda row: str(row["score"]).partition(":")[2]),
        *(FILES, *AUCS, EER, LOG_LOSS, ECE),
    ),
    "ablation",
    texts=3,
)
classes = of_tables(
    "By class",
    "R and F: real and fake; V and A: video and audio. FVRA is a fake face with a real voice; mismatch is a real face "
    "with a real voice that do not belong together. Each is measured against RVRA with the same media.",
    (NAMED("class"), SCORE, FILES, AUC, EER, RECALL),
    "class",
)
_EACH = (
    "with at least five fakes, against every real file with the same media. The recall is of the threshold that alarms "
    "on 5 % of those, where every source weighs the same."
)
kinds = of_tables("By kind", f"Each kind of fake {_EACH}", (NAMED("kind"), SCORE, FILES, AUC, EER, RECALL), "kind")
generators = of_tables(
    "By generator", f"Each generator (method) {_EACH}", (NAMED("generator"), SCORE, FILES, AUC, EER, RECALL), "method"
)
alarms = of_tables(
    "False alarms by source",
    "The share of real files called fake in each source with at least five of them, the worst first: at the shipped "
    "threshold, and at the one that alarms on 5 % of reals where every source weighs the same.",
    (
        NAMED("source"),
        SCORE,
        Column("real files", lambda row: number(row["n"], 0) + (f" ({TOO_FEW})" if row["note"] == TOO_FEW else "")),
        Column("false alarms", lambda row: share(row["false_alarms"])),
        Column("at 5 % on average", lambda row: share(row["false_alarms_at_5"])),
        ABSTAINED,
    ),
    "false alarms",
)
sources = of_tables(
    "Within sources",
    "Real against fake within one source, for the whole clip among files that have the same streams: here a model "
    "cannot win by knowing the look of a source, though formats may still differ inside one. Their mean is the “AUC "
    "within sources” of the other tables.",
    (NAMED("source"), SCORE, FILES, AUC, EER),
    "source",
)
pairs = of_tables(
    "Pairs of a fake and its original",
    "How often a fake scores above the real file that it was made from or that shares its person or page; ties count "
    "half, every person or page weighs alike.",
    (MEASURED_ON, SCORE, FILES, plain("pairs", "pairs", 0), metric("pairs in order [95 %]", "auc")),
    "pairs",
)
removed = of_tables(
    "Modality removed",
    "The same clips whole, and with the video or the sound taken away before scoring.",
    (MEASURED_ON, SCORE, FILES, AUC, EER, LOG_LOSS, ECE),
    "modality removed",
)
audit = of_tables(
    "Shortcut audit",
    "What a classifier reaches that sees none of the content, trained on the other folds. A detector that does not "
    "exceed these numbers may have learned the files and not the forgeries.",
    (MEASURED_ON, text("label", "label"), text("shortcut", "score"), FILES, *AUCS, EER),
    "audit",
    texts=3,
)
comparison = of_tables(
    "Side by side",
    "For each label, on the files that this bundle judged; a row that does not judge all of them shows fewer. Chance "
    "says 0.5 of every file, a shortcut sees none of the content; then come the bundles put beside this one, this "
    "bundle with fewer streams or another fusion, and this bundle. The last column is its balanced AUC minus that of "
    "the row, on the row's files; every resample draws the same ones for both. Above 0 this bundle is better.",
    (
        *(MEASURED_ON, text("label", "label")),
        Column("what", lambda row: OURS if row["score"] in ANSWERS else SCORE.cell(row)),
        *(FILES, *AUCS, EER, LOG_LOSS, ECE),
        Column("this bundle's balanced AUC minus this [95 %]", lambda row: difference(row)),
    ),
    "comparison",
    texts=3,
)


def difference(row: Mapping[str, Any]) -> str:
    """`+0.053 [-0.01 to +0.12]` of `auc_gap` and its bounds."""
    value, low, high = (row.get(f"auc_gap{end}") for end in ("", "_low", "_high"))
    if number(value) != NONE and row.get("note") == TOO_FEW:
        return f"{value:+.3f} ({TOO_FEW})"
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
    "generators": generators,
    "alarms": alarms,
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
