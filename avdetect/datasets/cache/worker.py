"""A worker process of tools/preprocess.py: hashes files, and turns them into clips in shards of its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache.records import Record, Source
from avdetect.datasets.cache.shards import ShardWriter
from avdetect.datasets.cache.store import SHARDS, TEMPORARY, file_sha256
from avdetect.errors import AVDetectError, MediaError
from avdetect.faces import build_detector
from avdetect.faces import crops as face_crops
from avdetect.faces.tracking import FaceTracker
from avdetect.preprocess import Preprocessor, group_tracks
from avdetect.types import FPS, Clip

if TYPE_CHECKING:  # the recipes are needed for copies only
    from avdetect.datasets.augment.codecs import Recipe

STILLS = frozenset({".jpg", ".jpeg", ".png"})
_SPARE_BYTES = 64 * 1024**2  # with less than this left, a re-encoding that failed failed for want of room


@dataclass(frozen=True)
class Setup:
    """What a worker needs to begin; `model` is the detector's weight file or folder, None its default."""

    root: Path
    config: PreprocessConfig
    limits: MediaLimits
    model: Path | None


@dataclass(frozen=True)
class Variant:
    """The file itself (copy 0), or one re-encoded copy of it, that is to be stored under `key`."""

    copy: int
    key: str
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Hash:
    """Order: hash this file. The answer is the SHA-256, or an OSError."""

    path: str


@dataclass(frozen=True)
class Make:
    """Order: preprocess this file. The answer is None, or why it has to be tried again in another run."""

    source: Source
    sha256: str
    variants: tuple[Variant, ...]
    has_video: bool = False  # known when the file itself is stored already


def work(connection: Connection, setup: Setup, numbers: Any) -> None:
    """Carry out orders until None comes; `numbers` is the shared count of shards. The body of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def next_shard() -> int:
        with numbers.get_lock():
            numbers.value += 1
            return int(numbers.value) - 1

    maker = answered(lambda: Maker(setup, next_shard))
    while isinstance(maker, Maker) and (order := connection.recv()) is not None:
        connection.send(answered(lambda: maker.carry_out(order)))
    end = answered(maker.close) if isinstance(maker, Maker) else maker
    if isinstance(end, AVDetectError):
        connection.send(end)


def answered(step: Callable[[], Any]) -> Any:
    """What `step` gives, or the AVDetectError that nothing can go on: a full disk, a missing ffmpeg."""
    try:
        return step()
    except AVDetectError as error:
        return error
    except OSError as error:
        return AVDetectError(f"cannot go on: {error}; what is done is kept, run again")
    except MemoryError:
        return AVDetectError("out of memory; run again with fewer --workers")


def _end_with_the_parent() -> None:
    """Without its parent, a worker would write a shard that the next run wants to salvage."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class Maker:
    """Carries out orders, into shards of its own; `next_shard` gives a number that nobody else gets."""

    def __init__(self, setup: Setup, next_shard: Callable[[], int]) -> None:
        cv2.setNumThreads(1)
        self._setup, self._next_shard = setup, next_shard
        self.detector = build_detector(setup.config.detector, path=setup.model)
        self._preprocessor = Preprocessor(setup.config, self.detector, setup.limits)
        self._writer: ShardWriter | None = None

    def carry_out(self, order: Hash | Make) -> Any:
        """The answer to `order`."""
        return self.hash(order) if isinstance(order, Hash) else self.make(order)

    def hash(self, order: Hash) -> str | OSError:
        try:
            return file_sha256(order.path)
        except OSError as error:
            return error

    def make(self, order: Make) -> str | None:
        """Store every variant, failures too. Raises what no file is to blame for."""
        has_video, source = order.has_video, order.source
        for variant in order.variants:
            if variant.copy and not has_video:
                break  # there is nothing to re-encode but sound, or the file failed
            recipe = variant.recipe.digest() if variant.recipe else ""
            record = Record(
                variant.key, order.sha256, source.path, source.size, source.mtime_ns, copy=variant.copy, recipe=recipe
            )
            record = self._store(record, variant.recipe)
            if not source.is_same():
                return f"{source.path} was changed or removed while it was read; run again"
            self._writer_with_room().end(record)
            has_video |= record.has_video
        return None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

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
            self.close()
        if self._writer is None:
            self._writer = ShardWriter(self._setup.root / SHARDS, self._next_shard())
        return self._writer


def still_clips(preprocessor: Preprocessor, path: str) -> list[Clip]:
    """A photograph as a Clip of one frame: its faces, cropped by the tracker that crops video. Raises MediaError."""
    image = cv2.imread(path)
    if image is None:
        raise MediaError(f"{path} is not a readable picture")
    frames = face_crops.frames_from_rgb(face_crops.as_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    config = preprocessor.still_config()
    tracker = FaceTracker(preprocessor.detector, config)
    return [Clip(0.0, 1 / FPS, group_tracks(tracker.push(frames) + tracker.flush(), config), None)]
