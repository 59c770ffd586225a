"""What an evaluation found, as CSV files, PNG pictures, summary.json and one HTML page that needs nothing else.

The page shows the main tables; all numbers are in the CSV files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.evaluation import plots
from avdetect.evaluation.plots import Picture
from avdetect.evaluation.views import View, view
from avdetect.files import write_whole

TABLES = {  # NAME.csv, where it has rows -> what it holds
    "metrics": "every measurement of the scores: outputs, streams, classes, kinds, generators, sources, false alarms, "
    "pairs, ablations, shortcuts",
    "missing": "how often each stream could not be judged, and why",
    "sync_shifts": "offsets found of audio that was shifted on purpose",
    "sync": "all shifts together, and voices told from those of somebody else",
    "localisation": "average precision of forged segments",
    "robustness": "the same files after each treatment",
}
SUMMARY = "summary.json"
PAGE_VIEWS = ("modalities", "outputs", "kinds", "generators", "alarms")


@dataclass
class Results:
    """Everything that is written. `tables` holds a frame for each name of TABLES that was measured."""

    scores: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    parts: dict[str, np.ndarray]  # name of a part -> (N,) rows of `scores`; the first one is the headline
    about: dict[str, str]  # what was measured, as shown at the head of the page
    summary: dict[str, Any]  # versions, digests, seeds
    warnings: list[str] = field(default_factory=list)  # what a reader must know before any number
    unmeasured: list[str] = field(default_factory=list)  # what was not measured, and why


@dataclass(frozen=True)
class Section:
    title: str
    text: Sequence[str] = ()
    views: Sequence[View] = ()
    pictures: Sequence[Picture] = ()


def write_report(results: Results, out: Path) -> None:
    """Write everything into the folder `out`. The same results give the same bytes."""
    write_csv(results.scores, out / "scores.csv")
    for stale in (*(out / f"{name}.csv" for name in TABLES), *out.glob("*.png")):
        stale.unlink(missing_ok=True)  # of an earlier run that measured more
    for name in _measured(results):
        write_csv(results.tables[name], out / f"{name}.csv")
    sections = [s for s in _sections(results) if s.text or s.pictures or s.views]
    for picture in (picture for section in sections for picture in section.pictures):
        write_whole(out / f"{picture.name}.png", picture.png)
    values = results.summary | {"warnings": results.warnings, "not_measured": results.unmeasured}
    write_whole(out / SUMMARY, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())
    write_whole(out / "report.html", _page(results, sections).encode())


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, whole or not at all."""
    write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())


def _measured(results: Results) -> list[str]:
    return [name for name in TABLES if len(results.tables.get(name, ()))]


def rows_in_words(part: str) -> str:
    return "all files" if part == "all" else f"split {part}"


def _sections(results: Results) -> list[Section]:
    tables, sections = results.tables, []
    for part, mask in results.parts.items():
        views = [shown for name in PAGE_VIEWS if (shown := view(name, tables["metrics"], part)).rows]
        pictures = plots.of_outputs(results.scores[mask], part)
        sections.append(Section(f"Results: {rows_in_words(part)}", views=views, pictures=pictures))
    if "sync_shifts" in tables:
        on = rows_in_words(results.summary["sync_measured_on"])
        pictures = plots.sync_shifts(tables["sync_shifts"])
        sections.append(Section("The match by itself", [f"Measured on the real files of {on}."], pictures=pictures))
    if "robustness" in tables:
        sections.append(Section("Robustness", pictures=plots.robustness(tables["robustness"])))
    files = [f"{name}.csv: {TABLES[name]}." for name in _measured(results)]
    return [
        *sections,
        Section("All numbers, beside this page", ["scores.csv: what the model says of each file.", *files]),
        Section("Not measured", results.unmeasured),
    ]


def _page(results: Results, sections: Sequence[Section]) -> str:
    from jinja2 import Environment, StrictUndefined

    template = files("avdetect.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    title = f"Evaluation of {results.about['Bundle']}"
    return environment.from_string(template).render(
        title=title, about=results.about, warnings=results.warnings, sections=sections
    )
