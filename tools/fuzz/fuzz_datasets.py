"""What fuzzing runs, of data sets: the metadata of public ones, and the folder of a preprocessing cache."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from fuzz_checks import TREES

from avdetect.datasets.adapters import ADAPTERS
from avdetect.datasets.cache.shards import scan
from avdetect.datasets.cache.store import CACHE, Identity, _read_sources


def adapter(data: bytes, folder: Path) -> None:
    """The metadata of one dataset; the first byte says of which."""
    number = data[0] % len(TREES) if data else 0
    tree, root = TREES[number], folder / str(number)
    files = dict.fromkeys(tree["media"], "") | tree.get("beside", {}) if not root.exists() else {}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / tree["file"]).parent.mkdir(parents=True, exist_ok=True)
    (root / tree["file"]).write_bytes(data[1:])
    table = ADAPTERS[tree["adapter"]](root / tree["file"] if tree["adapter"] == "csv" else root).table
    assert len(table)
    assert table["path"].is_unique
    assert set(table["split"]) <= {"", "train", "dev", "test"}


def cache_json(data: bytes, folder: Path) -> None:
    """cache.json and sources.jsonl of a preprocessing cache."""
    (folder / "sources.jsonl").write_bytes(data)
    assert all(isinstance(value, str) for value in _read_sources(folder).values())
    (folder / CACHE).write_bytes(data)
    Identity.read(folder)


def shard(data: bytes, folder: Path) -> None:
    """A shard of a preprocessing cache, as it is salvaged after a kill."""
    records, rows, end = scan(io.BytesIO(data))
    assert end <= len(data) + tarfile.BLOCKSIZE
    assert len(rows) == sum(len(record.clips) for record in records)


def record(data: bytes, folder: Path) -> None:
    """The record of a file in a shard: what follows the tar header, which is made to fit."""
    shard(member("k.json", data), folder)


def shard_header(data: bytes, folder: Path) -> None:
    """A shard whose first header is right but for what the bytes put into it: name and size, then what follows."""
    header = bytearray(tarfile.TarInfo("k.npz").tobuf(tarfile.USTAR_FORMAT))
    header[:8], header[124:136] = data[:8].ljust(8, b"\0"), data[8:20].ljust(12, b"\0")
    header[148:156] = b" " * 8  # as the checksum is taken
    header[148:156] = b"%06o\0 " % sum(header)
    shard(bytes(header) + data[20:], folder)


def member(name: str, data: bytes) -> bytes:
    """A file in a shard."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
