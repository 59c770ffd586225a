"""Your own data: a list of files (CSV or Parquet) or a folder; a folder of nothing but real videos will do."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pandas as pd

from avdetect.datasets.adapters.listing import AUDIO, FAKE, REAL, VIDEO, Listing, Problem, Rows, finish
from avdetect.datasets.manifest import LABELS, SEGMENTS, read_table
from avdetect.datasets.segments import typed_segments
from avdetect.errors import ManifestError

SPELLINGS = {"0": 0, "0.0": 0, "real": 0, "false": 0, "1": 1, "1.0": 1, "fake": 1, "true": 1}
SPLITS = {"": "", "train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}
FOLDERS: dict[str, tuple[int | None, ...]] = {
    "real": REAL,
    "fake": FAKE,
    "fake_video": (1, 1, 0),
    "fake_audio": (1, 0, 1),
    "fake_both": (1, 1, 1),
}


def folder(root: Path) -> Listing:
    """Video and audio files under `real/`, `fake/`, `fake_video/`, `fake_audio/`, `fake_both/` (first level).

    Without any of these folders everything under `root` is taken as real, which is reported. Group = the first folder
    below (a person, a source), or the file's name without suffix where it lies in none; real and fake share groups.
    A fake whose name below its folder (`ann/1.mp4`, the suffix aside) is that of one real file is taken as made from
    it, which is reported: `original`, and so one group. Names that are merely alike (`1_fake.mp4`) say nothing: put
    these into folders, or name the originals in a list (`csv`).
    """
    rows = Rows(root, root.resolve().name or "folder")
    media = sorted(f for f in rows.files if f.lower().endswith((*VIDEO, *AUDIO)))
    sorted_in = any(_head(f) in FOLDERS for f in media)
    if media and not sorted_in:
        rows.problem("taken as real", ".", f"no folder {', '.join(FOLDERS)}: all {len(media)} files are taken as real")
    reals: dict[str, list[str]] = {}
    for path in media if sorted_in else ():
        if _head(path) == "real":
            reals.setdefault(_below(path), []).append(path)
    taken = 0
    for path in media:
        if sorted_in and _head(path) not in FOLDERS:
            continue  # reported as unlisted
        labels = FOLDERS[_head(path)] if sorted_in else REAL
        parts = PurePosixPath(path).parts[1 if sorted_in else 0 :]
        if path.lower().endswith(AUDIO):  # no picture to judge
            labels = (labels[0], None, labels[2])
        original = _original(path, reals) if labels[0] else ""
        taken += original != ""
        rows.add(path, labels, parts[0] if len(parts) > 1 else PurePosixPath(path).stem, original=original)
    if taken:
        rows.problem("original by name", ".", f"{taken} fakes are taken as made from the real file of the same name")
    return rows.listing(suffixes=(*VIDEO, *AUDIO, ".jpg", ".jpeg", ".png"))


def _head(path: str) -> str:
    return PurePosixPath(path).parts[0].lower()


def _below(path: str) -> str:
    """`ann/1` of `real/ann/1.mp4`."""
    return str(PurePosixPath(*PurePosixPath(path).parts[1:]).with_suffix(""))


def _original(path: str, reals: dict[str, list[str]]) -> str:
    """The one real file of this name: with the same suffix, or else of the same kind (a picture, or sound alone)."""
    found = reals.get(_below(path), [])
    suffix, is_sound = PurePosixPath(path).suffix.lower(), path.lower().endswith(AUDIO)
    same = [real for real in found if PurePosixPath(real).suffix.lower() == suffix]
    same = same or [real for real in found if real.lower().endswith(AUDIO) == is_sound]
    return same[0] if len(same) == 1 else ""


def table(path: Path) -> Listing:
    """A CSV or Parquet file with at least `path` and `fake` (0/1 or real/fake); other columns of a manifest are used.

    Paths are absolute or relative to the file. Where missing: `group` is the original's group or else the original or
    else the file itself, `dataset` the list's name, and the parts of a real are real.
    """
    rows = read_table(path)
    if not {"path", "fake"} <= set(rows.columns):
        raise ManifestError(f"{path} needs the columns path and fake; it has {', '.join(map(str, rows.columns))}")
    folder = path.parent.resolve()
    rows = rows.copy()
    for column in ("path", "original", "group", "split", "dataset", "method"):
        rows[column] = _texts(rows, column)
    for column in ("path", "original"):
        whole = [os.path.normpath(os.path.join(folder, p)) if p else "" for p in rows[column]]
        rows[column] = pd.Series(whole, rows.index, dtype=object).astype(str)
    problems: list[Problem] = []
    real = _texts(rows, "fake").str.strip().str.lower().map(SPELLINGS) == 0
    for column in ("video_fake", "audio_fake"):
        if column not in rows:
            rows[column] = pd.Series(pd.NA, rows.index, dtype="Int8").mask(real, 0)
    keep = pd.Series(True, rows.index)
    for column in LABELS:
        rows[column], keep = _labels(rows, column, keep, problems)
    part = ((rows["video_fake"] == 1) | (rows["audio_fake"] == 1)).fillna(False)
    wrong = (rows["fake"] == 0).fillna(False) & (part | ((rows["original"] != "") & (rows["original"] != rows["path"])))
    detail = "fake is 0, but a part is fake or an original is named"
    problems += [Problem("unknown label", p, detail) for p in rows.loc[wrong, "path"]]
    keep &= ~wrong
    splits = rows["split"].str.lower().map(SPLITS)
    problems += [Problem("unknown split", p, f"split is {s!r}") for p, s in _pick(rows, splits.isna(), "split")]
    rows["split"] = splits
    if "fake_segments" not in rows:
        rows["fake_segments"] = ""
    for column, label in SEGMENTS.items():
        if column in rows:
            rows[column] = typed_segments(rows[column])
            wrong = rows[column].map(bool) & ~(rows[label] == 1).fillna(False)
            problems += [
                Problem("unknown label", p, f"{column}, but {label} is not 1") for p in rows.loc[wrong, "path"]
            ]
            keep &= ~wrong
    own = rows["original"].where(rows["original"] != "", rows["path"])
    given = rows[rows["group"] != ""].drop_duplicates("path").set_index("path")["group"]
    own = own.map(given).astype(object).where(own.isin(given.index), own.str.removeprefix(f"{folder}/")).astype(str)
    rows["dataset"] = rows["dataset"].where(rows["dataset"] != "", path.stem)
    rows["group"] = rows["group"].where(rows["group"] != "", own)
    rows = rows[keep & splits.notna()].reset_index(drop=True)
    return finish(rows, folder, _present(rows["path"]), problems)


def _texts(rows: pd.DataFrame, column: str) -> pd.Series:
    if column not in rows:
        return pd.Series("", rows.index, dtype=object).astype(str)
    return rows[column].astype(object).where(rows[column].notna(), "").astype(str)


def _pick(rows: pd.DataFrame, which: pd.Series, column: str) -> list[tuple[str, str]]:
    return list(zip(rows.loc[which, "path"], rows.loc[which, column].astype(str), strict=True))


def _labels(rows: pd.DataFrame, column: str, keep: pd.Series, problems: list[Problem]) -> tuple[pd.Series, pd.Series]:
    """Typed labels, and the rows whose label can be read; the others are named."""
    text = _texts(rows, column).str.strip().str.lower()
    values = text.map(SPELLINGS)
    wrong = values.isna() & (text != "")
    problems += [Problem("unknown label", p, f"{column} is {value!r}") for p, value in _pick(rows, wrong, column)]
    return values.astype("Float64").astype("Int8"), keep & ~wrong


def _present(paths: pd.Series) -> set[str]:
    """Those that exist, from one listing of each folder (a stat of every file is slow on network disks)."""
    found: set[str] = set()
    for parent in {p.rpartition("/")[0] for p in paths}:
        try:
            with os.scandir(parent or "/") as entries:
                found.update(f"{parent}/{entry.name}" for entry in entries if entry.is_file())
        except OSError:
            continue  # its files are reported as missing
    return found
