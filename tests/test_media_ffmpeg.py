"""The processes that read a stranger's file: which ffmpeg it is; one that is mad, or lies; and what they can touch."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from media_factory import RENDERER, encode
from media_reading import LIMITS, pixels_of
from typer.testing import CliRunner

from avdetect._media import probe as probing
from avdetect._media import tool
from avdetect._media.sandbox import sandbox, start
from avdetect.cli import app
from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError, ToolError
from avdetect.media import MediaReader, check_ffmpeg, ffmpeg_path, probe


@pytest.mark.parametrize(
    "says",
    [
        "print('[' * 100_000)",
        "print('{\"streams\": ' + '1' * 100_000 + '}')",
        'print(\'{"streams": [{"kind": "video", "codec": "h264", "width": -5, "height": 1e9}]}\')',
        "print('{\"duration\": NaN}')",
        "print('x' * 9_000_000)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import time; time.sleep(60)",
        "import sys\nwhile True: print('x' * 10_000, file=sys.stderr)",
        "x = [bytearray(1 << 28) for _ in range(100)]",
    ],
)
def test_a_child_that_was_taken_over_gives_typed_errors(media, tmp_path, monkeypatch, says):
    script = tmp_path / "describe.py"
    script.write_text(says)
    monkeypatch.setattr(probing, "_SCRIPT", script)
    with pytest.raises((MediaError, LimitError)) as caught:
        probe(media("clap.mp4"), MediaLimits(stall_seconds=0.3, max_wall_seconds=0.6, max_memory_bytes=1 << 30))
    assert "clap.mp4" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_environment_chooses_and_the_carried_ffmpeg_comes_before_one_on_the_path(media, fake_ffmpeg, monkeypatch):
    script = fake_ffmpeg(f'exec {RENDERER} "$@"')
    assert ffmpeg_path() == str(script)
    assert len(pixels_of(media("clap.mp4"))[1]) == 50
    assert check_ffmpeg().startswith("ffmpeg version")
    monkeypatch.delenv(tool.VARIABLE)
    monkeypatch.setenv("PATH", str(script.parent))
    tool._found.cache_clear()
    assert ffmpeg_path() == RENDERER
    tool._found.cache_clear()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("echo 'error while loading shared libraries: libx264.so' >&2; exit 127", "libx264.so"),
        ("kill -SEGV $$", "status -11"),
        ("echo ffmpeg version 3.4", "decodes nothing"),
        # as ffmpeg 4 ends
        (f"for a; do [ $a = -fps_mode ] && echo 'Unrecognized option fps_mode.' >&2 && exit 1; done; {RENDERER} $@",
         "Unrecognized option fps_mode"),
    ],
)  # fmt: skip
def test_a_broken_or_old_ffmpeg_is_named(media, fake_ffmpeg, lines, says):
    script = fake_ffmpeg(lines)
    with MediaReader(media("clap.mp4"), limits=LIMITS) as reader, pytest.raises(ToolError, match=says) as caught:
        list(itertools.islice(reader.video(), 1))
    assert str(script) in str(caught.value)
    assert "max_memory_bytes" not in str(caught.value)


def test_the_option_chooses_for_all_that_is_started(media, monkeypatch):
    monkeypatch.delenv(tool.VARIABLE, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the option writes into it
    done = CliRunner().invoke(app, ["score", "--ffmpeg", "/nowhere/ffmpeg", str(media("clap.mp4"))])
    assert os.environ[tool.VARIABLE] == "/nowhere/ffmpeg"
    assert isinstance(done.exception, ToolError) or "/nowhere/ffmpeg is no program" in done.output
    with MediaReader(media("clap.mp4")) as reader, pytest.raises(ToolError, match=r"ffmpeg is no program.*install"):
        next(reader.audio(1.0))


@pytest.mark.parametrize(
    ("script", "says"),
    [("trap '' TERM INT; sleep 60 & wait", "stall_seconds"), ("yes x >&2", "max_wall_seconds"), ("exit 3", "status 3")],
)
def test_a_mad_ffmpeg_is_ended_and_an_error(media, fake_ffmpeg, script, says):
    fake_ffmpeg(script)
    with MediaReader(media("clap.mp4"), limits=LIMITS) as reader:
        reader.limits, began = MediaLimits(stall_seconds=0.3, max_wall_seconds=0.6), time.monotonic()
        with pytest.raises((MediaError, ToolError), match=says):
            list(reader.video())
    assert time.monotonic() - began < 30


# ---- what they can touch

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
def test_an_ffmpeg_that_needs_what_is_denied_is_blamed_not_the_file(media, tmp_path: Path, monkeypatch) -> None:
    hidden, script = tmp_path / "programs" / "ffmpeg", tmp_path / "bin" / "ffmpeg"
    for path in (hidden, script):
        path.parent.mkdir()
    shutil.copy(ffmpeg_path(), hidden)
    script.write_text(f'#!/bin/sh\nexec {hidden} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("AVDETECT_FFMPEG", str(script))
    with pytest.raises(ToolError, match="sandbox denies it"), MediaReader(media("clap.mp4")) as reader:
        list(reader.video())
    monkeypatch.setenv("AVDETECT_FFMPEG", str(hidden))
    with MediaReader(media("clap.mp4")) as reader:
        assert list(reader.video())


@needs_landlock
def test_a_thread_that_cannot_be_started_is_an_error_of_the_system(media, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(ToolError, match="can't start new thread"):
        MediaReader(media("clap.mp4"))


def test_a_file_that_was_deleted_meanwhile_or_is_in_memory_is_read_from_its_descriptor(media, tmp_path):
    gone = tmp_path / "media"
    gone.write_text("of a stranger")
    with gone.open() as file:
        gone.unlink()
        url = f"/proc/self/fd/{file.fileno()}"
        command = [sys.executable, "-I", "-S", "-c", "import sys; print(open(sys.argv[1]).read())", url]
        with start(command, file.fileno(), stdout=subprocess.PIPE, pass_fds=(file.fileno(),)) as child:
            assert child.stdout.read() == b"of a stranger\n"
    with pytest.raises(FileNotFoundError):  # a missing program is an error as without a sandbox
        start([str(tmp_path / "none")], 0)
    memory = os.memfd_create("clip")
    with open(memory, "wb") as file:
        file.write(media("clap.mp4").read_bytes())
        file.flush()
        with MediaReader(f"/proc/self/fd/{memory}") as reader:
            assert list(reader.video())


def test_a_decoder_that_nobody_needs_is_not_run(tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=5:duration=1")
    path = encode(tmp_path / "clip.avi", *picture, "-c:v", "asv2")
    with pytest.raises(MediaError, match="refused"), MediaReader(path) as reader:
        list(reader.video())
