"""Where the names of the files come from. Names are text as `os.fsdecode` gives it, so that any file can be named."""

from __future__ import annotations

import csv
import glob
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avdetect.errors import ConfigError

MEDIA_SUFFIXES = frozenset(
    (
        ".3gp .aac .asf .avi .flac .flv .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ts .wav "
        ".webm .wmv"
    ).split()
)
STDIN = "-"
_MAX_NAME_BYTES = 1 << 16  # sixteen times what a file system takes: a list without separators must not fill the memory


@dataclass(frozen=True)
class Source:
    """The names to score, in order.

    `open` gives them anew; None stands for "none for the moment" (a pipe whose writer is slow). `total` is None where
    it is not known before the end.
    """

    open: Callable[[], Iterator[str | None]]
    total: int | None
    single: str | None = None  # the one file, where it was named itself


def source_of(paths: Sequence[str], manifest: Path | None, null: bool = False) -> Source:
    """The names that a command line asks for: `paths` (one of which may be "-", the list on standard input), or those
    of `manifest`. null: names on standard input end in NUL instead of a newline.

    Raises ConfigError: nothing to score, a pattern that leads nowhere, a manifest that cannot be read.
    """
    if manifest is not None:
        if paths:
            raise ConfigError("give either files or --manifest, not both")
        return _manifest_source(manifest)
    if not paths:
        raise ConfigError("nothing to score: give files, folders, patterns, --manifest FILE, or - for a list on stdin")
    if paths.count(STDIN) > 1:
        raise ConfigError("- (standard input) can be read once only")
    if null and STDIN not in paths:
        raise ConfigError("--null says how names on standard input end: give - as the file")
    if STDIN not in paths:
        files = list(expand(paths))
        return Source(lambda: iter(files), len(files), files[0] if files == list(paths) and len(files) == 1 else None)
    at = paths.index(STDIN)
    before, after = list(expand(paths[:at])), list(expand(paths[at + 1 :]))

    def names() -> Iterator[str | None]:
        yield from before
        yield from _listed(sys.stdin.fileno(), b"\0" if null else b"\n")
        yield from after

    return Source(names, None)


def expand(paths: Sequence[str]) -> Iterator[str]:
    """Files as given, the media files below folders (sorted), the matches of glob patterns (sorted; folders descended).

    A name that exists is never read as a pattern. Raises ConfigError for a pattern or a folder that leads to no file; a
    missing file is left for the scorer to report.
    """
    for path in paths:
        if not path:
            raise ConfigError("an empty name is no file")
        if os.path.isdir(path):
            found = _media_below(path)
        elif not os.path.lexists(path) and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))
            found = [file for m in matches for file in (_media_below(m) if os.path.isdir(m) else [m])]
        else:
            found = [path]
        if not found:
            raise ConfigError(f"{path} leads to no media file")
        yield from found


def _media_below(folder: str) -> list[str]:
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES
    )


def _listed(descriptor: int, separator: bytes) -> Iterator[str | None]:
    """The names that a pipe or file lists, as they come; empty ones are no names. Raises ConfigError."""
    rest, number = b"", 0
    while True:
        if not select.select([descriptor], [], [], 0)[0]:
            yield None
            continue
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError as error:
            raise ConfigError(f"cannot read the list on standard input: {error.strerror}") from error
        *whole, rest = (rest + data).split(separator)
        if not data:
            whole, rest = [rest], b""
        for name in whole:
            number += 1
            if name:
                yield os.fsdecode(name)
        if not data:
            return
        if len(rest) > _MAX_NAME_BYTES:
            raise ConfigError(f"standard input: name {number + 1} is longer than {_MAX_NAME_BYTES} bytes; see --null")


def _manifest_source(path: Path) -> Source:
    """The column `path` of a CSV or Parquet file; relative names are relative to its folder."""
    folder = os.path.dirname(path)
    if path.suffix == ".parquet":
        from avdetect.batch.parquet import read_column

        read = read_column
    else:
        read = _csv_column

    def names() -> Iterator[str | None]:
        for name in read(path, "path"):
            if not name:
                raise ConfigError(f"{path}: a row has no path")
            yield os.path.join(folder, name)

    total = sum(1 for _ in names())  # reads it once: what is wrong with it is said before hours of work
    if not total:
        raise ConfigError(f"{path} lists no file")
    return Source(names, total)


def _csv_column(path: Path, column: str) -> Iterator[str]:
    """The cells of a column of a CSV file, one by one. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if column not in (rows.fieldnames or ()):
                raise ConfigError(f"{path} has no column {column!r}: it must be a CSV or Parquet file with one")
            for row in rows:
                if None in row or None in row.values():  # torn, most often: half a name is another file's
                    raise ConfigError(f"{path}, line {rows.line_num}: it has not as many cells as the header")
                yield row[column]
    except (OSError, csv.Error) as error:
        raise ConfigError(f"cannot read the manifest {path}: {getattr(error, 'strerror', None) or error}") from error
