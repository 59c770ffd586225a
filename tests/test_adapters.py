"""Every adapter on a miniature of its dataset's layout: the rows that come out, and the faults that are named."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import dataset_trees
import pandas as pd
import pytest
from dataset_trees import TREES, put, put_text, wide_corpus

from avdetect.datasets.adapters import ADAPTERS, Listing
from avdetect.datasets.adapters.listing import Rows, walk
from avdetect.datasets.manifest import (
    LABELS,
    assign_splits,
    digest,
    own_voice,
    read_manifest,
    validate,
    write_manifest,
)
from avdetect.datasets.splits import units
from avdetect.errors import ManifestError

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

# What each tree of dataset_trees must yield: rows, and problems by kind.
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "dfdc": (8, {"missing file": 1, "unknown label": 1, "unreadable metadata": 2, "unlisted file": 2}),
    "dfdc-test": (2, {"missing file": 1, "unknown label": 1, "unlisted file": 1}),
    "dfdc-preview": (12, {"unknown label": 1}),
    "fakeavceleb": (12, {"missing file": 1, "unknown label": 1, "unreadable metadata": 1, "duplicate row": 1}),
    "faceforensics": (51, {"missing file": 1, "unknown name": 1, "unreadable metadata": 1}),
    "celebdf": (8, {"missing file": 1, "unknown name": 1, "conflicting label": 1}),
    "lavdf": (13, {"missing file": 1, "unknown label": 2, "bad segments": 1, "unreadable metadata": 1}),
    "avdeepfake1m": (
        19,
        {
            "missing file": 2,
            "unknown label": 2,
            "bad segments": 1,
            "unreadable metadata": 1,
        },
    ),
    "deepfaketimit": (8, {"separate sound": 1, "unlisted file": 2}),
    "kodf": (8, {"unknown name": 2}),
    "avlips": (8, {"separate sound": 1, "unlisted file": 1}),
    "csv": (7, {"missing file": 1, "unknown label": 1, "duplicate row": 1, "conflicting rows": 1}),
    "folder": (8, {"unlisted file": 2, "original by name": 1}),
    "corpus": (11, {}),
}


def listed(name: str, root: Path) -> Listing:
    root.mkdir(exist_ok=True)
    return ADAPTERS[name](TREES[name](root))


def rows_of(listing: Listing, root: Path) -> pd.DataFrame:
    """Indexed by the path within the tree; originals likewise."""
    table = listing.table
    assert table["path"].str.startswith(f"{root}/").all()
    short = {c: table[c].str.removeprefix(f"{root}/") for c in ("path", "original")}
    return table.assign(**short).set_index("path")


def labels_of(rows: pd.DataFrame, path: str) -> list[int | None]:
    return [None if pd.isna(value) else int(value) for value in rows.loc[path, list(LABELS)]]


def test_every_adapter_has_a_tree() -> None:
    assert set(TREES) == set(ADAPTERS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_rows_and_faults_of_each_layout(name: str, tmp_path: Path) -> None:
    listing = listed(name, tmp_path)
    count, problems = EXPECTED[name]
    assert Counter(p.kind for p in listing.problems) == problems
    assert len(listing.table) == count
    assert all(Path(p).is_file() for p in listing.table["path"])
    pd.testing.assert_frame_equal(validate(listing.table, check_splits=False), listing.table)
    # Split as the tool does it, no group leaks; the official splits of one set do.
    if name == "avdeepfake1m":
        with pytest.raises(ManifestError, match="id00012' stands in more than one split"):
            validate(assign_splits(listing.table, 0.2, 0.1, 0))
    else:
        validate(assign_splits(listing.table, 0.2, 0.1, 0))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_order_on_disk_and_the_place_of_the_tree_do_not_count(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = listed(name, tmp_path / "one" / "tree")
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self.entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    second = listed(name, tmp_path / "two" / "tree")
    moved = first.table.assign(
        **{c: first.table[c].str.replace("/one/", "/two/", regex=False) for c in ("path", "original")}
    )
    pd.testing.assert_frame_equal(second.table, moved)
    assert digest(second.table) == digest(first.table)
    assert [p.kind for p in second.problems] == [p.kind for p in first.problems]


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ("csv", "corpus")])
def test_an_empty_or_absent_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="gives no row"):
        ADAPTERS[name](tmp_path)
    with pytest.raises(ManifestError, match="not a folder"):
        ADAPTERS[name](tmp_path / "none")


def test_dfdc_knows_only_the_whole(tmp_path: Path) -> None:
    rows = rows_of(listed("dfdc", tmp_path), tmp_path)
    assert labels_of(rows, "dfdc_train_part_0/real.mp4") == [0, 0, 0]
    assert labels_of(rows, "dfdc_train_part_0/fake.mp4") == [1, None, None]
    assert rows.loc["dfdc_train_part_0/fake.mp4", "original"] == "dfdc_train_part_0/real.mp4"
    assert rows["original"].eq("").sum() == 4
    assert rows["group"].nunique() == 4
    assert rows.loc["dfdc_train_part_3/fake.mp4", "group"] == "dfdc:dfdc_train_part_3"
    assert set(rows["split"]) == {""}


def test_one_folder_of_dfdc_is_a_root_too(tmp_path: Path) -> None:
    TREES["dfdc"](tmp_path)
    rows = rows_of(ADAPTERS["dfdc"](tmp_path / "dfdc_train_part_2"), tmp_path / "dfdc_train_part_2")
    assert rows.loc["fake.mp4", ["original", "group"]].tolist() == ["real.mp4", "dfdc:dfdc_train_part_2/real"]


def test_a_few_folders_of_dfdc_are_grouped_by_originals(tmp_path: Path) -> None:
    """One part of fifty was once one group, which nothing can be cut from; with all of them the folder is the group."""
    for parts in (3, 4):
        root = tmp_path / str(parts)
        for part in range(parts):
            folder = f"dfdc_train_part_{part}"
            put(root, f"{folder}/r.mp4", f"{folder}/f.mp4", f"{folder}/s.mp4")
            fake = {"label": "FAKE", "original": "r.mp4"}
            content = {"r.mp4": {"label": "REAL"}, "f.mp4": fake, "s.mp4": {"label": "REAL"}}
            put_text(root / folder / "metadata.json", content)
        listing = ADAPTERS["dfdc"](root)
        groups = rows_of(listing, root)["group"]
        assert groups["dfdc_train_part_0/r.mp4"] == groups["dfdc_train_part_0/f.mp4"]
        assert groups.nunique() == (6 if parts == 3 else 4)
        assert any(p.kind == "groups are originals" for p in listing.problems) == (parts == 3)


def test_dfdc_test_keeps_its_augmentations(tmp_path: Path) -> None:
    rows = rows_of(listed("dfdc-test", tmp_path), tmp_path)
    assert set(rows["split"]) == {"test"}
    assert labels_of(rows, "test/b.mp4") == [1, None, None]
    assert json.loads(rows.loc["test/b.mp4", "augmentations"]) == {"augmenter": {"framerate_change": {"fps": 20}}}
    assert rows.loc["test/a.mp4", "augmentations"] == ""


def test_dfdc_test_by_its_table(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    put_text(tmp_path / "labels.csv", "\ufefffilename,label\na.mp4,0\nb.mp4,1\n")
    rows = rows_of(ADAPTERS["dfdc-test"](tmp_path), tmp_path)
    assert rows["fake"].to_dict() == {"a.mp4": 0, "b.mp4": 1}


def test_dfdc_preview_keeps_an_actor_together(tmp_path: Path) -> None:
    rows = rows_of(listed("dfdc-preview", tmp_path), tmp_path)
    assert rows.groupby("group").size().to_dict() == {f"dfdc-preview:10{n}": 3 for n in (1, 2, 3, 4)}
    assert rows.loc["method_B/104/104_998/x.mp4", ["split", "method"]].tolist() == ["test", "method_B"]


def test_fakeavceleb_four_categories(tmp_path: Path) -> None:
    rows = rows_of(listed("fakeavceleb", tmp_path), tmp_path)
    name = "African/men/id00166/00109.mp4"
    assert labels_of(rows, f"RealVideo-RealAudio/{name}") == [0, 0, 0]
    assert labels_of(rows, f"RealVideo-FakeAudio/{name}") == [1, 0, 1]
    assert labels_of(rows, f"FakeVideo-RealAudio/{name}") == [1, 1, 0]
    assert labels_of(rows, f"FakeVideo-FakeAudio/{name}") == [1, 1, 1]
    assert rows.loc[f"FakeVideo-FakeAudio/{name}", "method"] == "faceswap-wav2lip"
    assert rows.loc[rows["fake"] == 1, "original"].str.startswith("RealVideo-RealAudio/African/men/id00").all()
    assert set(rows["group"]) == {"fakeavceleb:id00076", "fakeavceleb:id00166", "fakeavceleb:id00173"}


@pytest.mark.parametrize("place", ["", "FakeAVCeleb/"])
def test_fakeavceleb_wherever_its_table_lies(place: str, tmp_path: Path) -> None:
    file = "RealVideo-RealAudio/African/men/id00076/00109.mp4"
    put(tmp_path, place + file)
    line = f"id00076,-,-,real,A,RealVideo-RealAudio,African,men,00109.mp4,FakeAVCeleb/{Path(file).parent}"
    put_text(tmp_path / "meta_data.csv", f"{dataset_trees.FAKEAVCELEB_HEADER}\n{line}\n")
    assert rows_of(ADAPTERS["fakeavceleb"](tmp_path), tmp_path).index.tolist() == [place + file]


def test_fakeavceleb_with_another_header_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    put_text(tmp_path / "meta_data.csv", "source,method,path\na,b,c\n")
    with pytest.raises(ManifestError, match=r"unreadable metadata: meta_data\.csv"):
        ADAPTERS["fakeavceleb"](tmp_path)


def test_faceforensics_pairs_splits_and_actors(tmp_path: Path) -> None:
    rows = rows_of(listed("faceforensics", tmp_path), tmp_path)
    fake, real = "manipulated_sequences/{}/{}/videos/{}.mp4", "original_sequences/youtube/{}/videos/{}.mp4"
    place = fake.format("NeuralTextures", "c40", "003_000")
    assert labels_of(rows, place) == [1, 1, None]
    assert rows.loc[place, ["method", "split", "compression"]].tolist() == ["NeuralTextures", "train", "c40"]
    assert rows.loc[place, "original"] == real.format("c40", "003")
    assert labels_of(rows, real.format("c23", "020")) == [0, 0, None]
    assert rows.loc[real.format("c23", "020"), "split"] == "dev"
    assert rows.loc[real.format("c23", "031"), "split"] == "test"
    ff = rows[rows["dataset"] == "faceforensics"]
    assert ff["group"].nunique() == 4
    assert ff[ff["group"] == "faceforensics:000"].shape[0] == 2 * 2 * 3
    dfd = rows[rows["dataset"] == "dfd"]
    swap = "manipulated_sequences/DeepFakeDetection/c23/videos/24_23__kitchen_still__9TDCEK1Q.mp4"
    assert dfd.loc[swap, "original"] == "original_sequences/actors/c23/videos/24__kitchen_still.mp4"
    assert dfd["group"].value_counts().to_dict() == {"dfd:23": 3, "dfd:07": 1}  # 24-23, 23-25 and 24 are joined
    assert set(dfd["split"]) == {""}


def test_faceforensics_without_official_splits_is_split_by_pairs(tmp_path: Path) -> None:
    TREES["faceforensics"](tmp_path)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.json").unlink()
    listing = ADAPTERS["faceforensics"](tmp_path)
    assert ("missing file", "train.json") in [(p.kind, p.path) for p in listing.problems]
    assert set(listing.table["split"]) == {""}
    assert listing.table.loc[listing.table["dataset"] == "faceforensics", "group"].nunique() == 4


@pytest.mark.parametrize("youtube", ["YouTube-real", "Youtube-real"])
def test_celebdf_in_both_spellings(youtube: str, tmp_path: Path) -> None:
    listing = ADAPTERS["celebdf"](dataset_trees.celebdf(tmp_path, youtube))
    rows = rows_of(listing, tmp_path)
    assert labels_of(rows, f"{youtube}/00001.mp4") == [0, 0, None]
    assert labels_of(rows, "Celeb-synthesis/id1_id0_0007.mp4") == [1, 1, None]
    assert rows.loc["Celeb-synthesis/id1_id0_0007.mp4", "original"] == "Celeb-real/id1_0007.mp4"
    assert rows.loc["Celeb-synthesis/id1_id0_0007.mp4", "group"] == "celebdf:id1"  # the target, not the source
    tested = rows.index[rows["split"] == "test"].tolist()
    assert tested == ["Celeb-real/id1_0007.mp4", "Celeb-synthesis/id1_id0_0007.mp4", f"{youtube}/00001.mp4"]
    assert rows.loc["Celeb-real/id1_0007.mp4", "fake"] == 0  # the list calls it 0 = fake
    assert "conflicting label" in {p.kind for p in listing.problems}


def test_lavdf_segments_and_parts(tmp_path: Path) -> None:
    rows = rows_of(listed("lavdf", tmp_path), tmp_path)
    assert [labels_of(rows, f"dev/00000{n}.mp4") for n in range(4)] == [[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]]
    assert rows.loc["dev/000002.mp4", "fake_segments"] == ((0.5, 1.5),)
    assert rows.loc["dev/000000.mp4", "fake_segments"] == ()
    assert rows.loc["train/000008.mp4", "fake_segments"] == ()  # its period ends before it starts: reported, unknown
    assert rows["split"].value_counts().to_dict() == {"train": 5, "dev": 4, "test": 4}
    assert rows.loc["test/000003.mp4", ["original", "method"]].tolist() == ["test/000000.mp4", "wav2lip+sv2tts"]
    assert rows.loc["test/000003.mp4", "group"] == rows.loc["test/000000.mp4", "group"]


def test_avdeepfake1m_segments_of_each_part(tmp_path: Path) -> None:
    rows = rows_of(listed("avdeepfake1m", tmp_path), tmp_path)
    clip = "val/id00012/valTalk/00001"
    names = ("real", "visual_modified", "audio_modified", "both_modified")
    assert [labels_of(rows, f"{clip}/{n}.mp4") for n in names] == [[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]]
    spans = rows.loc[f"{clip}/visual_modified.mp4"]
    assert spans["fake_segments"] == ((0.2, 0.9),)
    assert spans["video_fake_segments"] == ((0.25, 0.9),)
    assert spans["audio_fake_segments"] == ()
    assert spans["original"] == f"{clip}/real.mp4"
    assert rows.loc[f"{clip}/real.mp4", "split"] == "dev"
    assert labels_of(rows, "testA/a1.mp4") == labels_of(rows, "test/000001.mp4") == [None, None, None]
    assert rows.loc["testA/a1.mp4", "split"] == "test"
    # The person is the group, whatever the official splits say.
    assert rows.loc["train/id00012/trainTalk/00001/real.mp4", "group"] == rows.loc[f"{clip}/real.mp4", "group"]


def test_avdeepfake1m_of_single_files(tmp_path: Path) -> None:
    listing = ADAPTERS["avdeepfake1m"](dataset_trees.avdeepfake1m_single(tmp_path))
    rows = rows_of(listing, tmp_path)
    assert [p.kind for p in listing.problems] == ["unreadable metadata"]
    assert rows["split"].tolist() == ["train", "train", "dev", "dev"]
    assert rows["method"].tolist() == ["", "latentsync+vits"] * 2
    assert labels_of(rows, "val/lrs3/valtalk1/00001.mp4") == [1, 1, 0]


def test_deepfaketimit_pairs_and_sound(tmp_path: Path) -> None:
    listing = listed("deepfaketimit", tmp_path)
    rows = rows_of(listing, tmp_path)
    fake = "lower_quality/fadg0/sa1-video-fram1.avi"
    assert labels_of(rows, fake) == [1, 1, None]
    assert rows.loc[fake, ["original", "method"]].tolist() == ["vidtimit/fadg0/sa1.mp4", "faceswap-gan-lower"]
    assert rows.groupby("group").size().to_dict() == {"deepfaketimit:fadg0": 5, "deepfaketimit:mabw0": 3}
    assert not rows.index.str.endswith(".wav").any()
    assert "4 .wav files" in next(p.detail for p in listing.problems if p.kind == "separate sound")


def test_kodf_names(tmp_path: Path) -> None:
    rows = rows_of(listed("kodf", tmp_path), tmp_path)
    assert labels_of(rows, "real/101_001.mp4") == [0, 0, 0]
    assert rows["method"].value_counts().drop("").to_dict() == dict.fromkeys(
        ["dfl", "dffs", "fsgan", "fo", "audio-driven"], 1
    )
    assert rows.loc["fake/101_104_3_0001.mp4", ["group", "method"]].tolist() == ["kodf:101", "fsgan"]


def test_avlips_pairs(tmp_path: Path) -> None:
    rows = rows_of(listed("avlips", tmp_path), tmp_path)
    assert labels_of(rows, "1_fake/2.mp4") == [1, 1, None]
    assert labels_of(rows, "0_real/2.mp4") == [0, 0, 0]
    assert rows.loc["1_fake/2.mp4", "group"] == rows.loc["0_real/2.mp4", "group"] == "avlips:2"


def test_a_list_of_your_own(tmp_path: Path) -> None:
    rows = rows_of(listed("csv", tmp_path), tmp_path)
    assert labels_of(rows, "data/3.mp4") == [1, None, None]
    assert labels_of(rows, "data/4.mp4") == labels_of(rows, "data/6.mp4") == [0, 0, 0]
    assert rows["fake"].to_dict()["data/7.mp4"] == 1
    assert rows.loc["data/4.mp4", ["group", "dataset", "note"]].tolist() == ["data/4.mp4", "mine", "n4"]
    assert "data/1.mp4" not in rows.index  # listed as fake and as real


def test_a_list_with_everything(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4")
    frame = pd.DataFrame(
        {
            "path": [str(tmp_path / "a.mp4"), "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4"],
            "fake": [0, 1, None, 0, 0, 1],
            "video_fake": [0, 1, 1, 1, 0, 0],
            "audio_fake": [0, 0, None, 0, 0, 0],
            "group": ["1", "", "2", "2", "2", "2"],
            "split": ["train", "val", "test", "train", "train", "sometimes"],
            "original": ["", "a.mp4", "", "", "", ""],
            "fake_segments": [[], [[0.5, 1.0]], [], [], [[1.0, 2.0]], []],
            "weight": [0.5] * 6,
        }
    )
    frame.to_parquet(tmp_path / "list.parquet")
    listing = ADAPTERS["csv"](tmp_path / "list.parquet")
    rows = rows_of(listing, tmp_path)
    assert rows["split"].tolist() == ["train", "dev", "test"]
    assert rows["fake"].tolist() == [0, 1, 1]  # a fake part makes a fake whole
    assert rows.loc["b.mp4", ["group", "original"]].tolist() == ["1", "a.mp4"]  # the group of its original
    assert rows.loc["b.mp4", "fake_segments"] == ((0.5, 1.0),)
    assert rows["weight"].tolist() == [0.5] * 3
    assert sorted((p.kind, Path(p.path).name) for p in listing.problems) == [
        ("unknown label", "d.mp4"),  # real, with a fake face
        ("unknown label", "e.mp4"),  # real, with a fake segment
        ("unknown split", "f.mp4"),
    ]


@pytest.mark.parametrize("given", ["video_fake", "audio_fake"])
def test_a_list_may_name_one_part(given: str, tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    put_text(tmp_path / "list.csv", f"path,fake,{given}\na.mp4,real,0\nb.mp4,1,1\nc.mp4,0,\n")
    rows = rows_of(ADAPTERS["csv"](tmp_path / "list.csv"), tmp_path)
    other = "audio_fake" if given == "video_fake" else "video_fake"
    assert rows["fake"].tolist() == [0, 1, 0]
    assert rows[other].fillna(-1).tolist() == [0, -1, 0]  # the parts of a real are real
    assert rows[given].fillna(-1).tolist() == [0, 1, -1]  # what is given stays, the unknown too


@pytest.mark.parametrize("text", ["", "file,label\na,1\n", "path,fake\n", "path,fake\nnone.mp4,1\n"])
def test_a_list_that_gives_no_row_is_refused(text: str, tmp_path: Path) -> None:
    put_text(tmp_path / "list.csv", text)
    with pytest.raises(ManifestError, match=r"cannot read|needs the columns path and fake|gives no row"):
        ADAPTERS["csv"](tmp_path / "list.csv")


def test_a_sorted_folder(tmp_path: Path) -> None:
    rows = rows_of(listed("folder", tmp_path / "mine"), tmp_path / "mine")
    assert labels_of(rows, "fake/4.mp4") == [1, None, None]
    assert labels_of(rows, "fake_audio/bob/2.mp4") == [1, 0, 1]
    assert labels_of(rows, "fake_video/cid/2.mp4") == [1, 1, 0]
    assert labels_of(rows, "fake_both/5.wav") == [1, None, 1]  # a sound file has no picture to judge
    assert labels_of(rows, "real/3.mp4") == [0, 0, 0]
    assert rows.loc["fake/ann/1.mp4", "group"] == rows.loc["real/ann/1.mp4", "group"] == "mine:ann"
    assert rows.loc["real/3.mp4", "group"] == "mine:3"
    assert rows["original"].to_dict()["fake/ann/1.mp4"] == "real/ann/1.mp4"
    assert (rows["original"] != "").sum() == 1  # fake_audio/bob/2.mp4 is not real/bob/1.mp4


def test_an_equal_name_makes_an_original_and_no_other(tmp_path: Path) -> None:
    put(tmp_path, "real/a.mp4", "real/b.mp4", "real/c.mov", "real/c.mp4", "real/d.wav", "real/e.wav", "real/ann/f.mp4")
    put(
        tmp_path,
        "fake/a.mp4",
        "fake/a_1.mp4",
        "fake/b.mkv",
        "fake_video/c.mp4",
        "fake/c.avi",
        "fake/d.mp4",
        "fake/e.mp3",
    )
    put(tmp_path, "fake/bob/f.mp4", "fake_both/ann/f.mp4")
    listing = ADAPTERS["folder"](tmp_path)
    rows = rows_of(listing, tmp_path)
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


def test_nothing_but_reals(tmp_path: Path) -> None:
    listing = ADAPTERS["folder"](dataset_trees.reals(tmp_path))
    assert len(listing.table) == 12
    assert (listing.table[list(LABELS)] == 0).all(axis=None)
    assert listing.table["group"].nunique() == 12
    assert [p.kind for p in listing.problems] == ["taken as real"]
    put(tmp_path / "sorted", "real/ann/1.mp4", "real/ann/2.mp4", "real/bob/1.mp4")
    listing = ADAPTERS["folder"](tmp_path / "sorted")
    assert listing.table["group"].nunique() == 2
    assert listing.problems == []


# -- the corpus of development


def test_corpus_tables_become_one_manifest(tmp_path: Path) -> None:
    rows = rows_of(listed("corpus", tmp_path), tmp_path)
    assert labels_of(rows, "clips/f1.mp4") == [1, 1, None]
    assert labels_of(rows, "clips/m.mp4") == [1, 0, 0]  # mismatch: a real picture under a real voice of somebody else
    assert labels_of(rows, "speech/r.opus") == [0, None, 0]
    assert labels_of(rows, "speech/f.opus") == [1, None, 1]
    assert labels_of(rows, "stills/f.jpg") == [1, 1, None]
    assert (
        rows.loc["speech/r.opus", "group"] == rows.loc["speech/f.opus", "group"] != rows.loc["speech/g.opus", "group"]
    )
    assert rows["kind"].value_counts().to_dict()["speech"] == 4


def test_a_person_in_both_splits_of_the_corpus_goes_to_dev(tmp_path: Path) -> None:
    rows = rows_of(listed("corpus", tmp_path), tmp_path)
    assert rows.loc[rows["group"] == "clip:ann", "split"].tolist() == ["dev", "dev"]
    assert rows.loc[rows["group"] == "clip:bob", "split"].tolist() == ["train"]


def test_a_recording_is_the_original_of_its_synthetic_versions(tmp_path: Path) -> None:
    rows = rows_of(listed("corpus", tmp_path), tmp_path)
    assert rows.loc["speech/f.opus", "original"] == "speech/r.opus"  # its own speaker's, though q.opus comes first
    assert rows["original"].ne("").sum() == 1  # the other pair has no recording
    (tmp_path / "two").mkdir()
    TREES["corpus"](tmp_path / "two")
    speech = pd.read_csv(tmp_path / "two" / "speech.csv", keep_default_na=False)
    speech.loc[speech["file"] == "speech/f.opus", "speaker"] = "somebody"
    speech.to_csv(tmp_path / "two" / "speech.csv", index=False)
    rows = rows_of(ADAPTERS["corpus"](tmp_path / "two"), tmp_path / "two")
    assert rows.loc["speech/f.opus", "original"] == "speech/q.opus"


def test_a_wide_corpus_says_whose_voice_it_is_and_of_what_nobody_is_sure(tmp_path: Path) -> None:
    rows = rows_of(ADAPTERS["corpus"](wide_corpus(tmp_path)), tmp_path)
    assert labels_of(rows, "clips/w1.mp4") == [None, None, None]  # certain = 0: for lip-sync only
    assert labels_of(rows, "clips/w2.mp4") == [0, 0, 0]
    own = dict(zip(rows.index, own_voice(rows.reset_index()), strict=True))
    assert [path for path, it in own.items() if it and path.startswith("clips/")] == [
        *("clips/r1.mp4", "clips/r2.mp4"),  # real, and nobody says otherwise
        *("clips/w1.mp4", "clips/w2.mp4"),
    ]
    assert rows.loc["speech/w2.wav", "original"] == "speech/w1.wav"
    assert rows.loc[["speech/w1.wav", "speech/w2.wav"], "kind"].tolist() == ["speech", "speech-vocoded"]
    assert rows.loc[["stills/w1.jpg", "stills/w2.jpg"], "kind"].tolist() == ["still", "still-gan"]
    assert rows.loc["stills/w1.jpg", "group"] == rows.loc["stills/w2.jpg", "group"]


def test_a_person_of_several_sources_ties_them(tmp_path: Path) -> None:
    table = ADAPTERS["corpus"](wide_corpus(tmp_path)).table
    unit = dict(zip(table["dataset"], units(table, "dataset").tolist(), strict=True))
    assert unit["c/d"] == unit["e/f"] != unit["a/b"]


def test_own_voice_is_read_and_written_as_a_label(tmp_path: Path) -> None:
    listing = ADAPTERS["corpus"](wide_corpus(tmp_path))
    table = assign_splits(listing.table, 0, 0, 0)
    for name in ("m.csv", "m.parquet"):
        write_manifest(table, tmp_path / name)
        assert own_voice(read_manifest(tmp_path / name)).tolist() == own_voice(table).tolist()
    with pytest.raises(ManifestError, match="own_voice is '2'"):
        validate(table.assign(own_voice="2"))


@pytest.mark.parametrize("name", ["clips", "speech", "stills"])
def test_an_incomplete_corpus_is_refused(tmp_path: Path, name: str) -> None:
    TREES["corpus"](tmp_path)
    pd.read_csv(tmp_path / f"{name}.csv").drop(columns="source").to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(ManifestError, match="source"):
        ADAPTERS["corpus"](tmp_path)
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(ManifestError, match="not a corpus folder"):
        ADAPTERS["corpus"](tmp_path)


@pytest.mark.skipif(not CORPUS.exists(), reason="the development corpus is not on this machine")
def test_the_real_corpus() -> None:
    listing = ADAPTERS["corpus"](CORPUS)
    out = validate(listing.table)
    assert listing.problems == []
    assert len(out) == 605 + 2969 + 570
    assert own_voice(out).sum() == (out["fake"].eq(0)).sum()
    assert out["kind"].isin(["speech", "still"]).sum() == 2969 + 570
    for split in ("train", "dev"):
        part = out[out["split"] == split]
        for label in LABELS:
            assert set(part[label].dropna()) == {0, 1}, f"{split} lacks a class of {label}"
    assert (out.loc[out["fake"] == 0, "method"] == "").all()
    assert not out.loc[(out["fake"] == 1) & (out["kind"] == "speech"), "method"].eq("").any()
    assert out["original"].isin(out.loc[out["fake"] == 0, "path"]).sum() == out["original"].ne("").sum() > 800


# -- what the adapters share


def test_the_walk_follows_links_once_and_names_what_it_cannot_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "a/b/1.mp4")
    put(tmp_path, "far/2.mp4")
    (root / "far").symlink_to(tmp_path / "far")
    (root / "again").symlink_to(tmp_path / "far")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "b" / "up").symlink_to(root / "a")
    (root / "broken.mp4").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff.mp4")).write_bytes(b"x")
    os.mkfifo(root / "pipe.mp4")
    files, problems = walk(root)
    assert files in ({"a/b/1.mp4", "far/2.mp4"}, {"a/b/1.mp4", "again/2.mp4"})
    kinds = sorted((p.kind, p.path) for p in problems)
    assert [k for k, _ in kinds] == ["missing file", "missing file", "unreadable name"]
    assert [p for _, p in kinds[:2]] == ["broken.mp4", "pipe.mp4"]


def test_a_path_that_leaves_the_dataset_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "outside.mp4", "part/in.mp4")
    content = {"../outside.mp4": {"label": "REAL"}, "/etc/passwd": {"label": "REAL"}, "in.mp4": {"label": "REAL"}}
    put_text(tmp_path / "part" / "metadata.json", content)
    listing = ADAPTERS["dfdc"](tmp_path / "part")
    assert len(listing.table) == 1
    assert [p.kind for p in listing.problems if p.path != "."] == ["missing file", "missing file"]


def test_extra_columns_may_start_late(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    rows = Rows(tmp_path, "d")
    rows.add("a.mp4", (0, 0, 0), "g")
    rows.add("b.mp4", (1, 1, 0), "g", note="n", video_fake_segments=((0.0, 1.0),))
    out = rows.listing().table
    assert out["note"].tolist() == ["", "n"]
    assert out["video_fake_segments"].tolist() == [(), ((0.0, 1.0),)]


@pytest.mark.parametrize(
    "value", ["ab", {"ab": 1}, {0: 1}, 5, [5], ["ab"], [{}], [[1.0]], [[2.0, 1.0]], [[0.0, float("inf")]]]
)
def test_bad_segments_are_named_and_unknown(value: object, tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    rows = Rows(tmp_path, "d")
    rows.add("a.mp4", (1, 1, 0), "g", segments=value)
    listing = rows.listing()
    assert [(p.kind, p.path) for p in listing.problems] == [("bad segments", "a.mp4")]
    assert listing.table["fake_segments"].tolist() == [()]


HOSTILE = [
    "",
    "[]",
    "{}",
    "null",
    "[[[",
    '{"a.mp4": null}',
    '[{"file": 3}]',
    '[{"file": "a.mp4"}]',
    "[" * 100_000,
    "\x00",
]


@pytest.mark.parametrize("content", HOSTILE, ids=lambda c: repr(c)[:20])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dfdc", "metadata.json"),
        ("dfdc-test", "metadata.json"),
        ("dfdc-test", "labels.csv"),
        ("dfdc-preview", "dataset.json"),
        ("fakeavceleb", "meta_data.csv"),
        ("lavdf", "metadata.min.json"),
        ("avdeepfake1m", "train_metadata.json"),
        ("avdeepfake1m", "train_metadata/a.json"),
        ("avdeepfake1m", "test_files.txt"),
    ],
)
def test_hostile_metadata_is_a_clear_error(name: str, file: str, content: str, tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    put_text(tmp_path / file, content)
    with pytest.raises(ManifestError, match="gives no row"):
        ADAPTERS[name](tmp_path)
