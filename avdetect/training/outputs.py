"""Stream outputs as features of the fusion: of a part's files, of forgeries of its real ones, and of these with the
voice of somebody else.

The files are scored in chunks, each kept on disk when it is done: a run that is killed here goes on with the next
chunk, and several devices share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from rich.progress import track

from avdetect.config import FaceConfig, TrainConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
from avdetect.datasets.forgeries.clip import forge_clip, usable
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.datasets.manifest import LABELS, own_voice
from avdetect.files import replacing
from avdetect.model import Model
from avdetect.pooling import FEATURES
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.training.pools import Part
from avdetect.training.streams import TorchNetworks, score_clips
from avdetect.types import Clip, Float

CHUNK = 256  # files
OTHER_VOICE = "other_voice"


@dataclass(frozen=True)
class FoldOutputs:
    """Of one fold: rows and (N, F) features, the first `files` of files, the others of forgeries."""

    table: pd.DataFrame
    features: Float
    files: int


def score_part(config: TrainConfig, model: Model, part: Part, folder: Path, fabric: Fabric) -> None:
    """Write the chunks of `part` into `folder` that are not there yet; every rank takes its share.

    "files" (N, F) features in the order of the part's rows; "forged" (M, F) with "source" (row of the archive),
    "method" and "labels" of each forgery, the exchanged voices among them.
    """
    networks = TorchNetworks(model, fabric.device)
    scorer = StreamScorer(networks, model.config, part.archive.config.faces)
    reals, voices = _reals(part), Voices(part)
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(fabric.global_rank, len(chunks(part)), fabric.world_size)
    for number in track(mine, f"score {folder.parent.name}", disable=not fabric.is_global_zero):
        target = folder / f"{number:06d}.npz"
        if not target.exists():
            rows = chunks(part)[number]
            arrays = _scored(config, scorer, Part(part.archive, rows), reals, voices)
            with replacing(target, sync=True) as file:
                np.savez(file, **arrays)
    model.cpu()


def chunks(part: Part) -> list[np.ndarray]:
    """The part's rows, CHUNK at a time."""
    return [part.rows[i : i + CHUNK] for i in range(0, len(part.rows), CHUNK)]


def read_part(part: Part, folder: Path) -> tuple[pd.DataFrame, Float]:
    """Rows and (N, F) features of what `score_part` wrote: the part's files, then the forgeries."""
    tables, features, forged_tables, forged_features = [], [], [], []
    for number, rows in enumerate(chunks(part)):
        with np.load(folder / f"{number:06d}.npz", allow_pickle=False) as arrays:
            tables.append(part.archive.files.iloc[rows])
            features.append(arrays["files"])
            forged_tables.append(_forged_table(part, arrays))
            forged_features.append(arrays["forged"])
    return pd.concat(tables + forged_tables, ignore_index=True), np.concatenate(features + forged_features)


def stream_features(model: Model, part: Part, fabric: Fabric) -> Float:
    """(N, F) fusion features of the part's files, in its order."""
    scorer = StreamScorer(TorchNetworks(model, fabric.device), model.config, part.archive.config.faces)
    features = [score_clips(scorer, clips).features() for clips in track(_clips_of(part), "score", len(part.rows))]
    model.cpu()
    return np.stack(features)


def _scored(
    config: TrainConfig, scorer: StreamScorer, part: Part, reals: dict[int, int], voices: Voices
) -> dict[str, Any]:
    files, forged, source, method, labels = [], [], [], [], []
    for row, clips in zip(part.rows.tolist(), _clips_of(part), strict=True):
        seen = score_clips(scorer, clips)
        files.append(seen.features())
        for number in range(config.fusion.mismatched if row in voices.clips else 0):
            rng = np.random.default_rng((config.seed, 7, row, number))
            outputs = mismatched(scorer, seen, clips, voices.of_another(row, rng), rng, part.archive.config.faces)
            if outputs.sync_reading() is not None:  # else nobody in the picture speaks: that is no mismatch
                forged.append(outputs.features())
                source.append(row)
                method.append(OTHER_VOICE)
                labels.append((1, 0, 0))
    for row, name, clip, truth in _forgeries(config, part, reals):
        forged.append(score_clips(scorer, [clip]).features())
        source.append(row)
        method.append(name)
        labels.append(truth)
    return {
        "files": np.array(files, np.float32).reshape(-1, len(FEATURES)),
        "forged": np.array(forged, np.float32).reshape(-1, len(FEATURES)),
        "source": np.array(source, np.int64),
        "method": np.array(method, dtype="U32"),
        "labels": np.array(labels, np.int8).reshape(-1, len(LABELS)),
    }


