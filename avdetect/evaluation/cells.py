"""Cells of a result table as text: numbers, shares, intervals; and the table that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avdetect.evaluation.metrics import TOO_FEW

NONE = "–"  # a cell that holds no number
# What a score answers, for readers; scores that are not named here are shown as they are called in metrics.csv.
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
    "no_video:p_fake": "whole clip, video removed",
    "no_audio:p_fake": "whole clip, sound removed",
}


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
    """`0.653 [0.58–0.72]` of a metric and its 95 % bounds; `0.653 (too few)` where there are too few files for any."""
    value, low, high = number(row.get(name)), number(row.get(f"{name}_low"), 2), number(row.get(f"{name}_high"), 2)
    if value != NONE and row.get("note") == TOO_FEW:
        return f"{value} ({TOO_FEW})"
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
