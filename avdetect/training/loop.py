"""One plain loop for every stream, on Lightning Fabric.

A batch is a pure function of its step number, and the random state is a pure function of the step too. A run killed at
any point therefore continues from its checkpoint exactly as it would have gone on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import lightning as L
import torch
from lightning.fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avdetect.config import LoopConfig

Batch = Mapping[str, Tensor]


class _Steps(Dataset):
    """Steps as a dataset, so that a worker process prepares the next batches while this one trains."""

    def __init__(self, make_batch: Callable[[int], Batch], first: int, last: int) -> None:
        self.make_batch, self.first, self.last = make_batch, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)  # a checkpoint may be of a longer run

    def __getitem__(self, index: int) -> Batch:
        return self.make_batch(self.first + index)


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _update_ema(average: nn.Module, module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for a, b in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            if a.dtype.is_floating_point:
                a.lerp_(b, 1 - decay)
            else:
                a.copy_(b)


def fit(
    module: nn.Module,
    make_batch: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    config: LoopConfig,
    *,
    seed: int,
    checkpoint: Path,
    name: str,
    workers: int = 1,
) -> nn.Module:
    """Train `module` and return the exponential moving average of its weights, in eval mode.

    make_batch(step) -> the step's batch (CPU tensors). The checkpoint is written every `checkpoint_every` steps and
    read when it exists; the log `<checkpoint>.csv` holds step, loss and learning rate.
    """
    fabric = Fabric(accelerator="auto", devices=1)
    average = deepcopy(module).eval()
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    wrapped, optimizer = fabric.setup(module, optimizer)
    average = average.to(fabric.device)
    state = {"module": wrapped, "average": average, "optimizer": optimizer, "step": 0}
    if checkpoint.exists():
        state |= {"step": fabric.load(checkpoint, state, weights_only=True).get("step", state["step"])}
    first = int(state["step"])
    log = checkpoint.with_suffix(".csv")
    _start_log(log, first)
    batches = DataLoader(_Steps(make_batch, first, config.steps), batch_size=None, num_workers=workers)
    with _progress() as bar:
        task = bar.add_task(name, total=config.steps, completed=first, loss="")
        for step, batch in enumerate(batches, first):
            # Dropout is a function of the step, like the batch.
            L.seed_everything((seed * 1_000_003 + step) % 2**32, verbose=False)
            wrapped.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            loss = loss_of(wrapped, {key: value.to(fabric.device) for key, value in batch.items()})
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=5.0)
            optimizer.step()
            _update_ema(average, module, min(config.ema_decay, (step + 1) / (step + 10)))
            with log.open("a") as file:
                file.write(f"{step},{loss.item():.6f},{learning_rate(step, config):.3g}\n")
            bar.update(task, advance=1, loss=f"loss {loss.item():.3f}")
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                fabric.save(checkpoint.with_suffix(".partial"), {**state, "step": step + 1})
                checkpoint.with_suffix(".partial").replace(checkpoint)
    return average.cpu().eval()


def _start_log(log: Path, first: int) -> None:
    """Keep the lines of the steps before `first`: those after the last checkpoint are trained again."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = log.read_text().splitlines()[1 : first + 1] if log.exists() and first else []
    log.write_text("\n".join(["step,loss,lr", *kept]) + "\n")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
