"""Stream outputs as features of the fusion: of a subset's files, of forgeries of its real ones, and of these with the
voice of somebody else.

The files are scored in chunks, each kept on disk when it is done: a run that is killed here goes on with the next
chunk, and several devices share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from rich.progress import track

from avdetect.config import FaceConfig, TrainConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL
from avdetect.datasets.forgeries.clip import forge_clip, labels, usable
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.datasets.manifest import LABELS, own_voice
from avdetect.files import replacing
from avdetect.model import Model
from avdetect.pooling import FEATURES
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.training.sampling import Subset
from avdetect.training.streams import TorchNetworks, score_clips
from avdetect.types import Clip, Float

CHUNK = 256  # files
OTHER_VOICE = "other_voice"


@dataclass(frozen=True)
class FoldOutputs:
    """Of all folds, fold by fold: of each first its files, then the forgeries of its real ones."""

    table: pd.DataFrame  # N rows of the manifest's columns
    features: Float  # (N, F)
    fold: np.ndarray  # (N,)
    is_file: np.ndarray  # (N,)


@dataclass(frozen=True)
class Forgery:
    """One that a chunk holds beside its files."""

    features: Float  # (F,)
    source: int  # row of the archive
    method: str
    labels: tuple[int, int, int]


def score_subset(config: TrainConfig, model: Model, subset: Subset, folder: Path, fabric: Fabric) -> None:
    """Write the chunks of `subset` into `folder` that are not there yet; every rank takes its share.

    "files" (N, F) features in the order of the subset's rows; "forged" (M, F) with "source", "method" and "labels" of
    each forgery, the exchanged voices among them.
    """
    scorer = StreamScorer(TorchNetworks(model, fabric.device), model.config, subset.archive.config.faces)
    reals, voices = _reals(subset), Voices(subset)
    chunks = _chunks(subset)
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(fabric.global_rank, len(chunks), fabric.world_size)
    for number in track(mine, f"score {folder.parent.name}", disable=not fabric.is_global_zero):
        target = folder / f"{number:06d}.npz"
        if not target.exists():
            arrays = _scored(config, scorer, Subset(subset.archive, chunks[number]), reals, voices)
            with replacing(target, sync=True) as file:
                np.savez(file, **arrays)
    model.cpu()


def read_outputs(held: Sequence[Subset], folders: Sequence[Path]) -> FoldOutputs:
    """What `score_subset` wrote of each fold."""
    tables, features, fold, is_file = [], [], [], []
    for k, (subset, folder) in enumerate(zip(held, folders, strict=True)):
        chunks = [_read(folder / f"{n:06d}.npz") for n in range(len(_chunks(subset)))]
        forged = [_forged_table(subset, arrays) for arrays in chunks]
        tables += [subset.table, *forged]
        features += [arrays[name] for name in ("files", "forged") for arrays in chunks]
        counts = len(subset.rows), sum(map(len, forged))
        fold.append(np.full(sum(counts), k))
        is_file.append(np.repeat([True, False], counts))
    table = pd.concat(tables, ignore_index=True)
    return FoldOutputs(table, np.concatenate(features), np.concatenate(fold), np.concatenate(is_file))


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def stream_features(model: Model, subset: Subset, fabric: Fabric) -> Float:
    """(N, F) fusion features of the subset's files, in its order."""
    scorer = StreamScorer(TorchNetworks(model, fabric.device), model.config, subset.archive.config.faces)
    clips_of = track(_clips_of(subset), "score", len(subset.rows))
    features = [score_clips(scorer, clips).features() for clips in clips_of]
    model.cpu()
    return np.stack(features)


def _chunks(subset: Subset) -> list[np.ndarray]:
    return [subset.rows[i : i + CHUNK] for i in range(0, len(subset.rows), CHUNK)]


def _scored(
    config: TrainConfig, scorer: StreamScorer, subset: Subset, reals: dict[int, int], voices: Voices
) -> dict[str, Any]:
    files, forged = [], []
    for row, clips in zip(subset.rows.tolist(), _clips_of(subset), strict=True):
        seen = score_clips(scorer, clips)
        files.append(seen.features())
        for number in range(config.fusion.mismatched if row in voices.clips else 0):
            rng = np.random.default_rng((config.seed, 7, row, number))
            outputs = mismatched(scorer, seen, clips, voices.of_another(row, rng), rng, subset.archive.config.faces)
            if outputs.sync_reading() is not None:  # else nobody in the picture speaks: that is no mismatch
                forged.append(Forgery(outputs.features(), row, OTHER_VOICE, (1, 0, 0)))
    forged += _forgeries(config, scorer, subset, reals)
    return {
        "files": np.array(files, np.float32).reshape(-1, len(FEATURES)),
        "forged": np.array([one.features for one in forged], np.float32).reshape(-1, len(FEATURES)),
        "source": np.array([one.source for one in forged], np.int64),
        "method": np.array([one.method for one in forged], dtype="U32"),
        "labels": np.array([one.labels for one in forged], np.int8).reshape(-1, len(LABELS)),
    }


def _clips_of(subset: Subset) -> Iterable[list[Clip]]:
    for numbers in _clips_by_file(subset.archive, subset.rows).values():
        yield [subset.archive.load(clip) for clip in numbers]


