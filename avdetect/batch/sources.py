"""Where the names of the files come from. Names are text as `os.fsdecode` gives it, so that any file can be named."""

import codecs
import csv
import dataclasses
import glob
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from avdetect.batch.folders import Skipped, is_kept_out, media_below
from avdetect.errors import ConfigError

STDIN = "-"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # no file's name, and not relative to anything
_POLL_SECONDS = 0.05
_DELIMITERS = ",;\t"  # of CSV; where the comma is the decimal sign, spreadsheets write semicolons
_MAX_NAME_BYTES = 1 << 16  # sixteen times what a file system takes: a list without separators must not fill the memory
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Source:
    """The names to score, in order.

    `open` gives them anew; None stands for "none for the moment" (a pipe whose writer is slow). `total` is None where
    it is not known before the end.
    """

    open: Callable[[], Iterator[str | None]]
    total: int | None
    single: str | None = None  # the one file, where it was named itself
    note: str = ""  # what was left out of folders, for the user

    def known(self) -> Iterator[str]:
        """The names, if they are known before the end; none of a list on standard input, which can be read once."""
        if self.total is not None:
            yield from (name for name in self.open() if name is not None)


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
    skipped = Skipped()
    if STDIN not in paths:
        files = list(expand(paths, skipped))
        single = files[0] if files == list(paths) and len(files) == 1 else None
        return Source(lambda: iter(files), len(files), single, str(skipped))
    at = paths.index(STDIN)
    before, after = list(expand(paths[:at], skipped)), list(expand(paths[at + 1 :], skipped))

    def names() -> Iterator[str | None]:
        yield from before
        yield from _listed(sys.stdin.fileno(), b"\0" if null else b"\n")
        yield from after

    return Source(names, None, note=str(skipped))


def begun(source: Source) -> Source:
    """`source` once its first name has come. Raises ConfigError where none does: a list without names."""
    names = source.open()
    while (first := next(names, "")) is None:
        time.sleep(_POLL_SECONDS)
    if not first:  # the end: no name is empty
        raise ConfigError("standard input lists no file")
    return dataclasses.replace(source, open=lambda: chain([first], names))


def expand(paths: Sequence[str], skipped: Skipped) -> Iterator[str]:
    """Files as given, the media files below folders (sorted), the matches of glob patterns (sorted; folders descended).

    Neither a name that exists nor an address is read as a pattern. What folders hold beside media is counted in
    `skipped`. Raises ConfigError for a pattern or a folder that leads to no file; a missing file is left for the scorer
    to report.
    """
    for path in paths:
        if not path:
            raise ConfigError("an empty name is no file")
        if os.path.isdir(path):
            found = media_below(path, skipped)
            if not found and is_kept_out(path):  # a shell's `card/*` names it too
                skipped.folders.append(path)
                continue
        elif glob.has_magic(path) and not os.path.lexists(path) and not _ADDRESS.match(path):
            found = _matches(path, skipped)
        else:
            found = [path]
        if not found:
            raise ConfigError(f"{path} leads to no media file" + (f" ({skipped})" if str(skipped) else ""))
        yield from found


def _matches(pattern: str, skipped: Skipped) -> list[str]:
    """The files that match, and the media files below folders that do. `**` names a folder and what is in it too: that
    counts once."""
    found: list[str] = []
    folders: tuple[str, ...] = ()
    for match in sorted(glob.glob(pattern, recursive=True)):
        if match.startswith(folders):
            continue
        if not os.path.isdir(match):
            found.append(match)
            continue
        folders += (os.path.join(match, ""),)
        if is_kept_out(match):
            skipped.folders.append(match)
        else:
            found += media_below(match, skipped)
    return found


def _listed(descriptor: int, separator: bytes) -> Iterator[str | None]:
    """The names that a pipe or file lists, as they come; empty ones are no names. Raises ConfigError.

    Lines may end in CR LF and begin with a byte order mark, as programs of Windows write them (PowerShell in UTF-16).
    """
    rest, number, decoder = b"", 0, None
    begun = ended = False
    while not ended:
        if not select.select([descriptor], [], [], 0)[0]:
            yield None
            continue
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError as error:
            raise ConfigError(f"cannot read the list on standard input: {error.strerror}") from error
        ended = not data
        if not begun:
            rest += data
            if len(rest) < len(codecs.BOM_UTF8) and not ended:
                continue
            data, rest, begun = rest.removeprefix(codecs.BOM_UTF8), b"", True
            if data.startswith(_UTF16):
                decoder = codecs.getincrementaldecoder("utf-16")("replace")
        if decoder:
            data = decoder.decode(data, ended).encode(errors="surrogatepass")
        *whole, rest = (rest + data).split(separator)
        if ended:
            whole, rest = [*whole, rest], b""
        if separator == b"\n" and any(b"\0" in line for line in (*whole, rest)):
            raise ConfigError("standard input holds NUL bytes: say --null where names end in NUL")
        for line in whole:
            number += 1
            name = line if separator == b"\0" else line.removesuffix(b"\r")
            if name:
                yield _as_meant(os.fsdecode(line), os.fsdecode(name))
        if len(rest) > _MAX_NAME_BYTES:
            raise ConfigError(f"standard input: name {number + 1} is longer than {_MAX_NAME_BYTES} bytes; see --null")


def _as_meant(*names: str, folder: str = "") -> str:
    """The first of `names` that exists in `folder`, also where Windows wrote it with backslashes, or in the quotes of
    "Copy as path"; else the last."""
    bare = names[-1][1:-1] if names[-1][:1] == names[-1][-1:] == '"' else names[-1]
    for name in (*names, bare, bare.replace("\\", "/")):
        if os.path.lexists(os.path.join(folder, name)):
            return name
    return names[-1]


def _manifest_source(path: Path) -> Source:
    """The column `path` of a CSV file; relative names are relative to its folder."""
    if path.suffix == ".parquet":
        raise ConfigError(f"--manifest {path}: Parquet is not read here; write its column `path` as CSV")
    folder, names = os.path.dirname(path), []
    for name in _csv_column(path, "path"):
        if not name:
            raise ConfigError(f"{path}: a row has no path")
        names.append(name if _ADDRESS.match(name) else os.path.join(folder, _as_meant(name, folder=folder)))
    if not names:
        raise ConfigError(f"{path} lists no file")
    return Source(lambda: iter(names), len(names))


def _csv_column(path: Path, column: str) -> Iterator[str]:
    try:
        with path.open("rb") as start:
            utf16 = start.read(2) in _UTF16
        with path.open(encoding="utf-16" if utf16 else "utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline()
            kinds = [mark for mark in _DELIMITERS if column in next(csv.reader([header], delimiter=mark), ())]
            if not kinds:
                raise ConfigError(f"{path} has no column {column!r}: it must be a CSV file with one")
            file.seek(0)
            rows = csv.DictReader(file, strict=True, delimiter=kinds[0])
            for row in rows:
                if None in row or None in row.values():  # torn, most often: half a name is another file's
                    raise ConfigError(f"{path}, line {rows.line_num}: it has not as many cells as the header")
                yield row[column]
    except (OSError, csv.Error) as error:
        raise ConfigError(f"cannot read the manifest {path}: {getattr(error, 'strerror', None) or error}") from error
