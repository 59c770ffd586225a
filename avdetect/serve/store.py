"""The jobs of a server, in one SQLite file that survives it. Every change of state is one transaction.

    queued ──► running ──► done | failed
       │          │
       └──────────┴──────► cancelled

Whoever changes a job's state says from which one. So of two that end a job (a worker that is done, a user who cancels)
the first one wins, and the other is told.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avdetect.errors import ServerError
from avdetect.jobs.store import Kind, Store

Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")

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
        super().__init__(path, KIND, durable=True, shared=True, error=ServerError)

    def add(
        self, id: str, name: str, size: int, start_seconds: float, duration_seconds: float | None, most_queued: int
    ) -> bool:
        """Queue a job; False where so many wait already."""
        return self.change(
            "INSERT INTO jobs (id, name, size, start_seconds, duration_seconds, created) SELECT ?, ?, ?, ?, ?, ? "
            "WHERE (SELECT count(*) FROM jobs WHERE status = 'queued') < ?",
            *(id, name, size, start_seconds, duration_seconds, time.time(), most_queued),
        )

    def claim(self) -> Job | None:
        """The oldest job that waits, which runs from now on."""
        job = self._job("SELECT * FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1")
        if job and self._move(job.id, "queued", status="running", began=time.time()):
            return self.get(job.id)
        return None

    def finish(self, id: str, summary: Mapping[str, Any]) -> bool:
        """running -> done."""
        return self._move(id, "running", status="done", ended=time.time(), summary=json.dumps(summary))

    def fail(self, id: str, error: str, message: str) -> bool:
        """running -> failed."""
        return self._move(id, "running", status="failed", ended=time.time(), error=error, message=message)

    def cancel(self, id: str) -> bool:
        """queued or running -> cancelled."""
        return self._move(id, "queued", "running", status="cancelled", ended=time.time())

    def put_back(self, id: str) -> bool:
        """running -> queued, in its old place: no process works on it any more, which is not its fault."""
        return self._move(id, "running", status="queued", began=None)

    def _move(self, id: str, *states: Status, **values: Any) -> bool:
        """Change a job that is in one of the states; whether it was."""
        columns, marks = ", ".join(f"{name} = ?" for name in values), ", ".join("?" * len(states))
        statement = f"UPDATE jobs SET {columns} WHERE id = ? AND status IN ({marks})"
        return self.change(statement, *values.values(), id, *states)

    def delete(self, id: str) -> bool:
        """Forget a job, whatever its state."""
        return self.change("DELETE FROM jobs WHERE id = ?", id)

    def recover(self) -> None:
        """At the start: what still runs was cut off. It is queued again; the second time it has failed."""
        with self.transaction() as db:
            db.execute(
                "UPDATE jobs SET status = 'queued', began = NULL, cut_off = cut_off + 1 WHERE status = 'running'"
            )
            db.execute(
                "UPDATE jobs SET status = 'failed', ended = ?, error = 'WorkerError', "
                "message = 'the server was ended twice while it scored this file' "
                "WHERE status = 'queued' AND cut_off >= 2",
                (time.time(),),
            )

    def get(self, id: str) -> Job | None:
        return self._job("SELECT * FROM jobs WHERE id = ?", id)

    def page(self, limit: int, before: int | None = None) -> list[Job]:
        """At most `limit` jobs, newest first, older than the one with number `before`."""
        return self._jobs(
            "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
            *(2**63 - 1 if before is None else before, limit),
        )

    def ended_before(self, moment: float) -> list[Job]:
        return self._jobs("SELECT * FROM jobs WHERE ended < ?", moment)

    def states(self) -> dict[str, Status]:
        """Of every job that is known."""
        return {row["id"]: row["status"] for row in self.rows("SELECT id, status FROM jobs")}

    def waiting(self) -> set[str]:
        return {row["id"] for row in self.rows("SELECT id FROM jobs WHERE status = 'queued'")}

    def count(self, status: Status) -> int:
        return int(self.rows("SELECT count(*) FROM jobs WHERE status = ?", status)[0][0])

    def position(self, job: Job) -> int:
        """How many jobs wait before it."""
        return int(self.rows("SELECT count(*) FROM jobs WHERE status = 'queued' AND number < ?", job.number)[0][0])

    def _job(self, statement: str, *values: Any) -> Job | None:
        return next(iter(self._jobs(statement, *values)), None)

    def _jobs(self, statement: str, *values: Any) -> list[Job]:
        rows = map(dict, self.rows(statement, *values))
        return [Job(**row | {"summary": json.loads(row["summary"] or "null")}) for row in rows]
