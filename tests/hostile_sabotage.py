"""What a worker of the hostile campaign must be caught at: run in the worker, before it scores anything."""

from __future__ import annotations

import os
import socket
import subprocess
import time
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


def _before_each(act: object) -> None:
    opened = Preprocessor.open

    def acting(self: Preprocessor, *arguments: object, **options: object) -> ClipStream:
        act()  # type: ignore[operator]
        return opened(self, *arguments, **options)  # type: ignore[arg-type]

    Preprocessor.open = acting  # type: ignore[method-assign, assignment]


def leave_things_behind() -> None:
    def act() -> None:
        open("left.txt", "w").close()
        os.dup(0)
        os.write(2, b"noise\n")
        subprocess.Popen(["sleep", "60"])

    _before_each(act)


def have_a_bug() -> None:
    _before_each(lambda: 1 / 0)


def call_somebody() -> None:
    _before_each(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))


def never_end() -> None:
    _before_each(lambda: time.sleep(600))
