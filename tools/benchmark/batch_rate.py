"""Files a second of `avdetect score --workers N`, the whole process, for one worker and more, on one core and all.

    python tools/benchmark/batch_rate.py [--files DIR] [--workers 1@1 1 2] [--runs 3] [--out batch_rate.csv]

Rule and data: README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from measuring import SAMPLE, Table, core_hours, ffmpeg, machine, measure, score_command

COLUMNS = (
    *("run", "workers", "cores", "files", "failed", "wall_seconds", "files_per_second"),
    *("media_seconds_per_second", "cpu_seconds_per_file", "peak_mib", "tree_mib"),
)
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, metavar="DIR", help="instead of the rendered clips")
    parser.add_argument("--count", type=int, default=24, help="of the rendered clips")
    cores = len(os.sched_getaffinity(0))
    crews = [(1, 1), (1, cores), (cores, cores)]
    parser.add_argument(
        "--workers",
        type=crew,
        nargs="+",
        default=crews,
        metavar="N[@CORES]",
        help="rates are compared with the first's",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    facts, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder, Table(COLUMNS, facts, args.out) as table:
        files = args.files or render_all(Path(folder) / "clips", args.count)
        rate(files, *args.workers[-1])  # the warm-up: the files in memory, the code compiled
        for run in range(args.runs):
            for workers in args.workers:
                rows.append(rate(files, *workers))
                table.row(run=run, **rows[-1])
        first = _median(rows, args.workers[0], "files_per_second")
        for workers in args.workers:
            rate_, cost = (_median(rows, workers, name) for name in ("files_per_second", "cpu_seconds_per_file"))
            hours = core_hours(cost)
            table.note(
                f"{workers[0]} workers on {workers[1]} cores: {rate_:.2f} files/s ({rate_ / first:.2f}x), "
                f"{cost:.2f} CPU s a file; 100,000 such files: {hours:,.0f} core-hours"
            )


def crew(text: str) -> tuple[int, int]:
    """ "N" or "N@CORES" -> (workers, cores that they may use)."""
    workers, _, cores = text.partition("@")
    return int(workers), int(cores or len(os.sched_getaffinity(0)))


def rate(folder: Path, workers: int, cores: int) -> Row:
    """One whole command, on the first `cores` cores that there are."""
    command = score_command(str(folder), "--workers", str(workers))
    chosen = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "results.jsonl"
        used = measure(["taskset", "-c", chosen, *command, "--out", str(out)], accepted=(0, 1))
        results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    media = sum(result.get("duration_seconds", 0.0) for result in results)
    counts = {"files": len(results), "failed": sum(result["status"] == "failed" for result in results)}
    return {
        "workers": workers,
        "cores": cores,
        **counts,
        "wall_seconds": used.wall_seconds,
        "files_per_second": len(results) / used.wall_seconds,
        "media_seconds_per_second": media / used.wall_seconds,
        "cpu_seconds_per_file": used.cpu_seconds / len(results),
        "peak_mib": used.peak(),
        "tree_mib": used.tree_mib,
    }


def _median(rows: list[Row], workers: tuple[int, int], column: str) -> float:
    return statistics.median(row[column] for row in rows if (row["workers"], row["cores"]) == workers)


def render_all(folder: Path, count: int) -> Path:
    """So many clips of four seconds, 640x360, cut from the sample at different places."""
    folder.mkdir()
    for number in range(count):
        options = "-r 25 -t 4 -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac".split()
        picture = f"scale=360:360,pad=640:360:140:0,noise=alls=4:allf=t:all_seed={number}"
        start = ["-ss", f"{number % 10 * 0.2:.1f}"]
        ffmpeg(*start, "-i", str(SAMPLE), "-vf", picture, *options, str(folder / f"{number:03d}.mp4"))
    return folder


if __name__ == "__main__":
    main()
