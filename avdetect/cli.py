"""The command line. Heavy imports wait until a command needs them: `--help` answers at once."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avdetect._version import __version__
from avdetect.errors import AVDetectError, ConfigError
from avdetect.extras import importing, require

if TYPE_CHECKING:
    from avdetect.batch.command import Engines, Output
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.sources import Source
    from avdetect.report.data import Result
    from avdetect.report.files import ReportFiles
    from avdetect.report.recorder import Recorder

_ASCII_BARS = str.maketrans("█░", "#.")
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

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


def _choose_ffmpeg(path: str | None) -> None:
    """Every process that is started from here inherits the choice."""
    if path:
        from avdetect._media.tool import VARIABLE

        os.environ[VARIABLE] = path


# Its callback does all that is to be done, so no command looks at it.
FfmpegOption = Annotated[
    str | None,
    typer.Option(
        "--ffmpeg",
        metavar="FILE",
        callback=_choose_ffmpeg,
        help="The ffmpeg that decodes.",
        show_default="$AVDETECT_FFMPEG, or the one that is installed with avdetect",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def _say(text: str, err: bool = False) -> None:
    """Lines of text, of whoever's names. (`typer.echo` writes UTF-8 where a stream is ASCII.)"""
    print(_lines(text), file=sys.stderr if err else sys.stdout, flush=True)


def _version(value: bool) -> None:
    if value:
        _say(f"avdetect {__version__}")
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
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Files, folders, glob patterns, or - for a list on standard input.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Also write the results to FILE, a name that ends in .csv, .jsonl, .json or .parquet. FILE.journal "
            "keeps what is scored: resume a stopped run with the same command.",
        ),
    ] = None,
    excel: Annotated[
        bool, typer.Option("--excel", help="Begin the CSV of --out with the mark that Excel knows UTF-8 by.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write what speaks for the verdict on one file as a page: a .html name."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="The same as one static picture: a .png name.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Processes that score.",
            show_default="1; on Ray one for each CPU of the cluster",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Where they are: process (this machine) or ray (a cluster).")
    ] = "process",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="The cluster, HOST:PORT or auto: the one that this machine belongs to.",
            show_default="$RAY_ADDRESS, or a Ray of its own on this machine",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Score what its column `path` names: CSV or Parquet; names are relative to it.",
        ),
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="Names on standard input end in NUL, not in a newline.")] = False,
    kaggle: Annotated[
        Path | None,
        typer.Option(
            "--kaggle",
            metavar="FILE",
            help="Also write DFDC's submission: filename,label. The label is P(fake); only here it is 0.5 for files "
            "that failed or that the model abstains from, since the competition needs a number.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Score files that failed in an earlier run of this command again."),
    ] = False,
    start: Annotated[float, typer.Option("--start", min=0, help="Begin here, in seconds.")] = 0.0,
    duration: Annotated[float | None, typer.Option("--duration", min=0.04, help="Score this many seconds.")] = None,
    audio_track: Annotated[
        int | None,
        typer.Option(
            "--audio-track", metavar="N", min=1, help="Judge this sound track.", show_default="the one with speech"
        ),
    ] = None,
    video_track: Annotated[
        int | None,
        typer.Option("--video-track", metavar="N", min=1, help="Judge this video track.", show_default="the best one"),
    ] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
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
    from avdetect.batch.command import Engines, Output
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.sources import STDIN, source_of
    from avdetect.config import MediaLimits, load_yaml
    from avdetect.report.files import ReportFiles, check_apart

    files = ReportFiles(report, plot)
    files.check()
    output = Output(out, kaggle, json, excel)
    output.check()
    engines = Engines(engine, workers, ray_address)
    engines.check()
    source = source_of(paths or [], manifest, null)
    read = [("the manifest", manifest), ("the file of --limits", limits), ("the face model", face_model)]
    check_apart(
        output.named | files.named,
        chain(
            ((what, path) for what, path in read if path is not None),
            (("the file to be scored", path) for path in (paths or []) if path != STDIN),
            (("a file to be scored", path) for path in source.known()),
        ),
    )
    output.check_replaceable()
    media_limits = load_yaml(MediaLimits, limits) if limits else MediaLimits()
    options = ScoringOptions(
        bundle, device, detector, face_model, media_limits, start, duration, video_track, audio_track
    )
    if engines == Engines() and kaggle is None and source.single:
        code = _score_one(source, source.single, options, output, files)
    elif files.paths:
        raise ConfigError(
            "--report and --plot show one file: score it alone, without --workers, --engine, --manifest and --kaggle"
        )
    else:
        code = _score_many(source, options, output, engines, retry_failed)
    if code:
        raise typer.Exit(code)


