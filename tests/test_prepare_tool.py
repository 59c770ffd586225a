"""tools/prepare.py: from every miniature layout to a manifest that reads back, with a report; leaks stop it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dataset_trees
import pytest
from dataset_trees import TREES, av1m_entry, put, put_text

from avdetect.cli.prepare import DATASETS
from avdetect.datasets.adapters import ADAPTERS
from avdetect.datasets.manifest import digest, read_manifest

TOOL = Path(__file__).parents[1] / "tools" / "prepare.py"
Main = Callable[[list[str]], int]
HEADER_OF = """
import pathlib, sys
from avdetect.datasets.adapters import ADAPTERS
print(*ADAPTERS["avdeepfake1m"](pathlib.Path(sys.argv[1])).table.columns)
"""


@pytest.fixture(scope="module")
def prepare() -> Main:
    module = importlib.import_module("prepare")
    return module.main


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", TREES)
def test_from_each_layout_to_a_manifest(prepare: Main, name: str, suffix: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "tree").mkdir()
    root, out = TREES[name](tmp_path / "tree"), tmp_path / "out" / f"m{suffix}"
    more = ["--resplit"] if name == "avdeepfake1m" else []  # its official splits share a person
    assert prepare([name, str(root), "--out", str(out), "--dev", "0.2", *more]) == 0
    table = read_manifest(out)
    report = json.loads((tmp_path / "out" / f"m{suffix}.report.json").read_text())
    assert all(Path(path).is_file() for path in table["path"])
    assert report["rows"] == len(table) == sum(split["rows"] for split in report["labels"].values())
    assert report["digest"] == digest(table)
    problems = ADAPTERS[name](root).problems
    assert [tuple(d) for d in report["details"]][: len(problems)] == [(p.kind, p.path, p.detail) for p in problems]
    shown = capsys.readouterr()
    assert f"{len(table)} rows" in shown.out
    assert all(p.path in shown.out for p in problems[:20])
    assert shown.err == ""


def test_only_reals_end_to_end(prepare: Main, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    dataset_trees.reals(tmp_path / "mine")
    out = tmp_path / "mine" / "m.parquet"
    assert prepare(["folder", str(tmp_path / "mine"), "--out", str(out), "--dev", "0.25", "--test", "0.1"]) == 0
    table = read_manifest(out)
    assert len(table) == 12
    assert set(table["split"]) == {"train", "dev", "test"}
    assert (table[["fake", "video_fake", "audio_fake"]] == 0).all(axis=None)
    assert prepare(["folder", str(tmp_path / "mine"), "--out", str(out), "--dev", "0.25", "--test", "0.1"]) == 0
    assert digest(read_manifest(out)) == digest(table)  # again, with its own output in the folder


def test_seeds_and_shares_reach_the_split(prepare: Main, tmp_path: Path) -> None:
    put(tmp_path, *(f"v/{n}.mp4" for n in range(60)))
    tables = []
    for seed in ("0", "0", "1"):
        arguments = ["folder", str(tmp_path / "v"), "--out", str(tmp_path / "m.csv"), "--dev", "0.3", "--seed", seed]
        assert prepare(arguments) == 0
        tables.append(read_manifest(tmp_path / "m.csv"))
    assert tables[0]["split"].equals(tables[1]["split"])
    assert not tables[0]["split"].equals(tables[2]["split"])
    assert 8 <= (tables[0]["split"] == "dev").sum() <= 28


def test_a_group_in_two_official_splits_stops_it(prepare: Main, tmp_path: Path, capsys) -> None:
    root = tmp_path / "ff"
    dataset_trees.faceforensics(root)
    put_text(root / "test.json", [["030", "031"], ["003", "055"]])  # 003 is also of train
    put(root, "original_sequences/youtube/c23/videos/055.mp4")
    assert prepare(["faceforensics", str(root), "--out", str(tmp_path / "m.csv")]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("prepare: ManifestError: 1 group(s) stand in more than one split: faceforensics:000")
    assert "video in two splits: 003" in shown.out
    assert [p.name for p in tmp_path.iterdir()] == ["ff"]


def test_people_who_share_official_splits_stop_it_until_these_are_cut_anew(
    prepare: Main, tmp_path: Path, capsys
) -> None:
    for split, people in (("train", 8), ("val", 3)):
        entries = [av1m_entry(f"id{p:05d}/a/1/real.mp4", "real", split) for p in range(people)]
        put(tmp_path / split, *(str(e["file"]) for e in entries))
        put_text(tmp_path / f"{split}_metadata.json", entries)
    put(tmp_path, "test/000001.mp4")
    put_text(tmp_path / "test_files.txt", "000001.mp4\n")
    command = ["avdeepfake1m", str(tmp_path), "--out", str(tmp_path / "m.csv"), "--dev", "0.4"]
    assert prepare(command) == 1
    assert "3 group(s) stand in more than one split: avdeepfake1m:id00000" in (err := capsys.readouterr().err)
    assert "--resplit" in err
    assert not (tmp_path / "m.csv").exists()
    assert prepare([*command, "--resplit"]) == 0
    report = json.loads((tmp_path / "m.csv.report.json").read_text())
    assert report["problems"] == {"official splits set aside": 1}
    table = read_manifest(tmp_path / "m.csv")
    assert table.groupby("group")["split"].nunique().eq(1).all()
    assert set(table["split"]) == {"train", "dev", "test"}
    assert table.loc[table["split"] == "test", "path"].tolist() == [str(tmp_path / "test/000001.mp4")]


@pytest.mark.parametrize("splits", [("train", "dev"), ("train", "test")])
def test_an_original_in_another_official_split_stops_it(
    prepare: Main, tmp_path: Path, capsys, splits: tuple[str, str]
) -> None:
    put(tmp_path, *(f"{n}.mp4" for n in range(6)))
    lines = ["path,fake,group,split,original"]
    lines += [f"{n}.mp4,{n % 2},g{n},{splits[n % 2]},{'0.mp4' if n % 2 else ''}" for n in range(6)]
    put_text(tmp_path / "list.csv", "\n".join(lines) + "\n")
    command = ["csv", str(tmp_path / "list.csv"), "--out", str(tmp_path / "m.csv")]
    assert prepare(command) == 1
    shown = capsys.readouterr()
    assert "3 fake(s) stand in another split than their original" in shown.err
    assert f"1.mp4 ({splits[1]}) of {tmp_path / '0.mp4'} (train)" in shown.err
    assert "3 in another split" in shown.out
    assert not (tmp_path / "m.csv").exists()
    assert prepare([*command, "--resplit"]) == 0
    split = read_manifest(tmp_path / "m.csv")["split"].tolist()
    assert split[0] == split[1] == split[3] == split[5]


def test_splits_by_group_keep_fakes_with_their_originals(prepare: Main, tmp_path: Path) -> None:
    """Groups for reals only, as a user's list has them."""
    put(tmp_path, *(f"{n}.mp4" for n in range(80)))
    lines = ["path,fake,group,original"]
    lines += [f"{n}.mp4,{n % 2},{'' if n % 2 else f'g{n}'},{f'{n - 1}.mp4' if n % 2 else ''}" for n in range(80)]
    put_text(tmp_path / "list.csv", "\n".join(lines) + "\n")
    assert prepare(["csv", str(tmp_path / "list.csv"), "--out", str(tmp_path / "m.csv"), "--dev", "0.4"]) == 0
    table = read_manifest(tmp_path / "m.csv")
    assert (table["group"][::2].to_numpy() == table["group"][1::2].to_numpy()).all()
    assert (table["split"][::2].to_numpy() == table["split"][1::2].to_numpy()).all()
    assert set(table["split"]) == {"train", "dev"}


