"""Which ffmpeg decodes, and whether it can."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from avdetect.errors import ToolError

VARIABLE = "AVDETECT_FFMPEG"  # a path; processes that are started inherit it
_CARRIED = "`pip install imageio-ffmpeg` brings one"
_OLDEST = "5.1"
# What the readers ask of an ffmpeg, on one picture of our own.
_TRIAL = (
    *("-hide_banner", "-nostdin", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "16x16"),
    *("-i", "pipe:0", "-filter_complex", "[0]fps=25,split[a][b]", "-map", "[a]", "-fps_mode", "passthrough"),
    *("-c:v", "wrapped_avframe", "-enc_time_base", "1/1000000", "-f", "framecrc", "-flush_packets", "1", "pipe:1"),
    *("-map", "[b]", "-fps_mode", "passthrough", "-f", "yuv4mpegpipe", "pipe:2"),
)


def ffmpeg_path() -> str:
    """The ffmpeg to run: the one that AVDETECT_FFMPEG names, else the one that imageio-ffmpeg carries, else the one on
    PATH. Raises ToolError.
    """
    named = os.environ.get(VARIABLE)
    if named and not shutil.which(named):
        raise ToolError(f"no ffmpeg: {named} is no program; name another ({VARIABLE}, --ffmpeg), or none: {_CARRIED}")
    return named or _found()


@cache
def _found() -> str:
    try:
        import imageio_ffmpeg
    except ImportError:
        pass
    else:
        # Where its wheel puts the binary: get_ffmpeg_exe would first run it once, 50 ms for nothing.
        carried = sorted((Path(imageio_ffmpeg.__file__).parent / "binaries").glob("ffmpeg-*"))
        if carried:
            return str(carried[0])
    if on_path := shutil.which("ffmpeg"):
        return on_path
    raise ToolError(f"no ffmpeg: {_CARRIED}, or name one ({VARIABLE}, --ffmpeg)")


def check_ffmpeg() -> str:
    """The first line of its version, for people. Raises ToolError if it does not run or is too old for what we ask."""
    return _checked(ffmpeg_path())


@cache
def _checked(path: str) -> str:
    remedy = f"name another ({VARIABLE}, --ffmpeg), or none: {_CARRIED}"
    said = b""
    for arguments in (_TRIAL, ("-version",)):
        try:
            done = subprocess.run([path, *arguments], input=bytes(384), capture_output=True, timeout=20, check=False)
        except OSError as error:
            raise ToolError(f"the ffmpeg {path} does not run ({error.strerror}); {remedy}") from error
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"the ffmpeg {path} does not end; {remedy}") from error
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = (words[-1][:200] if words else f"status {done.returncode}") if done.returncode else None
        if arguments is _TRIAL and not done.returncode and not (done.stdout and done.stderr.startswith(b"YUV4MPEG2")):
            why = "it decodes nothing"
        if why:
            raise ToolError(f"the ffmpeg {path} is broken, or older than {_OLDEST} ({why}); {remedy}")
        said = done.stdout
    return said.decode("utf-8", "replace").partition("\n")[0]
