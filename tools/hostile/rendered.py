"""Extremes that ffmpeg itself can make: sizes, rates, formats, lengths; times of packets that make no sense."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.case import TABLE, Case, Place, run_ffmpeg

_TIMED = ("seed.mp4", "seed.mkv", "seed.ts", "seed.avi", "seed.nut", "seed.flv", "seed.ogv")


def rendered() -> Iterator[Case]:
    """Odd sizes, formats, rates and lengths; times of the video, of the sound or of both."""
    for family, table in TABLE["rendered"].items():
        for name, command in _filled(table):
            yield Case(family, name, partial(_render, command), only_bytes=True)
    for source in _TIMED:
        for number, (name, shape) in enumerate(_filled(TABLE["times"])):
            which = ("v", "a", "va")[number % 3]
            make = partial(_retimed, source, which, shape)
            yield Case("timestamps", f"{source} {which} {name}", make, only_bytes=True)


def _filled(table: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, (values, text) in table.items():
        for value in values.split() or [""]:
            yield name.replace("{}", value), text.replace("{}", value)


def _render(command: str, place: Place) -> Path:
    options, _, suffix = command.rpartition("|")
    return run_ffmpeg(shlex.split(options), place.folder / f"case.{suffix}")


def _retimed(source: str, which: str, shape: str, place: Place) -> Path:
    options = ["-copyts", "-i", place.seeds / source, "-c", "copy"]
    for kind in which:
        expressions = (f"{part}={shape.replace('{key}', key)}" for part, key in (("pts", "PTS"), ("dts", "DTS")))
        options += [f"-bsf:{kind}", "setts=" + ":".join(e.replace(",", r"\,") for e in expressions)]
    out = place.folder / f"case.{source.rpartition('.')[2]}"
    try:
        return run_ffmpeg([*options, "-max_interleave_delta", "0", "-avoid_negative_ts", "disabled"], out)
    except RuntimeError:  # the muxer stopped: what it had written is a case too
        if not out.exists():
            out.write_bytes(place.seed(source)[:1000])
        return out
