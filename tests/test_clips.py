"""The cache's format: what is stored comes back bit for bit, in parts or whole, and damage is noticed."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archive_factory import make_archive
from clips import make_track, talking_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import rms
from avdetect.config import PreprocessConfig
from avdetect.datasets import clips as clips_module
from avdetect.datasets.cache.payload import ClipReader, encode_clip
from avdetect.datasets.cache.records import Record, Source
from avdetect.datasets.cache.shards import ShardWriter, finish, read_clips, read_files
from avdetect.datasets.cache.store import Identity, Outcome, Store
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.crops import landmarks_in_crops
from avdetect.datasets.manifest import validate
from avdetect.errors import ConfigError, ManifestError
from avdetect.preprocess import PREPROCESS_VERSION
from avdetect.types import Clip, FaceTrack, Waveform

ARRAYS = ("mouth_crops", "face_crops", "face_frames", "boxes", "landmarks", "confidences")
IDENTITY = Identity(PreprocessConfig(), "none", "0" * 16)


def manifest(paths: list[str]) -> pd.DataFrame:
    rows = {"path": paths, "fake": 0, "video_fake": 0, "audio_fake": 0, "group": paths, "split": "train"}
    return pd.DataFrame(rows | {"dataset": "d", "method": "", "kind": "test"})


def contents(clip: Clip) -> list:
    """Everything that a clip holds, for a comparison bit by bit."""
    sound = clip.waveform and (
        clip.waveform.start_seconds,
        clip.waveform.samples.dtype,
        clip.waveform.samples.tobytes(),
    )
    found: list = [clip.start_seconds, clip.duration_seconds, sound]
    for track in clip.tracks:
        arrays = [getattr(track, name) for name in ARRAYS]
        found += [track.track_id, track.first_frame, *((a.dtype, a.shape, a.tobytes()) for a in arrays)]
    return found


def sample_clips() -> list[list[Clip]]:
    """Three files: two clips, one with two faces and no sound, one with neither face nor sound."""
    small = {"size": 32, "mouth": 16}
    faces = (make_track(np.arange(12) % 24, 0, 4, **small), make_track(np.arange(24), 0, 9, **small))
    return [
        [talking_clip(60, **small), talking_clip(40, start_frame=60, seed=1, **small)],
        [Clip(0.0, 1.0, faces, None)],
        [Clip(0.0, 3.0, (), None)],
    ]


@pytest.fixture
def archive(tmp_path: Path) -> ClipArchive:
    return make_archive(tmp_path / "cache", manifest(["/x/b.mp4", "/x/a.mp4", "/x/c.wav"]), sample_clips())


# -- one clip


def pixels(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


@st.composite
def wild_clips(draw: st.DrawFn) -> Clip:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = st.integers(0, 60)
    tracks = []
    for number in range(draw(st.integers(0, 3))):
        faces, mouths = draw(st.integers(0, 4)), draw(numbers)
        side, mouth = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        floats = {"boxes": (faces, 4), "landmarks": (faces, 5, 2), "confidences": (faces,)}
        values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in floats.items()}
        frames = rng.integers(-(2**40), 2**40, faces)
        crops = pixels(rng, mouths, mouth, mouth), pixels(rng, faces, side, side, 3)
        tracks.append(FaceTrack(number * 7, draw(numbers), *crops, frames, **values))
    sound = None
    if draw(st.booleans()):
        # Any 32 bits are a sample here: infinities, several NaNs and -0 come back as they were.
        sound = Waveform(rng.integers(0, 2**32, draw(numbers), dtype=np.uint32).view(np.float32), draw(st.floats(0, 9)))
    return Clip(draw(st.floats(0, 1e6)), draw(st.floats(0, 12)), tuple(tracks), sound)


@given(wild_clips(), st.data())
@settings(deadline=None, max_examples=25)
def test_any_clip_comes_back_bit_for_bit_whole_or_in_parts(clip: Clip, data: st.DataObject) -> None:
    content = encode_clip(clip)
    assert encode_clip(clip) == content
    with ClipReader(io.BytesIO(content)) as reader:
        assert contents(reader.clip()) == contents(clip)
        for number, track in enumerate(clip.tracks):
            stop = data.draw(st.integers(0, len(track.mouth_crops)))
            start = data.draw(st.integers(0, stop))
            np.testing.assert_array_equal(reader.mouths(number, start, stop), track.mouth_crops[start:stop])
            choice = data.draw(st.lists(st.integers(0, len(track.face_crops) - 1))) if len(track.face_crops) else []
            np.testing.assert_array_equal(reader.faces(number, choice, 1.3).crops, track.face_crops[choice])
            np.testing.assert_array_equal(reader.face_frames(number), track.face_frames)


def test_a_picture_too_long_for_the_codec_is_kept() -> None:
    mouths = pixels(np.random.default_rng(0), 26, 656, 656)  # 25 of them, one above the other: 16400 pixels
    track = dataclasses.replace(make_track(np.arange(0), every=1), mouth_crops=mouths)
    clip = Clip(0.0, 1.0, (track,), None)
    with ClipReader(io.BytesIO(encode_clip(clip))) as reader:
        assert contents(reader.clip()) == contents(clip)


# -- the archive


def test_parts_come_back(archive: ClipArchive) -> None:
    track = sample_clips()[0][1].tracks[0]
    faces = archive.faces(1, 0, [3, 1])
    np.testing.assert_array_equal(faces.crops, track.face_crops[[3, 1]])
    expected = landmarks_in_crops(track.boxes, track.landmarks, PreprocessConfig().faces.crop_margin, 32)
    np.testing.assert_array_equal(faces.landmarks, expected[[3, 1]])
    assert len(archive.faces(1, 0, [])) == 0
    np.testing.assert_allclose(archive.face_times(1, 0), 2.4 + 0.2 * np.arange(8))
    np.testing.assert_array_equal(archive.mouths(1, 0, 20, 38), track.mouth_crops[20:38])
    assert archive.mouths(1, 0, 7, 7).shape == (0, 16, 16)
    assert archive.waveform(1).samples.tobytes() == sample_clips()[0][1].waveform.samples.tobytes()
    assert archive.waveform(2) is None


def test_the_index_says_what_the_clips_hold(archive: ClipArchive) -> None:
    columns = ["tracks", "main_track", "main_faces", "main_mouths", "main_first_frame", "sound_samples"]
    rows = archive.clips[columns].to_numpy().tolist()
    assert rows == [[1, 0, 12, 60, 0, 38400], [1, 0, 8, 40, 60, 25600], [2, 1, 5, 24, 0, 0], [0, -1, 0, 0, 0, 0]]
    assert archive.clips["duration_seconds"].tolist() == [2.4, 1.6, 1.0, 3.0]
    assert archive.clips["sound_start_seconds"].tolist() == [0.0, 2.4, 0.0, 0.0]
    assert archive.clips["sound_rms"][0] == pytest.approx(rms(archive.waveform(0).samples), rel=1e-3) != 0


def test_what_is_not_there_is_an_index_error(archive: ClipArchive) -> None:
    for ask in (
        lambda: archive.load(4),
        lambda: archive.load(-1),
        lambda: archive.faces(0, 0, [12]),
        lambda: archive.faces(0, 0, [-1]),
        lambda: archive.faces(0, 1, [0]),
        lambda: archive.mouths(0, 0, 50, 61),
        lambda: archive.face_times(0, -1),
    ):
        with pytest.raises(IndexError, match="asked for"):
            ask()


def test_a_part_costs_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = make_track(np.arange(300) % 24, size=160)
    crops = pixels(np.random.default_rng(0), *track.face_crops.shape)  # noise: as large as crops can be
    clip = Clip(0.0, 12.0, (dataclasses.replace(track, face_crops=crops),), None)
    archive = make_archive(tmp_path, manifest(["/x/a.mp4"]), [[clip]])
    sizes: list[int] = []
    read = os.pread
    monkeypatch.setattr(clips_module.os, "pread", lambda *args: sizes.append(args[1]) or read(*args))

    def cost(ask) -> int:
        sizes.clear()
        ask()
        return sum(sizes)

    whole = cost(lambda: archive.load(0))
    assert cost(lambda: archive.faces(0, 0, [7, 30])) < whole / 15
    assert cost(lambda: archive.face_times(0, 0)) < whole / 100


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the tar open
def test_webdataset_reads_a_shard(archive: ClipArchive) -> None:
    webdataset = pytest.importorskip("webdataset")
    tar = archive.root / "shards" / "000000.tar"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode())
    records = [s["json"] for s in samples if "json" in s]
    stored = [s for s in samples if "npz" in s]
    assert [r["source"] for r in records] == ["/x/b.mp4", "/x/a.mp4", "/x/c.wav"]
    keys = [f"{records[f]['key']}_{c:04d}" for f, c in [(0, 0), (0, 1), (1, 0), (2, 0)]]
    assert [s["__key__"] for s in stored] == keys
    np.testing.assert_array_equal(stored[1]["npz"]["span"], [2.4, 1.6])


# -- processes, threads and open files


def digests(archive: ClipArchive) -> list[str]:
    clips = [archive.load(i) for i in range(len(archive))]
    return [hashlib.sha256(encode_clip(clip)).hexdigest() for clip in clips]


def report(archive: ClipArchive, times: int, pipe) -> None:
    pipe.send([digests(archive) for _ in range(times)])


def test_forked_readers_threads_and_copies_do_not_disturb_each_other(archive: ClipArchive) -> None:
    wanted = digests(archive)  # the shard is open now, and its descriptor is shared by the children
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    children = [context.Process(target=report, args=(archive, 10, theirs)) for _, theirs in pipes]
    for child in children:
        child.start()
    assert all(digests(archive) == wanted for _ in range(10))
    for (mine, _), child in zip(pipes, children, strict=True):
        assert mine.recv() == [wanted] * 10
        child.join()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(digests, [archive] * 8)) == [wanted] * 8
    again = copy.copy(archive)  # as a spawned worker gets it
    pd.testing.assert_frame_equal(again.clips, archive.clips)
    assert digests(again) == wanted


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.datasets.cache.shards.MAX_FILES", 1)
    monkeypatch.setattr(clips_module, "MAX_OPEN", 2)
    archive = make_archive(tmp_path, manifest([f"/x/{i}.mp4" for i in range(6)]), [sample_clips()[2]] * 6)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 6
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        digests(archive)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del archive
    assert len(os.listdir("/proc/self/fd")) == before


# -- what was published


def write(store: Store, files: dict[str, list[Clip]]) -> None:
    """A shard with these files, keyed by the name given."""
    writer = store.writer()
    for key, clips in files.items():
        writer.begin()
        for clip in clips:
            writer.add(key, clip)
        error = "" if clips else "MediaError"
        writer.end(Record(key, key, f"/x/{key}", 0, 0, copy=int("-" in key), error=error, message=error and "broken"))
    writer.close()


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
    wanted = [clips[0][0], clips[0][1], clips[1][0], clips[2][0], clips[0][0], clips[0][1]]
    for number, clip in enumerate(wanted):
        assert contents(archive.load(number)) == contents(clip)
    assert archive.failures.to_numpy().tolist() == [
        ["/x/bad", 0, "MediaError", "broken, with a comma\nand a line"],
        ["/x/again", 1, "ToolError", "no encoder"],
    ]


def test_a_second_attempt_counts_only_if_it_succeeds(tmp_path: Path) -> None:
    clips = sample_clips()[0]
    for case, (shards, wanted) in enumerate(((([], clips), 1), ((clips, []), 0), (([], []), 1))):
        root = tmp_path / str(case)
        with Store(root, IDENTITY) as store:
            write(store, {"a": shards[0]})
            write(store, {"a": shards[1]})
        with Store(root, IDENTITY) as store:
            assert store.stored["a"].shard == wanted
            assert bool(store.stored["a"].error) == (shards == ([], []))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"config": PreprocessConfig(clip_seconds=6.0)}, "clip_seconds: 12.0 there, 6.0"),
        ({"detector": "scrfd"}, "scrfd"),
        ({"fingerprint": "f" * 16}, "f" * 16),
        ({"version": PREPROCESS_VERSION + 1}, str(PREPROCESS_VERSION + 1)),
    ],
)
def test_other_clips_need_another_folder(tmp_path: Path, change: dict, names: str) -> None:
    with Store(tmp_path, IDENTITY), pytest.raises(ManifestError, match="another run is writing"):
        Store(tmp_path, IDENTITY)
    with pytest.raises(ConfigError, match=f"{names} now.*: name a new --cache folder"):
        Store(tmp_path, dataclasses.replace(IDENTITY, **change))


def test_a_cache_that_states_no_version_is_of_the_first(archive: ClipArchive) -> None:
    place = archive.root / "cache.json"
    values = json.loads(place.read_text())
    assert values.pop("preprocess_version") == archive.version == PREPROCESS_VERSION
    assert "version" not in values["preprocess"], "bundles state the digest of the configuration"
    place.write_text(json.dumps(values))
    assert ClipArchive(archive.root).version == 1
    first = Identity.read(archive.root)
    with Store(archive.root, first):
        pass
    with pytest.raises(ConfigError, match="preprocess_version: 1 there, 2 now"):
        Store(archive.root, dataclasses.replace(first, version=2))


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
    outcomes = [
        Outcome(Source(path, 0, 0), sha256, {0: "a"})
        for path, sha256 in zip(table["path"], table["sha256"], strict=True)
    ]
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
    with (tmp_path / "cache" / "sources.jsonl").open("a") as journal:
        journal.write('{"path": "a", "size": "1"}\nnull\n{"path": "cut of')  # by a kill
    with Store(tmp_path / "cache", IDENTITY) as store:
        assert len(store._hashes) == 4
        assert (tmp_path / "cache" / "sources.jsonl").read_bytes().endswith(b"cut of\n")
    archive = ClipArchive(tmp_path / "cache")
    os.utime(paths[1], (1, 1))
    paths[2].unlink()
    archive.check_sources()
    paths[3].write_bytes(b"CHANGED.MP4")  # as long as before
    os.utime(paths[3], (1, 1))
    with pytest.raises(ManifestError, match=r"changed\.mp4 has changed since"):
        archive.check_sources()


# -- damage


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_damaged_samples_are_an_error_that_says_what_to_do(archive: ClipArchive) -> None:
    tar = archive.root / "shards" / "000000.tar"
    place, whole = read_clips(tar).iloc[0], encode_clip(archive.load(0))
    noticed = 0
    for share in np.linspace(0, 0.999, 60):
        flip(tar, int(place["offset"] + share * place["size"]))
        try:
            found = archive.load(0)
        except ManifestError:
            noticed += 1
        else:
            assert encode_clip(found) == whole  # of a .zip's own fields some mean nothing
        flip(tar, int(place["offset"] + share * place["size"]))
    assert noticed > 40
    os.truncate(tar, int(place["offset"]) + 1000)
    with pytest.raises(ManifestError, match="delete that shard"):
        archive.load(0)


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


# -- shards left by a killed process


def open_shard(folder: Path) -> Iterator[tuple[int, str]]:
    """Three files in a shard that is never closed: (bytes behind it, key) of each."""
    writer = ShardWriter(folder)
    for key, clips in zip("abc", sample_clips(), strict=True):
        writer.begin()
        for clip in clips:
            writer.add(key, clip)
        writer.end(Record(key, key, f"/x/{key}", 1, 2))
        yield writer.bytes, key
    writer._file.close()


@given(st.floats(0, 1), st.booleans())
@settings(deadline=None, max_examples=25)
def test_a_cut_shard_keeps_its_whole_files(tmp_path_factory: pytest.TempPathFactory, share: float, torn: bool) -> None:
    folder = tmp_path_factory.mktemp("cut")
    ends = dict(open_shard(folder))
    partial, tar = folder / "000000.tar.partial", folder / "000000.tar"
    content = partial.read_bytes()
    cut = round(share * len(content))
    os.truncate(partial, cut)
    if torn:  # a disk may give zeros for what was never written
        os.truncate(partial, cut + 5000)
    # Where only padding was cut off, zeros in its place make the file whole again.
    wanted = [key for end, key in ends.items() if end <= cut or (torn and not any(content[cut:end]))]
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


def test_no_two_writers_get_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that another has finished since it looked."""
    done, begun, third = (ShardWriter(tmp_path) for _ in range(3))
    done.begin()
    begun.begin()
    done.end(Record("a", "a", "/x/a", 1, 2))
    done.close()
    monkeypatch.setattr("avdetect.datasets.cache.shards.shard_numbers", lambda folder: [])
    third.begin()
    names = ["000000.tar", "000001.tar.partial", "000002.tar.partial"]
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == names
    begun.close()
    third.close()


def test_a_shard_that_is_still_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.datasets.cache.shards._LOCK_SECONDS", 0.0)
    writer = ShardWriter(tmp_path)
    writer.begin()
    with pytest.raises(ManifestError, match="still being written"):
        finish(writer.partial)
    writer.close()
