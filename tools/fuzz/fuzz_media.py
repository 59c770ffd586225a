"""Fuzz targets: what ffmpeg says of a hostile file, and the frames that it hands over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from avdetect._media.child import Child, y4m_frames
from avdetect._media.info import MediaInfo, parse_header
from avdetect._media.messages import FfmpegLog
from avdetect._media.tags import MAX_TAGS
from avdetect.config import MediaLimits
from avdetect.report.facts import media_facts
from avdetect.report.signs import editing_signs

LIMITS = MediaLimits()
HEADER = b"""[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'x.mp4':
[info]   Metadata:
[info]     title           : Stream #0:9
[info]   Duration: 00:00:04.02, start: -0.021333, bitrate: 215 kb/s
[info]   Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), \
320x240 [SAR 4:3 DAR 16:9], 110 kb/s, 29.97 fps, 30 tbr, 15360 tbn (default)
[info]     Side data:
[info]       displaymatrix: rotation of -90.00 degrees
[info]   Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, 5.1(side), fltp, 69 kb/s (default)
[info] Stream mapping:
"""
COVER = b"""[mov,mp4 @ 0x55d] [error] moov atom not found
[info] Input #0, matroska,webm, from 'x':
[info]   Duration: N/A, start: 0.000000, bitrate: N/A
[info]   Stream #0:0: Video: png, rgb24(pc, gbr/unknown/unknown), 99999x99999, 90k tbr, 90k tbn (attached pic)
[info]   Stream #0:1: Audio: pcm_s16le, 8000 Hz, 3 channels (FL+FR+LFE), s16
[info]   Stream #0:2: Video: none
[h264 @ 0x1] [fatal] Cannot allocate memory
[info] Output #0, null, to 'pipe:1':
"""
SHOWN = (
    b"config in time_base: 1/25, frame_rate: 25/1",
    b"n:   0 pts:    -12 pts_time:-0.48    duration:1 fmt:yuv420p s:320x240 i:P iskey:1 type:I",
    b"n:0 pts:1024 pts_time:2.1e-05 fmt:flt channels:1 chlayout:mono rate:16000 nb_samples:1024",
)


def ffmpeg_log(data: bytes, folder: Path) -> None:
    """A log in pieces of the first byte's size, its header, and every sentence made of it."""
    log = FfmpegLog("file:/proc/self/fd/9")
    step = 1 + (data[0] if data else 0)
    for start in range(1, len(data), step):
        log.feed(data[start : start + step])
    log.feed(b"")
    path = folder / "x.mp4"
    for status in (0, 1, -9, 127, None):
        assert "\0" not in str(log.failure(path, LIMITS, status, "video")) or b"\0" in data
        log.damage(status)
    if log.header is not None:
        check_info(parse_header(path, log.header, LIMITS))


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
        assert info.audio.sample_rate > 0
    assert len(info.tags) <= MAX_TAGS
    for text in (*(fact.value for fact in media_facts(info)), *editing_signs(info, None, None)):
        assert text.isprintable()
        assert len(text) < 5000


def showinfo(data: bytes, folder: Path) -> None:
    """The first frame's place in time, from one line."""
    log = FfmpegLog("file:x")
    log.feed(b"[Parsed_showinfo_0 @ 0x55] [info] " + data + b"\n")
    if log.shown is not None:
        pts, seconds = log.shown
        assert isinstance(pts, int)
        assert math.isfinite(seconds)


class _Pipe(Child):
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


def y4m(data: bytes, folder: Path) -> None:
    """The header of the decoded frames, then the frames."""
    child = _Pipe(folder / "x.mp4", data)
    size = child.y4m_header()
    if size is not None:
        frames, count = y4m_frames(child, size, 5)
        assert (frames is None) == (count == 0)


TARGETS = {
    "ffmpeg_log": (ffmpeg_log, (b"\xff" + HEADER, b"\x07" + COVER, b"\x01")),
    "showinfo": (showinfo, SHOWN),
    "y4m": (
        y4m,
        (
            b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\nFRAME\nabcdefFRAME\nghijkl",
            b"YUV4MPEG2 W4 H2 F25:1\nFRAME\n",
            b"YUV4MPEG2 W2 H2\nFRUME\nabcdef",
        ),
    ),
}
