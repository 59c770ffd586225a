"""One case after the other through the worker, with everything that it must not do looked for after each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmark.measuring import kib, proc_status, tree

from avdetect.config import MediaLimits
from avdetect.jobs.process import ANSWER, READY, Process
from hostile.case import Case, Place, render
from hostile.guard import Secret
from hostile.worker import scoring

# Tight, so that what runs into a limit does so soon. The rest are avdetect's own.
LIMITS = MediaLimits(
    max_duration_seconds=30, max_wall_seconds=12, stall_seconds=6, max_file_seconds=20, max_memory_bytes=1 << 30
)
MOST_SECONDS = 30.0  # what comes after the last look at the clock, on a busy machine, is allowed for
MOST_MEGABYTES = 2048  # the worker and its two ffmpegs together
TYPED = frozenset(("MediaError", "LimitError"))  # how a file may fail; anything else is a bug of ours
_MOST_HASHED = 1 << 28  # bytes


@dataclass
class Row:
    """What came of a case."""

    family: str
    case: str
    outcome: str = "none"  # fake, real, abstain, or the class of the error
    seconds: float = 0.0
    megabytes: float = 0.0  # the most that the worker and its children held in memory at one time
    resident: float = 0.0  # megabytes that the worker still held afterwards
    sha256: str = ""  # of the file as it was before; empty if it is no file
    says: str = ""  # the reason or message
    violations: list[str] = field(default_factory=list)


class Campaign:
    """The worker and the watches. A context manager. Needs Linux with seccomp and inotify."""

    def __init__(self, folder: Path, seed: int = 0, sabotage: Callable[[], None] | None = None) -> None:
        self.folder, self.seed, self._sabotage = folder, seed, sabotage
        self.seeds = render(folder / "seeds")
        self._work, self._cwd = emptied(folder / "case"), emptied(folder / "home")
        (folder / "secret").mkdir(exist_ok=True)
        self.secret = Secret(folder / "secret" / "secret.txt")
        self._log = folder / "worker.log"
        self._process: Process | None = None

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self.secret.close()

    def run(self, case: Case) -> Row:
        """Make the case, score it, judge, and delete it."""
        row = Row(case.family, case.name)
        try:
            path = os.fspath(case.make(Place(self._work, self.seeds, case.rng(self.seed), self.secret.path)))
        except (RuntimeError, OSError) as error:
            row.outcome, row.says, row.violations = "not made", str(error), ["the case could not be made"]
            return row
        row.sha256, opened = _digest(path), self.secret.opened()
        self._begin()
        files, logged = listing(self._work), self._log.stat().st_size
        over = threading.Event()
        disturbing = threading.Thread(target=case.disturb or (lambda path, over: None), args=(Path(path), over))
        disturbing.start()
        answer, row.seconds, row.megabytes = self._ask(path)
        over.set()
        disturbing.join()
        row.resident = answer["resident_kib"] / 1024 if answer else 0.0
        left = listing(self._cwd) | (set() if case.disturb else listing(self._work) - files)
        noise = self._log.read_bytes()[logged:][:300]
        row.violations = [said for wrong, said in self._judge(row, case, answer) if wrong]
        row.violations += [f"files left: {sorted(left)[:3]}"] if left else []
        row.violations += [f"written to standard error: {noise!r}"] if noise else []
        row.violations += ["the secret file was opened"] if self.secret.opened() > opened else []
        for folder in (self._work, self._cwd):
            emptied(folder)
        return row

    def _judge(self, row: Row, case: Case, answer: dict[str, Any] | None) -> Iterator[tuple[Any, str]]:
        """Pairs: whether something is wrong, and the words for it."""
        yield row.seconds > MOST_SECONDS, f"took {row.seconds:.0f} s"
        yield row.megabytes > MOST_MEGABYTES, f"took {row.megabytes:.0f} MB"
        if answer is None:
            row.outcome = self._end()
            yield True, "the network was asked for" if row.outcome == "SIGSYS" else "the worker gave no answer"
            return
        result = answer["result"]
        failed = result["status"] == "failed"
        row.outcome = result["error"] if failed else result["verdict"]
        row.says = says = result["message"] if failed else "; ".join([result["reason"], *result["warnings"]])
        expected = not case.error or (failed and re.search(case.error, says))
        yield failed and row.outcome not in TYPED, f"not a typed error of a file: {says}"
        yield failed and case.scored, f"it can be scored: {says}"
        yield not expected, f"not the error that says {case.error!r}: {says}"
        yield "Traceback" in says or Secret.content in json.dumps(result), "a traceback or a secret in the result"
        yield answer["network"], "ffmpeg asked for the network"
        yield answer["files_left_open"], f"{answer['files_left_open']} files left open"
        yield answer["children_left"], f"processes left: {answer['children_left']}"
        yield answer["reported"], answer["reported"]

    def _begin(self) -> Process:
        """Have a worker."""
        if self._process is None:
            with mock.patch.dict(os.environ, TMPDIR=str(self._cwd), HOME=str(self._cwd)):
                self._process = Process(partial(scoring, LIMITS, self._cwd, self._sabotage))
            if READY not in (self._process.receive() or {}):
                raise RuntimeError(f"the worker did not begin: {self._log.read_text(errors='replace')[-2000:]}")
        return self._process

    def _ask(self, path: str) -> tuple[dict[str, Any] | None, float, float]:
        """(answer, wall seconds, most megabytes held); no answer where the worker died or went on for ever."""
        process = self._begin()
        assert process.pid is not None
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # its peak begins anew
        began, most, answer = time.monotonic(), 0, None
        process.send(path)
        while time.monotonic() - began < 1.5 * MOST_SECONDS:
            came = process.connection.poll(0.01)
            most = max(most, _held(process.pid))  # also of what has just ended
            if came:
                answer = (process.receive() or {}).get(ANSWER)
                break
        return answer, time.monotonic() - began, most / 1024

    def _end(self) -> str:
        """End the worker, if there is one: the signal or exit code of its end."""
        process, self._process = self._process, None
        return process.kill() if process else ""


def _held(pid: int) -> int:
    """KiB: the peaks of the process and of the programs that it runs now."""
    total, ours = 0, os.readlink(f"/proc/{pid}/exe") if os.path.exists(f"/proc/{pid}/exe") else ""
    for process in tree(pid):
        with contextlib.suppress(OSError, KeyError):  # it has ended since
            # Between fork and exec a child shows its parent's memory as its own.
            if process == pid or os.readlink(f"/proc/{process}/exe") != ours:
                total += kib(proc_status(process)["VmHWM"])
    return total


def listing(folder: Path) -> set[str]:
    return {os.path.join(parent, name) for parent, folders, names in os.walk(folder) for name in folders + names}


def _digest(path: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size < _MOST_HASHED:  # of size 0: /proc, which may block
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return ""


def remove(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def emptied(folder: Path) -> Path:
    remove(folder)
    folder.mkdir()
    return folder
