"""Files that no encoder would write, made byte by byte: small ones that want to be large, odd sound, forged words."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from functools import partial

from hostile.case import TABLE, Case, Content, Place, content, fixed
from hostile.parts import mp4

# Words in a header that avdetect reads out of ffmpeg's log: a line break, and then lines as ffmpeg itself writes them.
FORGED: dict[str, str] = {name: text.replace("{nines}", "9" * 1500) for name, text in TABLE["forged"].items()}
_NOISE = bytes(range(256)) * 200


def made() -> Iterator[Case]:
    """All of this file."""
    yield from _bombs()
    for count in (65, 1000, 5000):
        tracks = b"".join(pcm_track(n + 1) for n in range(count))
        files: dict[str, Content | bytes] = {
            "mp4": partial(_many_tracks, count),
            "mkv": matroska(tracks),
            "ogg": _ogg_streams(count),
        }
        for suffix, data in files.items():
            yield content("thousands of streams", f"{count} streams in {suffix}", suffix, data)
    for name, words in FORGED.items():
        text = f"en)\n{words}\n".encode()
        title = element(0x7373, element(0x67C8, element(0x45A3, b"TITLE") + element(0x4487, text)))
        by_title = matroska(pcm_track(1), element(0x1254C367, title) + sound_blocks())
        yield content("forged words", f"language: {name}", "mkv", matroska(pcm_track(1, text), sound_blocks()))
        yield content("forged words", f"title: {name}", "mkv", by_title)
    yield from _sounds()


def _bombs() -> Iterator[Case]:
    for side, frames in (
        (1, 30),
        (64, 30),
        (250, 30),
        (499, 400),
        (500, 2),
        (500, 400),
        (512, 2),
        (1024, 1),
        (1024, 50),
    ):
        name = f"H.264 of {16 * side} x {16 * side}, {frames} times"
        yield content("bombs", name, "h264", fixed(_flat_h264, side, side, frames))
    yield content("bombs", "H.264 of 16 x 400000", "h264", fixed(_flat_h264, 1, 25000, 2))
    yield content("bombs", "H.264 of 200000 frames", "h264", fixed(_flat_h264, 2, 2, 200_000))
    for width, height in ((16384, 16384), (8000, 8000), (65535, 900), (2**31 - 1, 1), (1, 1)):
        name = f"PNG of {width} x {height}"
        yield content("bombs", name, "png", fixed(_png, width, height))
        yield content("bombs", f"{name} in Matroska", "mkv", fixed(_png_track, width, height))
    for width, height, frames in ((65535, 65535, 1), (8000, 8000, 3000), (7000, 7000, 20000), (1, 1, 90000)):
        name = f"GIF of {width} x {height}, {frames} times"
        yield content("bombs", name, "gif", fixed(_gif, width, height, frames))


class _Bits:
    """A bit string, with the codes of H.264 (ITU-T H.264, 9.1)."""

    def __init__(self) -> None:
        self.text = ""

    def bits(self, value: int, count: int) -> _Bits:
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def ue(self, *values: int) -> _Bits:
        for value in values:
            self.bits(value + 1, 2 * (value + 1).bit_length() - 1)
        return self

    def unit(self, header: int, tail: str = "1") -> bytes:
        text = self.text + tail
        text += "0" * (-len(text) % 8)
        payload = int(text, 2).to_bytes(len(text) // 8, "big")
        safe = payload.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1").replace(b"\0\0\2", b"\0\0\3\2")
        return b"\0\0\0\1" + bytes([header]) + safe


def _flat_h264(width: int, height: int, frames: int) -> bytes:
    """A grey picture of so many blocks of 16 x 16: a byte a block; then frames that repeat it: a dozen bytes each."""
    sps = _Bits().bits(66, 8).bits(0, 8).bits(62, 8).ue(0, 12, 2, 1).bits(0, 1).ue(width - 1, height - 1).bits(12, 4)
    pps = _Bits().ue(0, 0).bits(0, 2).ue(0, 0, 0).bits(0, 3).ue(0, 0, 0).bits(0, 3)
    first = _Bits().ue(0, 7, 0).bits(0, 16).ue(0).bits(0, 2).ue(0)
    # A block in eight bits: I_16x16 by its mean, chroma likewise, no change of quantiser, no coefficient.
    data = [sps.unit(0x67), pps.unit(0x68), first.unit(0x65, "00100111" * (width * height) + "1")]
    for number in range(1, frames):
        skipped = _Bits().ue(0, 5, 0).bits(number % 65536, 16).bits(0, 3).ue(0, width * height)
        data.append(skipped.unit(0x61))
    return b"".join(data)


def _png(width: int, height: int) -> bytes:
    """A black picture, a bit a pixel: a thousandth of that in bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height = min(height, 16384)
    packer, row = zlib.compressobj(9), bytes(min(1 + -(-width // 8), 1 << 16))
    lines = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _png_track(width: int, height: int) -> bytes:
    video = element(0xE0, element(0xB0, width.to_bytes(4, "big")) + element(0xBA, height.to_bytes(4, "big")))
    codec = element(0xD7, b"\1") + element(0x83, b"\1") + element(0x86, b"V_MS/VFW/FOURCC")
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MPNG", 0, 0, 0, 0, 0)
    block = element(0xA3, b"\x81\0\0\x80" + _png(min(width, 65536), height))
    return matroska(
        element(0xAE, codec + element(0x63A2, bitmap) + video), element(0x1F43B675, element(0xE7, b"\0") + block)
    )


def _gif(width: int, height: int, frames: int) -> bytes:
    """Pictures whose data never comes, or is a few codes."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\4\0\1\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"
    return head + frame * frames + b";"


def _many_tracks(count: int, place: Place) -> bytes:
    """An MP4 whose tracks stand in it so many times."""
    data = place.seed("fast.mp4")
    moov, trak = (next(part for part in mp4(data) if part.kind == kind) for kind in (b"moov", b"trak"))
    track = data[trak.start : trak.end]
    copies = [track[:28] + (number + 3).to_bytes(4, "big") + track[32:] for number in range(count)]  # its id, in tkhd
    return data[: moov.start] + box(b"moov", data[moov.payload : moov.end] + b"".join(copies)) + data[moov.end :]


def box(kind: bytes, inside: bytes) -> bytes:
    """One of MP4."""
    return struct.pack(">I", 8 + len(inside)) + kind + inside


def element(kind: int, data: bytes) -> bytes:
    """One of Matroska."""
    size = (1 << 56) | len(data)
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size.to_bytes(8, "big") + data


def matroska(tracks: bytes, clusters: bytes = b"") -> bytes:
    head = element(0x1A45DFA3, element(0x4282, b"matroska"))
    return head + element(0x18538067, element(0x1549A966, b"") + element(0x1654AE6B, tracks) + clusters)


def pcm_track(number: int, language: bytes = b"eng", channels: int = 1) -> bytes:
    """A sound track of 8 kHz, as an element."""
    inside = element(0xD7, number.to_bytes(4, "big")) + element(0x83, b"\2") + element(0x86, b"A_PCM/INT/LIT")
    rate, count = element(0xB5, struct.pack(">f", 8000)), element(0x9F, channels.to_bytes(4, "big"))
    return element(0xAE, inside + element(0x22B59C, language) + element(0xE1, rate + count + element(0x6264, b"\x10")))


def sound_blocks() -> bytes:
    """Two seconds of noise-like sound for track 1, in clusters of 0.1 s."""
    sound = struct.pack("<800h", *(round(9000 * math.sin(n * n / 400)) for n in range(800)))
    blocks = [element(0xE7, (100 * n).to_bytes(4, "big")) + element(0xA3, b"\x81\0\0\x80" + sound) for n in range(20)]
    return b"".join(element(0x1F43B675, block) for block in blocks)


def _ogg_streams(count: int) -> bytes:
    """The first pages of so many Opus streams; the sum of each is left at 0."""
    head = b"OpusHead\1\1\0\0\x80\x3e\0\0\0\0\0"
    pages = (b"OggS\0\2" + bytes(8) + struct.pack("<II", n, 0) + bytes(4) + bytes([1, len(head)]) for n in range(count))
    return b"".join(page + head for page in pages)


def _wav(
    data: bytes, code: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16, size: int | None = None
) -> bytes:
    """A WAV file of any numbers."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * block % 2**32, block % 65536, bits)
    sized = struct.pack("<I", len(data) if size is None else size)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + sized + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _sounds() -> Iterator[Case]:
    """Float samples that are no numbers; channels, rates, bits, codecs and lengths that nobody has."""
    for value in (math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0, 2.0):
        for bits in (32, 64):
            for every in (1, 50):
                name = f"{bits}-bit {value}, one in {every}"
                yield content("odd sounds", name, "wav", partial(_floats, value, bits, every))
    odd = {
        "channels": (0, 1, 2, 3, 8, 64, 255, 256, 1024, 65535),
        "rate": (0, 1, 2, 10, 100, 999, 16001, 768000, 10**6, 2**31 - 1, 2**31, 2**32 - 1),
        "bits": (0, 1, 4, 7, 12, 24, 33, 64, 255),
        "code": (0, 2, 3, 6, 7, 17, 49, 80, 85, 255, 353, 8192, 65534, 65535),
        "size": (0, 1, 2**31, 2**32 - 1),
    }
    for name, values in odd.items():
        for number in values:
            yield content("odd sounds", f"{name} {number}", "wav", _wav(_NOISE, **{name: number}))
    for channels in odd["channels"]:
        data = matroska(pcm_track(1, channels=channels), sound_blocks())
        yield content("odd sounds", f"{channels} channels in Matroska", "mkv", data)


def _floats(value: float, bits: int, every: int, place: Place) -> bytes:
    """A second and a half: every n-th sample is `value`, the others are noise."""
    samples = [value if n % every == 0 else place.rng.uniform(-0.5, 0.5) for n in range(24000)]
    return _wav(struct.pack(f"<24000{'f' if bits == 32 else 'd'}", *samples), code=3, bits=bits)
