"""Make a manifest of a dataset in its own layout, and a report of what it holds and of what could not be read.

    python tools/prepare.py fakeavceleb /data/FakeAVCeleb_v1.2 --out fakeavceleb.parquet
    python tools/prepare.py folder my_real_videos --out mine.csv      # nothing but real videos will do
    python tools/prepare.py csv files.csv --out mine.parquet          # at least the columns path, fake

Official splits are kept; rows without one are split by group (--dev, --test, --seed). Exit code 1 and nothing written
when no row can be read, or a group, or a fake and its original, stand in two splits; --resplit then gives up the
official train and dev (AV-Deepfake1M's share people). Problems with single files are reported beside the manifest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avdetect.errors import AVDetectError, ManifestError
from avdetect.extras import script_imports

with script_imports("prepare", "evaluate"):
    import pandas as pd

    from avdetect.datasets.adapters import ADAPTERS, Problem
    from avdetect.datasets.manifest import (
        LABELS,
        SEGMENTS,
        SPLITS,
        assign_splits,
        digest,
        leaking_originals,
        write_manifest,
    )

SHOWN = 20  # methods and problems on the screen; the report file has all


def main(argv: Sequence[str] | None = None) -> int:
    parser = _arguments()
    args = parser.parse_args(argv)
    if args.dev + args.test >= 1:
        parser.error("--dev and --test must leave something to train on")
    if args.out.suffix not in (".csv", ".parquet"):
        parser.error(f"--out {args.out}: a manifest ends in .csv or .parquet")
    try:
        run(args)
    except AVDetectError as error:
        print(f"prepare: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(ADAPTERS), metavar="DATASET", help=", ".join(ADAPTERS))
    parser.add_argument("root", type=Path, metavar="ROOT", help="the dataset's folder (for csv: the list itself)")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .parquet or .csv")
    parser.add_argument("--dev", type=_share, default=0.1, help="share of the groups without a split (default 0.1)")
    parser.add_argument("--test", type=_share, default=0.0, help="likewise for test (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the split by group")
    parser.add_argument(
        "--resplit",
        action="store_true",
        help="ignore the official train and dev and cut dev anew by group; test stays, and takes its groups whole",
    )
    parser.add_argument("--report", type=Path, help="JSON report (default: OUT.report.json)")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: it must lie in [0, 1)")
    return value


def run(args: argparse.Namespace) -> None:
    listing = ADAPTERS[args.dataset](args.root)
    table, problems = _split(listing.table, listing.problems, args)
    report = describe(table, problems)
    if report["leaks"] or report["leaking_originals"]:
        show(report)
        _refuse_leaks(report)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(table, args.out)
        place = args.report or args.out.with_name(f"{args.out.name}.report.json")
        place.write_text(json.dumps({"dataset": args.dataset, **report}, indent=1) + "\n")
    except OSError as error:
        raise ManifestError(f"cannot write {error.filename}: {error.strerror}") from error
    try:
        show(report)
        print(f"manifest: {args.out}\nreport: {place}", flush=True)
    except BrokenPipeError:  # whoever reads the report has seen enough; the files are written
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # what is still buffered must not fail at exit


def _refuse_leaks(report: dict[str, Any]) -> None:
    groups, originals = report["leaks"], report["leaking_originals"]
    lines = [f"{len(groups)} group(s) stand in more than one split: {', '.join(groups[:SHOWN])}"] if groups else []
    if originals:
        shown = ", ".join(f"{path} ({split}) of {source} ({other})" for path, split, source, other in originals[:3])
        lines.append(f"{len(originals)} fake(s) stand in another split than their original: {shown}")
    if lines:
        raise ManifestError("; ".join(lines) + ". Correct the splits, or cut train and dev anew by group: --resplit")


def _split(
    table: pd.DataFrame, problems: list[Problem], args: argparse.Namespace
) -> tuple[pd.DataFrame, list[Problem]]:
    """Fill empty splits. Where the official splits have no dev, it is cut from train: training needs one."""
    if args.resplit:
        detail = f"{int(table['split'].isin(['train', 'dev']).sum())} rows of train and dev are split anew by group"
        problems = [*problems, Problem("official splits set aside", ".", detail)]
        table = table.assign(split=table["split"].mask(table["split"].isin(["train", "dev"]), ""))
    table = assign_splits(table, args.dev, args.test, args.seed)
    splits = set(table["split"])
    if any(_leaks(table)):
        return table, problems  # to be refused: cutting dev would move the rows that leak out of sight
    if args.dev > 0 and "dev" not in splits and "train" in splits:
        table = assign_splits(
            table.assign(split=table["split"].mask(table["split"] == "train", "")), args.dev, 0, args.seed
        )
        if (table["split"] == "dev").any():
            problems = [*problems, Problem("dev cut from train", ".", "the official splits have no dev")]
        else:
            problems = [*problems, Problem("no dev", ".", "too few groups to cut one; training needs it")]
    return table, problems


def _leaks(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Groups in several splits; (path, split, original, its split) of fakes that stand apart from their original."""
    places = table[["group", "split"]].drop_duplicates()
    groups = sorted(places["group"][places["group"].duplicated()].unique())
    return groups, leaking_originals(table).to_numpy(object).tolist()


