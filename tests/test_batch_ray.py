"""`--engine ray` on a real local Ray with several workers. What every pool keeps is tested in test_jobs_pool.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import jobs_tasks
import pytest
from batch_commands import all_gone, kept_in, named_like, rows_in, score, start, wait_for
from media_factory import MediaFactory

from avdetect.batch.options import ScoringOptions
from avdetect.errors import AVDetectError, ConfigError
from avdetect.extras import how_to_install
from avdetect.jobs import ray
from avdetect.jobs.pool import Done, Item
from avdetect.jobs.ray import RayPool

MEDIA = ("clap.mp4", "tone.wav", "text.mp4", "silent_film.mp4")
COPIES = 4


@pytest.fixture(scope="module")
def folder(media: MediaFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder := tmp_path_factory.mktemp("ray") / "media").mkdir()
    for name, i in product(MEDIA, range(COPIES)):
        shutil.copy(media(name), folder / f"{i}_{name}")
    return folder


def actors() -> list[int]:
    """The processes of the Ray that this process has started which hold an actor of ours."""
    return named_like(b"ray::WorkerActor", os.getpid())


def test_a_job_begun_on_processes_is_finished_on_ray_through_kills(
    local_ray: str, folder: Path, tmp_path: Path
) -> None:
    """Actors and the command itself are killed; the table is that of an undisturbed run on processes, to the byte."""
    out, journal = tmp_path / "r.csv", tmp_path / "r.csv.journal"
    straight = score("media", "--duration", 1, "--out", tmp_path / "straight.csv", cwd=folder.parent, code=1).stdout
    names = [f"media/{path.name}\n" for path in sorted(folder.iterdir())]
    command, on_ray = ("-", "--duration", 1, "--out", out), ("--engine", "ray", "--ray-address", local_ray)

    def begun(count: int, *options: object) -> subprocess.Popen[str]:
        """The command, given so many names; it cannot end while it waits for more."""
        process = start(*command, *options, cwd=folder.parent, stdin=subprocess.PIPE)
        process.stdin.writelines(names[:count])
        process.stdin.flush()
        return process

    with begun(4) as process:
        wait_for(lambda: rows_in(out) >= 3, process)
        process.kill()
        process.communicate()
    before = len(kept_in(journal))
    with begun(8, *on_ray) as process:
        wait_for(lambda: rows_in(out) >= before + 2, process)
        working = actors()
        process.kill()
        process.communicate()
    assert working
    assert all_gone(working, 30), "an actor outlived the command"
    before = len(kept_in(journal))
    assert 5 <= before <= 8
    with begun(12, *on_ray) as process:
        wait_for(lambda: rows_in(out) > before, process)
        os.kill(min(actors()), signal.SIGKILL)
        stdout, err = process.communicate("".join(names[12:]), timeout=60)
    assert process.returncode == 1, err
    assert out.read_text() == straight
    assert stdout == straight  # nothing that Ray has to say is in it
    assert f"{before} were scored before" in err
    assert len(err.splitlines()) == 1
    assert len(set(kept_in(journal))) == len(kept_in(journal)) == COPIES * len(MEDIA)


# Does not import it: that fixes settings which our own Ray needs.
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=how_to_install("ray"))


def answers_of(pool: RayPool, paths: list[str]) -> list[float]:
    return [event.answer for event in pool.run(Item(path, path) for path in paths) if isinstance(event, Done)]


def numbers(folder: Path, count: int) -> list[str]:
    for i in range(count):
        (folder / f"{i}").write_text("0.5")
    return [str(folder / f"{i}") for i in range(count)]


def test_names_are_those_of_the_folder_where_the_command_was_given(local_ray: str, tmp_path: Path, monkeypatch) -> None:
    numbers(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    assert answers_of(RayPool(jobs_tasks.begin, 1, 60), ["0"]) == [0.5]


def test_more_workers_than_there_is_room_for_wait_while_others_work(local_ray: str, tmp_path: Path) -> None:
    pool = RayPool(jobs_tasks.begin, 4, 60)
    assert len(answers_of(pool, numbers(tmp_path, 8))) == 8
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
        answers_of(RayPool(jobs_tasks.begin, 1, 60, cpus=cpus), numbers(tmp_path, 1))


def test_a_machine_with_another_bundle_or_device_scores_nothing() -> None:
    options = ScoringOptions()
    identity = options.identity()
    with pytest.raises(ConfigError, match=r"bundle: .* there, other here"):
        options.scorer_like(identity | {"bundle": "other"}, 1)
    assert options.scorer_like(identity, 1)("absent.mp4").error == "MediaError"


@needs_ray
def test_an_address_where_nobody_answers_is_one_line(folder: Path) -> None:
    done = score("media", "--engine", "ray", "--ray-address", "127.0.0.1:1", cwd=folder.parent, code=1)
    assert "no Ray to be used at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def in_a_process(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where no setting of Ray's is made but these."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | settings
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_our_own_ray_asks_for_a_token(local_ray: str) -> None:
    """`ray.init` would try again for 20 s; this is the call that it fails with."""
    call = f"from ray._raylet import GcsClient; GcsClient(address={local_ray!r}).get_all_node_info(timeout=10)"
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
    assert len(ours["RAY_AUTH_TOKEN"]) >= 32
    assert in_a_process(call, **ours).returncode == 0
    for others in ({"RAY_AUTH_MODE": "disabled"}, ours | {"RAY_AUTH_TOKEN": "0" * 64}):
        done = in_a_process(call, **others)
        assert done.returncode == 1
        assert "nauthenticated" in done.stderr


@needs_ray
@pytest.mark.parametrize(("settings", "found"), [({}, "0"), ({"RAY_USAGE_STATS_ENABLED": "1"}, "1")])
def test_ray_reports_to_nobody_unless_the_user_wants_it(settings: dict[str, str], found: str) -> None:
    code = "import os; from avdetect.jobs.ray import ray; ray(); print(os.environ['RAY_USAGE_STATS_ENABLED'])"
    assert in_a_process(code, **settings).stdout.strip() == found


@pytest.mark.parametrize(("cpus", "gpus", "expected"), [(2.0, 0.0, 4), (1.0, 0.25, 8), (10.0, 0.0, 1)])
def test_as_many_actors_as_there_is_room_for(cpus: float, gpus: float, expected: int) -> None:
    assert ray.places({"CPU": 9.5, "GPU": 2.0, "memory": 1e9}, cpus, gpus) == expected
    assert ray.places({}, cpus, gpus) == 1


def test_only_what_ray_raises_is_a_failure_of_ray(local_ray: str) -> None:
    with pytest.raises(AVDetectError, match=r"Ray failed \(the client is gone\)"), ray.connect(None, 1):
        raise ConnectionError("the client is gone")
    with pytest.raises(BrokenPipeError), ray.connect(None, 1):
        raise BrokenPipeError(32, "nobody reads the table")
