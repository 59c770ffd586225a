"""`avdetect forge`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from avdetect.cli.console import kept, say
from avdetect.errors import ConfigError
from avdetect.extras import importing

_LISTS = ("--method", "--segment")


class ForgeCommand(TyperCommand):
    """Takes `--method world splice` and `--segment 2 5`: all words up to the next option are one value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words: list[str] = []
        option = ""
        for word in args:
            if option in _LISTS and words[-1] != option and not word.startswith("-"):
                words[-1] += f" {word}"
            else:
                words.append(word)
            if word.startswith("-"):
                option = word
        return super().parse_args(ctx, words)


def forge(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Genuine videos (or sound files).", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder without a forged.csv.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="Names of --list; repeated, they add up.", show_default="all"),
    ] = None,
    segment: Annotated[str, typer.Option(metavar="START END", help="In seconds, or random.")] = "random",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    count: Annotated[int, typer.Option(metavar="N", help="Forgeries an input and method.")] = 1,
    control: Annotated[
        bool,
        typer.Option(
            help="Write the genuine file through the same encoder. Do not train on what --no-control gives: it holds "
            "no real rows, and beside your own files the codec, the sample rate and the channels alone would tell the "
            "fakes.",
        ),
    ] = True,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Of the manifest's rows.")] = "train",
    names: Annotated[bool, typer.Option("--list", help="Name the methods and end.")] = False,
) -> None:
    """Forge the face, the voice or their match inside a segment of genuine videos, and write playable files.

    avdetect forge interview.mp4 lecture.mp4 --out forged
    avdetect forge interview.mp4 --out forged --method mouth_swap world --segment 2 5

    Writes one file a method into --out, and forged.csv: a manifest to train on, which takes the inputs to be genuine.
    Faces are H.264 at 25 fps and the source's resolution. Voices are AAC, 16 kHz, mono, beside the source's own video.
    The genuine file is written through the same encoder, as control-video and control-sound:
    the real rows of the manifest, and the original of the forged ones.
    Inputs lend each other their voices, and share a group then. The same seed gives the same forgeries.
    """
    with importing("train", "avdetect forge"):
        from avdetect.datasets.forgeries import run as forgeries
        from avdetect.datasets.forgeries.job import Job, open_inputs

    if names:
        say("\n".join(forgeries.listing()))
        return
    chosen = " ".join(method or ["all"]).split()
    methods, place = forgeries.methods_of(chosen), forgeries.segment_of(segment.split())
    if not inputs or out is None:
        raise ConfigError("name at least one INPUT and a folder as --out (or --list)")
    if count < 1 or seed < 0:
        raise ConfigError("--count must be at least 1 and --seed at least 0")
    warn = partial(say, err=True) if "all" in chosen else None
    with kept(out, "what was finished stands in forged.csv"):
        job = Job(out, open_inputs(inputs), place, seed, split, control, say)
        forgeries.forge(job, methods, count, warn)