def test_the_columns_do_not_hang_on_the_hash_seed(tmp_path: Path) -> None:
    root = TREES["avdeepfake1m"](tmp_path)
    written = set()
    for seed in ("1", "2", "3", "4"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(TOOL.parents[1])}
        command = [sys.executable, "-c", HEADER_OF, str(root)]
        written.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(written) == 1


def test_dev_is_cut_from_train_where_the_official_splits_have_none(prepare: Main, tmp_path: Path) -> None:
    TREES["dfdc-preview"](tmp_path)
    before = ADAPTERS["dfdc-preview"](tmp_path).table
    assert prepare(["dfdc-preview", str(tmp_path), "--out", str(tmp_path / "m.csv")]) == 0
    table = read_manifest(tmp_path / "m.csv")
    assert set(table["split"]) == {"train", "dev", "test"}
    assert (
        table.loc[table["split"] == "test", "path"].tolist() == before.loc[before["split"] == "test", "path"].tolist()
    )
    assert json.loads((tmp_path / "m.csv.report.json").read_text())["problems"]["dev cut from train"] == 1
    assert prepare(["dfdc-preview", str(tmp_path), "--out", str(tmp_path / "m.csv"), "--dev", "0"]) == 0
    assert set(read_manifest(tmp_path / "m.csv")["split"]) == {"train", "test"}


