"""Bad input, made from a seed, and the watch that is kept while avdetect scores it. See README.md beside this file."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from hostile.case import Case
from hostile.damage import damages
from hostile.made import made, rendered
from hostile.places import places, references


def every_case(seeds: Path, count: int | None = None, families: Sequence[str] | None = None) -> list[Case]:
    """Every case; or about `count` of them: small families whole, of each large one equally many, evenly chosen."""
    found: dict[str, list[Case]] = {}
    for case in chain(damages(seeds), rendered(), made(), references(), places()):
        if not families or case.family in families:
            found.setdefault(case.family, []).append(case)
    most = max(map(len, found.values()), default=0)
    if count is not None:
        enough = (n for n in range(most) if sum(min(len(cases), n) for cases in found.values()) >= count)
        most = next(enough, most)
    chosen = ((cases, min(len(cases), most)) for cases in found.values())
    return [cases[number * len(cases) // some] for cases, some in chosen for number in range(some)]
