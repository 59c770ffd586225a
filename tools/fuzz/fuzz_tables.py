"""Fuzz targets: lists of files, manifests, and what a run of many files writes and goes on from."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from pathlib import Path

import pandas as pd

from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.journal import Journal
from avdetect.batch.sources import _listed, source_of
from avdetect.batch.tables import CsvTable, JsonDocument, JsonLines, KaggleTable, Table, TerminalTable
from avdetect.datasets.manifest import digest, read_manifest, write_manifest
from avdetect.datasets.segments import clean_segments
from avdetect.evaluation.ledger import RESULTS, Ledger
from avdetect.report.data import Failure, printable, to_dict

IDENTITY = {"bundle": "abc", "limits": {"x": 1}}
HEADER = json.dumps({"journal": "avdetect.journal/1", "identity": IDENTITY}).encode() + b"\n"
MANIFEST = (
    b"path,fake,video_fake,audio_fake,group,split,dataset,method,original,fake_segments,kind\n"
    b'a.mp4,1,1,,g1,train,d,swap,r.mp4,"[[0.5, 1.5]]",x\n'
    b"./sub/../r.mp4,0,0,0,g1,train,d,,,,x\n"
    b'"b\xc3\xbc,""q"".mp4",,,1,007,dev,d,tts,,[],x\n'
)


def manifest(data: bytes, folder: Path) -> None:
    """A training manifest; what is accepted is the same after it is written and read."""
    path = folder / "m.csv"
    path.write_bytes(data)
    table = read_manifest(path)
    write_manifest(table, folder / "again.csv")
    again = read_manifest(folder / "again.csv")
    assert digest(again) == digest(table)
    assert again["path"].tolist() == table["path"].tolist()


def batch_manifest(data: bytes, folder: Path) -> None:
    """The manifest of `avdetect score --manifest`."""
    path = folder / "m.csv"
    path.write_bytes(data)
    source = source_of([], path)
    names = [name for name in source.open() if name is not None]
    assert len(names) == source.total
    assert all(names)


def parquet_manifest(data: bytes, folder: Path) -> None:
    """Either kind of manifest, in Parquet; the first byte says which."""
    path = folder / "m.parquet"
    path.write_bytes(data[1:])
    if data[:1] < b"\x80":
        assert all(source_of([], path).open())
    else:
        assert read_manifest(path)["path"].is_unique


def _parquet() -> bytes:
    target = io.BytesIO()
    pd.read_csv(io.BytesIO(MANIFEST), keep_default_na=False, dtype=str).to_parquet(target, index=False)
    return target.getvalue()


def name_list(data: bytes, folder: Path) -> None:
    """Names on standard input; the first byte says what ends them."""
    separator = b"\n" if data[:1] < b"\x80" else b"\0"
    descriptor = os.memfd_create("names")
    try:
        os.write(descriptor, data[1:])
        os.lseek(descriptor, 0, os.SEEK_SET)
        names = [name for name in _listed(descriptor, separator) if name is not None]
    finally:
        os.close(descriptor)
    given = data[1:].removeprefix(codecs.BOM_UTF8)
    if given.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return  # what is in it has other bytes
    parts = given.split(separator)
    lines = parts if separator == b"\0" else [part.removesuffix(b"\r") for part in parts]
    assert [os.fsencode(name) for name in names] == [line for line in lines if line]


def journal(data: bytes, folder: Path) -> None:
    """A journal to go on from: all that it claims to hold can be read, tabled, and is still there the next time.

    For a first byte below 128 its first line is ours.
    """
    path = folder / "r.journal"
    path.write_bytes((HEADER if data[:1] < b"\x80" else b"") + data[1:])
    with Journal(path, IDENTITY) as opened:
        held = {name: opened.read(name) for name in list(opened._entries)}
        tables: list[Table] = [CsvTable(folder / "r.csv"), KaggleTable(folder / "r.txt"), TerminalTable()]
        for table in tables:
            for result in held.values():
                table.add(result)
        opened.add(Outcome(WorkItem("new", 1, 2), to_dict(Failure("new", "MediaError", "m"))))
    assert all(result["status"] in ("scored", "failed") for result in held.values())
    for written in tables[:2]:
        written.close()
    with Journal(path, IDENTITY) as again:
        assert again.holds("new", 1, 2)
        assert all(again.read(name) == result for name, result in held.items() if name != "new")


def results(data: bytes, folder: Path) -> None:
    """Every table of results, of files with hostile names and messages."""
    path, _, message = os.fsdecode(data).partition("\0")
    failed = to_dict(Failure(path, "MediaError", message))
    scored = SCORED | {"path": path, "sync": None, "warnings": [message, path]}
    found = {}
    for kind in (CsvTable, KaggleTable, JsonLines, JsonDocument):
        target = folder / f"{kind.__name__}.txt"
        table = kind(target)
        for result in (failed, scored):
            table.add(result)
        table.close()
        found[kind] = target.read_bytes().decode()  # not read_text: it would change \\r
    rows = list(csv.DictReader(io.StringIO(found[CsvTable], newline=""), strict=True))
    assert [row["path"] for row in rows] == [_no_formula(printable(path))] * 2
    assert rows[0]["reason"] == _no_formula(printable(message))
    assert [row["fake"] for row in rows] == ["", "0.5000"]
    submitted = list(csv.reader(io.StringIO(found[KaggleTable], newline=""), strict=True))
    assert submitted[1:] == [[printable(os.path.basename(path)), "0.500000"]] * 2
    assert [json.loads(line) for line in found[JsonLines].split("\n")[:-1]] == [failed, scored]
    assert json.loads(found[JsonDocument])["results"] == [failed, scored]


def _no_formula(cell: str) -> str:
    """What a spreadsheet must not calculate with stands behind an apostrophe."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell


