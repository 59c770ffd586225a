"""Files that no encoder writes, by patching those that it does. All helpers take and return bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, bytes, tuple[int, ...]]]:
    """(offset, size, name, offsets of its parents) of MP4's boxes with 32-bit sizes, sample descriptions among them."""
    yield from _boxes(data, start, len(data) if end is None else end, ())


def _boxes(
    data: bytes, at: int, end: int, parents: tuple[int, ...]
) -> Iterator[tuple[int, int, bytes, tuple[int, ...]]]:
    while at < end:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield at, size, name, parents
        if name in _PARENTS:
            yield from _boxes(data, at + 8, at + size, (*parents, at))
        elif name == b"stsd":
            yield from _boxes(data, at + 16, at + size, (*parents, at))
        at += size


def with_clap(data: bytes, width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    """An MP4 of H.264, moov first, whose container shows `width` x `height` of the picture, the middle moved."""
    at, size, _, parents = next(box for box in boxes(data) if box[2] == b"avc1")
    clap = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 1, down, 1)
    patched = bytearray(data)
    for place in (*parents, at):
        patched[place : place + 4] = struct.pack(">I", struct.unpack(">I", data[place : place + 4])[0] + len(clap))
    patched[at + size : at + size] = clap
    for place, _, name, _ in boxes(bytes(patched)):
        if name == b"stco":  # where the samples are: behind the moov
            (count,) = struct.unpack(">I", patched[place + 12 : place + 16])
            for entry in range(place + 16, place + 16 + 4 * count, 4):
                patched[entry : entry + 4] = struct.pack(">I", struct.unpack(">I", patched[entry : entry + 4])[0] + 40)
    return bytes(patched)


def with_unknown_codec(data: bytes, kind: bytes, number: int = 0) -> bytes:
    """An MP4 whose `number`-th sample description named `kind` is one that nothing decodes."""
    at, size, _, _ = [box for box in boxes(data) if box[2] == kind][number]
    # What is in it would give the codec away.
    entry = data[at + 4 : at + size].replace(kind, b"zzzz", 1).replace(b"esds", b"free").replace(b"avcC", b"free")
    return data[: at + 4] + entry + data[at + size :]
