"""Every adapter on a miniature of its dataset's layout: the rows that come out, and the faults that are named."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import prepare_corpus
import pytest
from dataset_trees import LAYOUTS, TREES, plant, put, put_text

from avdetect.datasets.adapters import ADAPTERS, Listing
from avdetect.datasets.adapters.listing import Rows, walk
from avdetect.datasets.manifest import LABELS, digest, own_voice, read_manifest, validate
from avdetect.datasets.splits import assign_splits, units
from avdetect.errors import ManifestError


def listed(name: str, root: Path) -> Listing:
    return ADAPTERS[TREES[name]["adapter"]](plant(name, root))


def rows_of(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Indexed by the path within the tree; originals likewise."""
    short = {c: table[c].str.removeprefix(f"{root}/") for c in ("path", "original")}
    return table.assign(**short).set_index("path")


def check_rows(name: str, table: pd.DataFrame, root: Path) -> None:
    """That the table of the tree `name` under `root` has what dataset_trees.toml says of it."""
    rows = rows_of(table, root)
    assert len(rows) == TREES[name]["rows"]
    for wanted in TREES[name]["row"]:
        found = rows.loc[wanted["path"]]
        assert "".join("?" if pd.isna(found[label]) else str(found[label]) for label in LABELS) == wanted["labels"]
        for column in wanted.keys() - {"path", "labels"}:
            cell = found[column]
            assert ([list(pair) for pair in cell] if isinstance(cell, tuple) else cell) == wanted[column], wanted


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_and_faults_of_each_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "one" / "tree"
    listing = listed(name, root)
    assert Counter(p.kind for p in listing.problems) == TREES[name]["problems"]
    check_rows(name, listing.table, root)
    assert all(Path(p).is_file() for p in listing.table["path"])
    pd.testing.assert_frame_equal(validate(listing.table, check_splits=False), listing.table)
    if name == "avdeepfake1m":  # the official splits share people
        with pytest.raises(ManifestError, match="id00012' stands in more than one split"):
            validate(assign_splits(listing.table, 0.2, 0.1, 0))
    else:
        validate(assign_splits(listing.table, 0.2, 0.1, 0))
    # The order on disk and the place of the tree do not count.
    scandir = os.scandir

    @contextmanager
    def backwards(path: str) -> Iterator[list[os.DirEntry]]:
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    second = listed(name, tmp_path / "two" / "tree")
    moved = {c: listing.table[c].str.replace("/one/", "/two/", regex=False) for c in ("path", "original")}
    pd.testing.assert_frame_equal(second.table, listing.table.assign(**moved))
    assert digest(second.table) == digest(listing.table)
    assert [p.kind for p in second.problems] == [p.kind for p in listing.problems]


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    assert set(ADAPTERS) <= set(LAYOUTS)
    for name in ADAPTERS.keys() - {"csv"}:
        with pytest.raises(ManifestError, match="gives no row"):
            ADAPTERS[name](tmp_path)
        with pytest.raises(ManifestError, match="not a folder"):
            ADAPTERS[name](tmp_path / "none")


def test_other_forms_of_a_layout(tmp_path: Path) -> None:
    put(tmp_path / "test", "a.mp4", "b.mp4")
    put_text(tmp_path / "test" / "labels.csv", "\ufefffilename,label\na.mp4,0\nb.mp4,1\n")
    assert ADAPTERS["dfdc-test"](tmp_path / "test").table["fake"].tolist() == [0, 1]
    celebdf = plant("celebdf", tmp_path / "celebdf")
    (celebdf / "YouTube-real").rename(celebdf / "Youtube-real")
    rows = rows_of(ADAPTERS["celebdf"](celebdf).table, celebdf)
    assert rows.loc["Youtube-real/00001.mp4", "split"] == "test"
    above = tmp_path / "above"
    plant("fakeavceleb", above / "FakeAVCeleb")
    (above / "FakeAVCeleb" / "meta_data.csv").rename(above / "meta_data.csv")
    assert len(ADAPTERS["fakeavceleb"](above).table) == 12
    forensics = plant("faceforensics", tmp_path / "ff")
    for name in ("train", "val", "test"):
        (forensics / f"{name}.json").unlink()
    table = ADAPTERS["faceforensics"](forensics).table
    assert set(table["split"]) == {""}, "split by the pairs that the fakes' names tell"
    assert table["group"].nunique() == 4 + 2
    part = plant("dfdc", tmp_path / "dfdc") / "dfdc_train_part_2"
    listing = ADAPTERS["dfdc"](part)
    found = rows_of(listing.table, part).loc["fake.mp4", ["original", "group"]]
    assert found.tolist() == ["real.mp4", "dfdc:dfdc_train_part_2/real"], "few parts once were few groups"
    assert [p.kind for p in listing.problems] == ["groups are originals"]


