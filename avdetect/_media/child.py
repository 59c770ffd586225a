"""The ffmpeg child: one process on one file, with its limits. `avdetect.media` says what holds for it."""

from __future__ import annotations

import fcntl
import math
import os
import re
import resource
import select
import shutil
import signal
import stat
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.messages import FfmpegLog, quoted, refusal
from avdetect.config import MediaLimits
from avdetect.errors import MediaError, ToolError

# Demuxers that read one file and cannot name another. Absent: hls, dash, concat, image2, sdp, lavfi, playlists, ...
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,nut,dv,ivf,gif,m4v,h264,hevc,obu,"
    "wav,w64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr"
)
_Y4M = re.compile(rb"YUV4MPEG2 W([1-9]\d{0,5}) H([1-9]\d{0,5})\s")
_LONGEST_POLL_SECONDS = 1e6  # poll takes no more milliseconds than fit into an int
_MAX_Y4M_PIXELS = 2**28  # far beyond any max_side


@cache
def ffmpeg_path() -> str:
    """The ffmpeg to run: the one on PATH, else the one that imageio-ffmpeg carries. Raises ToolError."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        # Where its wheel puts the binary: get_ffmpeg_exe would first run it once, 50 ms for nothing.
        carried = sorted((Path(imageio_ffmpeg.__file__).parent / "binaries").glob("ffmpeg-*"))
        return str(carried[0] if carried else imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise ToolError("no ffmpeg: put one on PATH or run `pip install imageio-ffmpeg`") from error


class Child:
    """One ffmpeg on one file. A context manager: leaving it kills and reaps the process."""

    def __init__(
        self, path: Path, limits: MediaLimits, wanted: str = "audio or video", threads: int = 1, waited: float = 0.0
    ) -> None:
        self.path, self.limits, self._wanted, self.threads = path, limits, wanted, threads
        self.waited = waited  # seconds, for this child and for those before it that did the same
        self._process: subprocess.Popen[bytes] | None = None
        self._file = _open_regular(path)
        self._url = f"file:/proc/self/fd/{self._file}"
        self.log = FfmpegLog(self._url)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the id is still ours
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()

    def input(self, **options: Any) -> Any:
        """The file as an ffmpeg-python input."""
        import ffmpeg  # 60 ms: not at import of this module

        return ffmpeg.input(
            self._url,
            protocol_whitelist="file",
            format_whitelist=FORMATS,
            max_streams=self.limits.max_streams,
            max_pixels=self.limits.max_pixels,
            threads=self.threads,
            **options,
        )

    def start(self, *outputs: Any) -> None:
        import ffmpeg

        command = ffmpeg.merge_outputs(*outputs).global_args(
            *("-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-filter_complex_threads", str(self.threads))
        )
        # A clean environment: FFREPORT would write a log file. Each arena reserves 64 MB of address space.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        try:
            self._process = subprocess.Popen(
                command.compile(cmd=ffmpeg_path()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(self._file,),
                start_new_session=True,
                env=environment | {"MALLOC_ARENA_MAX": "4", "LC_ALL": "C"},
                pipesize=1 << 20,  # a third of a 1080p frame: fewer switches between the two processes
            )
        except OSError as error:
            raise ToolError(
                f"cannot run {ffmpeg_path()}: {error.strerror}; install ffmpeg or imageio-ffmpeg"
            ) from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        cpu_seconds = math.ceil(self.limits.max_wall_seconds * self.threads)
        bounds = {
            resource.RLIMIT_AS: self.limits.max_memory_bytes,
            resource.RLIMIT_CPU: cpu_seconds,  # the end of an orphan that never writes
            resource.RLIMIT_FSIZE: 0,  # it has nothing to write but pipes
            resource.RLIMIT_CORE: 0,
        }
        for kind, bound in bounds.items():
            try:
                resource.prlimit(self._process.pid, kind, (bound, bound))
            except (ProcessLookupError, ValueError, PermissionError):
                pass  # already ended, or a stricter bound is inherited
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._err, select.POLLIN)
        self._open = {self._out, self._err}

    @property
    def status(self) -> int | None:
        """ffmpeg's exit status; None before its end."""
        return self._process.returncode if self._process else None

    def fill(self, *buffers: Any) -> int:
        """Fill the buffers in order; the number of bytes, fewer than asked only at the end. Raises LimitError."""
        left, total = [memoryview(buffer).cast("B") for buffer in buffers], 0
        while left and self._out in self._open:
            if self._out not in self._wait():
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

    def first_shown(self) -> tuple[int, float]:
        """(timestamp in its time base, seconds) of the first frame or block of samples. Call after the first `fill`."""
        while self.log.shown is None and self._err in self._open:
            self._wait(self._err)
        if self.log.shown is None:
            raise self.failure()
        return self.log.shown

    def complains(self) -> bool:
        """Whether ffmpeg has found anything wrong so far with what it decodes."""
        log = select.poll()
        log.register(self._err, select.POLLIN)
        while self._err in self._open and log.poll(0):
            self._wait(self._err)
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

    def check_duration(self, seconds: float) -> None:
        if seconds > self.limits.max_duration_seconds:
            raise refusal(
                self.path, f"it runs longer than {self.limits.max_duration_seconds:g} s", "max_duration_seconds"
            )

    def finish(self) -> None:
        """After the output's end: read the log to its end and reap."""
        while self._err in self._open:
            self._wait(self._err)
        assert self._process is not None
        try:
            self._process.wait(self.limits.stall_seconds)
        except subprocess.TimeoutExpired:
            raise refusal(self.path, "ffmpeg does not end", "stall_seconds") from None

    def failure(self) -> MediaError:
        """Why nothing of what was wanted came out."""
        return self.log.failure(self.path, self.limits, self.status, self._wanted)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._open.discard(descriptor)

    def _wait(self, *only: int) -> set[int]:
        """Wait until a pipe has data, take in the log, and return the pipes that are ready."""
        limits = self.limits
        if only and self._out in self._open:
            self._poll.unregister(self._out)  # else it would be ready at once, again and again
        began = time.monotonic()
        remaining = limits.max_wall_seconds - self.waited
        if remaining <= 0:
            raise refusal(self.path, f"decoding took {limits.max_wall_seconds:g} s", "max_wall_seconds")
        ready = {fd for fd, _ in self._poll.poll(1000 * min(limits.stall_seconds, remaining, _LONGEST_POLL_SECONDS))}
        if self._err in ready:
            data = os.read(self._err, 1 << 16)
            self.log.feed(data)
            if not data:
                self._drop(self._err)
        self.waited += time.monotonic() - began  # the log too: a flood of it must not last for ever
        if only and self._out in self._open:
            self._poll.register(self._out, select.POLLIN)
        if not ready and limits.stall_seconds < remaining:
            raise refusal(self.path, f"ffmpeg gave nothing for {limits.stall_seconds:g} s", "stall_seconds")
        return ready


