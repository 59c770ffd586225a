"""Score thousands of bad files, and look after each for what must not happen.

Writes `cases.csv` (a row a case) and `summary.md` (a row a family) into --out. The exit code is 1 if any case broke a
rule. tools/hostile/README.md has command lines, rules, limits and results.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path

import numpy as np
from hostile import commands, every_case
from hostile.campaign import Campaign, Row

SETTLED = 200  # cases after which libraries have loaded what they need, and allocators have their pools
_IN_A_FOLDER = 24  # bad files of every family in the folder that whole commands score


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, and the files while in use")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument("--cases", type=int, metavar="N", help="about so many, of all families (default: all)")
    parser.add_argument("--family", action="append", metavar="NAME", help="this family only; may be repeated")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    done: list[Row] = []
    as_text = {"newline": "", "buffering": 1, "encoding": "ascii", "errors": "backslashreplace"}
    with Campaign(args.out.resolve(), args.seed) as campaign, (args.out / "cases.csv").open("w", **as_text) as file:
        rows: Iterable[Row] = map(campaign.run, every_case(campaign.seeds, args.cases, args.family))
        if not args.family or "whole commands" in args.family:
            of_bytes = [case for case in every_case(campaign.seeds, 240) if case.only_bytes]
            rows = chain(rows, commands.run(campaign, of_bytes[:: max(1, len(of_bytes) // _IN_A_FOLDER)]))
        table = csv.DictWriter(file, [field.name for field in fields(Row)])
        table.writeheader()
        for row in rows:
            done.append(row)
            violations = "; ".join(row.violations)
            table.writerow(vars(row) | {"violations": violations})
            if len(done) % 100 == 0:
                print(f"{len(done)} cases", file=sys.stderr, flush=True)
            if violations:
                print(f"{row.family}: {row.case!r}: {violations}", file=sys.stderr, flush=True)
    text = "\n".join(summary(done)) + "\n"
    (args.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(row.violations for row in done))


def summary(rows: Sequence[Row]) -> list[str]:
    """A table of Markdown with a line a family, and one for all."""
    lines = ["| family | cases | outcomes | slowest | most memory | violations |", "|---|---:|---|---:|---:|---:|"]
    for family in [*dict.fromkeys(row.family for row in rows), "all"]:
        mine = [row for row in rows if family in (row.family, "all")]
        outcomes = ", ".join(f"{count} {name}" for name, count in Counter(row.outcome for row in mine).most_common())
        seconds, megabytes = (max((getattr(row, name) for row in mine), default=0) for name in ("seconds", "megabytes"))
        memory = f"{megabytes:.0f} MB" if megabytes else "not measured"
        broken = sum(bool(row.violations) for row in mine)
        lines.append(f"| {family} | {len(mine)} | {outcomes} | {seconds:.1f} s | {memory} | {broken} |")
    resident = [row.resident for row in rows if row.resident]
    if len(resident) > 2 * SETTLED:
        slope = 1024 * np.polyfit(range(len(resident) - SETTLED), resident[SETTLED:], 1)[0]
        lines.append(f"\nThe worker's own memory after {SETTLED} cases: {slope:+.2f} KiB a case.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
