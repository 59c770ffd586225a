"""`avdetect score` as a process, for the tests that end it, its workers, or wait for what it has written."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def start(*arguments: object, cwd: Path, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "avdetect.cli", "score", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A runner in the background hands down SIG_IGN, and Python would not hear of an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def kept_in(journal: Path) -> list[str]:
    """The files whose result a journal holds, when no run is writing it."""
    with closing(sqlite3.connect(journal)) as db:
        return [json.loads(path) for (path,) in db.execute("SELECT path FROM results ORDER BY rowid")]


def rows_in(table: Path) -> int:
    """Whole lines of a CSV, without its header, or of JSON Lines; a run may be writing it."""
    text = table.read_bytes() if table.exists() else b""
    return max(0, text.count(b"\n") - (table.suffix == ".csv"))


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` gives, once that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)
    return value


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Until then the process must go on."""
    eventually(lambda: condition() or process.poll() is not None)
    assert process.poll() is None or condition(), process.communicate()


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                pass
    return found


def named_like(command: bytes, pid: int) -> list[int]:
    """The processes below `pid` whose command line holds that."""
    found = []
    for child in family(pid)[1:]:
        try:
            found += [child] if command in Path(f"/proc/{child}/cmdline").read_bytes() else []
        except OSError:
            pass
    return found


def gone(pids: list[int]) -> bool:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    return all(state(pid) in "XZ" for pid in pids)


def all_gone(pids: list[int], seconds: float = 5) -> bool:
    """Whether they have ended, or do so within that time: the kernel, or Ray, is told to end them, and does."""
    return eventually(lambda: gone(pids), seconds)
