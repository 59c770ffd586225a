"""What a cache publishes, and what it keeps of a killed process."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from cache_factory import IDENTITY, archive, contents, flip, manifest, sample_clips, write  # noqa: F401  # some are fixtures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avdetect.config import PreprocessConfig
from avdetect.datasets.cache.records import Record, Source
from avdetect.datasets.cache.shards import ShardWriter, finish, read_clips, read_files
from avdetect.datasets.cache.store import Identity, Outcome, Store
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import validate
from avdetect.errors import ConfigError, ManifestError
from avdetect.preprocess import PREPROCESS_VERSION


def test_order_is_the_manifests_whatever_the_shards_order(tmp_path: Path) -> None:
    clips = sample_clips()
    with Store(tmp_path, IDENTITY) as store:
        write(store, {"c": clips[2], "a-1-r": clips[1]})
        write(store, {"bad": [], "a": clips[0]})
        store.gather()
        source = Source("", 0, 0)
        outcomes = [
            Outcome(source, "a", {0: "a", 1: "a-1-r"}),
            Outcome(source, "bad", {}, {0: ("MediaError", "broken, with a comma\nand a line")}),
            Outcome(source, "c", {0: "c"}),
            Outcome(source, "a", {0: "a"}, {1: ("ToolError", "no encoder")}),  # the bytes of the first
        ]
        table = manifest(["/x/a", "/x/bad", "/x/c", "/x/again"])
        store.publish(table.assign(group=["/x/a", "/x/bad", "/x/c", "/x/a"]), outcomes)
    archive = ClipArchive(tmp_path)
    assert isinstance(archive.files.index, pd.RangeIndex)
    assert isinstance(archive.clips.index, pd.RangeIndex)
    assert archive.files["kind"].tolist() == ["test"] * 3
    assert archive.files["path"].tolist() == ["/x/a", "/x/c", "/x/again"]
    assert archive.files["sha256"].tolist() == ["a", "c", "a"]
    rows = archive.clips[["file", "copy", "clip"]].to_numpy().tolist()
    assert rows == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1]]
    wanted = [*clips[0], clips[1][0], clips[2][0], *clips[0]]
    assert [contents(archive.load(number)) for number in range(6)] == list(map(contents, wanted))
    assert archive.failures.to_numpy().tolist() == [
        ["/x/bad", 0, "MediaError", "broken, with a comma\nand a line"],
        ["/x/again", 1, "ToolError", "no encoder"],
    ]


def test_failures_are_no_formulas_and_are_read_back_as_they_are(tmp_path: Path) -> None:
    names = ["=good.mp4", "x;=cmd|calc.mp4", "'=a.mp4", "a.mp4"]
    with Store(tmp_path, IDENTITY) as store:
        outcomes = [Outcome(Source("", 0, 0), name, {}, {0: ("MediaError", f"{name} is bad")}) for name in names]
        store.publish(manifest(names), outcomes)
    lines = (tmp_path / "failures.csv").read_text().splitlines()
    assert lines[:3] == [
        "path,copy,error,message",
        "'=good.mp4,0,MediaError,'=good.mp4 is bad",
        '"x;\'=cmd|calc.mp4",0,MediaError,"x;\'=cmd|calc.mp4 is bad"',
    ]
    failures = ClipArchive(tmp_path).failures
    assert failures["path"].tolist() == names
    assert failures["message"].tolist() == [f"{name} is bad" for name in names]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    for name in ("lock", "sources.jsonl", "shards/000000.tar.partial"):
        for target in ("victim", "new"):
            home = tmp_path / f"{Path(name).stem} {target}"
            root, victim = home / "cache", home / "victim"
            (root / "shards").mkdir(parents=True)
            victim.write_text("precious")
            (root / "cache.json").write_text(IDENTITY.to_json())
            (root / name).symlink_to(home / target)
            with pytest.raises(OSError, match=f"{name} is a link"):
                Store(root, IDENTITY)
            assert victim.read_text() == "precious"
            assert sorted(path.name for path in home.iterdir()) == ["cache", "victim"]


def test_a_second_attempt_counts_only_if_it_succeeds(tmp_path: Path) -> None:
    clips = sample_clips()[2]
    for case, (shards, wanted) in enumerate(((([], clips), 1), ((clips, []), 0), (([], []), 1))):
        root = tmp_path / str(case)
        with Store(root, IDENTITY) as store:
            write(store, {"a": shards[0]})
            write(store, {"a": shards[1]})
        with Store(root, IDENTITY) as store:
            assert store.stored["a"].shard == wanted
            assert bool(store.stored["a"].error) == (shards == ([], []))


def test_other_clips_need_another_folder(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY), pytest.raises(ManifestError, match="another run is writing"):
        Store(tmp_path, IDENTITY)
    for change, names in (
        ({"config": PreprocessConfig(clip_seconds=6.0)}, "clip_seconds: 12.0 there, 6.0"),
        ({"detector": "scrfd"}, "scrfd"),
        ({"fingerprint": "f" * 16}, "f" * 16),
        ({"version": PREPROCESS_VERSION + 1}, f"{PREPROCESS_VERSION} there, {PREPROCESS_VERSION + 1}"),
    ):
        with pytest.raises(ConfigError, match=f"{names} now.*: name a new --cache folder"):
            Store(tmp_path, dataclasses.replace(IDENTITY, **change))
    values = json.loads((tmp_path / "cache.json").read_text())
    assert values.pop("preprocess_version") == PREPROCESS_VERSION
    assert "version" not in values["preprocess"], "bundles state the digest of the configuration"
    (tmp_path / "cache.json").write_text(json.dumps(values))
    assert Identity.read(tmp_path).version == 1, "a cache that states none is of the first"


def test_equal_bytes_must_agree(tmp_path: Path) -> None:
    changes = {
        "same.mp4": {"group": "h"},  # folds keep the two together (avdetect.datasets.splits.families)
        "dev.mp4": {"split": "dev", "group": "i"},
        "fake.mp4": {"fake": 1, "video_fake": 1},
        "unknown.mp4": {"audio_fake": None},
        "other.mp4": {"fake": 1, "sha256": "2" * 64},
    }
    rows = manifest(["first.mp4", *changes]).assign(sha256="1" * 64).astype(object).to_dict("records")
    table = pd.DataFrame([row | changes.get(row["path"], {}) for row in rows])
    outcomes = [Outcome(Source(row.path, 0, 0), row.sha256, {0: "a"}) for row in table.itertuples()]
    table = validate(table.drop(columns="sha256"))
    with Store(tmp_path, IDENTITY) as store:
        write(store, {"a": sample_clips()[2]})
        store.gather()
        with pytest.raises(ManifestError, match=r"dev\.mp4 has the bytes of first\.mp4.*\(3 such files"):
            store.publish(table, outcomes)
        assert pd.read_csv(tmp_path / "conflicts.csv").to_numpy().tolist() == [
            ["dev.mp4", "first.mp4", "split (dev against train)"],
            ["fake.mp4", "first.mp4", "fake (1 against 0), video_fake (1 against 0)"],
            ["unknown.mp4", "first.mp4", "audio_fake (unknown against 0)"],
        ]
        assert not (tmp_path / "manifest.parquet").exists()
        failed = {"keys": {}, "failures": {0: ("MediaError", "")}}  # what gives no clips contradicts nothing
        store.publish(table, [dataclasses.replace(outcome, **failed) for outcome in outcomes[:5]] + outcomes[5:])
        assert not (tmp_path / "conflicts.csv").exists()


def test_sources_that_changed_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("same.mp4", "touched.mp4", "gone.mp4", "changed.mp4")]
    for path in paths:
        path.write_bytes(path.name.encode())
    with Store(tmp_path / "cache", IDENTITY) as store:
        write(store, {"a": sample_clips()[2]})
        store.gather()
        outcomes = [Outcome(*store.identify(str(path)), {0: "a"}) for path in paths]
        store.publish(manifest([str(path) for path in paths]), outcomes)
    journal = tmp_path / "cache" / "sources.jsonl"
    with journal.open("a") as file:
        file.write('{"path": "a", "size": "1"}\nnull\n{"path": "cut of')  # by a kill
    with Store(tmp_path / "cache", IDENTITY) as store:
        assert len(store._hashes) == 4
        assert journal.read_bytes().endswith(b"cut of\n")
    archive = ClipArchive(tmp_path / "cache")
    os.utime(paths[1], (1, 1))
    paths[2].unlink()
    archive.check_sources()
    paths[3].write_bytes(b"CHANGED.MP4")  # as long as before
    os.utime(paths[3], (1, 1))
    with pytest.raises(ManifestError, match=r"changed\.mp4 has changed since"):
        archive.check_sources()


def test_a_lost_index_is_made_again(archive: ClipArchive) -> None:
    tar = archive.root / "shards" / "000000.tar"
    files, clips = read_files(tar), read_clips(tar)
    for path in tar.parent.glob("*.parquet"):
        path.unlink()
    pd.testing.assert_frame_equal(read_clips(tar), clips)
    (tar.parent / "000000.files.parquet").write_bytes(b"no table")
    pd.testing.assert_frame_equal(read_files(tar), files)
    (tar.parent / "000000.files.parquet").unlink()
    flip(tar, 600)
    with pytest.raises(ManifestError, match="damaged; delete it"):
        read_files(tar)


def test_a_folder_that_is_no_cache(archive: ClipArchive, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"run avdetect preprocess first"):
        ClipArchive(tmp_path / "nothing")
    with Store(tmp_path / "begun", IDENTITY):
        pass
    with pytest.raises(ManifestError, match=r"no run on .* has ended yet"):
        ClipArchive(tmp_path / "begun")
    (archive.root / "manifest.parquet").write_bytes((archive.root / "manifest.parquet").read_bytes() + b" ")
    with pytest.raises(ManifestError, match="of two runs"):
        ClipArchive(archive.root)
    (archive.root / "clips.parquet").write_bytes(b"no table")
    with pytest.raises(ManifestError, match="damaged"):
        ClipArchive(archive.root)
    values = json.loads((archive.root / "cache.json").read_text())
    for text in (json.dumps(values | {"format": 99}), json.dumps(values | {"preprocess": {"x": 1}}), "{}", "[", "[]"):
        (archive.root / "cache.json").write_text(text)
        with pytest.raises(ManifestError, match="new --cache folder"):
            ClipArchive(archive.root)


@pytest.fixture(scope="module")
def open_shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, int]]:
    """Three files in a shard that was never closed: its bytes, and how many stand before and with each file."""
    folder, ends = tmp_path_factory.mktemp("open"), {}
    writer = ShardWriter(folder)
    for key, clips in zip("abc", sample_clips(), strict=True):
        writer.begin()
        for clip in clips:
            writer.add(key, clip)
        writer.end(Record(key, key, f"/x/{key}", 1, 2))
        ends[key] = writer.bytes
    writer._file.close()
    return (folder / "000000.tar.partial").read_bytes(), ends


@given(st.floats(0, 1) | st.sampled_from("abc"), st.booleans())
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_shard_keeps_its_whole_files(
    tmp_path_factory: pytest.TempPathFactory, open_shard: tuple[bytes, dict[str, int]], share: float | str, torn: bool
) -> None:
    """Anywhere, or one byte before the end of a file."""
    content, ends = open_shard
    folder = tmp_path_factory.mktemp("cut")
    partial, tar = folder / "000000.tar.partial", folder / "000000.tar"
    cut = ends[share] - 1 if isinstance(share, str) else round(share * len(content))
    partial.write_bytes(content[:cut] + bytes(5000 * torn))  # a disk may give zeros for what was never written
    # Where only padding was cut off, zeros in its place make the file whole again.
    wanted = [key for key, end in ends.items() if end <= cut or (torn and not any(content[cut:end]))]
    assert finish(partial) == len(wanted)
    assert not partial.exists()
    assert tar.exists() == bool(wanted)
    if wanted:
        assert read_files(tar)["key"].tolist() == wanted
        counts = read_clips(tar)["key"].value_counts()
        assert counts.to_dict() == {key: {"a": 2, "b": 1, "c": 1}[key] for key in wanted}


def test_a_file_that_failed_leaves_no_clips_and_equal_clips_are_equal_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        writer = ShardWriter(folder)
        for key, clip in zip(("bad", "good", "late"), (sample_clips()[0][0], *sample_clips()[1], None), strict=True):
            writer.begin()
            if clip is not None:
                writer.add(key, clip)
            if key == "good":
                writer.end(Record("good", "good", "/x/good", 1, 2))
        writer.close()
        assert read_files(folder / "000000.tar")["key"].tolist() == ["good"]
        assert read_clips(folder / "000000.tar")["key"].tolist() == ["good"]
    assert (tmp_path / "one" / "000000.tar").read_bytes() == (tmp_path / "two" / "000000.tar").read_bytes()


def test_no_two_writers_get_one_number_and_an_open_shard_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    """Nor one that another has finished since it looked."""
    monkeypatch.setattr("avdetect.datasets.cache.shards._LOCK_SECONDS", 0.0)
    done, begun, third = (ShardWriter(tmp_path) for _ in range(3))
    done.begin()
    begun.begin()
    with pytest.raises(ManifestError, match="still being written"):
        finish(begun.partial)
    done.end(Record("a", "a", "/x/a", 1, 2))
    done.close()
    monkeypatch.setattr("avdetect.datasets.cache.shards.shard_numbers", lambda folder: [])
    third.begin()
    names = ["000000.tar", "000001.tar.partial", "000002.tar.partial"]
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == names
    begun.close()
    third.close()
