"""One training run: out-of-fold streams, the fusion on their outputs, the final streams, and what they reach on dev.

Everything is kept in the run's folder; what took long is not done again when the run is started anew:

    run.json            the data and the configuration that this folder belongs to
    fold0/ fold1/ …     streams that did not see the fold (checkpoints, logs); scores/: the fold's files through them
    final/              streams trained on every training file
    model.safetensors   the final streams and the fusion
    result.json         calibration, candidates of the fusion, metrics: with the weights, all that an export needs
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from safetensors.torch import save as to_safetensors

from avdetect.bundle import Bundle, Calibration
from avdetect.config import MediaLimits, ModelConfig, TrainConfig, from_dict, to_dict
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import LABELS, digest, folds
from avdetect.errors import AVDetectError, ConfigError, ManifestError, ModelError
from avdetect.evaluation.tables import as_result, measurements, with_outputs
from avdetect.export import export_bundle
from avdetect.faces import FaceDetector, build_detector
from avdetect.model import Model
from avdetect.pooling import NUM_VALUES
from avdetect.preprocess import PREPROCESS_VERSION, Preprocessor
from avdetect.training.checkpoint import replace_file
from avdetect.training.fusion import FittedFusion, choose_clip, fit_candidates, label_matrix, logits_of
from avdetect.training.outputs import read_part, score_part, stream_features
from avdetect.training.pools import Part
from avdetect.training.streams import check_streams, train_streams
from avdetect.types import Float

SAMPLE = Path(__file__).parents[1] / "weights" / "sample" / "sample.mp4"
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """On what a run computes; none of it changes what is learned, but for rounding."""

    fabric: Fabric
    workers: int = 1  # processes that prepare batches, for each device


def train(
    config: TrainConfig, archive: ClipArchive, run: Path, settings: Settings, pretrained: str | None = None
) -> None:
    """Everything from preprocessed clips to `result.json`. With several devices, call it on every one of them.

    pretrained: safetensors of the image encoder to start from, in place of the configuration's.
    Raises ManifestError and ConfigError for data or settings that cannot be trained on, before anything is trained.
    """
    config = _prepared(config, archive, pretrained)
    table = archive.files
    parts = {name: Part(archive, np.flatnonzero(table["split"] == name)) for name in ("train", "dev", "test")}
    for name in ("train", "dev"):
        if not len(parts[name].rows):
            raise ManifestError(f"no file of the cache has the split {name}: both train and dev are needed")
    rows = parts["train"].rows
    fold = folds(parts["train"].table, config.folds, by=config.fold_by).to_numpy()
    held = [Part(archive, rows[fold == k]) for k in range(config.folds)]
    seen = [Part(archive, rows[fold != k]) for k in range(config.folds)]
    fabric = settings.fabric
    on_rank_zero(fabric, lambda: _claim(run, _data_digest(archive), config))
    for part in (*seen, parts["train"]):
        check_streams(config, part, parts["dev"])
    for k in range(config.folds):
        folder = run / f"fold{k}"
        model = train_streams(config, seen[k], parts["dev"], folder, fabric, settings.workers)
        score_part(config, model, held[k], folder / "scores", fabric)
        fabric.barrier()
    model = train_streams(config, parts["train"], parts["dev"], run / "final", fabric, settings.workers)

    def finish() -> None:
        scored = [read_part(held[k], run / f"fold{k}" / "scores") for k in range(config.folds)]
        tables, features = zip(*scored, strict=True)
        joined = pd.concat(tables, ignore_index=True), np.concatenate(features)
        candidates = fit_candidates(*joined, config.model, config.fusion, config.seed, by=config.fold_by)
        _finish(config, model, candidates, parts, run, settings)

    on_rank_zero(fabric, finish)


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


def _prepared(config: TrainConfig, archive: ClipArchive, pretrained: str | None) -> TrainConfig:
    """Checked against the cache; the model's streams are those with steps."""
    if archive.config.digest() != config.preprocess.digest():
        raise ConfigError(
            f"the cache was preprocessed as {archive.config.digest()}, the configuration asks for "
            f"{config.preprocess.digest()}: name the configuration that tools/preprocess.py was given, or another cache"
        )
    if archive.version != PREPROCESS_VERSION:
        raise ConfigError(
            f"the cache was cut by preprocessing version {archive.version}, this avdetect scores with version "
            f"{PREPROCESS_VERSION}: preprocess into a new --cache folder"
        )
    streams = tuple(name for name in ModelConfig().streams if getattr(config, name).steps)
    if config.model.streams not in (ModelConfig().streams, streams):
        raise ConfigError("model.streams follows from the steps: set visual.steps, audio.steps or sync.steps to 0")
    if "visual" not in streams and "audio" not in streams:
        raise ConfigError("visual.steps and audio.steps are both 0: there is nothing to train")
    model = dataclasses.replace(config.model, streams=streams)
    if pretrained:
        model = dataclasses.replace(model, visual=dataclasses.replace(model.visual, pretrained=pretrained))
    return dataclasses.replace(config, model=model)


def _data_digest(archive: ClipArchive) -> str:
    """What the run's batches depend on: the files in their order with their labels, and the clips there are of each."""
    columns = ["sha256", "split", "group", "dataset", *LABELS]
    files = archive.files[columns].to_csv(index=False)
    clips = archive.clips[["file", "copy", "clip", "main_faces", "sound_samples"]].to_numpy(np.int64)
    return hashlib.sha256(files.encode() + clips.tobytes() + archive.fingerprint.encode()).hexdigest()[:16]


