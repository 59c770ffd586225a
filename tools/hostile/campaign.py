"""One case after the other through the worker, with everything that it must not do looked for after each."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

from benchmark.measuring import memory_mib, tree

from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.jobs.process import ANSWER, READY, Process
from hostile.case import Case, Place, render
from hostile.worker import scoring

# Tight, so that what runs into a limit does so soon. The rest are avdetect's own.
LIMITS = MediaLimits(
    max_duration_seconds=30, max_wall_seconds=12, stall_seconds=6, max_file_seconds=20, max_memory_bytes=1 << 30
)
MOST_SECONDS = 30.0  # what comes after the last look at the clock, on a busy machine, is allowed for
MOST_MEGABYTES = 2048  # the worker and its two ffmpegs together
TYPED = frozenset(("MediaError", "LimitError"))  # how a file may fail; anything else is a bug of ours


@dataclass
class Row:
    family: str
    case: str
    outcome: str = "none"  # fake, real, abstain, or the class of the error
    seconds: float = 0.0
    megabytes: float = 0.0  # the most that the worker and its children held in memory at one time
    resident: float = 0.0  # megabytes that the worker still held afterwards
    says: str = ""  # the reason or message
    violations: list[str] = field(default_factory=list)


class Secret:
    """A file that nobody may open. `opened` says how often somebody did, `content` what he would have read."""

    content = "SECRET-7f3c19"

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(f"{self.content}\n" * 20, encoding="utf-8")
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        in_access, in_open = 0x1, 0x20  # sys/inotify.h
        if self._watch < 0 or libc.inotify_add_watch(self._watch, os.fsencode(path), in_access | in_open) < 0:
            raise ConfigError(f"inotify: {os.strerror(ctypes.get_errno())}; raise fs.inotify.max_user_instances")
        self._opened = 0

    def opened(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._watch, 1 << 16):
                self._opened += len(data) // 16  # events about a watched file carry no name: they are alike long
        return self._opened

    def close(self) -> None:
        os.close(self._watch)


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self.secret.close()

    def run(self, case: Case) -> Row:
        row = Row(case.family, case.name)
        try:
            path = os.fspath(case.make(Place(self._work, self.seeds, case.rng(self.seed), self.secret.path)))
        except (RuntimeError, OSError) as error:
            row.outcome, row.says, row.violations = "not made", str(error), ["the case could not be made"]
            return row
        self._begin()
        opened, files, logged = self.secret.opened(), listing(self._work), self._log.stat().st_size
        over = threading.Event()
        disturbing = threading.Thread(target=case.disturb or (lambda path, over: None), args=(Path(path), over))
        disturbing.start()
        answer = self._ask(path, row)
        over.set()
        disturbing.join()
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
        result, row.resident = answer["result"], answer["resident"]
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
        if self._process is None:
            with mock.patch.dict(os.environ, TMPDIR=str(self._cwd), HOME=str(self._cwd)):
                self._process = Process(partial(scoring, LIMITS, self._cwd, self._sabotage))
            if READY not in (self._process.receive() or {}):
                raise RuntimeError(f"the worker did not begin: {self._log.read_text(errors='replace')[-2000:]}")
        return self._process

    def _ask(self, path: str, row: Row) -> dict[str, Any] | None:
        """No answer where the worker died or went on for ever."""
        process = self._begin()
        assert process.pid is not None
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # its peak begins anew
        began, came = time.monotonic(), False
        process.send(path)
        while not came and row.seconds < 1.5 * MOST_SECONDS:
            came = process.connection.poll(0.01)
            row.megabytes = max(row.megabytes, _held(process.pid))  # also of what has just ended
            row.seconds = time.monotonic() - began
        return (process.receive() or {}).get(ANSWER) if came else None

    def _end(self) -> str:
        """The signal or exit code of the worker's end, if there was one."""
        process, self._process = self._process, None
        return process.kill() if process else ""


def _held(pid: int) -> float:
    """Megabytes: the peaks of the process and of the programs that it runs now."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(OSError):  # it has ended since
            # Between fork and exec a child shows its parent's memory as its own.
            if process == pid or not os.path.samefile(f"/proc/{process}/exe", f"/proc/{pid}/exe"):
                total += memory_mib(process, "VmHWM")
    return total


def listing(folder: Path) -> set[str]:
    return {os.path.join(parent, name) for parent, folders, names in os.walk(folder) for name in folders + names}


def emptied(folder: Path) -> Path:
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
