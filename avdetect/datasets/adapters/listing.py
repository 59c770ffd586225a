"""What every adapter yields, and the checks they share: files that are missing, listed twice, or not listed."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pandas as pd

from avdetect.datasets.manifest import COLUMNS, LABELS, validate
from avdetect.datasets.segments import Segments, clean_segments
from avdetect.errors import ManifestError

VIDEO = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
Labels = tuple[int | None, int | None, int | None]  # fake, video_fake, audio_fake; None: unknown
REAL: Labels = (0, 0, 0)
SILENT_REAL: Labels = (0, 0, None)  # the file has no sound
FAKE: Labels = (1, None, None)
FAKE_FACE: Labels = (1, 1, None)


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


class Rows:
    """Collects the rows of the dataset under `root`, after one walk over it (names only: no stat of every file)."""

    def __init__(self, root: Path, dataset: str) -> None:
        if not root.is_dir():
            raise ManifestError(f"{root} is not a folder; name the folder that holds the dataset")
        self.root, self.dataset = root.resolve(), dataset
        self.files, self.problems = walk(self.root)  # relative to root
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def videos(self) -> list[str]:
        return sorted(path for path in self.files if path.lower().endswith(VIDEO))

    def named(self, *names: str) -> list[str]:
        """The files of these names, in any folder."""
        return sorted(path for path in self.files if PurePosixPath(path).name in names)

    def first(self, *candidates: str) -> str:
        """The first candidate that is there, else the first one (which the check then calls missing)."""
        return next((c for c in candidates if c in self.files), candidates[0])

    def problem(self, kind: str, path: str, detail: str = "") -> None:
        self.problems.append(Problem(kind, path, detail))

    def add(
        self, path: str, labels: Labels, group: str, *, segments: Any = (), dataset: str = "", **cells: Any
    ) -> None:
        """One row. `path` and `original` relative to the root; `cells`: of other columns, "" where they are missing.
        The group is prefixed by the dataset's name, so that manifests of several datasets can be joined."""
        dataset = dataset or self.dataset
        values = dict(zip(LABELS, labels, strict=True)) | cells
        values |= {"path": path, "group": f"{dataset}:{group}", "dataset": dataset}
        values |= {"fake_segments": self.segments(path, segments)}
        count = len(self.columns["path"])
        for name in values:  # in their order: a set's would differ from run to run
            if name not in self.columns:
                self.columns[name] = [_nothing(name)] * count
        for name, column in self.columns.items():
            column.append(values.get(name, _nothing(name)))

    def segments(self, path: str, value: Any) -> Segments:
        """Checked segments; those that are no segments are named and taken as unknown."""
        try:
            return clean_segments(value)
        except ManifestError as error:
            self.problem("bad segments", path, str(error))
            return ()

    def text(self, path: str) -> str:
        """Content of a text file, or "" and a problem."""
        try:
            return (self.root / path).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            self.problem("unreadable metadata", path, " ".join(str(error).split()))
            return ""

    def json(self, path: str) -> Any:
        """Content of a JSON file, or None and a problem."""
        try:
            return msgspec.json.decode((self.root / path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            self.problem("unreadable metadata", path, " ".join(str(error).split()))
            return None

    def list_of(self, path: str, content: Any) -> list[dict[str, Any]]:
        """The entries of a list that name a `file`; what has another form is named. `content` None: said already."""
        if content is not None and not isinstance(content, list):
            self.problem("unreadable metadata", path, "not a list")
        found = []
        for entry in content if isinstance(content, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("file"), str):
                found.append(entry)
            else:
                self.problem("unreadable metadata", path, f"{str(entry)[:60]} names no file")
        return found

    def csv(self, path: str, wanted: Sequence[str]) -> list[list[str]]:
        """The wanted cells of each line, and the one that follows the last of them ("" where there is none)."""
        try:
            lines = list(csv.reader(io.StringIO(self.text(path))))
        except csv.Error as error:
            self.problem("unreadable metadata", path, str(error))
            return []
        header = [name.strip() for name in lines[0]] if lines else []
        if lacking := sorted(set(wanted) - set(header)):
            self.problem("unreadable metadata", path, f"its header lacks {', '.join(lacking)}")
            return []
        places, found = [header.index(name) for name in wanted], []
        for number, line in enumerate(lines[1:], 2):
            if len(line) > max(places):
                cells = [*line, ""]
                found.append([cells[place].strip() for place in (*places, places[-1] + 1)])
            elif line:
                self.problem("unreadable metadata", f"{path}:{number}", f"{len(line)} cells")
        return found

    def listing(self, suffixes: tuple[str, ...] = VIDEO) -> Listing:
        """Check the rows. Files with these suffixes that neither a row nor a problem names are reported."""
        named = {*self.columns["path"], *(problem.path for problem in self.problems)}
        for path in sorted(self.files - named):
            if path.lower().endswith(suffixes):
                self.problem("unlisted file", path)
        return finish(pd.DataFrame(self.columns), self.root, self.files, self.problems)


def _nothing(column: str) -> Any:
    return () if column.endswith("_segments") else ""


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
                    if any("\ud800" <= character <= "\udfff" for character in entry.name):
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


def finish(table: pd.DataFrame, root: Path, files: set[str], problems: list[Problem]) -> Listing:
    """Leave out rows of missing files and repeated rows, naming each; make paths absolute; type the columns.

    A file that is listed twice with different labels is left out altogether: nobody knows which one is true.
    Raises ManifestError when no row is left.
    """
    missing = ~table["path"].isin(files)
    problems = problems + [Problem("missing file", path) for path in table.loc[missing, "path"]]
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
    for column in ("path", "original"):  # normpath: a metadata file may say ./a.mp4 or x/../a.mp4
        table[column] = [os.path.normpath(os.path.join(root, path)) if path else "" for path in table[column]]
    # Some sets write the file itself as the original of a real one.
    table["original"] = table["original"].mask(table["original"] == table["path"], "")
    return Listing(validate(table, check_splits=False), problems)
