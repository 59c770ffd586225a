"""Small files that want to be large, and sound and streams that no encoder would write: made byte by byte."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from hostile.boxes import mp4
from hostile.case import Case, Place, content, fixed


class _Bits:
    """A bit string, with the codes of H.264 (ITU-T H.264, 9.1)."""

    def __init__(self) -> None:
        self.text = ""

    def bits(self, value: int, count: int) -> _Bits:
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def ue(self, value: int) -> _Bits:
        return self.bits(value + 1, 2 * (value + 1).bit_length() - 1)

    def unit(self, header: int, tail: str = "1") -> bytes:
        text = self.text + tail
        text += "0" * (-len(text) % 8)
        payload = int(text, 2).to_bytes(len(text) // 8, "big")
        safe = payload.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1").replace(b"\0\0\2", b"\0\0\3\2")
        return b"\0\0\0\1" + bytes([header]) + safe


def flat_h264(width: int, height: int, frames: int) -> bytes:
    """A grey picture of so many blocks of 16 x 16: a byte a block; then frames that repeat it: a dozen bytes each."""
    sps = _Bits().bits(66, 8).bits(0, 8).bits(62, 8).ue(0).ue(12).ue(2).ue(1).bits(0, 1)
    sps.ue(width - 1).ue(height - 1).bits(1, 1).bits(1, 1).bits(0, 1).bits(0, 1)
    pps = _Bits().ue(0).ue(0).bits(0, 2).ue(0).ue(0).ue(0).bits(0, 1).bits(0, 2).ue(0).ue(0).ue(0).bits(0, 3)
    first = _Bits().ue(0).ue(7).ue(0).bits(0, 16).ue(0).bits(0, 2).ue(0)
    # A block in eight bits: I_16x16 by its mean, chroma likewise, no change of quantiser, no coefficient.
    data = [sps.unit(0x67), pps.unit(0x68), first.unit(0x65, "00100111" * (width * height) + "1")]
    for number in range(1, frames):
        skipped = _Bits().ue(0).ue(5).ue(0).bits(number % 65536, 16).bits(0, 1).bits(0, 1).bits(0, 1).ue(0)
        data.append(skipped.ue(width * height).unit(0x61))
    return b"".join(data)


def png_bomb(width: int, height: int) -> bytes:
    """A black picture, a bit a pixel: a thousandth of that in bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(9), bytes(min(1 + -(-width // 8), 1 << 16))
    lines = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def gif_bomb(width: int, height: int, frames: int) -> bytes:
    """Pictures whose data never comes, or is a few codes."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\4\0\1\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"
    return head + frame * frames + b";"


def many_tracks(count: int, place: Place) -> bytes:
    """An MP4 whose tracks stand in it so many times."""
    data = place.seed("fast.mp4")
    found = list(mp4(data))
    moov, trak = (next(part for part in found if part.kind == kind) for kind in (b"moov", b"trak"))
    track = bytearray(data[trak.start : trak.end])
    copies = []
    for number in range(count):
        track[28:32] = (number + 3).to_bytes(4, "big")  # its id, in tkhd
        copies.append(bytes(track))
    inside = data[moov.payload : moov.end] + b"".join(copies)
    return data[: moov.start] + struct.pack(">I", len(inside) + 8) + b"moov" + inside + data[moov.end :]


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
    audio = (
        element(0xB5, struct.pack(">f", 8000)) + element(0x9F, channels.to_bytes(4, "big")) + element(0x6264, b"\x10")
    )
    return element(0xAE, inside + element(0x22B59C, language) + element(0xE1, audio))


def ogg_streams(count: int) -> bytes:
    """The first pages of so many Opus streams; the sum of each is left at 0."""
    head = b"OpusHead\1\1\0\0\x80\x3e\0\0\0\0\0"
    return b"".join(
        b"OggS\0\2" + bytes(8) + struct.pack("<II", n, 0) + bytes(4) + bytes([1, len(head)]) + head
        for n in range(count)
    )


def sound_blocks() -> bytes:
    """Two seconds of noise-like sound for track 1, in clusters of 0.1 s."""
    sound = struct.pack("<800h", *(round(9000 * math.sin(n * n / 400)) for n in range(800)))
    return b"".join(
        element(0x1F43B675, element(0xE7, (100 * n).to_bytes(4, "big")) + element(0xA3, b"\x81\0\0\x80" + sound))
        for n in range(20)
    )


# Words in a header that avdetect reads out of ffmpeg's log: a line break, and then lines as ffmpeg itself writes them.
FORGED = {
    "a stream": "[info]   Stream #0:7: Video: h264, yuv420p, 99999x99999, 25 fps",
    "a size": "[info]   Stream #0:1: Video: h264, yuv420p, 999999x2, 25 fps",
    "a filter": "[info]   Stream #0:0: Video: h264, yuv420p[x];movie=/etc/passwd[y], 64x48, 25 fps",
    "a number of streams": "\n".join(f"[info]   Stream #0:{n}: Data: none" for n in range(100)),
    "a long number": f"[info]   Stream #0:{'9' * 1500}: Audio: aac, 8000 Hz, mono",
    "a duration": f"[info]   Duration: {'9' * 900}:00:00.00, start: 0.000000, bitrate: N/A",
    "an end": "[info] Stream mapping:",
    "an input": "[info] Input #0, mov, from 'x':",
    "a first frame": "[info] n: 0 pts: 99999999999999999999 pts_time:1e300",
    "a frame's odd time": "[info] n: 0 pts: 0 pts_time:1.2.3.4",
    "a frame's long number": f"[info] n: 0 pts: {'9' * 5000} pts_time:1",
    "a frame of minus": "[info] n: 0 pts: -999999999 pts_time:-999999999",
    "a long rotation": f"[info]     displaymatrix: rotation of {'9' * 1500} degrees",
    "a long rate": f"[info]   Stream #0:0: Video: h264, yuv420p, 64x48, {'9' * 1500} fps",
    "a long aspect": f"[info]   Stream #0:0: Video: h264, yuv420p, 64x48 [SAR {'9' * 1500}:1 DAR 1:1], 25 fps",
    "a long start": f"[info]   Duration: 00:00:01.00, start: {'9' * 1500}.0, bitrate: N/A",
    "an error": "[error] Cannot allocate memory",
    "a rotation": "[info]     displaymatrix: rotation of 1e999 degrees",
    "a terminal": "\x1b]0;owned\x07\x1b[2J\x9b31m",
    "a right-to-left mark": "\u202e4pm.gpj\u2028\u0085",
    "a format": "%s%n%s%n",
}


def bombs() -> Iterator[Case]:
    """Pictures, sounds and streams as above."""

    def file(name: str, suffix: str, data: Callable[[Place], bytes], family: str = "bombs") -> Case:
        return content(family, name, suffix, data)

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
        data = fixed(flat_h264, side, side, frames)
        yield file(f"H.264 of {16 * side} x {16 * side}, {frames} times", "h264", data)
    yield file("H.264 of 16 x 400000", "h264", fixed(flat_h264, 1, 25000, 2))
    yield file("H.264 of 200000 frames", "h264", fixed(flat_h264, 2, 2, 200_000))
    for width, height in ((16384, 16384), (8000, 8000), (65535, 900), (2**31 - 1, 1), (1, 1)):
        yield file(f"PNG of {width} x {height}", "png", fixed(png_bomb, width, min(height, 16384)))
        yield file(f"PNG of {width} x {height} in Matroska", "mkv", partial(_png_track, width, height))
    for width, height, frames in ((65535, 65535, 1), (8000, 8000, 3000), (7000, 7000, 20000), (1, 1, 90000)):
        yield file(f"GIF of {width} x {height}, {frames} times", "gif", fixed(gif_bomb, width, height, frames))
    for count in (65, 1000, 5000):
        yield file(f"{count} streams in MP4", "mp4", partial(many_tracks, count), "thousands of streams")
        tracks = b"".join(pcm_track(n + 1) for n in range(count))
        yield file(f"{count} streams in Matroska", "mkv", fixed(matroska, tracks), "thousands of streams")
        yield file(f"{count} streams in Ogg", "ogg", fixed(ogg_streams, count), "thousands of streams")
    for name, words in FORGED.items():
        language = f"en)\n{words}\n".encode()
        yield file(
            f"language that forges {name}",
            "mkv",
            fixed(matroska, pcm_track(1, language), sound_blocks()),
            "forged words",
        )
        title = element(
            0x1254C367, element(0x7373, element(0x67C8, element(0x45A3, b"TITLE") + element(0x4487, language)))
        )
        yield file(
            f"title that forges {name}",
            "mkv",
            fixed(matroska, pcm_track(1), title + sound_blocks()),
            "forged words",
        )


def _png_track(width: int, height: int, place: Place) -> bytes:
    video = element(0xE0, element(0xB0, width.to_bytes(4, "big")) + element(0xBA, height.to_bytes(4, "big")))
    codec = element(0xD7, b"\1") + element(0x83, b"\1") + element(0x86, b"V_MS/VFW/FOURCC")
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MPNG", 0, 0, 0, 0, 0)
    track = element(0xAE, codec + element(0x63A2, bitmap) + video)
    block = element(0xA3, b"\x81\0\0\x80" + png_bomb(min(width, 65536), min(height, 16384)))
    return matroska(track, element(0x1F43B675, element(0xE7, b"\0") + block))
