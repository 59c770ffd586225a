"""What all engines do alike: hand items to workers, hear them, and bury those that die or take too long.

An engine adds how a worker is started, heard and ended: `Worker`, `Crew._start` and `Crew._listen`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.worker import FATAL, READY, Message, fatal_error
from avdetect.errors import AVDetectError, ConfigError, LimitError, WorkerError
from avdetect.report.data import Failure, printable, to_dict

TRIES = 2  # of a file whose worker dies
START_SECONDS = 300.0  # for a worker to load its networks
_START_DEATHS = 3  # of workers in a row before they were ready: that is the machine, not the files
_TICK_SECONDS, _SHORT_TICK_SECONDS = 0.5, 0.05  # the short one while the next item is awaited
_END: Any = object()


class Worker(ABC):
    """Somebody who scores one file at a time, once it has said that it is ready."""

    def __init__(self) -> None:
        self.ready = False
        self.item: WorkItem | None = None  # what it scores now
        self.deadline = time.monotonic() + START_SECONDS  # for what it does now

    @abstractmethod
    def give(self, path: str) -> None:
        """Have the file scored. That the worker has died is heard later."""

    @abstractmethod
    def kill(self) -> str:
        """End it and what it has started; what had ended it before, in words."""


W = TypeVar("W", bound=Worker)


class Crew(ABC, Generic[W]):
    """An `engine.Engine` of at most `workers` workers.

    wall_seconds: for one file; a worker that takes longer is ended, and the file a LimitError.
    """

    def __init__(self, workers: int, wall_seconds: float) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self._count, self._wall = workers, wall_seconds
        self._workers: list[W] = []
        self._waiting: deque[WorkItem] = deque()  # drawn, or drawn again since the worker died; nobody has them yet
        self._deaths: dict[str, int] = {}  # path -> workers that died of it
        self._start_deaths = 0

    @abstractmethod
    def _start(self) -> W:
        """A new worker, which will say that it is ready."""

    @abstractmethod
    def _listen(self, seconds: float) -> Iterator[tuple[W, Message | None]]:
        """What workers say within so many seconds: None where one has ended."""

    def run(self, items: Iterable[WorkItem | None]) -> Generator[Outcome | None]:
        """See `engine.Engine`. To be read by one thread, which must live as long as the run."""
        source = iter(items)
        try:
            while True:
                drawn = self._fill(source)
                if drawn is _END and not self._waiting and not self._busy:
                    return
                yield from self._hear(_SHORT_TICK_SECONDS if drawn is None else _TICK_SECONDS)
        finally:
            while self._workers:
                self._workers.pop().kill()

    @property
    def _busy(self) -> int:
        return sum(worker.item is not None for worker in self._workers)

    def _fill(self, source: Iterator[WorkItem | None]) -> Any:
        """Give work to whoever is idle. _END at the end of the source, None where it has nothing for the moment."""
        drawn: Any = True
        while True:
            self._hand_out()
            if drawn is None or drawn is _END or len(self._waiting) + self._busy >= self._count:
                return drawn
            drawn = next(source, _END)
            if drawn is not None and drawn is not _END:
                self._waiting.append(drawn)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.item is None:
                worker.item = self._waiting.popleft()
                worker.deadline = time.monotonic() + self._wall
                worker.give(worker.item.path)
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._count - len(self._workers))):
            self._workers.append(self._start())

    def _hear(self, seconds: float) -> Iterator[Outcome | None]:
        """What the workers say within so many seconds."""
        for worker, message in self._listen(seconds):
            if message is None:
                yield self._bury(worker)
            elif FATAL in message:
                raise fatal_error(message)
            elif READY in message:
                worker.ready, self._start_deaths = True, 0
            elif worker.item is not None:
                item, worker.item = worker.item, None
                self._deaths.pop(item.path, None)
                yield Outcome(item, message)
        now = time.monotonic()
        for worker in [w for w in self._workers if now > w.deadline]:
            if not worker.ready:
                self._late_start(worker)
            elif worker.item is not None:
                yield self._end_the_late(worker, worker.item)
        yield None

    def _bury(self, worker: W, cause: str = "") -> Outcome | None:
        """A worker has ended, or is ended for that cause. The outcome of its item, if that is not tried again."""
        self._workers.remove(worker)
        ending, item = worker.kill(), worker.item
        ending = cause or ending  # else it would be that we have killed it
        if not worker.ready:
            self._start_deaths += 1
            if self._start_deaths >= _START_DEATHS:
                raise AVDetectError(
                    f"workers end before they are ready ({ending}; out of memory?): "
                    "run again with fewer --workers, what is scored is kept"
                )
        if item is None:
            return None
        self._deaths[item.path] = self._deaths.get(item.path, 0) + 1
        if self._deaths[item.path] < TRIES:
            self._waiting.append(item)
            return None
        del self._deaths[item.path]
        message = (
            f"the process that scored {printable(item.path)} was ended {TRIES} times, the last time by {ending}"
            " (out of memory?); --retry-failed tries again"
        )
        return Outcome(item, to_dict(Failure(item.path, WorkerError.__name__, message)))

    def _late_start(self, worker: W) -> None:
        """A worker is not ready in time."""
        self._bury(worker, f"not ready within {START_SECONDS:g} s")

    def _end_the_late(self, worker: W, item: WorkItem) -> Outcome:
        self._workers.remove(worker)
        worker.kill()
        self._deaths.pop(item.path, None)
        message = f"scoring {printable(item.path)} took longer than {self._wall:g} s; raise max_file_seconds (--limits)"
        return Outcome(item, to_dict(Failure(item.path, LimitError.__name__, message)))
