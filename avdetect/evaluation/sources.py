"""Where the clips of a manifest's files come from: the files themselves, or a preprocessing cache.

A source gives the same clips each time it is asked, and may be pickled for worker processes.
"""

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ManifestError, MediaError
from avdetect.faces import build_detector
from avdetect.preprocess import Preprocessor
from avdetect.stills import STILLS, still_clips
from avdetect.types import Clip

Use = Callable[[Clip], None]
Feed = Callable[[Use], dict[str, str]]  # gives every clip of one file; returns what is missing, as ClipSource.feed


class ClipSource(Protocol):
    """The clips of the files of a table, by the number of the row."""

    def feed(self, row: int, use: Use) -> dict[str, str]:
        """Call `use` with every clip of the file, in order; returns why "video" or "audio" is missing. One clip is in
        memory at a time. Raises MediaError for a file that cannot be read."""
        ...


def feed_file(preprocessor: Preprocessor, path: str, use: Use) -> dict[str, str]:
    """The clips of a file as `avdetect score` decodes it, of a photograph as the cache takes it; see ClipSource."""
    if Path(path).suffix.lower() in STILLS:
        for clip in still_clips(preprocessor, path):
            use(clip)
        return {"audio": "no audio stream"}
    with preprocessor.open(path) as stream:
        for clip in stream:
            use(clip)
        return stream.missing


class FileClips:
    """The files of `table`, decoded."""

    def __init__(self, table: pd.DataFrame, config: PreprocessConfig) -> None:
        self.paths: list[str] = table["path"].tolist()
        self.config = config

    @cached_property
    def preprocessor(self) -> Preprocessor:
        return Preprocessor(self.config, build_detector(self.config.detector), MediaLimits())

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "config": self.config}  # each process builds its own face detector

    def feed(self, row: int, use: Use) -> dict[str, str]:
        return feed_file(self.preprocessor, self.paths[row], use)


class CacheClips:
    """The files of `table`, from the cache: as they are, without re-encoded copies.

    The cache keeps no reasons for what is missing: the scorer's own ones are general.
    Raises ManifestError when the cache has not seen a file of the table.
    """

    def __init__(self, archive: ClipArchive, table: pd.DataFrame) -> None:
        self.archive, self.paths = archive, table["path"].tolist()
        failed, clips = archive.failures[archive.failures["copy"] == 0], archive.clips
        self._failures = dict(zip(failed["path"], failed["message"], strict=True))
        self._files = pd.Index(archive.files["path"]).get_indexer(pd.Index(self.paths))  # rows of archive.files, or -1
        unknown = [self.paths[row] for row in np.flatnonzero(self._files < 0) if self.paths[row] not in self._failures]
        if unknown:
            raise ManifestError(
                f"the cache {archive.root} has not seen {len(unknown)} file(s) of the manifest, first {unknown[0]}: "
                "run avdetect preprocess with this manifest"
            )
        self._clips = clips.index[clips["copy"] == 0].to_series().groupby(clips["file"]).agg(list).to_dict()

    def feed(self, row: int, use: Use) -> dict[str, str]:
        if self._files[row] < 0:
            raise MediaError(self._failures[self.paths[row]])
        for clip in self._clips.get(int(self._files[row]), ()):
            use(self.archive.load(clip))
        return {}


def kept(feed: Feed) -> Feed:
    """`feed`, which is asked once and whose clips stay in memory: for a (short) file that several treatments are tried
    on."""

    @cache
    def asked() -> tuple[list[Clip], dict[str, str]]:
        clips: list[Clip] = []
        return clips, feed(clips.append)

    def again(use: Use) -> dict[str, str]:
        clips, missing = asked()
        for clip in clips:
            use(clip)
        return missing

    return again
