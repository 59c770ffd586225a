"""Files that appear whole or not at all, where others may have put links under every name that can be guessed."""

from __future__ import annotations

import ast
import csv
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from batch_scorers import EMPTY
from hypothesis import given
from hypothesis import strategies as st

from avdetect._csv import csv_line, defused, fused
from avdetect.batch.tables import CsvTable, JsonLines, KaggleTable
from avdetect.bundle import Bundle, write_bundle
from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import not_ours, only_ours, open_run_folder, replacing, write_json
from avdetect.report.data import Failure, csv_row, to_dict, to_row
from avdetect.types import SyncScore

PACKAGE = Path(__file__).parents[1] / "avdetect"
FAILURE = to_dict(Failure("a.mp4", "MediaError", "why"))


def test_a_link_under_a_name_of_before_is_not_followed(tmp_path: Path) -> None:
    name, victim = "x.json", tmp_path / "victim"
    victim.write_text("precious")
    for guess in (f".{name}.partial", f".{name}.{os.getpid()}.partial", f".{name}.{os.getpid()}", name):
        (tmp_path / guess).symlink_to(victim)
    before = set(os.listdir(tmp_path))
    write_json(tmp_path / name, FAILURE)
    assert victim.read_text() == "precious"
    assert (tmp_path / name).stat().st_size > 0
    assert not (tmp_path / name).is_symlink()
    assert set(os.listdir(tmp_path)) == before
    for name in ("visual.onnx", "bundle.json"):
        (tmp_path / name).symlink_to("victim")
    write_bundle(tmp_path, Bundle.load().info, {"visual.onnx": b"graph"})
    assert victim.read_text() == "precious"
    assert (tmp_path / "visual.onnx").read_bytes() == b"graph"


def test_no_name_is_used_twice_and_what_ends_badly_leaves_the_old_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        assert first.name != second.name
        assert {Path(f.name).parent for f in (first, second)} == {tmp_path}
        second.write(b"old")
        first.write(b"old")
    with pytest.raises(TypeError), replacing(tmp_path / "a") as file:
        file.writelines([b"half", 1])  # type: ignore[list-item]
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    write_json(tmp_path / f"{'n' * 250}.json", FAILURE)
    assert (tmp_path / f"{'n' * 250}.json").is_file()


def test_whose_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch(0o600)
    (tmp_path / "link").symlink_to(path)
    assert not_ours(path) is None
    assert not_ours(tmp_path / "link") == "is a link"
    path.chmod(0o620)
    assert "written by others" in (not_ours(path) or "")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not_ours(path) == "belongs to another user"


