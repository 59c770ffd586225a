"""What a file says of itself: its streams, parsed from the header that ffmpeg prints (no ffprobe needed)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from avdetect._media.messages import refusal
from avdetect._media.tags import Tag, read_tags
from avdetect.config import MediaLimits

_MATRICES = {
    "bt709": "bt709",
    "smpte240m": "bt709",  # luma weights within 0.02 of BT.709
    "bt470bg": "bt601",
    "smpte170m": "bt601",
    "fcc": "bt601",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}
# Digits are counted throughout: a file's own words can stand in the log too, and a number of a thousand is none.
_COVER = re.compile(r"\((attached pic|timed thumbnails)\)")
_STREAM = re.compile(r"  Stream #0:(\d{1,9})(?:\[0x[0-9a-f]+\])?(?:\(\w+\))?: (Video|Audio): (.*)")
_CHANNELS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8, "hexadecagonal": 16}


@dataclass(frozen=True)
class VideoStream:
    """The video stream that is read: the one marked default, else the largest; never cover art."""

    index: int  # in the container
    codec: str
    pix_fmt: str
    coded_width: int  # as stored
    coded_height: int
    width: int  # pixels as displayed: upright, square
    height: int
    rotation_degrees: int  # clockwise, applied to show the picture upright: 0, 90, 180 or 270
    fps: float | None  # as the container states it
    color_matrix: str  # bt601, bt709 or bt2020; if unstated bt709 from 1280 pixels wide or 577 high, else bt601
    full_range: bool
    interlaced: bool
    bit_rate: int | None  # bits a second, as the container states it; None if it states none
    start_seconds: float  # of its first picture, as stated; 0 where nothing is


@dataclass(frozen=True)
class AudioStream:
    """The audio stream that is read: the one marked default, else the one of most channels."""

    index: int  # in the container
    codec: str
    sample_rate: int  # Hz, as stored
    channel_layout: str  # mono, stereo, 5.1 ...
    channels: int
    bit_rate: int | None  # as of VideoStream
    start_seconds: float


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself."""

    path: Path
    container: str  # ffmpeg's name, "mov" for mp4 and its relatives
    duration_seconds: float | None  # as stated; None if unknown
    start_seconds: float | None  # the earliest timestamp; None if ffmpeg finds none
    num_streams: int
    video: VideoStream | None  # None: no video stream (cover art is none)
    audio: AudioStream | None
    unusable: tuple[str, ...]  # "video", "audio": there is none to read, but a stream that ffmpeg cannot make out
    bit_rate: int | None  # of the whole file, bits a second
    tags: tuple[Tag, ...]  # who wrote it


