"""The training table: one row a file, three-way labels, groups that are never split."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from avdetect.errors import ManifestError

COLUMNS = (
    "path",  # absolute, or relative to the manifest
    "fake",  # 0, 1 or empty (unknown), like the next two
    "video_fake",
    "audio_fake",
    "group",  # what must never be split: a person, a page, an original with its fakes
    "split",  # train or dev
    "dataset",  # the source; losses and metrics are balanced over it
    "method",  # generator; empty for real
)
LABELS = ("fake", "video_fake", "audio_fake")


def validate(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with typed columns. Raises ManifestError, naming the column and the first bad row."""
    for column in COLUMNS:
        if column not in table:
            raise ManifestError(f"the manifest lacks the column {column!r}; it needs {', '.join(COLUMNS)}")
    table = table.copy()
    for column in LABELS:
        labels = pd.to_numeric(table[column], errors="coerce").astype("Float64")
        bad = (labels.isna() & table[column].notna() & (table[column].astype(str) != "")) | ~labels.isin([0, 1, pd.NA])
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise ManifestError(f"row {row}: {column} is {table[column].iloc[row]!r}; it must be 0, 1 or empty")
        table[column] = labels.astype("Int8")
    for column in ("path", "group", "split", "dataset"):
        empty = table[column].isna() | (table[column].astype(str) == "")
        if empty.any():
            raise ManifestError(f"row {int(empty.to_numpy().argmax())}: {column} is empty")
    unknown = ~table["split"].isin(["train", "dev"])
    if unknown.any():
        row = int(unknown.to_numpy().argmax())
        raise ManifestError(f"row {row}: split is {table['split'].iloc[row]!r}; it must be train or dev")
    parts = table["video_fake"].eq(1).fillna(False) | table["audio_fake"].eq(1).fillna(False)
    wrong = (table["fake"].eq(0).fillna(False) & parts).to_numpy(bool)
    if wrong.any():
        raise ManifestError(f"row {int(wrong.argmax())}: fake is 0 although its face or voice is labelled fake")
    splits = table.groupby("group")["split"].nunique()
    if (splits > 1).any():
        raise ManifestError(f"group {splits.idxmax()!r} stands in more than one split: its clips leak across them")
    if table["path"].duplicated().any():
        raise ManifestError(f"{table['path'][table['path'].duplicated()].iloc[0]} stands in the manifest twice")
    return table


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a CSV or Parquet manifest; relative paths are resolved against its folder. Raises ManifestError."""
    path = Path(path)
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read the manifest {path}: {error}") from error
    if "path" in table:  # resolved first: a.mp4 and ./a.mp4 are one file
        table["path"] = [str((path.parent / str(p)).resolve()) if str(p) else "" for p in table["path"]]
    return validate(table)


def digest(table: pd.DataFrame) -> str:
    """16 hex digits over file names, labels, groups and splits: the identity of the training data in a bundle."""
    rows = table.assign(path=[Path(p).name for p in table["path"]])[list(COLUMNS)]
    rows = rows.sort_values(list(COLUMNS), key=lambda column: column.astype(str))  # names may recur across folders
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def fold_of(groups: pd.Series, folds: int) -> pd.Series:
    """A fold number for each row, the same for all rows of a group and stable across runs and machines."""
    number = {g: int(hashlib.sha256(str(g).encode()).hexdigest(), 16) % folds for g in groups.unique()}
    return groups.map(number)
