"""Shards of the preprocessing cache: tar files of encoded clips, as WebDataset reads them, each with its index.

shards/000000.tar            members, in the order of writing: for every file its clips, then one record
    <key>_0000.npz …         one Clip each (avdetect.datasets.cache.payload)
    <key>.json               the record: where the file lay, what came of it, and a row for each clip
shards/000000.files.parquet  the records, a row a file
shards/000000.clips.parquet  where each clip lies in the tar, and what it holds
shards/000000.tar.partial    a shard being written, or left by a process that was killed

<key> is 24 hex digits of the SHA-256 of the source's bytes, for a re-encoded copy followed by -<copy>-<recipe>.
The record comes last: a file whose record is whole in the tar is whole, so a partial shard is cut behind its last
record and closed, and nothing but the file that was being written is lost (`finish`).

WebDataset: Aizman, Maltby, Breuel, "High Performance I/O For Large Scale Deep Learning", 2020 (arXiv 2001.01858).
"""

import fcntl
import itertools
import json
import os
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from avdetect.datasets.cache.payload import encode_clip
from avdetect.datasets.cache.records import CLIP_COLUMNS, FILE_COLUMNS, INDEX_COLUMNS, Record, clip_row
from avdetect.errors import ManifestError
from avdetect.files import only_ours, replacing
from avdetect.types import Clip

MAX_FILES, MAX_BYTES = 64, 512 * 1024**2  # a shard is closed when it holds this much
_LOCK_SECONDS = 30.0  # for a worker of a killed run to notice that it is alone
_BLOCK = tarfile.BLOCKSIZE


class ShardWriter:
    """Writes shards into `folder`, one after the other. `begin` a file, `add` its clips, `end` it with its record.

    A file that is begun and not ended (it failed, or the process died) leaves nothing behind. A shard has a number that
    is above all others and that no other writer gets, on whatever machine. `close` finishes the last one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.partial: Path | None = None  # the shard that is open
        self._file: BinaryIO
        self.files = self.bytes = 0  # in it
        self._clips: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Start a file; what was begun before and not ended is taken back."""
        if self.files >= MAX_FILES or self.bytes >= MAX_BYTES:
            self.close()
        if self.partial is None:
            self.partial, self._file = _new_partial(self._folder)
            fcntl.flock(self._file, fcntl.LOCK_EX)  # whoever would salvage this shard waits until we are gone
            self.files = self.bytes = 0
        self._file.seek(self.bytes)
        self._file.truncate()
        self._clips = []

    def add(self, key: str, clip: Clip) -> None:
        """The next clip of the file that was begun."""
        data = encode_clip(clip)
        self._member(f"{key}_{len(self._clips):04d}.npz", data)
        self._clips.append(clip_row(clip) | {"crc32": zlib.crc32(data)})

    def end(self, record: Record) -> None:
        """The file is whole; its rows of clips are filled in here."""
        record = replace(record, clips=self._clips)
        self._member(f"{record.key}.json", json.dumps(asdict(record), sort_keys=True).encode())
        self._file.flush()
        self.files, self.bytes = self.files + 1, self._file.tell()

    def close(self) -> None:
        if self.partial is not None:
            self._file.close()
            finish(self.partial)
            self.partial = None

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # time 0, owner 0: equal samples are equal bytes
        info.size = len(data)
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT))
        self._file.write(data)
        self._file.write(b"\0" * (-len(data) % _BLOCK))


def _new_partial(folder: Path) -> tuple[Path, BinaryIO]:
    for number in itertools.count(max(shard_numbers(folder), default=-1) + 1):
        partial = folder / f"{number:06d}.tar.partial"
        try:
            file = partial.open("xb")
        except FileExistsError:
            continue
        if not partial.with_suffix("").exists():
            return partial, file
        file.close()  # somebody has just finished a shard of this number
        partial.unlink()
    raise AssertionError


def finish(partial: Path) -> int:
    """Close a shard that its writer left: cut what follows the last whole file, write the index, take the final name.

    Returns the number of files in it; with none the shard is deleted. Raises ManifestError while a process still
    writes it, OSError when the disk is full.
    """
    with open(partial, "r+b", opener=only_ours) as file:
        _lock(file, partial)
        records, rows, end = scan(file)
        if records:
            file.seek(end)
            file.truncate()
            file.write(b"\0" * (2 * _BLOCK))  # the end of a tar
            file.flush()
            os.fsync(file.fileno())
            _write_index(partial.with_suffix(""), records, rows)
            partial.rename(partial.with_suffix(""))
        else:
            partial.unlink()
    return len(records)


