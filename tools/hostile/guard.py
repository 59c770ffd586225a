"""What makes a forbidden act impossible to miss: a filter of system calls and a watched file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
from pathlib import Path

from avdetect.errors import ConfigError

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _MODE_FILTER = 22, 38, 36, 2
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _FAMILY_AT = 0, 4, 16  # in struct seccomp_data
# Machine -> its audit number, and the numbers of socket and io_uring_setup (which could open sockets unseen).
_MACHINES = {"x86_64": (0xC000003E, 41, 425), "aarch64": (0xC00000B7, 198, 425)}
_X32 = 0x40000000  # system calls of the x32 ABI have numbers of their own, from here on


def can_forbid() -> bool:
    """Whether this machine has such a filter."""
    return platform.machine() in _MACHINES and Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def forbid_network() -> None:
    """From now on any socket but a local (AF_UNIX) one kills this process with SIGSYS, and so in all its children.

    Without a socket nothing can be connected. It cannot be undone. Raises ConfigError where there is no such filter.
    """
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
        """Times it was opened or read so far."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._watch, 1 << 16):
                self._opened += len(data) // 16  # events about a watched file carry no name: they are alike long
        return self._opened

    def close(self) -> None:
        os.close(self._watch)
