"""Scoring in processes of this machine. A process that dies costs its one file a second try, and nothing else."""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from avdetect.batch.crew import Crew, Worker
from avdetect.batch.worker import Message, work
from avdetect.errors import AVDetectError

if TYPE_CHECKING:
    from avdetect.batch.options import Scorer

_MAX_MESSAGE_BYTES = 256 * 1024**2


class _Process(Worker):
    """One process, and our end of its pipe."""

    def __init__(self, begin: Callable[[], Scorer]) -> None:
        super().__init__()
        context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, begin), daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the parent's affair
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the connection ends when the process does

    def give(self, path: str) -> None:
        with suppress(OSError):  # it has died; its end will be heard
            self.connection.send_bytes(json.dumps(path).encode())

    def hear(self) -> Message | None:
        """The next message; None where the process has ended, or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(_MAX_MESSAGE_BYTES))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def kill(self) -> str:
        """End the process and the ffmpeg that it may be running; the signal or exit code of its end."""
        pid = self._process.pid
        if pid is not None and self._process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # so that it starts no other child meanwhile
            for child in _children(pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self.connection.close()
        return _ending(code)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for name in glob.glob(f"/proc/{pid}/task/*/children"):
        with suppress(OSError), open(name, encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


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
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), seconds):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            yield worker, worker.hear()
