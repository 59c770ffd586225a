"""The training table: what is wrong is named by row, no group leaks, and its digest is the identity of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import talking_clip

from avdetect.config import PreprocessConfig
from avdetect.datasets.cache import build_cache, cache_path, load_clips, save_clips
from avdetect.datasets.corpus import corpus_manifest
from avdetect.datasets.manifest import COLUMNS, LABELS, digest, fold_of, read_manifest, validate
from avdetect.errors import ManifestError
from avdetect.types import Clip

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"


def table(**columns: list) -> pd.DataFrame:
    base = {
        "path": ["a.mp4", "b.mp4", "c.wav", "d.jpg"],
        "fake": ["0", "1", "1", "1"],
        "video_fake": ["0", "1", "", "1"],
        "audio_fake": ["0", "0", "1", ""],
        "group": ["x", "x", "y", "z"],
        "split": ["train", "train", "dev", "train"],
        "dataset": ["one", "one", "two", "three"],
        "method": ["", "swap", "tts", "gan"],
    }
    return pd.DataFrame(base | columns)


# -- validation


def test_a_good_table_gets_typed_labels() -> None:
    out = validate(table())
    assert [str(out[c].dtype) for c in LABELS] == ["Int8"] * 3
    assert out["video_fake"].tolist()[:2] == [0, 1]
    assert out["video_fake"].isna().tolist() == [False, False, True, False]
    assert out["audio_fake"].isna().tolist() == [False, False, False, True]
    pd.testing.assert_frame_equal(validate(out), out)


def test_the_table_that_was_given_stays_as_it_is() -> None:
    given = table()
    before = given.copy()
    validate(given)
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 1, 1], [0.0, 1.0, 1.0, 1.0], [False, True, True, True], ["0", "1.0", "1", "1"], [0, 1, np.nan, None]],
)
def test_labels_in_any_spelling_of_numbers(labels: list) -> None:
    out = validate(table(fake=labels))
    assert out["fake"].tolist()[:2] == [0, 1]
    assert out["fake"].isna().tolist() == [bool(pd.isna(v)) for v in labels]


@pytest.mark.parametrize("label", ["2", "-1", "0.5", "fake", "nan", "unknown", "inf", 2, 0.5, -1, float("inf")])
@pytest.mark.parametrize("column", LABELS)
def test_an_unknown_label_is_named_with_its_row(column: str, label: object) -> None:
    values: list = ["0", "1", label, "1"]
    with pytest.raises(ManifestError, match=rf"row 2: {column} is .*{label}"):
        validate(table(**{column: values}))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ManifestError, match=f"lacks the column '{column}'"):
        validate(table().drop(columns=column))


@pytest.mark.parametrize("empty", ["", None, np.nan])
@pytest.mark.parametrize("column", ["path", "group", "split", "dataset"])
def test_an_empty_cell_is_named(column: str, empty: object) -> None:
    given = table()
    given[column] = given[column].astype(object)
    given.loc[3, column] = empty
    with pytest.raises(ManifestError, match=f"row 3: {column} is empty"):
        validate(given)


def test_a_group_in_both_splits_is_a_leak() -> None:
    with pytest.raises(ManifestError, match="'x' stands in more than one split"):
        validate(table(split=["train", "dev", "dev", "train"]))


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ManifestError, match=r"row 2: split is 'Dev'.*train or dev"):
        validate(table(split=["train", "train", "Dev", "train"]))


def test_a_path_twice_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"b\.mp4 stands in the manifest twice"):
        validate(table(path=["a.mp4", "b.mp4", "b.mp4", "d.jpg"]))


@pytest.mark.parametrize("column", ["video_fake", "audio_fake"])
def test_labels_must_not_contradict_each_other(column: str) -> None:
    with pytest.raises(ManifestError, match="row 0: fake is 0"):
        validate(table(**{column: ["1", "1", "", ""]}))
    # A real face under another person's real voice is fake as a whole.
    validate(table(fake=["1", "1", "1", "1"], video_fake=["0"] * 4, audio_fake=["0"] * 4))


def test_other_columns_stay() -> None:
    assert validate(table(kind=["a", "b", "c", "d"]))["kind"].tolist() == ["a", "b", "c", "d"]


# -- files


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_relative_paths_are_resolved_against_the_manifest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    given = table(path=["a.mp4", "sub/b.mp4", "/abs/c.wav", "../d.jpg"])
    if suffix == ".csv":
        given.to_csv(path, index=False)
    else:
        validate(given).to_parquet(path)
    out = read_manifest(path)
    assert out["path"].tolist() == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "sub" / "b.mp4"),
        "/abs/c.wav",
        str(tmp_path.parent / "d.jpg"),
    ]
    assert out["audio_fake"].isna().tolist() == [False, False, False, True]
    assert out["method"].fillna("").tolist() == ["", "swap", "tts", "gan"]


def test_two_spellings_of_one_path_are_one_file(tmp_path: Path) -> None:
    table(path=["a.mp4", "./a.mp4", "c.wav", "d.jpg"]).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match="twice"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3,4,5,6'])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "none.csv")


# -- identity and folds


def test_the_digest_knows_neither_row_order_nor_folder() -> None:
    plain = validate(table())
    moved = validate(table(path=["/x/a.mp4", "/y/b.mp4", "c.wav", "z/d.jpg"]))
    assert digest(plain) == digest(moved) == digest(plain.iloc[::-1]) == digest(plain.assign(kind="more"))
    assert len(digest(plain)) == 16


def test_the_digest_of_equal_names_in_two_folders_knows_no_row_order() -> None:
    twice = validate(table(path=["real/a.mp4", "fake/a.mp4", "c.wav", "fake/c.wav"]))
    orders = [twice.iloc[list(order)] for order in ((0, 1, 2, 3), (1, 0, 3, 2), (3, 1, 2, 0))]
    assert len({digest(t) for t in orders}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fake": ["0", "1", "1", ""]},
        {"video_fake": ["0", "", "", "1"]},
        {"audio_fake": ["0", "1", "1", ""]},
        {"path": ["a.mp4", "b.mp4", "c.wav", "e.jpg"]},
        {"group": ["x", "x", "y", "zz"]},
        {"split": ["train", "train", "dev", "dev"]},
        {"dataset": ["one", "one", "two", "four"]},
        {"method": ["", "swap", "vocoder", "gan"]},
    ],
)
def test_the_digest_knows_everything_else(change: dict) -> None:
    assert digest(validate(table(**change))) != digest(validate(table()))


def test_folds_never_split_a_group_and_never_change() -> None:
    groups = pd.Series([f"person {i % 50}" for i in range(400)])
    fold = fold_of(groups, 5)
    assert fold.groupby(groups).nunique().eq(1).all()
    assert set(fold) == {0, 1, 2, 3, 4}
    assert fold.value_counts().min() > 20
    pd.testing.assert_series_equal(fold_of(groups.iloc[::-1], 5).sort_index(), fold)
    # Written down: Python's own hash() differs from run to run.
    assert fold_of(pd.Series(["a", "b", "c", "person 1"]), 5).tolist() == [4, 0, 3, 0]


# -- the corpus adapter


def write_corpus(root: Path) -> None:
    pd.DataFrame(
        {
            "file": ["clips/r1.mp4", "clips/r2.mp4", "clips/f1.mp4", "clips/m.mp4", "clips/f2.mp4"],
            "fake": [0, 0, 1, 1, 1],
            "video_fake": [0, 0, 1, 0, 1],
            "audio_fake": ["0", "", "", "0", "1"],
            "kind": ["real", "real", "faceswap", "audio-swap", "mixed"],
            "generator": ["", "", "swapper", "", "both"],
            "identity": ["ann", "ann", "bob", "cid", "dora"],
            "source": ["s1", "s2", "s1", "s1", "s2"],
            "split": ["train", "dev", "train", "train", "train"],
        }
    ).to_csv(root / "clips.csv", index=False)
    pd.DataFrame(
        {
            "file": ["speech/r.opus", "speech/f.opus", "speech/g.opus"],
            "fake": [0, 1, 1],
            "system": ["", "hifigan", "tts"],
            "speaker": ["lj", "lj", ""],
            "source": ["page", "page", "page"],
            "split": ["train", "train", "train"],
        }
    ).to_csv(root / "speech.csv", index=False)
    pd.DataFrame(
        {
            "file": ["stills/r.jpg", "stills/f.jpg"],
            "fake": [0, 1],
            "generator": ["", "stylegan2"],
            "source": ["faces", "faces"],
            "split": ["train", "dev"],
        }
    ).to_csv(root / "stills.csv", index=False)


def test_corpus_tables_become_one_manifest(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    out = corpus_manifest(tmp_path)
    assert len(out) == 10
    rows = out.set_index(out["path"].map(lambda p: Path(p).name))
    assert (out["path"].map(Path).map(Path.is_absolute)).all()
    assert rows.loc["f1.mp4", "video_fake"] == 1
    assert pd.isna(rows.loc["f1.mp4", "audio_fake"])
    assert rows.loc["m.mp4", ["fake", "video_fake", "audio_fake"]].tolist() == [1, 0, 0]
    assert pd.isna(rows.loc[["r.opus", "f.opus", "g.opus"], "video_fake"]).all()
    assert rows.loc[["r.opus", "f.opus"], "audio_fake"].tolist() == [0, 1]
    assert pd.isna(rows.loc[["r.jpg", "f.jpg"], "audio_fake"]).all()
    assert rows.loc[["r.jpg", "f.jpg"], "video_fake"].tolist() == [0, 1]
    assert rows.loc["r.opus", "group"] == rows.loc["f.opus", "group"] != rows.loc["g.opus", "group"]
    assert rows["kind"].value_counts().to_dict()["speech"] == 3


def test_a_person_in_both_splits_of_the_corpus_goes_to_dev(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    out = corpus_manifest(tmp_path)
    assert out.loc[out["group"] == "clip:ann", "split"].tolist() == ["dev", "dev"]
    assert out.loc[out["group"] == "clip:bob", "split"].tolist() == ["train"]


@pytest.mark.parametrize("name", ["clips", "speech", "stills"])
def test_an_incomplete_corpus_is_refused(tmp_path: Path, name: str) -> None:
    write_corpus(tmp_path)
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    rows.drop(columns="source").to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(ManifestError, match="source"):
        corpus_manifest(tmp_path)
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(ManifestError, match="not a corpus folder"):
        corpus_manifest(tmp_path)


@pytest.mark.skipif(not CORPUS.exists(), reason="the development corpus is not on this machine")
def test_the_real_corpus() -> None:
    out = corpus_manifest(CORPUS)
    assert len(out) == 605 + 2969 + 570
    assert out["kind"].isin(["speech", "still"]).sum() == 2969 + 570
    assert out["path"].map(lambda p: Path(p).is_file()).all()
    assert out.groupby("group")["split"].nunique().max() == 1
    for split in ("train", "dev"):
        part = out[out["split"] == split]
        for label in LABELS:
            assert set(part[label].dropna()) == {0, 1}, f"{split} lacks a class of {label}"
    assert (out.loc[out["fake"] == 0, "method"] == "").all()
    assert not out.loc[(out["fake"] == 1) & (out["kind"] == "speech"), "method"].eq("").any()


# -- the cache of preprocessed files


def test_clips_survive_the_cache(tmp_path: Path) -> None:
    clips = [talking_clip(30), Clip(1.2, 0.4, (), None), Clip(2.0, 1.0, talking_clip(30, track_id=5).tracks, None)]
    save_clips(tmp_path / "new" / "x.npz", clips)
    again = load_clips(tmp_path / "new" / "x.npz")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.npz"]
    assert len(again) == 3
    for a, b in zip(clips, again, strict=True):
        assert (a.start_seconds, a.duration_seconds) == (b.start_seconds, b.duration_seconds)
        assert (a.waveform is None) == (b.waveform is None)
        if a.waveform is not None and b.waveform is not None:
            np.testing.assert_array_equal(a.waveform.samples, b.waveform.samples)
            assert a.waveform.start_seconds == b.waveform.start_seconds
        for t, u in zip(a.tracks, b.tracks, strict=True):
            assert (t.track_id, t.first_frame) == (u.track_id, u.first_frame)
            for name in ("mouth_crops", "face_crops", "face_frames", "boxes", "landmarks", "confidences"):
                np.testing.assert_array_equal(getattr(t, name), getattr(u, name))
                assert getattr(t, name).dtype == getattr(u, name).dtype


def test_the_cache_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", num_clips=np.array([1], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_clips(tmp_path / "x.npz")


def test_the_cache_tells_files_and_configurations_apart(tmp_path: Path) -> None:
    for name, content in (("a.wav", b"1"), ("b.wav", b"1"), ("a2.wav", b"22")):
        (tmp_path / name).write_bytes(content)
    config = PreprocessConfig()
    places = {cache_path(tmp_path, str(tmp_path / n), config) for n in ("a.wav", "b.wav", "a2.wav")}
    places.add(cache_path(tmp_path, str(tmp_path / "a.wav"), PreprocessConfig(clip_seconds=6.0)))
    assert len(places) == 4


class NoPreprocessor:
    """Stands for a Preprocessor where no file can be read."""

    config = PreprocessConfig()

    def clips(self, path: str) -> list[Clip]:
        return [talking_clip(10)]


def test_two_files_that_the_cache_would_confuse_are_refused(tmp_path: Path) -> None:
    paths = []
    for folder in ("real", "fake"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0001.wav").write_bytes(folder.encode())  # equal names and sizes
        paths.append(str(tmp_path / folder / "0001.wav"))
    with pytest.raises(ManifestError, match=r"real/0001\.wav.*fake/0001\.wav"):
        build_cache(paths, tmp_path / "cache", NoPreprocessor(), iter)  # type: ignore[arg-type]


def test_a_file_that_is_gone_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    gone = str(tmp_path / "gone.wav")
    paths = [gone, str(tmp_path / "a.wav")]
    failures = build_cache(paths, tmp_path / "cache", NoPreprocessor(), iter)  # type: ignore[arg-type]
    assert list(failures) == [gone]
    assert len(load_clips(cache_path(tmp_path / "cache", paths[1], NoPreprocessor.config))) == 1
