"""The process that scores the cases: one detector, behind a filter that kills whoever asks for a network."""

import ctypes
import gc
import json
import os
import platform
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.measuring import memory_mib

from avdetect._csv import csv_line
from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError
from avdetect.jobs.process import Work, children
from avdetect.report.data import Failure, Result, to_dict, to_row
from avdetect.report.text import render

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _MODE_FILTER = 22, 38, 36, 2
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _FAMILY_AT = 0, 4, 16  # in struct seccomp_data
# Machine -> its audit number, and the numbers of socket and io_uring_setup (which could open sockets unseen).
_MACHINES = {"x86_64": (0xC000003E, 41, 425), "aarch64": (0xC00000B7, 198, 425)}
_X32 = 0x40000000  # system calls of the x32 ABI have numbers of their own, from here on

ended: list[int] = []  # exit statuses of this process's children, since the case began


class _Watched(subprocess.Popen):
    """A child whose end is noted, whichever method hears of it: all of them set `returncode`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "returncode" and value is not None:
            ended.append(value)
        super().__setattr__(name, value)


def scoring(limits: MediaLimits, scratch: Path, sabotage: Callable[[], None] | None = None) -> Work:
    """The task of the process: score a path, and say what came of it and what was left over. sabotage: run first; how
    the tests make sure that what is forbidden would be seen."""
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
        "resident": memory_mib(os.getpid()),
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


def can_forbid() -> bool:
    return platform.machine() in _MACHINES and Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def forbid_network() -> None:
    """From now on any socket but a local (AF_UNIX) one kills this process with SIGSYS, and so in all its children. It
    cannot be undone. Raises ConfigError where there is no such filter."""
    if not can_forbid():
        raise ConfigError(f"no seccomp filter for {platform.machine()}: run the campaign on Linux, x86_64 or aarch64")
    machine, sockets, rings = _MACHINES[platform.machine()]
    kill, allow = 8, 9  # where these two stand below; jumps count from the next line
    lines = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 0, kill - 2, machine),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, kill - 4, 0, _X32),
        (_EQUAL, kill - 5, 0, rings),
        (_EQUAL, 0, allow - 6, sockets),
        (_LOAD, 0, 0, _FAMILY_AT),
        (_EQUAL, allow - 8, 0, socket.AF_UNIX),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HP", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0):
        raise ConfigError(f"the filter of system calls was refused: {os.strerror(ctypes.get_errno())}")


def adopt_orphans(adopt: bool = True) -> None:
    """From now on processes below this one whose parent ends become children of this one, so that they are seen."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
