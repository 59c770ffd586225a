"""What a file is: its streams, and which of them is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from avdetect.errors import MediaError

# Tags that say who wrote a file; names in lower case. Everything else (titles, comments, places) is its own affair.
KEPT_TAGS = frozenset(
    (
        *("major_brand", "creation_time", "encoder", "encoded_by", "handler_name", "software", "make", "model"),
        *("com.apple.quicktime.software", "com.apple.quicktime.make", "com.apple.quicktime.model"),
        *("com.android.version", "com.android.manufacturer", "com.android.model"),
    )
)
MAX_TAGS, MAX_TAG_LENGTH = 64, 100


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What video and audio streams have in common."""

    index: int  # in the container
    track: int  # among the file's streams of this kind, from 1, as players count
    is_default: bool  # marked so by the container
    problem: str | None  # why it cannot be read ("there is no decoder for it"); the other fields then say nothing
    decodes: bool  # False: its beginning was tried in vain; what follows may still be readable
    codec: str
    bit_rate: int | None  # bits a second, as the container states it; None if it states none
    start_seconds: float  # of its first picture or sample, as stated; 0 where nothing is


@dataclass(frozen=True, kw_only=True)
class VideoStream(Stream):
    """A video stream; cover art and thumbnails are none."""

    pix_fmt: str
    coded_width: int  # as stored
    coded_height: int
    crop: tuple[int, int, int, int]  # of the stored picture the container cuts off: left, top, right, bottom
    width: int  # pixels as displayed: cropped, upright, square
    height: int
    rotation_degrees: int  # clockwise, applied to show the picture upright: 0, 90, 180 or 270
    mirrored: bool  # stored as in a mirror; shown as it was
    fps: float | None  # the mean, as the container states it
    color_matrix: str  # bt601, bt709 or bt2020; if unstated bt709 from 1280 pixels wide or 577 high, else bt601
    full_range: bool
    interlaced: bool

    @property
    def size(self) -> int:
        return self.coded_width * self.coded_height


@dataclass(frozen=True, kw_only=True)
class AudioStream(Stream):
    sample_rate: int  # Hz, as stored
    channel_layout: str  # mono, stereo, 5.1, ambisonic 1, 9 channels ...
    channels: int

    @property
    def size(self) -> int:
        return self.channels


AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)


@dataclass(frozen=True)
class Tag:
    """What a file says of itself, in its own words: anything may stand there, so show it escaped."""

    stream: int | None  # index of the stream that it belongs to; None: the container
    name: str  # one of KEPT_TAGS
    value: str  # at most MAX_TAG_LENGTH characters


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself."""

    path: Path
    container: str  # ffmpeg's name, "mov" for mp4 and its relatives
    duration_seconds: float | None  # as stated; None if unknown
    start_seconds: float | None  # the earliest timestamp; None if there is none
    num_streams: int  # of any kind
    videos: tuple[VideoStream, ...]  # in the file's order
    audios: tuple[AudioStream, ...]
    video: VideoStream | None  # the one that is read; None: there is none, or none can be
    audio: AudioStream | None
    bit_rate: int | None  # of the whole file, bits a second
    tags: tuple[Tag, ...]  # who wrote it

    @property
    def unusable(self) -> dict[str, str]:
        """Why no video or no audio can be read, by "video" or "audio", where there are streams of it."""
        kinds = (("video", self.video, self.videos), ("audio", self.audio, self.audios))
        return {kind: streams[0].problem or "" for kind, used, streams in kinds if streams and not used}


def chosen(streams: Sequence[AnyStream], track: int | None, kind: str) -> AnyStream | None:
    """The stream that is read: track `track`, else the first of `ranked`. Raises MediaError for a track that is not
    there."""
    if track is None:
        return next(iter(ranked(streams)), None)
    if not 1 <= track <= len(streams):
        count = {0: "no track", 1: "one track"}.get(len(streams), f"{len(streams)} tracks")
        raise MediaError(f"there is no {kind} track {track}: the file has {count} of {kind}")
    return streams[track - 1]


def ranked(streams: Sequence[AnyStream]) -> list[AnyStream]:
    """Those that can be read, the best first: that decode, that are marked default, with the largest picture or the
    most channels, in the file's order."""
    readable = [stream for stream in streams if stream.problem is None]
    return sorted(readable, key=lambda stream: (stream.decodes, stream.is_default, stream.size), reverse=True)


def passed_over(kind: str, streams: Sequence[AnyStream], used: AnyStream) -> list[str]:
    """A warning for each stream that would have been read before `used`, had it been readable."""
    warnings = []
    for stream in streams:
        better = (stream.is_default, stream.size) >= (used.is_default, used.size)
        if stream is not used and (stream.problem or (better and used.decodes and not stream.decodes)):
            why = stream.problem or "its beginning cannot be decoded"
            warnings.append(f"{kind}: track {stream.track} is passed over ({why}); track {used.track} is read")
    return warnings
