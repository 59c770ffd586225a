"""All families in one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hostile.bombs import bombs
from hostile.case import Case
from hostile.containers import flips, impostors, overwritten, truncations
from hostile.lies import lies, sizes
from hostile.names import names, restless, things
from hostile.playlists import playlists
from hostile.sounds import sounds
from hostile.streams import streams

_FLIPS = 500


def every_case(seeds: Path, count: int | None = None, families: Sequence[str] | None = None) -> list[Case]:
    """Every case; or about `count` of them: small families whole, of each large one equally many, evenly chosen."""
    found: dict[str, list[Case]] = {}
    for case in _all(seeds):
        if not families or case.family in families:
            found.setdefault(case.family, []).append(case)
    most, left = 0, count or 0
    while count is not None and left > 0 and any(len(cases) > most for cases in found.values()):
        most += 1
        left -= sum(len(cases) >= most for cases in found.values())
    return [case for cases in found.values() for case in (cases if count is None else _evenly(cases, most))]


def _evenly(cases: list[Case], most: int) -> list[Case]:
    if len(cases) <= most:
        return cases
    return [cases[number * len(cases) // most] for number in range(most)]


def _all(seeds: Path) -> Iterator[Case]:
    yield from truncations(seeds)
    yield from flips(_FLIPS)
    yield from overwritten(seeds)
    yield from impostors()
    yield from lies()
    yield from sizes(seeds)
    yield from streams()
    yield from bombs()
    yield from sounds()
    yield from playlists()
    yield from names()
    yield from things()
    yield from restless()
