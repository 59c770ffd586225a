"""A confined process on one file: ffmpeg, which decodes it, or the script that describes it. `avdetect.media` says what
holds for it.
"""

from __future__ import annotations

import fcntl
import math
import os
import resource
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from avdetect._media.messages import quoted, refusal
from avdetect.config import MediaLimits
from avdetect.errors import MediaError, ToolError

# Demuxers that read one file and cannot name another. Absent: hls, dash, concat, image2, sdp, lavfi, playlists, ...
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,nut,dv,ivf,gif,m4v,h264,hevc,obu,"
    "wav,w64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr"
)
_LONGEST_POLL_SECONDS = 1e6  # poll takes no more milliseconds than fit into an int


class Child:
    """One process on one file. A context manager: leaving it kills and reaps the process.

    Its standard output is given out by `fill`. What comes from its other pipes goes to who hears it: `hear` for its
    standard error.
    """

    name = "the child"  # in messages
    remedy = "check the installation"

    def __init__(self, path: Path, limits: MediaLimits, cores: int = 1, waited: float = 0.0) -> None:
        self.path, self.limits, self._cores = path, limits, cores
        self.waited = waited  # seconds, for this child and for those before it that did the same
        self._process: subprocess.Popen[bytes] | None = None
        self._hearers: dict[int, Callable[[bytes], None]] = {}  # descriptor to read -> who is told
        self._given: list[int] = []  # descriptors of the child that we still hold
        self._open: set[int] = set()  # descriptors to read that have not ended
        self._all, self._heard = select.poll(), select.poll()  # of them; of those but the output
        self._file = _open_regular(path)
        self.url = f"file:/proc/self/fd/{self._file}"
        # Options of libavformat and libavcodec, for whatever reads the file.
        self.options: dict[str, Any] = {
            "protocol_whitelist": "file",
            "format_whitelist": FORMATS,
            "max_streams": limits.max_streams,
            "max_pixels": limits.max_pixels,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._file, *self._given):
            os.close(descriptor)
        process = self._process
        if process is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the id is still ours
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for descriptor in self._hearers:
            os.close(descriptor)

    def pipe(self, hear: Callable[[bytes], None]) -> int:
        """A pipe from the child, before `run`: the descriptor that it may write to. `hear` gets what comes, and nothing
        at its end.
        """
        try:
            read, write = map(_above_standard, os.pipe())
        except OSError as error:
            raise ToolError(f"cannot run {self.name}: {error.strerror}; close files or raise `ulimit -n`") from error
        self._hearers[read] = hear
        self._given.append(write)
        return write

    def run(self, command: Sequence[str]) -> None:
        """Start `command`. Raises ToolError if it cannot be."""
        # A clean environment: FFREPORT would write a log file. Each arena reserves 64 MB of address space.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        errors = self.pipe(self.hear)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                pass_fds=(self._file, *self._given),
                start_new_session=True,
                env=environment | {"MALLOC_ARENA_MAX": "4", "LC_ALL": "C"},
                pipesize=1 << 20,  # a third of a 1080p frame: fewer switches between the two processes
            )
        except OSError as error:
            raise ToolError(f"cannot run {command[0]}: {error.strerror}; {self.remedy}") from error
        while self._given:
            os.close(self._given.pop())
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._confine(self._process.pid)
        self._open = {self._out, *self._hearers}
        for descriptor in self._open:
            self._all.register(descriptor, select.POLLIN)
        for descriptor in self._hearers:
            self._heard.register(descriptor, select.POLLIN)

    def _confine(self, pid: int) -> None:
        bounds = {
            resource.RLIMIT_AS: self.limits.max_memory_bytes,
            resource.RLIMIT_CPU: math.ceil(self.limits.max_wall_seconds * self._cores),  # ends an orphan
            resource.RLIMIT_FSIZE: 0,  # it has nothing to write but pipes
            resource.RLIMIT_CORE: 0,
        }
        for kind, bound in bounds.items():
            try:
                resource.prlimit(pid, kind, (bound, bound))
            except (ProcessLookupError, ValueError, PermissionError):
                pass  # already ended, or a stricter bound is inherited

    @property
    def status(self) -> int | None:
        """The exit status; None before the end."""
        return self._process.returncode if self._process else None

    @property
    def exhausted(self) -> bool:
        """Whether the output has been read to its end."""
        return self._out not in self._open

    def hear(self, data: bytes) -> None:
        """Take in what the process wrote to its standard error; nothing: it has ended."""

    def fill(self, *buffers: Any) -> int:
        """Fill the buffers in order; the number of bytes, fewer than asked only at the end. Raises LimitError."""
        left, total = [memoryview(buffer).cast("B") for buffer in buffers], 0
        while left and self._out in self._open:
            if self._out not in self._wait(self._all):
                continue
            count = got = os.readv(self._out, left[:64])
            if not count:
                self._drop(self._out)
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
            total += got
        return total

    def listen(self) -> bool:
        """Wait until there is something to hear, and hear it; False when all has ended. Raises LimitError."""
        if self._open - {self._out}:
            self._wait(self._heard)
        return bool(self._open - {self._out})

    def listen_for(self, seconds: float) -> bool:
        """Hear what comes within so many seconds; False if nothing does."""
        came = bool(self._open - {self._out}) and bool(self._heard.poll(1000 * seconds))
        return came and self.listen()

    def listen_now(self) -> None:
        """Hear what has come by now."""
        while self._open - {self._out} and self._heard.poll(0):
            self._wait(self._heard)

    def finish(self) -> None:
        """After the output's end: hear the rest, and reap. Raises LimitError."""
        while self.listen():
            pass
        assert self._process is not None
        try:
            self._process.wait(self.limits.stall_seconds)
        except subprocess.TimeoutExpired:
            raise refusal(self.path, f"{self.name} does not end", "stall_seconds") from None

    def _wait(self, poll: select.poll) -> set[int]:
        """Wait until a pipe has data, hear what has come, and return the pipes that were ready."""
        limits = self.limits
        began = time.monotonic()
        remaining = limits.max_wall_seconds - self.waited
        if remaining <= 0:
            raise refusal(self.path, f"decoding took {limits.max_wall_seconds:g} s", "max_wall_seconds")
        ready = {fd for fd, _ in poll.poll(1000 * min(limits.stall_seconds, remaining, _LONGEST_POLL_SECONDS))}
        for descriptor in ready & set(self._hearers):
            data = os.read(descriptor, 1 << 16)
            self._hearers[descriptor](data)
            if not data:
                self._drop(descriptor)
        self.waited += time.monotonic() - began  # what is heard too: a flood of it must not last for ever
        if not ready and limits.stall_seconds < remaining:
            raise refusal(self.path, f"{self.name} gave nothing for {limits.stall_seconds:g} s", "stall_seconds")
        return ready

    def _drop(self, descriptor: int) -> None:
        self._all.unregister(descriptor)
        if descriptor in self._hearers:
            self._heard.unregister(descriptor)
        self._open.discard(descriptor)


def _open_regular(path: Path) -> int:
    try:
        # Ask before opening, since opening alone can hang (FIFO) or act (device); and again in case it was swapped.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError(f"{quoted(path)} is not a regular file; give the path of a media file on this machine")
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        descriptor = _above_standard(opened)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot open {quoted(path)}: {reason}; give the path of a readable file") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return descriptor
    os.close(descriptor)
    raise MediaError(f"{quoted(path)} is {'empty' if stat.S_ISREG(status.st_mode) else 'not a regular file'}")


def _above_standard(descriptor: int) -> int:
    """Never 0 to 2, which are the child's own: they are free where this process was started without them."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
