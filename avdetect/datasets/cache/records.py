"""What the preprocessing cache notes of files and clips: the records in its shards, and the columns of its tables."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from avdetect.audio import rms
from avdetect.types import Clip


@dataclass(frozen=True)
class Source:
    """A file as it lay on disk: what tells, without reading it, whether it is still the same."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Source:
        """Raises OSError."""
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # of a pipe or a device no reading might end
            raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
        return cls(os.fspath(path), status.st_size, status.st_mtime_ns)

    def is_same(self) -> bool:
        """Whether the file is still there with this size and time."""
        try:
            return Source.of(self.path) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Record:
    """What came of one file, or of one re-encoded copy of it."""

    key: str
    sha256: str  # of the source's bytes
    source: str
    size: int
    mtime_ns: int
    copy: int = 0  # 0: the file as it is
    recipe: str = ""  # digest of the copy's recipe
    has_video: bool = False
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)  # "video"/"audio" -> why the file gives none
    warnings: list[str] = field(default_factory=list)
    error: str = ""  # class of the error that the file failed with
    message: str = ""
    clips: list[dict[str, Any]] = field(default_factory=list)  # `clip_row` of each


FILE_COLUMNS = [f.name for f in fields(Record) if f.name not in ("clips", "missing", "warnings")]
CLIP_COLUMNS = {
    "start_seconds": np.float64,
    "duration_seconds": np.float64,
    "tracks": np.int32,
    "main_track": np.int32,
    "main_faces": np.int32,
    "main_mouths": np.int32,
    "main_first_frame": np.int32,
    "sound_samples": np.int32,
    "sound_start_seconds": np.float64,
    "sound_rms": np.float32,
}
INDEX_COLUMNS = {"key": str, "clip": np.int32, "offset": np.int64, "size": np.int64} | CLIP_COLUMNS


def sample_key(sha256: str, copy: int = 0, recipe: str = "") -> str:
    """The name of a file's samples in a shard."""
    return f"{sha256[:24]}-{copy}-{recipe}" if copy else sha256[:24]


def clip_row(clip: Clip) -> dict[str, Any]:
    """What the index says of `clip`. The main track is the one with the most face crops; -1: no track has any."""
    counts = [len(track.face_crops) for track in clip.tracks]
    main = int(np.argmax(counts)) if any(counts) else -1
    track = clip.tracks[main] if main >= 0 else None
    sound = clip.waveform
    return {
        "start_seconds": clip.start_seconds,
        "duration_seconds": clip.duration_seconds,
        "tracks": len(clip.tracks),
        "main_track": main,
        "main_faces": len(track.face_crops) if track else 0,
        "main_mouths": len(track.mouth_crops) if track else 0,
        "main_first_frame": track.first_frame if track else 0,
        "sound_samples": len(sound.samples) if sound else 0,
        "sound_start_seconds": sound.start_seconds if sound else 0.0,
        "sound_rms": float(rms(sound.samples)) if sound and len(sound.samples) else 0.0,
    }
