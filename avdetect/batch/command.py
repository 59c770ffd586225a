"""`avdetect score` on many files: puts journal, engine, tables and progress together.

What only many files need is imported when they come: one clip should not wait for it.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.batch.tables import KaggleTable, Table, check_name, table_for, table_for_stdout
from avdetect.errors import ConfigError

if TYPE_CHECKING:
    from avdetect.batch.engine import Engine
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.run import Summary
    from avdetect.batch.sources import Source

_MOST_THREADS = 4  # of one worker: its networks are small


@dataclass(frozen=True)
class Output:
    """Where the results go."""

    out: Path | None = None  # the suffix says the kind
    kaggle: Path | None = None
    as_json: bool = False  # on standard output
    excel: bool = False  # `out` is a CSV that Excel opens right

    @property
    def journal(self) -> Path | None:
        """Beside the table; None where nothing is written that could be gone on with."""
        beside = self.out or self.kaggle
        return beside.with_name(f"{beside.name}.journal") if beside else None

    def check(self) -> None:
        """Raises ConfigError for names that cannot be written."""
        if self.out is not None:
            check_name(self.out)
        if self.excel and (self.out is None or self.out.suffix != ".csv"):
            raise ConfigError("--excel is about a CSV file: give --out FILE.csv")
        for option, path in (("--out", self.out), ("--kaggle", self.kaggle)):
            if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
                raise ConfigError(f"{option} {path}: it cannot be written there")
        if self.out is not None and self.kaggle is not None and self.out.absolute() == self.kaggle.absolute():
            raise ConfigError("--out and --kaggle name the same file")

    def tables(self) -> list[Table]:
        """Opened, and empty. Raises ConfigError, AVDetectError."""
        found: list[Table] = [table_for(self.out, excel=self.excel)] if self.out else []
        if self.kaggle:
            found.append(KaggleTable(self.kaggle))
        return [*found, table_for_stdout(self.as_json, sys.stdout)]


@dataclass(frozen=True)
class Engines:
    """Who scores: processes of this machine, or the actors of a Ray cluster."""

    name: str = "process"
    workers: int | None = None  # None: one process, or an actor for each CPU of the cluster
    ray_address: str | None = None  # see `cluster.connect`

    def check(self) -> None:
        """Raises ConfigError."""
        if self.name not in ("process", "ray"):
            raise ConfigError(f"--engine must be process or ray, got {self.name}")
        if self.name == "ray":
            from avdetect import cluster

            cluster.require()
        elif self.ray_address is not None:
            raise ConfigError("--ray-address goes with --engine ray")

    def build(self, options: ScoringOptions, identity: dict[str, Any]) -> Engine:
        """The engine, which scores as `identity` (of `options`) says."""
        seconds = options.limits.max_file_seconds
        if self.name == "ray":
            from avdetect.batch.ray_engine import RayEngine

            begin, on_gpu = partial(options.scorer_like, identity, 1), identity["device"] == "CUDAExecutionProvider"
            return RayEngine(begin, self.workers, seconds, address=self.ray_address, gpus=float(on_gpu))
        from avdetect.batch.pool import ProcessEngine

        workers = self.workers or 1
        threads = max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // workers))
        return ProcessEngine(partial(options.scorer, threads), workers, seconds)


def score_many(
    source: Source, options: ScoringOptions, output: Output, engines: Engines, *, retry_failed: bool = False
) -> tuple[Summary, list[str]]:
    """Score every file of `source` into `output`; the summary, and what the user should be warned of.

    Goes on where an earlier run with the same options ended. Raises ConfigError, ModelError, ToolError, AVDetectError.
    """
    from avdetect.batch.journal import Journal
    from avdetect.batch.progress import shown
    from avdetect.batch.run import Run
    from avdetect.media import ffmpeg_path

    ffmpeg_path()  # without it every file would fail
    identity = options.identity()
    engine = engines.build(options, identity)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(output.journal, identity, retry_failed=retry_failed))
        tables = output.tables()
        try:
            with shown() as watch:
                summary = Run(source, engine, journal, tables, watch)()
        except BaseException:
            for table in tables:
                table.abort()
            raise
        for table in tables:
            table.close()
    return summary, [note for table in tables if isinstance(table, KaggleTable) for note in _kaggle_notes(table)]


def _kaggle_notes(table: KaggleTable) -> list[str]:
    notes = []
    if table.unanswered:
        said = " and ".join(f"{count} that {kind}" for kind, count in sorted(table.unanswered.items()))
        notes.append(f"--kaggle: the label is 0.5 for {said}; it says nothing about these files")
    if table.repeated:
        names = "1 name stands" if table.repeated == 1 else f"{table.repeated} names stand"
        notes.append(f"--kaggle: {names} in it more than once (listed twice, or in several folders)")
    return notes
