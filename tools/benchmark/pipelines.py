"""CPU seconds, wall seconds and memory of decoding, of `avdetect score`, and of what people would run instead.

    python tools/benchmark/pipelines.py [--only decode score] [--height 720] [--runs 5] [--out pipelines.csv]

Four whole processes, in turn: `decode` is `ffmpeg -i clip -f null -`, `b4` and `b7` are torch_pipeline.py. Rule and
data: README.md in this folder. Without --only it needs the dev extra (torch, timm, facenet-pytorch).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import Table, Usage, core_hours, machine, measure, render, score_command

from avdetect.media import ffmpeg_path

COLUMNS = ("run", "command", "stage", "cpu_seconds", "wall_seconds", "peak_mib", "tree_mib")
COMMANDS = ("decode", "score", "b4", "b7")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="instead of the rendered clip")
    parser.add_argument("--height", type=int, default=1080, help="of the rendered clip, in pixels")
    parser.add_argument("--seconds", type=float, default=10, help="of the rendered clip")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS, metavar="COMMAND")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    facts = machine("torch", "timm", "facenet-pytorch")
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip or render(Path(folder) / "clip.mp4", args.seconds, args.height)
        name = clip.name if args.clip else f"rendered {args.height}p, {args.seconds:g} s"
        facts |= {"clip": f"{name}, {clip.stat().st_size} bytes"}
        with Table(COLUMNS, facts, args.out) as table:
            compare(table, {name: command(name, clip) for name in args.only}, args.runs)


def command(name: str, clip: Path) -> list[str]:
    if name == "decode":
        return [ffmpeg_path(), "-v", "error", "-nostdin", "-i", str(clip), "-f", "null", "-"]
    if name == "score":
        return score_command(str(clip), "--json")
    script = Path(__file__).with_name("torch_pipeline.py")
    return [sys.executable, str(script), str(clip), "--encoder", f"tf_efficientnet_{name}"]


def compare(table: Table, commands: dict[str, list[str]], runs: int) -> None:
    """Each command in turn, `runs` times after a warm-up; then medians and ratios as notes."""
    used: dict[str, list[Usage]] = {name: [] for name in commands}
    for whole in commands.values():
        measure(whole)
    for run in range(runs):
        for name, whole in commands.items():
            usage = measure(whole)
            used[name].append(usage)
            cost = {"cpu_seconds": usage.cpu_seconds, "wall_seconds": usage.wall_seconds}
            table.row(run=run, command=name, stage="process", **cost, peak_mib=usage.peak(), tree_mib=usage.tree_mib)
            for stage, seconds in stages(name, usage).items():
                table.row(run=run, command=name, stage=stage, wall_seconds=seconds)
    for name, usages in used.items():
        cpu, wall = (statistics.median(values) for values in zip(*map(_cost, usages), strict=True))
        hours = core_hours(cpu)
        table.note(f"median {name}: {cpu:.2f} CPU s, {wall:.2f} s; 100,000 such files: {hours:,.0f} core-hours")
    for name, base in (("score", "decode"), ("b4", "score"), ("b7", "score")):
        if name in used and base in used:
            pairs = list(zip(map(_cost, used[name]), map(_cost, used[base]), strict=True))
            for index, unit in enumerate(("CPU", "wall")):
                ratios = [one[index] / other[index] for one, other in pairs]
                low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
                table.note(f"{name} / {base} in {unit} seconds, run by run: {middle:.2f} ({low:.2f}-{high:.2f})")


def stages(name: str, usage: Usage) -> dict[str, float]:
    """Wall seconds by stage, as the command itself tells them. What they leave of the whole is its start and end."""
    if name == "decode":
        return {}
    told = json.loads(usage.stdout)
    return dict((told["results"][0] if name == "score" else told)["timing_seconds"])


def _cost(usage: Usage) -> tuple[float, float]:
    return usage.cpu_seconds, usage.wall_seconds


if __name__ == "__main__":
    main()