def _clips_of(part: Part) -> Iterable[list[Clip]]:
    """The clips of each file as it is."""
    for numbers in _clips_by_file(part.archive, part.rows).values():
        yield [part.archive.load(clip) for clip in numbers]


def _clips_by_file(archive: ClipArchive, rows: np.ndarray) -> dict[int, list[int]]:
    """The clips of each of the files, in their order, without its re-encoded copies."""
    clips = archive.clips
    by_file = clips[clips["copy"] == 0].groupby("file").groups
    return {row: [int(clip) for clip in by_file.get(row, [])] for row in rows.tolist()}


def _reals(part: Part) -> dict[int, int]:
    """Real files of the part -> their first clip."""
    clips = part.archive.clips
    first = clips.index[(clips["copy"] == 0) & (clips["clip"] == 0)]
    clip_of = dict(zip(clips.loc[first, "file"].tolist(), first.tolist(), strict=True))
    real = part.rows[part.table["fake"].eq(0).fillna(False).to_numpy(bool)]
    return {row: clip_of[row] for row in real.tolist() if row in clip_of}


class Voices:
    """The real files of a part in which the person in the picture speaks, and whose voice each may get."""

    def __init__(self, part: Part) -> None:
        table = part.table
        own = table["fake"].eq(0).fillna(False).to_numpy(bool) & own_voice(table)
        self.archive, self.rows = part.archive, part.rows[own]
        self.group, self.source = (table[name].to_numpy(object)[own] for name in ("group", "dataset"))
        self.clips = _clips_by_file(part.archive, self.rows)

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
    """The outputs of a file with the voice of `others`; those of the picture are what was `seen` of it.

    Each clip gets the voice of one of theirs; where none has any, the clip is silent.
    """
    outputs = dataclasses.replace(scorer.start(), visual=seen.visual, boxes=seen.boxes, hidden=seen.hidden)
    for number, clip in enumerate(clips):
        turned = [others[(number + i) % len(others)] for i in range(len(others))]
        other = next((one for one in turned if usable(clip, OTHER_VOICE, one)), None)
        if other is not None:
            scorer.listen(outputs, forge_clip(clip, OTHER_VOICE, rng, faces, other).clip)
    return scorer.finish(outputs, {})


def _forgeries(
    config: TrainConfig, part: Part, reals: dict[int, int]
) -> Iterable[tuple[int, str, Clip, tuple[int, int, int]]]:
    """`fusion.forged` forgeries of the first clip of every real file: (row in the archive, method, clip, labels)."""
    archive = part.archive
    rows = list(reals)
    places = {row: place for place, row in enumerate(rows)}
    groups = archive.files["group"].iloc[rows].to_numpy(object)
    for row in part.rows.tolist() if config.fusion.forged else ():
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
            if kinds:
                methods = kinds[(place + number) % len(kinds)]
                forged = forge_clip(clip, methods[int(rng.integers(len(methods)))], rng, archive.config.faces, other)
                if forged.segments:  # digital silence cannot be forged
                    yield row, forged.method, forged.clip, (forged.fake, forged.video_fake, forged.audio_fake)


def _donor(groups: np.ndarray, place: int, rng: np.random.Generator) -> int | None:
    """Another real file: half of the time of the same person, where there is one."""
    same = groups == groups[place]
    same[place] = False
    stranger = groups != groups[place]
    for kind in (same, stranger) if rng.random() < 0.5 else (stranger, same):
        if kind.any():
            return int(rng.choice(np.flatnonzero(kind)))
    return None


def _forged_table(part: Part, arrays: Any) -> pd.DataFrame:
    """Rows of the forgeries: their sources', with their own labels."""
    sources = part.archive.files.iloc[arrays["source"]]
    table = sources.copy()
    table["path"] = [f"{path}#{m}{i}" for i, (path, m) in enumerate(zip(table["path"], arrays["method"], strict=True))]
    table["method"] = arrays["method"]
    for column, name in enumerate(LABELS):
        # A part that the source lacks (speech has no picture) stays unknown, unless it was what was forged.
        labels = pd.Series(arrays["labels"][:, column], index=table.index).astype("Int8")
        whole = table["method"].isin(AUDIOVISUAL)  # both parts are there
        table[name] = labels.mask(sources[name].isna() & labels.eq(0) & ~whole)
    return table