def test_a_run_folder_belongs_to_one_run(tmp_path: Path) -> None:
    identity = {"data": "abc", "config": {"seed": 1, "sizes": (1, 2)}}
    for _ in range(2):
        open_run_folder(tmp_path / "run", identity, "name another --run")
    assert os.listdir(tmp_path / "run") == ["run.json"]
    before = (tmp_path / "run" / "run.json").read_bytes()
    said = r"run belongs to another run \(config.seed: 1 there, 2 now; new: None there, x now\): name another --run"
    other = {"data": "abc", "config": {"seed": 2, "sizes": [1, 2]}, "new": "x"}
    with pytest.raises(ConfigError, match=said):
        open_run_folder(tmp_path / "run", other, "name another --run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    for content in ('{"data": ', "[" * 5000, "[]", "\0"):
        (tmp_path / "run" / "run.json").write_text(content)
        with pytest.raises(ConfigError, match=r"is damaged|another run"):
            open_run_folder(tmp_path / "run", identity, "name another --run")


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "link to nothing": lambda path, victim: path.symlink_to(victim.with_name("new")),
    "hard link": lambda path, victim: os.link(victim, path),
    "pipe": lambda path, victim: os.mkfifo(path),
    "file of another user": lambda path, victim: path.write_text("precious"),
}


@pytest.fixture(params=PLANTED)
def planted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path, victim = tmp_path / "planted.csv", tmp_path / "victim"
    victim.write_text("precious")
    PLANTED[request.param](path, victim)
    if request.param == "file of another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    return path


def untouched(planted: Path) -> bool:
    texts = {path.read_text() for path in planted.parent.iterdir() if path.is_file()}
    return texts == {"precious"} and not (planted.parent / "new").exists()


def test_what_somebody_else_may_have_put_there_is_not_opened_and_no_table_is_written_into_it(planted: Path) -> None:
    for mode in ("w", "a", "x", "r+", "rb"):
        with pytest.raises(OSError, match=r"planted\.csv"):
            open(planted, mode, opener=only_ours).close()
    for table in (CsvTable, JsonLines, KaggleTable):
        with pytest.raises(AVDetectError, match=r"cannot write .*planted\.csv: .*planted\.csv (is|has|belongs)"):
            table(planted)
    assert untouched(planted)


def test_a_file_of_our_own_is_written_anew_or_on(tmp_path: Path) -> None:
    for mode, text in (("w", "one"), ("a", "onetwo"), ("w", "three")):
        with open(tmp_path / "a", mode, opener=only_ours) as file:
            file.write(text.removeprefix("one") if mode == "a" else text)
        assert (tmp_path / "a").read_text() == text


def places_of_writing(tree: ast.AST) -> list[str]:
    """Where code writes into whatever stands under a name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            name = ast.unparse(node.func).rpartition(".")[2]
            mode = any(re.fullmatch(r"[rwab+t]+", text) and set(text) & set("wa+") for text in texts)
            opened = name == "open" and mode and not any(k.arg == "opener" for k in node.keywords)
            found += [ast.unparse(node)] if opened or name in ("write_text", "write_bytes") else []
    return found


def places_of_replacement(tree: ast.AST) -> list[str]:
    """Where code puts a file in the place of another by itself, or names a temporary file that can be guessed."""
    found = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "os.replace"]
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    alone = [n for n in called if n.func.attr == "replace" and len(n.args) == 1 and not n.keywords]
    found += [ast.unparse(n) for n in alone if not isinstance(n.args[0], ast.Dict)]  # pandas takes a dictionary
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found + [text for text in texts if re.search(r"\S\.(partial|part|tmp)$|^\.(partial|part|tmp)$", text)]


@pytest.mark.parametrize(
    ("places", "allowed", "caught"),
    [
        (  # os.devnull; a folder of tempfile's; memory
            places_of_writing,
            ("cli/console.py", "cli/prepare.py", "faces/scrfd.py", "_media/describe.py"),
            ('a.open("w")', 'open(a, "ab")', 'a.open("r+", encoding="utf-8")', "a.write_text(b)"),
        ),
        (  # a shard in progress is kept for the next run, which finds it by its name; it is made exclusively
            places_of_replacement,
            ("files.py", "datasets/cache/shards.py", "datasets/cache/store.py"),
            ("os.replace(a, b)", "a.replace(b)", 'a.with_suffix(".partial")', 'f".{a}.partial"'),
        ),
    ],
)
def test_files_are_written_and_replaced_in_one_place(places: Callable, allowed: tuple, caught: tuple) -> None:
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / name for name in allowed}:
        assert places(ast.parse(path.read_text(encoding="utf-8"))) == [], path
    assert all(places(ast.parse(code)) for code in caught)


def test_a_name_is_one_cell_and_no_formula_whatever_separates() -> None:
    for name in ("=cmd|' /C calc'!A0.mp4", "+1.mp4", "-1.mp4", "@SUM(A1).mp4"):
        line = csv_row(to_dict(Failure(name, "MediaError", "=1+1")))[:-1]
        assert line.lstrip('"').startswith(f"'{name[0]}")
        assert ",'=1+1," in line
        assert to_row(to_dict(Failure(name, "MediaError", "m")))["path"] == name  # JSON keeps it
    for name in ("x;=cmd|calc.mp4", "x\t@SUM(A1).mp4", "a;b.mp4", 'x;"=1+1".mp4', "x; -1.mp4"):
        (line,) = csv.reader([csv_line([name, None, 0.5])])
        assert line == [name, "", "0.5000"]
        assert csv_line([name]).startswith('"')
        for separator in ",;\t":
            for row in csv.reader([csv_line(["a", defused(name)])], delimiter=separator):
                assert not any(cell.lstrip(' "').startswith(tuple("=+-@")) for cell in row)
    found = replace(EMPTY, sync=SyncScore(-0.2, 0.5, 0.1, 0))
    assert ",-0.2000," in csv_row(to_dict(found)), "negative numbers stay numbers"


@given(st.text(alphabet="a'\"=-+@;,\t\r\n "))
def test_what_is_no_formula_any_more_gives_the_text_back(text: str) -> None:
    assert fused(defused(text)) == text
