"""Words: what ffmpeg complains of, and what we say when it fails. No fact about a file is read from them."""

import errno
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError

_LINE = re.compile(r"(?:\[([^\]]*) @ 0x[0-9a-f]+\] )*\[(\w+)\] (.*)")
# Said of frames that were made up, at levels below "error".
_CONCEALED = re.compile(r"concealing \d|corrupt decoded frame")
# ffmpeg ends with general complaints: what came before them tells more.
_GENERAL = re.compile(
    r"Error (opening|marking|while|initializing|:)|.*Invalid data found when processing input|Task finished|"
    r"Terminating thread|Decode error rate|Cannot determine format|Could not open encoder|Nothing was written|"
    r"Conversion failed"
)
_REFUSED = re.compile(r"Codec \((\w+)\) not on whitelist")
# A thread that finds no room for its stack is "temporarily unavailable".
_NO_MEMORY = re.compile(r"Cannot allocate memory|Resource temporarily unavailable|[Oo]ut of memory")


def quoted(path: Path) -> str:
    """The path in quotes, printable whatever its name holds."""
    return repr(str(path))


def refusal(path: Path, what: str, key: str) -> LimitError:
    """The error for a limit: `what` happened, and `limits.key` set it."""
    return LimitError(f"{quoted(path)} is refused: {what}; raise limits.{key} if you trust the file")


def no_memory(path: Path, limits: MediaLimits, name: str, status: int | None) -> LimitError:
    """The error for a child that ended for want of memory, as far as one can know."""
    ending = f"ended with status {status}, as if it needed" if status else "needs"
    return refusal(path, f"{name} {ending} more than {limits.max_memory_bytes} bytes", "max_memory_bytes")


def unreadable(path: Path, wanted: str, reason: str) -> MediaError:
    return MediaError(
        f"{quoted(path)} cannot be read as {wanted} ({reason}); check that it plays, and that it is the media "
        "itself: playlists and formats that name other files are refused"
    )


def telling(errors: Sequence[str]) -> str:
    """The last error that says something, else the first."""
    return next((error for error in reversed(errors) if not _GENERAL.match(error)), errors[0])


class FfmpegLog:
    """What ffmpeg writes to its standard error, as it comes, at `-v level+info`; of bounded size."""

    def __init__(self, file_url: str) -> None:
        self.errors: deque[str] = deque(maxlen=20)  # the last ones
        self.num_errors = 0  # in reading; trying the decoders on every stream, at the beginning, gives others
        self._opened = False  # the file: what follows comes of reading it
        self._file_url = file_url
        self._partial = b""  # of a line
        self._early: list[str] = []  # where the errors before the opening came from

    def feed(self, data: bytes) -> None:
        """Take in the next bytes; none: the log has ended."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-4096:]  # a line may be as long as the file likes
        for raw in lines if data else [self._partial]:
            if match := _LINE.match(raw.decode("utf-8", "replace")):
                self._line(*match.groups())

    def _line(self, source: str | None, level: str, text: str) -> None:
        if level in ("error", "fatal", "panic") or (self._opened and _CONCEALED.match(text)):
            self.errors.append(text.strip()[:300].replace(self._file_url, "the file"))
            if self._opened:
                self.num_errors += 1
            elif len(self._early) < 10_000:
                self._early.append(source or "")
        elif text.startswith("Input #0") and not self._opened:
            self._opened = True
            # The demuxer does not repeat itself; a decoder does, if its stream is read.
            self.num_errors = sum(text.startswith(f"Input #0, {source}, from") for source in self._early)

    def damage(self, status: int | None) -> str | None:
        """What was survived, when something came out and ffmpeg has ended with `status`."""
        if self.num_errors:
            errors = "an error" if self.num_errors == 1 else f"{self.num_errors} errors"
            return f"the file is damaged; ffmpeg gave {errors}, at last: {telling(self.errors)}"
        return f"ffmpeg ended early, status {status}" if status else None

    def failure(self, path: Path, limits: MediaLimits, status: int | None, wanted: str) -> MediaError:
        """Why nothing of what was `wanted` came out; `status` is ffmpeg's, None if it runs still."""
        log = "\n".join(self.errors)
        if "max pixel count" in log:
            return refusal(path, f"its pictures have more than {limits.max_pixels} pixels", "max_pixels")
        # A signal; 127: no room for its libraries; ffmpeg's own ENOMEM.
        died = status is not None and (status < 0 or status in (127, 256 - errno.ENOMEM))
        if died or _NO_MEMORY.search(log):
            return no_memory(path, limits, "ffmpeg", status)
        if refused := _REFUSED.search(log):
            return MediaError(f"{quoted(path)} is in the codec {refused[1]}, which is refused; convert it first")
        ending = f"ffmpeg ended with status {status}" if status else "ffmpeg made nothing of it"
        return unreadable(path, wanted, telling(self.errors) if self.errors else ending)
