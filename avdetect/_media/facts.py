"""The facts of a file: as they were found, and what follows from them. Whoever found them read a hostile file and may
have been taken over by it: types and ranges are checked here."""

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import msgspec

from avdetect._media import info
from avdetect._media.info import AudioStream, MediaInfo, Tag, VideoStream
from avdetect._media.messages import quoted, refusal
from avdetect.config import MediaLimits
from avdetect.errors import MediaError

_MAX_SIDE = 2**20
_LARGEST = 2**63 - 1
Int = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
Ratio = tuple[Int, Int]
# AVColorSpace (ITU-T H.273) -> the matrix that we read with; SMPTE 240M's luma weights are within 0.02 of BT.709's.
_MATRICES = {1: "bt709", 7: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_FIELDS = (2, 3, 4, 5)  # AVFieldOrder: top or bottom field first, in either order of coding
_ENCRYPTED = "it is encrypted"
_NAME = re.compile(r"[\w.+() -]{1,80}", re.ASCII)


class StreamFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As describe.py writes it."""

    kind: str = ""
    default: bool = False
    cover: bool = False
    start: Ratio | None = None  # seconds
    tags: dict[str, str] = {}
    codec: str | None = None  # None: there is no decoder
    bit_rate: Int | None = None
    encrypted: bool = False
    decodes: bool | None = None  # None: no packet of it was tried
    sample_rate: Int = 0
    channels: Int = 0
    channel_layout: str = "unknown"
    width: Int = 0
    height: Int = 0
    pix_fmt: str = "none"
    sample_aspect: Ratio | None = None
    rate: Ratio | None = None
    color_space: Int = 2
    color_range: Int = 0
    field_order: Int = 0
    interlaced: bool = False
    matrix: tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int] | None = None  # the display matrix, 3 x 3
    crop: tuple[Int, Int, Int, Int] | None = None  # left, top, right, bottom


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    container: str = ""
    duration: Int | None = None  # microseconds
    start: Int | None = None
    bit_rate: Int | None = None
    tags: dict[str, str] = {}
    streams: tuple[StreamFacts, ...] = ()
    streams_found: Int = 0
    log: tuple[str, ...] = ()
    error: str | None = None  # the class of PyAV's error


def parsed(text: bytes) -> Facts | None:
    """The description, its types and ranges checked; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Facts)
    except (ValueError, RecursionError):  # UnicodeDecodeError and those of msgspec are ValueErrors
        return None


def too_many(path: Path, limits: MediaLimits, count: int) -> MediaError:
    return refusal(path, f"it has {count} streams, more than {limits.max_streams}", "max_streams")


def info_of(
    path: Path, limits: MediaLimits, facts: Facts, video_track: int | None = None, audio_track: int | None = None
) -> MediaInfo:
    """MediaInfo of checked facts. Raises MediaError, LimitError."""
    if (count := max(facts.streams_found, len(facts.streams))) > limits.max_streams:
        raise too_many(path, limits, count)
    duration = None if facts.duration is None or facts.duration < 0 else facts.duration / 1e6
    if duration is not None and duration > limits.max_duration_seconds:
        what = f"it lasts {duration:.6g} s, more than {limits.max_duration_seconds:g} s"
        raise refusal(path, what, "max_duration_seconds")
    videos: list[VideoStream] = []
    audios: list[AudioStream] = []
    for index, stream in enumerate(facts.streams):
        if stream.kind == "video" and not stream.cover:
            videos.append(_video(index, len(videos) + 1, stream))
        elif stream.kind == "audio" and not stream.cover:
            audios.append(_audio(index, len(audios) + 1, stream))
    _check_readable(path, videos, audios)
    video, audio = info.chosen(videos, video_track, "video"), info.chosen(audios, audio_track, "audio")
    for kind, asked in (("video", video), ("audio", audio)):
        if asked is not None and asked.problem:
            raise MediaError(f"{quoted(path)}: {kind} track {asked.track} cannot be decoded: {asked.problem}")
    if video and video.size > limits.max_pixels:
        size = f"{video.coded_width} x {video.coded_height}"
        raise refusal(path, f"its pictures are {size}, more than {limits.max_pixels} pixels", "max_pixels")
    return MediaInfo(
        path=path,
        container=_name(facts.container.split(",")[0]),
        duration_seconds=duration,
        start_seconds=None if facts.start is None else facts.start / 1e6,
        num_streams=facts.streams_found,
        videos=tuple(videos),
        audios=tuple(audios),
        video=video,
        audio=audio,
        bit_rate=_positive(facts.bit_rate),
        tags=_tags(facts),
    )


