"""What fuzzing runs: of any bytes, a result or one of our typed errors. A function a parser."""

import codecs
import csv
import gzip
import io
import json
import math
import os
import tarfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avdetect import config
from avdetect._csv import fused
from avdetect._media.facts import info_of, parsed
from avdetect._media.info import MAX_TAGS, AudioStream, VideoStream
from avdetect._media.messages import FfmpegLog
from avdetect._media.timeline import Timeline, nearest
from avdetect._onnx import check_graph
from avdetect.batch.journal import Journal
from avdetect.batch.sources import _listed, source_of
from avdetect.batch.tables import CsvTable, JsonLines, KaggleTable, TerminalTable
from avdetect.bundle import OUT_OF_FOLD, Bundle, BundleInfo, _read_info
from avdetect.config import to_dict
from avdetect.datasets.adapters import ADAPTERS
from avdetect.datasets.cache.shards import scan
from avdetect.datasets.cache.store import CACHE, Identity, _read_sources
from avdetect.datasets.manifest import digest, read_manifest, write_manifest
from avdetect.datasets.segments import clean_segments
from avdetect.evaluation.held_out import held_out_table
from avdetect.evaluation.ledger import RESULTS, Ledger
from avdetect.report import data as report
from avdetect.report.facts import media_facts
from avdetect.types import Detection, SyncScore

BUNDLE = Bundle.load()
LIMITS = config.MediaLimits()
CLASSES = (config.MediaLimits, config.TrainConfig, config.PreprocessConfig, config.ModelConfig, config.PairLoopConfig)
_GIVEN = tomllib.loads(Path(__file__).with_name("seeds.toml").read_text(encoding="utf-8"))
SEEDS: dict[str, tuple[bytes, ...]] = {
    name: tuple(text.encode("latin-1") for text in texts) for name, texts in _GIVEN["seeds"].items()
}
TREES: list[dict[str, Any]] = _GIVEN["trees"]  # metadata of public datasets


def facts(data: bytes, folder: Path) -> None:
    found = parsed(data)
    if found is None:
        return
    info = info_of(folder / "x.mp4", LIMITS, found)
    streams: tuple[VideoStream | AudioStream, ...] = (*info.videos, *info.audios)
    numbers = [info.duration_seconds, info.start_seconds, *(stream.start_seconds for stream in streams)]
    if (video := info.video) is not None:
        assert min(video.width, video.height, video.coded_width, video.coded_height) > 0
        assert video.rotation_degrees in (0, 90, 180, 270)
        assert video.coded_width * video.coded_height <= LIMITS.max_pixels
        assert video.color_matrix in ("bt601", "bt709", "bt2020")
        numbers.append(video.fps)
    assert all(number is None or math.isfinite(number) for number in numbers)
    assert info.audio is None or min(info.audio.sample_rate, info.audio.channels) > 0
    assert len(info.tags) <= MAX_TAGS
    texts = [*media_facts(info).values(), *(stream.codec for stream in streams)]
    assert all(text.isprintable() and len(text) < 5000 for text in texts)


def _pieces(data: bytes) -> Iterator[bytes]:
    """All but the first byte, in pieces of its size, and the end."""
    step = 1 + (data[0] if data else 0)
    yield from (data[start : start + step] for start in range(1, len(data), step))
    yield b""


def ffmpeg_log(data: bytes, folder: Path) -> None:
    log = FfmpegLog("file:/proc/self/fd/9")
    for piece in _pieces(data):
        log.feed(piece)
    for status in (0, 1, -9, 127, None):
        assert "\0" not in str(log.failure(folder / "x.mp4", LIMITS, status, "video")) or b"\0" in data
        log.damage(status)


def clock(data: bytes, folder: Path) -> None:
    """When pictures are shown, and how their frames are numbered."""
    timeline = Timeline()
    for piece in _pieces(data):
        timeline.receive(piece)
    after: int | None = None
    first = None if timeline.start is None else nearest(timeline.start)
    for number in () if first is None else range(first, first + 200, 40):
        assert timeline.covers(number)
        for index, length, place in timeline.stretches(number, 40):
            assert 0 <= index <= 40 - length < 40
            assert after is None or place >= after or data.count(b"-")
            after = place + length


def bundle_json(data: bytes, folder: Path) -> None:
    (folder / "bundle.json").write_bytes(data)
    info, _ = _read_info(folder / "bundle.json")
    assert np.isfinite(info.calibration.probabilities(np.zeros((1, 4), np.float32))).all()
    assert str(to_dict(config.from_dict(BundleInfo, to_dict(info)))) == str(to_dict(info))  # NaN is not equal to itself


