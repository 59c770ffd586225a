"""Media files in, frames and samples out, on one clock. The only module that runs ffmpeg; hostile input stops here.

The clock. Time 0 is the container's time zero: the earliest start of the streams, as ffmpeg shifts it by default.
Frame n is shown at n / 25 s and sample n at n / 16000 s, whatever the frame rate, the edit lists or the start of either
stream. Video that starts late has a later `first_frame`; audio that starts late begins with zeros.

The child. Each iterator runs one ffmpeg: an argument list, no shell, its own session, bounded memory and CPU seconds.
It reads /proc/self/fd/N, a regular file that this process opened and checked, so that no file name can be taken for an
option, an address or a pattern. It may use the file protocol and self-contained formats only (none that can name
another file). It dies when the iterator is closed; if this process is killed outright, by its broken pipe or CPU limit.
"""

from __future__ import annotations

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
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avdetect.config import MediaConfig, MediaLimits
from avdetect.errors import LimitError, MediaError, ToolError
from avdetect.types import FPS, SAMPLE_RATE, VideoFrames, Waveform

# Demuxers that read one file and cannot name another. Absent: hls, dash, concat, image2, sdp, lavfi, playlists, ...
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,nut,dv,ivf,gif,m4v,h264,hevc,obu,"
    "wav,w64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr"
)
SEEKABLE = ("mov", "matroska")  # their index leads to a keyframe at or before the time asked for
DISCONTINUOUS = ("mpegts", "mpeg")  # ffmpeg corrects their timestamps from the streams that it reads
PASSED = ("yuv420p", "yuvj420p")  # piped as decoded; every other pixel format is converted
MAX_GAP_SECONDS = 0.03  # audio timestamps may jitter by this much before silence is inserted or samples are cut
_MATRICES = {
    "bt709": "bt709",
    "smpte240m": "bt709",  # luma weights within 0.02 of BT.709
    "bt470bg": "bt601",
    "smpte170m": "bt601",
    "fcc": "bt601",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}
_LOG_LINE = re.compile(r"(?:\[[^\]]* @ 0x[0-9a-f]+\] )*\[(\w+)\] (.*)")
_SHOWN = re.compile(r"n: *0 pts: *(-?\d+) +pts_time: *(-?[\d.]+(?:e[+-]?\d+)?)")
_COVER = re.compile(r"\((attached pic|timed thumbnails)\)")
_STREAM = re.compile(r"  Stream #0:(\d+)(?:\[0x[0-9a-f]+\])?(?:\(\w+\))?: (Video|Audio): (.*)")


@dataclass(frozen=True)
class VideoStream:
    """The video stream that is read: the one marked default, else the largest; never cover art."""

    index: int  # in the container
    codec: str
    pix_fmt: str
    coded_width: int  # as stored
    coded_height: int
    width: int  # pixels as displayed: upright, square
    height: int
    rotation_degrees: int  # clockwise, applied to show the picture upright: 0, 90, 180 or 270
    fps: float | None  # as the container states it
    color_matrix: str  # bt601, bt709 or bt2020; if unstated bt709 from 1280 pixels wide or 577 high, else bt601
    full_range: bool
    interlaced: bool


@dataclass(frozen=True)
class AudioStream:
    """The audio stream that is read: the one marked default, else the one of most channels."""

    index: int  # in the container
    codec: str
    sample_rate: int  # Hz, as stored
    channel_layout: str  # mono, stereo, 5.1 ...
    channels: int


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself."""

    path: Path
    container: str  # ffmpeg's name, "mov" for mp4 and its relatives
    duration_seconds: float | None  # as stated; None if unknown
    num_streams: int
    video: VideoStream | None  # None: no video stream (cover art is none)
    audio: AudioStream | None


@cache
def ffmpeg_path() -> str:
    """The ffmpeg to run: the one on PATH, else the one that imageio-ffmpeg carries. Raises ToolError."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise ToolError("no ffmpeg: put one on PATH or run `pip install imageio-ffmpeg`") from error


