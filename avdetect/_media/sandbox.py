"""What a process that reads a stranger's file may touch, where the kernel has Landlock (Linux 5.13 and later).

It reads that file and the code that it is made of, and nothing else: no other file, no writing, no TCP (since Linux
6.7), no signal to others (since 6.12). https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import py_landlock as landlock
from py_landlock.abi import get_supported_fs, get_supported_net, get_supported_scope
from py_landlock.prctl import set_no_new_privs

T = TypeVar("T")
_CODE = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
# Where Nix, Guix and Homebrew keep all programs and libraries, which everybody may read.
_STORES = ("/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew/Cellar", "/home/linuxbrew/.linuxbrew/lib")


@cache
def sandbox() -> str | None:
    """What confines the children, for people; None without Landlock."""
    try:
        return f"Landlock ABI {landlock.get_abi_version()}"
    except landlock.LandlockError:
        return None


def start(command: Sequence[str], file: int, readable: Sequence[str] = (), **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen(command, **options)` of a process that can open the file of the descriptor `file` once more,
    read `readable` (files and folders) and run the code of this program. Its standard input is empty. Raises OSError.
    """
    with open(os.devnull, "rb") as nothing:
        return confined(lambda: subprocess.Popen(command, stdin=nothing, **options), command[0], file, readable)


def confined(act: Callable[[], T], program: str, file: int | None = None, readable: Sequence[str] = ()) -> T:
    """What `act` gives; it runs `program`, which has the rights that `start` says. Raises OSError, and what it raises.
    A thread's rights are those of what it starts, and nobody gets them back: so `act` runs in a thread of its own."""

    def restricted() -> T:
        _restrict(file, [*readable, *_code(program)])
        return act()

    if sandbox() is None:
        return act()
    try:
        with ThreadPoolExecutor(1, "avdetect-sandbox") as thread:
            return thread.submit(restricted).result()
    except landlock.LandlockError as error:
        raise OSError(errno.EPERM, f"Landlock: {error}") from error
    except RuntimeError as error:  # a thread cannot be started
        raise OSError(errno.EAGAIN, str(error)) from error


def _restrict(file: int | None, code: Sequence[str]) -> None:
    """Take all rights from this thread but those to read `file` and to read and run `code`."""
    abi = landlock.get_abi_version()
    rights = landlock.RulesetAttr()
    rights.handled_access_fs, rights.handled_access_net = get_supported_fs(abi), get_supported_net(abi)
    rights.scoped = get_supported_scope(abi)
    ruleset = landlock.create_ruleset(rights)
    try:
        if file is not None:
            _allow_file(ruleset, file)
        for path in code:
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # not on this machine, or not for us
            try:
                access = landlock.AccessFs.READ_FILE | landlock.AccessFs.EXECUTE
                _allow(ruleset, descriptor, access | landlock.AccessFs.READ_DIR if os.path.isdir(path) else access)
            finally:
                os.close(descriptor)
        set_no_new_privs()
        landlock.restrict_self(ruleset, None)
    finally:
        os.close(ruleset)


def _allow_file(ruleset: landlock.RulesetFd, file: int) -> None:
    try:
        _allow(ruleset, file, landlock.AccessFs.READ_FILE)
    except landlock.LandlockError:
        if ctypes.get_errno() != errno.EBADFD:  # a file in memory (memfd_create): Landlock leaves it open to all
            raise


def _allow(ruleset: landlock.RulesetFd, descriptor: int, access: landlock.AccessFs) -> None:
    rule = landlock.PathBeneathAttr()
    rule.allowed_access, rule.parent_fd = access, descriptor
    landlock.add_rule(ruleset, rule)


def _code(program: str) -> list[str]:
    """Where the program and what it loads may lie: of its own folder the libraries alone, since it may lie among files
    of its user, and a library folder beside that one, as conda has it."""
    found = Path(os.path.realpath(shutil.which(program) or program))
    beside = [str(found), *map(str, found.parent.glob("*.so*")), str(found.parent.parent / "lib")]
    python = [
        str(Path(prefix, name))
        for prefix in (sys.prefix, sys.base_prefix)
        for name in ("bin", "lib", "lib64", "pyvenv.cfg")
    ]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [*_CODE, *_STORES, *python, *beside, *filter(None, libraries)]
