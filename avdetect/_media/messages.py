"""Words: what ffmpeg says in its log, and what we say when it fails."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError

_LINE = re.compile(r"(?:\[([^\]]*) @ 0x[0-9a-f]+\] )*\[(\w+)\] (.*)")
# As long as ffmpeg's numbers are: a file's own words can stand in the log too, on lines of their own.
_SHOWN = re.compile(r"n: *0 pts: *(-?\d{1,19}) +pts_time: *(-?\d{1,19}(?:\.\d{1,9})?(?:e[+-]?\d{1,2})?)(?!\S)")
# Said of frames that were made up, at levels below "error".
_CONCEALED = re.compile(r"concealing \d|corrupt decoded frame")
# ffmpeg ends with general complaints: what came before them tells more.
_GENERAL = re.compile(
    r"Error (opening|marking|while|initializing|:)|.*Invalid data found when processing input|Task finished|"
    r"Terminating thread|Decode error rate|Cannot determine format|Could not open encoder|Nothing was written|"
    r"Conversion failed"
)
# A thread that finds no room for its stack is "temporarily unavailable".
_NO_MEMORY = re.compile(r"Cannot allocate memory|Resource temporarily unavailable|[Oo]ut of memory")


def quoted(path: Path) -> str:
    """The path in quotes, printable whatever its name holds."""
    return repr(str(path))


def refusal(path: Path, what: str, key: str) -> LimitError:
    """The error for a limit: `what` happened, and `limits.key` set it."""
    return LimitError(f"{quoted(path)} is refused: {what}; raise limits.{key} if you trust the file")


class FfmpegLog:
    """What ffmpeg writes to its standard error, as it comes, at `-v level+info`; of bounded size."""

    def __init__(self, file_url: str) -> None:
        self.header: list[str] | None = None  # the lines that describe the input
        self.errors: deque[str] = deque(maxlen=20)  # the last ones
        self.num_errors = 0  # in reading; trying the decoders on every stream, for the header, gives others
        self.shown: tuple[int, float] | None = None  # what (a)showinfo said first: a timestamp and its seconds
        self._file_url = file_url
        self._partial = b""  # of a line
        self._early: list[str] = []  # where the errors before the header came from

    def feed(self, data: bytes) -> None:
        """Take in the next bytes; none: the log has ended."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-4096:]  # a line may be as long as the file likes
        for raw in lines if data else [self._partial]:
            if match := _LINE.match(raw.decode("utf-8", "replace")):
                self._line(*match.groups())

    def _line(self, source: str | None, level: str, text: str) -> None:
        if level in ("error", "fatal", "panic") or (self.header is not None and _CONCEALED.match(text)):
            self.errors.append(text.strip()[:300].replace(self._file_url, "the file"))
            if self.header is not None:
                self.num_errors += 1
            elif len(self._early) < 10_000:
                self._early.append(source or "")
        elif self.shown is None and (shown := _SHOWN.match(text)):
            self.shown = int(shown[1]), float(shown[2])
            # showinfo says its line in two parts, and another thread may have complained in between.
            if between := re.search(r" type:\S+ +(\S.*)", text):
                self._line(source, "error", between[1])
        elif text.startswith("Input #0"):
            self.header = [text]
            # The demuxer does not repeat itself; a decoder does, if its stream is read.
            self.num_errors = sum(text.startswith(f"Input #0, {source}, from") for source in self._early)
        elif self.header is not None and len(self.header) < 10_000:
            self.header.append(text[:2000])

    def damage(self, status: int | None) -> str | None:
        """What was survived, when something came out and ffmpeg has ended with `status`."""
        if self.num_errors:
            errors = "an error" if self.num_errors == 1 else f"{self.num_errors} errors"
            return f"the file is damaged; ffmpeg gave {errors}, at last: {self._telling()}"
        return f"ffmpeg ended early, status {status}" if status else None

    def _telling(self) -> str:
        """The last error that says something, else the first of those we kept."""
        return next((error for error in reversed(self.errors) if not _GENERAL.match(error)), self.errors[0])

    def failure(self, path: Path, limits: MediaLimits, status: int | None, wanted: str) -> MediaError:
        """Why nothing of what was `wanted` came out; `status` is ffmpeg's, None if it runs still."""
        log = "\n".join(self.errors)
        if "max_streams" in log:
            return refusal(path, f"it has more than {limits.max_streams} streams", "max_streams")
        if "max pixel count" in log:
            return refusal(path, f"its pictures have more than {limits.max_pixels} pixels", "max_pixels")
        if _NO_MEMORY.search(log):
            return refusal(path, f"ffmpeg needs more than {limits.max_memory_bytes} bytes", "max_memory_bytes")
        if "not on whitelist" in log:
            return MediaError(f"{quoted(path)} is in a format that is refused; convert it to mp4, mkv, wav ... first")
        if status is not None and (status < 0 or status == 127):  # 127: the loader found no room for its libraries
            what = f"ffmpeg died (status {status}), perhaps for want of memory"
            return refusal(path, what, "max_memory_bytes")
        reason = self._telling() if self.errors else f"ffmpeg ended with status {status}"
        return MediaError(
            f"{quoted(path)} cannot be read as {wanted} ({reason}); check that it plays, and that it is the "
            "media itself: playlists and formats that name other files are refused"
        )
