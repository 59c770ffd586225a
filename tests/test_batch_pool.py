"""A run over many files on scorers that misbehave: what stands in the journal and in the tables, and in which order.

What the workers keep is tested in test_jobs_pool.py.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import batch_scorers
import pytest

from avdetect.batch.journal import Journal
from avdetect.batch.options import scoring
from avdetect.batch.run import Run, Summary
from avdetect.batch.sources import Source
from avdetect.jobs.pool import Done, Pool
from avdetect.report.data import Failure, to_dict


class Rows(list):
    """A table in memory."""

    add = list.append

    def told(self) -> list[tuple[str, Any]]:
        return [(Path(r["path"]).name, r["error"] if r["status"] == "failed" else r["fake"]) for r in self]


def files(folder: Path, **contents: str) -> list[str]:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [str(folder / name) for name in contents]


def pool(workers: int = 2, begin: Callable = batch_scorers.begin, seconds: float = 60) -> Pool:
    return Pool(partial(scoring, begin), workers, seconds)


def run(paths: list[str], pool: Any, journal: Path | None = None, **options) -> tuple[Rows, Summary]:
    rows = Rows()
    with Journal(journal, {"a": 1}, **options) as kept:
        summary = Run(Source(lambda: iter(paths), len(paths)), pool, kept, [rows])()
    return rows, summary


def test_bad_files_cost_nothing_but_themselves(tmp_path: Path) -> None:
    paths = files(tmp_path, a="0.1", b="die", c="0.2", d="die once", e="bug", f="abstain", g="0.3")
    paths.insert(3, str(tmp_path / "absent"))
    paths += paths[:1] * 2  # a name that comes twice is scored once and has two rows
    journal = tmp_path / "j"
    rows, summary = run(paths, pool(), journal)
    assert rows.told() == [
        *[("a", 0.1), ("b", "WorkerError"), ("c", 0.2), ("absent", "MediaError")],
        *[("d", 0.9), ("e", "InternalError"), ("f", None), ("g", 0.3), ("a", 0.1), ("a", 0.1)],
    ]
    assert len((tmp_path / "a.log").read_text().split()) == 1
    assert "SIGKILL (out of memory?); --retry-failed tries again" in rows[1]["message"]
    assert (summary.rows, summary.scored_now, summary.from_journal, summary.abstained) == (10, 8, 0, 1)
    assert summary.failed == {"WorkerError": 1, "MediaError": 1, "InternalError": 1}
    again, summary = run(paths, pool(begin=batch_scorers.begin_badly), journal)  # nothing is left to score
    assert again == rows
    assert (summary.scored_now, summary.from_journal) == (0, 8)
    (tmp_path / "b").write_text("0.4")  # it has changed
    (tmp_path / "absent").write_text("0.5")  # it is there now
    rows, summary = run(paths, pool(1), journal)
    assert dict(rows.told()) | {"b": 0.4, "absent": 0.5} == dict(rows.told())
    assert summary.scored_now == 2
    rows, summary = run(paths, pool(1), journal, retry_failed=True)
    assert summary.scored_now == 1  # the bug
    assert rows.told()[5] == ("e", "InternalError")


def test_a_file_that_never_ends_says_what_to_do(tmp_path: Path) -> None:
    rows, _ = run(files(tmp_path, a="hang", b="0.2"), pool(1, seconds=1))
    assert rows.told() == [("a", "LimitError"), ("b", 0.2)]
    assert "took longer than 1 s; raise max_file_seconds" in rows[0]["message"]


class Shuffled:
    """Workers without processes, whose answers come in the worst order."""

    def run(self, items: Any) -> Iterator[Done | None]:
        for item in reversed([item for item in items if item is not None]):
            yield Done(item, to_dict(Failure(item.key, "MediaError", item.key)))
            yield None


def test_rows_keep_the_order_of_the_names_whatever_the_workers_do() -> None:
    names = [f"{i:04d}" for i in range(1000)]
    rows, _ = run(names, Shuffled())
    assert [row["path"] for row in rows] == names


class Interrupting(Shuffled):
    """Presses Ctrl-C after so many events; after none it has not asked for the first name."""

    def __init__(self, events: int) -> None:
        self.events = events

    def run(self, items: Any) -> Iterator[Done | None]:
        events = super().run(items)
        yield from islice(events, self.events)
        os.kill(os.getpid(), signal.SIGINT)
        yield from events


@pytest.mark.parametrize(("events", "kept"), [(5, ["6", "7", "8"]), (0, [])])
def test_an_interrupt_keeps_what_is_scored(events: int, kept: list[str]) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        rows, summary = run([f"{i}" for i in range(9)], Interrupting(events))
    finally:
        signal.signal(signal.SIGINT, before)
    assert summary.interrupted
    assert [row["path"] for row in rows] == kept
