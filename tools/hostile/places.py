"""Odd names, what is no quiet regular file, and files that change while they are scored."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.case import SAMPLE, TABLE, Case, Place, fixed

# Names that are none, or that no folder can hold.
_ALONE = ("nul\0.mp4", "x" * 5000, "x/" * 3000, "a" * 256, "", "/", ".", "..", "\0")


def places() -> Iterator[Case]:
    """A good file under every name, which must be scored, and the name without it; no files; restless files."""
    known = [*map(os.fsencode, TABLE["names"]["text"]), *(name.encode("latin-1") for name in TABLE["names"]["latin"])]
    for name in map(os.fsdecode, (*known, b"x" * 251 + b".mp4", b"a" * 255)):
        yield Case("names", f"{name!a}", partial(_copied, "seed.wav", name), scored=True)
        yield Case("names", f"{name!a} is absent", partial(_inside, name), error="cannot open")
    for name in _ALONE:
        label = f"{name[:20]!a}…{len(name)}"
        yield Case("names", label, fixed(str, name), error="cannot open|regular file")
    for name in TABLE["names"]["system"].split():
        yield Case("no file", f"/{name}", fixed(str, f"/{name}"), error=".")
    for table, error in (("refused", "."), ("scored", None), ("sparse", None), ("forbidden", "ermission")):
        for name, script in TABLE[table].items() if table != "forbidden" or os.geteuid() else ():
            yield Case("no file", name, partial(_by_bash, script), error=error, scored=table == "scored")
    for name, script in TABLE["restless"].items():
        for source in ("seed.ts", "seed.mp4", "seed.wav", "sample.mp4"):
            for delay in (0.0, 0.03, 0.1):
                label = f"{source} {name} after {delay} s"
                yield Case("restless files", label, partial(_copied, source, source), partial(_disturb, delay, script))


def _inside(name: str, place: Place) -> Path:
    return place.folder / name


def _copied(source: str, name: str, place: Place) -> Path:
    return Path(shutil.copy(SAMPLE if source == "sample.mp4" else place.seeds / source, place.folder / name))


def _by_bash(script: str, place: Place) -> Path:
    script, _, path = script.partition("|")
    seeds = {"seed": str(place.seeds / "seed.wav"), "film": str(place.seeds / "seed.ts")}
    subprocess.run(["bash", "-ec", script], cwd=place.folder, env=os.environ | seeds, check=True, timeout=60)
    return next(place.folder.rglob("x.mp4")) if path.startswith("*") else place.folder / (path or "x.mp4")


def _disturb(delay: float, script: str, path: Path, over: threading.Event) -> None:
    over.wait(delay)
    command = ["bash", "-c", script]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, cwd=path.parent, env=os.environ | {"file": str(path)}, **quiet)  # type: ignore[call-overload]
    over.wait()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