def test_one_group_gives_no_dev_and_says_so(prepare: Main, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "list.csv").write_text("path,fake,group\na.mp4,0,one\n")
    out = tmp_path / "m.csv"
    assert prepare(["csv", str(tmp_path / "list.csv"), "--out", str(out), "--report", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["problems"]["no dev"] == 1


def test_a_reader_that_stops_reading_costs_no_manifest(tmp_path: Path) -> None:
    """`prepare.py … | head -1` once ended in a traceback, with nothing written."""
    (tmp_path / "real").mkdir()
    for i in range(3000):
        (tmp_path / "real" / f"{i}-{'x' * 60}.mp4").write_bytes(str(i).encode())
    tool = Path(__file__).parents[1] / "tools" / "prepare.py"
    command = [sys.executable, str(tool), "folder", str(tmp_path), "--out", str(tmp_path / "m.csv")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in errors
    assert len(read_manifest(tmp_path / "m.csv")) == 3000


def test_the_report_counts_originals(prepare: Main, tmp_path: Path) -> None:
    TREES["faceforensics"](tmp_path)
    assert prepare(["faceforensics", str(tmp_path), "--out", str(tmp_path / "m.csv"), "--dev", "0"]) == 0
    report = json.loads((tmp_path / "m.csv.report.json").read_text())
    # 31 of FF++; of the two of DFD one has its original (24), the other's (23__kitchen_still) is not there
    table = read_manifest(tmp_path / "m.csv")
    named = int((table["original"] != "").sum())
    assert report["originals"] == {"named": named, "in_manifest": named - 1, "in_another_split": 0, "labelled_fake": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lavdf", "{root}", "--out", "{root}/m.csv"], "gives no row"),
        (["lavdf", "{root}/none", "--out", "{root}/m.csv"], "is not a folder"),
        (["csv", "{root}/none.csv", "--out", "{root}/m.csv"], "cannot read"),
        (["csv", "{root}", "--out", "{root}/m.csv"], "cannot read"),
        (["corpus", "{root}", "--out", "{root}/m.csv"], "not a corpus folder"),
    ],
)
def test_a_failure_is_one_line(prepare: Main, arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert prepare([a.format(root=tmp_path) for a in arguments]) == 1
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("prepare: ManifestError: ")
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line(prepare: Main, tmp_path: Path, capsys) -> None:
    dataset_trees.reals(tmp_path)
    (tmp_path / "file").write_text("x")
    assert prepare(["folder", str(tmp_path), "--out", str(tmp_path / "file" / "m.csv")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing", "root", "--out", "m.csv"],
        ["dfdc", "root"],
        ["dfdc", "root", "--out", "m.json"],
        ["dfdc", "root", "--out", "m.csv", "--dev", "1"],
        ["dfdc", "root", "--out", "m.csv", "--dev", "nan"],
        ["dfdc", "root", "--out", "m.csv", "--dev", "0.5", "--test", "0.5"],
    ],
)
def test_wrong_usage_exits_with_2(prepare: Main, arguments: list[str]) -> None:
    assert prepare(arguments) == 2


def test_the_help_names_every_dataset() -> None:
    assert DATASETS.split(", ") == list(ADAPTERS)
