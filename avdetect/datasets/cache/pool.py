"""Worker processes that are given one order at a time, and whose death is noticed and survived."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from avdetect.datasets.cache.worker import Hash, Make, Setup, work
from avdetect.errors import AVDetectError


class Death:
    """The answer of a worker that ended without one (killed for its memory, most often)."""

    def __init__(self, ending: str) -> None:
        self.ending = ending  # in a few words


class Worker:
    """One process, and what it was last told to do."""

    def __init__(self, setup: Setup, numbers: Any) -> None:
        context = multiprocessing.get_context("spawn")  # forking would copy the parent's locks and threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, setup, numbers), daemon=True)
        self.process.start()
        theirs.close()  # so that the connection ends when the process does
        self.task: Any = None  # the caller's; None: the worker is idle

    def answer(self) -> Any:
        """Waits for the answer to the last order."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Death(f"exit code {self.process.exitcode}")

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


class Pool:
    """At most `count` workers, started when they are needed. A context manager: leaving it kills those still there."""

    def __init__(self, setup: Setup, count: int, first_shard: int) -> None:
        self._setup, self._count = setup, count
        self._numbers = multiprocessing.get_context("spawn").Value("q", first_shard)
        self._workers: list[Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def next_shard(self) -> int:
        """A number that no worker uses."""
        with self._numbers.get_lock():
            self._numbers.value += 1
            return int(self._numbers.value) - 1

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    @property
    def has_room(self) -> bool:
        return self.busy < self._count

    def submit(self, task: Any, order: Hash | Make, worker: Any = None) -> None:
        """Give `order` to `worker`, or to any that is idle; `task` comes back with the answer."""
        if worker is None:
            worker = next((w for w in self._workers if w.task is None), None)
        if worker is None:
            worker = Worker(self._setup, self._numbers)
            self._workers.append(worker)
        self._give(worker, task, order)

    def _give(self, worker: Worker, task: Any, order: Hash | Make) -> None:
        worker.task = task
        try:
            worker.connection.send(order)
        except OSError:  # it has died; the answer will say so
            pass

    def answers(self) -> Iterator[tuple[Worker, Any, Any]]:
        """Wait for at least one worker, and give (worker, its task, its answer); the worker is idle then, or gone.

        Raises AVDetectError when a worker cannot go on.
        """
        busy = {worker.connection: worker for worker in self._workers if worker.task is not None}
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            task, worker.task = worker.task, None
            answer = worker.answer()
            if isinstance(answer, AVDetectError):
                raise answer
            if isinstance(answer, Death):
                self._workers.remove(worker)
                worker.kill()
            yield worker, task, answer

    def close(self) -> None:
        """Let the workers finish their shards and end."""
        for worker in self._workers:
            worker.task = "close"
            try:
                worker.connection.send(None)
            except OSError:
                pass
        while self.busy:
            for _ in self.answers():  # what a worker cannot finish is raised; its end is what is waited for
                pass
