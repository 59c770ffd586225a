"""What every pool of workers keeps, on tasks that misbehave: dying, hanging, refusing, printing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jobs_tasks
import pytest
from batch_commands import ROOT, all_gone, eventually, family, gone

from avdetect.errors import AVDetectError, ConfigError, ModelError
from avdetect.jobs import pool as pool_module
from avdetect.jobs.pool import Done, Failed, Item, Pool, Progress
from avdetect.jobs.process import Process, try_task
from avdetect.jobs.ray import RayPool


def items_of(folder: Path, **contents: str) -> list[Item]:
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [Item(name, str(folder / name)) for name in contents]


def pids_of(folder: Path, name: str) -> list[int]:
    return [int(line) for log in folder.glob(f"{name}.log") for line in log.read_text().split()]


@pytest.fixture(params=[Pool, RayPool])
def pool(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """pool(workers, task, seconds), of each kind that there is."""
    if request.param is RayPool:
        request.getfixturevalue("local_ray")
    return lambda workers=2, task=jobs_tasks.begin, seconds=60: request.param(task, workers, seconds)


def run(pool: Any, items: Any) -> dict[str, Any]:
    """Key -> answer, or class of the error. Every item has one end."""
    ends: dict[str, Any] = {}
    for event in pool.run(items):
        if isinstance(event, Done | Failed):
            assert event.item.key not in ends
            ends[event.item.key] = event.answer if isinstance(event, Done) else event
    return ends


def test_items_that_kill_their_worker_cost_nothing_but_themselves(pool: Callable, tmp_path: Path) -> None:
    ends = run(pool(), items_of(tmp_path, a="0.1", b="die", c="0.2", d="die once", e="0.3"))
    failed = ends.pop("b")
    assert ends == {"a": 0.1, "c": 0.2, "d": 0.9, "e": 0.3}
    assert failed.error == "WorkerError"
    assert re.search("ended 2 times, the last time by (SIGKILL|ActorDiedError on )", failed.reason)
    assert [len(set(pids_of(tmp_path, name))) for name in "bd"] == [2, 2]  # tried twice, in two processes


def test_an_item_that_never_ends_is_ended(pool: Callable, tmp_path: Path) -> None:
    began = time.monotonic()
    ends = run(pool(1, seconds=1), items_of(tmp_path, a="hang", b="0.2"))
    assert (ends["a"].error, ends["a"].reason, ends["b"]) == ("LimitError", "it took longer than 1 s", 0.2)
    assert len(pids_of(tmp_path, "a")) == 1  # no second try
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("task", "content", "error", "message"),
    [
        (jobs_tasks.begin, "usage", ConfigError, "no way to ask"),
        (jobs_tasks.begin, "bug", AVDetectError, "ZeroDivisionError: x; what is done is kept, run again"),
        (jobs_tasks.begin_badly, "1", ModelError, "no weights"),
        (jobs_tasks.begin_dead, "1", AVDetectError, "(SIGKILL|ActorDiedError).*fewer --workers"),
    ],
)
def test_what_no_item_is_to_blame_for_ends_the_run(
    pool: Callable, tmp_path: Path, task: Callable, content: str, error: type[AVDetectError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(pool(1, task), items_of(tmp_path, a=content))


def test_workers_that_are_slow_to_start_are_said_to_be(pool: Callable, tmp_path: Path, monkeypatch) -> None:
    """Not that they were killed, which we did."""
    for module in ("pool", "ray"):
        monkeypatch.setattr(f"avdetect.jobs.{module}.START_SECONDS", 0.5)
    with pytest.raises(AVDetectError, match=r"not ready within 0\.5 s; out of memory"):
        run(pool(1, partial(time.sleep, 3600)), items_of(tmp_path, a="1"))


def test_items_are_drawn_only_when_a_worker_is_free(pool: Callable, tmp_path: Path) -> None:
    items, drawn = items_of(tmp_path, **{f"f{i}": "0.5" for i in range(8)}), 0

    def source() -> Iterator[Item | None]:
        nonlocal drawn
        for item in items:
            drawn += 1
            yield None  # none for the moment
            yield item

    done = 0
    for event in pool(2).run(source()):
        done += event is not None
        assert drawn <= done + 3  # one for each worker, and the one that is being asked for
    assert done == len(items)


def test_closing_a_run_leaves_no_process(pool: Callable, tmp_path: Path) -> None:
    events = pool(2).run(items_of(tmp_path, a="0.1", b="hang", c="hang"))
    assert next(event for event in events if event is not None).item.key == "a"
    deadline = time.monotonic() + 20
    while not all((tmp_path / f"{name}.child").exists() for name in "bc") and time.monotonic() < deadline:
        next(events)
    pids = [*pids_of(tmp_path, "b"), *pids_of(tmp_path, "c")]
    pids += [int((tmp_path / f"{name}.child").read_text()) for name in "bc"]
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    events.close()
    assert all_gone(pids)


# -- processes of this machine


def test_what_a_worker_prints_is_no_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A hostile file may make a library print anything. An answer that looks like another message is an answer."""
    ends = run(Pool(jobs_tasks.begin, 1, 60), items_of(tmp_path, a="print", b="0.5"))
    assert ends == {"a": {"fatal": "AVDetectError", "ready": True}, "b": 0.5}
    assert '{"answer": 0}' in capfd.readouterr().out