def _clips_by_file(archive: ClipArchive, rows: np.ndarray) -> dict[int, list[int]]:
    """The clips of each of the files, in their order, without its re-encoded copies."""
    clips = archive.clips
    by_file = clips[clips["copy"] == 0].groupby("file").groups
    return {row: [int(clip) for clip in by_file.get(row, [])] for row in rows.tolist()}


def _reals(subset: Subset) -> dict[int, int]:
    """Real files -> their first clip."""
    real = subset.rows[subset.table["fake"].eq(0).fillna(False).to_numpy(bool)]
    return {row: clips[0] for row, clips in _clips_by_file(subset.archive, real).items() if clips}


class Voices:
    """The real files of a subset in which the person in the picture speaks, and whose voice each may get."""

    def __init__(self, subset: Subset) -> None:
        table = subset.table
        own = table["fake"].eq(0).fillna(False).to_numpy(bool) & own_voice(table)
        self.archive, self.rows = subset.archive, subset.rows[own]
        self.group, self.source = (table[name].to_numpy(object)[own] for name in ("group", "dataset"))
        self.clips = _clips_by_file(subset.archive, self.rows)

    def of_another(self, row: int, rng: np.random.Generator) -> list[Clip]:
        """The clips of another person's file: of the same source, where there is one, for else the sound of a source
        would tell; [] where there is no other person."""
        place = int(np.flatnonzero(self.rows == row)[0])
        others = self.group != self.group[place]
        near = others & (self.source == self.source[place])
        rows = self.rows[near if near.any() else others]
        return [self.archive.load(clip) for clip in self.clips[int(rng.choice(rows))]] if len(rows) else []


def mismatched(
    scorer: StreamScorer,
    seen: StreamOutputs,
    clips: Sequence[Clip],
    others: Sequence[Clip],
    rng: np.random.Generator,
    faces: FaceConfig,
) -> StreamOutputs:
    """The outputs of a file with the voice of `others`; those of the picture are what was `seen` of it. Each clip gets
    the voice of one of theirs; where none has any, the clip is silent."""
    outputs = dataclasses.replace(scorer.start(), visual=seen.visual, boxes=seen.boxes, hidden=seen.hidden)
    for number, clip in enumerate(clips):
        turned = [others[(number + i) % len(others)] for i in range(len(others))]
        other = next((one for one in turned if usable(clip, OTHER_VOICE, one)), None)
        if other is not None:
            scorer.score_audio(outputs, forge_clip(clip, OTHER_VOICE, rng, faces, other)[0])
    return scorer.finish(outputs, {})


def _forgeries(config: TrainConfig, scorer: StreamScorer, subset: Subset, reals: dict[int, int]) -> Iterator[Forgery]:
    """`fusion.forged` forgeries of the first clip of every real file."""
    archive, rows = subset.archive, list(reals)
    places = {row: place for place, row in enumerate(rows)}
    groups = archive.files["group"].iloc[rows].to_numpy(object)
    for row in subset.rows.tolist() if config.fusion.forged else ():
        if row not in reals:
            continue
        clip, place = archive.load(reals[row]), places[row]
        for number in range(config.fusion.forged):
            rng = np.random.default_rng((config.seed, 5, row, number))
            donor = _donor(groups, place, rng)
            other = archive.load(reals[rows[donor]]) if donor is not None else None
            # Face, voice and match in turn, so that a small set has all three.
            kinds = [[m for m in kind if usable(clip, m, other)] for kind in (VISUAL, AUDIO, AUDIOVISUAL)]
            kinds = [methods for methods in kinds if methods]
            if not kinds:
                continue
            methods = kinds[(place + number) % len(kinds)]
            method = methods[int(rng.integers(len(methods)))]
            forged, segments = forge_clip(clip, method, rng, archive.config.faces, other)
            if segments:  # digital silence cannot be forged
                yield Forgery(score_clips(scorer, [forged]).features(), row, method, labels(method))


def _donor(groups: np.ndarray, place: int, rng: np.random.Generator) -> int | None:
    """Another real file: half of the time of the same person, where there is one."""
    same = groups == groups[place]
    same[place] = False
    stranger = groups != groups[place]
    for kind in (same, stranger) if rng.random() < 0.5 else (stranger, same):
        if kind.any():
            return int(rng.choice(np.flatnonzero(kind)))
    return None


def _forged_table(subset: Subset, arrays: Any) -> pd.DataFrame:
    """Rows of the forgeries: their sources', with their own labels."""
    sources = subset.archive.files.iloc[arrays["source"]]
    table = sources.copy()
    table["path"] = [f"{path}#{m}{i}" for i, (path, m) in enumerate(zip(table["path"], arrays["method"], strict=True))]
    table["method"] = arrays["method"]
    for column, name in enumerate(LABELS):
        # A modality that the source lacks (speech has no picture) stays unknown, unless it was what was forged.
        labels = pd.Series(arrays["labels"][:, column], index=table.index).astype("Int8")
        whole = table["method"].isin(AUDIOVISUAL)  # both modalities are there
        table[name] = labels.mask(sources[name].isna() & labels.eq(0) & ~whole)
    return table
