"""Every result as it comes, in a file beside the table: what a run that was killed resumes from.

A result reaches the kernel before the next file is submitted, so that a kill loses none; the disk is told every few
seconds. One row a file, with its size and time of change as they were: a file that has changed is scored again.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from avdetect.errors import ConfigError
from avdetect.jobs.store import Kind, Store
from avdetect.report.data import Failure
from avdetect.types import Detection

Signature = tuple[int | None, int | None]  # bytes and time of the last change in ns; None: it could not be asked
KIND = Kind(
    name="journal",
    code=0x4156424A,  # "AVBJ"
    version=1,
    # Names are JSON texts: those of files need not be Unicode, SQLite's texts must.
    tables="CREATE TABLE results (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, status TEXT, result TEXT)",
    advice="name another --out, or delete it and the table to score everything anew",
)
_RESULTS = {"scored": Detection, "failed": Failure}  # by status


class Journal(Store):
    """The results of one identity. A context manager: leaving it writes all to the disk.

    path: the file; None keeps it nameless, for this run only. retry_failed: what failed in an earlier run does not
    count. Raises ConfigError when it was written with another identity, by another run that is not over, or is no
    journal at all; AVDetectError when it cannot be written.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], *, retry_failed: bool = False) -> None:
        super().__init__(path, KIND, identity)
        self._retry_failed = retry_failed

    def __exit__(self, *_: object) -> None:
        with closing(self):
            if self.path is not None:
                self.sync()

    @property
    def paths(self) -> list[str]:
        """The files that it has a result of."""
        return [json.loads(row["path"]) for row in self.rows("SELECT path FROM results ORDER BY rowid")]

    def holds(self, path: str, signature: Signature) -> bool:
        """Whether it has a result of the file as it is now."""
        found = self.rows(
            "SELECT 1 FROM results WHERE path = ? AND size IS ? AND mtime_ns IS ? AND (status = 'scored' OR NOT ?)",
            *(json.dumps(path), *signature, self._retry_failed),
        )
        return bool(found)

    def read(self, path: str) -> dict[str, Any]:
        """The latest result of `path`. Raises ConfigError where it is damaged."""
        (row,) = self.rows("SELECT result FROM results WHERE path = ?", json.dumps(path))
        try:
            result = json.loads(row["result"])  # not by msgspec, which refuses names that are no Unicode
            msgspec.convert(result, _RESULTS[result["status"]])
            return dict(result)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{self.path} is damaged: {KIND.advice}") from error

    def add(self, path: str, signature: Signature, result: Mapping[str, Any]) -> None:
        """Keep a result (`report.data.to_dict`). Raises AVDetectError (a full disk)."""
        self.change(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)",
            *(json.dumps(path), *signature, result["status"], json.dumps(result)),
        )
