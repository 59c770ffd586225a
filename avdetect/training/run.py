"""One training run: out-of-fold streams, the fusion on their outputs, the final streams, and what they reach on dev.

Everything is kept in the run's folder, and every step is skipped where its result is there already:

    run.json            the data's digest and the configuration this folder belongs to
    fold0/ fold1/ …     streams that did not see the fold, and features.npz: the fold's files through them
    final/              streams trained on every training file
    model.safetensors   the final streams and the fusion
    result.json         calibration, candidates of the fusion, metrics: with the weights, all that an export needs
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from rich.progress import track

from avdetect.bundle import Bundle, Calibration
from avdetect.config import MediaLimits, ModelConfig, TrainConfig, from_dict, to_dict
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
from avdetect.datasets.forgeries.clip import forge_clip, usable
from avdetect.datasets.forgeries.visual import VISUAL
from avdetect.datasets.manifest import LABELS, digest, folds
from avdetect.errors import ConfigError, ManifestError, ModelError
from avdetect.evaluation.metrics import evaluate
from avdetect.export import export_bundle
from avdetect.faces import build_detector
from avdetect.model import Model
from avdetect.preprocess import Preprocessor
from avdetect.scoring import StreamScorer
from avdetect.training.fusion import FittedFusion, choose_clip, fit_candidates, label_matrix, logits_of
from avdetect.training.pools import Part
from avdetect.training.streams import TorchNetworks, score_clips, train_streams
from avdetect.types import Clip, Float

SAMPLE = Path(__file__).parents[1] / "weights" / "sample" / "sample.mp4"


@dataclass(frozen=True)
class Settings:
    """Where and on what a run computes; none of it changes what is learned, but for rounding."""

    fabric: Fabric
    workers: int = 1  # processes that prepare batches


def train(
    config: TrainConfig, archive: ClipArchive, run: Path, settings: Settings, pretrained: str | None = None
) -> None:
    """Everything from preprocessed clips to `result.json`. With several devices, call it on every one of them.

    pretrained: safetensors of the image encoder to start from, in place of the configuration's.
    Raises ManifestError and ConfigError for data or settings that cannot be trained on.
    """
    config = _prepared(config, archive, pretrained)
    table = archive.files
    parts = {name: Part(archive, np.flatnonzero(table["split"] == name)) for name in ("train", "dev", "test")}
    for name in ("train", "dev"):
        if not len(parts[name].rows):
            raise ManifestError(f"no file of the cache has the split {name}: both train and dev are needed")
    if settings.fabric.is_global_zero:
        _claim(run, digest(table), config)
    settings.fabric.barrier()
    rows, features = _out_of_fold(config, parts["train"], parts["dev"], run, settings)
    model = train_streams(config, parts["train"], parts["dev"], run / "final", settings.fabric, settings.workers)
    if settings.fabric.is_global_zero:
        candidates = fit_candidates(rows, features, config.model, config.fusion, config.seed)
        _finish(config, model, candidates, parts, run, settings)
    settings.fabric.barrier()


def _prepared(config: TrainConfig, archive: ClipArchive, pretrained: str | None) -> TrainConfig:
    """Checked against the cache; the model's streams are those with steps."""
    if archive.config.digest() != config.preprocess.digest():
        raise ConfigError(
            f"the cache was preprocessed as {archive.config.digest()}, the configuration asks for "
            f"{config.preprocess.digest()}: name the configuration that tools/preprocess.py was given, or another cache"
        )
    streams = tuple(name for name in ModelConfig().streams if getattr(config, name).steps)
    if "visual" not in streams and "audio" not in streams:
        raise ConfigError("visual.steps and audio.steps are both 0: there is nothing to train")
    model = dataclasses.replace(config.model, streams=streams)
    if pretrained:
        model = dataclasses.replace(model, visual=dataclasses.replace(model.visual, pretrained=pretrained))
    return dataclasses.replace(config, model=model)


def _claim(run: Path, manifest_digest: str, config: TrainConfig) -> None:
    """Bind the working folder to this data and configuration: what lies in it must not be taken for another run's."""
    mine = {"manifest_digest": manifest_digest, "config": to_dict(config)}
    stated = run / "run.json"
    run.mkdir(parents=True, exist_ok=True)
    if not stated.exists():
        stated.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
    elif json.loads(stated.read_text(encoding="utf-8")) != mine:
        raise ConfigError(f"{run} holds a run with other data or another configuration; name a new folder as --run")


