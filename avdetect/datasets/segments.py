"""Fake segments of a manifest: JSON text or lists in, tuples of (start_seconds, end_seconds) out, and back to text."""

import json
import math
from typing import Any

import msgspec
import pandas as pd

from avdetect.errors import ManifestError

Segments = tuple[tuple[float, float], ...]
RULE = "a list of [start_seconds, end_seconds] with 0 <= start < end"
_DECODER = msgspec.json.Decoder(Segments)


def clean_segments(cell: Any) -> Segments:
    """Segments of one cell: JSON text (`[[0.5, 1.5]]`), a list, a tuple, an array of pairs; () where it is empty or NA.
    Raises ManifestError."""
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return ()
    try:
        if isinstance(cell, str):
            found = _DECODER.decode(cell) if cell else ()
        else:
            found = msgspec.convert(msgspec.to_builtins(cell, enc_hook=lambda array: array.tolist()), Segments)
        if all(0 <= start < end < math.inf for start, end in found):
            return found
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise ManifestError(f"{repr(cell)[:80]} must be {RULE}, or empty")


def typed_segments(column: pd.Series) -> pd.Series:
    """The column with `clean_segments` of every cell. Raises ManifestError that names the first bad row."""
    cells = []
    for row, cell in enumerate(column):
        try:
            cells.append(clean_segments(cell))
        except ManifestError as error:
            raise ManifestError(f"row {row}: {column.name} is {error}") from error
    return pd.Series(cells, index=column.index, name=column.name, dtype=object)


def segments_text(column: pd.Series) -> pd.Series:
    """JSON text of a column of `typed_segments`; empty text where there is none."""
    texts = [json.dumps(cell) if cell else "" for cell in column]
    return pd.Series(texts, index=column.index, name=column.name, dtype=object).astype(str)