def test_a_list_with_everything(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}.mp4" for name in "abcdef"))
    stated = {
        "path": [str(tmp_path / "a.mp4"), *(f"{name}.mp4" for name in "bcdef")],
        "fake": [0, 1, None, 0, 0, 1],
        "video_fake": [0, 1, 1, 1, 0, 0],
        "audio_fake": [0, 0, None, 0, 0, 0],
        "group": ["1", "", "2", "2", "2", "2"],
        "split": ["train", "val", "test", "train", "train", "sometimes"],
        "original": ["", "a.mp4", "", "", "", ""],
        "fake_segments": [[], [[0.5, 1.0]], [], [], [[1.0, 2.0]], []],
        "weight": 0.5,
    }
    pd.DataFrame(stated).to_parquet(tmp_path / "list.parquet")
    listing = ADAPTERS["csv"](tmp_path / "list.parquet")
    rows = rows_of(listing.table, tmp_path)
    assert rows["split"].tolist() == ["train", "dev", "test"]
    assert rows["fake"].tolist() == [0, 1, 1]  # a fake face makes a file fake
    assert rows.loc["b.mp4", ["group", "original"]].tolist() == ["1", "a.mp4"]  # the group of its original
    assert rows.loc["b.mp4", "fake_segments"] == ((0.5, 1.0),)
    assert rows["weight"].tolist() == [0.5] * 3
    assert sorted((p.kind, Path(p.path).name) for p in listing.problems) == [
        ("unknown label", "d.mp4"),  # real, with a fake face
        ("unknown label", "e.mp4"),  # real, with a fake segment
        ("unknown split", "f.mp4"),
    ]


def test_a_list_may_name_one_modality(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    for given, other in (("video_fake", "audio_fake"), ("audio_fake", "video_fake")):
        put_text(tmp_path / "list.csv", f"path,fake,{given}\na.mp4,real,0\nb.mp4,1,1\nc.mp4,0,\n")
        rows = ADAPTERS["csv"](tmp_path / "list.csv").table
        assert rows["fake"].tolist() == [0, 1, 0]
        assert rows[other].fillna(-1).tolist() == [0, -1, 0]  # face and voice of a real are real
        assert rows[given].fillna(-1).tolist() == [0, 1, -1]  # what is given stays, the unknown too


def test_an_equal_name_makes_an_original_and_no_other(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.mp4", "b.mp4", "c.mov", "c.mp4", "d.wav", "e.wav", "ann/f.mp4")
    put(tmp_path / "fake", "a.mp4", "a_1.mp4", "b.mkv", "c.avi", "d.mp4", "e.mp3", "bob/f.mp4")
    put(tmp_path, "fake_video/c.mp4", "fake_both/ann/f.mp4")
    listing = ADAPTERS["folder"](tmp_path)
    rows = rows_of(listing.table, tmp_path)
    assert {k: v for k, v in rows["original"].items() if v} == {
        "fake/a.mp4": "real/a.mp4",
        "fake/b.mkv": "real/b.mp4",
        "fake_video/c.mp4": "real/c.mp4",  # c.avi: two reals of that name; d.mp4: only its sound is there
        "fake/e.mp3": "real/e.wav",
        "fake_both/ann/f.mp4": "real/ann/f.mp4",  # another person's f.mp4 is not it
    }
    for fake, real in rows["original"].items():
        assert not real or rows.loc[fake, "group"] == rows.loc[real, "group"]
    assert [(p.kind, p.detail[:7]) for p in listing.problems] == [("original by name", "5 fakes")]


def test_the_tables_of_a_corpus_become_one_manifest(tmp_path: Path) -> None:
    root, out = plant("corpus", tmp_path), tmp_path / "m.csv"
    assert prepare_corpus.main([str(root), "--out", str(out), "--dev", "0"]) == 0
    assert json.loads((tmp_path / "m.csv.report.json").read_text())["problems"] == {}
    table = read_manifest(out)
    check_rows("corpus", table, tmp_path)
    own = [Path(path).stem for path, it in zip(table["path"], own_voice(table), strict=True) if it and "clips" in path]
    assert own == ["r1", "r2", "w1", "w2"]  # of r1 and r2, which are real, nobody says otherwise
    unit = dict(zip(table["dataset"], units(table, "dataset").tolist(), strict=True))
    assert unit["c/d"] == unit["e/f"] != unit["a/b"]  # eve stands in both


def test_the_walk_follows_links_once_and_names_what_it_cannot_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "a/b/1.mp4")
    put(tmp_path, "far/2.mp4")
    for link, target in (("far", tmp_path / "far"), ("again", tmp_path / "far"), ("broken.mp4", tmp_path / "nowhere")):
        (root / link).symlink_to(target)
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "b" / "up").symlink_to(root / "a")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff.mp4")).write_bytes(b"x")
    os.mkfifo(root / "pipe.mp4")
    files, problems = walk(root)
    assert files in ({"a/b/1.mp4", "far/2.mp4"}, {"a/b/1.mp4", "again/2.mp4"})
    kinds = sorted((p.kind, p.path) for p in problems)
    assert kinds[:2] == [("missing file", "broken.mp4"), ("missing file", "pipe.mp4")]
    assert [kind for kind, _ in kinds[2:]] == ["unreadable name"]