def ledger(data: bytes, folder: Path) -> None:
    """The scores table that an evaluation goes on from."""
    path = folder / "scores.csv"
    path.write_bytes(data)
    with Ledger(path, "abc") as opened:
        opened.add("x.mp4", "", dict.fromkeys(RESULTS, 0.0))


def segments(data: bytes, folder: Path) -> None:
    """Segments of one file, from the JSON of a dataset's metadata."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    assert all(0 <= start < end for start, end in clean_segments(value))


SCORED = {"status": "scored", "verdict": "fake", "fake": 0.5, "video_fake": None, "audio_fake": 0.25, "reason": "r"}
SCORED |= {
    "mismatch": 0.125,
    "duration_seconds": 1.0,
    "sync": {"offset_seconds": 0.1, "confidence": 2.0},
    "missing": {"audio": "silent"},
}


def _line(path: str, result: dict[str, object]) -> bytes:
    return json.dumps({"path": path, "size": 1, "mtime_ns": None, "result": result | {"path": path}}).encode() + b"\n"


LINES = (
    _line("a.mp4", to_dict(Failure("a.mp4", "MediaError", "m"))) + _line("b.mp4", SCORED | {"warnings": ["w"]}) + b'{"p'
)
TARGETS = {
    "manifest": (manifest, (MANIFEST, b"path,fake\n", b"\xef\xbb\xbf" + MANIFEST.replace(b"\n", b"\r\n"))),
    "batch_manifest": (batch_manifest, (b'path,label\na.mp4,1\n"b\n.mp4",0\n', MANIFEST, b"\xef\xbb\xbfpath\nx\n")),
    "parquet_manifest": (parquet_manifest, (b"\0" + _parquet(), b"\xff" + _parquet())),
    "name_list": (name_list, (b"\0a.mp4\nb\xff.mp4\n\nc", b"\xffa.mp4\0b\n.mp4\0")),
    "journal": (journal, (b"\0" + LINES, b"\x80" + HEADER + LINES, b"\x80" + HEADER[:40], b"")),
    "results": (results, (b"dir/=1+1.mp4\0bad\r\nthing", b'\x1b[31m"a,b\n\xff.mp4\0\xe2\x80\xae')),
    "ledger": (
        ledger,
        (",".join(("path", *RESULTS)).encode() + b"\na.mp4,abc,," + b"0.5," * (len(RESULTS) - 3) + b"\n", b"path\n"),
    ),
    "segments": (segments, (b"[[0.5, 1.5], [2, 3]]", b"[]", b'{"a": 1}', b"[[1e400, null]]")),
}
