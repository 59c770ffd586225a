"""The command line, a file for each command. Heavy imports wait until a command needs them: `--help` is quick."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from avdetect._version import __version__
from avdetect.cli import check, evaluate, export, forge, prepare, preprocess, score, serve, train
from avdetect.cli.console import EXIT_FAILED, escape_what_cannot_be_shown, exit_code, open_standard_streams, say

__all__ = ["app", "main", "run", "run_script"]

_ROAD = "Train and measure"

app = typer.Typer(
    help="Was a video manipulated, and was it the face, the voice, or the match between them?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(score.score)
app.command()(check.demo)
app.command()(check.doctor)
app.command()(serve.serve)
app.add_typer(check.models, name="models")
app.command(rich_help_panel=_ROAD)(prepare.prepare)
app.command(rich_help_panel=_ROAD)(preprocess.preprocess)
app.command(rich_help_panel=_ROAD)(train.train)
app.command(rich_help_panel=_ROAD)(export.export)
app.command(rich_help_panel=_ROAD)(evaluate.evaluate)
app.command(rich_help_panel=_ROAD, cls=forge.ForgeCommand)(forge.forge)


def _version(value: bool) -> None:
    if value:
        say(f"avdetect {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point."""
    open_standard_streams()
    escape_what_cannot_be_shown()
    # What NumPy and OpenCV are asked here is too small to share among threads: those would mostly wait, and burn a
    # tenth of all CPU seconds with it. The decoder and the networks use the cores. Read when the two are imported.
    for name in ("OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, "1")
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None: the process's own). Typed errors become one line on stderr and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    name = None if arguments is None else "avdetect"
    return exit_code(lambda: app(args=arguments, prog_name=name), hint=_hint(given))


def run_script(command: str, arguments: Sequence[str] | None = None) -> int:
    """Run tools/COMMAND.py: the command of that name. As ever, its errors begin with its own name, and all but an
    option that does not exist end it with 1."""
    given = [command, *(sys.argv[1:] if arguments is None else arguments)]
    return exit_code(lambda: app(args=given, prog_name="avdetect"), name=command, usage=EXIT_FAILED)


def _hint(arguments: Sequence[str]) -> str:
    """What to do where standard output takes nothing."""
    if arguments[:1] != ["score"]:
        return ""
    if any(word.partition("=")[0] == "--out" for word in arguments):
        return "; what is scored is kept for --out: run the same command again with its output elsewhere"
    return "; use --out to keep a copy"
