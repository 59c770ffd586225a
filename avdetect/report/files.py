"""Where the report of a file goes, and what no output may overwrite."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import write_whole

if TYPE_CHECKING:
    from avdetect.report.evidence import Evidence


def check_report(path: Path) -> None:
    """Raises ConfigError for a name of another kind, or a place where no file can be put."""
    if path.suffix.lower() != ".html":
        raise ConfigError(f"--report {path}: the name must end in .html")
    if not path.parent.is_dir():
        raise ConfigError(f"--report {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--report {path}: it cannot be written there; choose another place")


def write_report(path: Path, evidence: Evidence) -> None:
    """The page, whole or not at all. Raises AVDetectError."""
    from avdetect.report.page import render_page

    content = render_page(evidence).encode()
    try:
        write_whole(path, content)
    except OSError as error:
        raise AVDetectError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def check_apart(outputs: Mapping[str, Path], inputs: Iterable[tuple[str, str | Path]]) -> None:
    """Raises ConfigError where an output is an input or another output, by whatever name or link.

    outputs: option -> file. inputs: what it is, and its name; a file that standard input is read from is one too.
    """
    options: dict[object, str] = {}
    for option, path in outputs.items():
        other = options.setdefault(_identity(path), option)
        if other != option:
            raise ConfigError(f"{other} and {option} name the same file; choose another name")
    for what, file in (*inputs, ("what standard input is read from", 0)):
        option = options.get(_identity(file), "")
        if option:
            raise ConfigError(f"{option} {outputs[option]}: that is {what}; choose another name")


def _identity(file: str | Path | int) -> object:
    """What all names of a file have in common; None for a descriptor of no regular file."""
    try:
        status = os.stat(file)
        if stat.S_ISREG(status.st_mode):
            return status.st_dev, status.st_ino
    except OSError:
        pass
    except ValueError:  # NUL: no file's name
        return None
    return None if isinstance(file, int) else os.path.realpath(file)
