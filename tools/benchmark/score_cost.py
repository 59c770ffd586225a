"""CPU seconds, wall seconds and memory of `avdetect score` beside `ffmpeg -i clip -f null -`.

Rule and data: README.md in this folder.

python tools/benchmark/score_cost.py [--clip FILE] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import platform
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
    parser.add_argument("--clip", type=Path, help="instead of the rendered clip")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip or render(Path(folder) / "clip.mp4")
        commands = {
            "decode": [ffmpeg_path(), "-v", "error", "-i", str(clip), "-f", "null", "-"],
            "score": [sys.executable, "-m", "avdetect.cli", "score", str(clip), "--json", "--device", "cpu"],
        }
        for command in commands.values():
            measure(command)
        print("run,command,cpu_seconds,wall_seconds,peak_mib")
        rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for run in range(args.runs):
            for name, command in commands.items():
                rows[name].append(measure(command))
                print(run, name, *(f"{value:.3f}" for value in rows[name][-1]), sep=",", flush=True)
    ratios = [score[0] / decode[0] for decode, score in zip(rows["decode"], rows["score"], strict=True)]
    walls = [score[1] / decode[1] for decode, score in zip(rows["decode"], rows["score"], strict=True)]
    print(
        f"# {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}: score / decode = "
        f"{statistics.median(ratios):.2f} in CPU seconds ({min(ratios):.2f}-{max(ratios):.2f}), "
        f"{statistics.median(walls):.2f} in wall seconds; peak {max(row[2] for row in rows['score']):.0f} MiB"
    )


def measure(command: list[str]) -> tuple[float, float, float]:
    """CPU seconds and wall seconds of a whole process tree, and the peak MiB of its largest process."""
    began = time.perf_counter()
    # A process of its own in between, so that the children's usage is this command's alone.
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    status, cpu, peak = done.stdout.split()
    if status != "0":
        sys.exit(f"{' '.join(command)} exited with {status}")
    return float(cpu), wall, float(peak)


def render(target: Path) -> Path:
    """Ten seconds of 1080p from the sample clip."""
    options = "-r 25 -t 10 -c:v libx264 -preset medium -crf 20 -pix_fmt yuv420p -c:a aac".split()
    picture = "scale=1080:1080:flags=lanczos,pad=1920:1080:420:0,noise=alls=4:allf=t"
    command = [
        ffmpeg_path(),
        "-v",
        "error",
        "-y",
        "-stream_loop",
        "1",
        "-i",
        str(SAMPLE),
        "-vf",
        picture,
        *options,
        str(target),
    ]
    subprocess.run(command, check=True)
    return target


if __name__ == "__main__":
    main()
