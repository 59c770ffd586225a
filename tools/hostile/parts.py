"""Where the parts of a container begin and end: boxes, elements, chunks; equal pieces of everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BOXES = frozenset(b"moov trak mdia minf stbl dinf edts udta moof traf mvex meta".split())
# Matroska's Segment, SeekHead, Info, Tracks, TrackEntry, Video, Audio, Cluster, BlockGroup, Cues and what is in them,
# Tags and what is in them.
_MASTERS = frozenset(
    b"18538067 114D9B74 1549A966 1654AE6B AE E0 E1 1F43B675 A0 1C53BB6B BB B7 1254C367 7373 67C8".split()
)
_PIECES = 10
LITTLE = frozenset("avi wav w64 gif ivf asf".split())  # suffixes of files with little-endian numbers


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
        at = start + 9 - data[start].bit_length()
        if at >= end or not data[at]:
            return
        length = 9 - data[at].bit_length()
        unknown = (1 << 7 * length) - 1
        size, payload = int.from_bytes(data[at : at + length], "big") & unknown, at + length
        stop = end if size == unknown else min(end, payload + size)
        kind = data[start:at].hex().upper().encode()
        yield Part(kind, start, payload, stop)
        if kind in _MASTERS:
            yield from ebml(data, payload, stop)
        start = stop


def riff(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Chunks of AVI, WAV (sizes little-endian) and AIFF (big), outer before inner."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        kind, size = data[start : start + 4], data[start + 4 : start + 8]
        length = int.from_bytes(size, "big" if data[:4] == b"FORM" else "little")
        stop = min(end, start + 8 + length)
        yield Part(kind, start, start + 8, stop)
        if kind in (b"RIFF", b"LIST", b"FORM"):
            yield from riff(data, start + 12, stop)
        start = stop + length % 2


def parts(data: bytes, suffix: str) -> list[Part]:
    """The parts of a file, by its suffix."""
    for suffixes, read in (("mp4 mov m4a", mp4), ("mkv webm", ebml), ("avi wav aiff", riff)):
        if suffix in suffixes.split():
            return list(read(data))
    step = -(-len(data) // _PIECES)
    return [Part(b"piece", at, min(at + 4, len(data)), min(at + step, len(data))) for at in range(0, len(data), step)]


def boundaries(data: bytes, suffix: str, most: int) -> list[int]:
    """Where parts begin and end: of every kind of part, or of `most` spread over them where there are more."""
    alike: dict[bytes, list[Part]] = {}
    for part in parts(data, suffix):
        alike.setdefault(part.kind, []).append(part)
    chosen = [
        part
        for same in alike.values()
        for part in (same if same[0].kind == b"piece" else same[:: -(-len(same) // most)])
    ]
    return sorted({place for part in chosen for place in (part.start, part.end) if 0 < place <= len(data)})
