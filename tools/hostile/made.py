"""Files that no encoder would write, made byte by byte, and the extremes that ffmpeg itself can make."""

import math
import shlex
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

from hostile.case import TABLE, Case, Content, Place, content, fixed, run_ffmpeg
from hostile.parts import parts

FORGED = {name: text.replace("{nines}", "9" * 1500) for name, text in TABLE["forged"].items()}
_NOISE = bytes(range(256)) * 200
_TIMED = ("seed.mp4", "seed.mkv", "seed.ts", "seed.avi", "seed.nut", "seed.flv", "seed.ogv")


def made() -> Iterator[Case]:
    for suffix, build in (("h264", _flat_h264), ("mkv", _png_track), ("png", _png), ("gif", _gif)):
        for name, *size in TABLE["bombs"][suffix]:
            yield content("bombs", name, suffix, fixed(build, *size))
    for count in (65, 1000, 5000):
        tracks = b"".join(pcm_track(n + 1) for n in range(count))
        many: dict[str, Content | bytes] = {"mp4": partial(_many_tracks, count), "mkv": matroska(tracks)}
        for suffix, data in (many | {"ogg": _ogg_streams(count)}).items():
            yield content("thousands of streams", f"{count} streams in {suffix}", suffix, data)
    # Words in a header that avdetect reads out of ffmpeg's log: a line break, then lines as ffmpeg itself writes them.
    for name, words in FORGED.items():
        text = f"en)\n{words}\n".encode()
        title = element(0x7373, element(0x67C8, element(0x45A3, b"TITLE") + element(0x4487, text)))
        by_title = matroska(pcm_track(1), element(0x1254C367, title) + sound_blocks())
        yield content("forged words", f"language: {name}", "mkv", matroska(pcm_track(1, text), sound_blocks()))
        yield content("forged words", f"title: {name}", "mkv", by_title)
    yield from _sounds()


def _flat_h264(width: int, height: int, frames: int) -> bytes:
    """A grey picture of so many blocks of 16 x 16: a byte a block; then frames that repeat it: a dozen bytes each."""
    sps = _unit(0x67, f"{66:08b}{0:08b}{62:08b}", 0, 12, 2, 1, "0", width - 1, height - 1, "1100")
    pps = _unit(0x68, 0, 0, "00", 0, 0, 0, "000", 0, 0, 0, "000")
    # A block in eight bits: I_16x16 by its mean, chroma likewise, no change of quantiser, no coefficient.
    first = _unit(0x65, 0, 7, 0, f"{0:016b}", 0, "00", 0, "00100111" * (width * height))
    skipped = (_unit(0x61, 0, 5, 0, f"{n % 65536:016b}000", 0, width * height) for n in range(1, frames))
    return b"".join((sps, pps, first, *skipped))


def _unit(header: int, *fields: int | str) -> bytes:
    """A unit of H.264 (ITU-T H.264, 9.1): numbers in Exp-Golomb's code, bits as they are."""
    text = ""
    for field in (*fields, "1"):
        text += field if isinstance(field, str) else f"{field + 1:0{2 * (field + 1).bit_length() - 1}b}"
    text += "0" * (-len(text) % 8)
    payload = int(text, 2).to_bytes(len(text) // 8)
    safe = payload.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1").replace(b"\0\0\2", b"\0\0\3\2")
    return b"\0\0\0\1" + bytes([header]) + safe


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
    track = element(0xAE, codec + element(0x63A2, bitmap) + video)
    return matroska(track, element(0x1F43B675, element(0xE7, b"\0") + block))


def _gif(width: int, height: int, frames: int) -> bytes:
    """Pictures whose data never comes, or is a few codes."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\4\0\1\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"
    return head + frame * frames + b";"


def _many_tracks(count: int, place: Place) -> bytes:
    """An MP4 whose tracks stand in it so many times."""
    data = place.seed("fast.mp4")
    moov, trak = (next(part for part in parts(data, "mp4") if part.kind == kind) for kind in (b"moov", b"trak"))
    track = data[trak.start : trak.end]
    copies = [track[:28] + (number + 3).to_bytes(4, "big") + track[32:] for number in range(count)]  # its id, in tkhd
    return data[: moov.start] + box(b"moov", data[moov.payload : moov.end] + b"".join(copies)) + data[moov.end :]


def box(kind: bytes, inside: bytes) -> bytes:  # of MP4
    return struct.pack(">I", 8 + len(inside)) + kind + inside


def element(kind: int, data: bytes) -> bytes:  # of Matroska
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


def _wav(data: bytes, code: int = 1, channels: int = 1, rate: int = 16000, bits: int = 16, size: int = -1) -> bytes:
    """A WAV file of any numbers. size: what it says of its data, which may be a lie; -1: the truth."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * block % 2**32, block % 65536, bits)
    sized = struct.pack("<I", len(data) if size < 0 else size)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + sized + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _sounds() -> Iterator[Case]:
    for value, bits, every in product((math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0, 2.0), (32, 64), (1, 50)):
        name = f"{bits}-bit {value}, one in {every}"
        yield content("odd sounds", name, "wav", partial(_floats, value, bits, every))
    for name, values in TABLE["odd"].items():
        for number in values:
            yield content("odd sounds", f"{name} {number}", "wav", _wav(_NOISE, **{name: number}))
    for channels in TABLE["odd"]["channels"]:
        data = matroska(pcm_track(1, channels=channels), sound_blocks())
        yield content("odd sounds", f"{channels} channels in Matroska", "mkv", data)


def _floats(value: float, bits: int, every: int, place: Place) -> bytes:  # the others are noise
    samples = [value if n % every == 0 else place.rng.uniform(-0.5, 0.5) for n in range(24000)]
    return _wav(struct.pack(f"<24000{'f' if bits == 32 else 'd'}", *samples), code=3, bits=bits)


def rendered() -> Iterator[Case]:
    for family, table in TABLE["rendered"].items():
        for name, command in _filled(table):
            yield Case(family, name, partial(_render, command), only_bytes=True)
    for source in _TIMED:
        for number, (name, shape) in enumerate(_filled(TABLE["times"])):
            which = ("v", "a", "va")[number % 3]
            make = partial(_retimed, source, which, shape)
            yield Case("timestamps", f"{source} {which} {name}", make, only_bytes=True)


def _filled(table: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, (values, text) in table.items():
        for value in values.split() or [""]:
            yield name.replace("{}", value), text.replace("{}", value)


def _render(command: str, place: Place) -> Path:
    options, _, suffix = command.rpartition("|")
    return run_ffmpeg(shlex.split(options), place.folder / f"case.{suffix}")


def _retimed(source: str, which: str, shape: str, place: Place) -> Path:
    options = ["-copyts", "-i", place.seeds / source, "-c", "copy"]
    for kind in which:
        expressions = (f"{part}={shape.replace('{key}', key)}" for part, key in (("pts", "PTS"), ("dts", "DTS")))
        options += [f"-bsf:{kind}", "setts=" + ":".join(e.replace(",", r"\,") for e in expressions)]
    out = place.folder / f"case.{source.rpartition('.')[2]}"
    try:
        return run_ffmpeg([*options, "-max_interleave_delta", "0", "-avoid_negative_ts", "disabled"], out)
    except RuntimeError:  # the muxer stopped: what it had written is a case too
        if not out.exists():
            out.write_bytes(place.seed(source)[:1000])
        return out
