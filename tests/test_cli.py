"""The command line as a user meets it: a subprocess, exit codes, pipes and a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import pandas as pd
import pytest
import typer
from batch_commands import ROOT
from conftest import Here
from hostile_graphs import bundle_with

from avdetect import cli, doctor
from avdetect.bundle import DEFAULT_BUNDLE
from avdetect.cli import console
from avdetect.cli.options import seconds
from avdetect.report.data import SCHEMA_FILE

SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"
COMMAND = [sys.executable, "-m", "avdetect.cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip, an empty file, and a clip whose name begins with a dash."""
    path = tmp_path_factory.mktemp("cli")
    for name in ("good.mp4", "-dash.mp4"):
        shutil.copy(SAMPLE, path / name)
    (path / "empty.mp4").touch()
    return path


def test_one_file_gives_a_report(folder: Path, here: Here) -> None:
    done = here("score", "--duration", 2, "--", "-dash.mp4", cwd=folder, code=0)
    assert done.stderr == ""  # no progress bar in a pipe
    assert "\x1b" not in done.stdout
    words = ("-dash.mp4", "P(fake) =", "face", "voice", "match")
    assert [word for word in words if word not in done.stdout] == []
    assert any(verdict in done.stdout for verdict in ("FAKE", "UNDECIDED", "NO SIGN FOUND"))


STEERS = "bad\x1b[2Jname\n.mp4"


def test_what_cannot_be_read_is_one_line(tmp_path: Path, here: Here) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / STEERS).touch()
    for name in ("text.mp4", "absent.mp4", "http://localhost/x.mp4", "concat:a|b", STEERS):
        done = here("score", name, cwd=tmp_path, code=1)
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("avdetect: ")


def test_wrong_usage_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ("x.mp4 --nonsense", "none*.mp4", "x --device abacus", "x --detector eyes", "x --start -1"):
        assert cli.run(["score", *words.split()]) == 2


def test_a_limit_can_be_raised_and_lowered(folder: Path, tmp_path: Path, here: Here) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("max_duration_seconds: 2\n")
    done = here("score", "good.mp4", "--limits", str(limits), cwd=folder, code=1)
    assert "max_duration_seconds" in done.stderr
    assert "Error" not in done.stderr, "people read a sentence, and JSON has the class"
    done = here("score", "good.mp4", "--limits", str(limits), "--json", cwd=folder, code=1)
    assert json.loads(done.stdout)["results"][0]["error"] == "LimitError"
    limits.write_text("max_durations: 2\n")
    assert cli.run(["score", "x.mp4", "--limits", str(limits)]) == 2


def test_a_table_fits_a_terminal_of_80_columns(folder: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    command = [*COMMAND, "score", "good.mp4", "empty.mp4", "--duration", "0.5"]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, cwd=folder, env=environment
    ) as child:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:  # EIO: the other end is closed
            pass
        os.close(master)
        child.communicate(timeout=60)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().replace("\r", ""))
    assert "good.mp4" in text
    assert "failed" in text
    good = next(line for line in text.splitlines() if line.startswith("good.mp4"))
    assert re.search(r" 0\.\d\d 0\.\d\d ", good), "a file's numbers stand beside its name"
    assert "\n'empty.mp4'" in text, "why a file failed stands below"
    assert max(map(len, text.splitlines())) <= 80


def test_a_script_gives_the_exit_codes_that_it_gave(tmp_path: Path, capsys) -> None:
    """What is configured wrongly ends a script with 1 and the command with 2; an unknown option ends both with 2."""
    for command in ("train", "export", "forge", "prepare", "preprocess"):
        assert cli.run_script(command, ["--nonsense"]) == cli.run([command, "--nonsense"]) == 2
    (values := tmp_path / "c.yaml").write_text("nothing: 1\n")
    for command, *given in (
        ("preprocess", "--manifest", "m.csv", "--cache", "c", "--config", str(values)),
        ("forge", "x.mp4", "--out", "o", "--method", "none"),
    ):
        capsys.readouterr()
        assert (cli.run_script(command, given), cli.run([command, *given])) == (1, 2)
        script, whole = capsys.readouterr().err.splitlines()
        assert script.startswith(f"{command}: ")
        assert whole == script.replace(f"{command}: ", "avdetect: ", 1)


