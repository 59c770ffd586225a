"""ffmpeg as the child that decodes: frames or samples on its standard output, and when the pictures are shown."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.child import Child
from avdetect._media.messages import FfmpegLog, refusal
from avdetect._media.timeline import HELD_SECONDS, Timeline, nearest
from avdetect._media.tool import check_ffmpeg, ffmpeg_path
from avdetect.config import MediaLimits
from avdetect.errors import MediaError
from avdetect.types import FPS

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

    def receive(self, data: bytes) -> None:
        self.log.feed(data)

    def complains(self) -> bool:
        """Whether ffmpeg has found anything wrong so far with what it decodes."""
        while self.listen(0):
            pass
        return self.log.num_errors > 0

    def pictures(self, width: int, height: int, batch: int) -> Iterator[tuple[int, Any]]:
        """(number of the first, (T, H * 3 // 2, W) uint8), at most `batch` of them, consecutive; then there is a jump
        where pictures are missing for longer than a second."""
        number: int | None = None
        count = batch
        ahead: deque[tuple[Any, int]] = deque()  # read while the times of earlier frames were awaited
        while count == batch:
            frames, count = ahead.popleft() if ahead else self._read(width, height, batch)
            if not count:
                return
            if number is None:
                number = nearest(self._await_start())  # in the pipe: without what was cut out of gaps
            while not self.timeline.covers(number + count - 1):
                # ffmpeg hands a picture's repetitions on before it tells the next one's time: it must not have to wait.
                if len(ahead) * batch <= MAX_AHEAD and not self.exhausted:
                    ahead.append(self._read(width, height, batch))
                elif self.exhausted:
                    if not self.listen():
                        break
                elif not self.listen(LATE_SECONDS):
                    self.timeline.ended = True  # no gap is so long in the pipe: the last picture is repeated
            end = 0
            for index, length, place in self.timeline.stretches(number, count):
                end = index + length
                yield place, frames[index:end]
            if end < count:  # the last picture is said to be shown for ever
                return
            number += count

    def _read(self, width: int, height: int, batch: int) -> tuple[Any, int]:
        """The next frames, and how many of them are filled."""
        frames = np.empty((batch, height * 3 // 2, width), np.uint8)
        return frames, self.fill(frames) // frames[0].nbytes

    def _await_start(self) -> int:
        while self.timeline.start is None:
            if not self.listen() and self.timeline.start is None:
                raise self.failure()
        return self.timeline.start

    def check_duration(self, seconds: float) -> None:
        if seconds > (most := self.limits.max_duration_seconds):
            raise refusal(self.path, f"it runs longer than {most:g} s", "max_duration_seconds")

    def failure(self) -> MediaError:
        """Why nothing of what was wanted came out. Raises ToolError if the fault is ffmpeg's own."""
        check_ffmpeg()
        return self.log.failure(self.path, self.limits, self.status, self._wanted)


def decoder_threads(most: int | None) -> int:
    """For a video: `most` or the cores there are, and eight at most, for each thread holds frames."""
    return min(most or len(os.sched_getaffinity(0)), 8)
