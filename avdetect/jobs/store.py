"""Rows that survive a kill: one SQLite file in WAL mode, bound to what its rows were made with.

A row that is committed is kept by the kernel, whatever ends this process. The disk is told at every commit (`durable`),
or every few seconds by `sync_if_due`: a power cut then costs the rows of these seconds, and no others.

What the file says is believed. So it, and the files that SQLite keeps beside it, must be regular files of our own that
nobody else can write.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import check_same, not_ours

_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite may write
_SYNC_SECONDS = 2.0


@dataclass(frozen=True)
class Kind:
    """What a file holds. Another program's file, or another kind or version of ours, is refused and left as it is."""

    name: str  # in messages: "journal"
    code: int  # SQLite's application id
    version: int
    tables: str  # SQL
    advice: str  # what to do about a file that cannot be used: "name another --out, or delete it"


class Store:
    """The file at `path`; None: a nameless one that ends with this process. From any thread. A context manager.

    identity: what all rows depend on (JSON); a file of another one is refused. durable: a commit survives a power cut.
    shared: other processes may read it meanwhile; else a second one is refused. `error` is raised where it cannot be
    read or written (a full disk), ConfigError for a file that is not ours, or that another run is writing.
    """

    def __init__(
        self,
        path: Path | None,
        kind: Kind,
        identity: Mapping[str, Any] | None = None,
        *,
        durable: bool = False,
        shared: bool = False,
        error: type[AVDetectError] = AVDetectError,
    ) -> None:
        self.path, self._kind, self._error = path, kind, error
        self._lock = threading.Lock()
        self._dirty, self._synced = False, time.monotonic()
        if path is not None:
            self._make_file(path)
        with self._explained("open"):
            self._db = self._reads = _connect(path, shared)
        self._reads_lock = self._lock
        try:
            with self._explained("open"):
                self._begin(json.loads(json.dumps(identity or {})), durable, shared)
                if shared:  # a write may wait for another process, and no read for that
                    self._reads, self._reads_lock = _connect(path, shared), threading.Lock()
                    self._reads.execute("PRAGMA query_only = ON")
            if path is not None:
                self._check_ours(path)  # now that SQLite has opened all that it reads
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No call may follow."""
        with self._reads_lock:
            self._reads.close()
        with self._lock:
            self._db.close()

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """What one statement that reads gives. In a shared file it waits for nobody who writes."""
        with self._reads_lock, self._explained("read"):
            return self._reads.execute(statement, values).fetchall()

    def change(self, statement: str, *values: Any) -> bool:
        """One statement, committed; whether it changed a row."""
        with self.transaction() as db:
            return db.execute(statement, values).rowcount > 0

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Several statements: all of them happen, or none."""
        with self._lock, self._explained("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
                self._dirty = True
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def sync(self) -> None:
        """Have the disk keep all rows, and nothing of rows that were deleted."""
        with self._lock, self._explained("write"):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._dirty, self._synced = False, time.monotonic()

    def sync_if_due(self) -> None:
        """To be called now and then: syncs where that is long ago, and the rows are not for this process alone."""
        if self.path is not None and self._dirty and time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def _make_file(self, path: Path) -> None:
        try:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._error(f"cannot write {path}: {error.strerror}; {self._kind.advice}") from error
        self._check_ours(path)

    def _check_ours(self, path: Path) -> None:
        for file in (path.with_name(path.name + suffix) for suffix in _BESIDE):
            with suppress(FileNotFoundError):
                if why := not_ours(file) or ("" if file.is_file() else "is no regular file"):
                    raise ConfigError(f"{file} {why}, so its rows may not be ours: {self._kind.advice}")

    def _begin(self, identity: dict[str, Any], durable: bool, shared: bool) -> None:
        db, kind = self._db, self._kind
        if not shared:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # needs no shared memory, which network storage lacks
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if (tables or owner) and (owner, version) != (kind.code, kind.version):
            whose = "another version of avdetect" if owner == kind.code else "another program"
            raise ConfigError(f"{self.path} is no {kind.name} of this avdetect, but of {whose}: {kind.advice}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute("PRAGMA secure_delete = ON")  # names of what was deleted do not stay on the disk
        if not tables:
            db.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {kind.code}; PRAGMA user_version = {kind.version};"
                f"CREATE TABLE identity (json TEXT NOT NULL); {kind.tables}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
            )
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT count(*) FROM identity").fetchone()[0] == 0:
            db.execute("INSERT INTO identity VALUES (?)", (json.dumps(identity),))
        (stated,) = db.execute("SELECT json FROM identity").fetchone()
        db.execute("COMMIT")
        check_same(f"{self.path}", json.loads(stated), identity, kind.advice)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            name, file = getattr(error, "sqlite_errorname", ""), self.path or "a temporary file"
            if name.startswith("SQLITE_BUSY") and what == "open":
                raise ConfigError(f"{file} is being written by another run: wait for it, or stop it") from error
            if name.startswith("SQLITE_NOTADB"):
                raise ConfigError(f"{file} is no {self._kind.name} of this avdetect: {self._kind.advice}") from error
            raise self._error(f"cannot {what} {file}: {error}; what is done is kept, run again") from error


def _connect(path: Path | None, shared: bool) -> sqlite3.Connection:
    made = sqlite3.connect(path or "", 5 if shared else 0, check_same_thread=False, isolation_level=None)
    made.row_factory = sqlite3.Row
    return made
