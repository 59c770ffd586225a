"""Where the clips of a manifest's files come from: the files themselves, or a preprocessing cache.

A source gives the same clips each time it is asked, and may be pickled: worker processes make their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ConfigError, ManifestError, MediaError
from avdetect.faces import build_detector
from avdetect.preprocess import STILLS, Preprocessor, still_clips
from avdetect.types import Clip, Waveform

Use = Callable[[Clip], None]
Feed = Callable[[Use], dict[str, str]]  # gives every clip of one file; returns what is missing, as ClipSource.feed


class ClipSource(Protocol):
    """The clips of the files of a table, by the number of the row."""

    def feed(self, row: int, use: Use) -> dict[str, str]:
        """Call `use` with every clip of the file, in order; returns why "video" or "audio" is missing.

        One clip is in memory at a time. Raises MediaError for a file that cannot be read.
        """
        ...


def clips_of(source: ClipSource, row: int) -> list[Clip]:
    """All clips of a (short) file at once."""
    clips: list[Clip] = []
    source.feed(row, clips.append)
    return clips


class FileClips:
    """The files of `table`, decoded as `avdetect score` decodes them; photographs as the cache takes them.

    face_model: the face detector's weights where they are not in their default place (for worker processes).
    """

    def __init__(self, table: pd.DataFrame, preprocessor: Preprocessor, face_model: Path | None = None) -> None:
        self.paths: list[str] = table["path"].tolist()
        self.preprocessor, self.face_model = preprocessor, face_model

    def __reduce__(self) -> tuple[Any, ...]:
        made = self.preprocessor
        detector = made.detector.name, made.detector.fingerprint
        return _file_clips, (self.paths, made.config, made.limits, *detector, self.face_model)

    def feed(self, row: int, use: Use) -> dict[str, str]:
        """See ClipSource."""
        return self.feed_file(self.paths[row], use)

    def feed_file(self, path: str, use: Use) -> dict[str, str]:
        """The clips of any file, as those of the table."""
        if Path(path).suffix.lower() in STILLS:
            for clip in still_clips(self.preprocessor, path):
                use(clip)
            return {"audio": "no audio stream"}
        with self.preprocessor.open(path) as stream:
            for clip in stream:
                use(clip)
            return stream.missing


def _file_clips(
    paths: list[str],
    config: PreprocessConfig,
    limits: MediaLimits,
    detector: str,
    fingerprint: str,
    face_model: Path | None,
) -> FileClips:
    built = build_detector(detector, path=face_model)
    if built.fingerprint != fingerprint:
        raise ConfigError(
            f"a worker process finds {detector} of fingerprint {built.fingerprint}, not {fingerprint}: name the "
            "detector's weights as face_model"
        )
    return FileClips(pd.DataFrame({"path": paths}), Preprocessor(config, built, limits), face_model)


class CacheClips:
    """The files of `table` (None: of the whole cache), from the cache: as they are, without re-encoded copies.

    The cache keeps no reasons for what is missing: the scorer's own ones are general.
    Raises ManifestError when the cache has not seen a file of the table.
    """

    def __init__(self, archive: ClipArchive, table: pd.DataFrame | None = None) -> None:
        self.archive, paths = archive, (archive.files if table is None else table)["path"]
        self.files = pd.Index(archive.files["path"]).get_indexer(pd.Index(paths))  # (N,) rows of archive.files, or -1
        failed = archive.failures[archive.failures["copy"] == 0]
        self.failures = dict(zip(failed["path"], failed["error"] + ": " + failed["message"], strict=True))
        self.paths: list[str] = paths.tolist()
        unknown = [self.paths[row] for row in np.flatnonzero(self.files < 0) if self.paths[row] not in self.failures]
        if unknown:
            raise ManifestError(
                f"the cache {archive.root} has not seen {len(unknown)} file(s) of the manifest, first {unknown[0]}: "
                "run avdetect preprocess with this manifest"
            )
        clips = archive.clips
        self._clips = clips.index[clips["copy"] == 0].to_series().groupby(clips["file"]).agg(list).to_dict()

    def feed(self, row: int, use: Use) -> dict[str, str]:
        """See ClipSource."""
        if self.files[row] < 0:
            raise MediaError(self.failures[self.paths[row]])
        for clip in self._clips.get(int(self.files[row]), ()):
            use(self.archive.load(clip))
        return {}


@dataclasses.dataclass(frozen=True)
class Without:
    """The same clips with their "video" (every face) or their "audio" taken away."""

    source: ClipSource
    part: str

    def __post_init__(self) -> None:
        if self.part not in ("video", "audio"):
            raise ConfigError(f"video or audio can be removed, not {self.part!r}")

    def feed(self, row: int, use: Use) -> dict[str, str]:
        """See ClipSource."""
        gone: dict[str, Any] = {"tracks": ()} if self.part == "video" else {"waveform": None}
        missing = self.source.feed(row, lambda clip: use(dataclasses.replace(clip, **gone)))
        return missing | {self.part: f"no {self.part} stream"}


class CachedFeed:
    """A feed that asks `feed` once, when it is first called, and keeps the clips: for a (short) file that several
    treatments are tried on."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._kept: tuple[list[Clip], dict[str, str]] | None = None

    def __call__(self, use: Use) -> dict[str, str]:
        if self._kept is None:
            clips: list[Clip] = []
            self._kept = clips, self._feed(clips.append)
        clips, missing = self._kept
        for clip in clips:
            use(clip)
        return missing


def with_sound(clip: Clip, change: Callable[[Waveform], Waveform]) -> Clip:
    """The clip with its waveform changed; as it is without one."""
    return clip if clip.waveform is None else dataclasses.replace(clip, waveform=change(clip.waveform))
