"""What a reader must know beside the numbers: the bundle, the files, how they were scored, and what to beware of."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from avdetect._version import __version__
from avdetect.bundle import OUT_OF_FOLD, Bundle
from avdetect.datasets.manifest import digest
from avdetect.evaluation.held_out import NOT_HELD_OUT, file_hashes, held_out_table
from avdetect.evaluation.metrics import SEED
from avdetect.evaluation.setting import Setting

VERSIONS = ("numpy", "pandas", "scikit-learn", "matplotlib", "onnxruntime", "opencv-python-headless")


def trained_on(table: pd.DataFrame, bundle: Bundle) -> list[str]:
    """The splits of a whole manifest that the bundle states it was trained on."""
    stated = bundle.info.training.get("manifest_digest")
    for splits in (["train"], ["train", "dev"]):
        rows = table[table["split"].isin(splits)]
        if len(rows) and digest(rows) == stated:
            return splits
    return []


def warnings_of(setting: Setting, scores: pd.DataFrame) -> list[str]:
    """What makes the numbers better than they are, and which files have none."""
    table, found, of_all = setting.table, [], f"of {len(scores)} files"
    better = "On them it looks better than it is: measure it with --out-of-fold, or on other files."
    if not setting.out_of_fold:
        known = 0  # files that stand, by their bytes, in the bundle's table of what it was trained on
        if OUT_OF_FOLD in setting.bundle.files:
            trained = held_out_table(setting.bundle).index.to_numpy(object)
            known = int(np.isin(file_hashes(table, setting.archive), trained).sum())
        akin = int((table["dataset"].isin(setting.known) & ~table["split"].isin(setting.trained_on)).sum())
        if known:
            found.append(f"{known} {of_all} were used to train this bundle. {better}")
        elif setting.trained_on:
            splits = " and ".join(setting.trained_on)
            found.append(f"The bundle was trained on the files of split {splits} of this manifest. {better}")
        if akin:
            found.append(
                f"{akin} {of_all} were not trained on, but are of sources that the bundle was trained on: "
                "they say nothing of new sources."
            )
    left_out = int((scores["error"] == NOT_HELD_OUT).sum())
    failed = int((scores["error"] != "").sum()) - left_out
    if left_out:
        found.append(f"{left_out} {of_all} have no out-of-fold output in the bundle and are left out.")
    if failed:
        found.append(f"{failed} {of_all} could not be read; scores.csv says why (column error).")
    return found


def about(setting: Setting) -> dict[str, str]:
    """What stands at the head of the page."""
    table, info = setting.table, setting.bundle.info
    splits = ", ".join(f"{split}: {count}" for split, count in table["split"].value_counts().sort_index().items())
    how = "by the bundle, as avdetect score does"
    if setting.out_of_fold:
        unit = {"dataset": "source (dataset)"}.get(info.training.get("config", {}).get("fold_by", ""), "group")
        how = (
            f"out of fold: every file was scored by streams that never saw its {unit}, and by a fusion that was "
            "fitted without it. These are not the networks in the bundle, which were trained on all of these files, "
            "but others of the same recipe."
        )
    return {
        "Bundle": f"{info.name} ({setting.bundle.digest})",
        "Manifest": f"{len(table)} files of {table['group'].nunique()} groups and {table['dataset'].nunique()} sources "
        f"({splits}); digest {digest(table)}",
        "Scored": how,
        "Thresholds": f"{info.calibration.fake_threshold:g} of P(fake), as shipped (undecided from "
        f"{info.calibration.undecided_threshold:g}), of its parts too",
        "avdetect": __version__,
        **({"Command": setting.command} if setting.command else {}),
    }


def summary(setting: Setting, parts: list[str]) -> dict[str, Any]:
    table, info = setting.table, setting.bundle.info
    return {
        "command": setting.command,
        "bundle": {"name": info.name, "digest": setting.bundle.digest, "threshold": info.calibration.fake_threshold},
        "manifest": {"digest": digest(table), "rows": len(table), "split": setting.split},
        "out_of_fold": setting.out_of_fold,
        "parts": parts,
        "bootstrap_rounds": setting.rounds,
        "seed": SEED,
        "versions": {"avdetect": __version__, "python": platform.python_version()} | {p: _version(p) for p in VERSIONS},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
