"""A library of an extra that is missing or does not import is one typed error; `avdetect doctor` says what is wrong."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Here

from avdetect import doctor
from avdetect.errors import ToolError
from avdetect.extras import LIBRARIES, ONE_ONNXRUNTIME, ONE_OPENCV, how_to_install, importing, require

ROOT = Path(__file__).parents[1]
EVERYTHING = sorted({name for names in LIBRARIES.values() for name in names})


def in_a_process(code: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tools")))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


TRAINING = ["--cache", "c", "--config", "c.yaml", "--run", "r", "--out", "o"]


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("uvicorn", ["serve"], "serve"),
        ("sklearn", ["evaluate", "m.csv", "--out", "results"], "evaluate"),
        ("ray", ["score", "x.mp4", "--engine", "ray"], "ray"),
        ("insightface", ["score", "x.mp4", "--detector", "scrfd"], "scrfd"),
        ("insightface", ["models", "fetch", "--yes"], "scrfd"),
        ("pyarrow", ["preprocess", "--manifest", "m.csv", "--cache", "c"], "evaluate"),
        ("torchaudio", ["train", *TRAINING], "train"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(
    missing: str, words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    done = here(*words, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("avdetect: ")
    assert done.stderr.endswith(f"needs {missing}; {how_to_install(extra)}\n")
    assert len(done.stderr.splitlines()) == 1


def test_no_tool_ends_in_a_traceback_without_the_extras(tmp_path: Path) -> None:
    scripts = sorted(path for path in (ROOT / "tools").rglob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
    assert len(scripts) > 15
    code = (
        "import contextlib, io, json, runpy, sys\nfrom pathlib import Path\n"
        f"for name in {[*EVERYTHING, 'atheris', 'facenet_pytorch', 'httpx', 'playwright', 'psutil']}:"
        " sys.modules[name] = None\n"
        "ends, known = {}, list(sys.path)\n"
        "for path in sys.argv[1:]:\n"
        "  sys.argv, sys.path[:] = [path, '--help'], [str(Path(path).parent), *known]\n"
        "  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    try: runpy.run_path(path, run_name='__main__'); end = 0\n"
        "    except SystemExit as error: end = error.code\n"
        "    except BaseException as error: end = repr(error)\n"
        "  ends[path] = end\n"
        "print(json.dumps(ends))"
    )
    done = in_a_process(code, *scripts, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path, end in json.loads(done.stdout).items():
        assert end in (0, 1, 2, None) or re.fullmatch(r"\w+: .*needs .*from the checkout: pip install .*", end), path


def test_however_an_import_fails_it_is_a_tool_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    raised = ("ImportError('cannot import name x')", "OSError('undefined symbol')", "RuntimeError('no operator')")
    for number, body in enumerate(("import none_such", "import sys; sys.none_such", *(f"raise {e}" for e in raised))):
        (tmp_path / f"broken_{number}.py").write_text(body)
        importlib.invalidate_caches()
        with pytest.raises(ToolError, match=re.escape(how_to_install("ray"))), importing("ray", "the engine ray"):
            importlib.import_module(f"broken_{number}")
    with pytest.raises(ModuleNotFoundError, match=r"avdetect\.no_such_module"), importing("ray", "the engine ray"):
        importlib.import_module("avdetect.no_such_module")  # a mistake of ours


def test_where_a_library_of_the_base_is_gone_doctor_says_so(tmp_path: Path) -> None:
    code = (
        f"import sys\nfor name in {['cv2', *EVERYTHING]}: sys.modules[name] = None\n"
        "from avdetect.cli import run\nprint(run(['demo']), run(['doctor', '--device', 'cpu']))"
    )
    done = in_a_process(code, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert "cv2" in line
    assert "avdetect doctor" in line
    assert "ok   ffmpeg" in done.stdout
    assert "FAIL face detector" in done.stdout
    assert done.stdout.endswith("\n1 1\n")


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    """What pip leaves of a package, as far as `importlib.metadata` looks."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]))


@pytest.mark.parametrize(
    ("names", "check", "remedy"),
    [
        (("opencv-contrib-python", "opencv-python-headless"), doctor._opencv, ONE_OPENCV),
        (("onnxruntime", "onnxruntime-gpu"), lambda: doctor._onnxruntime("cpu"), ONE_ONNXRUNTIME),
    ],
)
def test_doctor_finds_two_builds_in_one_folder(names: tuple, check, remedy: str, tmp_path: Path, monkeypatch) -> None:
    for name in names:
        distribution(tmp_path, name, "9.9")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToolError, match=re.escape(remedy)) as error:
        check()
    assert all(f"{name} 9.9" in str(error.value) for name in names)


def test_doctor_finds_what_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the process that imports it
    monkeypatch.setattr(doctor, "_one_of", lambda packages, remedy: "opencv-python 9.9")
    checks = {"cv2": (doctor._opencv, ONE_OPENCV), "ray": (lambda: doctor._extra("ray"), how_to_install("ray"))}
    for module, (check, remedy) in checks.items():  # cv2: uninstalling one took files of the other
        (tmp_path / f"{module}.py").write_text("raise OSError('undefined symbol')")
        with pytest.raises(ToolError, match=re.escape(remedy)) as error:
            check()
        assert f"{module} is installed, but cannot be imported (OSError: undefined symbol)" in str(error.value)


def test_doctor_finds_versions_that_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [f'{name}; extra == "train"' for name in ("torch==2.11.0", "torchaudio==2.11.0", "timm<2,>=1")]
    distribution(tmp_path, "avdetect", "9.9", *wanted, 'torch==1; extra == "other"')
    distribution(tmp_path, "torch", "2.11.0+cpu")
    distribution(tmp_path, "torchaudio", "2.11.1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToolError) as error:
        doctor._extra("train")
    assert str(error.value) == (
        f"torchaudio is 2.11.1, but what goes together is torch 2.11.0, torchaudio 2.11.0; {how_to_install('train')}"
    )


def test_doctor_looks_only_at_extras_that_are_installed_and_what_is_missing_is_named_at_once(monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(LIBRARIES, "serve", ("json", "no_such_1", "no_such_2", "no_such_3", "no_such_4"))
        with pytest.raises(ToolError, match="needs no_such_1, no_such_2, no_such_3, no_such_4; from the checkout"):
            require("serve", "avdetect serve")
    for name in set(EVERYTHING) - set(LIBRARIES["serve"]):
        monkeypatch.setitem(sys.modules, name, None)
    names = [check.name for check in doctor.run_checks(device="cpu") if check.name.startswith("extra")]
    assert names == ["extra serve"]
