"""What a worker of the hostile campaign must be caught at: it does what the name of the file says."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from avdetect._media import probe
from avdetect._media.child import Child
from avdetect._media.facts import Facts, StreamFacts
from avdetect.preprocess import ClipStream, Preprocessor


def let_ffmpeg_open_anything() -> None:
    """As if nobody had thought of playlists, and PyAV took them for films."""
    confine = Child.__init__

    def careless(self: Child, *arguments: Any, **options: Any) -> None:
        confine(self, *arguments, **options)
        self.options = {"protocol_whitelist": "file,http,tcp,concat,subfile", "allowed_extensions": "ALL", "safe": 0}
        self.options |= {"f": "hls"}

    Child.__init__ = careless  # type: ignore[method-assign]
    film = StreamFacts(kind="video", codec="h264", width=16, height=16)
    probe.parsed = lambda text: Facts(streams=(film,), streams_found=1)  # type: ignore[assignment]


def leave_things_behind() -> None:
    open("left.txt", "w").close()
    os.dup(0)
    os.write(2, b"noise\n")
    subprocess.Popen(["sleep", "60"])


ACTS = {
    "have_a_bug": lambda: 1 / 0,
    "open_anything": let_ffmpeg_open_anything,  # until the worker ends
    "call_somebody": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "leave_things": leave_things_behind,
    "never_end": lambda: time.sleep(600),
}


def misbehave() -> None:
    """Run in the worker, before it scores anything."""
    opened = Preprocessor.open

    def acting(self: Preprocessor, path: str, *arguments: Any, **options: Any) -> ClipStream:
        ACTS[Path(path).stem]()
        return opened(self, path, *arguments, **options)

    Preprocessor.open = acting  # type: ignore[method-assign, assignment]
