"""What a case is, the table that cases are made of, and the good files that bad ones come from."""

import random
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.measuring import SAMPLE

from avdetect.media import ffmpeg_path

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))
_SECONDS = 1.2  # of each seed, long enough for a face track


@dataclass(frozen=True)
class Place:
    folder: Path  # empty, deleted after the case
    seeds: Path  # the folder of `render`
    rng: random.Random
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
    error: str | None = None  # a pattern that the error's message must have
    scored: bool = False  # a Detection is the only right answer
    only_bytes: bool = False  # nothing matters but the file's bytes

    def rng(self, seed: int) -> random.Random:
        return random.Random(f"{seed} {self.family} {self.name}")


def content(family: str, name: str, suffix: str, data: Content | bytes) -> Case:
    def make(place: Place) -> Path:
        path = place.folder / f"case.{suffix}"
        path.write_bytes(data if isinstance(data, bytes) else data(place))
        return path

    return Case(family, name, make, only_bytes=True)


def fixed(make: Callable[..., Any], *arguments: object) -> Callable[[Place], Any]:
    """What the place has no part in, made when it is needed."""
    return lambda place: make(*arguments)


def run_ffmpeg(arguments: Sequence[object], out: Path) -> Path:
    """Run ffmpeg to write `out`, with one thread and without version strings: the same bytes every time."""
    exact = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-y", *map(str, arguments), *exact, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
    if done.returncode or not out.exists():
        raise RuntimeError(f"{out.name}: {done.stderr[-2000:]}\n{command}")
    return out


def render(folder: Path) -> Path:
    """Make the good files that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in TABLE["seeds"].items():
        if not (folder / name).exists():
            run_ffmpeg(["-t", _SECONDS, "-i", SAMPLE, *shlex.split(options.format(**TABLE["short"]))], folder / name)
    return folder