def _claim(run: Path, data: str, config: TrainConfig) -> None:
    """Bind the working folder to this data and configuration: what lies in it must not be taken for another run's."""
    mine = {"data": data, "config": to_dict(config)}
    stated = run / "run.json"
    if not stated.exists():
        _write_json(stated, mine)
        return
    try:
        theirs = json.loads(stated.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{stated} is damaged; name a new folder as --run") from error
    if theirs != mine:
        what = "another configuration" if theirs.get("data") == data else "other data (or another order of it)"
        raise ConfigError(f"{run} holds a run with {what}; name a new folder as --run")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    replace_file(path, lambda file: file.write((json.dumps(values, indent=1) + "\n").encode()))


def _finish(
    config: TrainConfig,
    model: Model,
    candidates: list[FittedFusion],
    parts: dict[str, Part],
    run: Path,
    settings: Settings,
) -> None:
    """Choose the clip on dev, measure, and store all that an export needs."""
    best = candidates[0]
    model.fusion = best.fusion
    # Where the encoder's start lay on this machine is no property of the trained model.
    visual = dataclasses.replace(config.model.visual, pretrained=bool(config.model.visual.pretrained))
    final = dataclasses.replace(config.model, visual=visual, fusion=best.config)
    dev = stream_features(model, parts["dev"], settings.fabric)
    calibration, tried, chosen_on = _clipped(best, dev, parts["dev"])
    metrics = {"dev": _measure(model, calibration, parts["dev"], dev)}
    if len(parts["test"].rows):
        test = stream_features(model, parts["test"], settings.fabric)
        metrics["test"] = _measure(model, calibration, parts["test"], test)
    losses = {c.kind: dict(zip(LABELS, np.round(c.log_loss, 5).tolist(), strict=True)) for c in candidates}
    archive = parts["train"].archive
    result = {
        "config": to_dict(dataclasses.replace(config, model=final)),
        "calibration": to_dict(calibration),
        "fusion": {
            "kind": best.kind,
            "calibrated_by": best.calibrated_by,
            "oof_log_loss": losses,
            "clip_chosen_on": chosen_on,
            "log_loss_by_clip": {str(clip): round(loss, 5) for clip, loss in tried.items()},
        },
        "detector_fingerprint": archive.fingerprint,
        "manifest_digest": digest(parts["train"].table),
        "rows": {name: len(part.rows) for name, part in parts.items()},
        "metrics": metrics,
    }
    weights = {key: value.contiguous() for key, value in model.cpu().state_dict().items()}
    (run / "result.json").unlink(missing_ok=True)  # it vouches for the weights beside it
    replace_file(run / "model.safetensors", lambda file: file.write(to_safetensors(weights)))
    _write_json(run / "result.json", result)


def _clipped(best: FittedFusion, dev: Float, part: Part) -> tuple[Calibration, dict[float, float], str]:
    """The calibration with its clip, chosen on dev; where dev lacks a class, on the training files out of fold."""
    judged = dev[:, NUM_VALUES:].any(axis=1)  # the Detector abstains on the others
    labels = label_matrix(part.table)[judged]
    if len(np.unique(labels[labels[:, 0] >= 0, 0])) == 2:
        return *choose_clip(best.calibration, logits_of(best.fusion, dev[judged]), labels), "dev"
    return *choose_clip(best.calibration, best.oof_logits, best.oof_labels), "train, out of fold"


def _measure(model: Model, calibration: Calibration, part: Part, features: Float) -> dict[str, Any]:
    table = part.table.reset_index(drop=True)
    probabilities = calibration.probabilities(logits_of(model.fusion, features))
    scores = with_outputs(table, features, probabilities)
    return as_result(measurements(scores, calibration.threshold, tables=("output", "stream", "kind", "source")))


def export(
    run: Path,
    out: Path,
    name: str | None = None,
    licence: str | None = None,
    detector_model: Path | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Write the bundle of a finished run to `out`; also returns result.json. `name` and `licence` override the
    configuration's; detector_model: weights of the face detector where they are not in their default place.

    Raises ModelError for an unfinished run, ConfigError for another face detector than the one trained with.
    """
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{run} holds no finished run ({error}): let tools/train.py end first") from error
    config = from_dict(TrainConfig, result["config"], "result.json")
    model = Model.load(config.model, run / "model.safetensors")
    detector = check_detector(config, result["detector_fingerprint"], detector_model)
    preprocessor = Preprocessor(config.preprocess, detector, MediaLimits())
    summaries = {split: metrics["summary"] for split, metrics in result["metrics"].items()}
    stated = ("manifest_digest", "detector_fingerprint", "rows", "config", "fusion")
    bundle = export_bundle(
        model,
        out,
        name=name or config.name,
        licence=licence or config.licence,
        preprocess=config.preprocess,
        calibration=from_dict(Calibration, result["calibration"], "result.json"),
        training={key: result[key] for key in stated} | summaries,
        sample=preprocessor.clips(SAMPLE),
    )
    return bundle, result


def check_detector(config: TrainConfig, fingerprint: str, model: Path | None) -> FaceDetector:
    """The face detector that the clips were cut with. Raises ModelError without its weights, ConfigError for others."""
    detector = build_detector(config.preprocess.detector, path=model)
    if detector.fingerprint != fingerprint:
        raise ConfigError(
            f"the clips were cut with {detector.name} of fingerprint {fingerprint}, this one has "
            f"{detector.fingerprint}: name its weights with --detector-model"
        )
    return detector