def probe(path: str | os.PathLike[str], limits: MediaLimits | None = None) -> MediaInfo:
    """Read a file's header.

    Raises MediaError if it is not a readable regular file, is empty, is in a refused format, or holds neither audio nor
    video; LimitError if it exceeds `limits`; ToolError if ffmpeg cannot run.
    """
    limits = limits or MediaLimits()
    path = Path(os.fsdecode(path))
    with _Child(path, limits) as child:
        child.start(child.input().output("pipe:1", format="null", codec="copy", t=0))
        child.fill(bytearray(1))
        child.finish()
        if child.header is None or any("max_streams" in error for error in child.errors):
            raise child.failure()
    info = parse_header(path, child.header, limits)
    if info.video is None and info.audio is None:
        raise MediaError(f"{_show(path)} holds neither audio nor video; check that it is the right file")
    return info


class MediaReader:
    """Frames and samples of one file, on one clock, decoded as they are asked for.

    The constructor probes the file (errors as `probe`). Use it as a context manager, or call `close`: that ends ffmpeg.
    `warnings` grows with the damage that is survived: one sentence for each half of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: MediaConfig | None = None,
        limits: MediaLimits | None = None,
    ) -> None:
        self.config, self.limits = config or MediaConfig(), limits or MediaLimits()
        self.info = probe(path, self.limits)
        self.warnings: list[str] = []
        self.video_start_seconds: float | None = None  # of the first real frame; known after a first batch from time 0
        self.audio_start_seconds: float | None = None  # of the first real sample; known after the first chunk
        self._iterators: list[Generator[Any]] = []

    def __enter__(self) -> MediaReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End ffmpeg. Safe to call twice."""
        while self._iterators:
            self._iterators.pop().close()

    def video(
        self, *, start_seconds: float = 0.0, duration_seconds: float | None = None, batch: int = 5
    ) -> Iterator[VideoFrames]:
        """Frames at 25 fps, `batch` at a time (the first and last may be fewer): upright, deinterlaced, of square
        pixels, with even sides of at most `config.max_side`. HDR is not tone-mapped.

        A window gives exactly the frames that a whole read gives there. None stands before the first real frame, so the
        first batch may begin after `start_seconds`: see `first_frame`. Damage gives fewer frames and a warning.

        Raises MediaError if there is no video; while iterating MediaError if none of it can be decoded, LimitError, and
        ToolError if ffmpeg cannot run.
        """
        if self.info.video is None:
            raise MediaError(f"{_show(self.info.path)} has no video stream; use its audio alone")
        first = round(start_seconds * FPS)
        stop = None if duration_seconds is None else first + round(duration_seconds * FPS)
        self._iterators.append(self._video(self.info.video, first, stop, batch))
        return self._iterators[-1]

    def audio(
        self, chunk_seconds: float, *, start_seconds: float = 0.0, duration_seconds: float | None = None
    ) -> Iterator[Waveform]:
        """Mono 16 kHz audio in consecutive chunks of `chunk_seconds` (the last may be shorter).

        The first chunk stands at `start_seconds`: audio that starts later, and gaps, are zeros. Channels are mixed down
        without clipping; NaN becomes 0. A window gives exactly the samples that a whole read gives there: audio is
        always decoded from the start (a CPU second for ten minutes), since codecs carry state. Damage gives fewer
        samples and a warning.

        Raises MediaError if there is no audio; while iterating MediaError if none of it can be decoded, LimitError, and
        ToolError if ffmpeg cannot run.
        """
        if self.info.audio is None:
            raise MediaError(f"{_show(self.info.path)} has no audio stream; use its video alone")
        first, chunk = round(start_seconds * SAMPLE_RATE), round(chunk_seconds * SAMPLE_RATE)
        stop = None if duration_seconds is None else first + round(duration_seconds * SAMPLE_RATE)
        self._iterators.append(self._audio(first, stop, chunk))
        return self._iterators[-1]

    def _video(self, video: VideoStream, first: int, stop: int | None, batch: int) -> Generator[VideoFrames]:
        # One second early for reordered frames; whole seconds are exact in any time base, so a window rounds alike.
        seek = max(0, first // FPS - 1) if self.info.container in SEEKABLE else 0
        for origin in sorted({seek, 0}, reverse=True):
            with _Child(self.info.path, self.limits) as child:
                child.start(*_video_outputs(child, self.info, self.config, origin))
                size = child.y4m_header()
                frames, count = _y4m_frames(child, size, batch) if size else (None, 0)
                number = child.first_shown()[0] + origin * FPS if count else 0
                if origin and (not count or number > first):
                    continue  # an index that leads past the window, or to nothing: read from the start
                if frames is None or size is None:
                    child.finish()
                    raise child.failure()
                if not origin:
                    self.video_start_seconds = max(0, number) / FPS
                full_range = video.full_range and video.pix_fmt in PASSED
                while count and (stop is None or number < stop):
                    child.check_duration(number / FPS)
                    window = frames[max(first - number, 0) : count if stop is None else min(stop - number, count)]
                    if len(window):
                        yield VideoFrames(window, max(first, number), video.color_matrix, full_range)
                    number += count
                    frames, count = _y4m_frames(child, size, batch) if count == batch else (frames, 0)
                if not count:
                    child.finish()
                    self.warnings += child.damage("video")
                return

    def _audio(self, first: int, stop: int | None, chunk: int) -> Generator[Waveform]:
        position = 0
        with _Child(self.info.path, self.limits) as child:
            child.start(*_audio_outputs(child, self.info))
            while stop is None or position < stop:
                # What lies before the window is read and dropped, so that the stall clock sees the progress.
                end = position + chunk if position >= first else min(first, position + chunk)
                samples = np.empty((end if stop is None else min(end, stop)) - position, np.float32)
                count = child.fill(samples) // samples.itemsize
                if position == 0 and not count:
                    child.finish()
                    raise child.failure()
                if position == 0:
                    self.audio_start_seconds = max(0.0, child.first_shown()[1])
                if count and position >= first:
                    clean = np.nan_to_num(samples[:count], copy=False, nan=0.0)
                    yield Waveform(np.clip(clean, -1, 1, out=clean), position / SAMPLE_RATE)
                position += count
                child.check_duration(position / SAMPLE_RATE)
                if count < len(samples):
                    child.finish()
                    self.warnings += child.damage("audio")
                    return


# ---- the commands


def _video_outputs(child: _Child, info: MediaInfo, config: MediaConfig, origin: int) -> list[Any]:
    """The pipe of frames, and one shown frame whose timestamp (in frames) numbers them all."""
    video = info.video
    assert video is not None
    options: dict[str, Any] = {"ss": origin, "noaccurate_seek": None} if origin else {}
    if not video.rotation_degrees:
        # The graph stays as it is when the picture's size or format changes in mid-stream (ffmpeg would build a new
        # one, and the clock would slip): its first scaler, which otherwise passes frames on untouched, sees to that.
        # With rotation ffmpeg puts its own filters first, which could not stand it.
        options |= {"noautorotate": None, "reinit_filter": 0}
    source = child.input(**options)
    stream = source[str(video.index)]
    if not video.rotation_degrees:
        stream = stream.filter("scale", video.coded_width, video.coded_height).filter("format", video.pix_fmt)
    if video.interlaced:
        stream = stream.filter("bwdif", mode="send_frame", deint="interlaced")
    stream = stream.filter("fps", FPS).filter_multi_output("split")
    width, height = frame_size(video, config.max_side)
    pixels: dict[str, Any] = {}
    main, pix_fmt = stream[0], video.pix_fmt
    odd = video.width % 2 or video.height % 2
    if odd and sorted((width, height)) == sorted((video.coded_width // 2 * 2, video.coded_height // 2 * 2)):
        # Dropping an odd last row or column is free; scaling a pixel away is not.
        main = main.filter("crop", width, height, 0, 0)
    if pix_fmt not in PASSED:
        pix_fmt = "yuv420p"
        pixels = {"out_color_matrix": video.color_matrix, "out_range": "tv"}
        if not _is_rgb(video.pix_fmt):
            pixels |= {"in_color_matrix": video.color_matrix, "in_range": "pc" if video.full_range else "tv"}
    # Free when the size is right already.
    main = main.filter("scale", width, height, **pixels)
    piped = main.output("pipe:1", format="yuv4mpegpipe", pix_fmt=pix_fmt, fps_mode="passthrough")
    shown = stream[1].filter("trim", end_frame=1).filter("showinfo", checksum=0)
    return [piped, shown.output("pipe:1", format="null"), *_other(source, info, info.audio)]


def _audio_outputs(child: _Child, info: MediaInfo) -> list[Any]:
    assert info.audio is not None
    source = child.input()
    stream = source[str(info.audio.index)].filter_multi_output("asplit")
    # rematrix_maxval: without it a float stereo pair is mixed down at 1.41 times its level.
    resample = {"async": 1, "first_pts": 0, "min_hard_comp": MAX_GAP_SECONDS, "rematrix_maxval": 1}
    main = stream[0].filter("aresample", SAMPLE_RATE, **resample)
    main = main.filter("aformat", sample_fmts="flt", channel_layouts="mono")
    shown = stream[1].filter("atrim", end_sample=1).filter("ashowinfo")
    return [
        main.output("pipe:1", format="f32le"),
        shown.output("pipe:1", format="null"),
        *_other(source, info, info.video),
    ]


def _other(source: Any, info: MediaInfo, other: VideoStream | AudioStream | None) -> list[Any]:
    """In MPEG streams ffmpeg sets time zero and mends jumps from the streams in use: let both readers use both."""
    if other is None or info.container not in DISCONTINUOUS:
        return []
    return [source[str(other.index)].output("pipe:1", format="null", codec="copy")]


def frame_size(video: VideoStream, max_side: int) -> tuple[int, int]:
    """(width, height), even, of the frames that `read_video` gives: as displayed, reduced to `max_side` if larger."""
    scale = min(1.0, max_side / max(video.width, video.height))
    if scale == 1:
        return max(2, video.width // 2 * 2), max(2, video.height // 2 * 2)
    return max(2, round(video.width * scale / 2) * 2), max(2, round(video.height * scale / 2) * 2)


def _is_rgb(pix_fmt: str) -> bool:
    return bool(re.match(r"[ax0]?(rgb|bgr|gbr)|x2|pal8", pix_fmt))


def _piped_full_range(video: VideoStream) -> bool:
    return video.full_range and video.pix_fmt in PASSED


def _y4m_frames(child: _Child, size: tuple[int, int], batch: int) -> tuple[Any, int]:
    """((batch, H * 3 // 2, W) uint8, how many of them are filled), or (None, 0) at the end."""
    width, height = size
    frames = np.empty((batch, height * 3 // 2, width), np.uint8)
    marks = np.empty((batch, 6), np.uint8)  # b"FRAME\n" before each frame
    count = child.fill(*(part for pair in zip(marks, frames, strict=True) for part in pair)) // (6 + frames[0].nbytes)
    if any(mark.tobytes() != b"FRAME\n" for mark in marks[:count]):
        raise MediaError(f"{_show(child.path)}: ffmpeg lost the frame boundaries; please report this file")
    return (frames, count) if count else (None, 0)


# ---- the child process


class _Child:
    """One ffmpeg on one file. A context manager: leaving it kills and reaps the process."""

    def __init__(self, path: Path, limits: MediaLimits) -> None:
        self.path, self.limits = path, limits
        self.header: list[str] | None = None  # the lines that describe the input
        self.errors: deque[str] = deque(maxlen=20)
        self.num_errors = 0
        self._shown: tuple[int, float] | None = None
        self._partial = b""  # of a log line
        self._waited = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._file = _open_regular(path)

    def __enter__(self) -> _Child:
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
            f"file:/proc/self/fd/{self._file}",
            protocol_whitelist="file",
            format_whitelist=FORMATS,
            max_streams=self.limits.max_streams,
            max_pixels=self.limits.max_pixels,
            threads=_threads(),
            **options,
        )

    def start(self, *outputs: Any) -> None:
        import ffmpeg

        command = ffmpeg.merge_outputs(*outputs).global_args(
            *("-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-filter_complex_threads", str(_threads()))
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
        cpu_seconds = math.ceil(self.limits.max_wall_seconds * _threads())
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
        while self._shown is None and self._err in self._open:
            self._wait(self._err)
        if self._shown is None:
            raise self.failure()
        return self._shown

    def y4m_header(self) -> tuple[int, int] | None:
        """(width, height), or None if the output ended before it."""
        line, byte = bytearray(), bytearray(1)
        while self.fill(byte):
            if byte == b"\n":
                fields = {part[:1]: part[1:] for part in bytes(line).split(b" ")[1:]}
                return int(fields[b"W"]), int(fields[b"H"])
            line += byte
        return None

    def check_duration(self, seconds: float) -> None:
        if seconds > self.limits.max_duration_seconds:
            raise _limit(
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
            raise _limit(self.path, "ffmpeg does not end", "stall_seconds") from None

    def damage(self, name: str) -> list[str]:
        """What was survived, after `finish`."""
        assert self._process is not None
        if self.num_errors:
            return [f"{name}: the file is damaged; ffmpeg gave {self.num_errors} errors, the last: {self.errors[-1]}"]
        return [f"{name}: ffmpeg ended early, status {self._process.returncode}"] if self._process.returncode else []

    def failure(self) -> MediaError:
        """Why nothing came out."""
        log = "\n".join(self.errors)
        limits = self.limits
        if "max_streams" in log:
            return _limit(self.path, f"it has more than {limits.max_streams} streams", "max_streams")
        if "max pixel count" in log:
            return _limit(self.path, f"its pictures have more than {limits.max_pixels} pixels", "max_pixels")
        # A thread that finds no room for its stack is "temporarily unavailable".
        if re.search(r"Cannot allocate memory|Resource temporarily unavailable|[Oo]ut of memory", log):
            return _limit(self.path, f"ffmpeg needs more than {limits.max_memory_bytes} bytes", "max_memory_bytes")
        if "not on whitelist" in log:
            return MediaError(
                f"{_show(self.path)} is in a format that is refused; convert it to mp4, mkv, wav ... first"
            )
        status = self._process.returncode if self._process else None
        if status is not None and (status < 0 or status == 127):  # 127: the loader found no room for its libraries
            what = f"ffmpeg died (status {status}), perhaps for want of memory"
            return _limit(self.path, what, "max_memory_bytes")
        # ffmpeg ends with a general complaint: what came before it tells more.
        general = re.compile(r"Error (opening|marking)|.*Invalid data found when processing input")
        telling = [error for error in self.errors if not general.match(error)]
        last = (telling or list(self.errors) or [f"ffmpeg ended with status {status}"])[-1]
        return MediaError(
            f"{_show(self.path)} cannot be read as audio or video ({last}); check that it plays elsewhere"
        )

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._open.discard(descriptor)

    def _wait(self, *only: int) -> set[int]:
        """Wait until a pipe has data, take in the log, and return the pipes that are ready."""
        limits = self.limits
        if only and self._out in self._open:
            self._poll.unregister(self._out)  # else it would be ready at once, again and again
        began = time.monotonic()
        remaining = limits.max_wall_seconds - self._waited
        if remaining <= 0:
            raise _limit(self.path, f"decoding took {limits.max_wall_seconds:g} s", "max_wall_seconds")
        ready = {fd for fd, _ in self._poll.poll(1000 * min(limits.stall_seconds, remaining))}
        if self._err in ready:
            data = os.read(self._err, 1 << 16)
            self._log(data)
            if not data:
                self._drop(self._err)
        self._waited += time.monotonic() - began  # the log too: a flood of it must not last for ever
        if only and self._out in self._open:
            self._poll.register(self._out, select.POLLIN)
        if not ready and limits.stall_seconds < remaining:
            raise _limit(self.path, f"ffmpeg gave nothing for {limits.stall_seconds:g} s", "stall_seconds")
        return ready

    def _log(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-4096:]  # a line may be as long as the file likes
        for raw in lines if data else [self._partial]:
            match = _LOG_LINE.match(raw.decode("utf-8", "replace"))
            if not match:
                continue
            level, text = match.groups()
            if level in ("error", "fatal", "panic"):
                self.num_errors += 1
                self.errors.append(text.strip()[:300].replace(f"file:/proc/self/fd/{self._file}", "the file"))
            elif self._shown is None and (shown := _SHOWN.match(text)):
                self._shown = int(shown[1]), float(shown[2])
            elif text.startswith("Input #0"):
                self.header = [text]
            elif self.header is not None and len(self.header) < 10_000:
                self.header.append(text[:2000])


def _open_regular(path: Path) -> int:
    try:
        # Ask before opening, since opening alone can hang (FIFO) or act (device); and again in case it was swapped.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError(f"{_show(path)} is not a regular file; give the path of a media file on this machine")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot open {_show(path)}: {reason}; give the path of a readable file") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return descriptor
    os.close(descriptor)
    raise MediaError(f"{_show(path)} is {'empty' if stat.S_ISREG(status.st_mode) else 'not a regular file'}")


def _limit(path: Path, what: str, key: str) -> LimitError:
    return LimitError(f"{_show(path)} is refused: {what}; raise limits.{key} if you trust the file")


def _show(path: Path) -> str:
    """The path in quotes, printable whatever its name holds."""
    return repr(str(path))


def _threads() -> int:
    return min(len(os.sched_getaffinity(0)), 8)  # each decoder thread holds frames


# ---- what ffmpeg prints of its input


def parse_header(path: Path, lines: list[str], limits: MediaLimits) -> MediaInfo:
    """MediaInfo from the lines that ffmpeg prints of its input. Raises MediaError, LimitError."""
    start = re.match(r"Input #0, ([\w,]+?)(?:,[\w,]*)?, from ", lines[0]) if lines else None
    container = start[1] if start else "unknown"
    duration: float | None = None
    videos: list[tuple[tuple[bool, int], VideoStream]] = []
    audios: list[tuple[tuple[bool, int], AudioStream]] = []
    seen: set[int] = set()
    parsed: set[int] = set()
    rotations: dict[int, int] = {}
    index = -1
    for line in lines:
        if line.startswith(("Output #", "Stream mapping")):
            break
        if match := re.match(r"  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", line):
            duration = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
        elif match := re.match(
            r" +displaymatrix: rotation of (-?\d+(?:\.\d+)?) deg", line.replace("Display M", "displaym")
        ):
            turns = -float(match[1]) / 90
            rotations[index] = round(turns) * 90 % 360 if abs(turns - round(turns)) < 0.01 else 0
        elif match := re.match(r"  Stream #0:(\d+)", line):
            index = int(match[1])
            seen.add(index)
    for line in lines:
        if line.startswith(("Output #", "Stream mapping")):
            break
        match = _STREAM.match(line)
        if not match or int(match[1]) in parsed:
            continue  # a stream of several programs is printed with each
        index, parts = int(match[1]), _split(match[3])
        parsed.add(index)
        default = "(default)" in parts[-1]
        if match[2] == "Audio":
            if audio := _parse_audio(index, parts):
                audios.append(((default, audio.channels), audio))
        elif not _COVER.search(parts[-1]) and (video := _parse_video(index, parts, rotations.get(index, 0))):
            videos.append(((default, video.coded_width * video.coded_height), video))
    best_video = max(videos, key=lambda item: item[0])[1] if videos else None
    best_audio = max(audios, key=lambda item: item[0])[1] if audios else None
    if len(seen) > limits.max_streams:
        raise _limit(path, f"it has {len(seen)} streams, more than {limits.max_streams}", "max_streams")
    if duration is not None and duration > limits.max_duration_seconds:
        what = f"it lasts {duration:.0f} s, more than {limits.max_duration_seconds:g} s"
        raise _limit(path, what, "max_duration_seconds")
    if best_video and best_video.coded_width * best_video.coded_height > limits.max_pixels:
        size = f"{best_video.coded_width} x {best_video.coded_height}"
        raise _limit(path, f"its pictures are {size}, more than {limits.max_pixels} pixels", "max_pixels")
    return MediaInfo(path, container, duration, len(seen), best_video, best_audio)


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth = max(0, depth + (char in "([") - (char in ")]"))
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _parse_video(index: int, parts: list[str], rotation: int) -> VideoStream | None:
    """e.g. h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), 320x240 [SAR 1:1 DAR 4:3], 25 fps"""
    sizes = [match for part in parts[1:] if (match := re.match(r"(\d{1,6})x(\d{1,6})\b", part))]
    if not sizes or len(parts) < 3:
        return None  # no picture was found: it cannot be decoded
    coded_width, coded_height = int(sizes[0][1]), int(sizes[0][2])
    if not coded_width or not coded_height:
        return None
    pix_fmt, _, detail = parts[1].partition("(")
    details = [part.strip() for part in detail.removesuffix(")").split(",")]
    width, height = _square(coded_width, coded_height, parts)
    if rotation in (90, 270):
        width, height = height, width
    spaces = [_MATRICES[name] for part in details if (name := part.split("/")[0]) in _MATRICES]
    default = "bt709" if coded_width >= 1280 or coded_height > 576 else "bt601"
    gray = pix_fmt.startswith(("gray", "ya", "mono"))
    rates = [float(match[1]) for part in parts if (match := re.fullmatch(r"(\d+(?:\.\d+)?) fps", part))]
    return VideoStream(
        index=index,
        codec=parts[0].split(" ")[0],
        pix_fmt=pix_fmt,
        coded_width=coded_width,
        coded_height=coded_height,
        width=width,
        height=height,
        rotation_degrees=rotation,
        fps=rates[0] if rates else None,
        color_matrix=spaces[0] if spaces else default,
        full_range="pc" in details or pix_fmt.startswith("yuvj") or gray,
        interlaced=any(re.match(r"(top|bottom) .*first", part) for part in details),
    )


def _square(width: int, height: int, parts: list[str]) -> tuple[int, int]:
    """The size in square pixels. One side grows; none shrinks, so that no detail is lost."""
    ratios = [match for part in parts if (match := re.search(r"SAR (\d+):(\d+)", part))]
    num, den = (int(ratios[-1][1]), int(ratios[-1][2])) if ratios else (1, 1)
    if num > den > 0:
        return round(width * num / den), height
    if den > num > 0:
        return width, round(height * den / num)
    return width, height


_CHANNELS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8, "hexadecagonal": 16}


def _parse_audio(index: int, parts: list[str]) -> AudioStream | None:
    """e.g. aac (LC) (mp4a / 0x6134706D), 44100 Hz, 5.1(side), fltp, 69 kb/s"""
    rates = [int(match[1]) for part in parts if (match := re.fullmatch(r"(\d{1,9}) Hz", part))]
    if not rates or not rates[0] or len(parts) < 3:
        return None
    layout = parts[2]
    name = layout.split("(")[0]
    if match := re.match(r"(\d{1,3}) channels", layout):
        channels = int(match[1])
    elif match := re.match(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?", layout):
        channels = sum(int(group) for group in match.groups("0"))
    else:
        channels = _CHANNELS.get(name, 1)
    return AudioStream(index, parts[0].split(" ")[0], rates[0], layout, channels)
