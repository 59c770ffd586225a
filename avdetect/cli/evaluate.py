"""`avdetect evaluate`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from avdetect.cli.console import kept, say
from avdetect.cli.options import BundleOption, FfmpegOption
from avdetect.extras import importing


def evaluate(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="CSV or Parquet, as `avdetect prepare` writes it.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.", show_default=False)],
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Take the clips from this cache (`avdetect preprocess`)."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Measure these files only: train, dev or test.")] = None,
    out_of_fold: Annotated[
        bool,
        typer.Option("--out-of-fold", help="Measure what training kept of streams that never saw a file's source."),
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="NAME=FOLDER",
            help="Compare with the finished evaluation of another bundle in FOLDER; may be repeated.",
        ),
    ] = None,
    robustness: Annotated[
        int, typer.Option("--robustness", metavar="N", min=0, help="Re-encode N files a class, for robustness curves.")
    ] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that score.")] = 1,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Leave the shortcut audit out.")] = False,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not measure lip-sync as lip-sync.")] = False,
) -> None:
    """Measure the model on labelled files: CSV tables, plots and one HTML page.

    Stop it whenever you like and run it again: it goes on where it was.
    """
    from avdetect.bundle import Bundle

    with importing("evaluate", "avdetect evaluate"):
        from avdetect.datasets.manifest import read_manifest
        from avdetect.evaluation import run as evaluation
        from avdetect.evaluation.comparison import named_folders
        from avdetect.evaluation.views import in_words, modalities_in_words

    with kept(out, "what is done is kept, run again to go on"):
        results = evaluation.evaluate(
            read_manifest(manifest),
            Bundle.load(bundle),
            out,
            cache=cache,
            out_of_fold=out_of_fold,
            split=split,
            beside=named_folders(beside or []),
            robustness_files=robustness,
            workers=workers,
            audit=not no_audit,
            sync=not no_sync,
            command=_same_command(
                manifest, bundle, cache, split, out_of_fold, beside or [], robustness, no_audit, no_sync
            ),
        )
    measured = results.tables["metrics"], next(iter(results.parts))
    for line in (*modalities_in_words(*measured), *in_words(*measured)):
        say(line)
    for warning in results.warnings:
        say(f"note: {warning}", err=True)
    say(str(out / "report.html"))


def _same_command(
    manifest: Path,
    bundle: Path | None,
    cache: Path | None,
    split: str | None,
    out_of_fold: bool,
    beside: Sequence[str],
    robustness: int,
    no_audit: bool,
    no_sync: bool,
) -> str:
    """The command that gives these results again; where they go and how many processes work changes nothing."""
    values = {"--bundle": bundle, "--cache": cache, "--split": split, "--robustness": robustness or None}
    flags = {"--out-of-fold": out_of_fold, "--no-audit": no_audit, "--no-sync": no_sync}
    words = [word for name, value in values.items() if value is not None for word in (name, str(value))]
    words += [word for other in beside for word in ("--beside", other)]
    return shlex.join(["avdetect", "evaluate", str(manifest), *words, *(name for name, on in flags.items() if on)])
