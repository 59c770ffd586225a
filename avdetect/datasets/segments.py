"""Fake segments of a manifest: JSON text or lists in, tuples of (start_seconds, end_seconds) out, and back to text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pandas as pd

from avdetect.errors import ManifestError

Segments = tuple[tuple[float, float], ...]
BAD = (ValueError, TypeError, OverflowError, RecursionError)  # what parsing or checking a bad cell raises
RULE = "a list of [start_seconds, end_seconds] with 0 <= start < end"


def typed_segments(column: pd.Series) -> pd.Series:
    """The column with a tuple of (start, end) pairs in every row; () where the cell is empty or unknown.

    A cell may be JSON text (`[[0.5, 1.5]]`), a list, a tuple, an array of pairs, or empty. Raises ManifestError that
    names the first bad row.
    """
    cells = column.to_numpy(dtype=object)
    is_text = np.fromiter((isinstance(cell, str) for cell in cells), bool, len(cells))
    is_full = np.fromiter((hasattr(cell, "__len__") and len(cell) > 0 for cell in cells), bool, len(cells))
    wrong = ~is_text & ~is_full & ~np.fromiter((_is_empty(cell) for cell in cells), bool, len(cells))
    if wrong.any():
        _refuse(column, int(wrong.argmax()))
    out = np.empty(len(cells), object)
    out[:] = [()] * len(cells)
    for rows, parse in ((is_text & is_full, _from_texts), (~is_text & is_full, _from_lists)):
        where = np.flatnonzero(rows)
        try:
            parsed = parse(cells[where])
        except BAD:
            _refuse(column, int(where[_first_bad(cells[where], parse)]))
        out[where] = _objects(parsed)
    return pd.Series(out, index=column.index, name=column.name, dtype=object)


def segments_text(column: pd.Series) -> pd.Series:
    """JSON text of a column of `typed_segments`; empty text where there is none."""
    encode = json.JSONEncoder().encode
    texts = [encode(cell) if cell else "" for cell in column]
    return pd.Series(texts, index=column.index, name=column.name, dtype=object).astype(str)


def _is_empty(cell: Any) -> bool:
    if hasattr(cell, "__len__"):
        return len(cell) == 0
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and cell != cell)


def _from_texts(texts: Sequence[str]) -> list[Segments]:
    # One call of the parser for all rows is several times faster than one a row. Each text closes what it opens, so
    # that it holds whole elements, at least one: with as many elements as texts, each holds one.
    if any(text.count("[") != text.count("]") for text in texts):
        raise ValueError("brackets do not match")
    cells = json.loads(f"[{','.join(texts)}]")
    if len(cells) != len(texts):
        raise ValueError("a text holds more or less than one list")
    return _from_lists(cells)


def _from_lists(cells: Sequence[Any]) -> list[Segments]:
    """Checked and made of plain floats. Raises ValueError or TypeError."""
    if any(isinstance(cell, str | dict) for cell in cells):
        raise TypeError("not a list")
    lengths = list(map(len, cells))
    pairs = list(chain.from_iterable(cells))
    if set(map(len, pairs)) - {2}:
        raise ValueError("not pairs")
    numbers = list(chain.from_iterable(pairs))
    if not all(issubclass(kind, int | float | np.number) and kind is not bool for kind in set(map(type, numbers))):
        raise TypeError("not numbers")
    flat = np.asarray(numbers, np.float64)
    start, end = flat[::2], flat[1::2]
    if not (np.isfinite(flat).all() and (start >= 0).all() and (start < end).all()):
        raise ValueError(RULE)
    rest = iter(zip(start.tolist(), end.tolist(), strict=True))
    return [tuple(islice(rest, length)) for length in lengths]


def _objects(values: list[Segments]) -> np.ndarray:
    """(N,) object array of tuples: numpy would make a matrix of tuples of one length."""
    out = np.empty(len(values), object)
    for index, value in enumerate(values):
        out[index] = value
    return out


def _first_bad(cells: Sequence[Any], parse: Any) -> int:
    for index in range(len(cells)):
        try:
            parse(cells[index : index + 1])
        except BAD:
            return index
    return 0


def _refuse(column: pd.Series, row: int) -> None:
    shown = repr(column.iloc[row])
    raise ManifestError(f"row {row}: {column.name} is {shown[:80]}; it must be {RULE}, or empty")


def clean_segments(value: Any) -> Segments:
    """One cell, from metadata. Raises ManifestError when it is neither empty nor a list of segments."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return ()
    try:
        # Metadata brings a million of these one by one: plain numbers need no array.
        if all(len(p) == 2 and type(p[0]) is type(p[1]) is float and 0 <= p[0] < p[1] < math.inf for p in value):
            return tuple((p[0], p[1]) for p in value)
        return _from_lists([value])[0]
    except (*BAD, KeyError) as error:
        raise ManifestError(f"{repr(value)[:80]} must be {RULE}") from error
