"""Sixty short files for soak.py, good and bad ones, all made from the sample clip. Not a tool."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import SAMPLE, ffmpeg

SIZES = ("320:320", "256:144", "480:270", "640:360", "176:320")
FORMATS = (
    ("mp4", "-c:v libx264 -preset ultrafast -c:a aac"),
    ("mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=error -c:a libopus"),
    ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
    ("avi", "-c:v mpeg4 -q:v 4 -c:a libmp3lame"),
    ("mov", "-c:v mjpeg -q:v 5 -c:a pcm_s16le"),
    ("ts", "-c:v mpeg2video -q:v 4 -c:a mp2"),
    ("mp4", "-c:v libx264 -preset ultrafast -an"),
    ("m4a", "-vn -c:a aac"),
)
# What a file without a face, a voice or either looks like.
FACELESS = (
    "-f lavfi -i testsrc2=size=320x240:duration=2 -c:v libx264 -preset ultrafast",
    "-f lavfi -i testsrc2=size=320x240:duration=2 -f lavfi -i sine=300:duration=2 -c:v libx264 -c:a aac",
    "-f lavfi -i color=black:size=64x48:duration=1 -f lavfi -i anullsrc=d=1 -c:v libx264 -c:a aac -shortest",
    "-f lavfi -i mandelbrot=size=320x240 -t 1 -c:v libx264 -preset ultrafast",
    "-f lavfi -i anoisesrc=d=2:a=0.1 -vn -c:a aac",
    "-f lavfi -i color=gray:size=64x48:duration=0.04 -c:v libx264",
)
PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


def make(folder: Path) -> list[Path]:
    """All of them, in a fixed order."""
    good = list(_faces(folder))
    return [*good, *_faceless(folder), *_broken(folder, good)]


def _faces(folder: Path) -> Iterator[Path]:
    """32: each format in four sizes, of one to three seconds from different places."""
    for number in range(4 * len(FORMATS)):
        suffix, codecs = FORMATS[number % len(FORMATS)]
        size = SIZES[number % len(SIZES)].split(":")
        picture = f"scale={size[0]}:{size[1]}:force_original_aspect_ratio=decrease,pad={size[0]}:{size[1]}:-1:-1"
        frame = [] if "-vn" in codecs else ["-vf", picture, "-pix_fmt", "yuv420p"]
        window = ["-ss", f"{number * 0.13 % 3:.2f}", "-t", str(1 + number % 3)]
        target = folder / f"face{number:02d}.{suffix}"
        ffmpeg(*window, "-i", str(SAMPLE), *frame, *codecs.split(), str(target))
        yield target


def _faceless(folder: Path) -> Iterator[Path]:
    for number, options in enumerate(FACELESS):
        target = folder / f"nobody{number}.mp4"
        ffmpeg(*options.split(), *([] if "-vn" in options else ["-pix_fmt", "yuv420p"]), str(target))
        yield target


def _broken(folder: Path, good: list[Path]) -> Iterator[Path]:
    """Cut off, with bits flipped, with a stretch of noise, and what is no medium at all."""
    damages: tuple[Callable[[bytes, random.Random], bytes], ...] = (_cut, _flipped, _noisy)
    for number in range(18):
        source = good[number % 7]  # all formats but the last, and again with other seeds
        damaged = damages[number % 3](source.read_bytes(), random.Random(number))
        target = folder / f"damaged{number:02d}{source.suffix}"
        target.write_bytes(damaged)
        yield target
    for name, content in {"empty.mp4": b"", "text.mp4": b"not a film\n" * 50, "playlist.mp4": PLAYLIST}.items():
        (folder / name).write_bytes(content)
        yield folder / name
    yield folder / "absent.mp4"


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: int(len(data) * chance.uniform(0.2, 0.9))]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(len(data) // 500):
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _noisy(data: bytes, chance: random.Random) -> bytes:
    start, size = int(len(data) * chance.uniform(0.2, 0.8)), min(2000, len(data) // 10)
    return data[:start] + chance.randbytes(size) + data[start + size :]
