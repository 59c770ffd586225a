"""A worker process: JSON through one pipe. It dies with its parent, and takes along the processes that it has started.

What a worker sends may come from a hostile file, so it is never unpickled. Every message is an object with one of the
keys below, so that no answer can be taken for a message of another kind.
"""

import ctypes
import glob
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from typing import Any

from avdetect import errors
from avdetect.errors import AVDetectError

Message = dict[str, Any]
Report = Callable[[Any], None]  # takes news of an item while the worker works on it (JSON)
Work = Callable[[Any, Report], Any]  # (value of an item, report) -> answer; JSON both
Task = Callable[[], Work]  # called once in each worker; picklable

READY, ANSWER, PROGRESS, FATAL = "ready", "answer", "progress", "fatal"
_MAX_MESSAGE_BYTES = 256 * 1024**2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Session:
    """A task in a worker, whose steps end in messages: READY, ANSWER, or FATAL (no item is to blame)."""

    def begin(self, task: Task) -> Message:
        def start() -> bool:
            self._work = task()
            return True

        return _attempt(READY, start)

    def answer(self, value: Any, report: Report = lambda news: None) -> Message:
        """Do the work on one item."""
        return _attempt(ANSWER, lambda: self._work(value, report))


def _attempt(kind: str, step: Callable[[], Any]) -> Message:
    try:
        return {kind: step()}
    except MemoryError:
        os._exit(1)  # as if the kernel had ended us: the item is tried in a fresh process
    except AVDetectError as error:
        return {FATAL: type(error).__name__, "message": str(error)}
    except Exception as error:
        message = f"a worker cannot go on: {type(error).__name__}: {error}; what is done is kept, run again"
        return {FATAL: AVDetectError.__name__, "message": message}


def fatal_error(message: Message) -> AVDetectError:
    """The error of a FATAL message."""
    kind = getattr(errors, str(message[FATAL]), AVDetectError)
    known = isinstance(kind, type) and issubclass(kind, AVDetectError)
    return (kind if known else AVDetectError)(str(message.get("message", "")))


class Process:
    """A fresh interpreter that runs a task, and our end of its pipe.

    SIGINT and SIGTERM are blocked in it: they reach the whole group, and the parent ends it and its children. Raises
    OSError where no process can be had.
    """

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, task), daemon=True)
        resource_tracker.ensure_running()  # else `start` would start it, which unblocks the signals
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # inherited from the start
        try:
            self._process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()  # so that the connection ends when the process does
        # Python's own way at exit is SIGTERM, and to wait: it would wait for ever.
        self._at_exit = util.Finalize(self, _kill_family, (self._process.pid,), exitpriority=0)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, value: Any) -> None:
        """Give it the value of an item. That the process has died is received later."""
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(value).encode())

    def receive(self) -> Message | None:
        """Its next message; None where it has ended, or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(_MAX_MESSAGE_BYTES))
        except (EOFError, OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def kill(self) -> str:
        """End the process and its children; the signal or exit code of its end."""
        self._at_exit.cancel()
        if self._process.pid is not None and self._process.is_alive():
            _kill_family(self._process.pid)
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        self.connection.close()
        return f"exit code {code}" if code >= 0 else _NAMES.get(-code, f"signal {-code}")


_NAMES = {number.value: number.name for number in signal.Signals}


def try_task(task: Task) -> None:
    """Start the task in a process and end that: what is wrong is said now. Raises AVDetectError."""
    try:
        process = Process(task)
    except OSError as error:
        raise AVDetectError(f"cannot start a worker process: {error.strerror}") from error
    message = process.receive()
    ending = process.kill()
    if message is None:
        raise AVDetectError(f"a worker process ended before it was ready ({ending}; out of memory?)")
    if FATAL in message:
        raise fatal_error(message)


def _kill_family(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # so that it starts no other child meanwhile
    for process in (*children(pid), pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that run."""
    found: list[int] = []
    for name in glob.glob(f"/proc/{pid}/task/*/children"):
        with suppress(OSError), open(name, encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def _run(connection: Connection, task: Task) -> None:
    """The body of the process: say that it is ready, answer every item, end with the pipe."""

    def send(message: Message) -> None:
        connection.send_bytes(json.dumps(message).encode())

    def start() -> Work:
        _die_with_the_parent()
        return task()

    session = Session()
    message = session.begin(start)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed the pipe
        while True:
            send(message)
            if FATAL in message:
                return
            value = json.loads(connection.recv_bytes())
            message = session.answer(value, lambda news: send({PROGRESS: news}))


def _die_with_the_parent() -> None:
    """The kernel kills this process when the thread that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before we asked
        os._exit(1)
