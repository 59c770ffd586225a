"""What a process that reads a stranger's file can touch, and with which decoders it reads."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from media_factory import encode

from avdetect._media.sandbox import sandbox, start
from avdetect._media.tool import ffmpeg_path
from avdetect.errors import MediaError, ToolError
from avdetect.media import MediaReader

needs_landlock = pytest.mark.skipif(sandbox() is None, reason="this kernel has no Landlock")
# Each line is tried by itself; what is denied comes out with its error's name.
_ATTACK = """
import json, os, socket, sys
media, secret, new, port = sys.argv[1:]
tried = {
    "media": lambda: open(media).read(),
    "secret": lambda: open(secret).read(),
    "list": lambda: os.listdir(os.path.dirname(secret)),
    "write": lambda: open(new, "w"),
    "remove": lambda: os.unlink(secret),
    "overwrite": lambda: open(media, "a"),
    "connect": lambda: socket.create_connection(("127.0.0.1", int(port)), 5),
    "signal": lambda: os.kill(os.getppid(), 0),
}
found = {}
for name, attempt in tried.items():
    try:
        found[name] = str(attempt())
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return encode(path, "-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=1")


@needs_landlock
def test_a_child_reads_its_file_and_touches_nothing_else(tmp_path: Path) -> None:
    media, secret = tmp_path / "media", tmp_path / "secret"
    media.write_text("of a stranger")
    secret.write_text("of the user")
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [str(media), str(secret), str(tmp_path / "new"), str(server.getsockname()[1])]
        command = [sys.executable, "-I", "-S", "-c", _ATTACK, *words]
        with media.open() as file, start(command, file.fileno(), stdout=subprocess.PIPE) as child:
            found = json.loads(child.stdout.read())
    assert found.pop("media") == "of a stranger"
    abi = int(str(sandbox()).rpartition(" ")[2])
    newer = {"connect": 4, "signal": 6}  # the ABI that denies it
    assert {what for what, outcome in found.items() if outcome != "PermissionError"} == {
        what for what, since in newer.items() if abi < since
    }
    assert secret.read_text() == "of the user"  # and this process has kept its rights


@needs_landlock
def test_a_program_among_files_of_its_user_reads_none_of_them(tmp_path: Path) -> None:
    program, secret = tmp_path / "show", tmp_path / "secret"
    shutil.copy("/bin/cat", program)
    secret.write_text("of the user")
    with secret.open() as own, (tmp_path / "media").open("w+") as file:
        for given, shown in ((file, b""), (own, b"of the user")):
            command = [str(program), str(secret)]
            with start(command, given.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
                assert child.stdout.read() == shown


@needs_landlock
def test_an_ffmpeg_that_needs_what_is_denied_is_blamed_not_the_file(clip: Path, tmp_path: Path, monkeypatch) -> None:
    hidden, script = tmp_path / "programs" / "ffmpeg", tmp_path / "bin" / "ffmpeg"
    for path in (hidden, script):
        path.parent.mkdir()
    shutil.copy(ffmpeg_path(), hidden)
    script.write_text(f'#!/bin/sh\nexec {hidden} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("AVDETECT_FFMPEG", str(script))
    with pytest.raises(ToolError, match="sandbox denies it"), MediaReader(clip) as reader:
        list(reader.video())
    monkeypatch.setenv("AVDETECT_FFMPEG", str(hidden))
    with MediaReader(clip) as reader:
        assert list(reader.video())


@needs_landlock
def test_a_thread_that_cannot_be_started_is_an_error_of_the_system(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(ToolError, match="can't start new thread"):
        MediaReader(clip)


def test_a_file_that_was_deleted_meanwhile_or_is_in_memory_is_read_from_its_descriptor(
    clip: Path, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.write_text("of a stranger")
    with media.open() as file:
        media.unlink()
        url = f"/proc/self/fd/{file.fileno()}"
        command = [sys.executable, "-I", "-S", "-c", "import sys; print(open(sys.argv[1]).read())", url]
        with start(command, file.fileno(), stdout=subprocess.PIPE, pass_fds=(file.fileno(),)) as child:
            assert child.stdout.read() == b"of a stranger\n"
    with pytest.raises(FileNotFoundError):  # a missing program is an error as without a sandbox
        start([str(tmp_path / "none")], 0)
    memory = os.memfd_create("clip")
    with open(memory, "wb") as file:
        file.write(clip.read_bytes())
        file.flush()
        with MediaReader(f"/proc/self/fd/{memory}") as reader:
            assert list(reader.video())


def test_a_decoder_that_nobody_needs_is_not_run(tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=5:duration=1")
    path = encode(tmp_path / "clip.avi", *picture, "-c:v", "asv2")
    with pytest.raises(MediaError, match="refused"), MediaReader(path) as reader:
        list(reader.video())
