"""The command line. Heavy imports wait until a command needs them: `--help` answers at once."""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avdetect._version import __version__
from avdetect.errors import AVDetectError, ConfigError

if TYPE_CHECKING:
    from avdetect.detector import Detector
    from avdetect.report.data import Result

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
MEDIA_SUFFIXES = frozenset(
    (
        ".3gp .aac .asf .avi .flac .flv .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ts .wav "
        ".webm .wmv"
    ).split()
)

app = typer.Typer(
    help="Was a video manipulated, and was it the face, the voice, or the match between them?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Optional models that do not ship with the package.", no_args_is_help=True)
app.add_typer(models, name="models")

BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="DIR", help="Bundle to use instead of the default.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"avdetect {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def score(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or glob patterns.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Also write the results to FILE, a name that ends in .json or .csv."
        ),
    ] = None,
    start: Annotated[float, typer.Option("--start", min=0, help="Begin here, in seconds.")] = 0.0,
    duration: Annotated[float | None, typer.Option("--duration", min=0.04, help="Score this many seconds.")] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    detector: Annotated[str | None, typer.Option("--detector", help="Face detector: mtcnn or scrfd.")] = None,
    face_model: Annotated[
        Path | None,
        typer.Option("--face-model", metavar="FILE", help="Weights of the face detector (scrfd: an ONNX file)."),
    ] = None,
    limits: Annotated[
        Path | None, typer.Option("--limits", metavar="YAML", help="Raise or lower the media limits.")
    ] = None,
) -> None:
    """Score files. One file: a report. Several: a table (CSV in a pipe).

    Exit codes: 0 every file was scored (abstaining counts), 1 some file failed or the model cannot be loaded, 2 wrong
    usage, 130 interrupted.
    """
    if out is not None and out.suffix not in (".json", ".csv"):
        raise ConfigError(f"--out {out}: the name must end in .json or .csv")
    if out is not None and not os.access(out if out.exists() else out.parent, os.W_OK):
        raise ConfigError(f"--out {out}: it cannot be written there")
    files = list(expand(paths))
    loaded = _load(bundle, device, detector, face_model, limits)
    results, interrupted = _score_all(loaded, files, start, duration)
    _show(results, json, single=files == paths and len(files) == 1)
    if out is not None:
        _write(out, results)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    from avdetect.report.data import Failure

    if any(isinstance(result, Failure) for result in results):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def demo(device: DeviceOption = "auto", bundle: BundleOption = None) -> None:
    """Score the small clip that ships with the package."""
    from rich.console import Console

    from avdetect.report.text import render

    sample = Path(__file__).parent / "weights" / "sample" / "sample.mp4"
    loaded = _load(bundle, device, None, None, None)
    with _progress([str(sample)]) as advance:
        detection = loaded.score(sample, on_progress=advance)
    console = Console(highlight=False)
    console.print(
        "This sample is a manipulation by construction: a public-domain NASA portrait of Eileen Collins whose face is "
        "warped to speak, with a voice made by a formant synthesiser. The two are in step.\n"
    )
    console.print(render(detection))
    console.print("\nNow try your own: avdetect score YOUR_VIDEO.mp4")


@app.command()
def doctor(device: DeviceOption = "auto", bundle: BundleOption = None) -> None:
    """Check ffmpeg, ONNX Runtime, the bundle, and that golden scores come out as when the bundle was made."""
    from avdetect.doctor import run_checks

    checks = run_checks(bundle, device)
    for check in checks:
        mark = typer.style("ok  ", fg="green") if check.ok else typer.style("FAIL", fg="red")
        typer.echo(f"{mark} {check.name}: {check.detail}")
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def evaluate(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="CSV or Parquet, as tools/prepare.py writes it.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.", show_default=False)],
    bundle: BundleOption = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Take the clips from this cache (tools/preprocess.py)."),
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
    from avdetect.evaluation import require_libraries

    require_libraries()
    from avdetect.bundle import Bundle
    from avdetect.datasets.manifest import read_manifest
    from avdetect.evaluation import run as evaluation
    from avdetect.evaluation.comparison import named_folders

    try:
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
            command=_evaluation(
                manifest, bundle, cache, split, out_of_fold, beside or [], robustness, no_audit, no_sync
            ),
        )
    except OSError as error:
        raise AVDetectError(
            f"cannot write {out}: {error.strerror or error}; what is done is kept, run again"
        ) from error
    for warning in results.warnings:
        typer.echo(f"note: {warning}", err=True)
    typer.echo(out / "report.html")


