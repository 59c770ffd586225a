"""ffmpeg as the child that decodes: frames or samples on its standard output, and when the first of them is shown."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.child import Child
from avdetect._media.messages import FfmpegLog, quoted, refusal
from avdetect._media.timeline import HELD_SECONDS, TICKS, Timeline, nearest
from avdetect._media.tool import check_ffmpeg, ffmpeg_path
from avdetect.config import MediaLimits
from avdetect.errors import MediaError
from avdetect.types import FPS

_Y4M = re.compile(rb"YUV4MPEG2 W([1-9]\d{0,5}) H([1-9]\d{0,5})\s")
_MAX_Y4M_PIXELS = 2**28  # far beyond any max_side
MAX_AHEAD = 2 * HELD_SECONDS * FPS  # frames
LATE_SECONDS = 2.0  # that a time may come after its picture, on a busy machine


class Decoder(Child):
    """One ffmpeg on one file."""

    name = "ffmpeg"
    remedy = "run `pip install imageio-ffmpeg`, or let AVDETECT_FFMPEG name another"

    def __init__(self, path: Path, limits: MediaLimits, wanted: str, threads: int = 1, waited: float = 0.0) -> None:
        super().__init__(path, limits, threads, waited)
        self._wanted, self.threads = wanted, threads
        self.log = FfmpegLog(self.url)
        self.timeline = Timeline()
        self._clock = self.pipe(self.timeline.hear)

    def clock(self, label: str) -> list[str]:
        """The output that tells `timeline` when the pictures or samples of `label` (in ticks) are shown."""
        # A wrapped frame has no pixels, so its checksum costs nothing.
        codec = ["-c", "wrapped_avframe", "-fps_mode", "passthrough"] if self._wanted == "video" else []
        times = ["-enc_time_base", f"1/{TICKS}", "-f", "framecrc", "-flush_packets", "1"]
        return ["-map", label, *codec, *times, f"pipe:{self._clock}"]

    def start(self, options: Sequence[str], graph: str | None, outputs: Sequence[str]) -> None:
        """options: those of the input, beside the limits. graph: of its filters."""
        limits = [word for name, value in self.options.items() for word in (f"-{name}", str(value))]
        self.run(
            [
                *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-v", "level+info"),
                *("-filter_complex_threads", str(self.threads), "-threads", str(self.threads)),
                *(*limits, *options, "-i", self.url),
                *(("-filter_complex", graph) if graph else ()),
                *outputs,
            ]
        )

    def hear(self, data: bytes) -> None:
        self.log.feed(data)

    def await_start(self) -> int:
        """When the first picture or sample is shown, in ticks. Call after the first `fill`."""
        while self.timeline.start is None:
            if not self.listen() and self.timeline.start is None:
                raise self.failure()
        return self.timeline.start

    def complains(self) -> bool:
        """Whether ffmpeg has found anything wrong so far with what it decodes."""
        self.listen_now()
        return self.log.num_errors > 0

    def y4m_header(self) -> tuple[int, int] | None:
        """(width, height), or None if the output ended before it. Raises MediaError for another beginning."""
        line, byte = bytearray(), bytearray(1)
        while byte != b"\n" and len(line) < 1000:
            if not self.fill(byte):
                return None
            line += byte
        size = _Y4M.match(line)
        if size is None or int(size[1]) * int(size[2]) > _MAX_Y4M_PIXELS:
            check_ffmpeg()
            raise MediaError(f"{quoted(self.path)}: ffmpeg's pictures have no usable size; please report this file")
        return int(size[1]), int(size[2])

    def y4m_frames(self, size: tuple[int, int], batch: int) -> tuple[Any, int]:
        """((batch, H * 3 // 2, W) uint8, how many of them are filled), or (None, 0) at the end."""
        width, height = size
        frames = np.empty((batch, height * 3 // 2, width), np.uint8)
        marks = np.empty((batch, 6), np.uint8)  # b"FRAME\n" before each frame
        filled = self.fill(*(part for pair in zip(marks, frames, strict=True) for part in pair))
        count = filled // (6 + frames[0].nbytes)
        if any(mark.tobytes() != b"FRAME\n" for mark in marks[:count]):
            raise MediaError(f"{quoted(self.path)}: ffmpeg lost the frame boundaries; please report this file")
        return (frames, count) if count else (None, 0)

    def pictures(self, batch: int) -> Iterator[tuple[int, Any]]:
        """(number of the first, (T, H * 3 // 2, W) uint8), at most `batch` of them, consecutive; then there is a jump
        where pictures are missing for longer than a second.
        """
        size, number, count = self.y4m_header(), None, batch
        ahead: deque[tuple[Any, int]] = deque()  # read while the times of earlier frames were awaited
        while size and count == batch:
            frames, count = ahead.popleft() if ahead else self.y4m_frames(size, batch)
            if not count:
                return
            if number is None:
                number = nearest(self.await_start())  # in the pipe: without what was cut out of gaps
            while not self.timeline.covers(number + count - 1):
                # ffmpeg hands a picture's repetitions on before it tells the next one's time: it must not have to wait.
                if len(ahead) * batch <= MAX_AHEAD and not self.exhausted:
                    ahead.append(self.y4m_frames(size, batch))
                elif self.exhausted:
                    if not self.listen():
                        break
                elif not self.listen_for(LATE_SECONDS):
                    self.timeline.ended = True  # no gap is so long in the pipe: the last picture is repeated
            end = 0
            for index, length, place in self.timeline.stretches(number, count):
                end = index + length
                yield place, frames[index:end]
            if end < count:  # the last picture is said to be shown for ever
                return
            number += count

    def check_duration(self, seconds: float) -> None:
        if seconds > self.limits.max_duration_seconds:
            raise refusal(
                self.path, f"it runs longer than {self.limits.max_duration_seconds:g} s", "max_duration_seconds"
            )

    def failure(self) -> MediaError:
        """Why nothing of what was wanted came out. Raises ToolError if the fault is ffmpeg's own."""
        check_ffmpeg()
        return self.log.failure(self.path, self.limits, self.status, self._wanted)


def decoder_threads(most: int | None) -> int:
    """For a video: `most` or the cores there are, and eight at most, for each thread holds frames."""
    return min(most or len(os.sched_getaffinity(0)), 8)
