"""One process, one Detector, thousands of short files, good and bad: does anything of a file stay behind?

    python tools/benchmark/soak.py [--count 2000] [--every 50] [--seed 0] [--out soak.csv]

Exit status 1 when it does. Rule and data: README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soak_clips
from measuring import Table, kib, machine, proc_status, tree

from avdetect import Detector, load_detector
from avdetect.errors import AVDetectError

COLUMNS = ("count", "failed", "abstained", "seconds", "rss_mib", "peak_mib", "fds", "threads", "children", "temp_files")
SETTLED = 200  # files after which libraries have loaded all they ever will and the allocator has its pools
SLOPE_KIB = 5.0  # of resident memory a file, from there on
SAME = 1e-6  # between two scores of one file


@dataclass
class Findings:
    """What became of the files."""

    failed: int = 0
    abstained: int = 0
    scores: dict[Path, float | str | None] = field(default_factory=dict)  # the first of each; of a failure its class
    differing: set[str] = field(default_factory=set)  # files whose later scores were others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--every", type=int, default=50, help="files between two rows")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips, temporary = Path(folder) / "clips", Path(folder) / "tmp"
        clips.mkdir()
        temporary.mkdir()
        # Whatever this process or a child of it leaves behind is then counted, and nothing of others.
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        files = soak_clips.make(clips)
        order = random.Random(args.seed).choices(files, k=args.count)
        with Table(COLUMNS, {"files": str(len(files))} | machine(), args.out) as table:
            problems = soak(table, load_detector(device="cpu"), order, args.every, temporary)
            table.note(f"verdict: {'; '.join(problems) or 'flat'}")
    sys.exit(1 if problems else 0)


def soak(table: Table, detector: Detector, order: list[Path], every: int, temporary: Path) -> list[str]:
    """Score the files in `order`; what is wrong, in words."""
    found, rows, began = Findings(), [], time.perf_counter()
    for count, file in enumerate(order, 1):
        score(detector, file, found)
        if count == 1 or count % every == 0:
            rows.append({"count": count, **state(temporary)})
            seconds = round(time.perf_counter() - began, 1)
            table.row(failed=found.failed, abstained=found.abstained, seconds=seconds, **rows[-1])
    return judged(table, rows, found)


def score(detector: Detector, file: Path, found: Findings) -> None:
    """Score one file. What is no AVDetectError ends the run: no file may cause it."""
    score: float | str | None
    try:
        score = detector.score(file).fake
    except AVDetectError as error:
        score = type(error).__name__
    found.failed += isinstance(score, str)
    found.abstained += score is None
    first = found.scores.setdefault(file, score)
    same = abs(first - score) <= SAME if isinstance(first, float) and isinstance(score, float) else first == score
    if not same:
        found.differing.add(file.name)


def state(temporary: Path) -> dict[str, float]:
    """What this process holds."""
    status = proc_status()
    return {
        "rss_mib": kib(status["VmRSS"]) / 1024,
        "peak_mib": kib(status["VmHWM"]) / 1024,
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "children": len(list(tree(os.getpid()))) - 1,
        "temp_files": len(list(temporary.iterdir())),
    }


def judged(table: Table, rows: list[dict[str, float]], found: Findings) -> list[str]:
    """The rules of README.md."""
    problems = [f"other scores than at first: {', '.join(sorted(found.differing))}"] if found.differing else []
    settled = [row for row in rows if row["count"] >= SETTLED]
    if len(settled) >= 3:
        counts, memory = ([row[name] for row in settled] for name in ("count", "rss_mib"))
        slope = float(np.polyfit(counts, memory, 1)[0]) * 1024
        table.note(f"memory after {SETTLED} files: {slope:+.2f} KiB a file")
        if slope > SLOPE_KIB:
            problems.append(f"memory grows by {slope:.1f} KiB a file")
        for name in ("fds", "threads"):
            if settled[-1][name] != settled[0][name]:
                problems.append(f"{name} went from {settled[0][name]:g} to {settled[-1][name]:g}")
    else:
        problems.append(f"too few files to judge memory: --count must be more than {SETTLED} and some rows")
    problems += [f"{rows[-1][name]:g} {name} left" for name in ("children", "temp_files") if rows[-1][name]]
    return problems


if __name__ == "__main__":
    main()