def _evaluation(
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


@models.command("fetch")
def fetch(
    yes: Annotated[bool, typer.Option("--yes", help="I have read the terms and accept them.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="Where insightface keeps its models.")
    ] = None,
) -> None:
    """Download insightface's SCRFD face detector (non-commercial research only)."""
    from avdetect.faces.scrfd import SCRFD_TERMS, fetch_scrfd

    typer.echo(SCRFD_TERMS)
    if not yes:
        typer.confirm("Download it under these terms?", abort=True)
    path = fetch_scrfd(root)
    typer.echo(f"{path}\nUse it with: avdetect score --detector scrfd --face-model {path} VIDEO")


def expand(paths: Sequence[str]) -> Iterator[str]:
    """Files as given, the media files below folders (sorted), the matches of glob patterns (sorted; folders descended).

    A name that exists is never read as a pattern. Raises ConfigError for a pattern or a folder that leads to no file; a
    missing file is left for the scorer to report.
    """
    for path in paths:
        if not path:
            raise ConfigError("an empty name is no file")
        if os.path.isdir(path):
            found = _media_below(path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))
            found = [file for m in matches for file in (_media_below(m) if os.path.isdir(m) else [m])]
        else:
            found = [path]
        if not found:
            raise ConfigError(f"{path} leads to no media file")
        yield from found


def _media_below(folder: str) -> list[str]:
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES
    )


def _load(
    bundle: Path | None, device: str, detector: str | None, face_model: Path | None, limits: Path | None
) -> Detector:
    from avdetect.config import MediaLimits, load_yaml
    from avdetect.detector import load_detector

    media_limits = load_yaml(MediaLimits, limits) if limits else None
    return load_detector(bundle, device=device, face_detector=detector, face_model=face_model, limits=media_limits)


def _score_all(
    detector: Detector, files: Sequence[str], start: float, duration: float | None
) -> tuple[list[Result], bool]:
    """The results in order, and whether Ctrl-C cut them short: what is done by then is not lost."""
    from avdetect.report.data import Failure

    results: list[Result] = []
    try:
        with _progress(files) as advance:
            for file in files:
                try:
                    results.append(
                        detector.score(file, start_seconds=start, duration_seconds=duration, on_progress=advance)
                    )
                except ConfigError:
                    raise  # no file's fault
                except AVDetectError as error:
                    results.append(Failure(file, type(error).__name__, str(error)))
                except Exception as error:  # a bug of ours must not cost the files that were scored
                    message = f"{type(error).__name__}: {error} (a bug in avdetect: please report it with this file)"
                    results.append(Failure(file, "InternalError", message))
                advance(None, None)
    except KeyboardInterrupt:
        typer.echo(f"avdetect: interrupted; {len(results)} of {len(files)} files were scored", err=True)
        return results, True
    return results, False


@contextmanager
def _progress(files: Sequence[str]):
    """A bar on a terminal, nothing in a pipe.

    Yields advance(seconds_done, seconds_in_all) for the current file; advance(None, None) goes to the next one.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scoring", total=len(files))
        finished = 0

        def advance(done: float | None, total: float | None) -> None:
            nonlocal finished
            if done is None:
                finished += 1
            part = min(1.0, done / total) if done is not None and total else 0.0
            bar.update(task, completed=finished + part, description=f"{min(finished + 1, len(files))}/{len(files)}")

        yield advance


def _show(results: Sequence[Result], json: bool, single: bool) -> None:
    from avdetect.report.data import Failure, printable, to_csv, to_json

    if json:
        typer.echo(to_json(results))
        return
    from rich.console import Console

    from avdetect.report.text import render, table

    if single and results:
        result = results[0]
        if isinstance(result, Failure):
            typer.echo(f"avdetect: {result.error}: {printable(result.message)}", err=True)
        else:
            Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(render(result))
    elif sys.stdout.isatty():
        Console(highlight=False).print(table(results))
    else:
        typer.echo(to_csv(results), nl=False)


def _write(out: Path, results: Sequence[Result]) -> None:
    from avdetect.report.data import to_csv, to_json

    try:
        out.write_text(to_json(results) + "\n" if out.suffix == ".json" else to_csv(results), encoding="utf-8")
    except OSError as error:
        raise AVDetectError(f"cannot write {out}: {error.strerror}") from error


def main() -> None:
    """Entry point."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None: the process's own). Typed errors become one line on stderr and an exit code."""
    try:
        try:
            app(args=arguments, prog_name=None if arguments is None else "avdetect")
        finally:
            sys.stdout.flush()
    except SystemExit as end:  # click's way to say the exit code
        return end.code if isinstance(end.code, int) else 0
    except ConfigError as error:
        typer.echo(f"avdetect: {error}", err=True)
        return EXIT_USAGE
    except AVDetectError as error:
        typer.echo(f"avdetect: {type(error).__name__}: {error}", err=True)
        return EXIT_FAILED
    except OSError as error:  # standard output: a full disk, a closed pipe
        sys.stdout = None  # or Python would try to flush it once more, and complain
        typer.echo(f"avdetect: cannot write the results: {error.strerror or error}; use --out to keep a copy", err=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    main()
