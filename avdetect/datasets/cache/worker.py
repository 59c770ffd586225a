"""The task of a worker of avdetect preprocess: turns files into clips, in shards of its own."""

import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.augment.codecs import Recipe, reencode
from avdetect.datasets.cache.records import Record, Source
from avdetect.datasets.cache.shards import ShardWriter
from avdetect.datasets.cache.store import SHARDS, TEMPORARY, Identity
from avdetect.errors import AVDetectError, ConfigError, MediaError
from avdetect.faces import build_detector
from avdetect.jobs.process import Work
from avdetect.preprocess import Preprocessor
from avdetect.stills import STILLS, still_clips

_SPARE_BYTES = 64 * 1024**2  # with less than this left, a re-encoding that failed failed for want of room


@dataclass(frozen=True)
class Setup:
    """What a worker needs to begin; `model` is the detector's weight file or folder, None its default."""

    root: Path
    config: PreprocessConfig
    limits: MediaLimits
    model: Path | None
    identity: str  # `Identity.to_json` of the cache


@dataclass(frozen=True)
class Order:
    """What is missing of one file: records to be filled in, and the recipe of each (None: the file as it is)."""

    records: list[Record]
    recipes: list[Recipe | None]
    has_video: bool  # known when the file itself is stored already


def making(setup: Setup) -> Work:
    """The task: carries out orders. The answer is None, or why a file has to be tried again in another run. Raises
    ConfigError on a machine with another detector."""
    maker = Maker(setup)
    return lambda value, report: maker.make(msgspec.convert(value, Order))


class Maker:
    """Preprocesses files into shards of its own, which are finished when they are full, or by `Store.gather`."""

    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)
        self._setup = setup
        detector = build_detector(setup.config.detector, path=setup.model)
        if Identity(setup.config, detector.name, detector.fingerprint).to_json() != setup.identity:
            raise ConfigError(
                f"{socket.gethostname()} would preprocess otherwise than this machine: give all machines one "
                "avdetect, and one place for what --detector-model names"
            )
        self._preprocessor = Preprocessor(setup.config, detector, setup.limits)
        self._writer = ShardWriter(setup.root / SHARDS)

    def make(self, order: Order) -> str | None:
        """Store what is missing, failures too. Raises what no file is to blame for."""
        has_video = order.has_video
        for record, recipe in zip(order.records, order.recipes, strict=True):
            if recipe and not has_video:
                break  # there is nothing to re-encode but sound, or the file failed
            stored = self._store(record, recipe)
            if not Source(record.source, record.size, record.mtime_ns).is_same():
                return f"{record.source} was changed or removed while it was read; run again"
            self._writer.end(stored)
            has_video |= stored.has_video
        return None

    def _store(self, record: Record, recipe: Recipe | None) -> Record:
        """Write the clips; the record says what came of it."""
        self._writer.begin()
        try:
            with self._file(record.source, recipe) as path:
                return self._clips(path, record)
        except MediaError as error:
            failure, message = type(error).__name__, str(error)
        except (AVDetectError, OSError, MemoryError):
            raise
        except Exception as error:  # a bug of ours must not end a run of days; it is recorded, counted and shown
            failure = "InternalError"
            message = f"{type(error).__name__}: {error} (a bug in avdetect: please report it with this file)"
        self._writer.begin()
        return dataclasses.replace(record, error=failure, message=message)

    def _clips(self, path: str, record: Record) -> Record:
        if Path(path).suffix.lower() in STILLS:
            clips = still_clips(self._preprocessor, path)
            for clip in clips:
                self._writer.add(record.key, clip)
            return dataclasses.replace(record, seconds=sum(clip.duration_seconds for clip in clips))
        seconds = 0.0
        with self._preprocessor.open(path) as stream:
            for clip in stream:
                self._writer.add(record.key, clip)
                seconds += clip.duration_seconds
            if not seconds:
                raise MediaError(f"{record.source} holds neither a frame nor a sample")
            has_video, missing, warnings = stream.info.video is not None, stream.missing, list(stream.warnings)
        return dataclasses.replace(record, has_video=has_video, seconds=seconds, missing=missing, warnings=warnings)

    @contextmanager
    def _file(self, source: str, recipe: Recipe | None) -> Iterator[str]:
        """The file to preprocess: the source, or a copy of it that is made for the moment."""
        if recipe is None:
            yield source
            return
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
