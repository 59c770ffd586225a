"""A child process whose messages are JSON through one pipe, and which ends with all that it has started."""

from __future__ import annotations

import ctypes
import glob
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any

from avdetect.errors import ConfigError

Message = dict[str, Any]
_MAX_MESSAGE_BYTES = 256 * 1024**2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Process:
    """`target(connection, *arguments)` in a fresh interpreter, and our end of its pipe.

    target and arguments: picklable; they go that way only. SIGINT and SIGTERM are blocked in it. Raises OSError where
    no process can be had.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        resource_tracker.ensure_running()  # else `start` would start it, which unblocks the signals
        # Inherited, from the first instruction on: signals to the whole group are the parent's affair.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()  # so that the connection ends when the process does

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def give(self, value: Any) -> None:
        """Send a JSON-able value. That the process has died is heard later."""
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(value).encode())

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


def die_with_the_parent() -> None:
    """The kernel kills this process when the thread that started it ends, however it ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        raise ConfigError(f"prctl: {os.strerror(ctypes.get_errno())}; scoring in processes needs Linux")
    if os.getppid() != parent.pid:  # it ended before we asked
        os._exit(1)


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
