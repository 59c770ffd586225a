"""The folder of `avdetect serve`: one that others had a hand in is refused, and nothing in it is touched."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import serve_scorers
from serve_running import running

from avdetect.errors import AVDetectError, ConfigError
from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings

A_JOB = "A" * 22  # as one is called
Prepare = Callable[[Path, Path], None]


def serving(data: Path) -> Service:
    return Service(ServeSettings(data=data), serve_scorers.by_text)


def served(data: Path) -> None:
    """A server has been there."""
    with serving(data):
        pass


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Files that are none of the server's."""
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter").write_text("years of work")
    (folder / A_JOB).mkdir()
    (folder / A_JOB / "upload").touch()
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def linked(name: str, to: str = "", ours: bool = False) -> Prepare:
    """A link under one of our names; ours: in a folder where a server has been."""

    def prepare(data: Path, victim: Path) -> None:
        if ours:
            served(data)
        if (data / name).is_dir():
            (data / name).rmdir()
        (data / "jobs.sqlite").touch()
        (data / name).unlink(missing_ok=True)
        (data / name).symlink_to(victim / to)

    return prepare


def moved_in(mode: int = 0o700, *statements: str) -> Prepare:
    """Somebody's files where our jobs would be, beside a database that is not ours."""

    def prepare(data: Path, victim: Path) -> None:
        with closing(sqlite3.connect(data / "jobs.sqlite")) as db:
            db.executescript(";".join(statements))
        victim.rename(data / "jobs")
        data.chmod(mode)

    return prepare


def open_inside(data: Path, victim: Path) -> None:
    served(data)
    (data / "jobs").chmod(0o770)


def of_a_job(name: str, put: Callable[[Path, Path], object], status: str = "done", id: str = A_JOB) -> Prepare:
    """A job of the database, and what `put` makes at `name`: the folder comes from an archive."""

    def prepare(data: Path, victim: Path) -> None:
        served(data)
        with closing(sqlite3.connect(data / "jobs.sqlite")) as db, db:
            columns = "id, name, size, start_seconds, duration_seconds, created, ended, status"
            db.execute(f"INSERT INTO jobs ({columns}) VALUES (?, 'a', 1, 0, 1, 1, 1, ?)", (id, status))
        (data / name).parent.mkdir(exist_ok=True)
        put(data / name, victim)

    return prepare


def link(there: Path, victim: Path) -> None:
    there.symlink_to(victim / A_JOB)


def a_link_itself(data: Path, victim: Path) -> None:
    data.rmdir()
    data.symlink_to(victim)


@pytest.mark.parametrize(
    "prepare",
    [
        *(linked("jobs"), linked("incoming"), linked("jobs", ours=True), a_link_itself, open_inside),
        *(of_a_job(f"jobs/{A_JOB}", link), of_a_job(f"incoming/{A_JOB}", link, "queued")),
        *(of_a_job(f"jobs/{A_JOB}/report.html", link), of_a_job(f"jobs/{A_JOB}", lambda there, _: there.touch())),
        of_a_job(f"incoming/{A_JOB}", lambda there, _: os.mkfifo(there)),
        of_a_job("jobs/notes", lambda there, _: there.mkdir(), "queued", f"../../thesis/{A_JOB}"),
        *(linked("jobs.sqlite", "chapter"), linked("jobs.sqlite-wal", "chapter", ours=True)),
        *(moved_in(), moved_in(0o777), moved_in(0o700, "PRAGMA user_version = 1", "CREATE TABLE jobs (id TEXT)")),
    ],
)
def test_a_folder_that_may_be_anothers_is_refused_and_left_as_it_is(
    prepare: Prepare, data: Path, victim: Path, tmp_path: Path
) -> None:
    prepare(data, victim)
    for _ in range(2):
        with pytest.raises(AVDetectError, match="--data"), serving(data):
            time.sleep(1)  # for a job to be run
    assert [path.read_text() for path in tmp_path.rglob("chapter")] == ["years of work"]
    assert [path.parent.name for path in tmp_path.rglob("upload")] == [A_JOB]


def test_a_file_a_folder_in_use_and_one_of_another_user_are_refused(data: Path, monkeypatch) -> None:
    (data.parent / "file").touch()
    with pytest.raises(ConfigError, match="--data"):
        serving(data.parent / "file").__enter__()
    with serving(data), pytest.raises(ConfigError, match="another avdetect serve"):
        serving(data).__enter__()
    served(data)  # the lock went with the first one
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(AVDetectError, match="belongs to another user"):
        serving(data).__enter__()


def test_only_what_the_server_has_named_is_removed(data: Path) -> None:
    served(data)
    for parent in ("jobs", "incoming"):
        (data / parent / "notes").mkdir()
        (data / parent / A_JOB).mkdir()
    served(data)
    for parent in ("jobs", "incoming"):
        assert os.listdir(data / parent) == ["notes"]


def test_all_that_is_on_the_disk_is_private(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        with running(tmp_path / "data", serve_scorers.by_text) as server:
            id = server.submit()
            server.ended(id)
            paths = [tmp_path / "data", *(tmp_path / "data").iterdir(), server.service.runner.folder(id)]
            names = {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "lock", "jobs", "incoming"}
            assert {path.name for path in paths} >= names
            assert not [path for path in paths if path.stat().st_mode & 0o077]
    finally:
        os.umask(before)
