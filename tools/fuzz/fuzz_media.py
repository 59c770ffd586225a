"""Fuzz targets: what children say of a hostile file, which may have taken them over, and the frames they hand on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from avdetect._media.facts import info_of, parsed
from avdetect._media.ffmpeg import Decoder
from avdetect._media.info import MAX_TAGS, AudioStream, MediaInfo, VideoStream
from avdetect._media.messages import FfmpegLog
from avdetect._media.timeline import Timeline, nearest
from avdetect.config import MediaLimits
from avdetect.report.facts import media_facts
from avdetect.report.signs import editing_signs

LIMITS = MediaLimits()
FILM = b"""{"container": "mov,mp4", "duration": 4020000, "start": -21333, "bit_rate": 215000, "tags": {"encoder": "x"},
"streams": [
{"kind": "video", "default": true, "cover": false, "tags": {"handler_name": "x"}, "start": [0, 12800],
"codec": "h264", "bit_rate": 110000, "width": 320, "height": 240, "pix_fmt": "yuv420p", "sample_aspect": [4, 3],
"rate": [30000, 1001], "color_space": 1, "color_range": 1, "field_order": 1, "decodes": true, "interlaced": false,
"matrix": [0, -65536, 0, 65536, 0, 0, 0, 0, 1073741824]},
{"kind": "audio", "default": true, "cover": false, "tags": {"language": "en-US"}, "start": [0, 48000], "codec": "aac",
"bit_rate": 69000, "sample_rate": 44100, "channels": 6, "channel_layout": "5.1(side)", "decodes": true}],
"streams_found": 2, "log": []}"""
SONG = b"""{"container": "matroska,webm", "duration": null, "start": null, "bit_rate": 0, "tags": {}, "streams": [
{"kind": "video", "cover": true, "width": 99999, "height": 99999, "sample_aspect": [1, 0]},
{"kind": "audio", "codec": null}, {"kind": "audio", "codec": "mp3", "sample_rate": 8000, "channels": 1},
{"kind": "data"}], "streams_found": 4}"""
LOG = b"""[mov,mp4 @ 0x55d] [error] moov atom not found
[info] Input #0, matroska,webm, from 'x':
[info]     title           : [error] x
[h264 @ 0x1] [info] concealing 99 DC, 99 AC, 99 MV errors in P frame
[h264 @ 0x1] [fatal] Cannot allocate memory
"""
CLOCKS = (
    b"\xff#software: x\n#tb 0: 1/1000000\n#media_type 0: video\n0,          0,          0,        1,  424, 0x2b31\n"
    b"0,      40000,      40000,        1,  424, 0x2b31\n0,    9040000,    9040000,        1,  424, 0x2b31\n",
    b"\x05#tb 0: 1/1000000\n0, -341, -341, 1, 4, 0x00000000\n0, 0, 0, 1, 4, 0x0\n",
)


def facts(data: bytes, folder: Path) -> None:
    """A description of a file, and every sentence made of it."""
    found = parsed(data)
    if found is not None:
        check_info(info_of(folder / "x.mp4", LIMITS, found))


def check_info(info: MediaInfo) -> None:
    """What the rest of the program takes for granted."""
    for seconds in (info.duration_seconds, info.start_seconds):
        assert seconds is None or math.isfinite(seconds)
    if info.video is not None:
        assert min(info.video.width, info.video.height, info.video.coded_width, info.video.coded_height) > 0
        assert info.video.rotation_degrees in (0, 90, 180, 270)
        assert info.video.coded_width * info.video.coded_height <= LIMITS.max_pixels
        assert info.video.fps is None or math.isfinite(info.video.fps)
        assert info.video.color_matrix in ("bt601", "bt709", "bt2020")
    if info.audio is not None:
        assert min(info.audio.sample_rate, info.audio.channels) > 0
    streams: tuple[VideoStream | AudioStream, ...] = (*info.videos, *info.audios)
    for stream in streams:
        assert math.isfinite(stream.start_seconds)
        assert stream.codec.isprintable()
    assert len(info.tags) <= MAX_TAGS
    for text in (*(fact.value for fact in media_facts(info)), *editing_signs(info, None, None)):
        assert text.isprintable()
        assert len(text) < 5000


def ffmpeg_log(data: bytes, folder: Path) -> None:
    """A log in pieces of the first byte's size, and every sentence made of it."""
    log = FfmpegLog("file:/proc/self/fd/9")
    step = 1 + (data[0] if data else 0)
    for start in range(1, len(data), step):
        log.feed(data[start : start + step])
    log.feed(b"")
    path = folder / "x.mp4"
    for status in (0, 1, -9, 127, None):
        assert "\0" not in str(log.failure(path, LIMITS, status, "video")) or b"\0" in data
        log.damage(status)


class _Pipe(Decoder):
    """A child whose output is given; no process."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.limits, self._data = path, LIMITS, data

    def fill(self, *buffers: Any) -> int:
        total = 0
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            part, self._data = self._data[: len(view)], self._data[len(view) :]
            view[: len(part)] = part
            total += len(part)
        return total


def clock(data: bytes, folder: Path) -> None:
    """When pictures are shown, in pieces of the first byte's size; and how their frames are numbered."""
    timeline = Timeline()
    step = 1 + (data[0] if data else 0)
    for start in range(1, len(data), step):
        timeline.hear(data[start : start + step])
    timeline.hear(b"")
    if timeline.start is None:
        return
    after: int | None = None
    for number in range(nearest(timeline.start), nearest(timeline.start) + 200, 40):
        assert timeline.covers(number)
        for index, length, place in timeline.stretches(number, 40):
            assert length > 0
            assert 0 <= index <= 40 - length
            assert after is None or place >= after or data.count(b"-")
            after = place + length


def y4m(data: bytes, folder: Path) -> None:
    """The header of the decoded frames, then the frames."""
    child = _Pipe(folder / "x.mp4", data)
    size = child.y4m_header()
    if size is not None:
        frames, count = child.y4m_frames(size, 5)
        assert (frames is None) == (count == 0)


TARGETS = {
    "facts": (facts, (FILM, SONG, b'{"error": "MemoryError", "streams_found": 5000}', b"[[[")),
    "ffmpeg_log": (ffmpeg_log, (b"\xff" + LOG, b"\x07" + LOG, b"\x01")),
    "clock": (clock, CLOCKS),
    "y4m": (
        y4m,
        (
            b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\nFRAME\nabcdefFRAME\nghijkl",
            b"YUV4MPEG2 W4 H2 F25:1\nFRAME\n",
            b"YUV4MPEG2 W2 H2\nFRUME\nabcdef",
        ),
    ),
}
