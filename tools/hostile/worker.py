"""The process that scores the cases: one detector, behind a filter that kills whoever asks for a network."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.measuring import kib, proc_status

from avdetect._csv import csv_line
from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.jobs.process import Work, children
from avdetect.report.data import Failure, Result, to_dict, to_row
from avdetect.report.text import render
from hostile.guard import adopt_orphans, forbid_network

ended: list[int] = []  # exit statuses of this process's children, since the case began


class _Watched(subprocess.Popen):
    """A child whose end is noted, whichever method hears of it: all of them set `returncode`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "returncode" and value is not None:
            ended.append(value)
        super().__setattr__(name, value)


def scoring(limits: MediaLimits, scratch: Path, sabotage: Callable[[], None] | None = None) -> Work:
    """The task of the process: score a path, and say what came of it and what was left over.

    sabotage: run first; how the tests make sure that what is forbidden would be seen.
    """
    os.chdir(scratch)
    with open(scratch.parent / "worker.log", "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    adopt_orphans()
    forbid_network()
    subprocess.Popen = _Watched  # type: ignore[misc]
    if sabotage:
        sabotage()
    score = ScoringOptions(device="cpu", limits=limits).scorer(threads=1)
    return lambda path, report: _measured(score, path)


def _measured(score: Callable[[str], Result], path: str) -> dict[str, Any]:
    ended.clear()
    before = set(os.listdir("/proc/self/fd"))
    result = score(path)
    gc.collect()  # what only a cycle holds open is not left open
    return {
        "result": to_dict(result),
        "reported": _reported(result),
        "network": -signal.SIGSYS in ended,
        "files_left_open": len(set(os.listdir("/proc/self/fd")) - before),
        "resident_kib": kib(proc_status()["VmRSS"]),
        "children_left": children(os.getpid()),
    }


def _reported(result: Result) -> str:
    """What is wrong with the reports of the result; nothing, if they can be made and are harmless."""
    try:
        json.dumps(to_dict(result), allow_nan=False)
        row = to_row(to_dict(result))
        shown = [csv_line(row.values())[:-1] if isinstance(result, Failure) else render(result).plain]
        shown += [str(cell) for cell in row.values() if cell is not None]
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    steering = {char for text in shown for char in text if not char.isprintable()} - {"\n"}
    return f"control characters in a report: {sorted(steering)}" if steering else ""