def _check_readable(path: Path, videos: list[VideoStream], audios: list[AudioStream]) -> None:
    problems = [("video", video.problem) for video in videos] + [("audio", audio.problem) for audio in audios]
    if not problems:
        raise MediaError(f"{quoted(path)} holds neither audio nor video; check that it is the right file")
    if all(problem == _ENCRYPTED for _, problem in problems):
        raise MediaError(f"{quoted(path)} is encrypted; give a copy without protection")
    if all(problem for _, problem in problems):
        why = "; ".join(dict.fromkeys(f"{kind}: {problem}" for kind, problem in problems))
        raise MediaError(f"{quoted(path)} cannot be decoded ({why}); convert it to mp4, mkv, wav ... first")


def _common(index: int, track: int, stream: StreamFacts, described: bool) -> dict[str, Any]:
    problem = None if described else "nothing in it can be made out"
    if stream.codec is None:
        problem = "there is no decoder for it"
    return {
        "index": index,
        "track": track,
        "is_default": stream.default,
        "problem": _ENCRYPTED if stream.encrypted else problem,
        "decodes": stream.decodes is not False,
        "codec": _name(stream.codec or "unknown"),
        "bit_rate": _positive(stream.bit_rate),
        "start_seconds": stream.start[0] / stream.start[1] if stream.start and stream.start[1] > 0 else 0.0,
    }


def _video(index: int, track: int, stream: StreamFacts) -> VideoStream:
    described = 0 < stream.width < _MAX_SIDE and 0 < stream.height < _MAX_SIDE
    coded_width, coded_height = (stream.width, stream.height) if described else (0, 0)
    crop = left, top, right, bottom = stream.crop or (0, 0, 0, 0)
    if min(crop) < 0 or left + right >= coded_width or top + bottom >= coded_height:
        crop = left, top, right, bottom = 0, 0, 0, 0  # nothing would be left
    width, height = coded_width - left - right, coded_height - top - bottom
    # In square pixels one side grows; none shrinks, so that no detail is lost.
    if aspect := _ratio(stream.sample_aspect):
        width, height = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    rotation, mirrored = _turned(stream.matrix)
    if rotation in (90, 270):
        width, height = height, width
    default = "bt709" if coded_width >= 1280 or coded_height > 576 else "bt601"
    pix_fmt, fps = _name(stream.pix_fmt), _ratio(stream.rate)
    return VideoStream(
        **_common(index, track, stream, described),
        pix_fmt=pix_fmt,
        coded_width=coded_width,
        coded_height=coded_height,
        crop=crop,
        width=width,
        height=height,
        rotation_degrees=rotation,
        mirrored=mirrored,
        fps=float(fps) if fps else None,
        color_matrix=_MATRICES.get(stream.color_space, default),
        full_range=stream.color_range == _FULL_RANGE or pix_fmt.startswith(("yuvj", "gray", "ya", "mono")),
        interlaced=stream.interlaced or stream.field_order in _FIELDS,
    )


def _audio(index: int, track: int, stream: StreamFacts) -> AudioStream:
    return AudioStream(
        **_common(index, track, stream, stream.sample_rate > 0 and stream.channels > 0),
        sample_rate=max(0, stream.sample_rate),
        channel_layout=_name(stream.channel_layout),
        channels=max(0, stream.channels),
    )


def _turned(matrix: tuple[int, ...] | None) -> tuple[int, bool]:
    """(degrees clockwise, mirrored) of a display matrix; other angles than quarters are not applied."""
    if matrix is None:
        return 0, False
    a, b, _, c, d = matrix[:5]
    quarters = math.atan2(b, a) / (math.pi / 2)
    rotation = round(quarters) * 90 % 360 if abs(quarters - round(quarters)) < 0.01 else 0
    return rotation, a * d - b * c < 0


def _positive(number: int | None) -> int | None:
    return number if number and number > 0 else None


def _ratio(pair: Ratio | None) -> Fraction | None:
    return Fraction(*pair) if pair and min(pair) > 0 else None


def _name(text: str) -> str:
    """A name that libavformat gives; anything else is none of its names."""
    return text if _NAME.fullmatch(text) else "unknown"


def _tags(facts: Facts) -> tuple[Tag, ...]:
    """The container's first, then each stream's; of a name written twice the first."""
    found: dict[tuple[int | None, str], Tag] = {}
    for place, tags in [(None, facts.tags), *enumerate(stream.tags for stream in facts.streams)]:
        for name, value in tags.items():
            if (key := name.lower()) in info.KEPT_TAGS and (kept := value.strip()[: info.MAX_TAG_LENGTH]):
                found.setdefault((place, key), Tag(place, key, kept))
    return tuple(found.values())[: info.MAX_TAGS]