def test_a_path_that_leaves_the_dataset_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "outside.mp4", "part/in.mp4")
    content = {key: {"label": "REAL"} for key in ("../outside.mp4", "/etc/passwd", "in.mp4")}
    put_text(tmp_path / "part" / "metadata.json", content)
    listing = ADAPTERS["dfdc"](tmp_path / "part")
    assert len(listing.table) == 1
    assert [p.kind for p in listing.problems if p.path != "."] == ["missing file", "missing file"]


def test_extra_columns_may_start_late_and_bad_segments_are_unknown(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    extra = dict.fromkeys("note zeta eta beta iota alpha".split(), "n")
    for value in ("ab", {"ab": 1}, {0: 1}, 5, [5], ["ab"], [{}], [[1.0]], [[2.0, 1.0]], [[0.0, float("inf")]]):
        rows = Rows(tmp_path, "d")
        rows.add("a.mp4", (1, 1, 0), "g", segments=value)
        rows.add("b.mp4", (1, 1, 0), "g", **extra, video_fake_segments=((0.0, 1.0),))
        listing = rows.listing()
        assert [(p.kind, p.path) for p in listing.problems] == [("bad segments", "a.mp4")]
        assert listing.table["fake_segments"].tolist() == [(), ()]
        assert listing.table["note"].tolist() == ["", "n"]
        assert listing.table["video_fake_segments"].tolist() == [(), ((0.0, 1.0),)]
        assert list(listing.table)[-7:-1] == list(extra), "in their order, whatever the hash seed"


HOSTILE = ["", "[]", "{}", "null", "[[[", '{"a.mp4": null}', '[{"file": 3}]', '[{"file": "a.mp4"}]', "[" * 100_000]
HOSTILE += ["\x00", '{"a.mp4": {"label": "\\ud800"}}']


HOSTILE_FILES = """
    dfdc/metadata.json dfdc-test/metadata.json dfdc-test/labels.csv dfdc-preview/dataset.json fakeavceleb/meta_data.csv
    lavdf/metadata.min.json avdeepfake1m/train_metadata.json avdeepfake1m/train_metadata/a.json
    avdeepfake1m/test_files.txt
""".split()


def test_hostile_metadata_is_a_clear_error(tmp_path: Path) -> None:
    for place in HOSTILE_FILES:
        name, _, file = place.partition("/")
        put(tmp_path / place, "a.mp4")
        for content in HOSTILE:
            put_text(tmp_path / place / file, content)
            with pytest.raises(ManifestError, match="gives no row"):
                ADAPTERS[name](tmp_path / place)
    for text in ("", "file,label\na,1\n", "path,fake\n", "path,fake\nnone.mp4,1\n"):
        put_text(tmp_path / "list.csv", text)
        with pytest.raises(ManifestError, match=r"cannot read|needs the columns path and fake|gives no row"):
            ADAPTERS["csv"](tmp_path / "list.csv")
