"""Scoring in processes of this machine. A process that dies costs its one file a second try, and nothing else."""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.worker import FATAL, READY, fatal_error, work
from avdetect.errors import AVDetectError, ConfigError, LimitError, WorkerError
from avdetect.report.data import Failure, printable, to_dict

if TYPE_CHECKING:
    from avdetect.batch.options import Scorer

TRIES = 2  # of a file whose process dies
_START_DEATHS = 3  # of processes in a row before they were ready: that is the machine, not the files
_START_SECONDS = 300.0  # for a process to load its networks
_TICK_SECONDS, _SHORT_TICK_SECONDS = 0.5, 0.05  # the short one while the next item is awaited
_MAX_MESSAGE_BYTES = 256 * 1024**2
_END: Any = object()


class _Worker:
    """One process, and the item it was given."""

    def __init__(self, begin: Callable[[], Scorer]) -> None:
        context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, begin), daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the parent's affair
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the connection ends when the process does
        self.ready = False
        self.item: WorkItem | None = None
        self.deadline = time.monotonic() + _START_SECONDS

    def give(self, item: WorkItem, seconds: float) -> None:
        """Have `item` scored in at most so many wall seconds, counted from when the process is ready."""
        self.item = item
        if self.ready:
            self.deadline = time.monotonic() + seconds
        with suppress(OSError):  # it has died; its end will be heard
            self.connection.send_bytes(json.dumps(item.path).encode())

    def hear(self) -> dict[str, Any] | None:
        """The next message; None where the process has ended, or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(_MAX_MESSAGE_BYTES))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def kill(self) -> int | None:
        """End the process and the ffmpeg that it may be running; its exit code."""
        pid = self.process.pid
        if pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # so that it starts no other child meanwhile
            for child in _children(pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.connection.close()
        return code


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for name in glob.glob(f"/proc/{pid}/task/*/children"):
        with suppress(OSError), open(name, encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


class ProcessEngine:
    """At most `workers` processes, each with a scorer of its own, made by `begin` (picklable).

    wall_seconds: for one file; a process that takes longer is ended, and the file a LimitError.
    """

    def __init__(self, begin: Callable[[], Scorer], workers: int, wall_seconds: float) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self._begin, self._count, self._wall = begin, workers, wall_seconds
        self._workers: list[_Worker] = []
        self._again: deque[WorkItem] = deque()  # items whose process died
        self._deaths: dict[str, int] = {}  # path -> processes that died of it
        self._start_deaths = 0

    def run(self, items: Iterable[WorkItem | None]) -> Generator[Outcome | None]:
        """See `engine.Engine`. To be read by one thread, which must live as long as the run."""
        source = iter(items)
        try:
            while True:
                drawn = self._fill(source)
                if drawn is _END and not self._again and not any(worker.item for worker in self._workers):
                    return
                yield from self._hear(_SHORT_TICK_SECONDS if drawn is None else _TICK_SECONDS)
        finally:
            while self._workers:
                self._workers.pop().kill()

    def _fill(self, source: Iterator[WorkItem | None]) -> Any:
        """Give work to whoever has none. _END at the end of the source, None where it has nothing for the moment."""
        item: Any = True
        while item is not None and item is not _END:
            worker = next((w for w in self._workers if w.item is None), None)
            if worker is None and len(self._workers) == self._count:
                return True
            item = self._again.popleft() if self._again else next(source, _END)
            if item is None or item is _END:
                return item
            if worker is None:
                worker = self._hire()
            worker.give(item, self._wall)
        return item

    def _hire(self) -> _Worker:
        try:
            self._workers.append(_Worker(self._begin))
        except OSError as error:  # of descriptors, processes, memory there are no more
            raise AVDetectError(
                f"cannot start a scoring process: {error.strerror}; run again with fewer --workers, "
                "what is scored is kept"
            ) from error
        return self._workers[-1]

    def _hear(self, seconds: float) -> Iterator[Outcome | None]:
        """What the workers say within so many seconds."""
        by_connection = {worker.connection: worker for worker in self._workers}
        heard = wait(list(by_connection), seconds)
        for connection in heard:
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            message = worker.hear()
            if message is None:
                yield self._bury(worker)
            elif FATAL in message:
                raise fatal_error(message)
            elif READY in message:
                worker.ready, self._start_deaths = True, 0
                worker.deadline = time.monotonic() + self._wall
            elif worker.item is not None:
                item, worker.item = worker.item, None
                self._deaths.pop(item.path, None)
                yield Outcome(item, message)
        yield from self._end_the_late()
        yield None

    def _bury(self, worker: _Worker) -> Outcome | None:
        """A process has ended. The outcome of its item, if that is not tried again."""
        self._workers.remove(worker)
        code, item = worker.kill(), worker.item
        if not worker.ready:
            self._start_deaths += 1
            if self._start_deaths >= _START_DEATHS:
                raise AVDetectError(
                    f"scoring processes end before they are ready ({_ending(code)}; out of memory?): "
                    "run again with fewer --workers, what is scored is kept"
                )
        if item is None:
            return None
        if worker.ready:
            self._deaths[item.path] = self._deaths.get(item.path, 0) + 1
        if self._deaths.get(item.path, 0) < TRIES:
            self._again.append(item)
            return None
        del self._deaths[item.path]
        message = (
            f"the process that scored {printable(item.path)} was ended {TRIES} times, the last time by {_ending(code)}"
            " (out of memory?); --retry-failed tries again"
        )
        return Outcome(item, to_dict(Failure(item.path, WorkerError.__name__, message)))

    def _end_the_late(self) -> Iterator[Outcome | None]:
        now = time.monotonic()
        for worker in [w for w in self._workers if w.item is not None and now > w.deadline]:
            item = worker.item
            if not worker.ready:
                yield self._bury(worker)
                continue
            self._workers.remove(worker)
            worker.kill()
            assert item is not None
            self._deaths.pop(item.path, None)
            message = (
                f"scoring {printable(item.path)} took longer than {self._wall:g} s; raise max_file_seconds (--limits)"
            )
            yield Outcome(item, to_dict(Failure(item.path, LimitError.__name__, message)))


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
