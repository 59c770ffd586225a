"""What a file is: its streams, and which of them is read."""

from __future__ import annotations

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


@dataclass(frozen=True)
class VideoStream:
    """A video stream; cover art and thumbnails are none."""

    index: int  # in the container
    track: int  # among the file's video streams, from 1, as players count
    is_default: bool  # marked so by the container
    problem: str | None  # why it cannot be read ("no decoder for it"); the fields below then say nothing
    decodes: bool  # False: its beginning was tried in vain; what follows may still be readable
    codec: str
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
    bit_rate: int | None  # bits a second, as the container states it; None if it states none
    start_seconds: float  # of its first picture, as stated; 0 where nothing is


@dataclass(frozen=True)
class AudioStream:
    """An audio stream."""

    index: int  # as of VideoStream, these five
    track: int
    is_default: bool
    problem: str | None
    decodes: bool
    codec: str
    sample_rate: int  # Hz, as stored
    channel_layout: str  # mono, stereo, 5.1, ambisonic 1, 9 channels ...
    channels: int
    bit_rate: int | None
    start_seconds: float


Stream = TypeVar("Stream", VideoStream, AudioStream)


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
        unread = {} if self.video or not self.videos else {"video": self.videos[0].problem or ""}
        return unread if self.audio or not self.audios else unread | {"audio": self.audios[0].problem or ""}


def chosen(streams: Sequence[Stream], track: int | None, kind: str) -> Stream | None:
    """The stream that is read: track `track`, else the first of `ranked`.

    Raises MediaError for a track that is not there.
    """
    if track is not None:
        if not 1 <= track <= len(streams):
            count = {0: "no track", 1: "one track"}.get(len(streams), f"{len(streams)} tracks")
            raise MediaError(f"there is no {kind} track {track}: the file has {count} of {kind}")
        return streams[track - 1]
    return next(iter(ranked(streams)), None)


def ranked(streams: Sequence[Stream]) -> list[Stream]:
    """Those that can be read, the best first: that decode, that are marked default, with the largest picture or the
    most channels, in the file's order."""
    readable = [stream for stream in streams if stream.problem is None]
    return sorted(readable, key=lambda stream: (stream.decodes, stream.is_default, _size(stream)), reverse=True)


def passed_over(streams: Sequence[Stream], used: Stream) -> list[Stream]:
    """The streams that would have been chosen before `used`, had they been readable."""
    rank = (used.is_default, _size(used))
    worse = [s for s in streams if s is not used and (s.problem or (used.decodes and not s.decodes))]
    return [stream for stream in worse if (stream.is_default, _size(stream)) >= rank or stream.problem]


def _size(stream: VideoStream | AudioStream) -> int:
    if isinstance(stream, VideoStream):
        return stream.coded_width * stream.coded_height
    return stream.channels
