"""Odd names, and things in the file system that are no quiet regular file."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hostile.case import Case, Disturbance, Place

_NAMES = [
    *(b"-i.mp4", b"-y", b"--", b"-", b"--help", b"-version", b"-f lavfi -i testsrc.mp4", b"--out=x.csv", b"@file.mp4"),
    *(b"new\nline.mp4", b"\n", b"tab\there.mp4", b"return\r.mp4", b"bell\x07.mp4", b"\x1b[31mred\x1b[0m.mp4"),
    *(b"a 'quote'.mp4", b'a "quote".mp4', b"a `tick`.mp4", b"back\\slash.mp4", b"$(id).mp4", b"$HOME.mp4", b";ls;.mp4"),
    *(b"a|b.mp4", b"a&b.mp4", b"a>b.mp4", b"*.mp4", b"?.mp4", b"[a-z].mp4", b"{a,b}.mp4", b"~root.mp4", b"#.mp4"),
    *(b"%03d.mp4", b"%s%n%x.mp4", b"%2e%2e.mp4", b"a:b.mp4", b"file:x.mp4", b"pipe:0", b"pipe:", b"fd:0", b"-:.mp4"),
    *(b"http:__127.0.0.1_x.mp4", b"concat:a.mp4|b.mp4", b"subfile,,start,0,end,9,,:x", b"data:,x.mp4", b"crypto:x.mp4"),
    *(b"\xff\xfe.mp4", b"\xc3\x28.mp4", b"\xed\xa0\x80.mp4", b"\xe9.mp4", b"\xe2\x80\xae4pm.gpj.mp4", b"\x7f.mp4"),
    *(b" lead.mp4", b"trail.mp4 ", b".mp4", b"...", b".hidden.mp4", b"noending", b"a.MP4", b"=1+1.mp4", b",.mp4"),
    *(b" .mp4", "İstanbul ﬁ ẞ.mp4".encode(), "👩\u200d🎤.mp4".encode(), "e\u0301.mp4".encode(), "\u2028.mp4".encode()),
    *(b"x" * 251 + b".mp4", b"'; DROP TABLE.mp4", b"<script>.mp4", b"a" * 255),
    b"line\n[info] Input #0, mov, from 'x':.mp4",
    b"line\nStream #0:7: Video: h264, yuv420p, 99999x99999.mp4",
]  # fmt: skip


def names() -> Iterator[Case]:
    """A good file under every name, which must be scored; the name without a file, which must be one error."""
    for name in dict.fromkeys(_NAMES):
        yield Case("names", f"{name!r}", partial(_named, name, True), scored=True)
        yield Case("names", f"{name!r} is absent", partial(_named, name, False), error="cannot open")
    for text in ("nul\0.mp4", "x" * 5000, "x/" * 3000, "a" * 256, "", "/", ".", "..", "\0"):
        yield Case("names", f"{text[:20]!r}…{len(text)}", partial(_only_a_name, text), error="cannot open|regular file")


def _named(name: bytes, exists: bool, place: Place) -> str:
    path = os.path.join(place.folder, os.fsdecode(name))
    if exists:
        shutil.copy(place.seeds / "seed.wav", path)
    return path


def _only_a_name(name: str, place: Place) -> str:
    return name


def things() -> Iterator[Case]:
    """What is no regular file, or is one in an odd place."""
    refused: dict[str, Callable[[Path], Path]] = {
        "a FIFO": lambda folder: _made(folder / "x.mp4", os.mkfifo),
        "a folder": lambda folder: _made(folder / "x.mp4", os.mkdir),
        "a socket": _socket,
        "a link to itself": lambda folder: _link(folder, "x.mp4"),
        "a link to a FIFO": lambda folder: _link(folder, _made(folder / "fifo", os.mkfifo)),
        "a link to nothing": lambda folder: _link(folder, "nothing"),
        "a link to /dev/zero": lambda folder: _link(folder, "/dev/zero"),
        "a link into a loop": lambda folder: _loop(folder) / "x.mp4",
        "a file for a folder": lambda folder: _made(folder / "f", os.mknod) / "x.mp4",
        "a chain of 60 links": lambda folder: _chain(folder, 60),
        "an empty file": lambda folder: _made(folder / "x.mp4", os.mknod),
        **{f"/{name}": partial(lambda name, folder: Path("/", name), name) for name in (
            "dev/zero", "dev/null", "dev/full", "dev/random", "dev/tty", "dev/stdin", "dev/fd/0", "dev", "proc",
            "proc/self/mem", "proc/self/fd/0", "proc/self/fd/1", "proc/kmsg", "proc/self/environ", "proc/self/exe",
            "proc/self/maps", "proc/cpuinfo", "sys/kernel/notes", "proc/self/cmdline", "proc/self/pagemap")},
    }  # fmt: skip
    for name, make in refused.items():
        yield Case("no file", name, partial(_placed, make), error=".")
    scored: dict[str, Callable[[Path, Path], Path]] = {
        "a link": lambda folder, seed: _link(folder, seed),
        "a chain of links": lambda folder, seed: _chain(folder, 9, seed),
        "a hard link": _hard_link,
        "a file nobody may write": lambda folder, seed: _with_mode(folder, seed, 0o400),
        "a deep folder": _deep,
    }
    for name, place_it in scored.items():
        yield Case("no file", name, partial(_seeded, place_it), scored=True)
    if os.geteuid():
        yield Case(
            "no file", "a file nobody may read", partial(_seeded, lambda f, s: _with_mode(f, s, 0)), error="ermission"
        )
        yield Case("no file", "a folder nobody may enter", partial(_seeded, _closed), error="ermission")
    yield Case("no file", "a sparse file of 1 TB", partial(_sparse, ""))
    yield Case("no file", "a film, then 1 TB of nothing", partial(_sparse, "seed.ts"))


def _placed(make: Callable[[Path], Path], place: Place) -> Path:
    return make(place.folder)


def _seeded(make: Callable[[Path, Path], Path], place: Place) -> Path:
    return make(place.folder, place.seeds / "seed.wav")


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    make(path)
    return path


def _link(folder: Path, target: str | Path) -> Path:
    (folder / "x.mp4").symlink_to(target)
    return folder / "x.mp4"


def _loop(folder: Path) -> Path:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a"


def _chain(folder: Path, length: int, target: str | Path = "nothing") -> Path:
    for number in range(length):
        (folder / f"{number}.mp4").symlink_to(folder / f"{number - 1}.mp4" if number else target)
    return folder / f"{length - 1}.mp4"


def _socket(folder: Path) -> Path:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has room for a hundred bytes only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.mp4")
    finally:
        os.chdir(here)
    return folder / "x.mp4"


def _hard_link(folder: Path, seed: Path) -> Path:
    shutil.copy(seed, folder / "first")
    (folder / "x.mp4").hardlink_to(folder / "first")
    return folder / "x.mp4"


def _with_mode(folder: Path, seed: Path, mode: int) -> Path:
    shutil.copy(seed, folder / "x.mp4")
    (folder / "x.mp4").chmod(mode)
    return folder / "x.mp4"


def _closed(folder: Path, seed: Path) -> Path:
    (folder / "closed").mkdir()
    shutil.copy(seed, folder / "closed" / "x.mp4")
    (folder / "closed").chmod(0)
    return folder / "closed" / "x.mp4"


def _deep(folder: Path, seed: Path) -> Path:
    deep = folder.joinpath(*["d" * 100] * 30)
    deep.mkdir(parents=True)
    shutil.copy(seed, deep / "x.mp4")
    return deep / "x.mp4"


def _sparse(seed: str, place: Place) -> Path:
    path = place.folder / "x.mp4"
    path.write_bytes(place.seed(seed) if seed else b"")
    os.truncate(path, 1 << 40)
    return path


def restless() -> Iterator[Case]:
    """Files that change while they are scored."""
    disturbances: dict[str, Disturbance] = {
        "disappears": lambda path, over: path.unlink(),
        "disappears and comes back": _flicker,
        "grows": _grow,
        "grows without end": _grow_fast,
        "shrinks": lambda path, over: _cut_down(path, 3),
        "shrinks to nothing": lambda path, over: _cut_down(path, 1 << 30),
        "is overwritten": _overwrite,
        "becomes a FIFO": lambda path, over: _replace(path, os.mkfifo),
        "becomes a folder": lambda path, over: _replace(path, os.mkdir),
        "becomes a link to /dev/zero": lambda path, over: _replace(path, lambda p: os.symlink("/dev/zero", p)),
        "loses its permissions": lambda path, over: path.chmod(0),
    }
    for name, disturb in disturbances.items():
        for source in ("seed.ts", "seed.mp4", "seed.wav", "sample.mp4"):
            for delay in (0.0, 0.03, 0.1):
                later = partial(_later, delay, disturb)
                yield Case("restless files", f"{source} {name} after {delay} s", partial(_copy, source), later)


def _copy(source: str, place: Place) -> Path:
    from hostile.seeds import SAMPLE

    return Path(shutil.copy(SAMPLE if source == "sample.mp4" else place.seeds / source, place.folder / source))


def _later(delay: float, disturb: Disturbance, path: Path, over: threading.Event) -> None:
    if not over.wait(delay):
        try:
            disturb(path, over)
        except OSError:
            pass  # it had gone already


def _flicker(path: Path, over: threading.Event) -> None:
    data = path.read_bytes()
    while not over.is_set():
        path.unlink()
        time.sleep(0.001)
        path.write_bytes(data)


def _grow(path: Path, over: threading.Event) -> None:
    data = path.read_bytes()
    with path.open("ab") as file:
        while not over.wait(0.01):
            file.write(data[: 1 << 16])
            file.flush()


def _grow_fast(path: Path, over: threading.Event) -> None:
    data = path.read_bytes()
    with path.open("ab") as file:
        while not over.wait(0.001) and file.tell() < 1 << 28:
            file.write(data * 8)


def _cut_down(path: Path, part: int) -> None:
    os.truncate(path, path.stat().st_size // part)


def _overwrite(path: Path, over: threading.Event) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        while not over.wait(0.002):
            file.seek(int.from_bytes(os.urandom(4), "big") % size)
            file.write(os.urandom(512))
            file.flush()


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    other = path.with_name("other")
    make(other)
    if stat.S_ISDIR(other.lstat().st_mode):
        path.unlink()
    other.replace(path)
