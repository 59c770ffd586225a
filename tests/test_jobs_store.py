"""Rows in SQLite after every kind of end, what of other files is refused, and what others may have put there."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest
from batch_commands import ROOT

from avdetect.errors import AVDetectError, ConfigError, ServerError
from avdetect.jobs.store import Kind, Store

KIND = Kind("notebook", 0x41567373, 1, "CREATE TABLE notes (text TEXT PRIMARY KEY)", "name another --file")
IDENTITY = {"bundle": "abc", "limits": {"x": 1}}


def add(store: Store, text: str) -> bool:
    return store.change("INSERT INTO notes VALUES (?)", text)


def texts(store: Store) -> list[str]:
    return [row["text"] for row in store.rows("SELECT text FROM notes ORDER BY text")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "notes", KIND, IDENTITY) as store:
        add(store, "a")
    return tmp_path / "notes"


def test_what_was_added_is_there_the_next_time(path: Path) -> None:
    with Store(path, KIND, dict(reversed(IDENTITY.items()))) as store:
        assert add(store, "b")
        assert not store.change("DELETE FROM notes WHERE text = 'c'")
        with pytest.raises(ZeroDivisionError), store.transaction() as db:
            print(db.execute("INSERT INTO notes VALUES ('half')").rowcount / 0)
        with pytest.raises(AVDetectError, match=r"cannot write .*UNIQUE.*; what is done is kept, run again"):
            add(store, "a")
    with Store(path, KIND, IDENTITY) as store:
        assert texts(store) == ["a", "b"]
    assert [file.name for file in path.parent.iterdir()] == ["notes"]


KILLED = """
import os, signal, sys
from pathlib import Path
from avdetect.jobs.store import Kind, Store
store = Store(Path(sys.argv[1]), Kind(*eval(sys.argv[2])), {identity})
for number in range(200):
    store.change("INSERT INTO notes VALUES (?)", f"{{number:03d}}")
store._db.execute("BEGIN IMMEDIATE")
store._db.execute("INSERT INTO notes VALUES ('half')")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_row_and_keeps_no_half(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED.format(identity=IDENTITY), tmp_path / "notes", repr(astuple(KIND))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with Store(tmp_path / "notes", KIND, IDENTITY) as store:
        assert texts(store) == [f"{number:03d}" for number in range(200)]


def test_another_identity_is_refused_and_nothing_is_lost(path: Path) -> None:
    for other, said in (
        ({"bundle": "xyz"}, r"bundle: abc there, xyz now\): name another --file"),
        ({"limits": {"x": 2}}, r"limits\.x: 1 there, 2 now"),
        ({"new": 1}, "new: None there, 1 now"),
    ):
        with pytest.raises(ConfigError, match=said):
            Store(path, KIND, IDENTITY | other)
    with Store(path, KIND, IDENTITY) as store:
        assert texts(store) == ["a"]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    for content in (b'{"journal": "avdetect.journal/1"}\n', b"\0" * 4096):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"is no notebook of this avdetect.*: name another --file"):
            Store(path, KIND, IDENTITY)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["notes"]


