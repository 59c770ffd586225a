"""A confined process on one file: ffmpeg, which decodes it, or the script that describes it. `avdetect.media` says what
holds for it."""

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
from avdetect._media.sandbox import start
from avdetect.config import MediaLimits
from avdetect.errors import MediaError, ToolError

# Demuxers that read one file and cannot name another. Absent: hls, dash, concat, image2, sdp, lavfi, playlists, ...
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,nut,dv,ivf,gif,m4v,h264,hevc,obu,"
    "wav,w64,aiff,caf,au,mp3,aac,flac,ac3,eac3,amr"
)
# Decoders of what people have; some formats have two. Hardly anybody but an attacker looks at the hundreds of others,
# of old games and rare cameras.
DECODERS = ",".join(
    (
        "h264,hevc,vvc,av1,libdav1d,libaom-av1,vp8,vp9,libvpx,libvpx-vp9,vp6,vp6a,vp6f,vp3,theora,mpeg1video,mpeg2video",
        "mpegvideo,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,h261,h263,h263i,h263p,flv,wmv1,wmv2,wmv3,vc1,mjpeg,mjpegb,png,apng",
        "gif,webp,bmp,tiff,jpeg2000,rawvideo,yuv4,v210,v410,r10k,r210,prores,dnxhd,cfhd,dvvideo,ffv1,huffyuv,ffvhuff",
        "utvideo,magicyuv,lagarith,hap,qtrle,rpza,svq1,svq3,cinepak,indeo3,indeo4,indeo5,msvideo1,msrle,zmbv,flashsv",
        "flashsv2,aac,aac_fixed,aac_latm,mp1,mp1float,mp2,mp2float,mp3,mp3float,ac3,ac3_fixed,eac3,dca,mlp,truehd,opus",
        "libopus,vorbis,libvorbis,flac,alac,wavpack,tta,speex,libspeex,gsm,gsm_ms,ilbc,amrnb,amrwb,libopencore_amrnb",
        "libopencore_amrwb,wmav1,wmav2,wmapro,wmalossless,wmavoice,nellymoser,qdm2,qdmc,qcelp,mace3,mace6,dvaudio,s302m",
        "g722,g726,g726le,g723_1,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,pcm_alaw,pcm_mulaw,pcm_bluray",
        "pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_s8,pcm_u8,pcm_s16be,pcm_s16le,pcm_s16le_planar,pcm_u16be",
        "pcm_u16le,pcm_s24be,pcm_s24le,pcm_s24daud,pcm_u24be,pcm_u24le,pcm_s32be,pcm_s32le,pcm_u32be,pcm_u32le",
        # Of new phones, of 3G2, of screen recorders and slide shows, of Apple's, Canopus's and NewTek's editors, of
        # China's broadcasters; and what stands in for h264 and aac in the ffmpeg of some distributions.
        "apv,prores_raw,evrc,camtasia,tscc2,camstudio,fraps,mss2,wmv3image,vc1image,truespeech,aic,hq_hqa,hqx,speedhq",
        "cavs,libdavs2,libuavs3d,libopenh264,libfdk_aac",
    )
)
_LONGEST_POLL_SECONDS = 1e6  # poll takes no more milliseconds than fit into an int


