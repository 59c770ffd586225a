"""Detections for programs: JSON and CSV. The JSON's schema is `detection.schema.json` beside this file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avdetect._csv import csv_line, defused
from avdetect.types import Detection

# The number changes when a field is removed or changes its meaning. 2: four verdicts, two thresholds, measured rates.
SCHEMA = "avdetect.results/2"
SCHEMA_FILE = Path(__file__).parent / "detection.schema.json"
CSV_COLUMNS = (
    "path", "status", "verdict", "fake", "video_fake", "audio_fake", "mismatch", "fake_threshold",
    "undecided_threshold", "sync_offset_seconds", "sync_confidence", "audio_track", "start_seconds", "duration_seconds",
    "windows", "missing", "warnings", "reason", "limit", "error",
)  # fmt: skip


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
    """One document of all results."""
    return json.dumps({"schema": SCHEMA, "results": [to_dict(r) for r in results]}, indent=2)


def to_row(result: Mapping[str, Any]) -> dict[str, Any]:
    """One CSV row of what `to_dict` made; what is unknown is None. Every text is printable."""
    row: dict[str, Any] = {name: result.get(name) for name in CSV_COLUMNS}
    if result["status"] == "failed":
        row["reason"] = result["message"]
    else:
        sync, media = result["sync"] or {}, result["media"] or {}
        row |= {
            "sync_offset_seconds": sync.get("offset_seconds"),
            "sync_confidence": sync.get("confidence"),
            "audio_track": media.get("audio"),
            "windows": "; ".join(f"{start:.1f}-{end:.1f}" for start, end in result["windows"]),
            "missing": "; ".join(f"{stream}: {why}" for stream, why in result["missing"].items()),
            "warnings": "; ".join(result["warnings"]),
        }
    return {name: printable(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def csv_row(result: Mapping[str, Any]) -> str:
    """Its line, `defused`."""
    return csv_line(map(defused, to_row(result).values()))
