"""The journal after every kind of end, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from batch_scorers import EMPTY

from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.journal import Journal
from avdetect.errors import AVDetectError, ConfigError
from avdetect.report.data import Failure, to_dict, to_row

IDENTITY = {"bundle": "abc", "start": 0.0, "limits": {"x": 1}}
NAMES = ["a.mp4", "b\n\udcff.mp4", "ü.mp4"]  # the second is no UTF-8


def outcome(name: str, size: int | None = 1, message: str = "m") -> Outcome:
    return Outcome(WorkItem(name, size, 5), to_dict(Failure(name, "MediaError", message)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.csv.journal"
    with Journal(path, IDENTITY) as journal:
        for name in NAMES:
            journal.add(outcome(name))
    return path


def test_it_holds_what_was_added_for_the_file_as_it_was(path: Path) -> None:
    with Journal(path, dict(reversed(IDENTITY.items()))) as journal:
        assert all(journal.holds(name, 1, 5) for name in NAMES)
        assert not journal.holds("a.mp4", 2, 5)
        assert not journal.holds("a.mp4", 1, 6)
        assert not journal.holds("other", 1, 5)
        assert [journal.read(name)["path"] for name in NAMES] == NAMES
        journal.add(outcome("a.mp4", 2, "later"))
        assert journal.holds("a.mp4", 2, 5)
        assert journal.read("a.mp4")["message"] == "later"
    with Journal(path, IDENTITY) as journal:
        assert journal.read("a.mp4")["message"] == "later"
        assert len(journal) == 3


def test_wherever_it_was_torn_it_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Journal(path, IDENTITY) as journal:
            kept = max(0, sum(end <= cut for end in ends) - 1)
            assert len(journal) == kept
            for name in NAMES[kept:]:
                journal.add(outcome(name))
        assert path.read_bytes() == whole


def test_failures_can_be_forgotten(path: Path) -> None:
    with Journal(path, IDENTITY, retry_failed=True) as journal:
        assert len(journal) == 0


def test_other_options_are_refused_and_nothing_is_lost(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"bundle: abc there, xyz now.*another --out, or delete"):
        Journal(path, IDENTITY | {"bundle": "xyz"})
    with pytest.raises(ConfigError, match="limits"):
        Journal(path, IDENTITY | {"limits": {"x": 2}})
    with pytest.raises(ConfigError, match="new: None there, 1 now"):
        Journal(path, IDENTITY | {"new": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my notes\n", b"my notes", b'{"a": 1}\n', b"[]\n", b"\0" * 40])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no journal"):
        Journal(path, IDENTITY)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line", ["", "x", "[]", '{"path": "a"}', '{"path": "a", "size": 1, "mtime_ns": 1, "result": 1}']
)
def test_damage_in_the_middle_is_said(path: Path, line: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(ConfigError, match="line 3: it is damaged"):
        Journal(path, IDENTITY)


def test_two_runs_do_not_write_one_journal(path: Path) -> None:
    with Journal(path, IDENTITY), pytest.raises(ConfigError, match="another run"):
        Journal(path, IDENTITY)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no regular file"):
        Journal(Path("/dev/full"), IDENTITY)
    with pytest.raises(AVDetectError, match="Is a directory"):
        Journal(tmp_path, IDENTITY)


def test_without_a_name_it_is_gone_afterwards(tmp_path: Path) -> None:
    with Journal(None, IDENTITY) as journal:
        journal.add(outcome("a"))
        assert journal.read("a") == json.loads(json.dumps(outcome("a").result))


STEERS = "\x1b[2J\x1b]0;owned\x07\u202e"


def test_what_another_user_put_there_is_not_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match=r"belongs to another user.*name another --out"):
        Journal(path, IDENTITY)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_can_write_is_not_gone_on_with(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match="can be written by others"):
        Journal(path, IDENTITY)


def test_under_any_umask_a_run_can_go_on(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for _ in range(2):
            with Journal(tmp_path / "new.journal", IDENTITY) as journal:
                journal.add(outcome("a.mp4"))
    finally:
        os.umask(before)
    assert (tmp_path / "new.journal").stat().st_mode & 0o022 == 0


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / "r.csv.journal").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="is a link"):
        Journal(tmp_path / "r.csv.journal", IDENTITY)
    assert (tmp_path / "victim").read_bytes() == b""


STEERED = {
    "path": {"path": STEERS},
    "reason": {"reason": STEERS},
    "verdict": {"verdict": STEERS},
    "missing": {"missing": {STEERS: STEERS}},
    "warnings": {"warnings": [STEERS]},
    "error": to_dict(Failure("a.mp4", STEERS, STEERS)),
}


@pytest.mark.parametrize("change", STEERED.values(), ids=STEERED)
def test_no_cell_steers_a_terminal(change: dict) -> None:
    row = to_row(to_dict(EMPTY) | change)
    assert all(cell.isprintable() for cell in row.values() if isinstance(cell, str))


@pytest.mark.parametrize("change", [{"verdict": "innocent"}, {"verdict": STEERS}, {"threshold": "high"}])
def test_a_verdict_that_is_none_is_damage(path: Path, change: dict) -> None:
    line = {"path": "c.mp4", "size": 1, "mtime_ns": 5, "result": to_dict(EMPTY) | change}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(ConfigError, match="line 5: it is damaged"):
        Journal(path, IDENTITY)
