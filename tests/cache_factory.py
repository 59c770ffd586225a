"""A small cache of three files, for the tests of its format; what a cache holds, and runs whose workers are killed."""

from __future__ import annotations

import hashlib
import math
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archive_factory import make_archive
from clips import make_track, talking_clip
from manifests import manifest_of

from avdetect.config import PreprocessConfig
from avdetect.datasets.cache.records import Record
from avdetect.datasets.cache.shards import read_clips
from avdetect.datasets.cache.store import Identity, Store
from avdetect.datasets.clips import ClipArchive
from avdetect.jobs.pool import BasePool
from avdetect.jobs.process import Process
from avdetect.types import Clip

IDENTITY = Identity(PreprocessConfig(), "none", "0" * 16)


def manifest(paths: list[str]) -> pd.DataFrame:
    return manifest_of(paths, video_fake=0, audio_fake=0, kind="test")


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


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


ARRAYS = ("mouth_crops", "face_crops", "face_frames", "boxes", "landmarks", "confidences")


def contents(clip: Clip) -> list:
    """Everything that a clip holds, for a comparison bit by bit."""
    wave = clip.waveform
    sound = wave and (wave.start_seconds, wave.samples.dtype, wave.samples.tobytes())
    found: list = [clip.start_seconds, clip.duration_seconds, sound]
    for track in clip.tracks:
        arrays = [getattr(track, name) for name in ARRAYS]
        found += [track.track_id, track.first_frame, *((a.dtype, a.shape, a.tobytes()) for a in arrays)]
    return found


def samples(cache: Path) -> dict[tuple[str, int], str]:
    """Every stored clip: (key, clip) -> digest of its bytes. No two may have one key."""
    found: dict[tuple[str, int], str] = {}
    for tar in sorted((cache / "shards").glob("*.tar")):
        content = tar.read_bytes()
        for row in read_clips(tar).to_dict("records"):
            assert (row["key"], row["clip"]) not in found, "stored twice"
            part = content[row["offset"] : row["offset"] + row["size"]]
            found[row["key"], row["clip"]] = hashlib.sha256(part).hexdigest()
    return found


def kill_workers(monkeypatch: pytest.MonkeyPatch, name: str, times: float = math.inf) -> list[object]:
    """Kill the worker of every file whose name ends so, once it has it; the list of them grows."""
    submit, victims = BasePool._submit, []

    def submit_and_kill(self) -> None:
        submit(self)
        for worker in self._workers:
            if worker.item is None or worker in victims or len(victims) >= times:
                continue
            if worker.item.value["records"][0]["source"].endswith(name):
                victims.append(worker)
                if isinstance(worker, Process):
                    os.kill(worker.pid, signal.SIGKILL)
                else:
                    worker.kill()

    monkeypatch.setattr(BasePool, "_submit", submit_and_kill)
    return victims
