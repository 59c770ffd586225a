"""What every engine keeps, on scorers that misbehave (dying, hanging, refusing), and the order of a run."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import batch_scorers
import pytest

from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.journal import Journal
from avdetect.batch.pool import ProcessEngine
from avdetect.batch.ray_engine import RayEngine
from avdetect.batch.run import Run, Summary
from avdetect.batch.sources import Source
from avdetect.errors import AVDetectError, ConfigError, ModelError
from avdetect.report.data import Failure, to_dict


class Rows(list):
    """A table in memory."""

    def add(self, result: Any) -> None:
        self.append(result)

    def close(self) -> None:
        pass

    abort = close

    def told(self) -> list[tuple[str, Any]]:
        return [(Path(r["path"]).name, r["error"] if r["status"] == "failed" else r["fake"]) for r in self]


def files(folder: Path, **contents: str) -> list[str]:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [str(folder / name) for name in contents]


@pytest.fixture(params=[ProcessEngine, RayEngine])
def engine(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """engine(workers, begin, seconds), of each kind that there is."""
    if request.param is RayEngine:
        request.getfixturevalue("local_ray")

    def build(workers: int = 2, begin: Callable = batch_scorers.begin, seconds: float = 60) -> Any:
        return request.param(begin, workers, seconds)

    return build


def run(paths: list[str], engine: Any, journal: Path | None = None, **options) -> tuple[Rows, Summary]:
    rows = Rows()
    with Journal(journal, {"a": 1}, **options) as kept:
        summary = Run(Source(lambda: iter(paths), len(paths)), engine, kept, [rows])()
    return rows, summary


def test_bad_files_cost_nothing_but_themselves(engine: Callable, tmp_path: Path) -> None:
    paths = files(tmp_path, a="0.1", b="die", c="0.2", d="die once", e="bug", f="abstain", g="0.3")
    paths.insert(3, str(tmp_path / "absent"))
    journal = tmp_path / "j"
    rows, summary = run(paths, engine(), journal)
    assert rows.told() == [
        *[("a", 0.1), ("b", "WorkerError"), ("c", 0.2), ("absent", "MediaError")],
        *[("d", 0.9), ("e", "InternalError"), ("f", None), ("g", 0.3)],
    ]
    assert re.search("SIGKILL|ActorDiedError on ", rows[1]["message"])
    assert len((tmp_path / "b.log").read_text().split()) == 2  # tried twice, in two processes
    assert len(set((tmp_path / "d.log").read_text().split())) == 2
    assert (summary.scored_now, summary.from_journal, summary.abstained) == (8, 0, 1)
    assert summary.failed == {"WorkerError": 1, "MediaError": 1, "InternalError": 1}
    again, summary = run(paths, engine(begin=batch_scorers.begin_badly), journal)  # nothing is left to score
    assert again == rows
    assert (summary.scored_now, summary.from_journal) == (0, 8)
    (tmp_path / "b").write_text("0.4")  # it has changed
    (tmp_path / "absent").write_text("0.5")  # it is there now
    rows, summary = run(paths, engine(1), journal)
    assert dict(rows.told()) | {"b": 0.4, "absent": 0.5} == dict(rows.told())
    assert summary.scored_now == 2
    rows, summary = run(paths, engine(1), journal, retry_failed=True)
    assert summary.scored_now == 1  # the bug
    assert rows.told()[5] == ("e", "InternalError")


def test_a_file_that_never_ends_is_ended(engine: Callable, tmp_path: Path) -> None:
    paths = files(tmp_path, a="hang", b="0.2")
    began = time.monotonic()
    rows, _ = run(paths, engine(1, seconds=1))
    assert rows.told() == [("a", "LimitError"), ("b", 0.2)]
    assert "max_file_seconds" in rows[0]["message"]
    assert len((tmp_path / "a.log").read_text().split()) == 1  # no second try
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("begin", "content", "error", "message"),
    [
        (batch_scorers.begin, "usage", ConfigError, "no way to ask"),
        (batch_scorers.begin_badly, "1", ModelError, "no weights"),
        (batch_scorers.begin_dead, "1", AVDetectError, "(SIGKILL|ActorDiedError).*fewer --workers"),
    ],
)
def test_what_no_file_is_to_blame_for_ends_the_run(
    engine: Callable, tmp_path: Path, begin: Callable, content: str, error: type[AVDetectError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(files(tmp_path, a=content), engine(1, begin))


def test_workers_that_are_slow_to_start_are_said_to_be(
    engine: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that they were killed, which we did."""
    for module in ("crew", "ray_engine"):
        monkeypatch.setattr(f"avdetect.batch.{module}.START_SECONDS", 0.5)
    with pytest.raises(AVDetectError, match=r"not ready within 0\.5 s; out of memory"):
        run(files(tmp_path, a="1"), engine(1, partial(time.sleep, 3600)))


