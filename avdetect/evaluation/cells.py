"""Cells of a result table as text, and the columns that such a table may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avdetect.evaluation.metrics import TOO_FEW

NONE = "–"  # a cell that holds no number
# What a score answers, for readers; others are shown as metrics.csv calls them.
SCORES = {
    "p_fake": "whole clip (fake)",
    "p_video_fake": "face (video_fake)",
    "p_audio_fake": "voice (audio_fake)",
    "p_mismatch": "match (mismatch)",
    "visual_logit": "face stream",
    "audio_logit": "voice stream",
    "-sync_match": "sync: minus match",
    "-sync_confidence": "sync: minus confidence",
    "sync_min_distance": "sync: smallest distance",
}


@dataclass(frozen=True)
class Column:
    title: str
    cell: Callable[[Mapping[str, Any]], str]  # of a row of metrics.csv


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


def interval(row: Mapping[str, Any], name: str) -> str:
    """`0.653 [0.58–0.72]` of a metric and its 95 % bounds; `0.653 (too few)` where there are too few files for any."""
    value, low, high = number(row.get(name)), number(row.get(f"{name}_low"), 2), number(row.get(f"{name}_high"), 2)
    if value != NONE and row.get("note") == TOO_FEW:
        return f"{value} ({TOO_FEW})"
    return value if NONE in (value, low, high) else f"{value} [{low}–{high}]"


def count(row: Mapping[str, Any]) -> str:
    """`202 (129)`: files, and how many of them are fake."""
    return f"{int(row['n'])} ({int(row['fakes'])})" if number(row.get("n")) != NONE else NONE


def _worst(row: Mapping[str, Any]) -> str:
    """`23.1 % (talks, 13 files)`"""
    if not (worst := row["worst"]):
        return NONE
    source = worst["subset"].removeprefix(f"{row['subset']}: ")
    return f"{share(worst['false_alarms'])} ({source}, {int(worst['n'])} files)"


def _shortcut(row: Mapping[str, Any]) -> str:
    best = row["shortcut"]
    return f"{best['score']}: {interval(best, 'auc')}" if best else "not measured"


def _text(title: str, name: str) -> Column:
    return Column(title, lambda row: SCORES.get(str(row[name]), str(row[name])))


def _metric(title: str, name: str) -> Column:
    return Column(title, lambda row: interval(row, name))


def _plain(title: str, name: str, digits: int = 3) -> Column:
    return Column(title, lambda row: number(row[name], digits))


def _chosen(title: str) -> Column:
    return Column(title, lambda row: number(row["shortcut"].get("auc")))


COLUMNS = {  # \u00a0: a space that does not break
    "on": _text("measured on", "subset"),
    **{name: _text(name, "subset") for name in ("source", "kind", "generator")},
    "score": _text("score", "score"),
    "files": Column("files (fakes)", count),
    "auc": _metric("balanced AUC [95\u00a0%]", "auc"),
    "pooled": _plain("pooled AUC", "auc_pooled"),
    "within": _plain("AUC within sources", "auc_within"),
    "eer": _metric("EER", "eer"),
    "recall": _metric("recall at 5 % false alarms", "tpr_at_fpr_5"),
    "log_loss": _metric("log loss", "log_loss"),
    "ece": _metric("ECE", "ece"),
    "accuracy": _metric("balanced accuracy", "balanced_accuracy"),
    "alarms": _metric("false alarms", "false_alarms"),
    "abstained": _plain("abstained", "abstained", 0),
    "shortcut": Column("best shortcut: balanced AUC", _shortcut),
    "chosen": _chosen("best shortcut's balanced AUC"),
    "chosen_short": _chosen("best shortcut's"),
    "worst": Column("worst source's false alarms", _worst),
    "real_files": Column("real files", lambda row: number(row["n"], 0) + f" ({TOO_FEW})" * (row["note"] == TOO_FEW)),
    "alarm_share": Column("false alarms", lambda row: share(row["false_alarms"])),
    "alarm_share_at_5": Column("at 5 % on average", lambda row: share(row["false_alarms_at_5"])),
}
