"""avdetect prepare: from every miniature layout to a manifest that reads back, with a report; leaks stop it."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from dataset_trees import plant, put, put_text

from avdetect.cli import run_script
from avdetect.cli.prepare import DATASETS
from avdetect.datasets.adapters import ADAPTERS
from avdetect.datasets.manifest import digest, read_manifest


def prepare(dataset: str, root: Path, out: Path, *more: str) -> int:
    return run_script("prepare", [dataset, str(root), "--out", str(out), *more])


def report_of(out: Path) -> dict:
    return json.loads(out.with_name(f"{out.name}.report.json").read_text())


@pytest.mark.parametrize("name", ["dfdc", "avdeepfake1m", "lavdf"])
def test_from_a_layout_to_a_manifest(name: str, tmp_path: Path, capsys) -> None:
    root, out = plant(name, tmp_path / "tree"), tmp_path / "out" / "m.parquet"
    more = ["--resplit"] if name == "avdeepfake1m" else []  # its official splits share a person
    assert prepare(name, root, out, "--dev", "0.2", *more) == 0
    table, report = read_manifest(out), report_of(out)
    assert report["rows"] == len(table) == sum(split["rows"] for split in report["labels"].values())
    assert report["digest"] == digest(table)
    originals = table.loc[table["original"] != "", "original"]
    counts = {"named": len(originals), "in_manifest": int(originals.isin(table["path"]).sum())}
    assert report["originals"] == counts | {"in_another_split": 0, "labelled_fake": 0}
    problems = ADAPTERS[name](root).problems
    assert [tuple(d) for d in report["details"]][: len(problems)] == [(p.kind, p.path, p.detail) for p in problems]
    shown = capsys.readouterr()
    assert f"{len(table)} rows" in shown.out
    assert all(p.path in shown.out for p in problems[:20])
    assert shown.err == ""


def test_only_reals_end_to_end(tmp_path: Path) -> None:
    folder, out = plant("folder-reals", tmp_path / "mine"), tmp_path / "mine" / "m.csv"
    tables = []
    for seed in ("0", "0", "1"):  # again, with its own output in the folder
        assert prepare("folder", folder, out, "--dev", "0.25", "--test", "0.1", "--seed", seed) == 0
        tables.append(read_manifest(out))
    assert len(tables[0]) == 12
    assert set(tables[0]["split"]) == {"train", "dev", "test"}
    assert (tables[0][["fake", "video_fake", "audio_fake"]] == 0).all(axis=None)
    assert digest(tables[0]) == digest(tables[1]) != digest(tables[2])


def test_people_who_share_official_splits_stop_it_until_these_are_cut_anew(tmp_path: Path, capsys) -> None:
    for split, people in (("train", 8), ("val", 3)):
        entries = [{"file": f"id{p:05d}/a/1/real.mp4", "modify_type": "real", "split": split} for p in range(people)]
        put(tmp_path / split, *(entry["file"] for entry in entries))
        put_text(tmp_path / f"{split}_metadata.json", entries)
    put(tmp_path, "test/000001.mp4")
    put_text(tmp_path / "test_files.txt", "000001.mp4\n")
    out = tmp_path / "m.csv"
    assert prepare("avdeepfake1m", tmp_path, out, "--dev", "0.4") == 1
    err = capsys.readouterr().err
    assert err.startswith("prepare: 3 group(s) stand in more than one split: avdeepfake1m:id00000")
    assert "--resplit" in err
    assert not out.exists()
    assert prepare("avdeepfake1m", tmp_path, out, "--dev", "0.4", "--resplit") == 0
    assert report_of(out)["problems"] == {"official splits set aside": 1}
    table = read_manifest(out)
    assert set(table["split"]) == {"train", "dev", "test"}
    assert table.loc[table["split"] == "test", "path"].tolist() == [str(tmp_path / "test/000001.mp4")]


def test_an_original_in_another_official_split_stops_it(tmp_path: Path, capsys) -> None:
    put(tmp_path, *(f"{n}.mp4" for n in range(6)))
    lines = [f"{n}.mp4,{n % 2},g{n},{'dev' if n % 2 else 'train'},{'0.mp4' if n % 2 else ''}\n" for n in range(6)]
    put_text(tmp_path / "list.csv", "path,fake,group,split,original\n" + "".join(lines))
    out = tmp_path / "m.csv"
    assert prepare("csv", tmp_path / "list.csv", out) == 1
    shown = capsys.readouterr()
    assert "3 fake(s) stand in another split than their original" in shown.err
    assert f"1.mp4 (dev) of {tmp_path / '0.mp4'} (train)" in shown.err
    assert "3 in another split" in shown.out
    assert not out.exists()
    assert prepare("csv", tmp_path / "list.csv", out, "--resplit") == 0
    split = read_manifest(out)["split"].tolist()
    assert split[0] == split[1] == split[3] == split[5]


def test_dev_is_cut_from_train_where_the_official_splits_have_none(tmp_path: Path) -> None:
    plant("dfdc-preview", tmp_path)
    before = ADAPTERS["dfdc-preview"](tmp_path).table
    out = tmp_path / "m.csv"
    assert prepare("dfdc-preview", tmp_path, out) == 0
    table = read_manifest(out)
    assert set(table["split"]) == {"train", "dev", "test"}
    assert table[table["split"] == "test"]["path"].tolist() == before[before["split"] == "test"]["path"].tolist()
    assert report_of(out)["problems"]["dev cut from train"] == 1
    assert prepare("dfdc-preview", tmp_path, out, "--dev", "0") == 0
    assert set(read_manifest(out)["split"]) == {"train", "test"}
    put_text(tmp_path / "list.csv", "path,fake,group\ndataset.json,0,one\n")
    assert prepare("csv", tmp_path / "list.csv", out, "--report", str(tmp_path / "r.json")) == 0
    assert json.loads((tmp_path / "r.json").read_text())["problems"] == {"no dev": 1}


def test_a_reader_that_stops_reading_costs_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare.py … | head -1` once ended in a traceback, with nothing written."""
    reals, out, code = plant("folder-reals", tmp_path), tmp_path / "m.csv", None
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(BrokenPipeError), open(writer, "w") as pipe:  # it cannot be closed in peace either
        monkeypatch.setattr(sys, "stdout", pipe)
        code = prepare("folder", reals, out)
        assert sys.stdout is not pipe, "what is still buffered would fail at exit"
        sys.stdout.close()
    assert code == 0
    assert len(read_manifest(out)) == 12


def test_a_failure_is_one_line(tmp_path: Path, capsys) -> None:
    reals = plant("folder-reals", tmp_path)
    for dataset, out, message in (("lavdf", "m.csv", "gives no row"), ("folder", "notes.txt/m.csv", "cannot write")):
        assert prepare(dataset, reals, reals / out) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("prepare: ")
        assert message in line
        assert not list(reals.rglob("m.csv*"))


def test_wrong_usage_exits_with_2() -> None:
    assert DATASETS.split(", ") == list(ADAPTERS), "the help names every dataset"
    assert prepare("nothing", Path("root"), Path("m.csv")) == 2
    assert prepare("dfdc", Path("root"), Path("m.json")) == 2
    for shares in (["--dev", "1"], ["--dev", "nan"], ["--dev", "0.5", "--test", "0.5"]):
        assert prepare("dfdc", Path("root"), Path("m.csv"), *shares) == 2
