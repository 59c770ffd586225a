"""What the command line never overwrites: what it reads, files that are not its own, rows of other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batch_commands import kept_in
from conftest import Here

from avdetect.batch.options import ScoringOptions
from avdetect.cli import run

CLIP = b"this is not a video\n" * 50  # scoring it fails at once


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ScoringOptions, "identity", lambda options: {"of": "one and the same"})
    for name in ("a.mp4", "b.mp4", "media.csv", "media.html"):
        Path(name).write_bytes(CLIP)
    Path("list.csv").write_text("path\na.mp4\n")
    Path("limits.yaml").write_text("max_streams: 20\n")
    Path("symbolic.csv").symlink_to("media.csv")
    os.link("media.csv", "hard.csv")
    Path("absent_link.csv").symlink_to("absent.csv")
    Path("names.csv.journal").write_text("a.mp4\n")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["media.csv", "--out", "media.csv"], "--out media.csv: that is the file to be scored"),
        (["a.mp4", "media.csv", "--out", "symbolic.csv"], "--out symbolic.csv: that is the file to be scored"),
        (["media.csv", "--out", "./hard.csv"], "that is the file to be scored"),
        (["b.mp4", "a*.mp4", "--kaggle", "a.mp4"], "--kaggle a.mp4: that is a file to be scored"),
        (["--manifest", "list.csv", "--kaggle", "a.mp4"], "--kaggle a.mp4: that is a file to be scored"),
        (["--manifest", "list.csv", "--out", "list.csv"], "--out list.csv: that is the manifest"),
        (["a.mp4", "--limits", "limits.yaml", "--kaggle", "limits.yaml"], "that is the file of --limits"),
        (["names.csv.journal", "--out", "names.csv"], "the journal names.csv.journal: that is the file to be scored"),
        (["a.mp4", "--out", "new.csv", "--kaggle", "./new.csv"], "--out and --kaggle name the same file"),
        (["a.mp4", "--out", "absent.csv", "--kaggle", "absent_link.csv"], "name the same file"),
        (["a.mp4", "--out", "new.csv", "--kaggle", "new.csv.journal"], "--kaggle and the journal name the same file"),
        (["media.html", "--report", "media.html"], "--report media.html: that is the file to be scored"),
        (["a.mp4", "--out", "list.csv"], "--out list.csv is there and is no table with a journal"),
        (["a.mp4", "b.mp4", "--out", "media.csv"], "name another file or delete it"),
        (["a.mp4", "b.mp4", "--kaggle", "media.csv"], "--kaggle media.csv has another name too (a hard link)"),
        (["a.mp4", "b.mp4", "--kaggle", "list.csv"], "--kaggle list.csv is there"),
        (["a.mp4", "--out", "absent_link.csv"], "--out absent_link.csv is a link; name another file or delete it"),
    ],
)
def test_what_is_read_or_is_not_ours_is_refused(arguments: list[str], says: str, folder: Path, capsys) -> None:
    before = contents(folder)
    assert run(["score", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert contents(folder) == before


def test_the_list_on_standard_input_is_not_overwritten(folder: Path, capsys) -> None:
    before = Path("list.csv").read_bytes()
    descriptor = os.dup(0)
    try:
        with Path("list.csv").open() as file:
            os.dup2(file.fileno(), 0)
        assert run(["score", "-", "--kaggle", "list.csv"]) == 2
    finally:
        os.dup2(descriptor, 0)
        os.close(descriptor)
    assert "that is what standard input is read from" in capsys.readouterr().err
    assert Path("list.csv").read_bytes() == before


def test_a_table_keeps_the_rows_of_files_that_are_not_named(folder: Path, here: Here) -> None:
    for name in ("media.csv", "hard.csv", "symbolic.csv", "absent_link.csv", "names.csv.journal"):
        Path(name).unlink()
    table = folder / "r.csv"
    here("score", "a.mp4", "--out", "r.csv", cwd=folder, code=1)
    before = table.read_bytes()
    for other in (["b.mp4"], ["b.mp4", "b.mp4"]):
        done = here("score", *other, "--out", "r.csv", cwd=folder, code=2)
        assert "r.csv holds other files, which are not named now: a.mp4" in done.stderr
        assert "delete the table and r.csv.journal" in done.stderr
        assert table.read_bytes() == before
    here("score", ".", "--out", "r.csv", cwd=folder, code=1)  # it has grown; ./a.mp4 is a.mp4
    assert len(table.read_text().splitlines()) == 3
    Path("a.mp4").unlink()
    here("score", ".", "--out", "r.csv", cwd=folder, code=1)  # it has shrunk
    assert len(table.read_text().splitlines()) == 2
    Path("b.mp4").rename("c.mp4")
    here("score", ".", "--out", "r.csv", cwd=folder, code=2)  # nothing of it is left
    assert len(table.read_text().splitlines()) == 2


def test_a_list_that_leaves_files_out_is_told_so(folder: Path, here: Here) -> None:
    here("score", "-", "--out", "r.csv", cwd=folder, code=1, given="a.mp4\nb.mp4\n")
    done = here("score", "-", "--out", "r.csv", cwd=folder, code=1, given="b.mp4\n")
    assert "r.csv has no rows of files that were not listed: a.mp4" in done.stderr
    assert "1 file: 0 scored" in done.stderr
    assert len(kept_in(folder / "r.csv.journal")) == 2


def test_a_list_of_nothing_costs_no_table(folder: Path, here: Here) -> None:
    here("score", "a.mp4", "b.mp4", "--out", "r.csv", cwd=folder, code=1)
    before = contents(folder)
    for given, says in (
        *(("", "standard input lists no file"), ("\n\r\n", "lists no file")),
        ("b.mp4\0a.mp4\0", "say --null"),
    ):
        done = here("score", "-", "--out", "r.csv", cwd=folder, code=2, given=given)
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert contents(folder) == before


def test_a_submission_is_replaced_and_a_table_of_something_else_is_not(folder: Path, here: Here) -> None:
    command = ("a.mp4", "b.mp4", "--out", "r.csv")
    here("score", *command, cwd=folder, code=1)
    here("score", *command, "--kaggle", "media.csv", cwd=folder, code=2)
    assert Path("media.csv").read_bytes() == CLIP
    for _ in range(2):
        here("score", *command, "--kaggle", "k.csv", cwd=folder, code=1)
        assert Path("k.csv").read_text() == "filename,label\na.mp4,0.500000\nb.mp4,0.500000\n"