def _out_of_fold(
    config: TrainConfig, part: Part, dev: Part, run: Path, settings: Settings
) -> tuple[pd.DataFrame, Float]:
    """Rows and (N, F) features of every training file and of forgeries of the real ones, each through streams that did
    not see its fold."""
    table = part.table.reset_index(drop=True)
    fold = folds(table, config.folds, by=config.fold_by).to_numpy()
    tables, features = [], []
    for k in range(config.folds):
        folder = run / f"fold{k}"
        stored = folder / "features.npz"
        held = Part(part.archive, part.rows[fold == k])
        if not stored.exists():
            seen = Part(part.archive, part.rows[fold != k])
            model = train_streams(config, seen, dev, folder, settings.fabric, settings.workers)
            if settings.fabric.is_global_zero:
                _score_fold(config, model, held, stored, settings)
            settings.fabric.barrier()
        with np.load(stored, allow_pickle=False) as arrays:
            tables += [held.table, _forged_table(held, arrays)]
            features += [arrays["files"], arrays["forged"]]
    return pd.concat(tables, ignore_index=True), np.concatenate(features)


def _score_fold(config: TrainConfig, model: Model, held: Part, target: Path, settings: Settings) -> None:
    """features.npz: "files" (N, F) in the order of the part's rows; "forged" (M, F) with what each is."""
    scorer = StreamScorer(TorchNetworks(model, settings.fabric.device), model.config)
    files = [
        score_clips(scorer, clips).features()
        for clips in track(_clips_of(held), f"score {target.parent.name}", len(held.rows))
    ]
    forged, source, method, labels = [], [], [], []
    for row, name, clip, truth in _forgeries(config, held):
        forged.append(score_clips(scorer, [clip]).features())
        source.append(row)
        method.append(name)
        labels.append(truth)
    width = len(files[0]) if files else 0
    arrays = {
        "files": np.array(files, np.float32).reshape(-1, width),
        "forged": np.array(forged, np.float32).reshape(-1, width),
        "source": np.array(source, np.int64),
        "method": np.array(method, dtype="U32"),
        "labels": np.array(labels, np.int8).reshape(-1, len(LABELS)),
    }
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    partial.replace(target)


def _clips_of(part: Part) -> Iterable[list[Clip]]:
    """The clips of each file as it is, without its re-encoded copies."""
    clips = part.archive.clips
    original = clips.index[clips["copy"] == 0]
    by_file = clips.loc[original].groupby("file").groups
    for row in part.rows.tolist():
        yield [part.archive.load(int(clip)) for clip in by_file.get(row, [])]


def _forgeries(config: TrainConfig, part: Part) -> Iterable[tuple[int, str, Clip, tuple[int, int, int]]]:
    """`fusion.forged` forgeries of the first clip of every real file: (row in the archive, method, clip, labels)."""
    archive, clips = part.archive, part.archive.clips
    first = clips.index[(clips["copy"] == 0) & (clips["clip"] == 0)]
    clip_of = dict(zip(clips.loc[first, "file"].tolist(), first.tolist(), strict=True))
    rows = [r for r in part.rows[part.table["fake"].eq(0).fillna(False).to_numpy(bool)].tolist() if r in clip_of]
    if not config.fusion.forged:
        return
    groups = archive.files["group"].iloc[rows].to_numpy(object)
    for place, row in enumerate(track(rows, "forge")):
        clip = archive.load(clip_of[row])
        for number in range(config.fusion.forged):
            rng = np.random.default_rng((config.seed, 5, row, number))
            donor = _donor(rows, groups, place, rng)
            other = archive.load(clip_of[rows[donor]]) if donor is not None else None
            # Face, voice and match in turn, so that a small set has all three.
            kinds = [[m for m in kind if usable(clip, m, other)] for kind in (VISUAL, AUDIO, AUDIOVISUAL)]
            kinds = [methods for methods in kinds if methods]
            if kinds:
                methods = kinds[(place + number) % len(kinds)]
                forged = forge_clip(clip, methods[int(rng.integers(len(methods)))], rng, archive.config.faces, other)
                yield row, forged.method, forged.clip, (forged.fake, forged.video_fake, forged.audio_fake)


def _donor(rows: list[int], groups: np.ndarray, place: int, rng: np.random.Generator) -> int | None:
    """The place in `rows` of another file: half of the time of the same person, where there is one."""
    same = groups == groups[place]
    same[place] = False
    stranger = groups != groups[place]
    for kind in (same, stranger) if rng.random() < 0.5 else (stranger, same):
        if kind.any():
            return int(rng.choice(np.flatnonzero(kind)))
    return None


