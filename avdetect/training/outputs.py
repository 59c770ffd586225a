"""Stream outputs as features of the fusion: of a part's files, and of forgeries of its real ones.

The files are scored in chunks, each kept on disk when it is done: a run that is killed here goes on with the next
chunk, and several devices share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from rich.progress import track

from avdetect.config import TrainConfig
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
from avdetect.datasets.forgeries.clip import forge_clip, usable
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.datasets.manifest import LABELS
from avdetect.model import Model
from avdetect.pooling import FEATURES
from avdetect.scoring import StreamScorer
from avdetect.training.checkpoint import replace_file
from avdetect.training.pools import Part
from avdetect.training.streams import TorchNetworks, score_clips
from avdetect.types import Clip, Float

CHUNK = 256  # files


def score_part(config: TrainConfig, model: Model, part: Part, folder: Path, fabric: Fabric) -> None:
    """Write the chunks of `part` into `folder` that are not there yet; every rank takes its share.

    "files" (N, F) features in the order of the part's rows; "forged" (M, F) with "source" (row of the archive),
    "method" and "labels" of each forgery.
    """
    networks = TorchNetworks(model, fabric.device)
    scorer = StreamScorer(networks, model.config)
    reals = _reals(part)
    mine = range(fabric.global_rank, len(chunks(part)), fabric.world_size)
    for number in track(mine, f"score {folder.parent.name}", disable=not fabric.is_global_zero):
        target = folder / f"{number:06d}.npz"
        if not target.exists():
            rows = chunks(part)[number]
            arrays = _scored(config, scorer, Part(part.archive, rows), reals)
            replace_file(target, lambda file, a=arrays: np.savez(file, **a))  # type: ignore[misc]
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
    scorer = StreamScorer(TorchNetworks(model, fabric.device), model.config)
    features = [score_clips(scorer, clips).features() for clips in track(_clips_of(part), "score", len(part.rows))]
    model.cpu()
    return np.stack(features)


def _scored(config: TrainConfig, scorer: StreamScorer, part: Part, reals: dict[int, int]) -> dict[str, Any]:
    files = [score_clips(scorer, clips).features() for clips in _clips_of(part)]
    forged, source, method, labels = [], [], [], []
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
    """The clips of each file as it is, without its re-encoded copies."""
    clips = part.archive.clips
    original = clips.index[clips["copy"] == 0]
    by_file = clips.loc[original].groupby("file").groups
    for row in part.rows.tolist():
        yield [part.archive.load(int(clip)) for clip in by_file.get(row, [])]


def _reals(part: Part) -> dict[int, int]:
    """Real files of the part -> their first clip."""
    clips = part.archive.clips
    first = clips.index[(clips["copy"] == 0) & (clips["clip"] == 0)]
    clip_of = dict(zip(clips.loc[first, "file"].tolist(), first.tolist(), strict=True))
    real = part.rows[part.table["fake"].eq(0).fillna(False).to_numpy(bool)]
    return {row: clip_of[row] for row in real.tolist() if row in clip_of}


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
        table[name] = labels.mask(sources[name].isna() & labels.eq(0))
    return table
