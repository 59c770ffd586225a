"""Detections for programs: JSON and CSV. The JSON's schema is `detection.schema.json` beside this file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avdetect.types import Detection

SCHEMA = "avdetect.results/1"  # the number changes when a field is removed or changes its meaning
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
    "path", "status", "verdict", "fake", "video_fake", "audio_fake", "sync_offset_seconds", "sync_confidence",
    "duration_seconds", "missing", "warnings", "reason", "error",
)  # fmt: skip


def to_row(result: Result) -> dict[str, Any]:
    """One CSV row; what is unknown is None."""
    path = printable(result.path)
    if isinstance(result, Failure):
        return dict.fromkeys(CSV_COLUMNS) | {
            "path": path, "status": "failed", "reason": printable(result.message), "error": result.error,
        }  # fmt: skip
    return dict.fromkeys(CSV_COLUMNS) | {
        "path": path,
        "status": "scored",
        "verdict": result.verdict,
        "fake": result.fake,
        "video_fake": result.video_fake,
        "audio_fake": result.audio_fake,
        "sync_offset_seconds": result.sync.offset_seconds if result.sync else None,
        "sync_confidence": result.sync.confidence if result.sync else None,
        "duration_seconds": result.duration_seconds,
        "missing": "; ".join(f"{stream}: {why}" for stream, why in result.missing.items()),
        "warnings": printable("; ".join(result.warnings)),
        "reason": result.reason,
    }


def to_csv(results: Sequence[Result]) -> str:
    """A header and one row a file, in order."""
    import pandas as pd

    table = pd.DataFrame([to_row(r) for r in results], columns=list(CSV_COLUMNS))
    return table.to_csv(index=False, float_format="%.4f")
