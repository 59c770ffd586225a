"""What all commands share at the terminal: lines, progress, and errors that become one line and an exit code."""

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avdetect.errors import AVDetectError, ConfigError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_ASCII_BARS = str.maketrans("█░", "#.")


class Interrupted(Exception):
    """Ctrl-C, with what the user should know of what is left."""


def say(text: str, err: bool = False) -> None:
    """Lines of text, of whoever's names. (`typer.echo` writes UTF-8 where a stream is ASCII.)"""
    print(lines(text), file=sys.stderr if err else sys.stdout, flush=True)


def lines(text: str) -> str:
    """Text that a file had a part in, such as a bundle's name: it may have lines, but may not steer the terminal."""
    from avdetect.report.data import printable

    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def kept(folder: Path, what: str) -> Iterator[None]:
    """Around work that writes into `folder`: who is stopped by a full disk or by Ctrl-C is told what is kept.

    Raises AVDetectError, Interrupted.
    """
    try:
        yield
    except OSError as error:
        raise AVDetectError(f"cannot write {folder}: {error.strerror or error}; {what}") from error
    except KeyboardInterrupt:
        raise Interrupted(what) from None


@contextmanager
def progress() -> Iterator[Callable[[float, float | None], None]]:
    """A bar for one file on a terminal, nothing in a pipe. Yields advance(seconds_done, seconds_in_all)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("scoring"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, total: bar.update(task, completed=min(1.0, done / total) if total else 0.0)


def exit_code(command: Callable[[], object], *, name: str = "avdetect", usage: int = EXIT_USAGE, hint: str = "") -> int:
    """Run a command. Errors become one line on stderr that begins with `name`, and an exit code.

    usage: the code of a ConfigError. hint: what to do where standard output takes nothing.
    """
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except SystemExit as end:  # click's way to say the exit code
        return end.code if isinstance(end.code, int) else 0
    except Interrupted as end:
        say(f"{name}: interrupted; {end}", err=True)
        return EXIT_INTERRUPTED
    except AVDetectError as error:
        say(f"{name}: {error}", err=True)
        return usage if isinstance(error, ConfigError) else EXIT_FAILED
    except ImportError as error:  # a library of the base, for extras have their own error
        what = f"{name}: {type(error).__name__}: {error}; this installation is damaged: see "
        say(f"{what}`avdetect doctor`, or make the environment anew as README says", err=True)
        return EXIT_FAILED
    except OSError as error:  # standard output: a full disk, a closed pipe
        sys.stdout = None  # or Python would try to flush it once more, and complain
        say(f"{name}: cannot write to standard output: {error.strerror or error}{hint}", err=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def open_standard_streams() -> None:
    """A stream that we were started without (`<&-`, a daemon) is /dev/null, so that no file of ours takes its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8"))  # noqa: SIM115


def escape_what_cannot_be_shown() -> None:
    """Standard streams whose encoding lacks a character get its escape, and our bars are drawn in ASCII."""

    def escaped(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        bar = error.object[error.start : error.end].translate(_ASCII_BARS)
        if bar.isascii():
            return bar, error.end
        return codecs.backslashreplace_errors(error)

    codecs.register_error("avdetect.escaped", escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="avdetect.escaped")
