"""CPU seconds, wall seconds and memory of whole commands, side by side and over longer and larger files.

    PYTHONPATH=tools python -m benchmark.rates decode score [--clips 1080:10] [--runs 5] > rates.csv
    PYTHONPATH=tools python -m benchmark.rates score --runs 1 --clips 360:10 360:60 360:3600    # does it grow?
    PYTHONPATH=tools python -m benchmark.rates batch:1@1 batch:2 [--files DIR]                  # workers@cores
    PYTHONPATH=tools python -m benchmark.rates preprocess:2 --manifest my.csv --config configs/small.yaml

A clip is HEIGHT:SECONDS of a rendered talking face. Rule and data: README.md in this folder.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from avdetect.media import ffmpeg_path
from benchmark.measuring import Table, Usage, measure, render

PREPROCESS = Path(__file__).parents[1] / "preprocess.py"
SCORE = [sys.executable, "-m", "avdetect.cli", "score", "--device", "cpu"]
COUNT, SECONDS = 24, 4  # files of a batch, and the length of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", metavar="COMMAND", help="decode, score, batch:N[@C], preprocess:N")
    parser.add_argument("--clips", nargs="+", default=["1080:10"], metavar="HEIGHT:SECONDS")
    parser.add_argument("--files", type=Path, metavar="DIR", help="of a batch, instead of rendered clips")
    parser.add_argument("--manifest", type=Path, help="of preprocess")
    parser.add_argument("--config", type=Path, help="of preprocess")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(Table(), args, Path(scratch))


def compare(table: Table, args: argparse.Namespace, folder: Path) -> None:
    """Every command on every clip in turn, after a warm-up of each; then medians, and ratios to the first command."""
    used: dict[tuple[str, str], list[Usage]] = {}
    files = args.files or Path(tempfile.mkdtemp(dir=folder))
    if not args.files and any(name.startswith("batch") for name in args.commands):
        for number in range(COUNT):
            render(files / f"{number:03d}.mp4", SECONDS, 360, number)
    for clip in args.clips:
        height, _, seconds = clip.partition(":")
        media = folder / f"{height}p{seconds}.mp4"
        if {"decode", "score"} & set(args.commands):
            render(media, float(seconds), int(height))
        for run in range(-1, args.runs):
            for name in args.commands:
                cost = measure(command(name, media, files, args, folder / f"{run}{name}"), accepted=(0, 1))
                kind = name.partition(":")[0]
                many = len(list(files.iterdir())) if kind == "batch" else 1
                length = {"batch": many * SECONDS * (args.files is None), "preprocess": 0}.get(kind, float(seconds))
                if run < 0:
                    continue
                used.setdefault((name, clip), []).append(cost)
                row: dict[str, float | str] = {"run": run, "command": name, "clip": clip}
                row |= {"cpu_seconds": cost.cpu_seconds, "wall_seconds": cost.wall_seconds}
                row["cpu_per_media_second"] = cost.cpu_seconds / length if length else ""
                row |= {"python_mib": cost.peak("python"), "ffmpeg_mib": cost.peak("ffmpeg"), "tree_mib": cost.tree_mib}
                table.row(**row, files_per_second=many / cost.wall_seconds)
        media.unlink(missing_ok=True)
    for (name, clip), costs in used.items():
        cpu, wall = (statistics.median(getattr(cost, f"{what}_seconds") for cost in costs) for what in ("cpu", "wall"))
        pairs = zip(costs, used[args.commands[0], clip], strict=True)
        ratio = statistics.median(one.cpu_seconds / first.cpu_seconds for one, first in pairs)
        print(f"# {name} {clip}: {cpu:.2f} CPU s, {wall:.2f} s, {ratio:.2f}x the CPU of {args.commands[0]}")


def command(name: str, clip: Path, files: Path, args: argparse.Namespace, out: Path) -> list[str]:
    kind, _, count = name.partition(":")
    if kind == "decode":
        return [ffmpeg_path(), "-v", "error", "-nostdin", "-i", str(clip), "-f", "null", "-"]
    if kind == "score":
        return [*SCORE, str(clip), "--json"]
    workers, _, cores = count.partition("@")
    allowed = sorted(os.sched_getaffinity(0))[: int(cores or 0) or None]
    only = ["taskset", "-c", ",".join(map(str, allowed))]
    if kind == "batch":
        return [*only, *SCORE, str(files), "--workers", workers, "--out", f"{out}.csv"]
    config = ["--config", str(args.config)] if args.config else []
    given = ["--manifest", str(args.manifest), *config, "--workers", workers, "--cache", str(out)]
    return [*only, sys.executable, str(PREPROCESS), *given]


if __name__ == "__main__":
    main()
