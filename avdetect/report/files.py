"""Where the report of a file goes: a page, a picture, or both. And what no output may overwrite."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avdetect.errors import AVDetectError, ConfigError
from avdetect.extras import require
from avdetect.files import replacing

if TYPE_CHECKING:
    from avdetect.report.evidence import Evidence
    from avdetect.report.recorder import Recorder


@dataclass(frozen=True)
class ReportFiles:
    """The files that were asked for. What draws them is imported when they are written."""

    report: Path | None = None  # .html
    plot: Path | None = None  # .png

    @property
    def named(self) -> dict[str, Path]:
        """Option -> file."""
        return {name: path for name, path in (("--report", self.report), ("--plot", self.plot)) if path is not None}

    def check(self) -> None:
        """Raises ConfigError for a name of another kind or a place where no file can be put, ToolError without
        matplotlib."""
        if self.plot is not None:
            require("plot", "--plot")
        for option, path in self.named.items():
            suffix = {"--report": ".html", "--plot": ".png"}[option]
            if path.suffix.lower() != suffix:
                raise ConfigError(f"{option} {path}: the name must end in {suffix}")
            if not path.parent.is_dir():
                raise ConfigError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
            if path.is_dir() or not os.access(path.parent, os.W_OK):
                raise ConfigError(f"{option} {path}: it cannot be written there; choose another place")

    def recorder(self, duration_seconds: float | None = None, sample: int | None = None) -> Recorder | None:
        """What watches the scoring (`Recorder`) for them; None where no file was asked for."""
        if not self.named:
            return None
        from avdetect.report.recorder import Recorder

        return Recorder(duration_seconds, sample)

    def write(self, evidence: Evidence) -> None:
        """Draw and write them, each whole or not at all. Raises AVDetectError."""
        if self.report is not None:
            from avdetect.report.page import render_page

            _replace(self.report, render_page(evidence).encode())
        if self.plot is not None:
            from avdetect.report.plot import draw_plot

            _replace(self.plot, draw_plot(evidence))


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


def _replace(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise AVDetectError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
