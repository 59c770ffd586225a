"""Preprocess every file of a manifest, once, into a cache that training reads.

    python tools/preprocess.py --manifest my.csv --cache cache --config configs/small.yaml

Stop it whenever you like and run it again: it goes on where it was. The cache knows files by the hash of their bytes,
so it can be moved, with or without the media. Files that cannot be read are listed at the end and in failures.csv;
they are not tried again unless --retry-failed is given. Files of equal bytes must agree in labels, split and group;
where they do not, nothing is published and conflicts.csv names them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from avdetect.config import TrainConfig, load_yaml
from avdetect.errors import AVDetectError
from avdetect.extras import script_imports

with script_imports("preprocess", "evaluate"):
    from avdetect.datasets.cache.build import Options, Report, preprocess
    from avdetect.datasets.cache.build import Progress as OnProgress
    from avdetect.datasets.manifest import read_manifest

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
SHOWN = 20  # lines of a list; all failures stand in failures.csv
LINE_SECONDS = 30.0  # between lines of progress where there is no terminal


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    try:
        run(args)
    except AVDetectError as error:
        print(f"preprocess: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        print(f"preprocess: cannot write {args.cache}: {error}; what is done is kept, run again", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("preprocess: interrupted; what is done is kept, run again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="CSV or Parquet, as tools/prepare.py writes it")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the clips; made if it does not exist")
    parser.add_argument("--config", type=Path, help="YAML of a training; its `preprocess` is used")
    parser.add_argument("--workers", type=_positive, default=0, help="processes (all cores, on Ray all CPUs of it)")
    parser.add_argument("--engine", choices=("process", "ray"), default="process", help="this machine, or a cluster")
    parser.add_argument("--ray-address", help="HOST:PORT, or auto ($RAY_ADDRESS, or a Ray of its own on this machine)")
    parser.add_argument("--detector-model", type=Path, help="weights of the face detector (file, or folder for mtcnn)")
    parser.add_argument("--retry-failed", action="store_true", help="try files that failed in an earlier run again")
    parser.add_argument("--copies", type=_natural, default=0, help="re-encoded copies of each video beside it (0)")
    parser.add_argument("--seed", type=_natural, default=0, help="of what the copies are re-encoded with (0)")
    return parser


def _natural(text: str) -> int:
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Preprocess what is missing and show what became of it."""
    config = (load_yaml(TrainConfig, args.config) if args.config else TrainConfig()).preprocess
    table = read_manifest(args.manifest)
    options = Options(
        workers=args.workers,
        engine=args.engine,
        ray_address=args.ray_address,
        model=args.detector_model,
        copies=args.copies,
        seed=args.seed,
        retry_failed=args.retry_failed,
    )
    console = Console(stderr=True, highlight=False)
    with _progress(console, len(table)) as progress:
        report = preprocess(table, args.cache, config, options, progress)
    _show(report, console)
    print(f"{report.clips} clips of {report.files - report.failures['path'].nunique()} files in {args.cache}")


@contextmanager
def _progress(console: Console, total: int) -> Iterator[OnProgress]:
    """A bar on a terminal, a line now and then elsewhere."""
    began = last = time.monotonic()

    def rate(made: int) -> str:
        return f"{made / max(time.monotonic() - began, 1e-6):.2f} files/s"

    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
        with Progress("preprocess", *columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("preprocess", total=total, rate="")
            yield lambda settled, made: bar.update(task, completed=settled, rate=rate(made))
        return

    def line(settled: int, made: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            left = (last - began) / settled * (total - settled)
            print(f"preprocess: {settled} of {total} files, {rate(made)}, {left / 60:.0f} min left", file=sys.stderr)

    yield line


def _show(report: Report, console: Console) -> None:
    counts = ", ".join(f"{count} {error}" for error, count in report.failures["error"].value_counts().items())
    lines = [
        f"{report.files} files: {report.preprocessed} tried now, {report.salvaged} taken from a run that broke "
        f"off, {len(report.duplicates)} with the bytes of another, {len(report.failures)} failed"
        + f" ({counts})"
        * bool(counts)
    ]
    lines += _first([f"same bytes: {path} = {other}" for path, other in report.duplicates])
    rows = report.failures.itertuples(index=False)
    lines += _first([f"failed: {row.path}{f', copy {row.copy}' if row.copy else ''}: {row.message}" for row in rows])
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"… and {more} more such files"]


if __name__ == "__main__":
    sys.exit(main())
