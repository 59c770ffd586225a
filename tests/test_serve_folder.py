"""The folder of `avdetect serve`: one that others had a hand in is refused, and nothing in it is touched."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from avdetect.errors import AVDetectError
from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
import serve_scorers
from serve_running import running

from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Files that are none of the server's."""
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter").write_text("years of work")
    (folder / "AAAAAAAAAAAAAAAAAAAAAA").mkdir()  # called as a job is
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def ours(data: Path) -> None:
    with Service(ServeSettings(data=data), serve_scorers.by_text):
        pass


def planted(data: Path, victim: Path) -> None:
    (data / "jobs.sqlite").touch()
    (data / "jobs").symlink_to(victim)


def planted_incoming(data: Path, victim: Path) -> None:
    (data / "incoming").symlink_to(victim)


def planted_beside_ours(data: Path, victim: Path) -> None:
    ours(data)
    (data / "jobs").rmdir()
    (data / "jobs").symlink_to(victim)


def empty_database(data: Path, victim: Path) -> None:
    (data / "jobs.sqlite").touch()
    victim.rename(data / "jobs")


def database_without_an_owner(data: Path, victim: Path) -> None:
    with sqlite3.connect(data / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 1")
        db.execute("CREATE TABLE jobs (id TEXT)")
    db.close()
    victim.rename(data / "jobs")


def linked_database(data: Path, victim: Path) -> None:
    (data / "jobs.sqlite").symlink_to(victim / "chapter")


def linked_side_file(data: Path, victim: Path) -> None:
    ours(data)
    (data / "jobs.sqlite-wal").symlink_to(victim / "chapter")


def open_to_all(data: Path, victim: Path) -> None:
    data.chmod(0o777)
    victim.rename(data / "jobs")


def open_inside(data: Path, victim: Path) -> None:
    ours(data)
    (data / "jobs").chmod(0o770)


def a_link_itself(data: Path, victim: Path) -> None:
    data.rmdir()
    data.symlink_to(victim)


@pytest.mark.parametrize(
    "prepare",
    [
        *(planted, planted_incoming, planted_beside_ours, empty_database, database_without_an_owner),
        *(linked_database, linked_side_file, open_to_all, open_inside, a_link_itself),
    ],
)
def test_a_folder_that_may_be_anothers_is_refused_and_left_as_it_is(
    prepare: Callable[[Path, Path], None], data: Path, victim: Path, tmp_path: Path
) -> None:
    prepare(data, victim)
    with pytest.raises(AVDetectError, match="--data"):
        Service(ServeSettings(data=data), serve_scorers.by_text).__enter__()
    assert [path.read_text() for path in tmp_path.rglob("chapter")] == ["years of work"]
    assert len(list(tmp_path.rglob("AAAAAAAAAAAAAAAAAAAAAA"))) == 1


def test_a_folder_of_another_user_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(AVDetectError, match="belongs to another user"):
        ours(data)


def test_only_what_the_server_has_named_is_removed(data: Path) -> None:
    ours(data)
    for parent in ("jobs", "incoming"):
        (data / parent / "notes").mkdir()
        (data / parent / ("A" * 22)).mkdir()
        (data / parent / ("B" * 22)).symlink_to(data / parent / "notes")
    ours(data)
    for parent in ("jobs", "incoming"):
        assert sorted(os.listdir(data / parent)) == ["B" * 22, "notes"]


def test_all_of_the_database_is_private(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        with running(tmp_path / "data", serve_scorers.by_text) as server:
            server.ended(server.submit())
            files = [path for path in (tmp_path / "data").iterdir() if path.is_file()]
            assert {path.name for path in files} >= {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "lock"}
            assert not [path for path in files if path.stat().st_mode & 0o077]
    finally:
        os.umask(before)
