"""A pool of workers: items in, what became of them out, in any order.

    with closing(Pool(task, workers=4, seconds=60).run(items)) as events:
        for event in events: ...

`BasePool` submits items to workers, receives from them, and ends those that die or take too long. `Pool` (processes of
this machine) and `ray.RayPool` (a cluster) add how a worker is started, received from and ended; what both keep is
tested in tests/test_jobs_pool.py.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from avdetect.errors import AVDetectError, ConfigError, LimitError, WorkerError
from avdetect.jobs.process import ANSWER, FATAL, PROGRESS, READY, Message, Process, Task, fatal_error

START_SECONDS = 300.0  # for a worker to start its task
TRIES = 2  # of an item whose worker dies
_START_DEATHS = 3  # of workers in a row before they were ready: that is the machine, not the items
_TICK_SECONDS = 0.05
_END: Any = object()


@dataclass(frozen=True)
class Item:
    """Work for one worker. `value` is JSON; no two items of a run that are worked on at a time share their `key`."""

    key: str
    value: Any


@dataclass(frozen=True)
class Done:
    """A worker has answered (JSON)."""

    item: Item
    answer: Any


@dataclass(frozen=True)
class Progress:
    """A worker reports news of its item (JSON)."""

    item: Item
    news: Any


@dataclass(frozen=True)
class Failed:
    """No worker could answer: each one died, or it took too long."""

    item: Item
    error: str  # "WorkerError" or "LimitError"
    reason: str  # in words


Event = Done | Progress | Failed


class Worker(ABC):
    """Works on one item at a time, once it has said that it is ready."""

    def __init__(self) -> None:
        self.ready = False
        self.item: Item | None = None  # what it works on now
        self.deadline = time.monotonic() + START_SECONDS  # for what it does now

    @abstractmethod
    def send(self, value: Any) -> None:
        """Give it the value of an item. That it has died is received later."""

    @abstractmethod
    def kill(self) -> str:
        """End it and what it has started; what had ended it before, in words."""


W = TypeVar("W", bound=Worker)


class BasePool(ABC, Generic[W]):
    """At most `workers` workers.

    seconds: for one item; a worker that takes longer is killed. fresh: each item gets a new worker. Raises ConfigError.
    """

    def __init__(self, workers: int, seconds: float, fresh: bool = False) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self._count, self._seconds, self._fresh = workers, seconds, fresh
        self._workers: list[W] = []
        self._waiting: deque[Item] = deque()  # drawn, or put back since the worker died; no worker has them
        self._deaths: Counter[str] = Counter()  # of workers, by the item's key
        self._start_deaths = 0

    @abstractmethod
    def _start(self) -> W:
        """A new worker, which will say that it is ready. Raises OSError where there can be none."""

    @abstractmethod
    def _receive(self, seconds: float) -> Iterator[tuple[W, Message | None]]:
        """What workers say within so many seconds; None where one has ended."""

    def run(self, items: Iterable[Item | None]) -> Generator[Event | None]:
        """Every item ends in one Done or Failed, unless it is cancelled.

        Items are drawn only when a worker is free (back-pressure); None among them says that there is none for the
        moment. None among the events says that a moment has passed. To be read by one thread, which must live as long
        as the run; closing the generator kills the workers. Raises AVDetectError where no item is to blame.
        """
        source = iter(items)
        try:
            while self._fill(source) or self._waiting or self._busy:
                yield from self._events()
        finally:
            self._waiting.clear()
            self._deaths.clear()
            self._start_deaths = 0
            while self._workers:
                self._workers.pop().kill()

    def cancel(self, key: str) -> None:
        """End the work on an item; no event of it follows. To be called by the thread that reads `run`."""
        self._waiting = deque(item for item in self._waiting if item.key != key)
        for worker in [w for w in self._workers if w.item is not None and w.item.key == key]:
            self._end(worker)
        del self._deaths[key]
        spare = [worker for worker in self._workers if worker.item is None]
        while self._fresh and len(spare) > len(self._waiting):
            self._end(spare.pop())

    @property
    def _busy(self) -> int:
        return sum(worker.item is not None for worker in self._workers)

    def _fill(self, source: Iterator[Item | None]) -> bool:
        """Give work to who is free; False at the end of the source."""
        self._submit()
        while len(self._waiting) + self._busy < self._count:
            item = next(source, _END)
            if item is None or item is _END:
                return item is None
            self._waiting.append(item)
            self._submit()
        return True

    def _submit(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.item is None:
                worker.item = self._waiting.popleft()
                worker.deadline = time.monotonic() + self._seconds
                worker.send(worker.item.value)
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._count - len(self._workers))):
            try:
                self._workers.append(self._start())
            except OSError as error:  # of descriptors, processes, memory there are no more
                if self._workers:
                    return  # these do the work
                raise AVDetectError(
                    f"cannot start a worker process: {error.strerror}; run again with fewer --workers, "
                    "what is done is kept"
                ) from error

    def _events(self) -> Iterator[Event | None]:
        for worker, message in self._receive(_TICK_SECONDS):
            if worker in self._workers:  # else it was cancelled a moment ago
                yield self._event(worker, message)
        now = time.monotonic()
        for worker in [w for w in self._workers if now > w.deadline]:
            if not worker.ready:
                self._late_start(worker)
            elif worker.item is not None:
                self._end(worker)
                del self._deaths[worker.item.key]
                yield Failed(worker.item, LimitError.__name__, f"it took longer than {self._seconds:g} s")
        yield None

    def _event(self, worker: W, message: Message | None) -> Event | None:
        item = worker.item
        if message is None:
            return self._on_exit(worker)
        if FATAL in message:
            raise fatal_error(message)
        if READY in message:
            worker.ready, self._start_deaths = True, 0
        elif item is not None and PROGRESS in message:
            return Progress(item, message[PROGRESS])
        elif item is not None and ANSWER in message:
            worker.item = None
            del self._deaths[item.key]
            if self._fresh:
                self._end(worker)
            return Done(item, message[ANSWER])
        return None

    def _end(self, worker: W) -> str:
        self._workers.remove(worker)
        return worker.kill()

    def _on_exit(self, worker: W, cause: str = "") -> Failed | None:
        """A worker has ended, or is ended for that cause. Its item fails where that was its last try."""
        ending, item = self._end(worker), worker.item
        ending = cause or ending  # else it would be that we have killed it
        if not worker.ready:
            self._start_deaths += 1
            if self._start_deaths >= _START_DEATHS:
                raise AVDetectError(
                    f"workers end before they are ready ({ending}; out of memory?): "
                    "run again with fewer --workers, what is done is kept"
                )
        if item is None:
            return None
        self._deaths[item.key] += 1
        if self._deaths[item.key] < TRIES:
            self._waiting.append(item)
            return None
        del self._deaths[item.key]
        reason = f"its worker was ended {TRIES} times, the last time by {ending} (out of memory?)"
        return Failed(item, WorkerError.__name__, reason)

    def _late_start(self, worker: W) -> None:
        self._on_exit(worker, f"not ready within {START_SECONDS:g} s")


class ProcessWorker(Process, Worker):
    """A process of this machine."""

    def __init__(self, task: Task) -> None:
        Process.__init__(self, task)
        Worker.__init__(self)


class Pool(BasePool[ProcessWorker]):
    """Processes of this machine. `task` is started once in each: see `process.Task`."""

    def __init__(self, task: Task, workers: int, seconds: float, fresh: bool = False) -> None:
        super().__init__(workers, seconds, fresh)
        self._task = task

    def _start(self) -> ProcessWorker:
        return ProcessWorker(self._task)

    def _receive(self, seconds: float) -> Iterator[tuple[ProcessWorker, Message | None]]:
        by_connection: dict[Any, ProcessWorker] = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), seconds):
            worker = by_connection[connection]
            if worker in self._workers:
                yield worker, worker.receive()
