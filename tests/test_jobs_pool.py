"""What every pool of workers keeps, on tasks that misbehave: dying, hanging, refusing, printing; and `--engine ray`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import jobs_tasks
import pytest
from batch_commands import ROOT, all_gone, eventually, family, gone, kept_in, named_like, rows_in, start, wait_for
from cache_factory import kill_workers, samples
from conftest import Here, PoolHere
from manifests import manifest_of
from media_factory import MediaFactory

from avdetect.batch.options import ScoringOptions
from avdetect.config import PreprocessConfig
from avdetect.datasets.cache import build
from avdetect.errors import AVDetectError, ConfigError, ModelError
from avdetect.extras import how_to_install
from avdetect.jobs import pool as pool_module
from avdetect.jobs import ray
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
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """pool(workers, task, seconds), of each kind that there is."""
    if request.param is RayPool:
        request.getfixturevalue("local_ray")
        monkeypatch.setattr(pool_module, "_START_DEATHS", 1)  # an actor takes seconds to start
    return lambda workers=2, task=jobs_tasks.begin, seconds=60: request.param(task, workers, seconds)


def run(pool: Any, items: Any) -> dict[str, Any]:
    """Key -> answer, or class of the error. Every item has one end."""
    ends: dict[str, Any] = {}
    for event in pool.run(items):
        if isinstance(event, Done | Failed):
            assert event.item.key not in ends
            ends[event.item.key] = event.answer if isinstance(event, Done) else event
    return ends


def test_bad_items_cost_nothing_but_themselves(pool: Callable, tmp_path: Path) -> None:
    contents = {"a": "0.1", "b": "die", "c": "hang", "d": "die once", "e": "0.3"}
    ends = run(pool(seconds=2), items_of(tmp_path, **contents))
    died, late = ends.pop("b"), ends.pop("c")
    assert ends == {"a": 0.1, "d": 0.9, "e": 0.3}
    assert died.error == "WorkerError"
    assert re.search("ended 2 times, the last time by (SIGKILL|ActorDiedError on )", died.reason)
    assert (late.error, late.reason) == ("LimitError", "it took longer than 2 s")
    # Who killed its worker is tried twice, in two processes; what took too long is not tried again.
    assert [len(set(pids_of(tmp_path, name))) for name in "bdc"] == [2, 2, 1]


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


def test_fresh_workers_do_one_item_each_tell_their_progress_and_may_print(tmp_path: Path, capfd) -> None:
    """A hostile file may make a library print anything. An answer that looks like another message is an answer."""
    contents = {"a": "0.1", "b": "news", "c": "die once", "d": "print"}
    events = list(Pool(jobs_tasks.begin, 1, 60, fresh=True).run(items_of(tmp_path, **contents)))
    likely = {"fatal": "AVDetectError", "ready": True}
    assert {e.item.key: e.answer for e in events if isinstance(e, Done)} == {"a": 0.1, "b": 1, "c": 0.9, "d": likely}
    assert [e.news for e in events if isinstance(e, Progress)] == [0, 1, 2]
    assert len({pid for name in contents for pid in pids_of(tmp_path, name)}) == 5
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


# -- actors on a real Ray of this machine


@pytest.fixture(scope="module")
def folder(media: MediaFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder := tmp_path_factory.mktemp("ray") / "media").mkdir()
    for name, i in product(("clap.mp4", "tone.wav", "text.mp4", "silent_film.mp4"), range(3)):
        shutil.copy(media(name), folder / f"{i}_{name}")
    return folder


def actors() -> list[int]:
    """The processes of the Ray that this process has started which hold an actor of ours."""
    return named_like(b"ray::WorkerActor", os.getpid())


def test_a_job_begun_on_processes_is_finished_on_ray_through_kills(
    local_ray: str, folder: Path, tmp_path: Path, here: Here
) -> None:
    """An actor and the command itself are killed; the table is that of an undisturbed run, to the byte."""
    out, journal = tmp_path / "r.csv", tmp_path / "r.csv.journal"
    names = [f"media/{path.name}\n" for path in sorted(folder.iterdir())]
    command, on_ray = ("-", "--duration", 1, "--out", out), ("--engine", "ray", "--ray-address", local_ray)
    straight = here("score", "media", "--duration", 1, cwd=folder.parent, code=1).stdout
    here("score", *command, cwd=folder.parent, code=1, given="".join(names[:4]))

    def begun(count: int) -> subprocess.Popen[str]:
        """The command, given so many names; it cannot end while it waits for more."""
        process = start(*command, *on_ray, cwd=folder.parent, stdin=subprocess.PIPE)
        process.stdin.writelines(names[:count])
        process.stdin.flush()
        return process

    with begun(8) as process:
        wait_for(lambda: rows_in(out) >= 6, process)
        working = actors()
        process.kill()
        process.communicate()
    assert working
    assert all_gone(working, 30), "an actor outlived the command"
    before = len(kept_in(journal))
    assert 6 <= before <= 8
    with begun(10) as process:
        wait_for(lambda: rows_in(out) > before, process)
        os.kill(min(actors()), signal.SIGKILL)
        stdout, err = process.communicate("".join(names[10:]), timeout=60)
    assert process.returncode == 1, err
    assert out.read_text() == straight
    assert stdout == ""  # nothing that Ray has to say is in it
    assert f"{before} were scored before" in err
    assert len(err.splitlines()) == 1
    assert len(set(kept_in(journal))) == len(kept_in(journal)) == len(names)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open shard, in this process
def test_a_cache_made_on_ray_through_a_kill_is_that_of_one_process(
    local_ray: str, media: MediaFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = manifest_of([media(name) for name in ("clap.mp4", "tone.wav", "silent_film.mp4")])
    monkeypatch.setattr(build, "Pool", PoolHere)
    build.preprocess(table, tmp_path / "straight", PreprocessConfig(), build.Options())
    victims = kill_workers(monkeypatch, "", 1)
    on_ray = build.Options(workers=2, engine="ray")
    report = build.preprocess(table, tmp_path / "cache", PreprocessConfig(), on_ray)
    assert (len(victims), report.preprocessed) == (1, 3), "tried again"
    assert samples(tmp_path / "cache") == samples(tmp_path / "straight")


# Does not import it: that fixes settings which our own Ray needs.
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=how_to_install("ray"))


def test_more_workers_than_there_is_room_for_wait_while_others_work(
    local_ray: str, tmp_path: Path, monkeypatch
) -> None:
    items_of(tmp_path, **dict.fromkeys("abcdef", "0.5"))
    monkeypatch.chdir(tmp_path)  # names are those of the folder where the command was given
    pool = RayPool(jobs_tasks.begin, 3, 60)
    assert run(pool, [Item(name, name) for name in "abcdef"]) == dict.fromkeys("abcdef", 0.5)
    late, ready = (SimpleNamespace(host=None, ready=ready, deadline=0.0) for ready in (0, 1))
    pool._workers = [late, ready]
    pool._late_start(late)
    assert 0 < late.deadline - time.monotonic() <= ray.ROOM_SECONDS
    pool._workers.remove(ready)  # lost with its machine: nobody works now
    with pytest.raises(AVDetectError, match="no room for a worker"):
        pool._late_start(late)


def test_the_connection_ends_though_an_actor_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    @contextmanager
    def connect(*_: object) -> Iterator[dict[str, float]]:
        try:
            yield {"CPU": 1.0}
        finally:
            left.append("the connection")

    monkeypatch.setattr(ray, "connect", connect)
    pool = RayPool(jobs_tasks.begin, None, 60)
    pool._workers.append(Mock(kill=Mock(side_effect=ConnectionError("cannot be killed"))))
    with pytest.raises(ConnectionError, match="cannot be killed"):
        list(pool.run([]))
    assert left == ["the connection"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("__version__", "0.0.1", "0.0.1 here: install one version on all machines"),
        ("os.getcwd", lambda: "/no/such/folder", "/no/such/folder: No such file or directory on "),
        ("ROOM_SECONDS", 1, "no room for a worker .9 CPU, 0 GPU"),
    ],
)
def test_a_cluster_that_does_not_fit_is_said(
    local_ray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, message: str
) -> None:
    monkeypatch.setattr(f"avdetect.jobs.ray.{attribute}", value)
    cpus = 9 if "SECONDS" in attribute else 1
    with pytest.raises(AVDetectError, match=message):
        run(RayPool(jobs_tasks.begin, 1, 60, cpus=cpus), items_of(tmp_path, a="0.5"))


def test_a_machine_with_another_bundle_or_device_scores_nothing() -> None:
    options = ScoringOptions()
    identity = options.identity()
    with pytest.raises(ConfigError, match=r"bundle: .* there, other here"):
        options.scorer_like(identity | {"bundle": "other"}, 1)
    assert options.scorer_like(identity, 1)("absent.mp4").error == "MediaError"


@needs_ray
def test_an_address_where_nobody_answers_is_one_line(folder: Path, here: Here, monkeypatch) -> None:
    monkeypatch.setattr(ray.ray(), "is_initialized", lambda: False)
    done = here("score", folder, "--engine", "ray", "--ray-address", "127.0.0.1:1", code=1)
    assert "no Ray to be used at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_our_own_ray_asks_for_a_token(local_ray: str) -> None:
    """`ray.init` would try again for 20 s; this is the call that it fails with."""
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32
    code = f"from ray._raylet import GcsClient; GcsClient(address={local_ray!r}).get_all_node_info(timeout=10)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for others in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=plain | others, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "nauthenticated" in done.stderr


@pytest.mark.parametrize(("settings", "found"), [({}, "0"), ({"RAY_USAGE_STATS_ENABLED": "1"}, "1")])
def test_ray_reports_to_nobody_unless_the_user_wants_it(
    settings: dict[str, str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules), patch.dict(os.environ, settings):
        sys.modules.pop("ray", None)
        if not settings:
            os.environ.pop("RAY_USAGE_STATS_ENABLED", None)
        assert ray.ray().__file__ == str(tmp_path / "ray.py")
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == found


@pytest.mark.parametrize(("cpus", "gpus", "expected"), [(2.0, 0.0, 4), (1.0, 0.25, 8), (10.0, 0.0, 1)])
def test_as_many_actors_as_there_is_room_for(cpus: float, gpus: float, expected: int) -> None:
    assert ray.places({"CPU": 9.5, "GPU": 2.0, "memory": 1e9}, cpus, gpus) == expected
    assert ray.places({}, cpus, gpus) == 1


def test_only_what_ray_raises_is_a_failure_of_ray(local_ray: str) -> None:
    with pytest.raises(AVDetectError, match=r"Ray failed \(the client is gone\)"), ray.connect(None, 1):
        raise ConnectionError("the client is gone")
    with pytest.raises(BrokenPipeError), ray.connect(None, 1):
        raise BrokenPipeError(32, "nobody reads the table")
