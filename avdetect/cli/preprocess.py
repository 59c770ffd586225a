"""`avdetect preprocess`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avdetect.cli.console import kept, say
from avdetect.cli.options import DetectorModelOption, RayAddressOption
from avdetect.extras import importing

if TYPE_CHECKING:
    from avdetect.datasets.cache.build import Report

SHOWN = 20  # lines of a list; all failures stand in failures.csv
LINE_SECONDS = 15.0  # between lines of progress


def preprocess(
    manifest: Annotated[
        Path, typer.Option(metavar="FILE", help="CSV or Parquet, as `avdetect prepare` writes it.", show_default=False)
    ],
    cache: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the clips; made if it does not exist.", show_default=False)
    ],
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Configuration of a training; its `preprocess` is used.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes.", show_default="all cores, on Ray all its CPUs"),
    ] = None,
    engine: Annotated[
        Literal["process", "ray"], typer.Option(help="Where they are: process (this machine) or ray (a cluster).")
    ] = "process",
    ray_address: RayAddressOption = None,
    detector_model: DetectorModelOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files that failed in an earlier run again.")
    ] = False,
    copies: Annotated[int, typer.Option(metavar="N", min=0, help="Re-encoded copies of each video beside it.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of what the copies are re-encoded with.")] = 0,
) -> None:
    """Preprocess every file of a manifest, once, into a cache that training reads.

    avdetect preprocess --manifest my.csv --cache cache --config configs/small.yaml

    Stop it whenever you like and run it again: it goes on where it was.
    The cache knows files by the hash of their bytes, so it can be moved, with or without the media.
    Files that cannot be read are listed at the end and in failures.csv;
    they are not tried again unless --retry-failed is given.
    Files of equal bytes must agree in labels and split;
    where they do not, nothing is published and conflicts.csv names them.
    """
    from avdetect.config import TrainConfig, load_yaml

    with importing("evaluate", "avdetect preprocess"):
        from avdetect.datasets.cache import build
        from avdetect.datasets.manifest import read_manifest

    settings = (load_yaml(TrainConfig, config) if config else TrainConfig()).preprocess
    table = read_manifest(manifest)
    options = build.Options(
        workers=workers or 0,
        engine=engine,
        ray_address=ray_address,
        model=detector_model,
        copies=copies,
        seed=seed,
        retry_failed=retry_failed,
    )
    with kept(cache, "what is done is kept, run again to go on"):
        report = build.preprocess(table, cache, settings, options, _watch(len(table)))
    say("\n".join(_in_words(report)), err=True)
    say(f"{report.clips} clips of {report.files - report.failures['path'].nunique()} files in {cache}")


def _watch(total: int) -> Callable[[int, int], None]:
    """Says how far the run is, now and then: (files finished, files preprocessed now)."""
    began = last = time.monotonic()

    def watch(finished: int, made: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last, rate, left = now, made / (now - began), (now - began) / finished * (total - finished)
            say(f"preprocess: {finished} of {total} files, {rate:.2f} files/s, {left / 60:.0f} min left", err=True)

    return watch


def _in_words(report: Report) -> list[str]:
    counts = ", ".join(f"{count} {error}" for error, count in report.failures["error"].value_counts().items())
    rows = report.failures.itertuples(index=False)
    return [
        f"{report.files} files: {report.preprocessed} tried now, {report.salvaged} taken from a run that broke off, "
        f"{len(report.duplicates)} with the bytes of another, {len(report.failures)} failed"
        + (f" ({counts})" if counts else ""),
        *_first([f"same bytes: {path} = {other}" for path, other in report.duplicates]),
        *_first([f"failed: {row.path}{f', copy {row.copy}' if row.copy else ''}: {row.message}" for row in rows]),
    ]


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"… and {more} more such files"]
