"""What a longer or a larger file costs: CPU seconds a media second and peak memory of `avdetect score`, by clip.

    python tools/benchmark/growth.py [--clips 360:10 360:3600 1080:60] [--out growth.csv]

A clip is HEIGHT:SECONDS. Rule and data: README.md in this folder. The default list takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from measuring import Table, machine, measure, render, score_command

COLUMNS = (
    *("height", "seconds", "cpu_seconds", "wall_seconds", "cpu_per_media_second"),
    *("python_mib", "ffmpeg_mib", "tree_mib", "probe", "decode", "faces", "networks", "total"),
)
CLIPS = ["360:10", "360:60", "360:300", "360:1200", "360:3600", "1080:10", "1080:60", "1080:300", "720:10", "720:60"]
CLIPS += ["480:10", "480:60"]
LONG = 60  # seconds from which on a file has more than one clip of the preprocessing, so that its memory must stay
STEADY_MIB = 50  # that the peak may grow from there to the longest file of the same height
LINEAR = 1.1  # times its CPU seconds a media second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", type=clip_size, default=CLIPS, metavar="HEIGHT:SECONDS")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    clips = [clip_size(clip) if isinstance(clip, str) else clip for clip in args.clips]
    rows: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)  # height -> seconds -> CPU a second, MiB
    with tempfile.TemporaryDirectory() as folder, Table(COLUMNS, machine(), args.out) as table:
        for number, (height, seconds) in enumerate(clips):
            clip = render(Path(folder) / f"{number}.mp4", seconds, height)
            if not number:
                measure(score_command(str(clip), "--duration", "1"))  # the warm-up
            rows[height][seconds] = measured(table, clip, height, seconds)
            clip.unlink()
        sys.exit(0 if judged(table, rows) else 1)


def clip_size(text: str) -> tuple[int, int]:
    """`1080:60` as (1080, 60)."""
    if not re.fullmatch(r"\d+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHT:SECONDS, as 1080:60")
    height, _, seconds = text.partition(":")
    return int(height), int(seconds)


def measured(table: Table, clip: Path, height: int, seconds: int) -> tuple[float, float]:
    """Write the row of one whole process; (CPU seconds a media second, MiB of its largest process)."""
    used = measure(score_command(str(clip), "--json"))
    result = json.loads(used.stdout)["results"][0]
    each = used.cpu_seconds / result["duration_seconds"]
    cost = {"cpu_seconds": used.cpu_seconds, "wall_seconds": used.wall_seconds, "cpu_per_media_second": each}
    memory = {"python_mib": used.peak("python"), "ffmpeg_mib": used.peak("ffmpeg"), "tree_mib": used.tree_mib}
    table.row(height=height, seconds=seconds, **cost, **memory, **result["timing_seconds"])
    return each, used.peak()


def judged(table: Table, rows: dict[int, dict[int, tuple[float, float]]]) -> bool:
    """Whether the longest file of each height is as cheap a second and as small as the first long one."""
    good = True
    for height, by_seconds in rows.items():
        long = sorted(seconds for seconds in by_seconds if seconds >= LONG)
        if len(long) < 2:
            continue
        (cost, mib), (last_cost, last_mib) = by_seconds[long[0]], by_seconds[long[-1]]
        good &= (fine := last_cost <= LINEAR * cost and last_mib <= mib + STEADY_MIB)
        table.note(
            f"{height}p from {long[0]} s to {long[-1]} s: {last_cost / cost:.2f}x the CPU seconds a media second, "
            f"{last_mib - mib:+.0f} MiB: {'flat and linear' if fine else 'NOT flat and linear'}"
        )
    return good


if __name__ == "__main__":
    main()
