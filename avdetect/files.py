"""Files that appear whole or not at all, whether a file is ours alone, and to which run it belongs.

In a folder where others can write, a name that can be guessed is a trap: a link may stand there before we come. So
what is written whole has a random name first (`replacing`), and what grows under its own is opened by `only_ours`.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from avdetect.errors import ConfigError


@contextmanager
def replacing(target: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """A new file (`name`: its path) that grows under a hidden, random name beside `target`, and takes its place when
    the block ends well. sync: it is on the disk before. Raises OSError."""
    hidden = target.with_name(f".avdetect-{os.urandom(8).hex()}.partial")
    file = hidden.open("xb")  # made by this call, or an error: no link is followed
    try:
        yield file
        file.flush()
        if sync:
            os.fsync(file.fileno())
        file.close()
        os.replace(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)
        file.close()  # last: closing writes what is left, for which the disk may have no room


def sync_folder(folder: Path) -> None:
    """Put the names of its files on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def only_ours(name: str, flags: int) -> int:
    """An `opener` for `open`, in any mode: what `planted` tells of is an OSError and is left as it is, and nothing is
    waited for. What it makes only we can write."""
    try:
        descriptor = os.open(name, flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads, a socket
            raise
        raise OSError(error.errno, f"{name} is a link or no regular file", name) from error
    try:
        if why := planted(os.fstat(descriptor)):
            raise OSError(errno.EPERM, f"{name} {why}", name)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def planted(status: os.stat_result) -> str | None:
    """Why we write into no such file: somebody else may have put it there. None: it is a file of our own."""
    if why := _of_others(status):
        return why
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    return None if status.st_nlink == 1 else "has another name too (a hard link)"


def not_ours(path: Path) -> str | None:
    """Why what stands at `path` may hold what others put there; None where it is ours alone. Raises OSError."""
    status = os.lstat(path)
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return _of_others(status) or ("can be written by others (chmod go-w)" if others else None)


def _of_others(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    return None if status.st_uid == os.geteuid() else "belongs to another user"


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """A file of this content, as `replacing` makes it. Raises OSError."""
    with replacing(path, sync=sync) as file:
        file.write(content)


def write_json(path: Path, values: Any) -> None:
    """One JSON document, on the disk afterwards. Raises OSError."""
    write_whole(path, f"{json.dumps(values, indent=1)}\n".encode(), sync=True)


def open_run_folder(folder: Path, identity: Mapping[str, Any], advice: str) -> None:
    """Bind the folder to one run: write `identity` (JSON) into its run.json, or see that it stands there already.
    advice: what to do with a folder of another run. Raises ConfigError for that, and OSError."""
    stated = folder / "run.json"
    if not stated.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(stated, identity)
        return
    try:
        theirs = json.loads(stated.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{stated} is damaged; {advice}") from error
    check_same(f"{folder}", theirs, json.loads(json.dumps(identity)), advice)


def check_same(what: str, theirs: Any, ours: Mapping[str, Any], advice: str) -> None:
    """Raises ConfigError, naming what differs, where `what` was made by another run: with `theirs`, not `ours`."""
    there, here = _flat(theirs if isinstance(theirs, dict) else {}), _flat(ours)
    differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if differing:
        said = "; ".join(f"{key}: {there.get(key)} there, {here.get(key)} now" for key in differing)
        raise ConfigError(f"{what} belongs to another run ({said}): {advice}")


def _flat(values: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{name}{key}.") if isinstance(value, dict) else {f"{name}{key}": value}
    return flat
