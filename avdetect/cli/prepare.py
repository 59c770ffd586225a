"""`avdetect prepare`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from avdetect.cli.console import say
from avdetect.extras import importing

# The keys of datasets.adapters.ADAPTERS, whose import takes pandas.
DATASETS = (
    "dfdc, dfdc-test, dfdc-preview, fakeavceleb, faceforensics, celebdf, lavdf, avdeepfake1m, kodf, avlips, csv, folder"
)


def _share(value: float) -> float:
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value} is no share: it must lie in [0, 1)")
    return value


RESPLIT = "Ignore the official train and dev and cut dev anew by group; test stays, and takes its groups whole."


def prepare(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=f"{DATASETS}.", show_default=False)],
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="The dataset's folder; for csv the list itself.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Manifest to write, .parquet or .csv.", show_default=False)],
    dev: Annotated[
        float, typer.Option(callback=_share, help="Share of the groups without a split that goes to dev.")
    ] = 0.1,
    test: Annotated[float, typer.Option(callback=_share, help="Likewise for test.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split by group.")] = 0,
    resplit: Annotated[bool, typer.Option("--resplit", help=RESPLIT)] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON report.", show_default="OUT.report.json")
    ] = None,
) -> None:
    """Make a manifest of a dataset in its own layout, and a report of what it holds.

    avdetect prepare fakeavceleb /data/FakeAVCeleb_v1.2 --out fakeavceleb.parquet
    avdetect prepare folder my_real_videos --out mine.csv (nothing but real videos will do)
    avdetect prepare csv files.csv --out mine.parquet (at least the columns path, fake)

    Official splits are kept; rows without one are split by group.
    Nothing is written when no row can be read, or when a group, or a fake and its original, stand in two splits.
    Then --resplit gives up the official train and dev (AV-Deepfake1M's share people).
    Problems with single files stand in the report.
    """
    if dev + test >= 1:
        raise typer.BadParameter("--dev and --test must leave something to train on")
    if out.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{out}: a manifest ends in .csv or .parquet", param_hint="--out")
    if dataset not in DATASETS.split(", "):
        raise typer.BadParameter(f"there is no dataset {dataset!r}; known: {DATASETS}", param_hint="DATASET")
    with importing("evaluate", "avdetect prepare"):
        from avdetect.datasets import prepare as preparing

    table, found = preparing.listed(dataset, root, dev, test, seed, resplit)
    if found["leaks"] or found["leaking_originals"]:
        say(preparing.in_words(found))
        preparing.check_leaks(found)
    place = report or out.with_name(f"{out.name}.report.json")
    preparing.write(table, out, found, place)
    try:
        say(f"{preparing.in_words(found)}\nmanifest: {out}\nreport: {place}")
    except BrokenPipeError:  # whoever reads the report has seen enough; the files are written
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # what is still buffered must not fail at exit
