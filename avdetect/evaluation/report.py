"""What an evaluation found, as CSV files, PNG pictures, summary.json and one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.evaluation import plots
from avdetect.evaluation.cells import View
from avdetect.evaluation.plots import Picture
from avdetect.evaluation.views import view
from avdetect.files import replacing

TABLES = ("metrics", "missing", "sync_shifts", "sync", "localisation", "robustness")  # NAME.csv, those that hold rows
PAGE, SUMMARY, SCORES = "report.html", "summary.json", "scores.csv"
READ_ME = (
    "Balanced AUC: how often a fake scores above a real file (0.5: a guess, 1: always), where every generator weighs "
    "the same among the fakes and every source among the reals, however many files it has. So it is in all other "
    "numbers but two that stand beside it: the pooled AUC takes files as they come, and the AUC within sources is the "
    "mean over the sources that hold both classes. EER: the error where as many reals are accused as fakes are "
    "missed. Recall at 5 % false alarms: the share of fakes found while one real file in twenty is accused. Log loss "
    "(natural logarithm; 0.693: a guess) and ECE, the expected calibration error over ten bins, judge the "
    "probabilities; lower is better. False alarms: the share of reals at or above the shipped threshold.",
    "Square brackets hold 95 % bootstrap intervals. Whole sources are resampled where each class stands in at least "
    "ten of them, else whole groups (a person, a page), because files of one source or person are no independent "
    "evidence. Where a class has fewer than ten files, “too few” stands in their place. A dash stands where a number "
    "does not apply.",
    "Files that the detector abstains from or cannot read are counted in the column “abstained” and enter no metric.",
)
OUTPUTS = ("modalities", "outputs")
DETAILS = tuple("comparison ablations streams removed classes kinds generators alarms sources pairs audit".split())


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
    write_csv(results.scores, out / SCORES)
    for name in TABLES:
        if name in results.tables and len(results.tables[name]):
            write_csv(results.tables[name], out / f"{name}.csv")
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)  # of an earlier run that measured more
    for path in out.glob("*.png"):
        path.unlink()
    sections = [s for s in _sections(results) if s.text or s.pictures or any(view.rows for view in s.views)]
    for picture in (picture for section in sections for picture in section.pictures):
        _replace(out / f"{picture.name}.png", picture.png)
    values = results.summary | {"warnings": results.warnings, "not_measured": results.unmeasured}
    _replace(out / SUMMARY, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())
    _replace(out / PAGE, _page(results, sections).encode())


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, whole or not at all."""
    _replace(path, table.to_csv(index=False, lineterminator="\n").encode())


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _page(results: Results, sections: Sequence[Section]) -> str:
    from jinja2 import Environment, StrictUndefined

    template = files("avdetect.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        title=f"Evaluation of {results.about['Bundle']}",
        about=results.about,
        warnings=results.warnings,
        sections=sections,
    )


def rows_in_words(part: str) -> str:
    return "all files" if part == "all" else f"split {part}"


def _sections(results: Results) -> list[Section]:
    """In the order of the page; those without any content are left out of it."""
    tables, parts = results.tables, results.parts
    metrics = tables["metrics"]
    sections = []
    for part, mask in parts.items():
        found = [view(name, metrics, part) for name in OUTPUTS]
        pictures = plots.of_outputs(results.scores[mask], metrics, part)
        sections.append(Section(f"Outputs: {rows_in_words(part)}", views=found, pictures=pictures))
    for part in parts:
        found, pictures = [view(name, metrics, part) for name in DETAILS], plots.of_details(metrics, part)
        sections.append(Section(f"In detail: {rows_in_words(part)}", views=found, pictures=pictures))

    def of_table(title: str, name: str, pictures: Sequence[Picture] = (), text: Sequence[str] = ()) -> Section:
        there = len(tables.get(name, ())) > 0
        return Section(title, text, [view(name, tables[name])], pictures) if there else Section(title)

    return [
        *sections,
        of_table("Missing streams", "missing"),
        of_table(
            "Lip-sync as lip-sync",
            "sync",
            plots.sync_shifts(tables.get("sync_shifts", pd.DataFrame())),
            [f"Measured on the real files of {rows_in_words(results.summary.get('sync_measured_on', 'all'))}."],
        ),
        of_table("Robustness", "robustness", plots.robustness(tables.get("robustness", pd.DataFrame()))),
        of_table("Localisation", "localisation"),
        Section("Not measured", text=results.unmeasured),
        Section("How to read the numbers", text=READ_ME),
    ]
