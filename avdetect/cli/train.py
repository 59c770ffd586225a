"""`avdetect train`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avdetect.cli.console import kept, say
from avdetect.cli.export import how_to_score
from avdetect.cli.options import DetectorModelOption, NewBundleOption, RunOption
from avdetect.extras import importing


def train(
    cache: Annotated[Path, typer.Option(metavar="DIR", help="What `avdetect preprocess` wrote.", show_default=False)],
    config: Annotated[Path, typer.Option(metavar="YAML", help="Differences from the defaults.", show_default=False)],
    run: RunOption,
    out: NewBundleOption,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Safetensors of the image encoder (of several: a folder); overrides the YAML's."
        ),
    ] = None,
    pretrained_audio: Annotated[
        str | None, typer.Option(metavar="PATH", help="The same for the voice; overrides model.audio.pretrained.")
    ] = None,
    detector_model: DetectorModelOption = None,
    devices: Annotated[int, typer.Option(metavar="N", help="Processes to train in, one a device.")] = 1,
    accelerator: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that prepare batches, for each device.")] = 1,
) -> None:
    """Train the streams and the fusion on a cache of preprocessed clips, and export a bundle.

    avdetect train --cache cache --config configs/small.yaml --run runs/mine --out my_bundle

    Killed at any moment and started again, training goes on where it was and ends in the same weights.
    Checkpoints, logs and out-of-fold outputs live under --run.
    Files whose split is train are trained on; dev chooses weights and the probability clip.
    test, where there is one, is only measured.
    """
    from avdetect.config import TrainConfig, load_yaml

    with importing("train", "training"):
        from avdetect.datasets.clips import ClipArchive
        from avdetect.training import results
        from avdetect.training.loop import make_fabric
        from avdetect.training.run import Settings
        from avdetect.training.run import train as train_streams

    settings = load_yaml(TrainConfig, config)
    fabric = make_fabric(devices, accelerator)
    archive = ClipArchive(cache)
    archive.check_sources()
    results.check_detector(settings, archive.fingerprint, detector_model)
    with kept(run, "the same command goes on from the last checkpoint"):
        encoders = {"visual": pretrained, "audio": pretrained_audio}
        train_streams(settings, archive, run, Settings(fabric, workers), encoders)
    if fabric.is_global_zero:
        with kept(out, "the run is whole: `avdetect export` goes on"):
            _, result = results.export(run, out, detector_model=detector_model)
        say(f"{results.in_words(result)}\n{how_to_score(out)}")
