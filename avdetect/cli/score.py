"""`avdetect score`."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avdetect.cli.console import EXIT_FAILED, Interrupted, progress, say
from avdetect.cli.options import BundleOption, DeviceOption, FfmpegOption, LimitsOption, RayAddressOption, seconds
from avdetect.errors import AVDetectError, ConfigError

if TYPE_CHECKING:
    from avdetect.batch.command import Engines, Output
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.sources import Source
    from avdetect.report.data import Result


def score(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Files, folders, glob patterns, or - for a list on standard input.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON: of one file a document, of several a line each.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the results to FILE, a name that ends in .csv or .jsonl; of several files only a summary is "
            "printed. FILE.journal keeps what is scored: resume a stopped run with the same command.",
        ),
    ] = None,
    excel: Annotated[
        bool, typer.Option("--excel", help="Begin the CSV of --out with the mark that Excel knows UTF-8 by.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what speaks for the verdict on one file as a page: a .html name."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processes that score.", show_default="1; on Ray one for each CPU of the cluster"
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where they are: process (this machine) or ray (a cluster).")] = "process",
    ray_address: RayAddressOption = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score what the column `path` of a CSV names; names are relative to it."),
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="Names on standard input end in NUL, not in a newline.")] = False,
    kaggle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write DFDC's submission: filename,label. The label is P(fake); only here it is 0.5 for files "
            "that failed or that the model abstains from, since the competition needs a number.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Score files that failed in an earlier run of this command again.")
    ] = False,
    start: Annotated[
        float, typer.Option(metavar="TIME", parser=seconds, help="Begin here: seconds, or minutes as in 1:30.")
    ] = 0.0,
    duration: Annotated[
        float | None, typer.Option(metavar="TIME", parser=seconds, help="Score as much: seconds, or as in 1:30.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Score at most N stretches of 12 s, spread evenly; 0: everything.",
            show_default="6 of a file longer than 20 minutes",
        ),
    ] = None,
    audio_track: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Judge this sound track.", show_default="the one with speech"),
    ] = None,
    video_track: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Judge this video track.", show_default="the best one")
    ] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
    detector: Annotated[str | None, typer.Option(help="Face detector: mtcnn or scrfd.")] = None,
    face_model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the face detector (scrfd: an ONNX file).")
    ] = None,
    limits: LimitsOption = None,
) -> None:
    """Score files. One file: a report. Several: a table (CSV in a pipe; with --out only in that file).

    Exit codes: 0 every file was scored (abstaining counts),
    1 some file failed or the model cannot be loaded, 2 wrong usage, 130 interrupted.
    """
    from avdetect.batch.command import Engines, Output
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.sources import STDIN, source_of
    from avdetect.config import MediaLimits, load_yaml
    from avdetect.report.files import check_apart, check_report

    output, engines = Output(out, kaggle, json, excel), Engines(engine, workers, ray_address)
    if report is not None:
        check_report(report)
    output.check()
    engines.check()
    source = source_of(paths or [], manifest, null)
    read = [("the manifest", manifest), ("the file of --limits", limits), ("the face model", face_model)]
    named = [path for path in (paths or []) if path != STDIN]
    check_apart(
        output.named | ({} if report is None else {"--report": report}),
        chain(
            ((what, path) for what, path in read if path is not None),
            (("the file to be scored", path) for path in named),
            (("a file to be scored", path) for path in source.known()),
        ),
    )
    output.check_replaceable()
    media_limits = load_yaml(MediaLimits, limits) if limits else MediaLimits()
    options = ScoringOptions(
        bundle, device, detector, face_model, media_limits, start, duration, sample, video_track, audio_track
    )
    if engines == Engines() and kaggle is None and source.single:
        code = _score_one(source, source.single, options, output, report)
    elif report is not None:
        raise ConfigError(
            "--report shows one file: score it alone, without --workers, --engine, --manifest and --kaggle"
        )
    else:
        code = _score_many(source, options, output, engines, retry_failed)
    if code:
        raise typer.Exit(code)


def _score_one(source: Source, path: str, options: ScoringOptions, output: Output, report: Path | None) -> int:
    from avdetect.batch.command import table_of_one
    from avdetect.batch.options import attempt
    from avdetect.report.data import Failure

    detector, recorder = options.load(), None
    if report is not None:
        from avdetect.report.recorder import Recorder

        recorder = Recorder(options.duration_seconds, options.sample)
    try:
        with table_of_one(source, path, options, output) as keep, progress() as advance:
            result = attempt(path, lambda: detector.score(path, on_progress=advance, observer=recorder, **options.part))
            keep(result)
    except KeyboardInterrupt:
        raise Interrupted("the file was not scored") from None
    _show(result, output.as_json)
    if isinstance(result, Failure):
        return EXIT_FAILED
    if recorder is not None and report is not None:
        from avdetect.report.files import write_report

        try:
            write_report(report, recorder.evidence(detector, result))
        except AVDetectError:
            raise
        except Exception as error:  # OpenCV, jinja2: the verdict stands
            raise AVDetectError(
                f"no report could be made: {type(error).__name__}: {error} (a bug in avdetect: please report it with "
                "this file)"
            ) from error
        say(f"report: {report}", err=True)
    return 0


def _score_many(source: Source, options: ScoringOptions, output: Output, engines: Engines, retry_failed: bool) -> int:
    from avdetect.batch.command import score_many

    summary, notes = score_many(source, options, output, engines, retry_failed=retry_failed)
    for note in filter(None, (source.note, *notes)):
        say(f"avdetect: {note}", err=True)
    if summary.interrupted:
        raise Interrupted(f"{summary}{'; the same command goes on' if output.journal else ''}")
    say(f"avdetect: {summary}{f'; the results are in {output.out}' if output.out else ''}", err=True)
    return EXIT_FAILED if summary.failed else 0


def _show(result: Result, json: bool) -> None:
    from avdetect.report.data import Failure, printable, to_json

    if json:
        say(to_json([result]))
    elif isinstance(result, Failure):
        say(f"avdetect: {printable(result.message)}", err=True)
    else:
        from rich.console import Console

        from avdetect.report.text import render

        Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(render(result))
