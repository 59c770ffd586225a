"""Files that appear whole or not at all, whether a file is ours alone, and to which run it belongs.

In a folder where others can write, a name that can be guessed is a trap: a link may stand there before we come. So
nothing of ours is written under such a name.
"""

from __future__ import annotations

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


def follow_no_link(name: str, flags: int) -> int:
    """An `opener` for `open`: a link is an OSError, and what it makes only we can write."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o644)


def not_ours(path: Path) -> str | None:
    """Why what stands at `path` may hold what others put there; None where it is ours alone. Raises OSError."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    return "can be written by others (chmod go-w)" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def write_json(path: Path, values: Any) -> None:
    """One JSON document, on the disk afterwards. Raises OSError."""
    with replacing(path, sync=True) as file:
        file.write(f"{json.dumps(values, indent=1)}\n".encode())


def open_run_folder(folder: Path, identity: Mapping[str, Any], advice: str) -> None:
    """Bind the folder to one run: write `identity` (JSON) into its run.json, or see that it stands there already.

    advice: what to do with a folder of another run. Raises ConfigError for that, and OSError.
    """
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
