"""One training run: out-of-fold streams, the fusion on their outputs, the final streams, and what they reach on dev.

Everything is kept in the run's folder; what took long is not done again when the run is started anew:

    run.json            the data and the configuration that this folder belongs to
    fold0/ fold1/ …     streams that did not see the fold (checkpoints, logs); scores/: the fold's files through them
    final/              streams trained on every training file
    model.safetensors   the final streams and the fusion
    out_of_fold.csv.gz  what the folds' streams, and fusions that did not see them either, say of every training file
    result.json         calibration, candidates of the fusion, metrics: with the weights, all that an export needs
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric

from avdetect.config import ModelConfig, TrainConfig, to_dict
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import LABELS, OWN_VOICE, folds
from avdetect.errors import AVDetectError, ConfigError, ManifestError
from avdetect.files import open_run_folder
from avdetect.preprocess import PREPROCESS_VERSION
from avdetect.training.outputs import read_outputs, score_subset
from avdetect.training.results import finish
from avdetect.training.sampling import Subset
from avdetect.training.streams import check_streams, probe_sets, train_streams


@dataclass(frozen=True)
class Settings:
    """On what a run computes; none of it changes what is learned, but for rounding."""

    fabric: Fabric
    workers: int = 1  # processes that prepare batches, for each device


def train(
    config: TrainConfig,
    archive: ClipArchive,
    run: Path,
    settings: Settings,
    pretrained: Mapping[str, str | None] | None = None,
) -> None:
    """Everything from preprocessed clips to `result.json`. With several devices, call it on every one of them.

    pretrained: "visual" and "audio" -> safetensors of the encoder to start from, in place of the configuration's.
    Raises ManifestError and ConfigError for data or settings that cannot be trained on, before anything is trained.
    """
    config = _prepared(config, archive, pretrained or {})
    splits = _splits(config, archive)
    held, seen = _folds(config, splits["train"])
    fabric, workers = settings.fabric, settings.workers
    # What lies in the folder must not be taken for another run's.
    identity = {"data": _data_digest(archive), "config": to_dict(config)}
    on_rank_zero(fabric, lambda: open_run_folder(run, identity, "name a new folder as --run"))
    check_streams(config, held, [*seen, splits["train"]], splits["dev"])
    probes = probe_sets(config, held, run, fabric, workers)
    folders = [run / f"fold{k}" for k in range(config.folds)]
    for k, folder in enumerate(folders):
        model = train_streams(config, seen[k], splits["dev"], folder, fabric, workers, probes)
        score_subset(config, model, held[k], folder / "scores", fabric)
        fabric.barrier()
    model = train_streams(config, splits["train"], splits["dev"], run / "final", fabric, workers, probes)

    def end() -> None:
        outputs = read_outputs(held, [folder / "scores" for folder in folders])
        finish(config, model, splits, outputs, run, fabric)

    on_rank_zero(fabric, end)


def _splits(config: TrainConfig, archive: ClipArchive) -> dict[str, Subset]:
    """The files of each split; a release trains on dev too."""
    split = archive.files["split"].to_numpy(object)
    splits = {name: Subset(archive, np.flatnonzero(split == name)) for name in ("train", "dev", "test")}
    for name in ("train", "dev"):
        if not len(splits[name].rows):
            raise ManifestError(f"no file of the cache has the split {name}: both train and dev are needed")
    if config.release:
        splits["train"] = Subset(archive, np.flatnonzero((split == "train") | (split == "dev")))
    return splits


def _folds(config: TrainConfig, subset: Subset) -> tuple[list[Subset], list[Subset]]:
    """Of each fold the files that are held out, and those that its streams see: all others."""
    fold = folds(subset.table, config.folds, by=config.fold_by).to_numpy()
    held = [Subset(subset.archive, subset.rows[fold == k]) for k in range(config.folds)]
    return held, [Subset(subset.archive, subset.rows[fold != k]) for k in range(config.folds)]


def on_rank_zero(fabric: Fabric, work: Callable[[], None]) -> None:
    """Do `work` on one rank while the others wait; an error there is raised on all, so that none waits for ever."""
    failed: AVDetectError | None = None
    if fabric.is_global_zero:
        try:
            work()
        except AVDetectError as error:
            failed = error
    told = fabric.broadcast((type(failed).__name__, str(failed)) if failed else None)
    if failed:
        raise failed
    if told:
        raise AVDetectError(f"rank 0 stopped: {told[0]}: {told[1]}")


def _prepared(config: TrainConfig, archive: ClipArchive, pretrained: Mapping[str, str | None]) -> TrainConfig:
    """The configuration, checked against the cache; the model's streams are those with steps."""
    if archive.config.digest() != config.preprocess.digest():
        raise ConfigError(
            f"the cache was preprocessed as {archive.config.digest()}, the configuration asks for "
            f"{config.preprocess.digest()}: name the configuration that avdetect preprocess was given, or another cache"
        )
    if archive.version != PREPROCESS_VERSION:
        raise ConfigError(
            f"the cache was cut by preprocessing version {archive.version}, this avdetect scores with version "
            f"{PREPROCESS_VERSION}: preprocess into a new --cache folder"
        )
    streams = tuple(name for name in ModelConfig().streams if getattr(config, name).steps)
    if "visual" not in streams and "audio" not in streams:
        raise ConfigError("visual.steps and audio.steps are both 0: there is nothing to train")
    model = dataclasses.replace(config.model, streams=streams)
    for name, path in pretrained.items():
        if path:
            model = dataclasses.replace(model, **{name: dataclasses.replace(getattr(model, name), pretrained=path)})
    if model.visual.frozen and "visual" in streams and not model.visual.pretrained:
        raise ConfigError(
            "model.visual.tune: none keeps the encoder as it starts, so it needs weights to start from: name a "
            "safetensors file with --pretrained, or set model.visual.pretrained: true"
        )
    if model.audio.encoder != "cnn" and {"audio", "sync"} & set(streams) and not model.audio.pretrained:
        raise ConfigError(
            f"model.audio.encoder {model.audio.encoder} needs weights to start from: make a safetensors file with "
            "tools/convert_whisper.py and name it with --pretrained-audio"
        )
    return dataclasses.replace(config, model=model)


def _data_digest(archive: ClipArchive) -> str:
    """What the run's batches depend on: the files in their order with their labels, and the clips there are of each."""
    known = ["sha256", "split", "group", "dataset", "method", "original"]
    columns = [*known, *LABELS, *({OWN_VOICE} & set(archive.files))]
    files = archive.files[columns].to_csv(index=False)
    clips = archive.clips[["file", "copy", "clip", "main_faces", "sound_samples"]].to_numpy(np.int64)
    return hashlib.sha256(files.encode() + clips.tobytes() + archive.fingerprint.encode()).hexdigest()[:16]
