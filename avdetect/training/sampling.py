"""Which clips a run may draw, and how often: by class and by source, a fake beside its original under one treatment."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from avdetect.datasets.augment.codecs import Recipe, through_audio_codec, through_video_codec
from avdetect.datasets.augment.faces import augment_faces
from avdetect.datasets.augment.voice import augment_voice
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.splits import origins
from avdetect.errors import ConfigError, ManifestError
from avdetect.types import Float, UInt8

Spans = tuple[tuple[float, float], ...]  # seconds, (start, end)


@dataclass(frozen=True)
class Subset:
    """The files of an archive that one run may see: a split, or a split without a fold."""

    archive: ClipArchive
    rows: np.ndarray  # (N,) positions in archive.files

    @property
    def table(self) -> pd.DataFrame:
        """The manifest's rows."""
        return self.archive.files.iloc[self.rows]

    def has_file(self) -> np.ndarray:
        """(clips,) whether each clip of the archive belongs to one of the files."""
        inside = np.zeros(len(self.archive.files), bool)
        inside[self.rows] = True
        return inside[self.archive.clips["file"].to_numpy()]

    def label(self, column: str, clip_labels: bool = False) -> np.ndarray:
        """(files,) 0, 1 or -1 (unknown) of every file of the archive; `clip_labels` takes `fake` for an unknown
        modality, unless the other one is known to explain it."""
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


class Draws:
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
    """From a fake's clip to the same clip of its original, where the subset holds that, in the same re-encoded copy."""

    def __init__(self, subset: Subset, usable: np.ndarray) -> None:
        """usable: (clips,) that may stand as an original."""
        files, clips = subset.archive.files, subset.archive.clips
        position = pd.Series(subset.rows, index=files["path"].iloc[subset.rows])
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


def forged_spans(archive: ClipArchive, modality: str) -> list[Spans]:
    """(clips,) where each clip's picture ("video") or voice ("audio") is forged; () = all of it, or unknown. A file's
    segments are cut to the clip; a clip beside all of them gets the empty span (0, 0): nothing in it is fake."""
    files, clips = archive.files, archive.clips
    general = [tuple(s) for s in files["fake_segments"]]
    column = f"{modality}_fake_segments"
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


def share_of(count: int, part: int, parts: int, what: str) -> range:
    """The items of part `part` when `count` items are shared among `parts`. Raises ConfigError."""
    if count % parts or not count:
        raise ConfigError(f"{what}: {count} cannot be shared among {parts} parts; change batch_size or accumulate")
    return range(part * count // parts, (part + 1) * count // parts)


def choices(named: Mapping[str, float], known: Mapping[str, object], where: str) -> tuple[list[str], np.ndarray]:
    """Names and probabilities of the forgeries to draw from; an empty mapping means all of them alike.
    Raises ConfigError for an unknown name."""
    for name in named:
        if name not in known:
            raise ConfigError(f"{where}.forgeries: unknown forgery {name!r}; known: {', '.join(known)}")
    weights = dict(named) or dict.fromkeys(known, 1.0)
    return list(weights), np.array(list(weights.values())) / sum(weights.values())


def treated_faces(faces: FaceCrops, codec: float, treatment: int, light: bool = False) -> UInt8:
    """(T, S, S, 3): `faces` through what the number `treatment` stands for; with probability `codec` a real codec."""
    rng = np.random.default_rng(treatment)
    recipe = Recipe.draw(rng)  # drawn whether used or not, so that what follows is alike
    crops = through_video_codec(faces.crops, recipe.video) if rng.random() < codec else faces.crops
    return augment_faces(FaceCrops(crops, faces.landmarks), rng, light)


def treated_voice(samples: Float, codec: float, treatment: int) -> Float:
    """(n,): `samples` through what the number `treatment` stands for; with probability `codec` a real codec."""
    rng = np.random.default_rng(treatment)
    recipe = Recipe.draw(rng)
    samples = through_audio_codec(samples, recipe.audio) if rng.random() < codec else samples
    return augment_voice(samples, rng)
