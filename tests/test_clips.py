"""The cache's format: what is stored comes back bit for bit, in parts or whole, and damage is noticed."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archive_factory import make_archive
from cache_factory import archive, contents, flip, manifest, sample_clips  # noqa: F401  # some are fixtures
from clips import make_track
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.audio import rms
from avdetect.config import PreprocessConfig
from avdetect.datasets import clips as clips_module
from avdetect.datasets.cache.payload import ClipReader, encode_clip
from avdetect.datasets.cache.shards import read_clips
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.crops import landmarks_in_crops
from avdetect.errors import ManifestError
from avdetect.types import Clip, FaceTrack, Waveform


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
@settings(deadline=None, max_examples=15)
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


def test_parts_come_back_as_the_index_says(archive: ClipArchive) -> None:
    track = sample_clips()[0][1].tracks[0]
    faces = archive.faces(1, 0, [3, 1])
    np.testing.assert_array_equal(faces.crops, track.face_crops[[3, 1]])
    expected = landmarks_in_crops(track.boxes, track.landmarks, PreprocessConfig().faces.crop_margin, 32)
    np.testing.assert_array_equal(faces.landmarks, expected[[3, 1]])
    np.testing.assert_allclose(archive.face_times(1, 0), 2.4 + 0.2 * np.arange(8))
    np.testing.assert_array_equal(archive.mouths(1, 0, 20, 38), track.mouth_crops[20:38])
    assert archive.waveform(1).samples.tobytes() == sample_clips()[0][1].waveform.samples.tobytes()
    assert archive.waveform(2) is None
    columns = ["tracks", "main_track", "main_faces", "main_mouths", "main_first_frame", "sound_samples"]
    rows = archive.clips[columns].to_numpy().tolist()
    assert rows == [[1, 0, 12, 60, 0, 38400], [1, 0, 8, 40, 60, 25600], [2, 1, 5, 24, 0, 0], [0, -1, 0, 0, 0, 0]]
    assert archive.clips["duration_seconds"].tolist() == [2.4, 1.6, 1.0, 3.0]
    assert archive.clips["sound_start_seconds"].tolist() == [0.0, 2.4, 0.0, 0.0]
    assert archive.clips["sound_rms"][0] == pytest.approx(rms(archive.waveform(0).samples), rel=1e-3) != 0
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


def digests(archive: ClipArchive) -> list[str]:
    clips = [archive.load(i) for i in range(len(archive))]
    return [hashlib.sha256(encode_clip(clip)).hexdigest() for clip in clips]


def report(archive: ClipArchive, times: int, pipe) -> None:
    pipe.send([digests(archive) for _ in range(times)])


def test_forked_readers_threads_and_copies_do_not_disturb_each_other(archive: ClipArchive) -> None:
    wanted = digests(archive)  # the shard is open now, and its descriptor is shared by the children
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [context.Process(target=report, args=(archive, 5, theirs)) for _, theirs in pipes]
    for child in children:
        child.start()
    assert all(digests(archive) == wanted for _ in range(5))
    for (mine, _), child in zip(pipes, children, strict=True):
        assert mine.recv() == [wanted] * 5
        child.join()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(digests, [archive] * 8)) == [wanted] * 8
    again = copy.copy(archive)  # as a spawned worker gets it
    pd.testing.assert_frame_equal(again.clips, archive.clips)
    assert digests(again) == wanted


def test_damaged_samples_are_an_error_that_says_what_to_do(archive: ClipArchive) -> None:
    tar = archive.root / "shards" / "000000.tar"
    place, whole = read_clips(tar).iloc[0], encode_clip(archive.load(0))
    noticed = 0
    for share in np.linspace(0, 0.999, 30):
        flip(tar, int(place["offset"] + share * place["size"]))
        try:
            found = archive.load(0)
        except ManifestError:
            noticed += 1
        else:
            assert encode_clip(found) == whole  # of a .zip's own fields some mean nothing
        flip(tar, int(place["offset"] + share * place["size"]))
    assert noticed > 20
    os.truncate(tar, int(place["offset"]) + 1000)
    with pytest.raises(ManifestError, match="delete that shard"):
        archive.load(0)


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.datasets.cache.shards.MAX_FILES", 1)
    monkeypatch.setattr(clips_module, "MAX_OPEN", 2)
    archive = make_archive(tmp_path, manifest([f"/x/{i}.mp4" for i in range(4)]), [sample_clips()[2]] * 4)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 4
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        digests(archive)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del archive
    assert len(os.listdir("/proc/self/fd")) == before


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
