"""Your own data: a list of files (CSV or Parquet) or a folder; a folder of nothing but real videos will do."""

import os
from pathlib import Path, PurePosixPath

import pandas as pd

from avdetect.datasets.adapters.listing import AUDIO, FAKE, REAL, VIDEO, Labels, Listing, Problem, Rows, finish
from avdetect.datasets.manifest import LABELS, SEGMENTS, read_table
from avdetect.datasets.segments import typed_segments
from avdetect.datasets.splits import texts
from avdetect.errors import ManifestError

SPELLINGS = {"0": 0, "0.0": 0, "real": 0, "false": 0, "1": 1, "1.0": 1, "fake": 1, "true": 1}
SPLITS = {"": "", "train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}
FOLDERS: dict[str, Labels] = {
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
    media = sorted(path for path in rows.files if path.lower().endswith((*VIDEO, *AUDIO)))
    sorted_in = any(_head(path) in FOLDERS for path in media)
    if media and not sorted_in:
        rows.problem("taken as real", ".", f"no folder {', '.join(FOLDERS)}: all {len(media)} files are taken as real")
    reals: dict[PurePosixPath, list[str]] = {}
    for path in media:
        if sorted_in and _head(path) == "real":
            reals.setdefault(_below(path), []).append(path)
    taken = 0
    for path in media:
        if sorted_in and _head(path) not in FOLDERS:
            continue  # reported as unlisted
        labels = FOLDERS[_head(path)] if sorted_in else REAL
        parts = PurePosixPath(path).parts[1 if sorted_in else 0 :]
        if path.lower().endswith(AUDIO):  # no picture to judge
            labels = (labels[0], None, labels[2])
        original = _original(path, reals.get(_below(path), [])) if labels[0] else ""
        taken += original != ""
        rows.add(path, labels, parts[0] if len(parts) > 1 else PurePosixPath(path).stem, original=original)
    if taken:
        rows.problem("original by name", ".", f"{taken} fakes are taken as made from the real file of the same name")
    return rows.listing((*VIDEO, *AUDIO, ".jpg", ".jpeg", ".png"))


def _head(path: str) -> str:
    return PurePosixPath(path).parts[0].lower()


def _below(path: str) -> PurePosixPath:
    """`ann/1` of `real/ann/1.mp4`."""
    return PurePosixPath(*PurePosixPath(path).parts[1:]).with_suffix("")


def _original(path: str, reals: list[str]) -> str:
    """The one of `reals` with the same suffix, or else of the same kind (a picture, or sound alone)."""
    same = [real for real in reals if PurePosixPath(real).suffix.lower() == PurePosixPath(path).suffix.lower()]
    same = same or [real for real in reals if real.lower().endswith(AUDIO) == path.lower().endswith(AUDIO)]
    return same[0] if len(same) == 1 else ""


def table(path: Path) -> Listing:
    """A CSV or Parquet file with at least `path` and `fake` (0/1 or real/fake); other columns of a manifest are used.

    Paths are absolute or relative to the file. Where missing: `group` is the original's group or else the original or
    else the file itself, `dataset` the list's name, and face and voice of a real are real.
    """
    rows = read_table(path)
    if not {"path", "fake"} <= set(rows.columns):
        raise ManifestError(f"{path} needs the columns path and fake; it has {', '.join(rows.columns)}")
    folder, problems = path.parent.resolve(), list[Problem]()
    rows = rows.assign(**{name: texts(rows, name) for name in ("group", "split", "dataset", "method")})
    for column in ("path", "original"):
        whole = [os.path.normpath(folder / p) if p else "" for p in texts(rows, column)]
        rows[column] = pd.Series(whole, rows.index, dtype=object).astype(str)
    keep = pd.Series(True, rows.index)

    def leave_out(wrong: pd.Series, kind: str, details: pd.Series | str) -> None:
        said = pd.Series(details, rows.index)[wrong]
        problems.extend(Problem(kind, p, detail) for p, detail in zip(rows.loc[wrong, "path"], said, strict=True))
        keep[wrong] = False

    real = None
    for column in LABELS:
        text = texts(rows, column).str.strip().str.lower()
        known = text.map(SPELLINGS)
        leave_out(known.isna() & (text != ""), "unknown label", column + " is '" + text + "'")
        if column not in rows:
            known = known.mask(real, 0)
        real = known == 0 if real is None else real
        rows[column] = known.astype("Float64").astype("Int8")
    forged = ((rows["video_fake"] == 1) | (rows["audio_fake"] == 1)).fillna(False).astype(bool)
    made = forged | ((rows["original"] != "") & (rows["original"] != rows["path"]))
    leave_out(real & made, "unknown label", "fake is 0, but its face or voice is fake or an original is named")
    splits = rows["split"].str.lower().map(SPLITS)
    leave_out(splits.isna(), "unknown split", "split is '" + rows["split"] + "'")
    rows["split"] = splits
    rows["fake_segments"] = rows.get("fake_segments", "")
    for column, label in SEGMENTS.items():
        if column in rows:
            rows[column] = typed_segments(rows[column])
            wrong = rows[column].map(bool) & ~(rows[label] == 1).fillna(False).astype(bool)
            leave_out(wrong, "unknown label", f"{column}, but {label} is not 1")
    own = rows["original"].where(rows["original"] != "", rows["path"])
    given = rows[rows["group"] != ""].drop_duplicates("path").set_index("path")["group"]
    own = own.map(given).astype(object).fillna(own.str.removeprefix(f"{folder}/"))
    rows["dataset"] = rows["dataset"].where(rows["dataset"] != "", path.stem)
    rows["group"] = rows["group"].where(rows["group"] != "", own)
    rows = rows[keep].reset_index(drop=True)
    return finish(rows, folder, _present(rows["path"]), problems)


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
