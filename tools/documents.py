"""Result tables of the READMEs and MODEL_CARD, generated from the CSV files of an evaluation: no number there is typed.

A document holds the markers

    <!-- results: outputs -->
    <!-- end results -->

and whatever stands between them is replaced. The name may be followed by a part of the manifest (`outputs dev`);
without one the part is that which the evaluation's report shows first. A document that reports several evaluations
gives each a label, `<!-- results of before: outputs -->`, and only the markers with the given label are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from avdetect.errors import ConfigError
from avdetect.evaluation.cells import View
from avdetect.evaluation.report import SUMMARY
from avdetect.evaluation.views import NAMES, TABLE_VIEWS, view
from avdetect.files import replacing

BEGIN, END = re.compile(r"^<!-- results(?: of ([\w-]+))?: *(.*?) *-->$"), "<!-- end results -->"


def results_table(folder: Path, name: str, part: str = "") -> str:
    """The Markdown table `name` (one of NAMES) of the evaluation in `folder`.

    Raises ConfigError for an unknown name or part, for a folder without an evaluation, and for one that did not measure
    this.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no results table {name!r}; known ones: {', '.join(NAMES)}")
    table = _read(folder, f"{name}.csv" if name in TABLE_VIEWS else "metrics.csv")
    if name not in TABLE_VIEWS:
        part = part or _first_part(folder)
        if part not in set(table["part"]):
            known = ", ".join(sorted(table["part"].unique()))
            raise ConfigError(f"{folder} did not measure the part {part!r} of its manifest; it has {known}")
    shown = view(name, table, part)
    if not shown.rows:
        raise ConfigError(f"{folder} holds no measurement for the results table {name!r}: evaluate more, or drop it")
    return markdown(shown)


def markdown(view: View) -> str:
    """A view as a GitHub table, without its title."""
    rules = ["---" if i < view.texts else "---:" for i in range(len(view.columns))]
    rows = [view.columns, rules, *view.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def update_documents(folder: Path, documents: Sequence[Path], label: str = "") -> list[Path]:
    """Replace what stands between the markers with this label in each document; returns the documents that changed.

    All are read and made before one is written. Raises ConfigError, naming document and line, for what cannot be done.
    """
    made = {path: _updated(path, folder, label) for path in documents}
    changed = [path for path, text in made.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        with replacing(path) as file:
            file.write(made[path].encode())
    return changed


def _updated(path: Path, folder: Path, label: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    kept: list[str] = []
    inside = 0  # line of the marker that is open
    mine = False  # has that marker the label?
    for number, line in enumerate(lines, 1):
        marker = BEGIN.match(line.strip())
        if marker and inside:
            raise ConfigError(f"{path}:{number}: the results that begin in line {inside} have no `{END}`")
        if marker:
            inside, mine = number, (marker[1] or "") == label
            kept += [line, _table(f"{path}:{number}", folder, marker[2])] if mine else [line]
        elif line.strip() == END:
            if not inside:
                raise ConfigError(f"{path}:{number}: `{END}` without a `<!-- results: NAME -->` before it")
            inside = 0
            kept.append(line)
        elif not inside or not mine:
            kept.append(line)
    if inside:
        raise ConfigError(f"{path}:{inside}: the results that begin here have no `{END}`")
    return "".join(kept)


def _table(where: str, folder: Path, marker: str) -> str:
    name, _, part = marker.partition(" ")
    try:
        return results_table(folder, name, part.strip())
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _read(folder: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / name, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no {name} ({error}): run avdetect evaluate with --out {folder}") from error


def _first_part(folder: Path) -> str:
    try:
        return str(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["parts"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"{folder / SUMMARY} cannot be read ({error!r}): evaluate again") from error