def test_a_name_that_comes_twice_is_scored_once_and_has_two_rows(engine: Callable, tmp_path: Path) -> None:
    a, b = files(tmp_path, a="0.1", b="0.2")
    rows, summary = run([a, b, a, a], engine())
    assert rows.told() == [("a", 0.1), ("b", 0.2), ("a", 0.1), ("a", 0.1)]
    assert len((tmp_path / "a.log").read_text().split()) == 1
    assert (summary.rows, summary.written, summary.scored_now) == (4, 4, 2)


def test_items_are_drawn_only_when_somebody_can_score_them(engine: Callable, tmp_path: Path) -> None:
    paths, drawn = files(tmp_path, **{f"f{i}": "0.5" for i in range(8)}), 0

    def items() -> Iterator[WorkItem | None]:
        nonlocal drawn
        for path in paths:
            drawn += 1
            yield None  # none for the moment
            yield WorkItem(path, None, None)

    outcomes = engine(2).run(items())
    done = 0
    for outcome in outcomes:
        done += outcome is not None
        assert drawn <= done + 3  # one for each worker, and the one that is being asked for
    assert done == len(paths)


def test_closing_an_engine_leaves_no_process(engine: Callable, tmp_path: Path) -> None:
    outcomes = engine(2).run([WorkItem(p, None, None) for p in files(tmp_path, a="0.1", b="hang", c="hang")])
    assert next(o for o in outcomes if o is not None).item.path == str(tmp_path / "a")
    deadline = time.monotonic() + 20
    logs = [tmp_path / "b.log", tmp_path / "c.log"]
    while not all(log.exists() and log.read_text() for log in logs) and time.monotonic() < deadline:
        next(outcomes)
    pids = [int(log.read_text()) for log in logs]
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    outcomes.close()
    deadline = time.monotonic() + 5  # Ray is told to end them, and does
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Shuffled:
    """An engine without processes, whose outcomes come in the worst order."""

    def run(self, items: Any) -> Iterator[Outcome | None]:
        for item in reversed([item for item in items if item is not None]):
            yield Outcome(item, to_dict(Failure(item.path, "MediaError", item.path)))
            yield None


def test_rows_keep_the_order_of_the_names_whatever_the_engine_does() -> None:
    names = [f"{i:04d}" for i in range(1000)]
    rows, _ = run(names, Shuffled())
    assert [row["path"] for row in rows] == names


class Interrupting(Shuffled):
    """Presses Ctrl-C after three outcomes."""

    def run(self, items: Any) -> Iterator[Outcome | None]:
        for number, outcome in enumerate(super().run(items)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield outcome


class SlowToStart(Shuffled):
    """Ctrl-C is pressed before it asks for the first name."""

    def run(self, items: Any) -> Iterator[Outcome | None]:
        os.kill(os.getpid(), signal.SIGINT)
        yield from super().run(items)


@pytest.mark.parametrize(("engine", "kept"), [(Interrupting, ["6", "7", "8"]), (SlowToStart, [])])
def test_an_interrupt_keeps_what_is_scored(engine: type[Shuffled], kept: list[str]) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        rows, summary = run([f"{i}" for i in range(9)], engine())
    finally:
        signal.signal(signal.SIGINT, before)
    assert summary.interrupted
    assert [row["path"] for row in rows] == kept


@pytest.mark.parametrize("kind", [ProcessEngine, RayEngine])
def test_the_number_of_workers_is_checked(kind: Callable) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        kind(batch_scorers.begin, 0, 60)
