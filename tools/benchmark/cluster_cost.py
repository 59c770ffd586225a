"""What a large job costs on a cluster, from the CPU seconds that one file was measured to take: a row of Markdown.

python tools/benchmark/cluster_cost.py 1.5 [--files 100000] [--cores 16 64 256] [--price 0.04]
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cpu_seconds", type=float, help="of one file, ffmpeg included (batch_rate.py)")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--cores", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--price", type=float, default=0.04, help="of an hour of one core, in any currency")
    args = parser.parse_args()
    hours = args.cpu_seconds * args.files / 3600
    cells = [f"{args.cpu_seconds:g}", f"{hours:.1f}", *(f"{hours / cores:.2f} h" for cores in args.cores)]
    print("|", " | ".join([*cells, f"{hours * args.price:.2f} $"]), "|")


if __name__ == "__main__":
    main()
