"""The seam between a batch and what scores it: work items in, outcomes out, in any order.

`pool.ProcessEngine` (processes on this machine) and `ray_engine.RayEngine` (a cluster) keep what is said here: a
journal that was begun with one is gone on with by the other.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class WorkItem:
    """A file to score, and how it looked when it was handed out."""

    path: str
    size: int | None  # bytes; None: it could not be asked, and scoring it will say why
    mtime_ns: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of an item: `report.data.to_dict` of a Detection or of a Failure."""

    item: WorkItem
    result: dict[str, Any]


class Engine(Protocol):
    """Scores files."""

    def run(self, items: Iterable[WorkItem | None]) -> Generator[Outcome | None]:
        """Every item once, each with exactly one outcome, in any order.

        Items are drawn only when there is somebody to score them (back-pressure); None among them says that there is
        none for the moment, ask again. None among the outcomes says that time has passed (at most about half a
        second), so that whoever reads them can look around. Closing the generator ends whatever was started.
        A file that takes its worker down is tried once more and then an outcome with the error `WorkerError`.
        Raises AVDetectError where no file is to blame.
        """
        ...
