"""What workers of the tests of avdetect.serve do: the text of the upload says it.

a number    that P(fake)
die         the process kills itself
hang        for ever, with a child process
slow        tells its progress for some seconds, or until the upload is gone, then as 0.9
abstain     there is nothing to judge
bad         a MediaError that names the file
model       a ModelError that holds a path
bug         an exception that is none of ours
undecoded   a MediaError that no database takes
full        the disk is full
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from avdetect.errors import MediaError, ModelError
from avdetect.serve.worker import UPLOAD, Say, Task
from avdetect.types import Detection

SECRET = "/srv/secret/bundle"
SCRIPT = "<script>document.getElementById('click').textContent = 'script ran'</script>"


def page(name: str) -> str:
    return f"<!doctype html><title>{name}</title><h1>{name}</h1><p id='click'>not yet</p>{SCRIPT}"


def made_up(task: Task, fake: float | None) -> Detection:
    return Detection(
        path=task.name,
        verdict="abstain" if fake is None else "fake" if fake >= 0.5 else "no sign found",
        reason="nothing to judge" if fake is None else "the voice looks manipulated",
        start_seconds=task.options.start_seconds,
        duration_seconds=task.options.duration_seconds or 2.0,
        **{"fake": fake, "audio_fake": fake, "fake_threshold": 0.5, "undecided_threshold": 0.5},
        **dict.fromkeys(("video_fake", "mismatch", "sync")),
        **dict.fromkeys(("streams", "tracks", "segments", "warnings"), ()),
        missing={"visual": "no face"},
        model={},
        timing_seconds={"total": 0.1},
        limit="A score is not proof.",
    )


def by_text(task: Task, say: Say) -> tuple[Detection, str]:
    """Does what the upload says."""
    text = Path(UPLOAD).read_text(errors="replace").strip()
    say("reading", 0.0)
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "hang":
        command = [sys.executable, "-c", "import time; time.sleep(60)"]  # an orphan must not stay for ever
        with subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as child:
            Path("child").write_text(str(child.pid))
            say("scoring", 0.5)
            time.sleep(3600)
    if text == "slow":
        for step in range(30):
            say("scoring", step / 30)
            time.sleep(0.1 if os.path.exists(UPLOAD) else 0)
        say("explaining", 0.0)
        text = "0.9"
    if text == "model":
        raise ModelError(f"there is no bundle in {SECRET}")
    if text == "bug":
        raise ZeroDivisionError(SECRET)
    if text == "undecoded":
        raise MediaError("no such codec: \udc80")
    if text == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), SECRET)
    try:
        fake = None if text == "abstain" else float(text)
    except ValueError:
        raise MediaError(f"{UPLOAD!r} cannot be read as audio or video (moov atom not found)") from None
    return made_up(task, fake), page(task.name)
