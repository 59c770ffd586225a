"""Which ffmpeg decodes, and whether it can."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from avdetect._media.sandbox import confined, sandbox
from avdetect.errors import ToolError

VARIABLE = "AVDETECT_FFMPEG"  # a path; processes that are started inherit it
_CARRIED = "`pip install imageio-ffmpeg` brings one"
_REMEDY = f"name another ({VARIABLE}, --ffmpeg), or none: {_CARRIED}"
_OLDEST = "5.1"
# What the readers ask of an ffmpeg, on one picture of our own.
_PICTURE = bytes(16 * 16 * 3 // 2)
_TRIAL = (
    *("-hide_banner", "-nostdin", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "16x16"),
    *("-i", "pipe:0", "-filter_complex", "[0]fps=25,split[a][b]", "-map", "[a]", "-fps_mode", "passthrough"),
    *("-c:v", "wrapped_avframe", "-enc_time_base", "1/1000000", "-f", "framecrc", "-flush_packets", "1", "pipe:1"),
    *("-map", "[b]", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:2"),
)


def ffmpeg_path() -> str:
    """The ffmpeg to run: the one that AVDETECT_FFMPEG names, else the one that imageio-ffmpeg carries, else the one on
    PATH. Raises ToolError."""
    named = os.environ.get(VARIABLE)
    if named and not shutil.which(named):
        raise ToolError(f"no ffmpeg: {named} is no program; {_REMEDY}")
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
    trial = _run(path, *_TRIAL)
    if not trial.stdout or trial.stderr != _PICTURE:
        raise _broken(path, "it decodes nothing")
    return _run(path, "-version").stdout.decode("utf-8", "replace").partition("\n")[0]


def _run(path: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """In the sandbox in which it will decode."""
    command = [path, *arguments]
    try:
        done = confined(lambda: subprocess.run(command, input=_PICTURE, capture_output=True, timeout=20), path)
    except OSError as error:
        raise ToolError(f"the ffmpeg {path} does not run ({error.strerror}); {_REMEDY}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"the ffmpeg {path} does not end; {_REMEDY}") from error
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _broken(path, words[-1][:200] if words else f"status {done.returncode}")
    return done


def _broken(path: str, why: str) -> ToolError:
    lacking = ", or needs files that its sandbox denies it" if sandbox() else ""
    return ToolError(f"the ffmpeg {path} is broken, or older than {_OLDEST}{lacking} ({why}); {_REMEDY}")
