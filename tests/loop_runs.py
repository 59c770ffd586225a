"""Runs of the training loop on a small network, for its tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ddp_worker import LOOP, Sample, loss_of
from ddp_worker import make_part as make_batch
from lightning.fabric import Fabric
from torch import nn

from avdetect.config import LoopConfig
from avdetect.training.loop import Batches, fit, make_fabric

FABRIC = make_fabric(accelerator="cpu")


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


def assert_equal(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), atol=tolerance, rtol=0)


def assert_same_files(folder: Path, one: str, other: str) -> None:
    for end in (".csv", ".dev.csv"):
        texts = [path.read_text() if (path := folder / f"{n}{end}").exists() else None for n in (one, other)]
        assert texts[0] == texts[1]
    saved = [torch.load(folder / f"{n}.ckpt", weights_only=True) for n in (one, other)]
    assert saved[0]["identity"] == saved[1]["identity"]
    torch.testing.assert_close(saved[0]["state"], saved[1]["state"], atol=0, rtol=0)


def distance(average: nn.Module) -> float:
    """A log loss that falls and rises again with the steps that batch normalisation has counted."""
    return 0.2 + abs(math.sin(float(average.body[1].num_batches_tracked)))
