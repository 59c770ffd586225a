"""Sound that no encoder would write: samples that are no numbers, channels and rates that nobody has."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import partial

from hostile.bombs import matroska, pcm_track, sound_blocks
from hostile.case import Case, Place, content, fixed


def riff_wave(code: int, channels: int, rate: int, bits: int, data: bytes, size: int | None = None) -> bytes:
    """A WAV file of any numbers."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels % 65536, rate, rate * block % 2**32, block % 65536, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data"
    body += struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sounds() -> Iterator[Case]:
    """Float samples that are no numbers; channels and rates that nobody has."""
    numbers = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf, "3e38": 3e38, "1e-45": 1e-45, "zero": 0.0, "2": 2.0}
    for name, value in numbers.items():
        for bits in (32, 64):
            yield content("odd sounds", f"{bits}-bit {name}", "wav", partial(_floats, value, bits, 1))
            yield content("odd sounds", f"{bits}-bit {name} now and then", "wav", partial(_floats, value, bits, 50))
    for channels in (0, 1, 2, 3, 8, 64, 255, 256, 1024, 65535):
        data = bytes(range(256)) * 600
        yield content("odd sounds", f"{channels} channels", "wav", fixed(riff_wave, 1, channels, 16000, 16, data))
        track = matroska(pcm_track(1, channels=channels), sound_blocks())
        yield content("odd sounds", f"{channels} channels in Matroska", "mkv", fixed(bytes, track))
    for rate in (0, 1, 2, 10, 100, 999, 16001, 768000, 10**6, 2**31 - 1, 2**31, 2**32 - 1):
        data = bytes(range(256)) * 200
        yield content("odd sounds", f"{rate} Hz", "wav", fixed(riff_wave, 1, 1, rate, 16, data))
    for bits in (0, 1, 4, 7, 12, 24, 33, 64, 255):
        yield content("odd sounds", f"{bits} bits", "wav", fixed(riff_wave, 1, 1, 16000, bits, bytes(40000)))
    for code in (0, 2, 3, 6, 7, 17, 49, 80, 85, 255, 353, 8192, 65534, 65535):
        yield content(
            "odd sounds",
            f"codec {code}",
            "wav",
            partial(_coded, code),
        )
    for size in (0, 1, 2**31, 2**32 - 1):
        yield content(
            "odd sounds",
            f"{size} bytes claimed",
            "wav",
            fixed(riff_wave, 1, 1, 16000, 16, bytes(40000), size),
        )


def _coded(code: int, place: Place) -> bytes:
    return riff_wave(code, 1, 16000, 16, place.rng.randbytes(9000))


def _floats(value: float, bits: int, every: int, place: Place) -> bytes:
    """A second and a half: every n-th sample is `value`, the others are noise."""
    kind = "f" if bits == 32 else "d"
    samples = [value if n % every == 0 else place.rng.uniform(-0.5, 0.5) for n in range(24000)]
    return riff_wave(3, 1, 16000, bits, struct.pack(f"<24000{kind}", *samples))
