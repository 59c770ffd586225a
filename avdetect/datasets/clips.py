"""Preprocessed clips for training: read at random from the shards of a cache, as little of each as is asked for.

The cache is written by avdetect preprocess (avdetect.datasets.cache.store, avdetect.datasets.cache.shards).
"""

import functools
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

from avdetect._csv import fused
from avdetect.datasets.cache.payload import ClipReader
from avdetect.datasets.cache.records import CLIP_COLUMNS, Source
from avdetect.datasets.cache.store import ADDED, CLIPS, FAILURES, MANIFEST, SHARDS, Identity, file_sha256
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.manifest import read_manifest
from avdetect.errors import ManifestError
from avdetect.types import FPS, Clip, UInt8, Waveform

MAX_OPEN = 32  # shards that are kept open


class ClipArchive:
    """The clips of one manifest. Only its tables are in memory; may be forked, pickled, and used by several threads.

    files     the manifest's columns and `sha256`, a row for each file that gave clips, in the manifest's order
    failures  path, copy, error, message of the others
    clips     a row a clip, by (file, copy, clip): `file` (row of `files`), `copy` (0: the file as it is), `clip`,
              start_seconds, duration_seconds, tracks (number), main_track (the index in Clip.tracks of the track with
              most face crops, -1: none), main_faces, main_mouths (its crops), main_first_frame, sound_samples (0: no
              sound), sound_start_seconds, sound_rms

    Every method takes the number of a row of `clips`, and raises ManifestError when what is stored there is damaged.
    """

    def __init__(self, root: str | Path) -> None:
        """Raises ManifestError when `root` is no cache, is damaged, or no run on it has ended."""
        self.root = Path(root)
        identity = Identity.read(self.root)
        self.config, self.detector, self.fingerprint = identity.config, identity.detector, identity.fingerprint
        self.version = identity.version  # of the preprocessing code that made the clips
        files, clips, self.failures = _tables(self.root)
        ok = (files["failure"] == "").to_numpy(bool)
        place = np.cumsum(ok, dtype=np.int32) - 1
        clips = clips[ok[clips["file"]]].reset_index(drop=True)
        self._sources = files.loc[ok, ["path", "source_bytes", "source_mtime_ns"]]
        self.files = files[ok].drop(columns=[name for name in ADDED if name != "sha256"]).reset_index(drop=True)
        self.clips = clips.assign(file=place[clips["file"]])[["file", "copy", "clip", *CLIP_COLUMNS]]
        self._places = clips[["shard", "offset", "size"]].to_numpy(np.int64)
        self._open = functools.lru_cache(MAX_OPEN)(functools.partial(_Handle, self.root / SHARDS))

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"ClipArchive({str(self.root)!r}: {len(self.clips)} clips of {len(self.files)} files)"

    def __reduce__(self) -> tuple[Any, ...]:
        return ClipArchive, (self.root,)

    def load(self, clip: int) -> Clip:
        """Everything, bit for bit as the Preprocessor gave it."""
        with self._reader(clip, whole=True) as reader:
            return reader.clip()

    def faces(self, clip: int, track: int, indices: Sequence[int]) -> FaceCrops:
        """The face crops of `track` at `indices`, with landmarks; no other is read. Raises IndexError."""
        with self._reader(clip) as reader:
            return reader.faces(track, indices, self.config.faces.crop_margin)

    def face_times(self, clip: int, track: int) -> np.ndarray:
        """(F,) seconds of the face crops of `track`, on the file's clock."""
        with self._reader(clip) as reader:
            return reader.face_frames(track) / FPS

    def mouths(self, clip: int, track: int, start: int, stop: int) -> UInt8:
        """(stop - start, M, M) mouth crops of `track`; crop i belongs to first_frame + i. Raises IndexError."""
        with self._reader(clip) as reader:
            return reader.mouths(track, start, stop)

    def waveform(self, clip: int) -> Waveform | None:
        with self._reader(clip) as reader:
            return reader.waveform()

    def check_sources(self) -> None:
        """Raises ManifestError naming the first source that is there but is not the file that was preprocessed.

        A source that is gone is no error: the clips are here. One whose size and time are unchanged is not read.
        """
        again = "run avdetect preprocess again"
        for values, sha256 in zip(self._sources.itertuples(index=False), self.files["sha256"], strict=True):
            source = Source(*values)
            try:
                changed = Source.of(source.path) != source and file_sha256(source.path) != sha256
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ManifestError(f"cannot read {source.path}: {error.strerror}") from error
            if changed:
                raise ManifestError(f"{source.path} has changed since it was preprocessed; {again}")

    @contextmanager
    def _reader(self, clip: int, whole: bool = False) -> Iterator[ClipReader]:
        if not 0 <= clip < len(self._places):
            raise IndexError(f"the archive has {len(self._places)} clips, asked for {clip}")
        shard, offset, size = self._places[clip].tolist()
        try:
            window = _Window(self._open(shard), offset, size)
            source = io.BytesIO(window.read()) if whole else window
            with ClipReader(cast(BinaryIO, source)) as reader:
                yield reader
        except (IndexError, MemoryError):
            raise
        except Exception as error:  # damaged bytes make zipfile and NumPy raise almost anything
            raise ManifestError(
                f"clip {clip} in {_path(self.root / SHARDS, shard)} cannot be read ({type(error).__name__}: {error}); "
                "delete that shard and run avdetect preprocess again"
            ) from error


def _tables(root: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Files, clips and failures as they were published. Raises ManifestError."""
    again = "run avdetect preprocess again"
    if not (root / CLIPS).exists():
        raise ManifestError(f"no run on {root} has ended yet; {again}, it goes on where it stopped")
    try:
        clips = pd.read_parquet(root / CLIPS)
        together = clips.attrs.get("manifest") == file_sha256(root / MANIFEST)
        texts = dict.fromkeys(("path", "error", "message"), fused)
        failures = pd.read_csv(root / FAILURES, keep_default_na=False, converters=texts)
    except (OSError, ValueError) as error:
        raise ManifestError(f"the tables of {root} are damaged ({error}); {again}") from error
    if not together:
        raise ManifestError(f"{root / MANIFEST} and {root / CLIPS} are of two runs; {again}")
    return read_manifest(root / MANIFEST), clips, failures


def _path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06d}.tar"


class _Handle:
    """A shard opened for reading; closed with the last use of it, in whatever thread."""

    def __init__(self, folder: Path, shard: int) -> None:
        self.number = os.open(_path(folder, shard), os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _Window(io.RawIOBase):
    """`size` bytes of a file from `offset` on, as a file of their own. Reads with pread: a fork shares no position."""

    def __init__(self, handle: _Handle, offset: int, size: int) -> None:
        self._handle, self._offset, self._size, self._position = handle, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("before the start of the window")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._handle.number, wanted, self._offset + self._position)
        if len(data) < wanted:
            raise EOFError("the shard is shorter than its index says")
        self._position += len(data)
        return data
