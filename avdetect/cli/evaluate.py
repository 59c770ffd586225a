"""`avdetect evaluate`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from avdetect.cli.console import kept, say
from avdetect.cli.options import BundleOption, FfmpegOption
from avdetect.extras import importing

MANIFEST = typer.Argument(
    metavar="MANIFEST", help="CSV or Parquet, as `avdetect prepare` writes it.", show_default=False
)
CACHE = typer.Option(metavar="DIR", help="Take the clips from this cache (`avdetect preprocess`).")
HELD_OUT = typer.Option("--out-of-fold", help="Measure what training kept of streams that never saw a file's source.")
ROBUSTNESS = typer.Option(metavar="N", min=0, help="Re-encode N files a class, for robustness curves.")
# Where the results go, and how many processes work, changes nothing.
NOT_REPEATED = ("manifest", "out", "workers", "ffmpeg")


def evaluate(
    context: typer.Context,
    manifest: Annotated[Path, MANIFEST],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.", show_default=False)],
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
    cache: Annotated[Path | None, CACHE] = None,
    split: Annotated[str | None, typer.Option(help="Measure these files only: train, dev or test.")] = None,
    out_of_fold: Annotated[bool, HELD_OUT] = False,
    robustness: Annotated[int, ROBUSTNESS] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 1,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Leave the shortcut audit out.")] = False,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not measure the match by itself.")] = False,
) -> None:
    """Measure the model on labelled files: CSV tables, plots and one HTML page.

    Stop it whenever you like and run it again: it goes on where it was.
    """
    from avdetect.bundle import Bundle

    with importing("evaluate", "avdetect evaluate"):
        from avdetect.datasets.manifest import read_manifest
        from avdetect.evaluation import run as evaluation
        from avdetect.evaluation.views import in_words, modalities_in_words

    with kept(out, "what is done is kept, run again to go on"):
        results = evaluation.evaluate(
            read_manifest(manifest),
            Bundle.load(bundle),
            out,
            cache=cache,
            out_of_fold=out_of_fold,
            split=split,
            robustness_files=robustness,
            workers=workers,
            audit=not no_audit,
            sync=not no_sync,
            command=same_command(manifest, context.params),
        )
    measured = results.tables["metrics"], next(iter(results.parts))
    for line in (*modalities_in_words(*measured), *in_words(*measured)):
        say(line)
    for warning in results.warnings:
        say(f"note: {warning}", err=True)
    say(str(out / "report.html"))


def same_command(manifest: Path, options: Mapping[str, Any]) -> str:
    """The command that gives these results again."""
    words = ["avdetect", "evaluate", str(manifest)]
    for name, value in options.items():
        if value and name not in NOT_REPEATED:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)
