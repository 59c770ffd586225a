"""What a finished run leaves behind: the weights, and in result.json all else that an export needs."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric
from safetensors.torch import save as to_safetensors
from sklearn.metrics import roc_auc_score

from avdetect.bundle import OUT_OF_FOLD, Bundle, Calibration
from avdetect.config import MediaLimits, TrainConfig, from_dict, to_dict
from avdetect.datasets.manifest import digest
from avdetect.errors import ConfigError, ModelError
from avdetect.evaluation.tables import as_result, measurements, with_outputs
from avdetect.export import export_bundle
from avdetect.faces import FaceDetector, build_detector
from avdetect.files import write_json, write_whole
from avdetect.fusion import OUTPUTS
from avdetect.model import Model
from avdetect.pooling import NUM_VALUES, PART_OF
from avdetect.preprocess import Preprocessor
from avdetect.training.calibration import choose_clip, with_rates
from avdetect.training.fusion import FittedFusion, fit_candidates, label_matrix, logits_of
from avdetect.training.out_of_fold import out_of_fold, write
from avdetect.training.outputs import FoldOutputs, stream_features
from avdetect.training.sampling import Subset
from avdetect.types import Float

SAMPLE = Path(__file__).parents[1] / "weights" / "sample" / "sample.mp4"
TABLES = ("output", "stream", "kind", "source")  # that are measured while training; avdetect evaluate measures all


def finish(
    config: TrainConfig, model: Model, splits: dict[str, Subset], outputs: FoldOutputs, run: Path, fabric: Fabric
) -> None:
    """Fit the fusion on the folds' outputs, choose the clip, measure, and store the run.

    model: the final streams; it gets the fusion. splits: "train" being all that was trained on.
    """
    candidates = fit_candidates(
        outputs.table, outputs.features, config.model, config.fusion, config.seed, config.fold_by
    )
    dev = None if config.release else stream_features(model, splits["dev"], fabric)
    best, chosen = _clipped(candidates[0], dev, splits["dev"].table)
    model.fusion = best.fusion
    scores = out_of_fold(config, outputs, best)
    write(scores, run / OUT_OF_FOLD)
    metrics = {"out of fold": as_result(measurements(scores, best.calibration.fake_threshold, tables=TABLES))}
    if dev is not None:
        metrics["dev"] = _measure(best, splits["dev"].table, dev)
    if len(splits["test"].rows):
        metrics["test"] = _measure(best, splits["test"].table, stream_features(model, splits["test"], fabric))
    facts = {
        "detector_fingerprint": splits["train"].archive.fingerprint,
        "manifest_digest": digest(splits["train"].table),
        "rows": {name: len(subset.rows) for name, subset in splits.items()},
        "fusion": {
            "kind": best.kind,
            "calibrated_by": best.calibrated_by,
            "silent": best.config.silent,
            "oof_log_loss": {one.kind: _measured(one.log_loss) for one in candidates},
            "oof_auc": _measured(_aucs(best)),
            **chosen,
        },
        "metrics": metrics,
    }
    _store(config, model, best, facts, run)


def _clipped(best: FittedFusion, dev: Float | None, table: pd.DataFrame) -> tuple[FittedFusion, dict[str, Any]]:
    """With the clip of its probabilities, chosen on dev; in a release, and where dev lacks a class, out of fold. And
    with the rates that were measured out of fold under it."""
    chosen_on, logits, labels = "train, out of fold", best.oof_logits, best.oof_labels
    weights: Float | None = best.oof_weights[:, 0]
    if dev is not None:
        judged = dev[:, NUM_VALUES:].any(axis=1)  # the Detector abstains on the others
        found = label_matrix(table)[judged]
        if len(np.unique(found[found[:, 0] >= 0, 0])) == 2:
            chosen_on, logits, labels, weights = "dev", logits_of(best.fusion, dev[judged]), found, None
    calibration, tried = choose_clip(best.calibration, logits, labels, weights)
    calibration = with_rates(calibration, best.oof_logits, best.oof_labels, best.scored_weights)
    losses = {str(clip): round(loss, 5) for clip, loss in tried.items()}
    return dataclasses.replace(best, calibration=calibration), {"clip_chosen_on": chosen_on, "log_loss_by_clip": losses}


def _measure(best: FittedFusion, table: pd.DataFrame, features: Float) -> dict[str, Any]:
    probabilities = best.calibration.probabilities(logits_of(best.fusion, features))
    scores = with_outputs(table.reset_index(drop=True), features, probabilities, best.config.silent)
    return as_result(measurements(scores, best.calibration.fake_threshold, tables=TABLES))


def _measured(values: Sequence[float]) -> dict[str, float]:
    """By output, without what was not measured."""
    return {name: round(value, 5) for name, value in zip(OUTPUTS, values, strict=True) if np.isfinite(value)}


def _aucs(best: FittedFusion) -> list[float]:
    """Balanced ROC AUC of each output out of fold, of files and forgeries; only these know of voices exchanged."""
    found = []
    for p, y, w in zip(best.oof_probabilities.T, best.oof_labels.T, best.oof_weights.T, strict=True):
        known = (y >= 0) & (w > 0)
        both = len(np.unique(y[known])) == 2
        found.append(float(roc_auc_score(y[known], p[known], sample_weight=w[known])) if both else float("nan"))
    return found


def _store(config: TrainConfig, model: Model, best: FittedFusion, facts: dict[str, Any], run: Path) -> None:
    """Write model.safetensors and then result.json, which vouches for it."""
    # Where an encoder's start lay on this machine is no property of the trained model.
    visual = dataclasses.replace(config.model.visual, pretrained=bool(config.model.visual.pretrained))
    audio = dataclasses.replace(config.model.audio, pretrained=None)
    trained = dataclasses.replace(config.model, visual=visual, audio=audio, fusion=best.config)
    config = dataclasses.replace(config, model=trained)
    result = {"config": to_dict(config), "calibration": to_dict(best.calibration), **facts}
    weights = {key: value.contiguous() for key, value in model.cpu().state_dict().items()}
    (run / "result.json").unlink(missing_ok=True)
    write_whole(run / "model.safetensors", to_safetensors(weights), sync=True)
    write_json(run / "result.json", result)


def export(
    run: Path,
    out: Path,
    name: str | None = None,
    licence: str | None = None,
    detector_model: Path | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Write the bundle of a finished run to `out`; also returns result.json. `name` and `licence` override the
    configuration's; detector_model: weights of the face detector where they are not in their default place. Raises
    ModelError for an unfinished run, ConfigError for another face detector than the one trained with."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{run} holds no finished run ({error}): let avdetect train end first") from error
    config = from_dict(TrainConfig, result["config"], "result.json", stored=True)
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
        limits=config.limits,
        preprocess=config.preprocess,
        calibration=from_dict(Calibration, result["calibration"], "result.json"),
        training={key: result[key] for key in stated} | summaries,
        sample=preprocessor.clips(SAMPLE),
        out_of_fold=(run / OUT_OF_FOLD).read_bytes() if (run / OUT_OF_FOLD).exists() else None,
    )
    return bundle, result


def in_words(result: dict[str, Any]) -> str:
    """A finished run's result.json for the terminal: a table a split, and what became of the fusion."""
    lines = []
    for split, metrics in result["metrics"].items():
        rows = pd.DataFrame(metrics["rows"]).to_string(index=False, float_format="%.3f", na_rep="")
        lines.append(f"\n{split}:\n{rows if metrics['rows'] else 'only one class: nothing to measure'}")
    fusion = result["fusion"]
    losses = ", ".join(f"{kind} {loss['fake']:.3f}" for kind, loss in fusion["oof_log_loss"].items())
    lines.append(
        f"\nfusion: {fusion['kind']} (out-of-fold log loss: {losses}), calibrated by {fusion['calibrated_by']}"
    )
    for stream in fusion["silent"]:
        lines.append(f"the {stream} stream carries no information about {PART_OF[stream]}: it abstains")
    return "\n".join(lines)


def check_detector(config: TrainConfig, fingerprint: str, model: Path | None) -> FaceDetector:
    """The face detector that the clips were cut with. Raises ModelError without its weights, ConfigError for others."""
    detector = build_detector(config.preprocess.detector, path=model)
    if detector.fingerprint != fingerprint:
        raise ConfigError(
            f"the clips were cut with {detector.name} of fingerprint {fingerprint}, this one has "
            f"{detector.fingerprint}: name its weights with --detector-model"
        )
    return detector