def _lock(file: BinaryIO, partial: Path) -> None:
    patience = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                raise ManifestError(f"{partial} is still being written by another process; end it first") from None
            time.sleep(0.1)


def scan(file: BinaryIO) -> tuple[list[Record], pd.DataFrame, int]:
    """Whole files of a shard up to the first damage: their records, index rows, and the offset behind the last one."""
    records: list[Record] = []
    rows: list[dict[str, Any]] = []
    end = 0
    places: dict[str, tuple[int, int, int]] = {}  # member -> offset, size, CRC-32
    for name, offset, data in _members(file):
        if not name.endswith(".json"):
            places[name] = offset, len(data), zlib.crc32(data)
            continue
        try:
            record = Record(**json.loads(data))
            rows += _clip_rows(record, places)
        except (ValueError, TypeError, KeyError, RecursionError):
            break
        records.append(record)
        places, end = {}, offset + len(data) + -len(data) % _BLOCK
    return records, pd.DataFrame(rows, columns=list(INDEX_COLUMNS)).astype(INDEX_COLUMNS), end


def _members(file: BinaryIO) -> Iterator[tuple[str, int, bytes]]:
    """Name, offset of the data and data of every member that is there to its last byte."""
    offset, end = 0, file.seek(0, os.SEEK_END)
    while True:
        file.seek(offset)
        try:
            info = tarfile.TarInfo.frombuf(file.read(_BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):  # the end, or what a killed writer left of a header
            return
        offset += _BLOCK
        padding = -info.size % _BLOCK
        if not 0 <= info.size <= end - offset - padding:
            return
        yield info.name, offset, file.read(info.size)
        offset += info.size + padding


def _clip_rows(record: Record, places: dict[str, tuple[int, int, int]]) -> list[dict[str, Any]]:
    """The index rows of a file. Raises ValueError or KeyError when a clip is not the one that the record names."""
    rows = []
    for number, row in enumerate(record.clips):
        offset, size, crc32 = places[f"{record.key}_{number:04d}.npz"]
        if crc32 != row["crc32"]:
            raise ValueError("a clip's bytes are not those that were written")
        values = {name: row[name] for name in CLIP_COLUMNS}
        rows.append({"key": record.key, "clip": number, "offset": offset, "size": size} | values)
    return rows


def shard_numbers(folder: Path) -> list[int]:
    """Of all shards in `folder`, finished or not, in order."""
    return sorted({int(path.name.split(".")[0]) for path in folder.glob("[0-9]*.tar*")})


def read_files(tar: Path) -> pd.DataFrame:
    """The records of a finished shard, FILE_COLUMNS. Raises ManifestError when the tar is damaged, as `read_clips`."""
    return _read(tar, ".files.parquet", FILE_COLUMNS)


def read_clips(tar: Path) -> pd.DataFrame:
    """Where the clips of a finished shard lie, and what they hold: INDEX_COLUMNS."""
    return _read(tar, ".clips.parquet", list(INDEX_COLUMNS))


def _read(tar: Path, suffix: str, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(tar.with_suffix(suffix))
        if list(table) == columns:
            return table
    except (OSError, ValueError):  # pyarrow's own errors are among them
        pass
    with tar.open("rb") as file:  # the index is lost: made again
        records, rows, end = scan(file)
        if not records or file.seek(end) != end or file.read(_BLOCK) != b"\0" * _BLOCK:
            raise ManifestError(f"{tar} is damaged; delete it, and the next run preprocesses its files again")
    _write_index(tar, records, rows)
    return pd.read_parquet(tar.with_suffix(suffix))


def _write_index(tar: Path, records: list[Record], clips: pd.DataFrame) -> None:
    files = pd.DataFrame([asdict(record) for record in records])[FILE_COLUMNS]
    write_parquet(files, tar.with_suffix(".files.parquet"))
    write_parquet(clips, tar.with_suffix(".clips.parquet"))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """In one step: a reader sees the old table or the new one."""
    with replacing(path) as file:
        table.to_parquet(file, index=False)