def test_what_is_no_message_counts_as_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles above all: nothing unpickles them."""
    process = Process(jobs_tasks.begin)
    try:
        assert process.receive() == {"ready": True}
        for data in (b"\x80\x04K\x00.", b"[1]", b"{", b"[" * 5000, b"\xff", b""):
            monkeypatch.setattr(process.connection, "recv_bytes", lambda most, data=data: data)
            assert process.receive() is None
    finally:
        process.kill()


def test_fresh_workers_do_one_item_each_and_tell_their_progress(tmp_path: Path) -> None:
    events = list(Pool(jobs_tasks.begin, 1, 60, fresh=True).run(items_of(tmp_path, a="0.1", b="news", c="die once")))
    assert [e.answer for e in events if isinstance(e, Done)] == [0.1, 1, 0.9]
    assert [e.news for e in events if isinstance(e, Progress)] == [0, 1, 2]
    assert len({pid for name in "abc" for pid in pids_of(tmp_path, name)}) == 4


@pytest.mark.parametrize("fresh", [False, True])
def test_a_cancelled_item_is_dead_and_heard_of_no_more(tmp_path: Path, fresh: bool) -> None:
    pool, others = Pool(jobs_tasks.begin, 2, 60, fresh=fresh), items_of(tmp_path, a="hang", b="hang", c="0.5")
    ended, children = [], list[int]()
    with closing(pool.run(others)) as events:
        for event in events:
            ended += [event] if event is not None else []
            for name in "ab":
                child = tmp_path / f"{name}.child"
                if child.exists() and child.read_text():
                    pool.cancel(name)
                    assert gone(pids_of(tmp_path, name))
                    children.append(int(child.read_text()))
                    child.unlink()
    assert ended == [Done(others[2], 0.5)]
    assert len(children) == 2
    assert all_gone(children)
    pool.cancel("never there")


def test_an_item_can_be_cancelled_before_it_is_submitted_and_workers_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Pool(jobs_tasks.begin, 0, 60)
    pool = Pool(jobs_tasks.begin, 1, 60, fresh=True)
    (item,) = items_of(tmp_path, a="hang")
    with closing(pool.run([item, None])) as events:
        next(events)
        pool.cancel("a")
        assert not pool._workers
        assert set(events) == {None}
    assert not pids_of(tmp_path, "a")


def test_where_no_more_processes_can_be_had_those_that_there_are_do_the_work(tmp_path: Path, monkeypatch) -> None:
    began, most = [], 1

    class Rare(pool_module.ProcessWorker):
        def __init__(self, task) -> None:
            if len(began) >= most:
                raise OSError(11, "try again")
            began.append(task)
            super().__init__(task)

    monkeypatch.setattr(pool_module, "ProcessWorker", Rare)
    ends = run(Pool(jobs_tasks.begin, 3, 60), items_of(tmp_path, a="0.1", b="0.2", c="0.3"))
    assert (ends, len(began)) == ({"a": 0.1, "b": 0.2, "c": 0.3}, 1)
    most = 0
    with pytest.raises(AVDetectError, match=r"cannot start a worker process.*fewer --workers"):
        run(Pool(jobs_tasks.begin, 1, 60), items_of(tmp_path, a="0.1"))


def test_trying_a_task_says_what_is_wrong_with_it() -> None:
    try_task(jobs_tasks.begin)
    with pytest.raises(ModelError, match="no weights"):
        try_task(jobs_tasks.begin_badly)
    with pytest.raises(AVDetectError, match=r"before it was ready \(SIGKILL"):
        try_task(jobs_tasks.begin_dead)


HEAD = """
import sys, jobs_tasks
from contextlib import closing
from pathlib import Path
from avdetect.jobs.pool import Item, Pool
events = Pool(jobs_tasks.begin, 1, 60).run([Item("a", sys.argv[1])])
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}


def test_a_run_that_nobody_closes_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, a="hang")
    code = f"{HEAD}while not Path(sys.argv[1] + '.log').exists(): next(events)\nsys.kept = events"
    done = subprocess.run([sys.executable, "-c", code, item.value], env=ENVIRONMENT, timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert all_gone(pids_of(tmp_path, "a"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_die_with_their_parent(tmp_path: Path, number: int) -> None:
    (item,) = items_of(tmp_path, a="wait")
    with subprocess.Popen(
        [sys.executable, "-c", f"{HEAD}with closing(events): list(events)", item.value],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        eventually(lambda: pids_of(tmp_path, "a"), 30)
        everybody = family(parent.pid)
        (os.kill if number == signal.SIGKILL else os.killpg)(parent.pid, number)
        _, err = parent.communicate(timeout=30)
    assert all_gone(everybody)
    assert err.count(b"Traceback") == (number == signal.SIGINT)  # the parent's; no worker has heard of it
