"""A run over many files: what stands in the journal and in the tables, and in which order, whatever the workers do.

What the workers keep is tested in test_jobs_pool.py.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import batch_scorers
import pytest

from avdetect.batch.journal import Journal
from avdetect.batch.options import scoring
from avdetect.batch.run import Run, Summary
from avdetect.batch.sources import Source
from avdetect.errors import ConfigError
from avdetect.jobs.pool import Done, Event, Failed

DIED = "its worker was ended 2 times, the last time by SIGKILL (out of memory?)"
FAILED = {"die": ("WorkerError", DIED), "hang": ("LimitError", "it took longer than 1 s")}


class Rows(list):
    """A table in memory."""

    add = list.append

    def told(self) -> list[tuple[str, Any]]:
        return [(Path(r["path"]).name, r["error"] if r["status"] == "failed" else r["fake"]) for r in self]


class Backwards:
    """Workers without processes, whose answers come in the worst order; a text may say that they die or hang."""

    def run(self, items: Any) -> Iterator[Event | None]:
        work = scoring(batch_scorers.begin)
        for item in reversed([item for item in items if item is not None]):
            text = Path(item.value).read_text() if os.path.exists(item.value) else ""
            yield Failed(item, *FAILED[text]) if text in FAILED else Done(item, work(item.value, print))
            yield None


def run(paths: list[str], pool: Any, journal: Path | None = None, **options) -> tuple[Rows, Summary]:
    rows = Rows()
    with Journal(journal, {"a": 1}, **options) as kept:
        summary = Run(Source(lambda: iter(paths), len(paths)), pool, kept, [rows])()
    return rows, summary


def test_bad_files_cost_nothing_but_themselves(tmp_path: Path) -> None:
    contents = {"a": "0.1", "b": "die", "c": "0.2", "absent": "", "d": "hang", "e": "bug", "f": "abstain"}
    paths, journal = [str(tmp_path / name) for name in contents], tmp_path / "j"
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "absent").unlink()
    paths += paths[:1] * 2  # a name that comes twice is scored once and has two rows
    rows, summary = run(paths, Backwards(), journal)
    assert rows.told() == [
        *[("a", 0.1), ("b", "WorkerError"), ("c", 0.2), ("absent", "MediaError")],
        *[("d", "LimitError"), ("e", "InternalError"), ("f", None), ("a", 0.1), ("a", 0.1)],
    ]
    assert "SIGKILL (out of memory?); --retry-failed tries again" in rows[1]["message"]
    assert "took longer than 1 s; raise max_file_seconds" in rows[4]["message"]
    assert (summary.rows, summary.scored_now, summary.from_journal, summary.abstained) == (9, 7, 0, 1)
    assert summary.failed == {"WorkerError": 1, "MediaError": 1, "LimitError": 1, "InternalError": 1}
    again, summary = run(paths, Backwards(), journal)  # nothing is left to score
    assert again == rows
    assert (summary.scored_now, summary.from_journal) == (0, 7)
    (tmp_path / "b").write_text("0.40")  # it has changed
    (tmp_path / "absent").write_text("0.5")  # it is there now
    changed, summary = run(paths, Backwards(), journal)
    assert dict(changed.told()) == dict(rows.told()) | {"b": 0.4, "absent": 0.5}
    assert summary.scored_now == 2
    rows, summary = run(paths, Backwards(), journal, retry_failed=True)
    assert summary.scored_now == 2  # the bug, and what took too long
    assert rows == changed
    (tmp_path / "f").write_text("usage")
    with pytest.raises(ConfigError, match="no way to ask"):
        run(paths, Backwards(), journal)


def test_rows_keep_the_order_of_the_names_whatever_the_workers_do() -> None:
    names = [f"{i:03d}" for i in range(300)]
    rows, _ = run(names, Backwards())  # files that are not there
    assert [row["path"] for row in rows] == names


class Interrupting(Backwards):
    """Presses Ctrl-C after so many events; after none it has not asked for the first name."""

    def __init__(self, events: int) -> None:
        self.events = events

    def run(self, items: Any) -> Iterator[Event | None]:
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
