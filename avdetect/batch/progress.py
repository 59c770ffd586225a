"""How far a run is, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from avdetect.batch.run import Summary


@contextmanager
def shown() -> Iterator[Callable[[Summary], None]]:
    """A bar on standard error with the counts, files a second and the time left; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda summary: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.fields[text]}"), BarColumn(bar_width=20), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, text="", left="starting")

        def show(summary: Summary) -> None:
            bar.update(task, total=summary.total, completed=summary.done, text=counts(summary), left=pace(summary))

        yield show


def counts(summary: Summary) -> str:
    """Files done, failed and abstained."""
    of = f"/{summary.total}" if summary.total is not None else ""
    return f"{summary.done}{of}, {summary.failed.total()} failed, {summary.abstained} abstained"


def pace(summary: Summary) -> str:
    """Files a second and the time left, as far as they are known."""
    if not summary.scored_now:
        return "starting"
    left = summary.seconds_left
    rest = f", {timedelta(seconds=round(left))} left" if left is not None else ""
    return f"{summary.files_per_second:.1f} files/s{rest}"
