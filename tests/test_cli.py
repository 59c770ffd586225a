"""The command line as a user meets it: a subprocess, exit codes, pipes and a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from avdetect import cli
from avdetect.report.data import CSV_COLUMNS, SCHEMA_FILE

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"


def avdetect(*args: str, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "avdetect.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip, an empty file, a text file named .mp4, and a clip whose name begins with a dash."""
    path = tmp_path_factory.mktemp("cli")
    shutil.copy(SAMPLE, path / "good.mp4")
    shutil.copy(SAMPLE, path / "-dash.mp4")
    (path / "empty.mp4").touch()
    (path / "text.mp4").write_text("this is not a video\n" * 50)
    return path


def test_one_file_gives_a_report(folder: Path) -> None:
    done = avdetect("score", "good.mp4", "--duration", "4", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar in a pipe
    for word in ("good.mp4", "P(fake) =", "face", "voice", "match", "offset"):
        assert word in done.stdout
    assert any(verdict in done.stdout for verdict in ("FAKE", "UNDECIDED", "NO SIGN FOUND"))


def test_json_follows_the_schema(folder: Path) -> None:
    done = avdetect("score", "good.mp4", "empty.mp4", "--json", cwd=folder)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    good, bad = document["results"]
    assert good["status"] == "scored"
    assert 0 < good["fake"] < 1
    assert {s["name"] for s in good["streams"]} == {"visual", "audio", "sync"}
    assert bad["status"] == "failed"
    assert bad["error"] == "MediaError"


def test_folder_in_a_pipe_gives_csv_and_out_writes_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    done = avdetect("score", str(folder), "--out", str(out), "--duration", "1")
    assert done.returncode == 1  # two files cannot be read, the batch goes on
    table = pd.read_csv(out)
    assert list(table.columns) == list(CSV_COLUMNS)
    assert [Path(p).name for p in table["path"]] == ["-dash.mp4", "empty.mp4", "good.mp4", "text.mp4"]
    assert list(table["status"]) == ["scored", "failed", "scored", "failed"]
    assert done.stdout == out.read_text()


def test_a_leading_dash_is_a_name_behind_two_dashes(folder: Path) -> None:
    done = avdetect("score", "--duration", "1", "--", "-dash.mp4", cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "absent.mp4", "http://localhost/x.mp4", "concat:a|b", "."])