def onnx_graph(data: bytes, folder: Path) -> None:
    """A graph: what is accepted is, as protobuf itself reads it, what it was taken for."""
    check_graph(data, "x.onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    assert not [*model.functions, *model.training_info]
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    pending = [model.graph]
    while pending:
        message = pending.pop()
        nested = (value for field, value in message.ListFields() if field.message_type)
        pending += (one for value in nested for one in (value if isinstance(value, Iterable) else [value]))
        assert not isinstance(message, onnx.SparseTensorProto)
        if isinstance(message, onnx.TensorProto):
            assert not message.external_data
            assert message.data_location == onnx.TensorProto.DEFAULT
            assert math.prod(message.dims) <= len(data)
        if isinstance(message, onnx.NodeProto):
            assert message.domain in ("", "ai.onnx")
            assert message.op_type not in ("Loop", "Scan", "SequenceMap")


def golden(data: bytes, folder: Path) -> None:
    arrays = replace(BUNDLE, files={"golden.npz": data}).golden()
    assert all(array.dtype != object for array in arrays.values())


def out_of_fold(data: bytes, folder: Path) -> None:
    """The table out_of_fold.csv.gz; half of the time as it lies on disk, else before it is compressed."""
    content = data[1:] if data[:1] >= b"\x80" else gzip.compress(data[1:], 1, mtime=0)
    held_out_table(replace(BUNDLE, files={OUT_OF_FOLD: content}))


def yaml_config(data: bytes, folder: Path) -> None:
    """A configuration of the class that the first byte names; what is accepted survives being written and read."""
    (folder / "config.yaml").write_bytes(data[1:])
    cls = CLASSES[data[0] % len(CLASSES) if data else 0]
    read = config.load_yaml(cls, folder / "config.yaml")
    assert config.from_dict(cls, to_dict(read)) == read


_IDENTITY = {"bundle": "abc", "limits": {"x": 1}}
FAILED = report.to_dict(report.Failure("a.mp4", "MediaError", "m"))
_DETECTION = Detection(
    "a.mp4", "fake", "r", 0.5, None, 0.25, 0.125, 0.6, 0.5, 0.0, 1.0, SyncScore(0.1, 2.0, 0.5, 0), (), (), (),
    {"audio": "silent"}, (), {}, {},
)  # fmt: skip
SCORED: dict[str, Any] = json.loads(json.dumps(report.to_dict(_DETECTION)))  # as it is read again


def manifest(data: bytes, folder: Path) -> None:
    (folder / "m.csv").write_bytes(data)
    table = read_manifest(folder / "m.csv")
    write_manifest(table, folder / "again.csv")
    again = read_manifest(folder / "again.csv")
    assert digest(again) == digest(table)
    assert again["path"].tolist() == table["path"].tolist()


def batch_manifest(data: bytes, folder: Path) -> None:
    (folder / "m.csv").write_bytes(data)
    source = source_of([], folder / "m.csv")
    names = [name for name in source.open() if name is not None]
    assert all(names)
    assert len(names) == source.total


def parquet_manifest(data: bytes, folder: Path) -> None:
    (folder / "m.parquet").write_bytes(data)
    assert read_manifest(folder / "m.parquet")["path"].is_unique


def name_list(data: bytes, folder: Path) -> None:
    """Names on standard input; the first byte says what ends them."""
    separator = b"\n" if data[:1] < b"\x80" else b"\0"
    (folder / "names").write_bytes(data[1:])
    with (folder / "names").open("rb") as file:
        names = [name for name in _listed(file.fileno(), separator) if name is not None]
    given = data[1:].removeprefix(codecs.BOM_UTF8)
    if given.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return  # what is in it has other bytes
    lines = [line if separator == b"\0" else line.removesuffix(b"\r") for line in given.split(separator)]
    assert [os.fsencode(name) for name in names] == [line for line in lines if line]


def journal(data: bytes, folder: Path) -> None:
    """What a journal states of a file, as a run that is resumed reads it: it can be tabled, or is damage."""
    with Journal(None, _IDENTITY) as opened:
        opened.add("new", (1, 2), FAILED | {"path": "new"})
        opened.change("UPDATE results SET result = ?", data.decode(errors="replace"))
        result = opened.read("new")
    assert result["status"] in ("scored", "failed")
    TerminalTable().add(result)
    for kind in (CsvTable, KaggleTable):
        table = kind(folder / "table.txt")
        table.add(result)
        table.close()


def results(data: bytes, folder: Path) -> None:
    path, _, message = os.fsdecode(data).partition("\0")
    failed = FAILED | {"path": path, "message": message}
    scored = SCORED | {"path": path, "sync": None, "warnings": [message, path]}
    found = {}
    for kind in (CsvTable, KaggleTable, JsonLines):
        table = kind(folder / "table.txt")
        for result in (failed, scored):
            table.add(result)
        table.close()
        found[kind] = (folder / "table.txt").read_bytes().decode()  # not read_text: it would change \\r
    rows = list(csv.DictReader(io.StringIO(found[CsvTable], newline=""), strict=True))
    cells = [rows[0]["reason"], *(row["path"] for row in rows)]
    assert [fused(cell) for cell in cells] == list(map(report.printable, (message, path, path)))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)  # a spreadsheet would calculate with it
    assert [row["fake"] for row in rows] == ["", "0.5000"]
    submitted = list(csv.reader(io.StringIO(found[KaggleTable], newline=""), strict=True))
    assert submitted[1:] == [[report.printable(os.path.basename(path)), "0.500000"]] * 2
    assert [json.loads(line) for line in found[JsonLines].split("\n")[:-1]] == [failed, scored]


def ledger(data: bytes, folder: Path) -> None:
    with Ledger(None, "abc") as opened:
        row = opened._read("", data.decode(errors="replace"))
    assert set(row) == set(RESULTS)


def segments(data: bytes, folder: Path) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    assert all(0 <= start < end for start, end in clean_segments(value))


def adapter(data: bytes, folder: Path) -> None:
    """The metadata of one dataset; the first byte says of which."""
    number = data[0] % len(TREES) if data else 0
    tree, root = TREES[number], folder / str(number)
    files = {} if root.exists() else dict.fromkeys([*tree["media"], tree["file"]], "")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / tree["file"]).write_bytes(data[1:])
    table = ADAPTERS[tree["adapter"]](root / tree["file"] if tree["adapter"] == "csv" else root).table
    assert len(table)
    assert table["path"].is_unique
    assert set(table["split"]) <= {"", "train", "dev", "test"}


def cache_json(data: bytes, folder: Path) -> None:
    (folder / "sources.jsonl").write_bytes(data)
    assert all(isinstance(value, str) for value in _read_sources(folder).values())
    (folder / CACHE).write_bytes(data)
    Identity.read(folder)


def shard(data: bytes, folder: Path) -> None:
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
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