@app.command()
def demo(
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Where the page with the evidence goes: a .html name.",
            show_default="avdetect-demo.html",
        ),
    ] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
) -> None:
    """Score the small clip that ships with the package, and write its report."""
    from rich.console import Console

    from avdetect.detector import load_detector
    from avdetect.report.files import ReportFiles
    from avdetect.report.text import render

    sample = Path(__file__).parent / "weights" / "sample" / "sample.mp4"
    page = Path("avdetect-demo.html")
    files = ReportFiles(report or page)
    try:
        files.check()
    except ConfigError:
        if report is not None:
            raise
        files = ReportFiles()  # the sample is scored all the same
    loaded = load_detector(bundle, device=device)
    recorder = _recorder_for(files)
    with _progress() as advance:
        detection = loaded.score(sample, on_progress=advance, observer=recorder)
    console = Console(highlight=False)
    console.print(
        "This sample is a manipulation by construction: a public-domain NASA portrait of Eileen Collins whose face is "
        "warped to speak, with a voice made by a formant synthesiser. The two are in step.\n"
    )
    console.print(render(detection))
    console.print("\nNow try your own: avdetect score YOUR_VIDEO.mp4 --report report.html")
    if recorder is not None:
        files.write(recorder.evidence(loaded, detection))
        console.print(f"report: {_lines(str(files.report))}", markup=False, soft_wrap=True)
    else:
        raise AVDetectError(f"no report: {page} cannot be written here; run the demo in another folder")


@app.command()
def doctor(device: DeviceOption = "auto", bundle: BundleOption = None, ffmpeg: FfmpegOption = None) -> None:
    """Check ffmpeg, ONNX Runtime, the bundle, and that golden scores come out as when the bundle was made."""
    from avdetect.doctor import run_checks

    checks = run_checks(bundle, device)
    for check in checks:
        mark = "ok  " if check.ok else "FAIL"
        if sys.stdout.isatty():
            mark = typer.style(mark, fg="green" if check.ok else "red")
        _say(f"{mark} {check.name}: {check.detail}")
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
    ffmpeg: FfmpegOption = None,
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
    from avdetect.bundle import Bundle

    with importing("evaluate", "avdetect evaluate"):
        from avdetect.datasets.manifest import read_manifest
        from avdetect.evaluation import run as evaluation
        from avdetect.evaluation.comparison import named_folders
        from avdetect.evaluation.views import in_words

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
    for line in in_words(results.tables["metrics"], next(iter(results.parts))):
        _say(line)
    for warning in results.warnings:
        _say(f"note: {warning}", err=True)
    _say(str(out / "report.html"))


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


@app.command()
def serve(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8765,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Where uploads wait and results are kept.",
            show_default="avdetect/serve in $XDG_STATE_HOME",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Videos that are scored at a time, a process each.")
    ] = 1,
    queue: Annotated[int, typer.Option("--queue", metavar="N", min=1, help="Videos that may wait.")] = 100,
    max_upload_mb: Annotated[
        float, typer.Option("--max-upload-mb", metavar="MIB", min=0.001, help="Largest video that is taken.")
    ] = 1024.0,
    keep_hours: Annotated[
        float,
        typer.Option("--keep-hours", min=0.001, help="Forget a result after so long; its video goes at once."),
    ] = 24.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Ask everybody for the token in it.", show_default="$AVDETECT_TOKEN"
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="Name under which it is reached; may be repeated."),
    ] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
    limits: Annotated[
        Path | None, typer.Option("--limits", metavar="YAML", help="Raise or lower the media limits.")
    ] = None,
) -> None:
    """A page to drop a video on, and a REST interface. Ctrl-C ends it; what waits is scored after the next start."""
    from avdetect.batch.options import ScoringOptions
    from avdetect.config import load_yaml

    with importing("serve", "avdetect serve"):
        from avdetect.serve import command
        from avdetect.serve.settings import ServerLimits, ServeSettings, default_data, read_token

    media_limits = load_yaml(ServerLimits, limits) if limits else ServerLimits()
    settings = ServeSettings(
        data=(data or default_data()).absolute(),
        host=host,
        port=port,
        token=read_token(token_file),
        allowed_hosts=tuple(allowed_host or ()),
        workers=workers,
        queue=queue,
        max_upload_bytes=round(max_upload_mb * 1024**2),
        keep_seconds=keep_hours * 3600,
        options=ScoringOptions(bundle.absolute() if bundle else None, device, limits=media_limits),
    )
    command.serve(settings, _say)


