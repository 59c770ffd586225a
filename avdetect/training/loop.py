"""One plain training loop for every stream, on Lightning Fabric.

A batch is a pure function of its step number and the random state is a pure function of (seed, step, rank), so a run
killed at any point continues from its checkpoint as it would have gone on: bit for bit on CPU, from the same number of
devices. On CUDA some kernels add in no fixed order, and two runs differ in the last digits.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset

from avdetect.config import LoopConfig, to_dict
from avdetect.errors import ConfigError, ModelError
from avdetect.training.checkpoint import ADVICE, read_checkpoint, write_checkpoint
from avdetect.training.logs import RunLog

Batch = Mapping[str, Tensor]
LossOf = Callable[[nn.Module, Batch], Tensor]
MAX_NORM = 5.0  # of the gradient, over all parameters
WAIT = timedelta(hours=12)  # of the other ranks while rank 0 scores the dev clips


class Batches(Protocol):
    """The data of a run as a pure function."""

    def __call__(self, step: int, part: int, parts: int) -> Batch:
        """Part `part` of `parts` equal parts of the batch of `step`, on the CPU. The parts together are the batch."""


def make_fabric(devices: int = 1, accelerator: str = "auto", precision: str = "32-true") -> Fabric:
    """A launched Fabric. Call it once, before anything else that a script does, and pass the result on.

    With `devices` > 1 the running script is started again, with the same arguments, for each other device of this
    machine, unless torchrun has started it. Batch normalisation is over the joint batch on CUDA; on the CPU, where
    torch cannot, each rank normalises its own part. Raises ConfigError for devices that are not there and for 16-mixed
    on the CPU.
    """
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))  # torchrun's
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) != devices * nodes:
        started = int(os.environ["WORLD_SIZE"]) // nodes
        raise ConfigError(f"torchrun started {started} processes a machine; use it with devices={started}")
    # A head that one batch does not reach has no gradient; without the search, DDP would wait for one.
    several = DDPStrategy(timeout=WAIT, find_unused_parameters=True)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            strategy=several if devices * nodes > 1 else "auto",
            devices=devices,
            num_nodes=nodes,
            precision=precision,  # type: ignore[arg-type]
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot train on {devices} × {accelerator}: {error}") from error
    if precision == "16-mixed" and fabric.device.type == "cpu":
        raise ConfigError("precision 16-mixed needs a GPU; use bf16-mixed or 32-true on the CPU")
    fabric.launch()
    return fabric


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit(
    module: nn.Module,
    batches: Batches,
    loss_of: LossOf,
    config: LoopConfig,
    *,
    fabric: Fabric,
    seed: int,
    checkpoint: Path,
    name: str,
    workers: int = 1,
    evaluate: Callable[[nn.Module], float] | None = None,
) -> nn.Module:
    """Train `module` with AdamW; returns an exponential moving average of its weights, on the CPU, in eval mode.

    loss_of(module, part) must be a mean over the part's items and must call `module(...)` itself, not its methods:
    the gradient of a step is the mean over the parts of all devices. Losses that compare items see one part only.

    evaluate(average) -> the log loss on dev, every `evaluate_every` steps and after the last. It runs on rank 0 while
    the others wait, so it must not talk to them. The average with the lowest log loss is returned; without `evaluate`,
    or with evaluate_every = 0, the last one. Every rank returns the same weights.

    The checkpoint is written every `checkpoint_every` steps and read where it exists; beside it lie RunLog's files.
    Raises ModelError when the loss or the gradient is not finite (the checkpoint before it is kept), and for a
    checkpoint that is damaged or of another run.
    """
    run = _Run(module, _in_precision(fabric, config.precision), config, seed, checkpoint)
    first = run.resume()
    # The workers are forked before the threads of the log start.
    parts = prepared(batches, run.fabric, config, first, workers) if first < config.steps else iter(())
    evaluate = evaluate if config.evaluate_every else None
    logs: AbstractContextManager[RunLog | None]
    logs = RunLog(checkpoint, name, config, first) if fabric.is_global_zero else nullcontext()
    with logs as log:
        for step in range(first, config.steps):
            loss = run.step(step, parts, loss_of)
            if log:
                log.step(step, loss, learning_rate(step, config))
            is_last = step + 1 == config.steps
            if evaluate and (is_last or (step + 1) % config.evaluate_every == 0):
                log_loss = run.evaluate(step, evaluate)
                if log:
                    log.dev(step, log_loss)
            if log and (is_last or (step + 1) % config.checkpoint_every == 0):
                log.sync()
                run.save(step + 1)
    return run.result()


class _Run:
    """What a run carries from step to step: all of it goes into the checkpoint."""

    def __init__(self, module: nn.Module, fabric: Fabric, config: LoopConfig, seed: int, checkpoint: Path) -> None:
        self.fabric, self.config, self.seed, self.checkpoint = fabric, config, seed, checkpoint
        # Copied first: what is measured and exported keeps plain batch normalisation.
        self.ema = ModelEmaV3(module.to(fabric.device))
        self.average = self.ema.module
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            # Statistics over all ranks. torch's own conversion would drop the activation in timm's BatchNormAct2d.
            module = convert_sync_batchnorm(module)
        self.module = module
        optimizer = AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.wrapped, self.optimizer = fabric.setup(module, optimizer)
        self.best: dict[str, Any] = {"log_loss": math.inf, "step": -1, "weights": {}}
        self.identity = identity(config, seed)

    def step(self, step: int, parts: Iterator[Batch], loss_of: LossOf) -> float:
        """One optimizer step; returns the loss of the joint batch."""
        fabric, accumulate = self.fabric, self.config.accumulate
        _seed((self.seed, step, fabric.global_rank), fabric.device)
        self.wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=fabric.device)
        for part in range(accumulate):
            batch = {key: value.to(fabric.device, non_blocking=True) for key, value in next(parts).items()}
            with fabric.no_backward_sync(self.wrapped, enabled=part + 1 < accumulate):
                loss = loss_of(self.wrapped, batch) / accumulate
                fabric.backward(loss)
            total += loss.detach()
        norm = fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=MAX_NORM, error_if_nonfinite=False)
        # Both are the same on every rank, so all of them stop here or none.
        value = torch.as_tensor(fabric.all_reduce(total, reduce_op="mean")).item()
        self._check_finite(step, value, torch.as_tensor(norm).item())
        self.optimizer.step()
        self.ema.decay = min(self.config.ema_decay, (step + 1) / (step + 10))
        self.ema.update(self.module)
        return value

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        # With 16-mixed a gradient that overflows is skipped and the scale halved; below 1 that no longer helps.
        if math.isfinite(loss) and self.fabric.strategy.precision.state_dict().get("scale", 0.0) >= 1:
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        kept = f"; {self.checkpoint} holds an earlier step" if self.checkpoint.exists() else ""
        raise ModelError(
            f"training diverged at step {step}: {what}{kept}. Lower lr (now {self.config.lr:g}), or use precision "
            f"32-true (now {self.config.precision}), in a new --run folder"
        )

    def evaluate(self, step: int, evaluate: Callable[[nn.Module], float]) -> float:
        """The log loss of the average; keeps its weights if it is the lowest so far."""
        value = math.nan
        try:
            if self.fabric.is_global_zero:
                value = float(evaluate(self.average))
        finally:  # an error on rank 0 must not leave the others waiting
            value = self.fabric.broadcast(value)
        self.average.to(self.fabric.device).eval()  # whatever `evaluate` did with it
        if not math.isfinite(value):
            raise ModelError(f"the log loss on dev is {value} after step {step}; see the message of rank 0, if any")
        if value < self.best["log_loss"]:
            weights = {key: tensor.detach().cpu().clone() for key, tensor in self.average.state_dict().items()}
            self.best = {"log_loss": value, "step": step, "weights": weights}
        return value

    def save(self, step: int) -> None:
        """Write everything that step number `step` builds on."""
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "best": self.best,
            "step": step,
        }
        write_checkpoint(self.checkpoint, self.identity, state)

    def resume(self) -> int:
        """Go back to the checkpoint, if there is one; returns the first step to train. Raises ModelError."""
        if not self.checkpoint.exists():
            return 0
        saved = read_checkpoint(self.checkpoint, self.identity)
        try:
            self.module.load_state_dict(saved["module"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.checkpoint} is of another network; {ADVICE}") from error
        self.best = saved["best"]
        return int(saved["step"])

    def result(self) -> nn.Module:
        """The best average, or else the last, the same on every rank."""
        average = self.average.cpu()
        # Without SyncBatchNorm each rank's batch statistics are its own.
        average.load_state_dict(self.fabric.broadcast(self.best["weights"] or average.state_dict()))
        return average.eval()


def identity(config: LoopConfig, seed: int) -> dict[str, Any]:
    """What must not differ between a run and its continuation: all but how often it is saved."""
    return {"seed": seed, **{key: value for key, value in to_dict(config).items() if key != "checkpoint_every"}}


def _seed(key: tuple[int, int, int], device: torch.device) -> None:
    """Make dropout a function of (seed, step, rank), like the batch."""
    value = int(np.random.SeedSequence(key).generate_state(1)[0])
    # torch.manual_seed asks for every kind of accelerator, which takes longer than the step of a small network.
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


class _Parts(Dataset):
    """This rank's parts, in order, so that worker processes prepare the next ones while this one trains."""

    def __init__(self, batches: Batches, rank: int, world: int, config: LoopConfig, first: int) -> None:
        self.batches, self.rank, self.world, self.config, self.first = batches, rank, world, config, first

    def __len__(self) -> int:
        return (self.config.steps - self.first) * self.config.accumulate

    def __getitem__(self, index: int) -> Batch:
        step, part = divmod(index, self.config.accumulate)
        parts = self.world * self.config.accumulate
        return self.batches(self.first + step, self.rank * self.config.accumulate + part, parts)


def prepared(batches: Batches, fabric: Fabric, config: LoopConfig, first: int, workers: int) -> Iterator[Batch]:
    """This rank's parts of the batches from step `first` on, made by `workers` processes (0: by this one)."""
    parts = _Parts(batches, fabric.global_rank, fabric.world_size, config, first)
    return iter(DataLoader(parts, batch_size=None, num_workers=workers, pin_memory=fabric.device.type == "cuda"))


def _in_precision(fabric: Fabric, precision: str) -> Fabric:
    """The same devices in the precision of one run. The processes are there already and are not started again."""
    if getattr(fabric.strategy.precision, "precision", None) == precision:
        return fabric
    nodes = int(getattr(fabric.strategy, "num_nodes", 1))
    return make_fabric(fabric.world_size // nodes, fabric.device.type, precision)
