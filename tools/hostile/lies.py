"""Fields of headers that say what is not so: sizes, counts, durations, rates, channels, offsets, one at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hostile.boxes import Part, ebml, parts
from hostile.case import Case, Place, content

_FLOATS = (0.0, -1.0, 1e-300, 1e9, 1e300, math.inf, -math.inf, math.nan)


class Field(NamedTuple):
    """A number of `size` bytes, `at` so many behind where the payload of a part begins."""

    name: str
    at: int
    size: int


_TABLE = (Field("count", 4, 4), Field("first", 8, 4), Field("second", 12, 4))
# ISO/IEC 14496-12; versions 0. Parts by kind, so that each stands for the video's and the audio's.
_MP4 = {
    b"mvhd": (Field("version", 0, 1), Field("timescale", 12, 4), Field("duration", 16, 4), Field("rate", 20, 4)),
    b"tkhd": (
        *(Field("flags", 0, 4), Field("track", 12, 4), Field("duration", 20, 4), Field("matrix a", 40, 4)),
        *(Field("matrix b", 44, 4), Field("matrix d", 56, 4), Field("width", 76, 4), Field("height", 80, 4)),
    ),
    b"mdhd": (Field("version", 0, 1), Field("timescale", 12, 4), Field("duration", 16, 4), Field("language", 20, 2)),
    b"hdlr": (Field("type", 8, 4),),
    b"elst": (*_TABLE, Field("version", 0, 1), Field("rate", 16, 4)),
    b"dref": (Field("count", 4, 4), Field("size", 8, 4)),
    b"stsd": (
        *(Field("count", 4, 4), Field("entry size", 8, 4), Field("format", 12, 4), Field("channels", 32, 2)),
        *(Field("sample bits", 34, 2), Field("width or rate", 40, 2), Field("height", 42, 2), Field("depth", 90, 2)),
        *(Field("inner size", 94, 4), Field("profile", 103, 2), Field("parameter sets", 107, 2)),
    ),
    b"stts": _TABLE,
    b"ctts": _TABLE,
    b"stss": _TABLE,
    b"stsc": (*_TABLE, Field("description", 16, 4)),
    b"stsz": (Field("size", 4, 4), Field("count", 8, 4), Field("first", 12, 4), Field("second", 16, 4)),
    b"stco": _TABLE,
    b"trex": (Field("track", 4, 4), Field("duration", 12, 4), Field("size", 16, 4)),
    b"tfhd": (Field("flags", 0, 4), Field("track", 4, 4), Field("first", 8, 4), Field("second", 12, 4)),
    b"tfdt": (Field("version", 0, 1), Field("time", 4, 4)),
    b"trun": (Field("flags", 0, 4), Field("count", 4, 4), Field("offset", 8, 4), Field("first", 12, 4)),
    b"sidx": (Field("timescale", 8, 4), Field("offset", 16, 4), Field("count", 22, 2)),
}
_FRAGMENTED = (b"mdhd", b"trex", b"tfhd", b"tfdt", b"trun")
_AVI = {
    b"avih": tuple(Field(f"dword {n}", 4 * n, 4) for n in range(10)),
    b"strh": tuple(Field(f"dword {n}", 4 * n, 4) for n in range(12)),
    b"strf": tuple(Field(f"word {n}", 2 * n, 2) for n in range(10)),
    b"idx1": (Field("offset", 8, 4), Field("size", 12, 4)),
}
_WAV = {
    b"fmt ": (
        *(Field("format", 0, 2), Field("channels", 2, 2), Field("rate", 4, 4), Field("bytes a second", 8, 4)),
        *(Field("block", 12, 2), Field("bits", 14, 2)),
    ),
}
_AIFF = {
    b"COMM": (Field("channels", 0, 2), Field("frames", 2, 4), Field("bits", 6, 2), Field("rate", 8, 4)),
    b"SSND": (Field("offset", 0, 4), Field("block", 4, 4)),
}
# Name, place from the file's beginning, bytes.
_FLAT = {
    "seed.w64": "size 16 8, fmt size 56 8, channels 66 2, rate 68 4",
    "seed.au": "offset 4 4, size 8 4, code 12 4, rate 16 4, channels 20 4",
    "seed.caf": "desc size 12 8, flags 32 4, packet 36 4, frames 40 4, channels 44 4",
    "seed.flac": "blocks 8 4, frame sizes 12 4, rate 18 4, samples 22 4",
    "seed.gif": "width 6 2, height 8 2, flags 10 1",
    "seed.ivf": "header 6 2, width 12 2, height 14 2, rate 16 4, scale 20 4, frames 24 4, size 32 4, time 36 8, "
    "vp8 size 50 4",
    "seed.flv": "header 5 4, flags 4 1, tag size 14 3, time 17 4",
    "seed.asf": "objects 24 4, size 16 8, first 46 8, packets 110 8, duration 118 8, preroll 134 8, "
    "packet least 146 4, packet most 150 4",
    "seed.amr": "frame 6 1",
    "seed.mp3": "id3 size 6 4, id3 flags 5 1",
    "seed.mpg": "clock 4 6, rate 10 3",
    "seed.mxf": "length 16 4, version 20 4, this 28 8, footer 44 8, index 60 8",
    "seed.nut": "length 33 1, version 38 2, streams 40 2, time base 42 4",
    "seed.h264": "profile 5 3, parameters 8 4, more 12 4",
    "seed.hevc": "profile 6 4, parameters 30 4, more 40 4",
    "seed.m4v": "profile 4 1, size 14 4, more 18 4",
    "seed.obu": "length 3 1, sequence 4 4, more 8 4",
}
# Matroska: integers and floats, by id.
_NUMBERS = {
    b"2AD7B1": "TimestampScale", b"D7": "TrackNumber", b"83": "TrackType", b"B0": "PixelWidth", b"BA": "PixelHeight",
    b"54B0": "DisplayWidth", b"23E383": "DefaultDuration", b"9F": "Channels", b"6264": "BitDepth", b"E7": "Timestamp",
    b"56AA": "CodecDelay", b"56BB": "SeekPreRoll", b"9A": "FlagInterlaced", b"B3": "CueTime", b"F1": "CuePosition",
    b"53AC": "SeekPosition", b"55BA": "Matrix", b"42F7": "ReadVersion", b"42F2": "MaxIDLength", b"9B": "BlockDuration",
}  # fmt: skip
_REALS = {b"4489": "Duration", b"B5": "SamplingFrequency", b"23314F": "TrackTimestampScale"}


def lies() -> Iterator[Case]:
    """Every field of every header above, with every number that has ever hurt anybody."""
    yield from _fielded("seed.mp4", "mp4", _MP4)
    yield from _fielded("fragments.mp4", "mp4", {kind: _MP4[kind] for kind in _FRAGMENTED})
    yield from _fielded("seed.mov", "mp4", {kind: _MP4[kind] for kind in (b"stsd", b"stts", b"stsz", b"stco")})
    yield from _fielded("seed.avi", "avi", _AVI)
    yield from _fielded("mp3.avi", "avi", {b"strh": _AVI[b"strh"][5:10], b"strf": _AVI[b"strf"]})
    yield from _fielded("seed.wav", "wav", _WAV)
    yield from _fielded("seed.aiff", "aiff", _AIFF)
    for name, fields in _FLAT.items():
        for field in _read(fields):
            for value in _values(field.size):
                yield _case(name, f"{field.name} = {value:#x}", partial(_at, name, field, value))
    yield from _matroska()


def sizes(seeds: Path) -> Iterator[Case]:
    """Boxes, elements and chunks whose length is a lie."""
    for name in ("seed.mp4", "fragments.mp4", "seed.mov", "seed.mkv", "seed.webm", "seed.avi", "seed.wav", "seed.aiff"):
        suffix, seen = name.rpartition(".")[2], set()
        for number, part in enumerate(parts((seeds / name).read_bytes(), suffix)):
            if part.kind not in seen:
                seen.add(part.kind)
                for size in ("nothing", "less", "more", "half the range", "all"):
                    label = f"length of {part.kind!r}: {size}"
                    yield _case(name, label, partial(_sized, name, suffix, number, size), "size lies")


def _read(fields: str) -> Iterator[Field]:
    for words in fields.split(", "):
        name, at, size = words.rsplit(" ", 2)
        yield Field(name, int(at), int(size))


def _case(name: str, label: str, data: Callable[[Place], bytes], family: str = "header lies") -> Case:
    return content(family, f"{name} {label}", name.rpartition(".")[2], data)


def _values(size: int) -> list[int]:
    top = (1 << 8 * size) - 1
    return sorted({0, 1, top // 2, top // 2 + 1, top})


def _fielded(name: str, suffix: str, layout: Mapping[bytes, Sequence[Field]]) -> Iterator[Case]:
    for kind, fields in layout.items():
        for field in fields:
            for value in _values(field.size):
                for which in (0, 1) if kind not in (b"mvhd", b"avih", b"fmt ", b"idx1") else (0,):
                    label = f"{kind.decode()} {which} {field.name} = {value:#x}"
                    yield _case(name, label, partial(_in_part, name, suffix, kind, which, field, value))


def _in_part(name: str, suffix: str, kind: bytes, which: int, field: Field, value: int, place: Place) -> bytes:
    data = place.seed(name)
    found = [part for part in parts(data, suffix) if part.kind == kind]
    if not found:
        return data
    order = "little" if suffix in ("avi", "wav") else "big"
    return _put(data, found[min(which, len(found) - 1)].payload + field.at, value, field.size, order)


def _at(name: str, field: Field, value: int, place: Place) -> bytes:
    order = "little" if name.rpartition(".")[2] in ("w64", "gif", "ivf", "asf") else "big"
    return _put(place.seed(name), field.at, value, field.size, order)


def _put(data: bytes, at: int, value: int, size: int, order: str) -> bytes:
    return data[:at] + value.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def _matroska() -> Iterator[Case]:
    for name in ("seed.mkv", "vp9.webm", "seed.webm"):
        for kind, said in _NUMBERS.items():
            for value in ("zero", "one", "half", "all"):
                yield _case(name, f"{said} = {value}", partial(_number, name, kind, value))
        for kind, said in _REALS.items():
            for real in _FLOATS:
                yield _case(name, f"{said} = {real}", partial(_real, name, kind, real))


def _element(data: bytes, kind: bytes) -> Part | None:
    return next((part for part in ebml(data) if part.kind == kind), None)


def _number(name: str, kind: bytes, value: str, place: Place) -> bytes:
    data = place.seed(name)
    part = _element(data, kind)
    if part is None:
        return data
    size = part.end - part.payload
    top = (1 << 8 * size) - 1
    number = {"zero": 0, "one": 1, "half": top // 2, "all": top}[value]
    return _put(data, part.payload, number, size, "big")


def _real(name: str, kind: bytes, value: float, place: Place) -> bytes:
    data = place.seed(name)
    part = _element(data, kind)
    if part is None:
        return data
    size = part.end - part.payload
    single = math.copysign(math.inf, value) if abs(value) > 3e38 and size == 4 else value
    return data[: part.payload] + struct.pack(">d" if size == 8 else ">f", single) + data[part.end :]


def _sized(name: str, suffix: str, number: int, size: str, place: Place) -> bytes:
    data = place.seed(name)
    part = parts(data, suffix)[number]
    order = "little" if suffix in ("avi", "wav") else "big"
    at, length = (part.start, 4) if suffix in ("mp4", "mov") else (part.start + 4, 4)
    marker = 0
    if suffix in ("mkv", "webm"):
        at = part.start + (len(part.kind) + 1) // 2
        length = part.payload - at
        marker = 1 << 7 * length
    top = (marker or 1 << 8 * length) - 1
    now = int.from_bytes(data[at : at + length], order) & top  # type: ignore[arg-type]
    lie = {"nothing": 0, "less": now // 2, "more": now * 2 + 1, "half the range": top // 2, "all": top}[size]
    return _put(data, at, marker | min(lie, top), length, order)
