"""Detections for programs: JSON and CSV. The JSON's schema is `detection.schema.json` beside this file."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from avdetect.types import Detection, Verdict

# The number changes when a field is removed or changes its meaning. 2: four verdicts, two thresholds, measured rates.
SCHEMA = "avdetect.results/2"
SCHEMA_FILE = Path(__file__).parent / "detection.schema.json"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A file that could not be scored."""

    path: str
    error: str  # class of the exception
    message: str


Result = Detection | Failure


def printable(name: str) -> str:
    """A name that cannot steer a terminal or break a line: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def to_dict(result: Result) -> dict[str, Any]:
    """The result as JSON-able values; `status` is "scored" or "failed"."""
    status = "failed" if isinstance(result, Failure) else "scored"
    return {"status": status, **dataclasses.asdict(result)}


def to_json(results: Sequence[Result]) -> str:
    """One document, whether one file was scored or many."""
    return json.dumps({"schema": SCHEMA, "results": [to_dict(r) for r in results]}, indent=2)


CSV_COLUMNS = (
    "path", "status", "verdict", "fake", "video_fake", "audio_fake", "mismatch", "sync_offset_seconds",
    "sync_confidence", "duration_seconds", "missing", "warnings", "reason", "error",
)  # fmt: skip


THRESHOLDS = ("undecided_threshold", "fake_threshold")  # of a result
CSV_NUMBERS = frozenset(
    ("fake", "video_fake", "audio_fake", "mismatch", "sync_offset_seconds", "sync_confidence", "duration_seconds")
)


def to_row(result: Result | Mapping[str, Any]) -> dict[str, Any]:
    """One CSV row of a result, or of what `to_dict` made of it; what is unknown is None. Every text is printable."""
    values = result if isinstance(result, Mapping) else to_dict(result)
    return {name: printable(cell) if isinstance(cell, str) else cell for name, cell in _cells(values).items()}


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(CSV_COLUMNS) | {"path": values["path"], "status": values["status"]}
    if values["status"] == "failed":
        return row | {"reason": values["message"], "error": values["error"]}
    sync = values["sync"]
    plain = ("verdict", "fake", "video_fake", "audio_fake", "mismatch", "duration_seconds")
    return row | {
        **{name: values[name] for name in plain},
        "sync_offset_seconds": sync["offset_seconds"] if sync else None,
        "sync_confidence": sync["confidence"] if sync else None,
        "missing": "; ".join(f"{stream}: {why}" for stream, why in values["missing"].items()),
        "warnings": "; ".join(values["warnings"]),
        "reason": values["reason"],
    }


def is_result(values: Mapping[str, Any]) -> bool:
    """Whether a result that was read from somewhere has numbers and text where tables want them. Raises what `to_row`
    does where it is nothing of the kind.
    """
    row, thresholds = to_row(values), [values.get(name) for name in THRESHOLDS]
    kinds = {name: (int, float) if name in CSV_NUMBERS else (str,) for name in CSV_COLUMNS}
    if row["verdict"] not in (*get_args(Verdict), None) or not all(
        isinstance(t, int | float | None) for t in thresholds
    ):
        return False
    return all(row[name] is None or isinstance(row[name], kind) for name, kind in kinds.items())


def csv_row(result: Result | Mapping[str, Any]) -> str:
    """The line of a result. A text that a spreadsheet would take for a formula begins with an apostrophe."""
    row = to_row(result).values()
    return csv_line(f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@")) else cell for cell in row)


def csv_line(cells: Iterable[Any]) -> str:
    """A line of CSV: None and NaN are empty, numbers have four decimals."""
    line = io.StringIO()
    texts = [f"{c:.4f}" if isinstance(c, float) and c == c else "" if c is None or c != c else c for c in cells]
    csv.writer(line, lineterminator="\n").writerow(texts)
    return line.getvalue()


def to_csv(results: Sequence[Result]) -> str:
    """A header and one row a file, in order."""
    return csv_line(CSV_COLUMNS) + "".join(map(csv_row, results))
