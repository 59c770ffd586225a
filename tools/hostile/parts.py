"""Where the parts of a container begin and end: boxes, elements, chunks; equal pieces of everything else."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

_BOXES = frozenset(b"moov trak mdia minf stbl dinf edts udta moof traf mvex meta".split())
# Matroska's Segment, SeekHead, Info, Tracks, TrackEntry, Video, Audio, Cluster, BlockGroup, Cues and what is in them,
# Tags and what is in them.
_MASTERS = frozenset(
    b"18538067 114D9B74 1549A966 1654AE6B AE E0 E1 1F43B675 A0 1C53BB6B BB B7 1254C367 7373 67C8".split()
)
_PIECES = 10


class Part(NamedTuple):
    kind: bytes  # of a box or its like
    start: int
    payload: int  # where what it holds begins
    end: int


# (data, where a part may begin, where what holds it ends) -> the part, and where parts in it begin: at its end if none.
_Read = Callable[[bytes, int, int], tuple[Part, int] | None]


def parts(data: bytes, suffix: str) -> list[Part]:
    """The parts of a file by its suffix, outer before inner."""
    for suffixes, read in (("mp4 mov m4a", _box), ("mkv webm", _element), ("avi wav aiff", _chunk)):
        if suffix in suffixes.split():
            return list(_nested(data, read, 0, len(data)))
    step = -(-len(data) // _PIECES)
    return [Part(b"piece", at, min(at + 4, len(data)), min(at + step, len(data))) for at in range(0, len(data), step)]


def order(suffix: str) -> Literal["little", "big"]:
    """Of the bytes of a number in such a file."""
    return "little" if suffix in ("avi", "wav", "w64", "gif", "ivf", "asf") else "big"


def _nested(data: bytes, read: _Read, start: int, end: int) -> Iterator[Part]:
    while found := read(data, start, end):
        part, inside = found
        yield part
        yield from _nested(data, read, inside, part.end)
        start = part.end


def _box(data: bytes, start: int, end: int) -> tuple[Part, int] | None:
    """Of MP4."""
    if start + 8 > end:
        return None
    size, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
    stop = min(end, start + size) if size >= 8 else end
    return Part(kind, start, start + 8, stop), start + 8 + 4 * (kind == b"meta") if kind in _BOXES else stop


def _element(data: bytes, start: int, end: int) -> tuple[Part, int] | None:
    """Of Matroska; the kind is the id in hexadecimal."""
    at = start + 9 - data[start].bit_length() if start < end else end
    if at >= end or not data[start] or not data[at]:
        return None
    payload = at + 9 - data[at].bit_length()
    unknown = (1 << 7 * (payload - at)) - 1
    size, kind = int.from_bytes(data[at:payload]) & unknown, data[start:at].hex().upper().encode()
    stop = end if size == unknown else min(end, payload + size)
    return Part(kind, start, payload, stop), payload if kind in _MASTERS else stop


def _chunk(data: bytes, start: int, end: int) -> tuple[Part, int] | None:
    """Of AVI, WAV (sizes little-endian) and AIFF (big); each begins at an even place."""
    start += start % 2
    if start + 8 > end:
        return None
    kind = data[start : start + 4]
    length = int.from_bytes(data[start + 4 : start + 8], "big" if data[:4] == b"FORM" else "little")
    stop = min(end, start + 8 + length)
    return Part(kind, start, start + 8, stop), start + 12 if kind in (b"RIFF", b"LIST", b"FORM") else stop
