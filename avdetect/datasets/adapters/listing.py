"""What every adapter yields, and the checks they share: files that are missing, listed twice, or not listed."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from avdetect.datasets.manifest import COLUMNS, LABELS, validate
from avdetect.datasets.segments import Segments, clean_segments
from avdetect.errors import ManifestError

VIDEO = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
# (fake, video_fake, audio_fake)
REAL = (0, 0, 0)
SILENT_REAL = (0, 0, None)  # the file has no sound
FAKE = (1, None, None)


@dataclass(frozen=True)
class Problem:
    """Something that could not become a row, or that the user should know."""

    kind: str  # "missing file", "duplicate row", "unknown label", "unreadable metadata", "unlisted file" ...
    path: str  # relative to the root of the dataset where it is below it
    detail: str = ""


@dataclass(frozen=True)
class Listing:
    """The rows of one dataset. `split` is empty where the dataset has no official one."""

    table: pd.DataFrame  # columns of the manifest, typed; paths absolute
    problems: list[Problem]


@dataclass
class Rows:
    """Collects the rows of the dataset under `root`, after one walk over it (names only: no stat of every file)."""

    root: Path
    dataset: str
    files: set[str] = field(default_factory=set)  # relative to root
    problems: list[Problem] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise ManifestError(f"{self.root} is not a folder; name the folder that holds the dataset")
        self.root = self.root.resolve()
        self.files, self.problems = walk(self.root)

    def problem(self, kind: str, path: str, detail: str = "") -> None:
        self.problems.append(Problem(kind, path, detail))

    def add(
        self,
        path: str,
        labels: Sequence[int | None],
        group: str,
        *,
        split: str = "",
        method: str = "",
        original: str = "",
        segments: Any = (),
        dataset: str = "",
        **extra: Any,
    ) -> None:
        """One row. `path` and `original` relative to the root; `labels` (fake, video_fake, audio_fake), None unknown.

        The group is prefixed by the dataset's name, so that manifests of several datasets can be joined.
        """
        dataset = dataset or self.dataset
        values = dict(zip(LABELS, labels, strict=True)) | extra
        values |= {"path": path, "group": f"{dataset}:{group}", "split": split, "dataset": dataset, "method": method}
        values |= {"original": original, "fake_segments": self.segments(path, segments)}
        count = len(self.columns["path"])
        for name in values:  # in their order: a set's would differ from run to run
            if name not in self.columns:
                self.columns[name] = [() if name.endswith("_segments") else ""] * count
        for name, column in self.columns.items():
            column.append(values.get(name, () if name.endswith("_segments") else ""))

    def segments(self, path: str, value: Any) -> Segments:
        """Checked segments; those that are no segments are named and taken as unknown."""
        try:
            return clean_segments(value)
        except ManifestError as error:
            self.problem("bad segments", path, str(error))
            return ()

    def first(self, *candidates: str) -> str:
        """The first candidate that is there, else the first one (which the check then calls missing)."""
        return next((c for c in candidates if c in self.files), candidates[0])

    def json(self, path: str) -> Any:
        """Content of a JSON file, or None and a problem."""
        try:
            text = (self.root / path).read_text(encoding="utf-8-sig")  # of bytes, json.loads takes half characters
            content = json.loads(text)
            if "\\ud" in text.lower():  # half a character has an escape in JSON, and no place in a table
                json.dumps(content, ensure_ascii=False).encode()
            return content
        except (OSError, ValueError, RecursionError) as error:
            self.problem("unreadable metadata", path, " ".join(str(error).split()))
            return None

    def csv(self, path: str, wanted: Sequence[str]) -> list[list[str]]:
        """The wanted cells of each line, and the one that follows the last of them ("" where there is none)."""
        try:
            lines = list(csv.reader(io.StringIO(self.text(path))))
        except csv.Error as error:
            self.problem("unreadable metadata", path, str(error))
            return []
        header = [name.strip() for name in lines[0]] if lines else []
        if set(wanted) - set(header):
            self.problem(
                "unreadable metadata", path, f"its header lacks {', '.join(sorted(set(wanted) - set(header)))}"
            )
            return []
        places, found = [header.index(name) for name in wanted], []
        for number, line in enumerate(lines[1:], 2):
            if len(line) > max(places):
                cells = [*line, ""]
                found.append([cells[place].strip() for place in (*places, places[-1] + 1)])
            elif line:
                self.problem("unreadable metadata", f"{path}:{number}", f"{len(line)} cells")
        return found

    def text(self, path: str) -> str:
        """Content of a text file, or "" and a problem."""
        try:
            return (self.root / path).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            self.problem("unreadable metadata", path, " ".join(str(error).split()))
            return ""

    def listing(self, *, suffixes: Sequence[str] = VIDEO, ignore: Sequence[str] = ()) -> Listing:
        """Check the rows. Files with these suffixes that no row names are reported, but those under `ignore`."""
        table = pd.DataFrame(self.columns)
        named = {*table["path"], *(problem.path for problem in self.problems)}
        for path in sorted(self.files - named):
            if path.lower().endswith(tuple(suffixes)) and not any(part in f"/{path}" for part in ignore):
                self.problem("unlisted file", path)
        return finish(table, self.root, self.files, self.problems)


def walk(root: Path) -> tuple[set[str], list[Problem]]:
    """Relative paths of all files under `root`, links followed, each folder once."""
    files: set[str] = set()
    problems: list[Problem] = []
    seen = {os.path.realpath(root)}
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if not _is_unicode(entry.name):
                        problems.append(Problem("unreadable name", repr(path), "not UTF-8; rename it"))
                    elif entry.is_dir():
                        if not entry.is_symlink() or _is_new(os.path.realpath(entry.path), root / folder, seen):
                            pending.append(f"{path}/")
                    elif entry.is_file():
                        files.add(path)
                    else:
                        problems.append(Problem("missing file", path, "a broken link, or no regular file"))
        except OSError as error:
            problems.append(Problem("unreadable folder", folder, str(error.strerror)))
    return files, problems


def _is_new(target: str, folder: Path, seen: set[str]) -> bool:
    """Whether a linked folder was not followed before and does not hold the link itself."""
    if target in seen or f"{os.path.realpath(folder)}/".startswith(f"{target}/"):
        return False
    seen.add(target)
    return True


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def finish(table: pd.DataFrame, root: Path, files: set[str], problems: list[Problem]) -> Listing:
    """Leave out rows of missing files and repeated rows, naming each; make paths absolute; type the columns.

    A file that is listed twice with different labels is left out altogether: nobody knows which one is true.
    Raises ManifestError when no row is left.
    """
    problems = list(problems)
    missing = ~table["path"].isin(files)
    problems += [Problem("missing file", path) for path in table.loc[missing, "path"]]
    table = table[~missing]
    kinds = table[["path", *LABELS]].drop_duplicates()
    disputed = set(kinds["path"][kinds["path"].duplicated()])
    problems += [Problem("conflicting rows", p, "listed with different labels; left out") for p in sorted(disputed)]
    table = table[~table["path"].isin(disputed)]
    repeated = table["path"].duplicated()
    problems += [Problem("duplicate row", path) for path in table.loc[repeated, "path"]]
    table = table[~repeated].reset_index(drop=True)
    if table.empty:
        first = f"; the first of {len(problems)} problems: {problems[0].kind}: {problems[0].path}" if problems else ""
        raise ManifestError(f"{root} gives no row{first}. Is it the dataset's own folder, with its metadata?")
    for column in ("path", "original"):
        text = table[column].astype(object)
        # normpath: a metadata file may say ./a.mp4 or x/../a.mp4.
        table[column] = [os.path.normpath(f"{root}/{p}" if not p.startswith("/") else p) if p else "" for p in text]
    # Some sets write the file itself as the original of a real one.
    table["original"] = table["original"].mask(table["original"] == table["path"], "")
    return Listing(validate(table, check_splits=False), problems)
