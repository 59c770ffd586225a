"""A scorer for the tests of avdetect.batch: the text of the file says what happens to it.

a number    that P(fake)
abstain     there is nothing to judge
usage       a ConfigError
bug         an exception that is none of ours
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from avdetect.batch.options import attempt
from avdetect.errors import ConfigError, MediaError
from avdetect.report.data import Result
from avdetect.types import Detection

EMPTY = Detection(
    "", "no sign found", "because", 0.0, None, None, None, 0.6, 0.5, 0.0, 2.0, None, (), (), (), {}, (), {}, {}
)


def begin() -> Callable[[str], Result]:
    return lambda path: attempt(path, lambda: score(path))


def score(path: str) -> Result:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise MediaError(f"cannot open {path}: {error.strerror}") from error
    if text == "usage":
        raise ConfigError("that is no way to ask")
    if text == "bug":
        raise ZeroDivisionError("x")
    if text == "abstain":
        return dataclasses.replace(EMPTY, path=path, verdict="abstain", fake=None)
    return dataclasses.replace(EMPTY, path=path, fake=float(text))
