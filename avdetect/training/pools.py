"""Which clips a run may draw, and how often: by class and by source, with a fake's original beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.splits import origins
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
        """(files,) 0, 1 or -1 (unknown) of every file of the archive; `clip_labels` takes `fake` for an unknown part,
        unless the other part is known to explain it."""
        files = self.archive.files
        labels = files[column]
        if clip_labels:
            explained = files["audio_fake" if column == "video_fake" else "video_fake"].eq(1).fillna(False)
            labels = labels.fillna(files["fake"].mask(explained))
        return labels.fillna(-1).to_numpy(np.int8)


def source_weights(origin: pd.Series, balance: float) -> np.ndarray:
    """Probabilities of files. balance 0: every file alike; 1: every source alike; .5: a source counts by the root of
    its size, so that large ones count more, but drown no other. origin: of each file, the source or the generator."""
    sizes = origin.map(origin.value_counts()).to_numpy(float)
    weights = sizes**-balance
    return weights / weights.sum()


class Pool:
    """Clips of one class. A file is drawn by the weight of its source, or if it is a fake of its generator, then one of
    its clips, each as likely."""

    def __init__(
        self, archive: ClipArchive, usable: np.ndarray, balance: float, what: str, *, fake: bool = False
    ) -> None:
        """usable: (clips,) of the archive. Raises ManifestError when there is none."""
        self.clips = np.flatnonzero(usable)
        if not len(self.clips):
            raise ManifestError(f"nothing to train on: no {what} in this part of the data")
        files = archive.clips["file"].to_numpy()[self.clips]  # in ascending order, as the archive's clips are
        names, self.first, self.count = np.unique(files, return_index=True, return_counts=True)
        origin = pd.Series(origins(archive.files.iloc[names], np.full(len(names), fake)))
        self.cumulative = np.cumsum(source_weights(origin, balance))

    def draw(self, rng: np.random.Generator) -> int:
        """A row of archive.clips."""
        file = min(int(np.searchsorted(self.cumulative, rng.random(), side="right")), len(self.first) - 1)
        return int(self.clips[self.first[file] + rng.integers(self.count[file])])


class Originals:
    """From a fake's clip to the same clip of its original, where the part holds that, in the same re-encoded copy."""

    def __init__(self, part: Part, usable: np.ndarray) -> None:
        """usable: (clips,) that may stand as an original."""
        files, clips = part.archive.files, part.archive.clips
        position = pd.Series(part.rows, index=files["path"].iloc[part.rows])
        self.original = files["original"].map(position).fillna(-1).to_numpy(np.int64)  # (files,)
        self.keys = clips[["file", "copy", "clip"]].to_numpy()
        self.first = np.searchsorted(self.keys[:, 0], np.arange(len(files) + 1))
        self.usable = usable

    def of(self, clip: int) -> int | None:
        """The row of the original's clip; None without one. Another copy's codec would tell the two apart."""
        file, copy, number = self.keys[clip]
        original = self.original[file]
        if original < 0:
            return None
        rows = np.arange(self.first[original], self.first[original + 1])
        rows = rows[self.usable[rows] & (self.keys[rows, 1] == copy) & (self.keys[rows, 2] == number)]
        return int(rows[0]) if len(rows) else None


Spans = tuple[tuple[float, float], ...]  # seconds, (start, end)


def forged_spans(archive: ClipArchive, part: str) -> list[Spans]:
    """(clips,) where each clip's picture (part "video") or voice ("audio") is forged; () = all of it, or unknown.

    A file's segments are cut to the clip; a clip beside all of them gets the empty span (0, 0): nothing in it is fake.
    """
    files, clips = archive.files, archive.clips
    general = [tuple(s) for s in files["fake_segments"]]
    column = f"{part}_fake_segments"
    own = [tuple(s) for s in files[column]] if column in files else general
    by_file = [a or b for a, b in zip(own, general, strict=True)]
    start = clips["start_seconds"].to_numpy(float)
    end = start + clips["duration_seconds"].to_numpy(float)
    spans: list[Spans] = [()] * len(clips)
    marked = np.array([len(s) > 0 for s in by_file], bool)[clips["file"].to_numpy()]
    for row in np.flatnonzero(marked).tolist():
        cut = [(max(a, start[row]), min(b, end[row])) for a, b in by_file[int(clips["file"].iat[row])]]
        spans[row] = tuple((float(a), float(b)) for a, b in cut if b > a) or ((0.0, 0.0),)
    return spans


def longest(spans: list[Spans]) -> np.ndarray:
    """(clips,) seconds of the longest forged span of each clip; infinite where all of it is."""
    return np.array([max((b - a for a, b in s), default=np.inf) for s in spans])
