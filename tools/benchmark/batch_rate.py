"""Files a second of `avdetect score --workers N`, the whole process, for one worker and more.

Rule and data: README.md in this folder.

python tools/benchmark/batch_rate.py [--files DIR] [--workers 1 2] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avdetect.media import ffmpeg_path

SAMPLE = Path(__file__).parents[2] / "avdetect" / "weights" / "sample" / "sample.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, metavar="DIR", help="instead of the rendered clips")
    parser.add_argument("--count", type=int, default=24, help="of the rendered clips")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rates: dict[int, list[float]] = {workers: [] for workers in args.workers}
    with tempfile.TemporaryDirectory() as folder:
        files = args.files or render(Path(folder) / "clips", args.count)
        measure(files, args.workers[0])  # the warm-up: the files in memory, the code compiled
        print("run,workers,files,failed,wall_seconds,files_per_second,media_seconds_per_second,cpu_seconds_per_file")
        for run in range(args.runs):
            for workers in args.workers:
                row = measure(files, workers)
                rates[workers].append(row[0] / row[2])
                print(run, workers, *(f"{value:.3f}" for value in values(*row)), sep=",", flush=True)
    first = statistics.median(rates[args.workers[0]])
    print(
        f"# {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}: "
        + ", ".join(
            f"{workers} workers {statistics.median(found):.2f} files/s ({statistics.median(found) / first:.2f}x)"
            for workers, found in rates.items()
        )
    )


def values(files: int, failed: int, wall: float, media: float, cpu: float) -> tuple[float, ...]:
    """The columns from `files` on."""
    return files, failed, wall, files / wall, media / wall, cpu / files


def measure(folder: Path, workers: int) -> tuple[int, int, float, float, float]:
    """(files, failed ones, wall seconds, seconds of media, CPU seconds of the process tree) of one whole command."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "results.jsonl"
        command = [sys.executable, "-m", "avdetect.cli", "score", str(folder), "--device", "cpu"]
        before, began = cpu_seconds(), time.perf_counter()
        done = subprocess.run([*command, "--workers", str(workers), "--out", str(out)], capture_output=True, text=True)
        wall, cpu = time.perf_counter() - began, cpu_seconds() - before
        if done.returncode not in (0, 1):
            sys.exit(done.stderr)
        results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    media = sum(result.get("duration_seconds", 0.0) for result in results)
    return len(results), sum(result["status"] == "failed" for result in results), wall, media, cpu


def cpu_seconds() -> float:
    """User and system seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def render(folder: Path, count: int) -> Path:
    """So many clips of four seconds, 640x360, cut from the sample at different places."""
    folder.mkdir()
    for number in range(count):
        options = "-r 25 -t 4 -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac".split()
        picture = f"scale=360:360,pad=640:360:140:0,noise=alls=4:allf=t:all_seed={number}"
        source = ["-ss", f"{number % 10 * 0.2:.1f}", "-i", str(SAMPLE)]
        command = [ffmpeg_path(), "-v", "error", "-y", *source, "-vf", picture, *options]
        subprocess.run([*command, str(folder / f"{number:03d}.mp4")], check=True)
    return folder


if __name__ == "__main__":
    main()
