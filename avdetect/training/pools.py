"""Which clips a run may draw, and how often: by class and by source, with a fake's original beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ManifestError


@dataclass(frozen=True)
class Part:
    """The files of an archive that one run may see: a split, or a split without a fold."""

    archive: ClipArchive
    rows: np.ndarray  # (N,) positions in archive.files

    @property
    def table(self) -> pd.DataFrame:
        """The manifest's rows of this part."""
        return self.archive.files.iloc[self.rows]

    def has_file(self) -> np.ndarray:
        """(clips,) whether each clip of the archive belongs to a file of this part."""
        inside = np.zeros(len(self.archive.files), bool)
        inside[self.rows] = True
        return inside[self.archive.clips["file"].to_numpy()]

    def label(self, column: str, clip_labels: bool = False) -> np.ndarray:
        """(files,) 0, 1 or -1 (unknown) of every file of the archive; `clip_labels` fills the unknown with `fake`."""
        labels = self.archive.files[column]
        if clip_labels:
            labels = labels.fillna(self.archive.files["fake"])
        return labels.fillna(-1).to_numpy(np.int8)


def source_weights(datasets: pd.Series, balance: float = 0.5) -> np.ndarray:
    """Probabilities of files. balance 0: every file alike; 1: every source alike; .5: a source counts by the root of
    its size, so that large ones count more, but drown no other."""
    sizes = datasets.map(datasets.value_counts()).to_numpy(float)
    weights = sizes**-balance
    return weights / weights.sum()


class Pool:
    """Clips of one class. A file is drawn by its source's weight, then one of its clips, each as likely."""

    def __init__(self, archive: ClipArchive, usable: np.ndarray, balance: float, what: str) -> None:
        """usable: (clips,) of the archive. Raises ManifestError when there is none."""
        self.clips = np.flatnonzero(usable)
        if not len(self.clips):
            raise ManifestError(f"nothing to train on: no {what} in this part of the data")
        files = archive.clips["file"].to_numpy()[self.clips]  # in ascending order, as the archive's clips are
        names, self.first, self.count = np.unique(files, return_index=True, return_counts=True)
        self.cumulative = np.cumsum(source_weights(archive.files["dataset"].iloc[names], balance))

    def draw(self, rng: np.random.Generator) -> int:
        """A row of archive.clips."""
        file = min(int(np.searchsorted(self.cumulative, rng.random(), side="right")), len(self.first) - 1)
        return int(self.clips[self.first[file] + rng.integers(self.count[file])])


class Originals:
    """From a fake's clip to the same clip of its original, where the part holds that."""

    def __init__(self, part: Part, usable: np.ndarray) -> None:
        """usable: (clips,) that may stand as an original."""
        files, clips = part.archive.files, part.archive.clips
        position = pd.Series(part.rows, index=files["path"].iloc[part.rows])
        self.original = files["original"].map(position).fillna(-1).to_numpy(np.int64)  # (files,)
        self.keys = clips[["file", "copy", "clip"]].to_numpy()
        self.first = np.searchsorted(self.keys[:, 0], np.arange(len(files) + 1))
        self.usable = usable

    def of(self, clip: int) -> int | None:
        """The row of the original's clip of the same number and, where there is one, of the same re-encoded copy."""
        file, copy, number = self.keys[clip]
        original = self.original[file]
        if original < 0:
            return None
        rows = np.arange(self.first[original], self.first[original + 1])
        rows = rows[self.usable[rows] & (self.keys[rows, 2] == number)]
        same = rows[self.keys[rows, 1] == copy]
        return int((same if len(same) else rows)[0]) if len(rows) else None


def segments_of(archive: ClipArchive, part: str) -> list[tuple[tuple[float, float], ...]]:
    """(files,) the forged spans in seconds of each file's picture (part "video") or voice ("audio"); () = all of it."""
    files = archive.files
    column = f"{part}_fake_segments"
    general = [tuple(s) for s in files["fake_segments"]]
    if column not in files:
        return general
    return [
        tuple(s) if isinstance(s, tuple | list) and len(s) else g for s, g in zip(files[column], general, strict=True)
    ]


def overlaps(archive: ClipArchive, segments: list[tuple[tuple[float, float], ...]], least_seconds: float) -> np.ndarray:
    """(clips,) whether a clip shows at least `least_seconds` of its file's forged spans; True without spans."""
    clips = archive.clips
    result = np.ones(len(clips), bool)
    marked = np.array([len(s) > 0 for s in segments], bool)[clips["file"].to_numpy()]
    for row in np.flatnonzero(marked).tolist():
        start = float(clips["start_seconds"].iat[row])
        end = start + float(clips["duration_seconds"].iat[row])
        spans = segments[int(clips["file"].iat[row])]
        result[row] = max(min(end, b) - max(start, a) for a, b in spans) >= min(
            least_seconds, min(b - a for a, b in spans)
        )
    return result