def test_doctor_is_coloured_on_a_terminal_and_what_it_names_cannot_steer_it(monkeypatch, capsys) -> None:
    checks = [doctor.Check("bundle", True, "na\x1bme"), doctor.Check("ffmpeg", True, "fine")]
    monkeypatch.setattr(doctor, "run_checks", lambda *_: checks)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cli.check.doctor()
    first, second = capsys.readouterr().out.splitlines()
    assert second == "\x1b[32mok  \x1b[0m ffmpeg: fine"
    assert first.endswith("bundle: na\\x1bme")


def test_doctor_replays_the_bundle_and_finds_a_damaged_one(tmp_path: Path, here: Here, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", {})  # to import every extra takes long
    assert here("doctor", cwd=tmp_path, code=0).stdout.count("ok  ") >= 7
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    graph = bundle / "audio.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    assert "audio.onnx differs from its hash" in here("doctor", "--bundle", str(bundle), code=1).stdout
    # Nor can one steer the terminal.
    folder = bundle_with(tmp_path / "b")
    text = (folder / "bundle.json").read_text()
    licence = json.dumps(json.loads(text)["licence"])
    (folder / "bundle.json").write_text(text.replace(licence, json.dumps("\x1b[2J\x1b]0;owned\x07MIT")))
    assert "owned" in here("doctor", "--bundle", str(folder), code=0).stdout
    (folder / "bundle.json").write_text('{"format": [9], "avdetect_version": "\\u001b[2J"}')
    assert "[2J" in here("score", "x.mp4", "--bundle", str(folder), code=1).stderr


def test_a_full_disk_is_one_line(folder: Path, tmp_path: Path, here: Here, capsys) -> None:
    command = [*COMMAND, "score", str(folder / "good.mp4"), "--duration", "0:01", "--json", "--out=r.csv"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT)
    said = "avdetect: cannot write to standard output: No space left on device; "
    assert (done.returncode, done.stderr.startswith(f"{said}what is scored is kept for --out")) == (1, True)
    assert len(done.stderr.strip().splitlines()) == 1
    assert pd.read_csv(tmp_path / "r.csv")["status"].tolist() == ["scored"]
    full_stream = Mock(isatty=lambda: False, write=Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full_stream)
        assert cli.run(["score", str(folder / "empty.mp4"), "good.mp4"]) == 1
    assert capsys.readouterr().err == f"{said}use --out to keep a copy\n"


def test_a_command_without_standard_streams_still_writes_its_table(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    command = [*COMMAND, "score", "good.mp4", "--duration", "1", "--out", str(out)]
    shell = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "-", *command]
    done = subprocess.run(shell, capture_output=True, cwd=folder, env=ENVIRONMENT, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert pd.read_csv(out)["status"].tolist() == ["scored"]


def test_another_encoding_than_utf_8_loses_nothing(tmp_path: Path, here: Here, monkeypatch) -> None:
    name, encoding = "é 日本 🙂.mp4", "ascii"
    shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "ö.txt").touch()
    shown = name.encode(encoding, "backslashreplace").decode(encoding)
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> str:
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        with monkeypatch.context() as patch:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, stream)
            console.escape_what_cannot_be_shown()
            cli.run(["score", *arguments, "--duration", "0.5"])
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    text = said(name)
    assert shown in text
    assert "\\u2588" not in text  # the bars
    document = json.loads(said(name, "--json"))
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert document["results"][0]["path"] == name
    assert shown in said(f"absent {name}")
    assert shown in said(".")
    said(".", "--out", "t.csv")
    assert pd.read_csv(tmp_path / "t.csv", encoding="utf-8")["path"].tolist() == [f"./{name}"]


def test_a_time_is_seconds_or_minutes_and_seconds() -> None:
    given = {0.0: 0, "90": 90, "1.5": 1.5, ".5": 0.5, "5.": 5, "1:30": 90, "0:01:30.25": 90.25, "100:00": 6000}
    assert {text: seconds(text) for text in given} == given
    for wrong in ("", ".", "-1", "nan", "1e3", "1:x", "1:2:3:4", "1:90", "1:60:00", ":30", "1:-30", "١"):
        with pytest.raises(typer.BadParameter, match="1:30"):
            seconds(wrong)
