"""ffmpeg as the child that decodes: frames or samples on its standard output, and when the first of them is shown."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.child import Child
from avdetect._media.messages import FfmpegLog, quoted, refusal
from avdetect._media.tool import check_ffmpeg, ffmpeg_path
from avdetect.config import MediaLimits
from avdetect.errors import MediaError

_Y4M = re.compile(rb"YUV4MPEG2 W([1-9]\d{0,5}) H([1-9]\d{0,5})\s")
_MAX_Y4M_PIXELS = 2**28  # far beyond any max_side
_TIME_BASE = re.compile(rb"#tb 0: (\d{1,9})/([1-9]\d{0,9})")
_FIRST = re.compile(rb"0, *-?\d{1,19}, *(-?\d{1,19}),")  # stream, decoding time, presentation time, ...
_MAX_CLOCK_BYTES = 4096


class Decoder(Child):
    """One ffmpeg on one file."""

    name = "ffmpeg"
    remedy = "run `pip install imageio-ffmpeg`, or let AVDETECT_FFMPEG name another"

    def __init__(self, path: Path, limits: MediaLimits, wanted: str, threads: int = 1, waited: float = 0.0) -> None:
        super().__init__(path, limits, threads, waited)
        self._wanted, self.threads = wanted, threads
        self.log = FfmpegLog(self.url)
        self._dated = b""  # what came of the clock's pipe
        self._clock = self.pipe(self._date)

    def input(self, **options: Any) -> Any:
        """The file as an ffmpeg-python input."""
        import ffmpeg  # 60 ms: not at import of this module

        return ffmpeg.input(self.url, threads=self.threads, **self.options, **options)

    def clock(self, stream: Any) -> Any:
        """The output that tells `first_shown` when `stream` begins: its first frame or sample alone, as framecrc."""
        codec = {"codec": "wrapped_avframe"} if self._wanted == "video" else {}  # its checksum costs nothing
        return stream.output(f"pipe:{self._clock}", format="framecrc", flush_packets=1, fps_mode="passthrough", **codec)

    def start(self, *outputs: Any) -> None:
        import ffmpeg

        command = ffmpeg.merge_outputs(*outputs).global_args(
            *("-hide_banner", "-nostdin", "-nostats", "-v", "level+info"),
            *("-filter_complex_threads", str(self.threads)),
        )
        self.run(command.compile(cmd=ffmpeg_path()))

    def hear(self, data: bytes) -> None:
        self.log.feed(data)

    def _date(self, data: bytes) -> None:
        if len(self._dated) < _MAX_CLOCK_BYTES:
            self._dated += data

    def first_shown(self) -> tuple[int, float]:
        """(timestamp in its time base, seconds) of the first frame or sample. Call after the first `fill`."""
        while True:
            lines = self._dated.split(b"\n")[:-1]
            base = next((match for line in lines if (match := _TIME_BASE.fullmatch(line))), None)
            first = next((match for line in lines if (match := _FIRST.match(line))), None)
            if base and first:
                number = int(first[1])
                return number, float(number * Fraction(int(base[1]), int(base[2])))
            if not self.listen():
                raise self.failure()

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
