"""The manifest: one row a media file, three-way labels, groups that are never split; read, checked, written.

In memory a pandas table. Labels are Int8 (0, 1, NA); `fake_segments` holds tuples of (start_seconds, end_seconds).
On disk CSV or Parquet; segments are JSON text in both. Paths are absolute, or relative to the manifest's folder.
Columns beyond these are kept (kind, augmentations, sha256 ...). One of them is `own_voice`: 1 where the person in the
picture speaks with this sound, 0 where not, empty where nobody says so. Tables of a million rows and more are meant.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.datasets.segments import segments_text, typed_segments
from avdetect.datasets.splits import LABELS as LABELS
from avdetect.datasets.splits import SPLITS as SPLITS
from avdetect.datasets.splits import folds as folds
from avdetect.datasets.splits import texts
from avdetect.errors import ManifestError
from avdetect.extras import how_to_install
from avdetect.files import replacing

COLUMNS = (
    "path",  # absolute, or relative to the manifest
    "fake",  # 0, 1 or empty (unknown), like the next two
    "video_fake",
    "audio_fake",
    "group",  # what must never be split: a person, a page, an original with its fakes
    "split",  # train, dev or test
    "dataset",  # the source; what is drawn and what is measured are balanced over it, and fakes over `method`
    "method",  # generator; empty for real
    "original",  # path of the real file that a fake was made from; empty if unknown. It need not stand in the manifest
    "fake_segments",  # what is fake, in seconds; empty: unknown, or all of it
)
OPTIONAL = ("original", "fake_segments")  # a manifest without them is read as if they were empty
OWN_VOICE = "own_voice"
# Segments of one modality where the two differ (AV-Deepfake1M); these columns are there only if a dataset has them.
SEGMENTS = {"fake_segments": "fake", "video_fake_segments": "video_fake", "audio_fake_segments": "audio_fake"}
TEXTS = ("path", "group", "split", "dataset", "method", "original")
SPELLINGS = {"0": 0, "0.0": 0, "False": 0, "1": 1, "1.0": 1, "True": 1, "": -1}  # of labels; -1: unknown


def validate(table: pd.DataFrame, *, check_splits: bool = True) -> pd.DataFrame:
    """A copy with typed columns. Raises ManifestError, naming the column and the first bad row (from 0).

    `fake` becomes 1 where it is unknown and the face or the voice is fake. With `check_splits=False` a split may be
    empty, and a group or a fake and its original may stand in several: a listing on its way to `assign_splits`.
    """
    needed = [column for column in COLUMNS if column not in OPTIONAL]
    for column in needed:
        if column not in table:
            raise ManifestError(f"the manifest lacks the column {column!r}; it needs {', '.join(needed)}")
    table = table.copy(deep=False)
    for column in (*LABELS, *({OWN_VOICE} & set(table))):
        table[column] = _labels(table, column)
    for column in TEXTS:
        table[column] = texts(table, column)
    if "fake_segments" not in table:
        table["fake_segments"] = ""
    for column in ("path", "group", "dataset", *(("split",) if check_splits else ())):
        _refuse(table[column] == "", lambda row, c=column: f"{c} is empty")  # type: ignore[misc]
    must = "it must be train or dev, or test for what is only measured"
    _refuse(~table["split"].isin((*SPLITS, "")), lambda row: f"split is {table['split'].iloc[row]!r}; {must}")
    _check_labels(table)
    for column, label in SEGMENTS.items():
        if column in table:
            table[column] = typed_segments(table[column])
            _refuse(
                table[column].map(bool) & ~_is(table[label] == 1),
                lambda row, c=column, n=label: f"{c} is not empty although {n} is not 1",  # type: ignore[misc]
            )
    _refuse(table["path"].duplicated(), lambda row: f"{table['path'].iloc[row]} stands in the manifest twice")
    if check_splits:
        _check_splits(table)
    return table[[*COLUMNS, *(c for c in table.columns if c not in COLUMNS)]]


def own_voice(table: pd.DataFrame) -> np.ndarray:
    """(N,) bool: whose face and voice belong together, which is what lip-sync is learned from and measured on. Never a
    fake. A file of unknown label counts where `own_voice` is 1; a real one unless it is 0."""
    stated = table[OWN_VOICE] if OWN_VOICE in table else pd.Series(pd.NA, index=table.index, dtype="Int8")
    fake = table["fake"].astype("Int8")
    return _is(fake.ne(1).fillna(True) & stated.astype("Int8").eq(1).fillna(fake.eq(0)))


def mismatch(table: pd.DataFrame) -> pd.Series:
    """(N,) Int8: 1 where two real modalities make a fake, 0 where the person in the picture speaks (`own_voice`) and
    the file is real, else unknown."""
    fake, video, audio = (table[name].astype("Int8") for name in LABELS)
    labels = pd.Series(pd.NA, index=table.index, dtype="Int8")
    labels[_is(fake.eq(1) & video.eq(0) & audio.eq(0))] = 1
    labels[_is(fake.eq(0)) & own_voice(table)] = 0
    return labels


def leaking_groups(table: pd.DataFrame) -> list[str]:
    """The groups that stand in several splits, sorted."""
    places = table[["group", "split"]].drop_duplicates()
    return sorted(places["group"][places["group"].duplicated()].unique())


def leaking_originals(table: pd.DataFrame) -> pd.DataFrame:
    """The fakes whose original stands in another split: path, split, original, original_split. No path may repeat."""
    split_of = table.set_index("path")["split"]
    found = table[["path", "split", "original"]].assign(original_split=table["original"].map(split_of))
    return found[found["original_split"].notna() & (found["original_split"] != found["split"])]


def _is(mask: pd.Series) -> np.ndarray:
    return mask.fillna(False).to_numpy(bool)


def _refuse(bad: pd.Series, message: Callable[[int], str]) -> None:
    if bad.any():
        row = int(_is(bad).argmax())
        raise ManifestError(f"row {row}: {message(row)}")


def _labels(table: pd.DataFrame, column: str) -> pd.Series:
    if str(table[column].dtype) == "Int8" and table[column].dropna().isin((0, 1)).all():
        return table[column]
    numbers = texts(table, column).map(SPELLINGS)
    _refuse(numbers.isna(), lambda row: f"{column} is {table[column].iloc[row]!r}; it must be 0, 1 or empty")
    return numbers.mask(numbers < 0).astype("Int8")


def _check_labels(table: pd.DataFrame) -> None:
    real, forged = table["fake"] == 0, _is((table["video_fake"] == 1) | (table["audio_fake"] == 1))
    _refuse(real & forged, lambda row: "fake is 0 although its face or voice is labelled fake")
    table["fake"] = table["fake"].mask(forged, 1)
    _refuse(
        real & (table["original"] != ""),
        lambda row: f"fake is 0 but it names an original ({table['original'].iloc[row]}); only fakes have one",
    )


def _check_splits(table: pd.DataFrame) -> None:
    if groups := leaking_groups(table):
        raise ManifestError(f"group {groups[0]!r} stands in more than one split: its clips leak across them")
    leaks = leaking_originals(table)
    if len(leaks):
        path, split, original, other = leaks.iloc[0]
        raise ManifestError(
            f"{path} stands in {split}, its original {original} in {other}: the face and voice leak across; "
            f"give both one split ({len(leaks)} such fakes)"
        )


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a CSV or Parquet manifest; relative paths are resolved against its folder. Raises ManifestError."""
    path = Path(path)
    table = read_table(path)
    try:
        for column in {"path", "original"} & set(table):  # resolved first: a.mp4 and ./a.mp4 are one file
            table[column] = _absolute(texts(table, column), path.parent.resolve())
        return validate(table)
    except (ValueError, OSError) as error:  # a path that no file system takes: a NUL, a ring of links
        raise ManifestError(f"{path}: it holds an impossible path: {error}") from error
    except ManifestError as error:
        hint = f" (to make a manifest of such a list: avdetect prepare csv {path} --out FILE)"
        raise ManifestError(f"{path}: {error}{hint if 'lacks the column' in str(error) else ''}") from error


