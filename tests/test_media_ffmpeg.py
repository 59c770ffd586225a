"""Which ffmpeg is used; one that is mad, and a child that lies."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from media_factory import RENDERER
from media_reading import LIMITS, pixels_of, read_all
from typer.testing import CliRunner

from avdetect._media import probe as probing
from avdetect._media import tool
from avdetect.cli import app
from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError, ToolError
from avdetect.media import MediaReader, check_ffmpeg, ffmpeg_path, probe


@pytest.mark.parametrize(
    "says",
    [
        "print('{}')",
        "print('[' * 100_000)",
        "print('{\"streams\": ' + '1' * 100_000 + '}')",
        'print(\'{"streams": [{"kind": "video", "codec": "h264", "width": -5, "height": 1e9}]}\')',
        "print('{\"duration\": NaN}')",
        "print('x' * 9_000_000)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import time; time.sleep(60)",
        "while True: print('x' * 10_000)",
        "import sys\nwhile True: print('x' * 10_000, file=sys.stderr)",
        "x = [bytearray(1 << 28) for _ in range(100)]",
    ],
)
def test_a_child_that_was_taken_over_gives_typed_errors(media, tmp_path, monkeypatch, says):
    script = tmp_path / "describe.py"
    script.write_text(says)
    monkeypatch.setattr(probing, "_SCRIPT", script)
    with pytest.raises((MediaError, LimitError)) as caught:
        probe(media("clap.mp4"), MediaLimits(stall_seconds=0.5, max_wall_seconds=1, max_memory_bytes=1 << 30))
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
    began = time.monotonic()
    with pytest.raises((MediaError, ToolError), match=says):
        read_all(media("clap.mp4"), MediaLimits(stall_seconds=1, max_wall_seconds=1.5))
    assert time.monotonic() - began < 30
