"""What a training run writes down while it goes on: CSV, TensorBoard, and a progress bar."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from avdetect.config import LoopConfig
from avdetect.files import only_ours, replacing

SMOOTHING = 0.9  # of the seconds a step, for the throughput on show


class RunLog(ExitStack):
    """The logs of one run, as a context.

    `<stem>.csv` (step, loss, lr) and `<stem>.dev.csv` (step, log_loss) lie beside the checkpoint and are as
    deterministic as the run: a run that was killed and continued leaves the same bytes. `tensorboard/<stem>` holds
    the same and the throughput in samples a second. `step` counts from 0 and is the step that was just trained.
    """

    def __init__(self, checkpoint: Path, name: str, config: LoopConfig, first: int) -> None:
        """`first`: the step that the run continues with; what was logged of it or later is removed."""
        super().__init__()
        self._batch_size = config.batch_size
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        self._files = [self.enter_context(_reopen(checkpoint.with_suffix(".csv"), "step,loss,lr", first))]
        if config.evaluate_every:
            self._files.append(self.enter_context(_reopen(checkpoint.with_suffix(".dev.csv"), "step,log_loss", first)))
        self._writer: SummaryWriter | None = None
        if first < config.steps:
            # TensorBoard forgets what a killed run wrote of the steps that are now trained again.
            folder = checkpoint.parent / "tensorboard" / checkpoint.stem
            self._writer = self.enter_context(SummaryWriter(str(folder), purge_step=first))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = self.enter_context(Progress(*columns, TextColumn("{task.fields[state]}"), TimeRemainingColumn()))
        self._task = self._bar.add_task(name, total=config.steps, completed=first, state="")
        self._seconds_a_step: float | None = None
        self._clock = time.monotonic()

    def step(self, step: int, loss: float, lr: float) -> None:
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        before = seconds if self._seconds_a_step is None else self._seconds_a_step
        self._seconds_a_step = SMOOTHING * before + (1 - SMOOTHING) * seconds
        rate = self._batch_size / max(self._seconds_a_step, 1e-9)
        self._files[0].write(f"{step},{loss:.6f},{lr:.3g}\n")
        self._scalars(step, {"loss": loss, "lr": lr, "samples_per_second": rate})
        self._bar.update(self._task, advance=1, state=f"loss {loss:.3f}, {rate:.0f} samples/s")

    def dev(self, step: int, log_loss: float) -> None:
        """The average was measured after `step`."""
        self._files[1].write(f"{step},{log_loss:.6f}\n")
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
    return open(path, "a", encoding="utf-8", buffering=1, opener=only_ours)
