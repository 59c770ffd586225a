"""What an evaluation found, as CSV files, PNG pictures, summary.json and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from avdetect.evaluation import plots, views
from avdetect.evaluation.columns import subset_masks
from avdetect.evaluation.views import View
from avdetect.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
AUC_CAPTION = (
    "Balanced AUC of each output (blue dot) and, below it, of the best shortcut on the same files (orange). The grey "
    "line is a guess."
)
RELIABILITY_CAPTION = (
    "Reliability: the share of fakes among files of like probability. On the line the probabilities mean what they "
    "say; larger dots, more files."
)


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
class Picture:
    """A PNG in the page."""

    caption: str
    base64: str


@dataclass(frozen=True)
class Section:
    title: str
    text: Sequence[str] = ()
    views: Sequence[View] = ()
    pictures: Sequence[Picture] = ()

    @property
    def empty(self) -> bool:
        return not (self.pictures or self.text or any(v.rows for v in self.views))


def write_report(results: Results, out: Path) -> None:
    """Write everything into the folder `out`. The same results give the same bytes."""
    write_csv(results.scores, out / SCORES)
    for name in TABLES:
        if name in results.tables and len(results.tables[name]):
            write_csv(results.tables[name], out / f"{name}.csv")
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)  # of an earlier run that measured more
    for picture in out.glob("*.png"):
        picture.unlink()
    values = results.summary | {"warnings": results.warnings, "not_measured": results.unmeasured}
    _replace(out / SUMMARY, json.dumps(values, indent=1, sort_keys=True) + "\n")
    _replace(out / PAGE, render(results, out))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, whole or not at all."""
    _replace(path, table.to_csv(index=False, lineterminator="\n"))


def _replace(path: Path, content: str) -> None:
    with replacing(path) as file:
        file.write(content.encode())


def render(results: Results, out: Path) -> str:
    """The HTML page; its pictures are also written into `out`."""
    from jinja2 import Environment, StrictUndefined

    template = files("avdetect.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    sections = [section for section in _sections(results, out) if not section.empty]
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        title=f"Evaluation of {results.about['Bundle']}",
        about=results.about,
        warnings=results.warnings,
        sections=sections,
    )


def _sections(results: Results, out: Path) -> list[Section]:
    metrics = results.tables["metrics"]
    sections = []
    for part in results.parts:
        sections.append(_outputs(results, part, out))
    for part in results.parts:
        sections.append(_details(metrics, part, out))
    return [
        *sections,
        Section("Missing streams", views=[views.missing(results.tables["missing"])]),
        _sync(results, out),
        _robustness(results, out),
        _localisation(results),
        Section("Not measured", text=results.unmeasured),
        Section("How to read the numbers", text=READ_ME),
    ]


def _outputs(results: Results, part: str, out: Path) -> Section:
    metrics, mask = results.tables["metrics"], results.parts[part]
    scores = results.scores[mask]
    subsets = subset_masks(scores)
    drawn = (
        ("auc", plots.forest(_against_shortcuts(metrics, part)), AUC_CAPTION),
        ("roc", plots.roc(scores, subsets), "ROC curves of the outputs."),
        ("reliability", plots.reliability(scores, subsets), RELIABILITY_CAPTION),
    )
    pictures = [_picture(out, f"{name}_{part}", figure, caption) for name, figure, caption in drawn]
    return Section(_title("Outputs", part), views=[views.outputs(metrics, part)], pictures=_shown(pictures))


def _details(metrics: pd.DataFrame, part: str, out: Path) -> Section:
    names = "comparison ablations streams removed classes kinds generators alarms sources pairs audit"
    found = [views.METRIC_VIEWS[name](metrics, part) for name in names.split()]
    within = views.part_of(metrics, part, "source")
    rows = [(f"{r['subset']} · {views.SCORES[r['score']]}", r, 0) for r in within.to_dict("records")]
    ablations = views.part_of(metrics, part, "ablation")
    masks = [
        (f"{r['subset']} · {r['score']}", r, 0 if str(r["score"]).endswith(":max") else 2)
        for r in ablations.to_dict("records")
    ]
    pictures = [
        _picture(
            out, f"ablations_{part}", plots.forest(masks), "Balanced AUC of P(fake) with only some of the streams."
        ),
        _picture(
            out, f"sources_{part}", plots.forest(rows), "Balanced AUC within each source that holds both classes."
        ),
    ]
    return Section(_title("In detail", part), views=found, pictures=_shown(pictures))


def _against_shortcuts(metrics: pd.DataFrame, part: str) -> list[tuple[str, Mapping[str, Any], int]]:
    best = views.best_shortcuts(metrics, part)
    rows: list[tuple[str, Mapping[str, Any], int]] = []
    for row in views.part_of(metrics, part, "output").to_dict("records"):
        rows.append((f"{row['subset']} · {views.SCORES[row['score']]}", row, 0))
        shortcut = best.get((str(row["subset"]), str(row["label"])))
        if shortcut:
            rows.append((f"shortcut: {shortcut['score']}", shortcut, 1))
    return rows


def _title(name: str, part: str) -> str:
    return f"{name}: {_rows(part)}"


def _rows(part: str) -> str:
    return "all files" if part == "all" else f"split {part}"


def _picture(out: Path, name: str, figure: Figure | None, caption: str) -> Picture | None:
    if figure is None:
        return None
    path = out / f"{name}.png"
    plots.save(figure, path)
    return Picture(caption, base64.b64encode(path.read_bytes()).decode("ascii"))


def _shown(pictures: Sequence[Picture | None]) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]


def _sync(results: Results, out: Path) -> Section:
    if "sync" not in results.tables:
        return Section("Lip-sync as lip-sync")
    picture = _picture(
        out,
        "sync",
        plots.sync_shifts(results.tables["sync_shifts"]),
        "Offsets found of audio that was shifted on purpose.",
    )
    where = f"Measured on the real files of {_rows(results.summary['sync_measured_on'])}."
    return Section("Lip-sync as lip-sync", [where], [views.sync(results.tables["sync"])], _shown([picture]))


def _localisation(results: Results) -> Section:
    found = results.tables.get("localisation", pd.DataFrame())
    return Section("Localisation", views=[views.localisation(found)] if len(found) else [])


def _robustness(results: Results, out: Path) -> Section:
    if not len(results.tables.get("robustness", ())):
        return Section("Robustness")
    table = results.tables["robustness"]
    picture = _picture(
        out, "robustness", plots.robustness(table), "Balanced AUC against the severity of each treatment."
    )
    return Section("Robustness", views=[views.robustness(table)], pictures=_shown([picture]))
