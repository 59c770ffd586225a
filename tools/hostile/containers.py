"""Good files, cut, turned and mixed: truncations at every part, bit flips, bytes that claim to be something."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.boxes import boundaries, parts
from hostile.case import Case, Place, content
from hostile.seeds import FILES

_MOST_ALIKE = 2  # parts of one kind whose borders are cut at; of more (packets, samples), every n-th
# Cut like others: `fast.mp4` has the same boxes, but its index first, without which nothing is tried.
_LIKE_OTHERS = {"seed.mp4", "dash.mp4", "vp9.webm", "mp3.avi"}
_HEAD = 600  # bytes at either end that count as header


def truncations(seeds: Path) -> Iterator[Case]:
    """Cut before, at and behind every border of a box, an element, a chunk, and of some packets."""
    for name in sorted(FILES.keys() - _LIKE_OTHERS):
        suffix = name.rpartition(".")[2]
        data = (seeds / name).read_bytes()
        places = boundaries(data, suffix, _MOST_ALIKE)
        for cut in sorted({place + by for place in places for by in (-1, 0, 1)}):
            if cut < len(data):
                yield content("truncation", f"{name} at {cut}", suffix, partial(_cut, name, cut))


def _cut(name: str, cut: int, place: Place) -> bytes:
    return place.seed(name)[:cut]


def flips(count: int) -> Iterator[Case]:
    """So many files with flipped bits: mostly in headers, some in the payload, one to hundreds of them."""
    for number in range(count):
        name = list(FILES)[number % len(FILES)]
        yield content("bit flips", f"{name} {number // len(FILES)}", name.rpartition(".")[2], partial(_flip, name))


def _flip(name: str, place: Place) -> bytes:
    original, rng = place.seed(name), place.rng
    data = bytearray(original)
    headers = [at for part in parts(original, name.rpartition(".")[2]) for at in range(part.start, part.payload)]
    for _ in range(rng.choice([1, 1, 2, 5, 20, 200])):
        head, tail = rng.randrange(min(_HEAD, len(data))), len(data) - 1 - rng.randrange(min(_HEAD, len(data)))
        at = rng.choice([rng.choice(headers), head, head, tail, rng.randrange(len(data))])
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwritten(seeds: Path) -> Iterator[Case]:
    """A stretch of zeros, ones or noise; parts swapped, doubled or left out."""
    for name in FILES:
        suffix = name.rpartition(".")[2]
        for how in ("zeros", "ones", "noise", "swapped", "doubled", "missing", "twice", "backwards"):
            yield content("rearranged", f"{name} {how}", suffix, partial(_overwrite, name, suffix, how))


def _overwrite(name: str, suffix: str, how: str, place: Place) -> bytes:
    data, rng = place.seed(name), place.rng
    found = parts(data, suffix)
    one, other = rng.choice(found), rng.choice(found)
    if how == "twice":
        return data + data
    if how == "backwards":
        return data[: _HEAD // 4] + data[_HEAD // 4 :][::-1]
    if how == "missing":
        return data[: one.start] + data[one.end :]
    if how == "doubled":
        return data[: one.end] + data[one.start :]
    if how == "swapped":
        first, second = sorted((one, other), key=lambda part: part.start)
        middle = data[first.end : max(first.end, second.start)]
        return data[: first.start] + data[second.start : second.end] + middle + data[first.start : first.end]
    at, length = rng.randrange(len(data)), rng.choice([64, 512, 4096])
    fill = {"zeros": bytes(length), "ones": b"\xff" * length, "noise": rng.randbytes(length)}[how]
    return data[:at] + fill + data[at + length :]


_MAGIC = {
    "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "moov": b"\0\0\0\x08ftyp\xff\xff\xff\xffmoov",
    "mkv": b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
    "avi": b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl",
    "wav": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "rf64": b"RF64\xff\xff\xff\xffWAVEds64",
    "ogg": b"OggS\0\x02" + bytes(20),
    "flv": b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
    "ts": b"G\x40\0\x10\0",
    "mp3": b"ID3\x04\0\xff\x7f\x7f\x7f\x7f",
    "flac": b"fLaC\x80\xff\xff\xff",
    "gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0",
    "caf": b"caff\0\x01\0\0desc\xff\xff\xff\xff\xff\xff\xff\xff",
    "aiff": b"FORM\xff\xff\xff\xffAIFFCOMM\x7f\xff\xff\xff",
    "mxf": b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02\x04\0\x88\xff\xff\xff\xff\xff\xff\xff\xff",
    "nut": b"nut/multimedia container\0NM\xe4\xd3\xeb\xb8",
    "dv": b"\x1f\x07\0\x3f",
    "amr": b"#!AMR\n",
    "au": b".snd\xff\xff\xff\xff\xff\xff\xff\xff",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c\xff\xff\xff\xff\xff\xff\xff\xff",
    "ivf": b"DKIF\0\0\x20\0VP80\xff\xff\xff\xff",
    "h264": b"\0\0\0\x01\x67",
    "hevc": b"\0\0\0\x01\x40\x01",
    "png": b"\x89PNG\r\n\x1a\n",
    "zip": b"PK\x03\x04",
    "elf": b"\x7fELF",
    "gzip": b"\x1f\x8b\x08",
    "nothing": b"",
}


def impostors() -> Iterator[Case]:
    """Magic numbers and then noise, zeros or another file; files under another's name; hardly any bytes at all."""
    for magic in _MAGIC:
        for tail in ("noise", "zeros", "seed.mp4", "seed.ts"):
            yield content("impostor", f"{magic} and {tail}", "mp4", partial(_impostor, magic, tail))
        yield content("impostor", f"{magic} alone", "mkv", partial(_impostor, magic, ""))
    for name in FILES:
        yield content("impostor", f"{name} named wrongly", "jpg.m3u8", partial(_whole, name))
    for length in (0, 1, 2, 3, 7, 11, 188):
        yield content("impostor", f"{length} bytes", "mp4", partial(_noise, length))


def _whole(name: str, place: Place) -> bytes:
    return place.seed(name)


def _noise(length: int, place: Place) -> bytes:
    return place.rng.randbytes(length)


def _impostor(magic: str, tail: str, place: Place) -> bytes:
    if tail == "noise":
        return _MAGIC[magic] + place.rng.randbytes(6000)
    if tail == "zeros":
        return _MAGIC[magic] + bytes(100_000)
    return _MAGIC[magic] + (place.seed(tail) if tail else b"")