def _open_regular(path: Path) -> int:
    try:
        # Ask before opening, since opening alone can hang (FIFO) or act (device); and again in case it was swapped.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError(f"{quoted(path)} is not a regular file; give the path of a media file on this machine")
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:  # never 0 to 2, which are ffmpeg's own: they are free where this process was started without them
            descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(opened)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot open {quoted(path)}: {reason}; give the path of a readable file") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return descriptor
    os.close(descriptor)
    raise MediaError(f"{quoted(path)} is {'empty' if stat.S_ISREG(status.st_mode) else 'not a regular file'}")


def decoder_threads(most: int | None) -> int:
    """For a video: `most` or the cores there are, and eight at most, for each thread holds frames."""
    return min(most or len(os.sched_getaffinity(0)), 8)


def y4m_frames(child: Child, size: tuple[int, int], batch: int) -> tuple[Any, int]:
    """((batch, H * 3 // 2, W) uint8, how many of them are filled), or (None, 0) at the end."""
    width, height = size
    frames = np.empty((batch, height * 3 // 2, width), np.uint8)
    marks = np.empty((batch, 6), np.uint8)  # b"FRAME\n" before each frame
    count = child.fill(*(part for pair in zip(marks, frames, strict=True) for part in pair)) // (6 + frames[0].nbytes)
    if any(mark.tobytes() != b"FRAME\n" for mark in marks[:count]):
        raise MediaError(f"{quoted(child.path)}: ffmpeg lost the frame boundaries; please report this file")
    return (frames, count) if count else (None, 0)
