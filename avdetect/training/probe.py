"""A linear probe: the head on a frozen encoder, fitted to its optimum instead of trained step by step.

The features of `steps` augmented batches are computed once and the head is the logistic regression on them. Such probes
of encoders that never saw a forgery carry over to unseen generators where a fine-tuned network remembers the sources it
was trained on (Ojha, Li & Lee, "Towards Universal Fake Image Detectors that Generalize Across Generative Models",
CVPR 2023).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from rich.progress import track
from torch import Tensor

from avdetect.config import LoopConfig, to_dict
from avdetect.errors import ModelError
from avdetect.streams.visual import VisualStream
from avdetect.training.checkpoint import ADVICE, read_checkpoint, write_checkpoint
from avdetect.training.loop import FREE, Batches, prepared
from avdetect.training.losses import masked_bce

ITERATIONS = 200  # of L-BFGS; the loss then moves in its fifth digit


def fit_probe(
    module: VisualStream,
    batches: Batches,
    config: LoopConfig,
    *,
    fabric: Fabric,
    seed: int,
    checkpoint: Path,
    name: str,
    workers: int = 1,
) -> VisualStream:
    """Standardise the features of the frozen encoder in `module` and fit its head; returns it on the CPU in eval mode.

    `steps` batches of "crops" and "labels" are drawn; `weight_decay` is the penalty on half the squared norm of the
    head's weights beside a mean loss. A run that is killed before its end begins again, which takes minutes; a finished
    one is read from `checkpoint`. Every rank computes its part of the features and returns the same weights.

    Raises ModelError for features that are not finite and for a checkpoint that is damaged or of another run.
    """
    identity = {"seed": seed, "probe": True, **{k: v for k, v in to_dict(config).items() if k not in FREE}}
    if checkpoint.exists():
        _load(module, read_checkpoint(checkpoint, identity)["module"], checkpoint)
        return module.cpu().eval()
    module = module.to(fabric.device).eval()
    parts = prepared(batches, fabric, config, 0, workers)
    features, labels = [], []
    with torch.inference_mode():
        for _ in track(range(config.steps * config.accumulate), name, disable=not fabric.is_global_zero):
            batch = next(parts)
            features.append(module.features(batch["crops"].to(fabric.device)).cpu())
            labels.append(batch["labels"])
    x, y = (_gathered(torch.cat(values), fabric) for values in (features, labels))
    if not torch.isfinite(x).all():
        raise ModelError(f"{name}: the encoder's features are not finite; check the weights it starts with")
    module = module.cpu()
    _fit(module, x, y, config)
    if fabric.is_global_zero:
        write_checkpoint(checkpoint, identity, {"module": module.state_dict()})
    fabric.barrier()
    return module.eval()


def _fit(module: VisualStream, features: Tensor, labels: Tensor, config: LoopConfig) -> None:
    """Set the standardisation and the head of `module`; features (N, F), labels (N,)."""
    standard = cast(torch.nn.BatchNorm1d, module.standard)
    with torch.no_grad():
        cast(Tensor, standard.running_mean).copy_(features.mean(0))
        cast(Tensor, standard.running_var).copy_(features.var(0, unbiased=False))
        x = standard(features)
        module.head.weight.zero_()
        module.head.bias.zero_()
    optimizer = torch.optim.LBFGS(
        module.head.parameters(), max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = masked_bce(module.head(x).squeeze(1), labels, config.label_smoothing)
        loss = loss + config.weight_decay / 2 * module.head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _gathered(values: Tensor, fabric: Fabric) -> Tensor:
    """The values of all ranks, one rank's behind the other's."""
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_gather(values.to(fabric.device))).flatten(0, 1).cpu()


def _load(module: VisualStream, state: dict[str, Any], checkpoint: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{checkpoint} is of another network; {ADVICE}") from error
