"""Does a GPU give the scores of the CPU, and how fast does it train? Prints a table and writes it as JSON.

    python tools/gpu_check.py --out gpu_check.json [--device cuda] [--config configs/base.yaml] [--workers N]

Needs the extras `train` and `gpu`, and some five minutes. It reads no other media than the sample of the package, and
starts the encoder from random weights. Exits with 1 where a check fails. Rows, in this order:

- scores: the default bundle's golden inputs and its sample on the device, against the CPU; at most LARGEST apart
- training: samples a second of the configuration's image encoder on ready batches, of its input pipeline alone, and
  of both together; the GPU's memory and its median utilisation
- two processes: the losses of the same batches on two devices (NCCL, on the CPU gloo), against one
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from avdetect.errors import AVDetectError
from avdetect.extras import script_imports

with script_imports("gpu_check", "train"):
    import numpy as np
    import pandas as pd
    import torch
    from lightning.fabric import Fabric
    from torch import Tensor, nn

    from avdetect.bundle import Bundle, OnnxNetworks, replay_golden
    from avdetect.config import PairLoopConfig, TrainConfig, load_yaml
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


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. passed None: measured, and held to nothing."""

    check: str
    value: float | None
    unit: str
    passed: bool | None = None
    note: str = ""


class SameBatches:
    """Crops of noise, alike in every run and on every rank."""

    def __init__(self, loop: PairLoopConfig, size: int) -> None:
        noise = torch.Generator().manual_seed(0)
        self.crops = torch.randint(0, 256, (loop.batch_size, size, size, 3), dtype=torch.uint8, generator=noise)
        self.labels = (torch.arange(loop.batch_size) % 2).float()

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
    args = parser.parse_args(argv)
    try:
        config = _config(args.config)
        if args.ranks:
            with tempfile.TemporaryDirectory() as folder:
                losses = _losses(config, args.device, args.ranks, Path(folder))
            if losses:
                print(json.dumps(losses))
            return 0
        rows = [*_scores(args.device), *_training(config, args), *_two_processes(config, args)]
    except AVDetectError as error:
        print(f"gpu_check: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    facts: dict[str, str | int] = {
        "device": _name(args.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    facts |= {"config": config.name, "batch": config.visual.batch_size, "precision": config.visual.precision}
    args.out.write_text(json.dumps(facts | {"rows": [dataclasses.asdict(row) for row in rows]}, indent=1) + "\n")
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(pd.DataFrame(rows).fillna("").to_string(index=False))
    return int(any(row.passed is False for row in rows))


def _config(path: Path) -> TrainConfig:
    """The configuration with random weights, and every fake forged: the sample is real."""
    config = load_yaml(TrainConfig, path)
    visual = dataclasses.replace(config.model.visual, pretrained=False, dropout=0.0)  # alike on every rank
    loop = dataclasses.replace(config.visual, forged=1.0, evaluate_every=0, warmup_steps=0)
    model = dataclasses.replace(config.model, visual=visual)
    return dataclasses.replace(config, model=model, visual=loop)


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def _scores(device: str) -> Iterator[Row]:
    """Raises ModelError where the device cannot be used."""
    bundle = Bundle.load()
    worst = max(replay_golden(bundle, OnnxNetworks(bundle, device)).values())
    yield Row("golden inputs, largest difference from the stored scores", worst, "", worst <= LARGEST)
    found = {}
    for name in ("cpu", device):
        detector = load_detector(device=name)
        detector.score(SAMPLE)  # the first call on a GPU starts it
        began = time.perf_counter()
        found[name] = detector.score(SAMPLE)
        yield Row(f"sample scored, {name}", time.perf_counter() - began, "s")
    outputs = [[getattr(one, name) for name in OUTPUTS] for one in (found["cpu"], found[device])]
    apart = max(abs(a - b) for a, b in zip(*outputs, strict=True))  # the sample has all four
    yield Row("sample, largest difference of a probability", apart, "", apart <= LARGEST)


def _training(config: TrainConfig, args: argparse.Namespace) -> Iterator[Row]:
    loop, size = config.visual, config.preprocess.faces.crop_size
    with tempfile.TemporaryDirectory() as folder:
        sampled = VisualBatches(_sample(config, Path(folder)), loop, config.seed)
        with _utilisation(args.device) as used:
            speed = _samples_a_second(config, SameBatches(loop, size), args)
        yield Row("training, ready batches", speed, "samples/s")
        if args.device == "cuda":
            yield Row("GPU memory", torch.cuda.max_memory_allocated() / 1024**2, "MiB")
            yield Row("GPU utilisation, median", statistics.median(used) if used else None, "%")
        fabric = make_fabric(accelerator=args.device)
        counted = dataclasses.replace(loop, steps=args.steps + 1)
        parts = prepared(sampled, fabric, counted, 0, args.workers)
        next(parts)  # the workers have started
        began = time.perf_counter()
        made = sum(len(batch["labels"]) for batch in parts)
        note = f"{args.workers} workers"
        yield Row("input pipeline alone", made / (time.perf_counter() - began), "samples/s", note=note)
        with _utilisation(args.device) as used:
            speed = _samples_a_second(config, sampled, args)
        yield Row("training from the pipeline", speed, "samples/s", note=note)
        if used:
            yield Row("GPU utilisation beside the pipeline, median", statistics.median(used), "%")


def _sample(config: TrainConfig, folder: Path) -> Subset:
    """The package's sample, preprocessed as a training needs it."""
    row = {"path": str(SAMPLE), "fake": 0, "video_fake": 0, "audio_fake": 0, "group": "sample", "split": "train"}
    table = validate(pd.DataFrame([row | {"dataset": "sample", "method": ""}]))
    preprocess(table, folder / "cache", config.preprocess, Options(workers=1))
    archive = ClipArchive(folder / "cache")
    return Subset(archive, np.arange(len(archive.files)))


def _samples_a_second(config: TrainConfig, batches: Batches, args: argparse.Namespace) -> float:
    """From the end of the steps that warm up to the last one."""
    loop, times = config.visual, []
    loss_of = visual_loss(0.0, loop)

    def timed(module: nn.Module, batch: Batch) -> Tensor:
        times.append(time.perf_counter())  # each step ends with the value of its loss, so nothing is under way
        return loss_of(module, batch)

    with tempfile.TemporaryDirectory() as folder:
        fabric = make_fabric(accelerator=args.device)
        _fit(config, batches, timed, WARM_UP + args.steps, fabric, Path(folder), args.workers)
    counted = times[WARM_UP * loop.accumulate :]
    return (len(counted) - 1) * (loop.batch_size // loop.accumulate) / (counted[-1] - counted[0])


def _fit(
    config: TrainConfig, batches: Batches, loss_of: LossOf, steps: int, fabric: Fabric, folder: Path, workers: int
) -> None:
    """A training that begins anew; `visual.csv` in the folder has the loss of each step."""
    precision = config.visual.precision if fabric.device.type == "cuda" else "32-true"
    loop = dataclasses.replace(config.visual, steps=steps, checkpoint_every=steps, precision=precision)
    torch.manual_seed(config.seed)
    fit(
        Model(config.model).visual,
        batches,
        loss_of,
        loop,
        fabric=fabric,
        seed=config.seed,
        checkpoint=folder / "visual.ckpt",
        name="visual",
        workers=workers,
    )


def _losses(config: TrainConfig, device: str, ranks: int, folder: Path) -> list[float]:
    """Of the same few batches on `ranks` devices together; [] on the ranks that do not keep them."""
    fabric = make_fabric(devices=ranks, accelerator=device)
    # Losses that compare items see what one process holds.
    plain = visual_loss(0.0, dataclasses.replace(config.visual, alignment=0.0, uniformity=0.0))
    batches = SameBatches(config.visual, config.preprocess.faces.crop_size)
    _fit(config, batches, plain, STEPS, fabric, Path(fabric.broadcast(str(folder))), 0)
    if not fabric.is_global_zero:
        return []
    with (folder / "visual.csv").open(newline="") as file:
        return [float(line["loss"]) for line in csv.DictReader(file)]


def _two_processes(config: TrainConfig, args: argparse.Namespace) -> Iterator[Row]:
    check = "two processes, largest difference of a loss from one's"
    if args.device == "cuda" and torch.cuda.device_count() < 2:
        yield Row(check, None, "", note="one GPU here: not run")
        return
    found = []
    for ranks in ("1", "2"):
        command = [sys.executable, __file__, "--device", args.device, "--config", str(args.config), "--ranks", ranks]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            yield Row(check, None, "", False, (done.stderr.strip().splitlines() or ["no message"])[-1])
            return
        found.append(json.loads(done.stdout.splitlines()[-1]))
    apart = max(abs(a - b) for a, b in zip(*found, strict=True))
    yield Row(check, apart, "", apart <= APART, "nccl" if args.device == "cuda" else "gloo")


@contextmanager
def _utilisation(device: str) -> Iterator[list[float]]:
    """Per cent of the GPU, twice a second, as nvidia-smi says; nothing without it."""
    seen: list[float] = []
    ended = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def look() -> None:
        while not ended.wait(0.5):
            said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
            seen.extend([float(said)] if said.isdigit() else [])

    if device == "cuda" and shutil.which("nvidia-smi"):
        threading.Thread(target=look, daemon=True).start()
    try:
        yield seen
    finally:
        ended.set()


if __name__ == "__main__":
    sys.exit(main())