def read_table(path: Path) -> pd.DataFrame:
    """The raw table of a CSV or Parquet file. Empty cells stay empty text; names and groups such as 007 stay text."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            types = dict.fromkeys((*TEXTS, *SEGMENTS), str)
            table = pd.read_csv(path, keep_default_na=False, dtype=types, low_memory=False)
    except ImportError as error:
        raise ManifestError(f"cannot read {path}: Parquet needs pyarrow; {how_to_install('evaluate')}") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read the manifest {path}: {' '.join(str(error).split())}") from error
    except (LookupError, TypeError, AttributeError) as error:  # pyarrow believes what a file says of its own pandas
        raise ManifestError(f"cannot read the manifest {path}: its description of its columns is damaged") from error
    if not all(isinstance(name, str) for name in table.columns):
        raise ManifestError(f"cannot read the manifest {path}: its columns have no names")
    if path.suffix != ".parquet" and not isinstance(table.index, pd.RangeIndex):
        # pandas takes what stands before the last named cells as row names: every column would be shifted.
        raise ManifestError(f"cannot read the manifest {path}: its rows have more cells than its header has names")
    return table


def _absolute(paths: pd.Series, folder: Path) -> pd.Series:
    relative = ~paths.str.startswith("/") & (paths != "")
    paths = paths.where(~relative, f"{str(folder).rstrip('/')}/" + paths)
    # Only . and .. and // change a path; the folders that hold them are few.
    odd = paths.str.contains(r"/(?:\.{0,2}/|\.{1,2}$)|.+/$", regex=True)
    if odd.any():
        parts = paths[odd].str.rsplit("/", n=1, expand=True)
        folders = {name: str(Path(name or "/").resolve()).rstrip("/") for name in parts[0].unique()}
        paths = paths.mask(odd, parts[0].map(folders) + "/" + parts[1])
    return paths


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write a valid manifest as CSV or Parquet (by suffix), whole or not at all.

    Paths under the manifest's folder are written relative to it, so that folder and manifest can move together.
    Raises ManifestError for an invalid table or another suffix.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise ManifestError(f"cannot write {path}: a manifest ends in .csv or .parquet")
    table = validate(table).reset_index(drop=True)
    for column in {*SEGMENTS} & set(table):
        table[column] = segments_text(table[column])
    for column in ("path", "original"):
        table[column] = table[column].str.removeprefix(f"{str(path.parent.resolve()).rstrip('/')}/")
    try:
        with replacing(path) as file:
            if path.suffix == ".csv":
                # The csv module leaves a lone \r bare, and readers take it for the end of a line.
                strings = [c for c in table.columns if pd.api.types.is_string_dtype(table[c])]
                odd = any(texts(table, c).str.contains("\r", regex=False).any() for c in strings)
                table.to_csv(file, index=False, quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
            else:
                table.to_parquet(file, index=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ManifestError(f"cannot write the manifest {path}: {' '.join(str(error).split())}") from error


def digest(table: pd.DataFrame) -> str:
    """16 hex digits over a validated table: file names, labels, groups, splits, originals, segments.

    The identity of the training data in a bundle. Folders, the order of the rows and other columns do not count.
    """
    names = np.array(["", "0", "1"], object)
    cells = [names[table[c].fillna(-1).to_numpy(np.int64) + 1] for c in LABELS]
    for column in TEXTS:
        text = table[column].to_numpy(object)
        cells.append([p.rpartition("/")[2] for p in text] if column in ("path", "original") else text)
    for column in SEGMENTS:
        cells.append(segments_text(table[column]).to_numpy(object) if column in table else [""] * len(table))
    lines = sorted(map("\x1f".join, zip(*cells, strict=True)))
    text = "\n".join(lines)
    if text.count("\x1f") + text.count("\n") != len(lines) * len(cells) - 1:  # a cell holds a separator
        text = "\n".join(sorted(json.dumps(row) for row in zip(*cells, strict=True)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
