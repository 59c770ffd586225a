"""Score thousands of bad files, and look after each for what must not happen.

    python tools/hostile_campaign.py --out runs/hostile
    python tools/hostile_campaign.py --out runs/hostile --seed 3 --family "bit flips" --cases 1000

Writes `cases.csv` (a row a case) and `summary.md` (a row a family) into --out. The exit code is 1 if any case broke a
rule. tools/hostile/README.md has the rules, the limits and the results.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from hostile import commands
from hostile.campaign import Campaign, Row
from hostile.case import Case
from hostile.every import every_case

_IN_A_FOLDER = 24  # bad files of every family in the folder that whole commands score


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    began = time.monotonic()
    with Campaign(args.out.resolve(), args.seed) as campaign, (args.out / "cases.csv").open("w", newline="") as file:
        cases = every_case(campaign.seeds, args.cases, args.family)
        table = csv.DictWriter(file, [field.name for field in fields(Row)])
        table.writeheader()
        for number, row in enumerate(scored(campaign, cases, args.family), 1):
            if row is None:
                continue
            rows.append(row)
            table.writerow(
                {name: ascii(cell)[1:-1] if isinstance(cell, str) else cell for name, cell in row.cells().items()}
            )
            file.flush()
            if row.violations:
                print(f"{row.family}: {row.case!r}: {'; '.join(row.violations)}", file=sys.stderr, flush=True)
            if number % 200 == 0:
                print(f"{number} of {len(cases)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    text = "\n".join(summary(rows)) + "\n"
    (args.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(row.violations for row in rows))


def scored(campaign: Campaign, cases: Sequence[Case], families: Sequence[str] | None) -> Iterator[Row | None]:
    """The rows of the cases, and of the whole commands, whose bad files are some of them."""
    for case in cases:
        yield campaign.run(case)
    if not families or "whole commands" in families:
        bytes_only = [case for case in every_case(campaign.seeds, 240) if case.only_bytes]
        yield from commands.run(campaign, bytes_only[:: max(1, len(bytes_only) // _IN_A_FOLDER)])


def summary(rows: Sequence[Row]) -> list[str]:
    """A table of Markdown with a line a family, and one for all."""
    lines = ["| family | cases | outcomes | slowest | most memory | violations |", "|---|---:|---|---:|---:|---:|"]
    families = list(dict.fromkeys(row.family for row in rows))
    for family in [*families, "all"]:
        mine = [row for row in rows if family in (row.family, "all")]
        outcomes = ", ".join(f"{count} {name}" for name, count in Counter(row.outcome for row in mine).most_common())
        seconds, megabytes = max(row.seconds for row in mine), max(row.megabytes for row in mine)
        broken = sum(bool(row.violations) for row in mine)
        memory = f"{megabytes:.0f} MB" if megabytes else "not measured"
        lines.append(f"| {family} | {len(mine)} | {outcomes} | {seconds:.1f} s | {memory} | {broken} |")
    return lines


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, and the files while in use")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument("--cases", type=int, metavar="N", help="about so many, of all families (default: all)")
    parser.add_argument("--family", action="append", metavar="NAME", help="this family only; may be repeated")
    return parser


if __name__ == "__main__":
    sys.exit(main())
