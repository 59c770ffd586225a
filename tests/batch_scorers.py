"""Scorers for the tests of avdetect.batch, in worker processes: the text of the file says what happens to it.

a number    that P(fake), after `SLOW` seconds
die         the process kills itself, whenever it meets the file
die once    … the first time only (it leaves FILE.died)
hang        for ever
usage       a ConfigError
bug         an exception that is none of ours
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from jobs_tasks import log_or_die

from avdetect.batch.options import attempt
from avdetect.errors import ConfigError, MediaError, ModelError
from avdetect.report.data import Result
from avdetect.types import Detection

SLOW = 0.02

EMPTY = Detection(
    "", "no sign found", "because", 0.0, None, None, None, 0.6, 0.5, 0.0, 2.0, None, (), (), (), {}, (), {}, {}
)


def begin() -> Callable[[str], Result]:
    return lambda path: attempt(path, lambda: score(path))


def begin_badly() -> Callable[[str], Result]:
    raise ModelError("there are no weights")


def score(path: str) -> Result:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise MediaError(f"cannot open {path}: {error.strerror}") from error
    log_or_die(path, text)
    if text == "hang":
        time.sleep(3600)
    if text == "usage":
        raise ConfigError("that is no way to ask")
    if text == "bug":
        raise ZeroDivisionError("x")
    time.sleep(SLOW)
    if text == "abstain":
        return dataclasses.replace(EMPTY, path=path, verdict="abstain", fake=None)
    return dataclasses.replace(EMPTY, path=path, fake=float(text) if text[:1].isdigit() else 0.9)
