"""ffmpeg as an encoder, for `augment` and `forgeries`: the only place where it writes.

It gets our own frames and samples, or a file that `avdetect.media` has probed, by the same closed formats.
"""

import logging
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from avdetect._media.child import FORMATS
from avdetect._media.messages import quoted, telling
from avdetect._media.tool import ffmpeg_path
from avdetect.config import MediaLimits
from avdetect.errors import MediaError, ToolError
from avdetect.files import replacing

# One thread: the work beside it has the other cores, and the same input gives the same bytes.
ONE_THREAD = {"threads": 1}
BIT_EXACT = {"fflags": "+bitexact"}  # no version strings and no random identifiers in what is written
MATRICES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}  # ours -> ffmpeg's
_GLOBAL = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-filter_complex_threads", "1")
_log = logging.getLogger(__name__)


def opened(path: Path) -> Any:
    """The file as an input of ffmpeg-python: its name is only a name, and it can name no other file."""
    import ffmpeg  # 60 ms: not at import of this module

    return ffmpeg.input(f"file:{path.absolute()}", protocol_whitelist="file", format_whitelist=FORMATS, **ONE_THREAD)


def write_media(
    streams: Sequence[Any],
    target: Path,
    what: str,
    data: Iterable[bytes] = (),
    beside: Sequence[Any] = (),
    **options: Any,
) -> None:
    """Encode `streams` into `target`, which appears when it is whole, without metadata. beside: other outputs. options:
    ffmpeg's, of the target. The rest as in `run_ffmpeg`. Raises MediaError, ToolError."""
    import ffmpeg

    try:
        with replacing(target.absolute()) as file:
            output = ffmpeg.output(*streams, f"file:{file.name}", map_metadata=-1, **options)
            whole = ffmpeg.merge_outputs(output, *beside).overwrite_output()
            run_ffmpeg(whole, what, data, seconds=MediaLimits().max_wall_seconds)
    except OSError as error:
        raise MediaError(f"cannot write {quoted(target)}: {error.strerror}; check the folder and the disk") from error


def run_ffmpeg(output: Any, what: str, data: Iterable[bytes] = (), *, seconds: float = 60.0) -> bytes:
    """Run an ffmpeg-python output with `data` on its pipe:0; what it wrote to pipe:1.

    `what` completes "ffmpeg could not ...". Raises ToolError if ffmpeg cannot run, lacks an encoder or takes longer
    than `seconds`, MediaError for everything else. Damage that it survived is logged as a warning.
    """
    # A clean environment: FFREPORT would write a log file. Its own session: Ctrl-C is ours to handle.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    command = output.global_args(*_GLOBAL).compile(cmd=ffmpeg_path())
    began = time.monotonic()
    with tempfile.TemporaryFile() as written, tempfile.TemporaryFile() as log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": written, "stderr": log}
        try:
            process = subprocess.Popen(command, env=environment | {"LC_ALL": "C"}, start_new_session=True, **pipes)
        except OSError as error:
            raise ToolError(f"cannot run {command[0]}: {error.strerror}; install ffmpeg or imageio-ffmpeg") from error
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as pipe:  # else ffmpeg has ended, and its log says why
                pipe.writelines(data)
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        if status and time.monotonic() - began >= seconds:
            raise ToolError(f"ffmpeg could not {what} within {seconds:g} s; is the machine overloaded?")
        log.seek(0)
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        _complain([re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *", "", line) for line in lines], status, what)
        written.seek(0)
        return written.read()


def _complain(lines: list[str], status: int, what: str) -> None:
    lacking = next((line for line in lines if "Unknown encoder" in line), None)
    if status and lacking:
        raise ToolError(
            f"ffmpeg could not {what}: {lacking}; let AVDETECT_FFMPEG name one with this encoder, or none "
            "and `pip install imageio-ffmpeg`, whose binary has all that are used"
        )
    if status:
        reason = telling(lines) if lines else f"status {status}"
        raise MediaError(
            f"ffmpeg could not {what} ({reason}); check that the input is whole and that the disk has room"
        )
    if lines:
        _log.warning("asked to %s, ffmpeg did so but gave %d errors, at last: %s", what, len(lines), lines[-1])
