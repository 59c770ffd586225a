"""What a case is: a name, and how to make the thing that will be scored."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avdetect.media import ffmpeg_path


@dataclass(frozen=True)
class Place:
    """Where a case is made, and what it may use."""

    folder: Path  # empty, deleted after the case
    seeds: Path  # the folder of `seeds.render`
    rng: random.Random
    port: int  # of the server that nobody may call
    secret: Path  # the file that nobody may open

    def seed(self, name: str) -> bytes:
        return (self.seeds / name).read_bytes()


Content = Callable[[Place], bytes]
Disturbance = Callable[[Path, threading.Event], None]


@dataclass(frozen=True)
class Case:
    """`make` puts the case into its place and gives the path to score. The same seed makes the same bytes."""

    family: str
    name: str
    make: Callable[[Place], Path | str]
    disturb: Disturbance | None = None  # runs beside the scoring, until the event is set
    error: str | None = None  # a word that the error's message must have
    scored: bool = False  # a Detection is the only right answer
    only_bytes: bool = False  # nothing matters but the file's bytes: once is enough

    def rng(self, seed: int) -> random.Random:
        return random.Random(f"{seed} {self.family} {self.name}")


def content(family: str, name: str, suffix: str, data: Content) -> Case:
    """A case that is the bytes of one file."""

    def make(place: Place) -> Path:
        path = place.folder / f"case.{suffix}"
        path.write_bytes(data(place))
        return path

    return Case(family, name, make, only_bytes=True)


def fixed(make: Callable[..., bytes], *arguments: object) -> Content:
    """What the place has no part in."""
    return lambda place: make(*arguments)


def run_ffmpeg(arguments: Sequence[object], out: Path) -> Path:
    """Run ffmpeg to write `out`, with one thread and without version strings: the same bytes every time."""
    exact = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-y", *map(str, arguments), *exact, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
    if done.returncode or not out.exists():
        raise RuntimeError(f"{out.name}: {done.stderr[-2000:]}\n{command}")
    return out
