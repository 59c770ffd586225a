"""One run of ffmpeg with bytes in and bytes out: its limits, and its complaints as typed errors."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from typing import Any

from avdetect._media.tool import ffmpeg_path
from avdetect.errors import MediaError, ToolError

# One thread: the work beside it has the other cores, and the same input gives the same bytes.
ONE_THREAD = {"threads": 1}
BIT_EXACT = {"fflags": "+bitexact"}  # no version strings and no random identifiers in what is written
# What ffmpeg says last is often general; what it said before tells more.
_GENERAL = re.compile(
    r"Conversion failed|Terminating thread|Task finished|Nothing was written|Error (while|opening|initializing)|"
    r"Could not open encoder"
)
_log = logging.getLogger(__name__)
_GLOBAL = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-filter_complex_threads", "1")


def run_ffmpeg(output: Any, what: str, data: bytes = b"", *, seconds: float = 60.0) -> bytes:
    """Run an ffmpeg-python output with `data` on its pipe:0; what it wrote to pipe:1.

    `what` completes "ffmpeg could not ...". Raises ToolError if ffmpeg cannot run, lacks an encoder or takes longer
    than `seconds`; MediaError, with the last telling line of its log, for everything else. Damage that it survived is
    logged as a warning.
    """
    # A clean environment: FFREPORT would write a log file.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    command = output.global_args(*_GLOBAL).compile(cmd=ffmpeg_path())
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=seconds, env=environment | {"LC_ALL": "C"}, check=False
        )
    except OSError as error:
        raise ToolError(f"cannot run {ffmpeg_path()}: {error.strerror}; install ffmpeg or imageio-ffmpeg") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"ffmpeg could not {what} within {seconds:g} s; is the machine overloaded?") from error
    text = done.stderr.decode("utf-8", "replace")
    lines = [re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *", "", line).strip() for line in text.splitlines() if line.strip()]
    if done.returncode:
        raise _failure(lines, done.returncode, what)
    if lines:
        _log.warning("asked to %s, ffmpeg did so but gave %d errors, at last: %s", what, len(lines), lines[-1])
    return done.stdout


def _failure(lines: list[str], status: int, what: str) -> MediaError | ToolError:
    for line in lines:
        if "Unknown encoder" in line:
            return ToolError(
                f"ffmpeg could not {what}: {line}; let AVDETECT_FFMPEG name one with this encoder, or none "
                "and `pip install imageio-ffmpeg`, whose binary has libx264, libx265, libvpx-vp9, aac, libopus and "
                "libmp3lame"
            )
    reason = next((line for line in reversed(lines) if not _GENERAL.match(line)), lines[-1] if lines else "")
    reason = reason or f"status {status}"
    return MediaError(f"ffmpeg could not {what} ({reason}); check that the input is whole and that the disk has room")
