"""Scoring in processes of this machine. A process that dies costs its one file a second try, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from avdetect.batch.crew import Crew, Worker
from avdetect.batch.process import Message, Process
from avdetect.batch.worker import work
from avdetect.errors import AVDetectError

if TYPE_CHECKING:
    from avdetect.batch.options import Scorer


class _Process(Worker):
    """A worker that is a process."""

    def __init__(self, begin: Callable[[], Scorer]) -> None:
        super().__init__()
        self.process = Process(work, begin)

    def give(self, path: str) -> None:
        self.process.give(path)

    def kill(self) -> str:
        return self.process.kill()


class ProcessEngine(Crew[_Process]):
    """At most `workers` processes, each with a scorer of its own, made by `begin` (picklable)."""

    def __init__(self, begin: Callable[[], Scorer], workers: int, wall_seconds: float) -> None:
        super().__init__(workers, wall_seconds)
        self._begin = begin

    def _start(self) -> _Process:
        try:
            return _Process(self._begin)
        except OSError as error:  # of descriptors, processes, memory there are no more
            raise AVDetectError(
                f"cannot start a scoring process: {error.strerror}; run again with fewer --workers, "
                "what is scored is kept"
            ) from error

    def _listen(self, seconds: float) -> Iterator[tuple[_Process, Message | None]]:
        by_connection = {worker.process.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), seconds):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            yield worker, worker.process.hear()
