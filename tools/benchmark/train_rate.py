"""Training throughput of a configuration: the input pipeline alone, the network alone, both together.

    python tools/benchmark/train_rate.py --cache cache --config configs/base.yaml --stream visual --steps 30 --workers 8

Prints one CSV row: samples a second of each, and the share of the time in which the network works. The weights are
random (only the cost counts); the first steps are not counted. Runs on the GPU when there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avdetect.config import TrainConfig, load_yaml
from avdetect.errors import AVDetectError
from avdetect.extras import script_imports

with script_imports("train_rate", "train"):
    import pandas as pd
    import torch
    from torch.utils.data import DataLoader, Dataset

    from avdetect.datasets.clips import ClipArchive
    from avdetect.model import Model
    from avdetect.training.loop import Batch, Batches, fit, make_fabric
    from avdetect.training.pools import Part
    from avdetect.training.streams import make_stage

WARM_UP = 5  # steps


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--stream", choices=("visual", "audio", "sync"), default="visual")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--any-cache", action="store_true", help="accept a cache of other sizes")
    args = parser.parse_args(argv)
    try:
        print(measured(args).to_csv(index=False), end="")
    except AVDetectError as error:
        print(f"train_rate: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


class _Steps(Dataset):
    def __init__(self, batches: Batches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.batches(step, 0, 1)


def measured(args: argparse.Namespace) -> pd.DataFrame:
    """One row."""
    config = load_yaml(TrainConfig, args.config)
    archive = ClipArchive(args.cache)
    if archive.config.digest() != config.preprocess.digest() and not args.any_cache:
        raise AVDetectError(f"{args.cache} was preprocessed otherwise than {args.config} asks; see --any-cache")
    steps = args.steps + WARM_UP
    loop = dataclasses.replace(getattr(config, args.stream), steps=steps, checkpoint_every=10**6, evaluate_every=0)
    config = dataclasses.replace(config, **{args.stream: loop})
    fabric = make_fabric(1, args.accelerator)
    part = Part(archive, np.flatnonzero(archive.files["split"] == "train"))
    stage = make_stage(args.stream, Model(config.model, load_pretrained=False), config, part)

    def rate(batches: Batches) -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds = []

            def timed(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
                if fabric.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter())
                return stage.loss(0.01)(module, batch)

            checkpoint = Path(folder) / "rate.ckpt"
            options = {"seed": 0, "checkpoint": checkpoint, "name": "rate", "workers": args.workers}
            fit(stage.module, batches, timed, loop, fabric=fabric, **options)
        return loop.batch_size * (len(seconds) - 1 - WARM_UP) / (seconds[-1] - seconds[WARM_UP])

    began, ready = time.perf_counter(), 0.0
    for step, _ in enumerate(DataLoader(_Steps(stage.batches, steps), batch_size=None, num_workers=args.workers)):
        if step == WARM_UP - 1:
            began = time.perf_counter()
        ready = time.perf_counter()
    pipeline = loop.batch_size * args.steps / (ready - began)
    fixed = stage.batches(0, 0, 1)
    network, both = rate(lambda step, part, parts: fixed), rate(stage.batches)
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    row = {"config": config.name, "stream": args.stream, "precision": loop.precision, "batch": loop.batch_size}
    rates = {"input_samples_s": pipeline, "network_samples_s": network, "both_samples_s": both}
    rounded = {name: round(value, 2) for name, value in rates.items()}
    more = {"network_busy": round(both / network, 3), "workers": args.workers, "device": device}
    return pd.DataFrame([row | rounded | more])


if __name__ == "__main__":
    sys.exit(main())