class Child:
    """One process on one file. A context manager: leaving it kills and reaps the process.

    `fill` gives out its standard output. What comes from its other pipes goes to the function given to `pipe`; from
    its standard error to `receive`. Whoever waits gets a LimitError when the process takes too long.
    """

    name = "the child"  # in messages
    remedy = "check the installation"

    @property
    def readable(self) -> tuple[str, ...]:
        """Files and folders that it needs, beside the file and what every child can read (see `sandbox`)."""
        return ()

    def __init__(self, path: Path, limits: MediaLimits, cores: int = 1, waited: float = 0.0) -> None:
        self.path, self.limits, self._cores = path, limits, cores
        self.waited = waited  # seconds, for this child and for those before it that did the same
        self._process: subprocess.Popen[bytes] | None = None
        self._receivers: dict[int, Callable[[bytes], None]] = {}  # of the descriptors to read
        self._given: list[int] = []  # descriptors of the child that we still hold
        self._open: set[int] = set()  # descriptors to read that have not ended
        self._file = _open_regular(path)
        self.url = f"file:/proc/self/fd/{self._file}"
        # Options of libavformat and libavcodec, for whatever reads the file.
        self.options: dict[str, Any] = {
            "protocol_whitelist": "file",
            "format_whitelist": FORMATS,
            "codec_whitelist": DECODERS,
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
        for descriptor in self._receivers:
            os.close(descriptor)

    def pipe(self, receive: Callable[[bytes], None]) -> int:
        """Before `run`: a descriptor that the child may write to. `receive` gets what comes, and nothing at its end."""
        try:
            read, write = map(_above_standard, os.pipe())
        except OSError as error:
            raise ToolError(f"cannot run {self.name}: {error.strerror}; close files or raise `ulimit -n`") from error
        self._receivers[read] = receive
        self._given.append(write)
        return write

    def run(self, command: Sequence[str]) -> None:
        """Start `command`. Raises ToolError if it cannot be."""
        # A clean environment: FFREPORT would write a log file. Each arena reserves 64 MB of address space.
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        errors = self.pipe(self.receive)
        try:
            self._process = start(
                command,
                self._file,
                self.readable,
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
        self._open = {self._out, *self._receivers}
        self._confine(self._process.pid)

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

    def receive(self, data: bytes) -> None:
        """Take in what the process wrote to its standard error; nothing: it has ended."""

    def fill(self, *buffers: Any) -> int:
        """Fill the buffers in order; the number of bytes, fewer than asked only at the end."""
        left, total = [memoryview(buffer).cast("B") for buffer in buffers], 0
        while left and self._out in self._open:
            if self._out not in self._wait(self._open):
                continue
            count = got = os.readv(self._out, left[:64])
            if not count:
                self._open.discard(self._out)
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
            total += got
        return total

    def output(self, most: int) -> bytes:
        """All of it, or its first `most` bytes."""
        buffer = bytearray(most)
        return bytes(buffer[: self.fill(buffer)])

    def listen(self, seconds: float | None = None) -> bool:
        """Hear what comes, for at most so many seconds; False if nothing came, or all has ended."""
        heard = self._open - {self._out}
        if not heard or (seconds is not None and not _ready(heard, seconds)):
            return False
        self._wait(heard)
        return bool(self._open - {self._out})

    def finish(self) -> None:
        """After the output's end: hear the rest, and reap."""
        while self.listen():
            pass
        assert self._process is not None
        try:
            self._process.wait(self.limits.stall_seconds)
        except subprocess.TimeoutExpired:
            raise refusal(self.path, f"{self.name} does not end", "stall_seconds") from None

    def _wait(self, descriptors: set[int]) -> set[int]:
        """Wait until one of them has data, hear what has come, and return those that were ready."""
        limits = self.limits
        began = time.monotonic()
        remaining = limits.max_wall_seconds - self.waited
        if remaining <= 0:
            raise refusal(self.path, f"decoding took {limits.max_wall_seconds:g} s", "max_wall_seconds")
        ready = _ready(descriptors, min(limits.stall_seconds, remaining, _LONGEST_POLL_SECONDS))
        for descriptor in ready & set(self._receivers):
            data = os.read(descriptor, 1 << 16)
            self._receivers[descriptor](data)
            if not data:
                self._open.discard(descriptor)
        self.waited += time.monotonic() - began  # what is heard too: a flood of it must not last for ever
        if not ready and limits.stall_seconds < remaining:
            raise refusal(self.path, f"{self.name} gave nothing for {limits.stall_seconds:g} s", "stall_seconds")
        return ready


def _ready(descriptors: set[int], seconds: float) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(1000 * seconds)}


def _open_regular(path: Path) -> int:
    try:
        # Ask before opening, since opening alone can hang (FIFO) or act (device); and again in case it was swapped.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError(f"{quoted(path)} is not a regular file; give the path of a media file on this machine")
        descriptor = _above_standard(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
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
