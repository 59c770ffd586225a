"""The task of a worker of avdetect preprocess: hashes files, and turns them into clips in shards of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache.records import Record, Source, sample_key
from avdetect.datasets.cache.shards import ShardWriter
from avdetect.datasets.cache.store import SHARDS, TEMPORARY, Identity, file_sha256
from avdetect.errors import AVDetectError, ConfigError, MediaError
from avdetect.faces import build_detector
from avdetect.jobs.process import Report, Work
from avdetect.preprocess import STILLS, Preprocessor, still_clips

if TYPE_CHECKING:  # the recipes are needed for copies only
    from avdetect.datasets.augment.codecs import Recipe

_SPARE_BYTES = 64 * 1024**2  # with less than this left, a re-encoding that failed failed for want of room


@dataclass(frozen=True)
class Setup:
    """What a worker needs to begin; `model` is the detector's weight file or folder, None its default."""

    root: Path
    config: PreprocessConfig
    limits: MediaLimits
    model: Path | None
    identity: str  # `Identity.to_json` of the cache
    seed: int = 0  # of the copies' recipes


@dataclass(frozen=True)
class Variant:
    """The file itself (copy 0), or one re-encoded copy of it, that is to be stored under `key`."""

    copy: int
    key: str
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Order:
    """What a worker is to do with a file; goes to it as JSON (`dataclasses.asdict`).

    Without `sha256`: hash it; the answer is {"sha256": …} or {"failed": reason}. Else preprocess it; the answer is
    {"failed": None}, or why it has to be tried again in another run.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str = ""
    recipes_of: str = ""  # the hash that draws the recipes of its copies
    copies: tuple[int, ...] = ()  # what is missing: 0 is the file itself
    has_video: bool = False  # known when the file itself is stored already

    @property
    def source(self) -> Source:
        return Source(self.path, self.size, self.mtime_ns)

    def records(self, seed: int, **outcome: Any) -> list[tuple[Variant, Record]]:
        """What is missing, each with its record of that outcome."""
        found = variants(self.sha256, self.recipes_of, max(self.copies), seed)
        return [
            (
                variant,
                Record(
                    *(variant.key, self.sha256, self.path, self.size, self.mtime_ns),
                    copy=variant.copy,
                    recipe=variant.recipe.digest() if variant.recipe else "",
                    **outcome,
                ),
            )
            for variant in found
            if variant.copy in self.copies
        ]


def variants(sha256: str, recipes_of: str, copies: int, seed: int) -> list[Variant]:
    """The file with this hash and so many copies of it."""
    found = [Variant(0, sample_key(sha256))]
    if copies:
        from avdetect.datasets.augment.codecs import Recipe  # needs ffmpeg-python

        for number in range(1, copies + 1):
            recipe = Recipe.draw(recipe_rng(seed, number, recipes_of))
            found.append(Variant(number, sample_key(sha256, number, recipe.digest()), recipe))
    return found


def recipe_rng(seed: int, copy: int, sha256: str) -> np.random.Generator:
    """What draws the recipe of copy `copy` (from 1) of the file with this hash (hex digits), wherever it lies.

    For a fake the hash is its original's: one recipe for both.
    """
    digest = hashlib.sha256(sha256.encode()).digest()
    return np.random.default_rng((seed, copy, int.from_bytes(digest[:8])))


def making(setup: Setup) -> Work:
    """The task: carries out orders, into shards of its own. Raises ConfigError on a machine with another detector."""
    maker = Maker(setup)

    def work(value: dict[str, Any], report: Report) -> dict[str, Any]:
        order = Order(**value)
        if order.sha256:
            return {"failed": maker.make(order)}
        try:
            return {"sha256": file_sha256(order.path)}
        except OSError as error:
            return {"failed": f"cannot read {order.path}: {error.strerror}"}

    return work


class Maker:
    """Preprocesses files into shards of its own, which are finished when they are full, or by `Store.gather`."""

    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)
        self._setup = setup
        self.detector = build_detector(setup.config.detector, path=setup.model)
        if Identity(setup.config, self.detector.name, self.detector.fingerprint).to_json() != setup.identity:
            raise ConfigError(
                f"{socket.gethostname()} would preprocess otherwise than this machine: give all machines one "
                "avdetect, and one place for what --detector-model names"
            )
        self._preprocessor = Preprocessor(setup.config, self.detector, setup.limits)
        self._writer: ShardWriter | None = None

    def make(self, order: Order) -> str | None:
        """Store what is missing, failures too. Raises what no file is to blame for."""
        has_video = order.has_video
        for variant, record in order.records(self._setup.seed):
            if variant.copy and not has_video:
                break  # there is nothing to re-encode but sound, or the file failed
            record = self._store(record, variant.recipe)
            if not order.source.is_same():
                return f"{order.path} was changed or removed while it was read; run again"
            self._writer_with_room().end(record)
            has_video |= record.has_video
        return None

    def _store(self, record: Record, recipe: Recipe | None) -> Record:
        """Write the clips; the record says what came of it."""
        writer = self._writer_with_room()
        writer.begin()
        try:
            with self._file(record.source, recipe) as path:
                return self._clips(path, record, writer)
        except MediaError as error:
            failure, message = type(error).__name__, str(error)
        except (AVDetectError, OSError, MemoryError):
            raise
        except Exception as error:  # a bug of ours must not end a run of days; it is recorded, counted and shown
            failure = "InternalError"
            message = f"{type(error).__name__}: {error} (a bug in avdetect: please report it with this file)"
        writer.begin()
        return dataclasses.replace(record, error=failure, message=message)

    def _clips(self, path: str, record: Record, writer: ShardWriter) -> Record:
        if Path(path).suffix.lower() in STILLS:
            clips = still_clips(self._preprocessor, path)
            for clip in clips:
                writer.add(record.key, clip)
            return dataclasses.replace(record, seconds=sum(clip.duration_seconds for clip in clips))
        seconds = 0.0
        with self._preprocessor.open(path) as stream:
            for clip in stream:
                writer.add(record.key, clip)
                seconds += clip.duration_seconds
            if not seconds:
                raise MediaError(f"{record.source} holds neither a frame nor a sample")
            return dataclasses.replace(
                record,
                has_video=stream.info.video is not None,
                seconds=seconds,
                missing=stream.missing,
                warnings=list(stream.warnings),
            )

    @contextmanager
    def _file(self, source: str, recipe: Recipe | None) -> Iterator[str]:
        """The file to preprocess: the source, or a copy of it that is made for the moment."""
        if recipe is None:
            yield source
            return
        from avdetect.datasets.augment.codecs import reencode  # needs ffmpeg-python

        with tempfile.TemporaryDirectory(dir=self._setup.root / TEMPORARY) as folder:
            target = Path(folder) / "copy.mkv"  # the one container that holds all codecs
            try:
                reencode(Path(source), target, recipe)
            except MediaError as error:
                if shutil.disk_usage(folder).free < _SPARE_BYTES:
                    raise AVDetectError(
                        f"the disk of {self._setup.root} is full ({error}); free some of it and run again"
                    ) from error
                raise
            yield str(target)

    def _writer_with_room(self) -> ShardWriter:
        if self._writer is not None and self._writer.full:
            self._writer.close()
            self._writer = None
        self._writer = self._writer or ShardWriter(self._setup.root / SHARDS)
        return self._writer
