"""Bad input, made from a seed, and the watch that is kept while avdetect scores it. See README.md beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from hostile.case import Case
from hostile.damage import damages
from hostile.made import made, rendered
from hostile.places import places
from hostile.references import references


def every_case(seeds: Path, count: int | None = None, families: Sequence[str] | None = None) -> list[Case]:
    """Every case; or about `count` of them: small families whole, of each large one equally many, evenly chosen."""
    found: dict[str, list[Case]] = {}
    for case in chain(damages(seeds), rendered(), made(), references(), places()):
        if not families or case.family in families:
            found.setdefault(case.family, []).append(case)
    most, left = 0, count or 0
    while count is not None and left > 0 and any(len(cases) > most for cases in found.values()):
        most += 1
        left -= sum(len(cases) >= most for cases in found.values())
    return [case for cases in found.values() for case in (cases if count is None else _evenly(cases, most))]


def _evenly(cases: list[Case], most: int) -> list[Case]:
    return cases if len(cases) <= most else [cases[number * len(cases) // most] for number in range(most)]
