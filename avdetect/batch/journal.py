"""Every result as it comes, one line of JSON each, in a file beside the table: what a run that was killed goes on from.

    {"journal": "avdetect.journal/1", "identity": {…}}            what all of it was scored with
    {"path": …, "size": …, "mtime_ns": …, "result": {…}}          the file as it was, and `report.data.to_dict`

A line reaches the kernel before the next file is handed out, so that a kill loses none; the disk is told every few
lines or seconds, so that a power cut loses no more than those. The last line may be torn. Later lines win.

What it says is believed, so a run is resumed only from a file of our own that nobody else can write.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from avdetect.batch.engine import Outcome
from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import follow_no_link, others_share
from avdetect.report.data import is_result

FORMAT = "avdetect.journal/1"
_SYNC_LINES, _SYNC_SECONDS = 32, 2.0


class _Entry(NamedTuple):
    offset: int
    length: int
    size: int | None
    mtime_ns: int | None


class Journal:
    """The results of one identity. A context manager: leaving it writes all to the disk.

    path: the file; None keeps it nameless, for this run only. Raises ConfigError when it was written with another
    identity, by another run that still goes on, or is no journal at all; AVDetectError when it cannot be written.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], *, retry_failed: bool = False) -> None:
        if path is not None and path.is_symlink():
            raise ConfigError(f"{path} is a link, which others may have put there: name another --out, or delete it")
        self.path = path
        self._identity = json.loads(json.dumps(identity))
        self._retry_failed = retry_failed
        self._entries: dict[str, _Entry] = {}
        self._unsynced, self._synced = 0, time.monotonic()
        try:
            if path is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by __exit__
            else:
                self._file = open(path, "a+b", buffering=0, opener=follow_no_link)  # noqa: SIM115
        except OSError as error:
            raise AVDetectError(f"cannot write {path or 'a temporary file'}: {error.strerror}") from error
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def paths(self) -> list[str]:
        """The files that it has a result of."""
        return list(self._entries)

    def holds(self, path: str, size: int | None, mtime_ns: int | None) -> bool:
        """Whether it has a result of the file as it is now."""
        entry = self._entries.get(path)
        return entry is not None and (entry.size, entry.mtime_ns) == (size, mtime_ns)

    def read(self, path: str) -> dict[str, Any]:
        """The latest result of `path`."""
        entry = self._entries[path]
        line = os.pread(self._file.fileno(), entry.length, entry.offset)
        return dict(json.loads(line)["result"])

    def add(self, outcome: Outcome) -> None:
        """Keep a result. Raises AVDetectError (a full disk)."""
        item = outcome.item
        line = {"path": item.path, "size": item.size, "mtime_ns": item.mtime_ns, "result": outcome.result}
        offset, length = self._write(line)
        self._entries[item.path] = _Entry(offset, length, item.size, item.mtime_ns)
        self._unsynced += 1
        if self._unsynced >= _SYNC_LINES:
            self.sync()

    def sync(self, after_seconds: float = 0.0) -> None:
        """Have the disk keep what there is, if that was last done so long ago."""
        if self.path is None or not self._unsynced or time.monotonic() - self._synced < after_seconds:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._trouble(error) from error
        self._unsynced, self._synced = 0, time.monotonic()

    def breathe(self) -> None:
        """To be called now and then: tells the disk when it is time to."""
        self.sync(_SYNC_SECONDS)

    def _write(self, values: Mapping[str, Any]) -> tuple[int, int]:
        """(offset, length) of the line."""
        data = json.dumps(values).encode() + b"\n"
        try:
            offset, left = self._file.seek(0, os.SEEK_END), memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._trouble(error) from error
        return offset, len(data)

    def _trouble(self, error: OSError) -> AVDetectError:
        return AVDetectError(
            f"cannot write {self.path or 'a temporary file'}: {error.strerror}; what is scored is kept, run again"
        )

    def _begin(self) -> None:
        """Read what is there, drop a torn end, or begin anew."""
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{self.path} is no regular file: name another --out")
        if status.st_size and (why := others_share(status)):
            raise ConfigError(
                f"{self.path} {why}, so its results may not be ours: name another --out, or delete it and the table to "
                "score everything anew"
            )
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{self.path} is being written by another run: wait for it, or stop it") from error
        header = {"journal": FORMAT, "identity": self._identity}
        self._file.seek(0)
        end = self._read(json.dumps(header).encode() + b"\n")
        self._file.truncate(end)
        if not end:
            self._write(header)
            self.sync()

    def _read(self, header: bytes) -> int:
        """Take in every whole line; the number of bytes they are."""
        end, number = 0, 0
        with open(os.dup(self._file.fileno()), "rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line != header and not (header.startswith(line) and line[-1:] != b"\n"):
                    self._check_header(line)
                if line[-1:] != b"\n":
                    break  # torn
                if number > 1:
                    self._take(line, number, end)
                end += len(line)
        return end

    def _check_header(self, line: bytes) -> None:
        """Raises ConfigError unless it says what this run says, in whatever order."""
        try:
            values = json.loads(line)
            is_journal = values["journal"] == FORMAT and isinstance(values["identity"], dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            is_journal = False
        if not is_journal:
            raise ConfigError(f"{self.path} is no journal of this avdetect: name another --out, or delete it")
        found, now = values["identity"], self._identity
        differing = [key for key in {**found, **now} if found.get(key) != now.get(key)]
        if differing:
            said = "; ".join(f"{key}: {found.get(key)} there, {now.get(key)} now" for key in differing)
            raise ConfigError(
                f"{self.path} holds results that were scored otherwise ({said}). Run with those options again, name "
                "another --out, or delete the journal and the table to score everything anew"
            )

    def _take(self, line: bytes, number: int, offset: int) -> None:
        try:
            values = json.loads(line)
            path, size, mtime_ns = values["path"], values["size"], values["mtime_ns"]
            failed = {"scored": False, "failed": True}[values["result"]["status"]]
            names = path, values["result"]["path"]
            if not all(isinstance(name, str) for name in names) or not is_result(values["result"]):
                raise ValueError("not what a table can take")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{self.path}, line {number}: it is damaged; delete the journal and the table to score everything anew"
            ) from error
        if failed and self._retry_failed:
            self._entries.pop(path, None)
        else:
            self._entries[path] = _Entry(offset, len(line), size, mtime_ns)
