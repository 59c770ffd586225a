"""The runs that test_loop.py compares with one process: started as a script, with --devices 2 or under torchrun."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from avdetect.config import LoopConfig
from avdetect.errors import ModelError
from avdetect.training.loop import Batch, fit, make_fabric

LOOP = LoopConfig(steps=6, batch_size=8, lr=0.05, warmup_steps=2, checkpoint_every=3)


class Sample(nn.Module):
    """Everything that carries state from step to step: dropout's generator, batch statistics, Adam's moments."""

    def __init__(self, *, plain: bool = False) -> None:
        """`plain`: nothing in it depends on how a batch is parted, and one head is never reached."""
        super().__init__()
        middle = [nn.Tanh()] if plain else [nn.BatchNorm1d(4), nn.Dropout(0.5)]
        self.body = nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 1))
        if plain:
            self.unused = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).squeeze(1)


def make_part(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng((5, step))
    x = rng.standard_normal((8, 3)).astype(np.float32)
    mine = slice(part * 8 // parts, (part + 1) * 8 // parts)
    return {"x": torch.from_numpy(x[mine]), "labels": torch.from_numpy((x[mine, 0] > 0).astype(np.float32))}


def loss_of(module: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(module(batch["x"]), batch["labels"])


def new_sample(*, plain: bool = False) -> Sample:
    torch.manual_seed(0)
    return Sample(plain=plain)


def main() -> None:
    """Write what each rank ends with to the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fabric = make_fabric(args.devices, "cpu")
    rank, folder = fabric.global_rank, args.folder
    evaluated: list[int] = []

    def score(average: nn.Module) -> float:
        evaluated.append(rank)
        return 1.0 / len(evaluated)  # the last is the best

    def run(name: str, module: nn.Module, batches=make_part, evaluate=None, **changes) -> None:
        config = dataclasses.replace(LOOP, **changes)
        options = {"fabric": fabric, "seed": 3, "name": name, "workers": 0, "evaluate": evaluate}
        average = fit(module, batches, loss_of, config, checkpoint=folder / f"{name}.ckpt", **options)
        torch.save(average.state_dict(), folder / f"{name}.rank{rank}.pt")

    run("plain", new_sample(plain=True))
    run("accumulated", new_sample(plain=True), accumulate=2)
    run("bf16", new_sample(), precision="bf16-mixed", evaluate_every=2, evaluate=score)
    (folder / f"evaluated{rank}.txt").write_text(str(len(evaluated)))

    def poisoned(step: int, part: int, parts: int) -> Batch:
        batch = make_part(step, part, parts)
        return {**batch, "x": batch["x"] * float("nan")} if (step, part) == (4, 1) else batch

    try:
        run("poisoned", new_sample(plain=True), poisoned)
    except ModelError as error:
        (folder / f"poisoned{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main()
