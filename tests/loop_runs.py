"""Runs of the training loop on a small network, for its tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from avdetect.config import LoopConfig
from avdetect.training.loop import Batch, Batches, fit, make_fabric

FABRIC = make_fabric(accelerator="cpu")
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


def make_batch(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng((5, step))
    x = rng.standard_normal((8, 3)).astype(np.float32)
    mine = slice(part * 8 // parts, (part + 1) * 8 // parts)
    return {"x": torch.from_numpy(x[mine]), "labels": torch.from_numpy((x[mine, 0] > 0).astype(np.float32))}


def loss_of(module: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(module(batch["x"]), batch["labels"])


def train(
    checkpoint: Path,
    config: LoopConfig = LOOP,
    batches: Batches = make_batch,
    *,
    fabric: Fabric = FABRIC,
    plain: bool = False,
    loss=loss_of,
    seed: int = 3,
    workers: int = 0,
    evaluate: Callable[[nn.Module], float] | None = None,
) -> nn.Module:
    """As a new process would: a fresh module, and a random state that has been used for something else."""
    torch.manual_seed(0)
    module = Sample(plain=plain).eval()  # to train is the loop's business
    torch.rand(int.from_bytes(checkpoint.name.encode()[:1], "big"))
    options = {"fabric": fabric, "seed": seed, "name": "t", "workers": workers, "evaluate": evaluate}
    return fit(module, batches, loss, config, checkpoint=checkpoint, **options)


def changed(**changes) -> LoopConfig:
    return dataclasses.replace(LOOP, **changes)


class Killed(Exception):
    pass


def dies_at(dead: int, whole: Batches = make_batch) -> Batches:
    def batches(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        if step == dead:
            raise Killed
        return whole(step, part, parts)

    return batches


def never(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
    pytest.fail("a batch was made again")


def state_of(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)["state"]


def assert_equal(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), atol=tolerance, rtol=0)


def assert_same_files(folder: Path, one: str = "a", other: str = "b") -> None:
    for end in (".csv", ".dev.csv"):
        texts = [path.read_text() if (path := folder / f"{n}{end}").exists() else None for n in (one, other)]
        assert texts[0] == texts[1]
    saved = [torch.load(folder / f"{n}.ckpt", weights_only=True) for n in (one, other)]
    assert saved[0]["identity"] == saved[1]["identity"]
    torch.testing.assert_close(saved[0]["state"], saved[1]["state"], atol=0, rtol=0)


def distance(average: nn.Module) -> float:
    """A log loss that falls and rises again with the steps that batch normalisation has counted."""
    return 0.2 + abs(math.sin(float(average.body[1].num_batches_tracked)))