@pytest.mark.parametrize("statement", ["user_version = 99", "application_id = 1", "application_id = 0"])
def test_a_database_of_another_kind_is_refused(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA {statement}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another version" if "99" in statement else "another program"):
        Store(path, KIND, IDENTITY)
    assert path.read_bytes() == before
    path.write_bytes(before[:4096] + b"\xff" * (len(before) - 4096))
    with pytest.raises(AVDetectError), Store(path, KIND, IDENTITY) as store:  # a damaged one is a typed error too
        texts(store)


def test_who_may_read_while_a_run_writes(path: Path) -> None:
    with Store(path, KIND, IDENTITY), closing(sqlite3.connect(path, 0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT * FROM notes")
        with pytest.raises(ConfigError, match="is being written by another run"):
            Store(path, KIND, IDENTITY)
    with Store(path, KIND, IDENTITY, shared=True) as store, closing(sqlite3.connect(path, 0)) as other:
        assert other.execute("SELECT * FROM notes").fetchall() == [("a",)]
        other.execute("BEGIN IMMEDIATE")
        store._db.execute("PRAGMA busy_timeout = 0")
        assert texts(store) == ["a"]  # reading waits for nobody who writes


def test_who_reads_does_not_wait_with_a_thread_that_waits_to_write(path: Path) -> None:
    """Another process holds the file, as a backup may."""
    with (
        Store(path, KIND, IDENTITY, shared=True) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        other.execute("BEGIN IMMEDIATE")
        writing = thread.submit(add, store, "b")
        while not store._lock.locked():
            time.sleep(0.001)
        assert texts(store) == ["a"]
        assert not writing.done()
        other.execute("ROLLBACK")
        assert writing.result()
        assert texts(store) == ["a", "b"]


def test_texts_of_rows_that_were_deleted_leave_the_disk(path: Path) -> None:
    with Store(path, KIND, IDENTITY) as store:
        for number in range(20):
            add(store, f"unmistakable {number}")
        store.change("DELETE FROM notes")
        store.sync()
        assert not [file for file in path.parent.iterdir() if b"unmistakable" in file.read_bytes()]


def test_the_disk_is_told_when_it_is_time_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = path.with_name("notes-wal")
    with Store(path, KIND, IDENTITY) as store:
        add(store, "b")
        store.sync_if_due()
        assert wal.stat().st_size > 0
        monkeypatch.setattr("avdetect.jobs.store._SYNC_SECONDS", -1)
        store.sync_if_due()
        assert wal.stat().st_size == 0  # all of it stands in the file itself
        monkeypatch.setattr(store, "sync", lambda: pytest.fail("nothing has changed"))
        store.sync_if_due()


def test_a_full_disk_is_a_typed_error_and_keeps_what_was_added(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(tmp_path / "notes", KIND, IDENTITY, error=ServerError) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 * 1024, hard))  # of any file
        try:
            with pytest.raises(ServerError, match=r"cannot write .*notes: disk I/O error; what is done is kept"):
                fill(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        kept = texts(store)
    with Store(tmp_path / "notes", KIND, IDENTITY) as store:
        assert 3 < len(kept) < 200
        assert [text[:3] for text in texts(store)] == [f"{number:03d}" for number in range(len(kept))]
        add(store, "there is room again")


def fill(store: Store) -> None:
    for number in range(200):
        add(store, f"{number:03d}" + "x" * 1000)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"cannot write .*absent/notes: No such file"):
        Store(tmp_path / "absent" / "notes", KIND, IDENTITY, error=ServerError)
    with pytest.raises(ConfigError, match="is no regular file"):
        Store(tmp_path, KIND, IDENTITY)
    with pytest.raises(ConfigError, match=r"/dev/full .*name another --file"):
        Store(Path("/dev/full"), KIND, IDENTITY)


@pytest.mark.parametrize("beside", ["", "-wal", "-journal"])
def test_what_others_can_write_own_or_link_is_refused(path: Path, beside: str, monkeypatch) -> None:
    file, victim = path.with_name(path.name + beside), path.with_name("victim")
    victim.touch()
    file.touch()
    for mode in (0o620, 0o602):
        file.chmod(mode)
        with pytest.raises(ConfigError, match=f"notes{beside} can be written by others"):
            Store(path, KIND, IDENTITY)
    file.unlink()
    file.symlink_to(victim)
    with pytest.raises(ConfigError, match="is a link"):
        Store(path, KIND, IDENTITY)
    assert victim.read_bytes() == b""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match=r"belongs to another user.*name another --file"):
        Store(path.with_name("theirs"), KIND, IDENTITY)


def test_what_comes_to_stand_beside_it_meanwhile_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look and SQLite's somebody has put a log of changes there."""
    begin = Store._begin

    def late(store: Store, *arguments) -> None:
        begin(store, *arguments)
        path.with_name("notes-wal").chmod(0o666)

    monkeypatch.setattr(Store, "_begin", late)
    with pytest.raises(ConfigError, match="notes-wal can be written by others"):
        Store(path, KIND, IDENTITY)


def test_a_log_whose_file_is_gone_is_not_believed(tmp_path: Path) -> None:
    """Somebody deletes the file that a killed run has left, and not the one beside it."""
    path, kept = tmp_path / "notes", tmp_path / "kept"
    with Store(path, KIND, IDENTITY) as store:
        add(store, "of before")
        kept.write_bytes(path.with_name("notes-wal").read_bytes())
    path.unlink()
    kept.rename(path.with_name("notes-wal"))
    path.with_name("notes-wal").chmod(0o600)
    with Store(path, KIND, IDENTITY) as store:
        assert texts(store) == []


def test_under_any_umask_it_is_ours_alone_and_without_a_name_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Store(None, KIND, IDENTITY) as store:
        add(store, "a" * 3_000_000)
        assert len(texts(store)[0]) == 3_000_000
    assert os.listdir() == []
    (tmp_path / "here").rmdir()
    before = os.umask(0)
    try:
        for shared in (False, True):
            with Store(tmp_path / "notes", KIND, IDENTITY, shared=shared) as store:
                add(store, str(shared))
                assert not [file for file in tmp_path.iterdir() if file.stat().st_mode & 0o077]
    finally:
        os.umask(before)