def parse_header(path: Path, lines: list[str], limits: MediaLimits) -> MediaInfo:
    """MediaInfo from the lines that ffmpeg prints of its input. Raises MediaError, LimitError."""
    start = re.match(r"Input #0, ([\w,]+?)(?:,[\w,]*)?, from ", lines[0]) if lines else None
    container = start[1] if start else "unknown"
    duration: float | None = None
    first_seconds: float | None = None
    bit_rate: int | None = None
    videos: list[tuple[tuple[bool, int], VideoStream]] = []
    audios: list[tuple[tuple[bool, int], AudioStream]] = []
    kinds: set[str] = set()  # of streams that should be readable
    seen: set[int] = set()
    parsed: set[int] = set()
    rotations: dict[int, int] = {}
    index = -1
    for line in lines:
        if line.startswith(("Output #", "Stream mapping")):
            break
        if line.startswith("  Duration: "):
            if match := re.match(r"(\d{1,9}):(\d\d):(\d\d(?:\.\d{1,9})?)", line[12:]):
                duration = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
            if match := re.search(r", start: (-?\d{1,19}\.\d{1,9})", line):
                first_seconds = float(match[1])
            if match := re.search(r", bitrate: (\d{1,12}) kb/s", line):
                bit_rate = int(match[1]) * 1000
        elif match := re.match(
            r" +displaymatrix: rotation of (-?\d{1,9}(?:\.\d{1,9})?) deg", line.replace("Display M", "displaym")
        ):
            turns = -float(match[1]) / 90
            rotations[index] = round(turns) * 90 % 360 if abs(turns - round(turns)) < 0.01 else 0
        elif match := re.match(r"  Stream #0:(\d{1,9})\b", line):
            index = int(match[1])
            seen.add(index)
    for line in lines:
        if line.startswith(("Output #", "Stream mapping")):
            break
        match = _STREAM.match(line)
        if not match or int(match[1]) in parsed:
            continue  # a stream of several programs is printed with each
        index, parts = int(match[1]), _split(match[3])
        parsed.add(index)
        default = "(default)" in parts[-1]
        if not _COVER.search(parts[-1]):
            kinds.add(match[2].lower())
        if match[2] == "Audio":
            if audio := _parse_audio(index, parts):
                audios.append(((default, audio.channels), audio))
        elif not _COVER.search(parts[-1]) and (video := _parse_video(index, parts, rotations.get(index, 0))):
            videos.append(((default, video.coded_width * video.coded_height), video))
    best_video = max(videos, key=lambda item: item[0])[1] if videos else None
    best_audio = max(audios, key=lambda item: item[0])[1] if audios else None
    if len(seen) > limits.max_streams:
        raise refusal(path, f"it has {len(seen)} streams, more than {limits.max_streams}", "max_streams")
    if duration is not None and duration > limits.max_duration_seconds:
        what = f"it lasts {duration:.6g} s, more than {limits.max_duration_seconds:g} s"
        raise refusal(path, what, "max_duration_seconds")
    if best_video and best_video.coded_width * best_video.coded_height > limits.max_pixels:
        size = f"{best_video.coded_width} x {best_video.coded_height}"
        raise refusal(path, f"its pictures are {size}, more than {limits.max_pixels} pixels", "max_pixels")
    found = {"video": best_video, "audio": best_audio}
    unusable = tuple(kind for kind, best in found.items() if kind in kinds and best is None)
    tags = read_tags(lines)
    return MediaInfo(
        path, container, duration, first_seconds, len(seen), best_video, best_audio, unusable, bit_rate, tags
    )


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth = max(0, depth + (char in "([") - (char in ")]"))
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _parse_video(index: int, parts: list[str], rotation: int) -> VideoStream | None:
    """e.g. h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), 320x240 [SAR 1:1 DAR 4:3], 25 fps"""
    sizes = [match for part in parts[1:] if (match := re.match(r"(\d{1,6})x(\d{1,6})\b", part))]
    if not sizes or len(parts) < 3:
        return None  # no picture was found: it cannot be decoded
    coded_width, coded_height = int(sizes[0][1]), int(sizes[0][2])
    if not coded_width or not coded_height:
        return None
    pix_fmt, _, detail = parts[1].partition("(")
    details = [part.strip() for part in detail.removesuffix(")").split(",")]
    width, height = _square(coded_width, coded_height, parts)
    if rotation in (90, 270):
        width, height = height, width
    spaces = [_MATRICES[name] for part in details if (name := part.split("/")[0]) in _MATRICES]
    default = "bt709" if coded_width >= 1280 or coded_height > 576 else "bt601"
    gray = pix_fmt.startswith(("gray", "ya", "mono"))
    rates = [float(match[1]) for part in parts if (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) fps", part))]
    return VideoStream(
        index=index,
        codec=parts[0].split(" ")[0],
        pix_fmt=pix_fmt,
        coded_width=coded_width,
        coded_height=coded_height,
        width=width,
        height=height,
        rotation_degrees=rotation,
        fps=rates[0] if rates else None,
        color_matrix=spaces[0] if spaces else default,
        full_range="pc" in details or pix_fmt.startswith("yuvj") or gray,
        interlaced=any(re.match(r"(top|bottom) .*first", part) for part in details),
        bit_rate=_bit_rate(parts),
        start_seconds=_start(parts),
    )


def _bit_rate(parts: list[str]) -> int | None:
    rates = [int(match[1]) for part in parts if (match := re.match(r"(\d{1,12}) kb/s\b", part))]
    return rates[0] * 1000 if rates else None


def _start(parts: list[str]) -> float:
    starts = [float(match[1]) for part in parts if (match := re.match(r"start (-?\d{1,12}\.\d{1,9})\b", part))]
    return starts[0] if starts else 0.0


def _square(width: int, height: int, parts: list[str]) -> tuple[int, int]:
    """The size in square pixels. One side grows; none shrinks, so that no detail is lost."""
    ratios = [match for part in parts if (match := re.search(r"SAR (\d{1,10}):(\d{1,10})\b", part))]
    num, den = (int(ratios[-1][1]), int(ratios[-1][2])) if ratios else (1, 1)
    if num > den > 0:
        return round(width * num / den), height
    if den > num > 0:
        return width, round(height * den / num)
    return width, height


def _parse_audio(index: int, parts: list[str]) -> AudioStream | None:
    """e.g. aac (LC) (mp4a / 0x6134706D), 44100 Hz, 5.1(side), fltp, 69 kb/s"""
    rates = [int(match[1]) for part in parts if (match := re.fullmatch(r"(\d{1,9}) Hz", part))]
    if not rates or not rates[0] or len(parts) < 3:
        return None
    layout = parts[2]
    name = layout.split("(")[0]
    if match := re.match(r"(\d{1,3}) channels", layout):
        channels = int(match[1])
    elif match := re.match(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?", layout):
        channels = sum(int(group) for group in match.groups("0"))
    else:
        channels = _CHANNELS.get(name, 1)
    codec = parts[0].split(" ")[0]
    return AudioStream(index, codec, rates[0], layout, channels, _bit_rate(parts), _start(parts))
