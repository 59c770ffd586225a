"""Archives of synthetic clips for the tests, made by the writer that avdetect preprocess uses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from avdetect.config import PreprocessConfig
from avdetect.datasets.cache.records import Record, Source, sample_key
from avdetect.datasets.cache.store import Identity, Outcome, Store
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import validate
from avdetect.faces import build_detector
from avdetect.types import Clip


def make_archive(
    root: str | Path, table: pd.DataFrame, clips: Sequence[Sequence[Clip]], config: PreprocessConfig | None = None
) -> ClipArchive:
    """An archive of `clips[i]` for row i of `table` (a manifest; its files need not exist)."""
    table = validate(table)
    config = config or PreprocessConfig()
    detector = build_detector(config.detector)
    identity = Identity(config, detector.name, detector.fingerprint)
    with Store(Path(root), identity) as store:
        writer = store.writer()
        outcomes = []
        for path, parts in zip(table["path"], clips, strict=True):
            sha256 = hashlib.sha256(str(path).encode()).hexdigest()
            key, source = sample_key(sha256), Source(str(path), 0, 0)
            writer.begin()
            for clip in parts:
                writer.add(key, clip)
            writer.end(Record(key, sha256, source.path, 0, 0, seconds=sum(clip.duration_seconds for clip in parts)))
            outcomes.append(Outcome(source, sha256, {0: key}))
        writer.close()
        store.gather()
        store.publish(table, outcomes)
    return ClipArchive(root)
