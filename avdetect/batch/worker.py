"""A worker process: names of files in, results out, as JSON through one pipe. Nothing it sends is unpickled."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from avdetect.batch.process import Message, die_with_the_parent
from avdetect.errors import AVDetectError
from avdetect.report.data import to_dict

if TYPE_CHECKING:
    from avdetect.batch.options import Scorer

READY, FATAL = "ready", "fatal"  # keys of the messages that are no result


class Scoring:
    """A scorer whose answers are messages: READY, results, or `{"fatal": class, "message": …}`.

    The last says that no file is to blame and nothing can go on.
    """

    def begin(self, begin: Callable[[], Scorer]) -> Message:
        """Build the scorer."""

        def build() -> Message:
            self._score = begin()
            return {READY: True}

        return self._said(build)

    def score(self, path: str) -> Message:
        return self._said(lambda: to_dict(self._score(path)))

    @staticmethod
    def _said(step: Callable[[], Message]) -> Message:
        try:
            return step()
        except MemoryError:
            os._exit(1)  # as if the kernel had ended us: the file is tried in a fresh process
        except AVDetectError as error:
            return {FATAL: type(error).__name__, "message": str(error)}
        except Exception as error:
            message = f"a scoring process cannot go on: {type(error).__name__}: {error}"
            return {FATAL: AVDetectError.__name__, "message": message}


def work(connection: Connection, begin: Callable[[], Scorer]) -> None:
    """The body of the process: say "ready", answer every name with a result, end with the pipe."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # Ctrl-C reaches the whole group; the parent ends us

    def alone() -> Scorer:
        die_with_the_parent()
        return begin()

    scoring = Scoring()
    message = scoring.begin(alone)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed the pipe
        while True:
            connection.send_bytes(json.dumps(message).encode())
            if FATAL in message:
                return
            message = scoring.score(json.loads(connection.recv_bytes()))


def fatal_error(message: Message) -> AVDetectError:
    """The error of a "fatal" message."""
    from avdetect import errors

    kind = getattr(errors, str(message[FATAL]), AVDetectError)
    known = isinstance(kind, type) and issubclass(kind, AVDetectError)
    return (kind if known else AVDetectError)(str(message.get("message", "")))
