"""`avdetect score` on many files: puts journal, pool, tables and progress together.

What only many files need is imported when they come: one clip should not wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.batch.tables import CsvTable, JsonLines, KaggleTable, Table, TerminalTable, is_submission, table_for
from avdetect.errors import ConfigError
from avdetect.extras import require
from avdetect.files import planted

if TYPE_CHECKING:
    from avdetect.batch.journal import Journal
    from avdetect.batch.options import ScoringOptions
    from avdetect.batch.run import Summary
    from avdetect.batch.sources import Source
    from avdetect.jobs.pool import BasePool
    from avdetect.report.data import Result


@dataclass(frozen=True)
class Output:
    """Where the results go."""

    out: Path | None = None  # the suffix says the kind
    kaggle: Path | None = None
    as_json: bool = False  # on standard output: a document of one file, of several a line each
    excel: bool = False  # `out` is a CSV that Excel opens right

    @property
    def tables(self) -> dict[str, Path]:
        """Option -> file."""
        files = {"--out": self.out, "--kaggle": self.kaggle}
        return {option: path for option, path in files.items() if path is not None}

    @property
    def journal(self) -> Path | None:
        """Beside the first table; None where nothing is written that could be resumed."""
        first = self.out or self.kaggle
        return first.with_name(f"{first.name}.journal") if first else None

    @property
    def named(self) -> dict[str, Path]:
        """Option -> file, the journal too."""
        return self.tables | ({"the journal": self.journal} if self.journal else {})

    def check(self) -> None:
        """Raises ConfigError for names that cannot be written."""
        if self.out is not None and self.out.suffix not in (".csv", ".jsonl"):
            raise ConfigError(f"--out {self.out}: the name must end in .csv or .jsonl")
        if self.excel and (self.out is None or self.out.suffix != ".csv"):
            raise ConfigError("--excel is about a CSV file: give --out FILE.csv")
        for option, path in self.tables.items():
            if not os.access(path if path.exists() else path.parent, os.W_OK):
                raise ConfigError(f"{option} {path}: it cannot be written there")

    def check_replaceable(self) -> None:
        """Raises ConfigError where a table is in the place that no run of ours has written."""
        begun = self.journal is not None and _is_filled(self.journal)
        for option, path in self.tables.items():
            if os.path.lexists(path) and (why := planted(path.lstat())):
                raise ConfigError(f"{option} {path} {why}; name another file or delete it")
            if _is_filled(path) and (not begun or (option == "--kaggle" and not is_submission(path))):
                raise ConfigError(
                    f"{option} {path} is there and is no table with a journal of avdetect ({self.journal}); name "
                    "another file or delete it"
                )


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


@dataclass(frozen=True)
class Engines:
    """Who scores: processes of this machine, or the actors of a Ray cluster."""

    name: str = "process"
    workers: int | None = None  # None: one process, or an actor for each CPU of the cluster
    ray_address: str | None = None  # see `jobs.ray.connect`

    def check(self) -> None:
        """Raises ConfigError, ToolError without Ray."""
        if self.name not in ("process", "ray"):
            raise ConfigError(f"--engine must be process or ray, got {self.name}")
        if self.name == "ray":
            require("ray", "the engine ray")
        elif self.ray_address is not None:
            raise ConfigError("--ray-address goes with --engine ray")

    def build(self, options: ScoringOptions, identity: dict[str, Any]) -> BasePool[Any]:
        """The pool, which scores as `identity` (of `options`) says."""
        from avdetect.batch.options import scoring, threads_of
        from avdetect.jobs.pool import Pool

        seconds = options.limits.max_file_seconds
        if self.name == "ray":
            from avdetect.jobs.ray import RayPool

            begin, on_gpu = partial(options.scorer_like, identity, 1), identity["device"] == "CUDAExecutionProvider"
            return RayPool(partial(scoring, begin), self.workers, seconds, address=self.ray_address, gpus=float(on_gpu))
        workers = self.workers or 1
        return Pool(partial(scoring, partial(options.scorer, threads_of(workers))), workers, seconds)


@contextmanager
def table_of_one(
    source: Source, path: str, options: ScoringOptions, output: Output
) -> Iterator[Callable[[Result], None]]:
    """For the one file of `source`, which this process scores: yields what takes its result into the table of --out
    and into the journal. Raises ConfigError, AVDetectError."""
    if output.out is None:
        yield lambda result: None
        return
    from avdetect.batch.journal import Journal
    from avdetect.batch.run import signature
    from avdetect.report.data import to_dict

    target, before = output.out, signature(path)
    with Journal(output.journal, options.identity()) as journal:
        _check_rows(journal, source, target)

        def keep(result: Result) -> None:
            values = to_dict(result)
            journal.add(path, before, values)
            table = table_for(target, excel=output.excel)
            table.add(values)
            table.close()

        yield keep


def score_many(
    source: Source, options: ScoringOptions, output: Output, engines: Engines, *, retry_failed: bool = False
) -> tuple[Summary, list[str]]:
    """Score every file of `source` into `output`; the summary, and what the user should be warned of.

    Resumes an earlier run with the same options. Raises ConfigError, ModelError, ToolError, AVDetectError.
    """
    from avdetect.batch.journal import Journal
    from avdetect.batch.run import Run
    from avdetect.batch.sources import begun
    from avdetect.media import ffmpeg_path

    ffmpeg_path()  # without it every file would fail
    if source.total is None:
        source = begun(source)
    identity, table = options.identity(), output.out or output.kaggle
    pool = engines.build(options, identity)
    with Journal(output.journal, identity, retry_failed=retry_failed) as journal:
        _check_rows(journal, source, table)
        with _tables(output) as tables, _progress() as watch:
            run = Run(source, pool, journal, tables, watch)
            summary = run()
        notes = [note for table in tables if isinstance(table, KaggleTable) for note in table.notes()]
        if table and source.total is None and not summary.interrupted and (lost := _unnamed(journal, run.names)):
            notes.append(f"{table} has no rows of files that were not listed: {_few(lost)}")
    return summary, notes


@contextmanager
def _tables(output: Output) -> Iterator[list[Table]]:
    tables: list[Table] = [table_for(output.out, excel=output.excel)] if output.out else []
    tables += [KaggleTable(output.kaggle)] if output.kaggle else []
    if output.as_json:
        tables.append(JsonLines(None))
    elif output.out is None:  # else the rows are in that file
        tables.append(TerminalTable() if sys.stdout.isatty() else CsvTable(None))
    try:
        yield tables
    except BaseException:
        for table in tables:
            table.abort()
        raise
    for table in tables:
        table.close()


@contextmanager
def _progress() -> Iterator[Callable[[Summary], None]]:
    """A bar on standard error with the counts and the time left; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda summary: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(summary: Summary) -> None:
            done, of = summary.rows - summary.waiting, "" if summary.total is None else f"/{summary.total}"
            counts = f"{done}{of}, {summary.failed.total()} failed, {summary.abstained} abstained"
            text = f"{counts}, {summary.files_per_second:.1f} files/s"
            bar.update(task, description=text, total=summary.total, completed=done)

        yield show


def _check_rows(journal: Journal, source: Source, table: Path | None) -> None:
    """Raises ConfigError where the table would lose rows: of files that are still there, or all that it has."""
    if source.total is None or not journal.paths:
        return
    lost = _unnamed(journal, source.known())
    if len(lost) == len(journal.paths) or any(map(os.path.exists, lost)):
        raise ConfigError(
            f"{table} holds other files, which are not named now: {_few(lost)}. Name them too, name another file for "
            f"these, or delete the table and {journal.path}"
        )


def _unnamed(journal: Journal, names: Iterable[str]) -> list[str]:
    named = set(map(os.path.abspath, names))
    return [path for path in journal.paths if os.path.abspath(path) not in named]


def _few(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
