"""The options that several commands have."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer


def _choose_ffmpeg(path: str | None) -> None:
    """Every process that is started from here inherits the choice."""
    if path:
        from avdetect._media.tool import VARIABLE

        os.environ[VARIABLE] = path


def seconds(text: str | float) -> float:
    """Seconds of "90", "1:30" and "0:01:30.5"."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+\.?\d*|\.\d+)", str(text), re.ASCII)
    hours, minutes, rest = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    if not found or (found[2] and rest >= 60) or (found[1] and minutes >= 60):
        raise typer.BadParameter(f"{text} is no time: give seconds (90), or minutes and seconds (1:30)")
    return 3600 * hours + 60 * minutes + rest


BundleOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Bundle to use instead of the default.")]
# Its callback does all that is to be done, so no command looks at it.
FfmpegOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        callback=_choose_ffmpeg,
        help="The ffmpeg that decodes.",
        show_default="$AVDETECT_FFMPEG, or the one that is installed with avdetect",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
LimitsOption = Annotated[Path | None, typer.Option(metavar="YAML", help="Raise or lower the media limits.")]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The cluster, HOST:PORT or auto: the one that this machine belongs to.",
        show_default="$RAY_ADDRESS, or a Ray of its own on this machine",
    ),
]
DetectorModelOption = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Weights of the face detector; for mtcnn a folder.")
]
RunOption = Annotated[
    Path, typer.Option(metavar="DIR", help="Working folder: checkpoints, logs, results.", show_default=False)
]
NewBundleOption = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the exported bundle.", show_default=False)
]