def _forged_table(part: Part, arrays: Any) -> pd.DataFrame:
    """Rows of the forgeries: their sources', with their own labels."""
    table = part.archive.files.iloc[arrays["source"]].copy()
    table["path"] = [f"{path}#{m}{i}" for i, (path, m) in enumerate(zip(table["path"], arrays["method"], strict=True))]
    table["method"] = arrays["method"]
    known = ~part.archive.files[list(LABELS)].iloc[arrays["source"]].isna().to_numpy()
    for column, name in enumerate(LABELS):
        # A part that the source lacks (speech has no picture) stays unknown, unless it was what was forged.
        labels = arrays["labels"][:, column].astype(object)
        labels[~known[:, column] & (arrays["labels"][:, column] == 0)] = pd.NA
        table[name] = pd.array(labels, dtype="Int8")
    return table


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
    dev = stream_features(model, parts["dev"], settings)
    calibration, tried, chosen_on = _clipped(best, dev, parts["dev"])
    model.cpu().save(run / "model.safetensors")
    metrics = {"dev": _measure(model, calibration, parts["dev"], dev)}
    if len(parts["test"].rows):
        metrics["test"] = _measure(model, calibration, parts["test"], stream_features(model, parts["test"], settings))
    result = {
        "config": to_dict(dataclasses.replace(config, model=final)),
        "calibration": to_dict(calibration),
        "fusion": {
            "kind": best.kind,
            "calibrated_by": best.calibrated_by,
            "oof_log_loss": {
                c.kind: dict(zip(LABELS, np.round(c.log_loss, 5).tolist(), strict=True)) for c in candidates
            },
            "clip_chosen_on": chosen_on,
            "log_loss_by_clip": {str(clip): round(loss, 5) for clip, loss in tried.items()},
        },
        "manifest_digest": digest(parts["train"].table),
        "rows": {name: len(part.rows) for name, part in parts.items()},
        "metrics": metrics,
    }
    partial = run / "result.partial.json"
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(run / "result.json")


def _clipped(best: FittedFusion, dev: Float, part: Part) -> tuple[Calibration, dict[float, float], str]:
    """The calibration with its clip, chosen on dev; where dev holds real media only, on the forgeries out of fold."""
    labels = label_matrix(part.table)
    if len(np.unique(labels[labels[:, 0] >= 0, 0])) == 2:
        return *choose_clip(best.calibration, logits_of(best.fusion, dev), labels), "dev"
    return *choose_clip(best.calibration, best.oof_logits, best.oof_labels), "forgeries, out of fold"


def stream_features(model: Model, part: Part, settings: Settings) -> Float:
    """(N, F) fusion features of the part's files, in its order."""
    scorer = StreamScorer(TorchNetworks(model, settings.fabric.device), model.config)
    clips = track(_clips_of(part), "score", len(part.rows))
    features = np.stack([score_clips(scorer, c).features() for c in clips])
    model.cpu()
    return features


def _measure(model: Model, calibration: Calibration, part: Part, features: Float) -> dict[str, Any]:
    table = part.table.reset_index(drop=True)
    probabilities = calibration.probabilities(logits_of(model.fusion, features))
    return evaluate(table, label_matrix(table), features, probabilities, calibration.threshold)


def export(run: Path, out: Path, name: str | None = None, licence: str | None = None) -> tuple[Bundle, dict[str, Any]]:
    """Write the bundle of a finished run to `out`; also returns result.json. `name` and `licence` override the
    configuration's. Raises ModelError for an unfinished run."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{run} holds no finished run ({error}): let tools/train.py end first") from error
    config = from_dict(TrainConfig, result["config"], "result.json")
    model = Model.load(config.model, run / "model.safetensors")
    preprocessor = Preprocessor(config.preprocess, build_detector(config.preprocess.detector), MediaLimits())
    summaries = {name: metrics["summary"] for name, metrics in result["metrics"].items()}
    bundle = export_bundle(
        model,
        out,
        name=name or config.name,
        licence=licence or config.licence,
        preprocess=config.preprocess,
        calibration=from_dict(Calibration, result["calibration"], "result.json"),
        training={k: result[k] for k in ("manifest_digest", "rows", "config", "fusion")} | summaries,
        sample=preprocessor.clips(SAMPLE),
    )
    return bundle, result
