"""Train the three streams and the fusion, and export a bundle.

    python tools/train.py --manifest my.csv --config configs/default.yaml --run runs/mine --out my_bundle

With --corpus FOLDER instead of --manifest the data is a folder with clips.csv, speech.csv and stills.csv.

Stops and starts again where it was: preprocessed files, stream checkpoints and out-of-fold outputs live under --run.
Rows whose split is "train" are trained on; rows whose split is "dev" are only measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from avdetect.bundle import Calibration
from avdetect.config import MediaLimits, TrainConfig, load_yaml, to_dict
from avdetect.datasets import manifest
from avdetect.datasets.cache import build_cache, cache_path, load_clips
from avdetect.datasets.corpus import corpus_manifest
from avdetect.errors import AVDetectError, ConfigError, ManifestError
from avdetect.evaluation.metrics import evaluate
from avdetect.export import export_bundle
from avdetect.faces import build_detector
from avdetect.model import Model
from avdetect.preprocess import Preprocessor
from avdetect.training.fusion import fit_and_calibrate, label_matrix, logits_of
from avdetect.training.streams import score_streams, train_streams
from avdetect.types import Clip, Float

SAMPLE = Path(__file__).parents[1] / "avdetect" / "weights" / "sample" / "sample.mp4"


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments().parse_args(argv)
    try:
        run(args)
    except AVDetectError as error:
        print(f"train: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--corpus", type=Path, help="folder with clips.csv, speech.csv and stills.csv")
    data.add_argument("--manifest", type=Path, help="CSV or Parquet with the columns of avdetect.datasets.manifest")
    parser.add_argument("--config", type=Path, required=True, help="YAML of differences from the defaults")
    parser.add_argument("--run", type=Path, required=True, help="working folder: cache, checkpoints, logs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported bundle")
    parser.add_argument("--pretrained", type=Path, help="safetensors of the encoder; overrides model.visual.pretrained")
    return parser


def run(args: argparse.Namespace) -> None:
    """All steps, each skipped where its result is there already."""
    config = load_yaml(TrainConfig, args.config)
    initial = _with_pretrained(config, args.pretrained)
    table = corpus_manifest(args.corpus) if args.corpus else manifest.read_manifest(args.manifest)
    preprocessor = Preprocessor(config.preprocess, build_detector(config.preprocess.detector), MediaLimits())
    table, clips = _preprocess(table, args.run / "cache", preprocessor)
    is_train = (table["split"] == "train").to_numpy()
    if is_train.all() or not is_train.any():
        raise ManifestError(f"the manifest needs rows of both splits: {is_train.sum()} train, {(~is_train).sum()} dev")
    _claim(args.run, manifest.digest(table), initial)
    train, dev = _part(table, clips, is_train), _part(table, clips, ~is_train)
    oof = _out_of_fold(initial, *train, args.run)
    fitted = fit_and_calibrate(train[0], oof, config.model.fusion, config.fusion, config.seed)
    model = train_streams(initial, *train, args.run / "final")
    model.fusion = fitted.fusion
    metrics = _measure(model, fitted.calibration, *dev)
    model.save(args.run / "model.safetensors")
    (args.run / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    digest = manifest.digest(table[is_train])
    export_bundle(
        model,
        args.out,
        name=config.name,
        licence=config.licence,
        preprocess=config.preprocess,
        calibration=fitted.calibration,
        training={
            "manifest_digest": digest,
            "rows": {k: int(v) for k, v in table["split"].value_counts().items()},
            "config": to_dict(config),
            "dev": metrics["summary"],
        },
        sample=preprocessor.clips(SAMPLE),
    )
    print(pd.DataFrame(metrics["rows"]).to_string(index=False, float_format="%.3f", na_rep=""))
    print(f"bundle: {args.out}")


def _claim(run: Path, digest: str, config: TrainConfig) -> None:
    """Bind the working folder to this data and configuration: what lies in it must not be taken for another run's."""
    mine = {"manifest_digest": digest, "config": to_dict(config)}
    stated = run / "run.json"
    if not stated.exists():
        stated.write_text(json.dumps(mine, indent=1) + "\n")
    elif json.loads(stated.read_text()) != mine:
        raise ConfigError(f"{run} holds a run with other data or another configuration; name a new folder as --run")


def _with_pretrained(config: TrainConfig, path: Path | None) -> TrainConfig:
    """The start of the encoder is no property of the trained model, so it stays out of the bundle's config."""
    if path is None:
        return config
    visual = replace(config.model.visual, pretrained=str(path))
    return replace(config, model=replace(config.model, visual=visual))


def _preprocess(table: pd.DataFrame, cache: Path, preprocessor: Preprocessor) -> tuple[pd.DataFrame, list[list[Clip]]]:
    failures = build_cache(list(table["path"]), cache, preprocessor, lambda paths: track(paths, "preprocess"))
    for path, message in failures.items():
        print(f"left out: {path}: {message}", file=sys.stderr)
    table = table[~table["path"].isin(failures)].reset_index(drop=True)
    if table.empty:
        raise ManifestError("no file of the manifest could be read")
    return table, [load_clips(cache_path(cache, path, preprocessor.config)) for path in track(table["path"], "load")]


def _part(table: pd.DataFrame, clips: list[list[Clip]], keep: np.ndarray) -> tuple[pd.DataFrame, list[list[Clip]]]:
    return table[keep].reset_index(drop=True), [clips[i] for i in np.flatnonzero(keep)]


def _out_of_fold(config: TrainConfig, table: pd.DataFrame, clips: list[list[Clip]], run: Path) -> Float:
    """(N, F) fusion features of every row, from streams that did not see its group."""
    fold = manifest.fold_of(table["group"], config.folds).to_numpy()
    features: list[Float | None] = [None] * len(table)
    for k in range(config.folds):
        stored = run / f"fold{k}" / "features.npy"
        held = np.flatnonzero(fold == k)
        if not stored.exists():
            model = train_streams(config, *_part(table, clips, fold != k), run / f"fold{k}")
            outputs = score_streams(model, [clips[i] for i in held])
            np.save(stored, np.stack([o.features() for o in outputs]))
        for i, row in zip(held, np.load(stored, allow_pickle=False), strict=True):
            features[i] = row
    return np.stack([f for f in features if f is not None])


def _measure(model: Model, calibration: Calibration, table: pd.DataFrame, clips: list[list[Clip]]) -> dict:
    outputs = score_streams(model, clips)
    features = np.stack([o.features() for o in outputs])
    probabilities = calibration.probabilities(logits_of(model.fusion, features))
    return evaluate(table, label_matrix(table), features, probabilities, calibration.threshold)


if __name__ == "__main__":
    sys.exit(main())
