"""A linear probe: the head on a frozen encoder, fitted to its optimum instead of trained step by step.

The features of augmented batches are computed once and the head is the logistic regression on them. Such probes
of encoders that never saw a forgery carry over to unseen generators where a fine-tuned network remembers the sources it
was trained on (Ojha, Li & Lee, "Towards Universal Fake Image Detectors that Generalize Across Generative Models",
CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.progress import track
from torch import Tensor

from avdetect.config import LoopConfig, PairLoopConfig, to_dict
from avdetect.errors import ModelError
from avdetect.streams.visual import VisualStream
from avdetect.training.batches import Reconstruct, VisualBatches
from avdetect.training.checkpoint import read_checkpoint, write_checkpoint
from avdetect.training.loop import FREE, prepared
from avdetect.training.losses import masked_bce
from avdetect.training.pools import Part

ITERATIONS = 200  # of L-BFGS; the loss then moves in its fifth digit


@dataclass(frozen=True)
class ProbeSet:
    """Features of augmented crops and of forgeries: all that a head is fitted on."""

    features: Tensor  # (N, F) float32, not standardised
    labels: Tensor  # (N,)
    files: np.ndarray  # (N,) row of the archive's file that each crop, or what it was forged of, is from

    @staticmethod
    def of(sets: Sequence[ProbeSet], part: Part) -> ProbeSet:
        """What belongs to the files of `part`."""
        inside = [np.isin(one.files, part.rows) for one in sets]
        features = torch.cat([one.features[keep] for one, keep in zip(sets, inside, strict=True)])
        labels = torch.cat([one.labels[keep] for one, keep in zip(sets, inside, strict=True)])
        return ProbeSet(features, labels, np.concatenate([one.files[k] for one, k in zip(sets, inside, strict=True)]))


def probe_set(
    module: VisualStream,
    part: Part,
    config: PairLoopConfig,
    *,
    fabric: Fabric,
    seed: int,
    path: Path,
    name: str,
    workers: int = 1,
    reconstruct: Reconstruct | None = None,
) -> ProbeSet:
    """The features of `steps` batches of `part`, in `path` when they are there. Every rank computes its share.

    The encoder is frozen, so what is drawn of one fold serves all runs that may see that fold; a forgery takes only
    from files of its own fold. A run that is killed before the end begins this again, which takes minutes. Raises
    ModelError for features that are not finite and for a file that is damaged or of another run.
    """
    identity = {"seed": seed, **{k: v for k, v in to_dict(config).items() if k not in FREE}}
    if not path.exists():
        module = module.to(fabric.device).eval()
        parts = prepared(VisualBatches(part, config, seed, reconstruct=reconstruct), fabric, config, 0, workers)
        made: dict[str, list[Tensor]] = {"features": [], "labels": [], "clips": []}
        with torch.inference_mode():
            for _ in track(range(config.steps * config.accumulate), name, disable=not fabric.is_global_zero):
                batch = next(parts)
                made["features"].append(module.features(batch["crops"].to(fabric.device)).half().cpu())
                for key in ("labels", "clips"):
                    made[key].append(batch[key])
        module.cpu()
        state = {key: _gathered(torch.cat(values), fabric) for key, values in made.items()}
        if not torch.isfinite(state["features"]).all():
            raise ModelError(f"{name}: the encoder's features are not finite; check the weights it starts with")
        if fabric.is_global_zero:
            write_checkpoint(path, identity, state)
        fabric.barrier()
    state = read_checkpoint(path, identity)
    files = part.archive.clips["file"].to_numpy()[state["clips"].numpy()]
    return ProbeSet(state["features"].float(), state["labels"], files)


def fit_head(module: VisualStream, probe: ProbeSet, config: PairLoopConfig) -> VisualStream:
    """Standardise the features and fit the head of `module`, in eval mode, to its optimum.

    `weight_decay` is the penalty on half the squared norm of the head's weights beside a mean loss.
    """
    _fit(module.cpu().eval(), probe.features, probe.labels, config)
    return module


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
