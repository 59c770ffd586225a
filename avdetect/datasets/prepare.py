"""A dataset's folder -> a manifest, and a report of what it holds and of what could not be read."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from avdetect.datasets.adapters import ADAPTERS, Problem
from avdetect.datasets.manifest import SEGMENTS, digest, leaking_groups, leaking_originals, write_manifest
from avdetect.datasets.splits import LABELS, SPLITS, assign_splits
from avdetect.errors import ManifestError
from avdetect.files import write_json

SHOWN = 20  # methods and problems on the screen; the report file has all


def listed(
    dataset: str, root: Path, dev: float, test: float, seed: int, resplit: bool
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The manifest of a dataset (a key of ADAPTERS) in `root`, and its report as JSON-able values.

    dev, test: shares of the groups without a split (`assign_splits`). resplit: give up the official train and dev.
    Raises ManifestError where no row can be read. The report may have leaks: see `check_leaks`.
    """
    listing = ADAPTERS[dataset](root)
    table, problems = listing.table, list(listing.problems)
    if resplit:
        official = table["split"].isin(["train", "dev"])
        detail = f"{official.sum()} rows of train and dev are split anew by group"
        problems.append(Problem("official splits set aside", ".", detail))
        table = table.assign(split=table["split"].mask(official, ""))
    table = assign_splits(table, dev, test, seed)
    train = table["split"] == "train"
    leaks = len(leaking_groups(table)) or len(leaking_originals(table))  # cutting dev would move them out of sight
    if dev > 0 and train.any() and not (table["split"] == "dev").any() and not leaks:  # training needs a dev
        table = assign_splits(table.assign(split=table["split"].mask(train, "")), dev, 0, seed)
        if (table["split"] == "dev").any():
            problems.append(Problem("dev cut from train", ".", "the official splits have no dev"))
        else:
            problems.append(Problem("no dev", ".", "too few groups to cut one; training needs it"))
    return table, {"dataset": dataset, **_described(table, problems)}


def check_leaks(report: dict[str, Any]) -> None:
    """Raises ManifestError where a group, or a fake and its original, stand in two splits."""
    groups, originals = report["leaks"], report["leaking_originals"]
    lines = [f"{len(groups)} group(s) stand in more than one split: {', '.join(groups[:SHOWN])}"] if groups else []
    if originals:
        shown = ", ".join(f"{path} ({split}) of {source} ({other})" for path, split, source, other in originals[:3])
        lines.append(f"{len(originals)} fake(s) stand in another split than their original: {shown}")
    if lines:
        raise ManifestError("; ".join(lines) + ". Correct the splits, or cut train and dev anew by group: --resplit")


def write(table: pd.DataFrame, out: Path, report: dict[str, Any], place: Path) -> None:
    """The manifest to `out`, whose folder is made, and the report to `place`. Raises ManifestError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(table, out)
        write_json(place, report)
    except OSError as error:
        raise ManifestError(f"cannot write {error.filename}: {error.strerror}") from error


def _described(table: pd.DataFrame, problems: list[Problem]) -> dict[str, Any]:
    return {
        "rows": len(table),
        "groups": int(table["group"].nunique()),
        "digest": digest(table),
        "labels": {split: _label_counts(table[table["split"] == split]) for split in SPLITS},
        "methods": _method_counts(table),
        "originals": _original_counts(table),
        "rows_with_segments": {c: int(table[c].map(bool).sum()) for c in SEGMENTS if c in table},
        "leaks": leaking_groups(table),
        "leaking_originals": leaking_originals(table).to_numpy(object).tolist(),
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
    reals = table[["path", "fake", "split"]]
    found = named.merge(reals, left_on="original", right_on="path", suffixes=("", "_of_original"))
    return {
        "named": len(named),
        "in_manifest": len(found),
        "in_another_split": int((found["split"] != found["split_of_original"]).sum()),
        "labelled_fake": int((found["fake"] == 1).sum()),
    }


def in_words(report: dict[str, Any]) -> str:
    """The report for the screen, without most of the details."""
    splits = [
        {"split": split, "rows": counts["rows"]}
        | {f"{label} {kind}": counts[label][kind] for label in LABELS for kind in ("real", "fake", "unknown")}
        for split, counts in report["labels"].items()
    ]
    methods, numbers, details = report["methods"], report["originals"], report["details"]
    lines = [f"{report['rows']} rows, {report['groups']} groups, digest {report['digest']}", ""]
    lines += [pd.DataFrame(splits).to_string(index=False), "", pd.DataFrame(methods[:SHOWN]).to_string(index=False)]
    if len(methods) > SHOWN:
        lines.append(f"... and {len(methods) - SHOWN} more in the report file")
    lines += [
        "",
        f"originals: {numbers['named']} rows name one, {numbers['in_manifest']} of them stand in the manifest, "
        f"{numbers['in_another_split']} in another split, {numbers['labelled_fake']} labelled fake",
        "rows with segments: " + ", ".join(f"{name} {n}" for name, n in report["rows_with_segments"].items()),
        "problems: " + (", ".join(f"{count} x {kind}" for kind, count in report["problems"].items()) or "none"),
    ]
    lines += [f"  {kind}: {path}" + (f" ({detail})" if detail else "") for kind, path, detail in details[:SHOWN]]
    if len(details) > SHOWN:
        lines.append(f"  ... and {len(details) - SHOWN} more in the report file")
    return "\n".join(lines)
