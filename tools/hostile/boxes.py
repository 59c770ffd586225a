"""Where the parts of a container begin and end: boxes, elements, chunks, pages, packets, start codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BOXES = frozenset(b"moov trak mdia minf stbl dinf edts udta moof traf mvex meta".split())
# Matroska's Segment, SeekHead, Info, Tracks, TrackEntry, Video, Audio, Cluster, BlockGroup, Cues and what is in them,
# Tags and what is in them.
_MASTERS = frozenset(
    int(name, 16)
    for name in "18538067 114D9B74 1549A966 1654AE6B AE E0 E1 1F43B675 A0 1C53BB6B BB B7 1254C367 7373 67C8".split()
)
# What a part begins with, where no length leads from one to the next.
_MARKERS = {
    "mpg": rb"\x00\x00\x01[\xb3-\xef]",
    "m4v": rb"\x00\x00\x01",
    "h264": rb"\x00\x00\x01",
    "hevc": rb"\x00\x00\x01",
    "mp3": rb"\xff[\xf2-\xfb]",
    "aac": rb"\xff[\xf0\xf1\xf9]",
    "ac3": rb"\x0b\x77",
    "eac3": rb"\x0b\x77",
    "nut": rb"N[\x4d\x53\x4b\x58\x49]",
    "mxf": rb"\x06\x0e\x2b\x34",
    "ogg": rb"OggS",
    "ogv": rb"OggS",
    "opus": rb"OggS",
    "caf": rb"caff|desc|data|info|chan|free|pakt",
    "flac": rb"fLaC|\xff[\xf8\xf9]",
    "amr": rb"#!AMR\n|\x3c|\x7c",
    "obu": rb"\x12\x00",
    "gif": rb"\x21\xf9\x04|\x2c\x00\x00|\x21\xff",
    "ivf": rb"DKIF",
    "au": rb"\.snd",
}


class Part(NamedTuple):
    """A box or its like."""

    kind: bytes
    start: int
    payload: int  # where what it holds begins
    end: int


def mp4(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Boxes, outer before inner."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        stop = min(end, start + size) if size >= 8 else end
        yield Part(kind, start, start + 8, stop)
        if kind in _BOXES:
            yield from mp4(data, start + 8 + 4 * (kind == b"meta"), stop)
        start = stop


def ebml(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Elements of Matroska, outer before inner; the kind is the id in hexadecimal."""
    end = len(data) if end is None else end
    while start < end and data[start]:
        id_length = 9 - data[start].bit_length()
        at = start + id_length
        if at >= end or not data[at]:
            return
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        payload = at + length
        stop = end if size == (1 << 7 * length) - 1 else min(end, payload + size)
        number = int.from_bytes(data[start:at], "big")
        yield Part(b"%X" % number, start, payload, stop)
        if number in _MASTERS:
            yield from ebml(data, payload, stop)
        start = stop


def riff(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Chunks of AVI, WAV (sizes little-endian) and AIFF (big), outer before inner."""
    end = len(data) if end is None else end
    order = "big" if data[:4] == b"FORM" else "little"
    while start + 8 <= end:
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], order)  # type: ignore[arg-type]
        stop = min(end, start + 8 + size)
        yield Part(kind, start, start + 8, stop)
        if kind in (b"RIFF", b"LIST", b"FORM"):
            yield from (
                riff(data, start + 12, stop) if order == "little" or kind != b"FORM" else _aiff(data, start, stop)
            )
        start = stop + size % 2


def _aiff(data: bytes, start: int, end: int) -> Iterator[Part]:
    at = start + 12
    while at + 8 <= end:
        stop = min(end, at + 8 + int.from_bytes(data[at + 4 : at + 8], "big"))
        yield Part(data[at : at + 4], at, at + 8, stop)
        at = stop + (stop - at) % 2


def flv(data: bytes) -> Iterator[Part]:
    """Tags, after the header."""
    at = 13
    while at + 11 <= len(data):
        stop = at + 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        yield Part(data[at : at + 1], at, at + 11, min(stop, len(data)))
        at = stop + 4


def _sized(data: bytes, suffix: str) -> Iterator[Part]:
    """Objects of ASF and chunks of W64: a GUID, and a length of eight bytes."""
    at = 40 if suffix == "w64" else 0
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        yield Part(data[at : at + 4], at, at + 24, min(len(data), at + max(size, 24)))
        at += max(size, 24)


def parts(data: bytes, suffix: str) -> list[Part]:
    """The parts of a file, by its suffix."""
    if suffix in ("mp4", "mov", "m4a"):
        return list(mp4(data))
    if suffix in ("mkv", "webm"):
        return list(ebml(data))
    if suffix in ("avi", "wav", "aiff"):
        return list(riff(data))
    if suffix == "flv":
        return list(flv(data))
    if suffix in ("asf", "w64"):
        return list(_sized(data, suffix))
    if suffix == "ts":
        return [Part(b"packet", at, at + 4, at + 188) for at in range(0, len(data), 188)]
    starts = [match.start() for match in re.finditer(_MARKERS[suffix], data)]
    return [Part(b"part", a, a + 4, b) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def boundaries(data: bytes, suffix: str, most: int) -> list[int]:
    """Where parts begin and end: every part of a kind, or `most` where there are more."""
    alike: dict[bytes, list[Part]] = {}
    for part in parts(data, suffix):
        alike.setdefault(part.kind, []).append(part)
    chosen = [part for same in alike.values() for part in same[:: -(-len(same) // most)]]
    found = {place for part in chosen for place in (part.start, part.end)}
    return sorted(place for place in found if 0 < place <= len(data))