def describe(table: pd.DataFrame, problems: Sequence[Problem]) -> dict[str, Any]:
    """The report as JSON-able values."""
    leaks, leaking = _leaks(table)
    return {
        "rows": len(table),
        "groups": int(table["group"].nunique()),
        "digest": digest(table),
        "labels": {split: _label_counts(table[table["split"] == split]) for split in SPLITS},
        "methods": _method_counts(table),
        "originals": _original_counts(table),
        "rows_with_segments": {c: int(table[c].map(bool).sum()) for c in SEGMENTS if c in table},
        "leaks": leaks,
        "leaking_originals": leaking,
        "problems": dict(sorted(Counter(p.kind for p in problems).items())),
        "details": [[p.kind, p.path, p.detail] for p in problems],
    }


def _label_counts(table: pd.DataFrame) -> dict[str, Any]:
    counts: dict[str, Any] = {"rows": len(table)}
    for label in LABELS:
        values = table[label]
        real, fake = int((values == 0).sum()), int((values == 1).sum())
        counts[label] = {"real": real, "fake": fake, "unknown": len(table) - real - fake}
    return counts


def _method_counts(table: pd.DataFrame) -> list[dict[str, Any]]:
    kind = table["method"].mask((table["fake"] == 0).fillna(False), "(real)").replace("", "(unstated)")
    counted = table.assign(method=kind).groupby(["dataset", "method", "split"]).size().unstack(fill_value=0)
    return [{"dataset": d, "method": m, **{s: int(n) for s, n in row.items()}} for (d, m), row in counted.iterrows()]


def _original_counts(table: pd.DataFrame) -> dict[str, int]:
    named = table.loc[table["original"] != "", ["original", "split"]]
    found = named.merge(
        table[["path", "fake", "split"]], left_on="original", right_on="path", suffixes=("", "_of_original")
    )
    return {
        "named": len(named),
        "in_manifest": len(found),
        "in_another_split": int((found["split"] != found["split_of_original"]).sum()),
        "labelled_fake": int((found["fake"] == 1).sum()),
    }


def show(report: dict[str, Any]) -> None:
    """The report on the screen, without most of the details."""
    print(f"{report['rows']} rows, {report['groups']} groups, digest {report['digest']}\n")
    lines = [
        {"split": split, "rows": counts["rows"]}
        | {f"{label} {kind}": counts[label][kind] for label in LABELS for kind in ("real", "fake", "unknown")}
        for split, counts in report["labels"].items()
    ]
    print(pd.DataFrame(lines).to_string(index=False), end="\n\n")
    print(pd.DataFrame(report["methods"][:SHOWN]).to_string(index=False))
    if len(report["methods"]) > SHOWN:
        print(f"... and {len(report['methods']) - SHOWN} more in the report file")
    print()
    numbers = report["originals"]
    print(
        f"originals: {numbers['named']} rows name one, {numbers['in_manifest']} of them stand in the manifest, "
        f"{numbers['in_another_split']} in another split, {numbers['labelled_fake']} labelled fake"
    )
    print("rows with segments: " + ", ".join(f"{name} {n}" for name, n in report["rows_with_segments"].items()))
    print("problems: " + (", ".join(f"{count} x {kind}" for kind, count in report["problems"].items()) or "none"))
    for kind, path, detail in report["details"][:SHOWN]:
        print(f"  {kind}: {path}" + (f" ({detail})" if detail else ""))
    if len(report["details"]) > SHOWN:
        print(f"  ... and {len(report['details']) - SHOWN} more in the report file")


if __name__ == "__main__":
    sys.exit(main())