@models.command("fetch")
def fetch(
    yes: Annotated[bool, typer.Option("--yes", help="I have read the terms and accept them.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="Where insightface keeps its models.")
    ] = None,
) -> None:
    """Download insightface's SCRFD face detector (non-commercial research only)."""
    require("scrfd", "avdetect models fetch")
    from avdetect.faces.scrfd import SCRFD_TERMS, fetch_scrfd

    _say(SCRFD_TERMS)
    if not yes:
        typer.confirm("Download it under these terms?", abort=True)
    path = fetch_scrfd(root)
    _say(f"{path}\nUse it with: avdetect score --detector scrfd --face-model {path} VIDEO")


def _score_one(source: Source, path: str, options: ScoringOptions, output: Output, files: ReportFiles) -> int:
    """Score a file that was named itself, in this process; the exit code."""
    from avdetect.batch.command import table_of_one
    from avdetect.batch.options import attempt
    from avdetect.report.data import Failure

    detector = options.load()
    recorder = _recorder_for(files, options.duration_seconds)
    try:
        with table_of_one(source, path, options, output) as keep, _progress() as advance:
            result = attempt(
                path,
                lambda: detector.score(path, on_progress=advance, observer=recorder, **options.part),
            )
            keep(result)
    except KeyboardInterrupt:
        _say("avdetect: interrupted; the file was not scored", err=True)
        return EXIT_INTERRUPTED
    _show(result, output.as_json)
    if isinstance(result, Failure):
        return EXIT_FAILED
    if recorder is not None:
        try:
            files.write(recorder.evidence(detector, result))
        except AVDetectError:
            raise
        except Exception as error:  # OpenCV, matplotlib: the verdict stands
            raise AVDetectError(
                f"no report could be made: {type(error).__name__}: {error} (a bug in avdetect: please report it with "
                "this file)"
            ) from error
        for written in files.paths:
            _say(f"report: {written}", err=True)
    return 0


def _recorder_for(files: ReportFiles, duration_seconds: float | None = None) -> Recorder | None:
    if not files.paths:
        return None
    from avdetect.report.recorder import Recorder

    return Recorder(duration_seconds)


def _score_many(source: Source, options: ScoringOptions, output: Output, engines: Engines, retry_failed: bool) -> int:
    """Score in worker processes; the exit code."""
    from avdetect.batch.command import score_many

    summary, notes = score_many(source, options, output, engines, retry_failed=retry_failed)
    for note in (*filter(None, [source.note]), *notes):
        _say(f"avdetect: {note}", err=True)
    if summary.interrupted:
        again = "; the same command goes on" if output.journal else ""
        _say(f"avdetect: interrupted; {summary}{again}", err=True)
        return EXIT_INTERRUPTED
    _say(f"avdetect: {summary}", err=True)
    return EXIT_FAILED if summary.failed else 0


@contextmanager
def _progress() -> Iterator[Callable[[float, float | None], None]]:
    """A bar for one file on a terminal, nothing in a pipe. Yields advance(seconds_done, seconds_in_all)."""
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
        task = bar.add_task("scoring", total=1)
        yield lambda done, total: bar.update(task, completed=min(1.0, done / total) if total else 0.0)


def _show(result: Result, json: bool) -> None:
    from avdetect.report.data import Failure, printable, to_json

    if json:
        _say(to_json([result]))
    elif isinstance(result, Failure):
        _say(f"avdetect: {result.error}: {printable(result.message)}", err=True)
    else:
        from rich.console import Console

        from avdetect.report.text import render

        Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(render(result))


def _lines(text: str) -> str:
    """Text that a file had a part in, such as a bundle's name: it may have lines, but may not steer the terminal."""
    from avdetect.report.data import printable

    return "\n".join(map(printable, text.split("\n")))


def main() -> None:
    """Entry point."""
    _open_standard_streams()
    _escape_what_cannot_be_shown()
    # What NumPy and OpenCV are asked here is too small to share among threads: those would mostly wait, and burn a
    # tenth of all CPU seconds with it. The decoder and the networks use the cores. Read when the two are imported.
    for name in ("OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, "1")
    sys.exit(run())


def _open_standard_streams() -> None:
    """A stream that we were started without (`<&-`, a daemon) is /dev/null, so that no file of ours takes its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8"))  # noqa: SIM115


def _escape_what_cannot_be_shown() -> None:
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
        _say(f"avdetect: {error}", err=True)
        return EXIT_USAGE
    except AVDetectError as error:
        _say(f"avdetect: {type(error).__name__}: {error}", err=True)
        return EXIT_FAILED
    except ImportError as error:  # a library of the base, for extras have their own error
        typer.echo(
            f"avdetect: {type(error).__name__}: {_lines(str(error))}; this installation is damaged: see "
            "`avdetect doctor`, or make the environment anew as README says",
            err=True,
        )
        return EXIT_FAILED
    except OSError as error:  # standard output: a full disk, a closed pipe
        sys.stdout = None  # or Python would try to flush it once more, and complain
        given = sys.argv[1:] if arguments is None else arguments
        _say(f"avdetect: cannot write to standard output: {error.strerror or error}{_remedy(given)}", err=True)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _remedy(arguments: Sequence[str]) -> str:
    """What to do where standard output takes nothing."""
    if arguments[:1] != ["score"]:
        return ""
    if any(word.partition("=")[0] == "--out" for word in arguments):
        return "; what is scored is kept for --out: run the same command again with its output elsewhere"
    return "; use --out to keep a copy"


if __name__ == "__main__":
    main()
