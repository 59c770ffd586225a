"""`avdetect export`."""

from pathlib import Path
from typing import Annotated

import typer

from avdetect.cli.console import kept, say
from avdetect.cli.options import DetectorModelOption, NewBundleOption, RunOption
from avdetect.extras import importing


def export(
    run: RunOption,
    out: NewBundleOption,
    name: Annotated[str | None, typer.Option(help="Of the bundle; overrides the configuration's.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights; overrides the configuration's.")] = None,
    detector_model: DetectorModelOption = None,
) -> None:
    """Export the bundle of a finished training run.

    `avdetect train` does this at its end; this is for exporting again, under another name or with another version.
    """
    with importing("train", "exporting"):
        from avdetect.training import results

    with kept(out, "the run is whole: export it again"):
        results.export(run, out, name=name, licence=licence, detector_model=detector_model)
    say(how_to_score(out))


def how_to_score(bundle: Path) -> str:
    """The last lines of whatever made a bundle."""
    return f"bundle: {bundle}\nscore a video with it:\n  avdetect score clip.mp4 --bundle {bundle}"