def test_what_cannot_be_read_is_one_line(folder: Path, name: str, tmp_path: Path) -> None:
    work = folder if name != "." else tmp_path
    done = avdetect("score", name, cwd=work)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("avdetect: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["score"],
        ["score", "x.mp4", "--nonsense"],
        ["score", "none*.mp4"],
        ["score", "x.mp4", "--out", "x.txt"],
        ["score", "x.mp4", "--device", "abacus"],
        ["score", "x.mp4", "--detector", "eyes"],
        ["score", "x.mp4", "--start", "-1"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = avdetect(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_can_be_raised_and_lowered(folder: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("max_duration_seconds: 2\n")
    done = avdetect("score", "good.mp4", "--limits", str(limits), cwd=folder)
    assert done.returncode == 1
    assert "LimitError" in done.stderr
    assert "max_duration_seconds" in done.stderr
    limits.write_text("max_durations: 2\n")
    assert avdetect("score", "good.mp4", "--limits", str(limits), cwd=folder).returncode == 2


def test_a_table_fits_a_terminal_of_80_columns(folder: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [sys.executable, "-m", "avdetect.cli", "score", "good.mp4", "empty.mp4"]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, cwd=folder, env=environment, text=True
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
    lines = shown.decode().replace("\r", "").splitlines()
    text = [strip_escapes(line) for line in lines]
    assert any("good.mp4" in line for line in text)
    assert any("failed" in line for line in text)
    assert max(map(len, text)) <= 80


def strip_escapes(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "score serve demo doctor models prepare preprocess train export evaluate forge"),
        (["prepare"], "DATASET ROOT --out --dev --test --seed --resplit --report"),
        (
            ["preprocess"],
            "--manifest --cache --config --workers --engine --ray-address --detector-model --retry-failed --copies",
        ),
        (
            ["train"],
            "--cache --config --run --out --pretrained --pretrained-audio --detector-model --devices --accelerator",
        ),
        (["export"], "--run --out --name --licence --detector-model"),
        (["forge"], "INPUT --out --method --segment --seed --count --no-control --split --list Do.not.train.on.what"),
    ],
)
def test_help_names_commands_and_options(command: list[str], words: str) -> None:
    done = avdetect(*command, "--help")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.replace("│", "").split())
    for word in words.split():
        assert word.replace(".", " ") in text


@pytest.mark.parametrize("command", ["train", "export", "forge", "prepare", "preprocess"])
def test_a_script_gives_the_exit_codes_that_it_gave(command: str, tmp_path: Path, capsys) -> None:
    """What is configured wrongly ends a script with 1 and the command with 2; an unknown option ends both with 2."""
    values = tmp_path / "c.yaml"
    values.write_text("nothing: 1\n")
    given = {
        "train": ["--cache", "c", "--config", values, "--run", "r", "--out", "o"],
        "preprocess": ["--manifest", "m.csv", "--cache", "c", "--config", values],
        "forge": ["x.mp4", "--out", "o", "--method", "none"],
    }
    assert cli.run_script(command, ["--nonsense"]) == cli.run([command, "--nonsense"]) == 2
    capsys.readouterr()
    if command in given:
        words = list(map(str, given[command]))
        assert (cli.run_script(command, words), cli.run([command, *words])) == (1, 2)
        script, whole = capsys.readouterr().err.splitlines()
        assert script.startswith(f"{command}: ConfigError: ")
        assert whole == script.replace(f"{command}: ConfigError: ", "avdetect: ")


def test_help_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys; from avdetect.cli import app\n"
        "heavy = {'torch', 'cv2', 'onnxruntime', 'numpy', 'pandas', 'insightface', 'avdetect.detector'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_demo_and_doctor(tmp_path: Path) -> None:
    demo = avdetect("demo", cwd=tmp_path)
    assert demo.returncode == 0, demo.stderr
    assert "manipulation by construction" in demo.stdout
    doctor = avdetect("doctor", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stdout
    assert doctor.stdout.count("ok  ") >= 7


def test_doctor_finds_a_damaged_bundle(tmp_path: Path) -> None:
    from avdetect.bundle import DEFAULT_BUNDLE

    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    graph = bundle / "audio.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    done = avdetect("doctor", "--bundle", str(bundle))
    assert done.returncode == 1
    assert "audio.onnx differs from its hash" in done.stdout


@pytest.mark.parametrize("out", [[], ["--out", "r.csv"], ["--out=r.csv"]])
def test_a_full_disk_is_one_line(folder: Path, out: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "avdetect.cli", "score", str(folder / "good.mp4"), "--duration", "1", "--json"]
        done = subprocess.run(
            [*command, *out], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.startswith("avdetect: cannot write to standard output: No space left on device; ")
    assert ("use --out to keep a copy" in done.stderr) == (not out)
    assert len(done.stderr.strip().splitlines()) == 1
    if out:
        assert pd.read_csv(tmp_path / "r.csv")["status"].tolist() == ["scored"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_standard_streams_still_writes_its_table(folder: Path, tmp_path: Path, closed: str) -> None:
    out = tmp_path / "r.csv"
    command = [sys.executable, "-m", "avdetect.cli", "score", "good.mp4", "--duration", "1", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shell = ["bash", "-c", f'exec "$@" {closed}', "-", *command]
    done = subprocess.run(shell, capture_output=True, cwd=folder, env=environment, timeout=60)
    assert done.returncode == 0
    assert done.stderr == b""
    assert pd.read_csv(out)["status"].tolist() == ["scored"]


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    name = "bad\x1b[2Jname\n.mp4"
    (tmp_path / name).touch()
    done = avdetect("score", name, cwd=tmp_path)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_another_encoding_than_utf_8_loses_nothing(encoding: str, tmp_path: Path) -> None:
    name = "é 日本 🙂.mp4"
    shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "ö.txt").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "COLUMNS": "100"}

    def shown(text: str) -> str:
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def said(*arguments: str, code: int = 0) -> tuple[str, str]:
        command = [sys.executable, "-m", "avdetect.cli", "score", *arguments, "--duration", "0.5"]
        done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=120)
        out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
        assert (done.returncode, "Traceback" in err) == (code, False), err
        return out, err

    out, _ = said(name)
    assert shown(name) in out
    assert "\\u2588" not in out  # the bars
    assert json.loads(said(name, "--json")[0])["results"][0]["path"] == name
    assert shown("nothing ü") in said("nothing ü", code=1)[1]
    out, _ = said(".", "--out", "t.csv")
    assert shown(name) in out
    assert pd.read_csv(tmp_path / "t.csv", encoding="utf-8")["path"].tolist() == [f"./{name}"]


def test_a_bundle_cannot_steer_the_terminal(tmp_path: Path) -> None:
    from hostile_graphs import bundle_with

    folder = bundle_with(tmp_path / "b")
    text = (folder / "bundle.json").read_text()
    licence = json.loads(text)["licence"]
    (folder / "bundle.json").write_text(text.replace(json.dumps(licence), json.dumps("\x1b[2J\x1b]0;owned\x07MIT")))
    done = avdetect("doctor", "--bundle", str(folder))
    assert "owned" in done.stdout
    (folder / "bundle.json").write_text('{"format": [9], "avdetect_version": "\\u001b[2J"}')
    failed = avdetect("score", "x.mp4", "--bundle", str(folder))
    assert "[2J" in failed.stderr
    assert "\x1b" not in done.stdout + done.stderr + failed.stdout + failed.stderr
