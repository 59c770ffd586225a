"""Where the report of a file goes: a page, a picture, or both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avdetect.errors import AVDetectError, ConfigError
from avdetect.extras import require

if TYPE_CHECKING:
    from avdetect.report.evidence import Evidence


@dataclass(frozen=True)
class ReportFiles:
    """The files that were asked for. What draws them is imported when they are written."""

    report: Path | None = None  # .html
    plot: Path | None = None  # .png

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.report, self.plot) if path is not None)

    def check(self, scored: str | None = None) -> None:
        """Raises ConfigError for a name that says another kind, or a place where no file can be put; ToolError for a
        picture without matplotlib.

        scored: the file that is reported on; no report takes its place.
        """
        if self.plot is not None:
            require("plot", "--plot")
        for option, path, suffix in (("--report", self.report, ".html"), ("--plot", self.plot, ".png")):
            if path is None:
                continue
            if path.suffix.lower() != suffix:
                raise ConfigError(f"{option} {path}: the name must end in {suffix}")
            if not path.parent.is_dir():
                raise ConfigError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
            if scored is not None and path.exists() and os.path.exists(scored) and path.samefile(scored):
                raise ConfigError(f"{option} {path}: that is the file to be scored; choose another name")
            if path.is_dir() or not os.access(path.parent, os.W_OK):
                raise ConfigError(f"{option} {path}: it cannot be written there; choose another place")

    def write(self, evidence: Evidence) -> None:
        """Draw and write them, each whole or not at all. Raises AVDetectError."""
        if self.report is not None:
            from avdetect.report.page import render_page

            _replace(self.report, render_page(evidence).encode())
        if self.plot is not None:
            from avdetect.report.plot import draw_plot

            _replace(self.plot, draw_plot(evidence))


def _replace(path: Path, content: bytes) -> None:
    """Under a hidden name beside the target first, which then takes its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise AVDetectError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
