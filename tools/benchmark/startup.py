"""Seconds from the start of `avdetect score` to the first decoded frame in the hands of the face tracker.

    python tools/benchmark/startup.py [--clip FILE] [--runs 11] [--cold] [--out startup.csv]

Rule and data: README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from measuring import Table, machine, render, score_command

import avdetect
from avdetect.media import ffmpeg_path

# The command as it is, but for the first look of the tracker, which ends it. The clock is the machine's, so that the
# start of the interpreter counts.
PROGRAM = """
import os, time
from avdetect import cli
def push(self, frames):
    print(time.monotonic_ns(), flush=True)
    os._exit(0)  # ffmpeg ends by its broken pipe
def run(run=cli.run):
    from avdetect.faces.tracking import FaceTracker
    FaceTracker.push = push
    return run()
cli.run = run
cli.main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="instead of ten rendered seconds of 1080p")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument(
        "--cold", action="store_true", help="drop every installed file from the page cache before each run"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    facts = machine() | {"file_cache": "dropped before each run" if args.cold else "warm, after one run"}
    with tempfile.TemporaryDirectory() as folder, Table(("run", "seconds"), facts, args.out) as table:
        clip = args.clip or render(Path(folder) / "clip.mp4")
        first_frame(clip)  # the warm-up
        seconds = []
        for run in range(args.runs):
            if args.cold:
                drop(clip)
            seconds.append(first_frame(clip))
            table.row(run=run, seconds=seconds[-1])
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        table.note(f"first frame after {middle:.2f} s ({low:.2f}-{high:.2f})")


def first_frame(clip: Path) -> float:
    arguments = score_command(str(clip), "--json")[3:]  # behind `python -m avdetect.cli`
    began = time.monotonic_ns()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    if not done.stdout.strip().isdigit():
        sys.exit(f"no frame came: {done.stderr[-2000:]}")
    return (int(done.stdout) - began) / 1e9


def drop(clip: Path) -> None:
    """Give back the cached pages of all that a run reads. Pages that another process has mapped stay."""
    folders = {
        Path(avdetect.__file__).parent,
        *map(Path, (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))),
    }
    files = [clip, Path(ffmpeg_path()), Path(os.path.realpath(sys.executable))]
    for file in (*files, *(file for folder in folders for file in folder.rglob("*") if file.is_file())):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()
