"""From names through a pool of workers into the journal, and from there, in the order of the names, into the tables.

The journal is the buffer: of a result that came before its turn, memory holds no more than its name. A name that comes
twice is scored once and stands in the tables twice.
"""

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from avdetect.batch.journal import Journal, Signature
from avdetect.batch.sources import Source
from avdetect.batch.tables import Table
from avdetect.errors import LimitError
from avdetect.jobs.pool import BasePool, Done, Failed, Item
from avdetect.report.data import Failure, printable, to_dict
from avdetect.types import Verdict


@dataclass
class Summary:
    """What a run did, or has done so far."""

    total: int | None  # rows that there will be, where that is known
    rows: int = 0  # names read
    waiting: int = 0  # of them, those that are being scored
    written: int = 0  # rows in the tables
    scored_now: int = 0  # files, failed ones too
    from_journal: int = 0  # files
    verdicts: Counter[str] = field(default_factory=Counter)  # of the rows written
    failed: Counter[str] = field(default_factory=Counter)  # error -> of the rows written
    began: float = field(default_factory=time.monotonic)
    interrupted: bool = False

    @property
    def abstained(self) -> int:
        return self.verdicts["abstain"]

    @property
    def files_per_second(self) -> float:
        """Of those that were scored now, the start of the workers included."""
        return self.scored_now / max(time.monotonic() - self.began, 1e-9)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {error}" for error, count in sorted(self.failed.items()))
        failed = f", {self.failed.total()} failed ({kinds})" if self.failed else ""
        kept = f"; {self.from_journal} were scored before" if self.from_journal else ""
        pace = f", {self.files_per_second:.2f} files/s" if self.scored_now else ""
        files = f"{self.written} file{'' if self.written == 1 else 's'}"
        found = ", ".join(f"{self.verdicts[name]} {name}" for name in get_args(Verdict) if self.verdicts[name])
        verdicts = f" ({found})" if found else ""
        return f"{files}: {self.verdicts.total()} scored{verdicts}{failed}{kept}{pace}"


class Run:
    """One run over `source`. `watch` is told of the summary whenever something or nothing happens."""

    def __init__(
        self,
        source: Source,
        pool: BasePool[Any],  # its items are names of files, its answers `report.data.to_dict`
        journal: Journal,
        tables: Sequence[Table],
        watch: Callable[[Summary], None] = lambda summary: None,
    ) -> None:
        self._source, self._pool, self._journal, self._tables = source, pool, journal, tables
        self._watch = watch
        self._rows: deque[str] = deque()  # names whose row has not been written
        self._running: dict[str, Signature] = {}  # how the files looked when they were submitted
        self._finished: set[str] = set()  # names whose result the journal holds, for the file as it is now
        self._stop: Callable[[], bool] = lambda: False
        self.summary = Summary(source.total)

    def __call__(self) -> Summary:
        """Score what the journal does not hold, and write every row. Raises AVDetectError where no file is to blame.
        Ctrl-C ends it early: the rows that are known are written, in order, and `interrupted` is set."""
        with interrupts() as self._stop, closing(self._pool.run(self._items())) as events:
            for event in events:
                if isinstance(event, Done):
                    self._keep(event.item.key, event.answer)
                elif isinstance(event, Failed):
                    self._keep(event.item.key, to_dict(_failure(event)))
                self._journal.sync_if_due()
                self._watch(self.summary)
                if self._stop():
                    break
            # Also where it was pressed while the workers started: no names were given to them then.
            self.summary.interrupted = self._stop()
        for path in self._rows:
            if path in self._finished:
                self._write(path)
        return self.summary

    @property
    def names(self) -> set[str]:
        """The names read so far."""
        return self._finished | self._running.keys()

    def _items(self) -> Iterator[Item | None]:
        for path in self._source.open():
            if self._stop():
                return
            if path is None:
                yield None
                continue
            self._rows.append(path)
            self.summary.rows += 1
            if path not in self._finished and path not in self._running:
                now = signature(path)
                if not self._journal.holds(path, now):
                    self._running[path] = now
                    self.summary.waiting += 1
                    yield Item(path, path)
                    continue
                self._finished.add(path)
                self.summary.from_journal += 1
            self._drain()

    def _keep(self, path: str, result: dict[str, Any]) -> None:
        self._journal.add(path, self._running.pop(path), result)
        self._finished.add(path)
        self.summary.scored_now += 1
        self.summary.waiting -= 1
        self._drain()

    def _drain(self) -> None:
        while self._rows and self._rows[0] in self._finished:
            self._write(self._rows.popleft())

    def _write(self, path: str) -> None:
        result = self._journal.read(path)
        if result["status"] == "failed":
            self.summary.failed[result["error"]] += 1
        else:
            self.summary.verdicts[result["verdict"]] += 1
        self.summary.written += 1
        for table in self._tables:
            table.add(result)


def _failure(failed: Failed) -> Failure:
    late = failed.error == LimitError.__name__
    what_next = "raise max_file_seconds (--limits)" if late else "--retry-failed tries again"
    path = failed.item.key
    return Failure(path, failed.error, f"{printable(path)} could not be scored: {failed.reason}; {what_next}")


def signature(path: str) -> Signature:
    """Of a file, by which a change is told."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, None
    return status.st_size, status.st_mtime_ns


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed, so that no line and no row is torn by it. The second press is an exception as
    ever. Where somebody else handles it, or in another thread, nothing is changed.
    """
    pressed = threading.Event()

    def press(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed.is_set
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
