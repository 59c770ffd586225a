"""The jobs of a server, in one SQLite file that survives it. Every change of state is one transaction.

    queued ──► running ──► done | failed
       │          │
       └──────────┴──────► cancelled

Whoever changes a job's state says from which one. So of two that end a job (a worker that is done, a user who cancels)
the first one wins, and the other is told.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avdetect.errors import ServerError
from avdetect.jobs.store import Kind, Store

Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
TRIES = 2  # of a job whose server is killed while it scores

KIND = Kind(
    name="list of jobs",
    code=0x41564A53,  # "AVJS"
    version=2,
    tables="""
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL, size INTEGER NOT NULL,
    start_seconds REAL NOT NULL, duration_seconds REAL,
    status TEXT NOT NULL DEFAULT 'queued',
    created REAL NOT NULL, began REAL, ended REAL,
    cut_off INTEGER NOT NULL DEFAULT 0,
    summary TEXT, error TEXT, message TEXT
);
CREATE INDEX by_status ON jobs (status, number)""",
    advice="name another --data",
)


@dataclass(frozen=True)
class Job:
    """One uploaded file and what became of it. Times are Unix seconds."""

    number: int  # in the order of arrival
    id: str
    name: str  # the client's, for showing; never a path
    size: int  # bytes
    start_seconds: float  # the window that is scored
    duration_seconds: float | None
    status: Status
    created: float
    began: float | None
    ended: float | None
    cut_off: int  # servers that were killed while they scored it
    summary: Mapping[str, Any] | None  # of the verdict, when done
    error: str | None  # class of the error, when failed
    message: str | None


class JobStore(Store):
    """The table of jobs in the file at `path`. To be used from any thread. Raises ServerError, ConfigError."""

    def __init__(self, path: Path) -> None:
        # Durable: what is accepted survives a power cut.
        super().__init__(path, KIND, durable=True, shared=True, error=ServerError)

    def add(
        self, id: str, name: str, size: int, start_seconds: float, duration_seconds: float | None, most_queued: int
    ) -> bool:
        """Queue a job; False where so many wait already."""
        values = (id, name, size, start_seconds, duration_seconds, time.time(), most_queued)
        return self.change(
            "INSERT INTO jobs (id, name, size, start_seconds, duration_seconds, created) SELECT ?, ?, ?, ?, ?, ? "
            "WHERE (SELECT count(*) FROM jobs WHERE status = 'queued') < ?",
            *values,
        )

    def claim(self) -> Job | None:
        """The oldest job that waits, which runs from now on."""
        rows = self._jobs(
            "UPDATE jobs SET status = 'running', began = ? WHERE number = "
            "(SELECT number FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1) RETURNING *",
            time.time(),
        )
        return rows[0] if rows else None

    def finish(self, id: str, summary: Mapping[str, Any]) -> bool:
        """running -> done."""
        return self.change(
            "UPDATE jobs SET status = 'done', ended = ?, summary = ? WHERE id = ? AND status = 'running'",
            *(time.time(), json.dumps(summary), id),
        )

    def fail(self, id: str, error: str, message: str) -> bool:
        """running -> failed."""
        return self.change(
            "UPDATE jobs SET status = 'failed', ended = ?, error = ?, message = ? WHERE id = ? AND status = 'running'",
            *(time.time(), error, message, id),
        )

    def cancel(self, id: str) -> bool:
        """queued or running -> cancelled."""
        return self.change(
            "UPDATE jobs SET status = 'cancelled', ended = ? WHERE id = ? AND status IN ('queued', 'running')",
            *(time.time(), id),
        )

    def put_back(self, id: str) -> bool:
        """running -> queued, in its old place: no process works on it any more, which is not its fault."""
        return self.change("UPDATE jobs SET status = 'queued', began = NULL WHERE id = ? AND status = 'running'", id)

    def delete(self, id: str) -> bool:
        """Forget a job, whatever its state."""
        return self.change("DELETE FROM jobs WHERE id = ?", id)

    def recover(self) -> None:
        """At the start: what still runs was cut off. It is queued again; the second time it has failed."""
        message = f"the server was ended {'twice' if TRIES == 2 else f'{TRIES} times'} while it scored this file"
        with self.transaction() as db:
            db.execute(
                "UPDATE jobs SET status = 'queued', began = NULL, cut_off = cut_off + 1 WHERE status = 'running'"
            )
            db.execute(
                "UPDATE jobs SET status = 'failed', ended = ?, error = 'WorkerError', message = ? "
                "WHERE status = 'queued' AND cut_off >= ?",
                (time.time(), message, TRIES),
            )

    def get(self, id: str) -> Job | None:
        """The job, or None."""
        rows = self._jobs("SELECT * FROM jobs WHERE id = ?", id)
        return rows[0] if rows else None

    def page(self, limit: int, before: int | None = None) -> list[Job]:
        """At most `limit` jobs, newest first, older than the one with number `before`."""
        return self._jobs(
            "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
            *(2**63 - 1 if before is None else before, limit),
        )

    def ended_before(self, moment: float) -> list[Job]:
        """Jobs that ended earlier."""
        return self._jobs("SELECT * FROM jobs WHERE ended < ?", moment)

    def ids(self) -> dict[str, Status]:
        """Every job that is known."""
        return {job.id: job.status for job in self._jobs("SELECT * FROM jobs")}

    def waiting(self) -> set[str]:
        """Jobs that are queued."""
        return {row["id"] for row in self.rows("SELECT id FROM jobs WHERE status = 'queued'")}

    def count(self, status: Status) -> int:
        """Jobs in that state."""
        return int(self.rows("SELECT count(*) FROM jobs WHERE status = ?", status)[0][0])

    def position(self, job: Job) -> int:
        """How many jobs wait before it."""
        return int(self.rows("SELECT count(*) FROM jobs WHERE status = 'queued' AND number < ?", job.number)[0][0])

    def _jobs(self, statement: str, *values: Any) -> list[Job]:
        return [_job(row) for row in self.rows(statement, *values)]


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    summary = values.pop("summary")
    return Job(**values, summary=json.loads(summary) if summary else None)
