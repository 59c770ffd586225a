"""Which numbers the frames of the pipe have. Where pictures are missing for longer than a second, ffmpeg would repeat
the last one for the whole gap, hours of it if a file says so. Instead the graph shortens such a gap to about a second,
before its pictures become 25 a second, and tells the time of every picture as it was: from these the same sum is done
here."""

import re
from collections.abc import Iterator

from avdetect.types import FPS, exact_div

TICKS = 1_000_000  # a second, in the graph
_FRAME = exact_div(TICKS, FPS)
HELD_SECONDS = 1  # a picture is repeated for so long, and up to a frame more
_HELD = HELD_SECONDS * TICKS
# The sum in ffmpeg's words: register 0 holds what was cut out so far, in whole frames, so that no rounding changes.
_GAP = "PTS-PREV_INPTS"
SHORTENED = f"st(0,ld(0)+if(gt({_GAP},{_HELD + _FRAME}),floor(({_GAP}-{_HELD})/{_FRAME})*{_FRAME},0));PTS-ld(0)"
_LINE = re.compile(rb"0, *-?\d{1,19}, *(-?\d{1,19}),")  # of framecrc: stream, decoding time, presentation time, ...
_MAX_PARTIAL = 4096


class Timeline:
    """The times of a stream's pictures, as they come from ffmpeg: framecrc, in ticks."""

    def __init__(self) -> None:
        self.start: int | None = None  # time of the first
        self.ended = False  # there are no more
        self._partial = b""
        self._last = 0  # time of the last picture
        self._cut = 0  # from the gaps before it
        self._jumps: list[tuple[int, int]] = []  # (number in the pipe, frames cut out before it)

    def receive(self, data: bytes) -> None:
        """Take in the next bytes; none: there are no more."""
        self.ended = not data
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-_MAX_PARTIAL:]
        for line in lines:
            if match := _LINE.match(line):
                self._picture(int(match[1]))

    def _picture(self, time: int) -> None:
        if self.start is None:
            self.start = time
        elif (gap := time - self._last) > _HELD + _FRAME:
            self._cut += (gap - _HELD) // _FRAME * _FRAME
            self._jumps.append((nearest(time - self._cut), self._cut // _FRAME))
        self._last = time

    def covers(self, number: int) -> bool:
        """Whether enough has come to say where frame `number` of the pipe stands: no gap ends, and so no jump comes,
        before its picture has been repeated for HELD_SECONDS."""
        held = HELD_SECONDS * FPS - 1
        return self.ended or (self.start is not None and nearest(self._last - self._cut) + held >= number)

    def stretches(self, number: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(index, how many, number in the file) of consecutive frames among the `count` from `number` of the pipe on.
        They are fewer where the last picture of all is repeated for longer than a second."""
        at, stop = number, number + count
        if self.ended:
            stop = min(stop, nearest(self._last - self._cut) + HELD_SECONDS * FPS + 1)
        while at < stop:
            cut = max((cut for first, cut in self._jumps if first <= at), default=0)
            until = min((first for first, _ in self._jumps if at < first < stop), default=stop)
            yield at - number, until - at, at + cut
            at = until


def nearest(time: int) -> int:
    """The frame at `time` (ticks), as ffmpeg's fps filter rounds: halves away from zero."""
    number = (2 * abs(time) + _FRAME) // (2 * _FRAME)
    return number if time >= 0 else -number
