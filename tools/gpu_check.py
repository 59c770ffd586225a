"""Does a GPU give the scores of the CPU, and how fast does it train? Prints a table and writes it as JSON.

Needs the extras `train` and `gpu`, and some five minutes. It reads no other media than the sample of the package, and
starts the encoder from random weights. Exits with 1 where a check fails: the default bundle's golden inputs and its
sample are compared with the CPU, and the losses of the same batches on two devices (NCCL, on the CPU gloo) with one's.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from avdetect.cli.console import exit_code, kept
from avdetect.extras import script_imports

with script_imports("gpu_check", "train"):
    import numpy as np
    import pandas as pd
    import torch
    from lightning.fabric import Fabric
    from torch import Tensor, nn

    from avdetect.bundle import Bundle, OnnxNetworks, replay_golden
    from avdetect.config import TrainConfig, load_yaml
    from avdetect.datasets.cache.build import Options, preprocess
    from avdetect.datasets.clips import ClipArchive
    from avdetect.datasets.manifest import validate
    from avdetect.detector import load_detector
    from avdetect.fusion import OUTPUTS
    from avdetect.model import Model
    from avdetect.training.batches import VisualBatches
    from avdetect.training.loop import Batch, Batches, LossOf, fit, make_fabric, prepared
    from avdetect.training.results import SAMPLE
    from avdetect.training.sampling import Subset
    from avdetect.training.streams import visual_loss

LARGEST = 1e-3  # difference of two scores
APART = 0.02  # difference of two losses: in bfloat16 they are rounded to about a hundredth
WARM_UP = 5  # steps before those that are timed
STEPS = 4  # of each of the trainings whose losses are compared
ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    check: str
    value: float | None
    unit: str = ""
    passed: bool | None = None  # None: measured, and held to nothing
    note: str = ""


class SameBatches:
    """Crops of noise, alike in every run and on every rank."""

    def __init__(self, config: TrainConfig) -> None:
        noise = torch.Generator().manual_seed(0)
        count, size = config.visual.batch_size, config.preprocess.faces.crop_size
        self.crops = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=noise)
        self.labels = (torch.arange(count) % 2).float()

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        return {"crops": self.crops[part::parts], "labels": self.labels[part::parts]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "base.yaml", help="YAML of a training")
    parser.add_argument("--workers", type=int, default=4, help="processes that prepare batches (default 4)")
    parser.add_argument("--steps", type=int, default=50, help="that are timed (default 50)")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="JSON file")
    parser.add_argument("--ranks", type=int, help=argparse.SUPPRESS)  # this script as one of the processes it compares
    return exit_code(lambda: run(parser.parse_args(argv)), name="gpu_check", usage=1)


def run(args: argparse.Namespace) -> None:
    """All rows, printed and written; ends with 1 where one did not pass."""
    config, device = _config(args.config), args.device
    if args.ranks:
        # Losses that compare items see what one process holds.
        plain = visual_loss(0.0, replace(config.visual, alignment=0.0, uniformity=0.0))
        fabric = make_fabric(devices=args.ranks, accelerator=device)
        if losses := _fit(config, SameBatches(config), plain, STEPS, fabric, workers=0):
            print(json.dumps(losses))
        return
    rows = [*_scores(device), *_training(config, args), _two_processes(args)]
    facts: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    facts |= {"torch": torch.__version__, "python": platform.python_version(), "config": config.name}
    facts |= {"batch": config.visual.batch_size, "precision": config.visual.precision}
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(pd.DataFrame(rows).fillna("").to_string(index=False))
    with kept(args.out, "the table above is all there is"):
        args.out.write_text(json.dumps(facts | {"rows": [row._asdict() for row in rows]}, indent=1) + "\n")
    sys.exit(int(any(row.passed is False for row in rows)))


def _config(path: Path) -> TrainConfig:
    """The configuration with random weights, alike on every rank, and every fake forged: the sample is real."""
    config = load_yaml(TrainConfig, path)
    visual = replace(config.model.visual, pretrained=False, dropout=0.0)
    loop = replace(config.visual, forged=1.0, evaluate_every=0, warmup_steps=0)
    return replace(config, model=replace(config.model, visual=visual), visual=loop)


def _scores(device: str) -> Iterator[Row]:
    bundle = Bundle.load()
    worst = max(replay_golden(bundle, OnnxNetworks(bundle, device)).values())
    yield Row("golden inputs, largest difference from the stored scores", worst, passed=worst <= LARGEST)
    found = []
    for name in ("cpu", device):
        detector = load_detector(device=name)
        detector.score(SAMPLE)  # the first call on a GPU starts it
        began = time.perf_counter()
        found.append(detector.score(SAMPLE))
        yield Row(f"sample scored, {name}", time.perf_counter() - began, "s")
    apart = max(abs(getattr(found[0], name) - getattr(found[1], name)) for name in OUTPUTS)  # the sample has all four
    yield Row("sample, largest difference of a probability", apart, passed=apart <= LARGEST)


def _training(config: TrainConfig, args: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        sampled = VisualBatches(_sample(config, Path(folder)), config.visual, config.seed)
        yield from _speed("training, ready batches", config, SameBatches(config), args)
        if args.device == "cuda":
            yield Row("GPU memory", torch.cuda.max_memory_allocated() / 1024**2, "MiB")
        loop = replace(config.visual, steps=args.steps + 1)
        parts = prepared(sampled, make_fabric(accelerator=args.device), loop, 0, args.workers)
        next(parts)  # the workers have started
        began = time.perf_counter()
        speed = sum(len(batch["labels"]) for batch in parts) / (time.perf_counter() - began)
        yield Row("input pipeline alone", speed, "samples/s", note=f"{args.workers} workers")
        yield from _speed("training from the pipeline", config, sampled, args)


def _sample(config: TrainConfig, folder: Path) -> Subset:
    row = {"path": str(SAMPLE), "fake": 0, "video_fake": 0, "audio_fake": 0, "group": "sample", "split": "train"}
    table = validate(pd.DataFrame([row | {"dataset": "sample", "method": ""}]))
    preprocess(table, folder / "cache", config.preprocess, Options(workers=1))
    archive = ClipArchive(folder / "cache")
    return Subset(archive, np.arange(len(archive.files)))


def _speed(check: str, config: TrainConfig, batches: Batches, args: argparse.Namespace) -> Iterator[Row]:
    loop, times = config.visual, []
    loss_of = visual_loss(0.0, loop)

    def timed(module: nn.Module, batch: Batch) -> Tensor:
        times.append(time.perf_counter())  # each step ends with the value of its loss, so nothing is under way
        return loss_of(module, batch)

    with _utilisation(args.device) as used:
        _fit(config, batches, timed, WARM_UP + args.steps, make_fabric(accelerator=args.device), args.workers)
    counted = times[WARM_UP * loop.accumulate :]
    samples = (len(counted) - 1) * (loop.batch_size // loop.accumulate)
    yield Row(check, samples / (counted[-1] - counted[0]), "samples/s", note=f"{args.workers} workers")
    if used:
        yield Row(f"GPU utilisation, median, {check}", statistics.median(used), "%")


def _fit(config: TrainConfig, data: Batches, loss_of: LossOf, steps: int, fabric: Fabric, workers: int) -> list[float]:
    """A training that begins anew: the loss of each step; [] on the ranks that do not keep them."""
    precision = config.visual.precision if fabric.device.type == "cuda" else "32-true"
    loop = replace(config.visual, steps=steps, checkpoint_every=steps, precision=precision)
    torch.manual_seed(config.seed)
    run: dict[str, Any] = {"fabric": fabric, "seed": config.seed, "name": "visual", "workers": workers}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(fabric.broadcast(folder)) / "visual.ckpt"
        fit(Model(config.model).visual, data, loss_of, loop, checkpoint=checkpoint, **run)
        if not fabric.is_global_zero:
            return []
        return pd.read_csv(checkpoint.with_suffix(".csv"))["loss"].tolist()


def _two_processes(args: argparse.Namespace) -> Row:
    check = "two processes, largest difference of a loss from one's"
    if args.device == "cuda" and torch.cuda.device_count() < 2:
        return Row(check, None, note="one GPU here: not run")
    found = []
    for ranks in ("1", "2"):
        command = [sys.executable, __file__, "--device", args.device, "--config", str(args.config), "--ranks", ranks]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return Row(check, None, passed=False, note=(done.stderr.strip().splitlines() or ["no message"])[-1])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    apart = max(abs(a - b) for a, b in zip(*found, strict=True))
    return Row(check, apart, passed=apart <= APART, note="nccl" if args.device == "cuda" else "gloo")


@contextmanager
def _utilisation(device: str) -> Iterator[list[float]]:
    """Per cent of the GPU, twice a second, there when the block has ended; nothing without nvidia-smi."""
    seen: list[float] = []
    if device == "cpu" or not shutil.which("nvidia-smi"):
        yield seen
        return
    command = "nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits --id=0 --loop-ms=500".split()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looking:
        try:
            yield seen
        finally:
            looking.terminate()
            seen += [float(line) for line in looking.communicate()[0].split() if line.isdigit()]


if __name__ == "__main__":
    sys.exit(main())
