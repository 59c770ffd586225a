"""What a training run writes down while it goes on: CSV, TensorBoard, and a progress bar."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from avdetect.config import LoopConfig
from avdetect.files import replacing

SMOOTHING = 0.9  # of the seconds a step, for the throughput on show


class RunLog:
    """The logs of one run, as a context; not `enabled` (every rank but 0): it writes and shows nothing.

    `<stem>.csv` (step, loss, lr) and `<stem>.dev.csv` (step, log_loss) lie beside the checkpoint and are as
    deterministic as the run: a run that was killed and continued leaves the same bytes. `tensorboard/<stem>` holds
    the same and the throughput in samples a second. `step` counts from 0 and is the step that was just trained.
    """

    def __init__(self, checkpoint: Path, name: str, config: LoopConfig, first: int, *, enabled: bool) -> None:
        """`first`: the step that the run continues with; what was logged of it or later is removed."""
        self.enabled, self.config, self.first = enabled, config, first
        self._files: list[TextIO] = []
        self._writer: SummaryWriter | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._task = self._bar.add_task(name, total=config.steps, completed=first, state="")
        self._checkpoint = checkpoint
        self._seconds_a_step: float | None = None
        self._clock = time.monotonic()

    def __enter__(self) -> RunLog:
        if self.enabled:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._train = _reopen(self._checkpoint.with_suffix(".csv"), "step,loss,lr", self.first)
            self._files = [self._train]
            if self.config.evaluate_every:
                self._dev = _reopen(self._checkpoint.with_suffix(".dev.csv"), "step,log_loss", self.first)
                self._files.append(self._dev)
            if self.first < self.config.steps:
                folder = self._checkpoint.parent / "tensorboard" / self._checkpoint.stem
                # TensorBoard forgets what a killed run wrote of the steps that are now trained again.
                self._writer = SummaryWriter(str(folder), purge_step=self.first)
        self._bar.start()
        self._clock = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        for file in self._files:
            file.close()
        if self._writer:
            self._writer.close()

    def step(self, step: int, loss: float, lr: float) -> None:
        """One step was trained."""
        if not self.enabled:
            return
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        before = seconds if self._seconds_a_step is None else self._seconds_a_step
        self._seconds_a_step = SMOOTHING * before + (1 - SMOOTHING) * seconds
        rate = self.config.batch_size / max(self._seconds_a_step, 1e-9)
        self._train.write(f"{step},{loss:.6f},{lr:.3g}\n")
        self._scalars(step, {"loss": loss, "lr": lr, "samples_per_second": rate})
        self._bar.update(self._task, advance=1, state=f"loss {loss:.3f}, {rate:.0f} samples/s")

    def dev(self, step: int, log_loss: float) -> None:
        """The average was measured on dev after `step`."""
        if not self.enabled:
            return
        self._dev.write(f"{step},{log_loss:.6f}\n")
        self._scalars(step, {"dev_log_loss": log_loss})
        self._clock = time.monotonic()  # no throughput of training

    def sync(self) -> None:
        """Bring the lines to disk: a checkpoint must not outlive those of its steps."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        if self._writer:
            self._writer.flush()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        if self._writer:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)


def _reopen(path: Path, header: str, first: int) -> TextIO:
    """Open a CSV for more lines, after removing those of step `first` and later: they are trained again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if path.exists() and first else []
    # A kill can cut the last line short; a cut line has no end.
    kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) < first]
    with replacing(path) as file:  # the lines survive a kill
        file.write("".join([header + "\n", *kept]).encode())
    return path.open("a", encoding="utf-8", buffering=1)
