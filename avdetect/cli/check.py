"""`avdetect demo`, `doctor` and `models fetch`: is the installation whole, and what does it do?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from avdetect.cli.console import EXIT_FAILED, lines, progress, say
from avdetect.cli.options import BundleOption, DeviceOption, FfmpegOption
from avdetect.errors import AVDetectError, ConfigError
from avdetect.extras import require

models = typer.Typer(help="Optional models that do not ship with the package.", no_args_is_help=True)


def demo(
    report: Annotated[
        Path | None,
        typer.Option(
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
    from avdetect.report.files import check_report, write_report
    from avdetect.report.recorder import Recorder
    from avdetect.report.text import render

    target, problem = report or Path("avdetect-demo.html"), False
    try:
        check_report(target)
    except ConfigError:
        if report is not None:
            raise
        problem = True  # the sample is scored all the same
    sample = Path(__file__).parents[1] / "weights" / "sample" / "sample.mp4"
    loaded, recorder = load_detector(bundle, device=device), Recorder()
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    with progress() as advance:
        detection = loaded.score(sample, on_progress=advance, observer=recorder)
    console.print(
        "This sample is a manipulation by construction: a public-domain NASA portrait of Eileen Collins whose face is "
        "warped to speak, with a voice made by a formant synthesiser. The two are in step.\n"
    )
    console.print(render(detection))
    console.print("\nNow try your own: avdetect score YOUR_VIDEO.mp4 --report report.html")
    if problem:
        raise AVDetectError("no report: avdetect-demo.html cannot be written here; run the demo in another folder")
    write_report(target, recorder.evidence(loaded, detection))
    console.print(f"report: {lines(str(target))}", markup=False, soft_wrap=True)


def doctor(device: DeviceOption = "auto", bundle: BundleOption = None, ffmpeg: FfmpegOption = None) -> None:
    """Check ffmpeg, ONNX Runtime, the bundle, and that golden scores come out as when the bundle was made."""
    from avdetect.doctor import run_checks

    checks = run_checks(bundle, device)
    for check in checks:
        mark = "ok  " if check.ok else "FAIL"
        if sys.stdout.isatty():
            mark = typer.style(mark, fg="green" if check.ok else "red")
        print(f"{mark} {lines(f'{check.name}: {check.detail}')}", flush=True)
    if not all(check.ok for check in checks):
        raise typer.Exit(EXIT_FAILED)


@models.command("fetch")
def fetch(
    yes: Annotated[bool, typer.Option("--yes", help="I have read the terms and accept them.")] = False,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where insightface keeps its models.")] = None,
) -> None:
    """Download insightface's SCRFD face detector (non-commercial research only)."""
    require("scrfd", "avdetect models fetch")
    from avdetect.faces.scrfd import SCRFD_TERMS, fetch_scrfd

    say(SCRFD_TERMS)
    if not yes:
        typer.confirm("Download it under these terms?", abort=True)
    path = fetch_scrfd(root)
    say(f"{path}\nUse it with: avdetect score --detector scrfd --face-model {path} VIDEO")
