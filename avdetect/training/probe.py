"""A probe: the head on a frozen encoder, fitted on features instead of trained step by step through the encoder.

The features of augmented batches are computed once and the head is a logistic regression, or a few small perceptrons,
on them. Such probes of encoders that never saw a forgery carry over to unseen generators where a fine-tuned network
remembers the sources it was trained on (Ojha, Li & Lee, "Towards Universal Fake Image Detectors that Generalize Across
Generative Models", CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.progress import track
from torch import Tensor, nn

from avdetect.config import PairLoopConfig
from avdetect.errors import ModelError
from avdetect.streams.head import Standard
from avdetect.training.checkpoint import read_checkpoint, write_checkpoint
from avdetect.training.loop import Batches, identity, prepared
from avdetect.training.losses import masked_bce
from avdetect.training.sampling import Subset

Module = TypeVar("Module", bound=nn.Module)
ITERATIONS = 100  # of L-BFGS; more move no AUC in its third digit
CPU_ROWS = 4  # given to the encoder at once: on a CPU few stay in the cache
PASSES, FIT_BATCH, FIT_RATE = 20, 256, 2e-3  # of the perceptrons


class Encoding(Protocol):
    """What is in front of a head, frozen."""

    def features(self, *inputs: Tensor) -> Tensor:
        """What its batches hold beside labels and clips -> (N, F), not standardised."""


class Headed(Protocol):
    """A stream whose encoder is frozen: the visual and the audio one."""

    standard: Standard
    head: nn.Module
    blocks: list[int]  # widths of parts of the features; each gets a linear head of its own, the logit is their mean


@dataclass(frozen=True)
class ProbeSet:
    """Features of augmented items and of forgeries: all that a head is fitted on."""

    features: Tensor  # (N, F) float32, not standardised
    labels: Tensor  # (N,)
    files: np.ndarray  # (N,) row of the archive's file that each item, or what it was forged of, is from
    sources: np.ndarray  # (N,) names of the sources (datasets) of these files

    @staticmethod
    def of(sets: Sequence[ProbeSet], subset: Subset) -> ProbeSet:
        """What belongs to the files of `subset`."""
        chosen = [(one, np.isin(one.files, subset.rows)) for one in sets]
        return ProbeSet(
            torch.cat([one.features[keep] for one, keep in chosen]),
            torch.cat([one.labels[keep] for one, keep in chosen]),
            np.concatenate([one.files[keep] for one, keep in chosen]),
            np.concatenate([one.sources[keep] for one, keep in chosen]),
        )


def probe_set(
    module: nn.Module,
    batches: Batches,
    subset: Subset,
    config: PairLoopConfig,
    *,
    fabric: Fabric,
    seed: int,
    path: Path,
    name: str,
    workers: int = 1,
) -> ProbeSet:
    """The features of `steps` batches of `subset`, in `path` when they are there. Every rank computes its share.

    module: see Encoding. batches: of its inputs, in their order; with "labels" (B,) and "clips" (B,).

    The encoder is frozen, so what is drawn of one fold serves all runs that may see that fold; a forgery takes only
    from files of its own fold. A run that is killed before the end begins this again, which takes minutes. Raises
    ModelError for features that are not finite and for a file that is damaged or of another run.
    """
    if not path.exists():
        module = module.to(fabric.device).eval()
        parts = prepared(batches, fabric, config, 0, workers)
        made: dict[str, list[Tensor]] = {"features": [], "labels": [], "clips": []}
        with torch.inference_mode():
            for _ in track(range(config.steps * config.accumulate), name, disable=not fabric.is_global_zero):
                batch = next(parts)
                for key in ("labels", "clips"):
                    made[key].append(batch[key])
                rows = CPU_ROWS if fabric.device.type == "cpu" else len(batch["labels"])
                inputs = [v.to(fabric.device).split(rows) for key, v in batch.items() if key not in made]
                made["features"] += [
                    cast(Encoding, module).features(*few).half().cpu() for few in zip(*inputs, strict=True)
                ]
        module.cpu()
        state = {key: _gathered(torch.cat(values), fabric) for key, values in made.items()}
        if not torch.isfinite(state["features"]).all():
            raise ModelError(f"{name}: the encoder's features are not finite; check the weights it starts with")
        if fabric.is_global_zero:
            write_checkpoint(path, identity(config, seed), state)
        fabric.barrier()
    state = read_checkpoint(path, identity(config, seed))
    files = subset.archive.clips["file"].to_numpy()[state["clips"].numpy()]
    sources = subset.archive.files["dataset"].to_numpy(object)[files]
    return ProbeSet(state["features"].float(), state["labels"], files, sources)


def _gathered(values: Tensor, fabric: Fabric) -> Tensor:
    """The values of all ranks, one rank's behind the other's."""
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_gather(values.to(fabric.device))).flatten(0, 1).cpu()


def fit_head(module: Module, probe: ProbeSet, config: PairLoopConfig, seed: int = 0) -> Module:
    """Standardise the features and fit the head of `module` (see Headed), in eval mode.

    A linear head goes to its optimum, with `weight_decay` as the penalty on half the squared norm of its weights beside
    a mean loss, and with `source_biases` beside a bias for each source (see _fit_linear); perceptrons take PASSES of
    AdamW with that weight decay, from starts and orders that `seed` decides.
    """
    headed = cast(Headed, module.cpu().eval())
    with torch.no_grad():
        cast(Tensor, headed.standard.running_mean).copy_(probe.features.mean(0))
        cast(Tensor, headed.standard.running_var).copy_(probe.features.var(0, unbiased=False))
        x = headed.standard(probe.features)
    if isinstance(headed.head, nn.Linear):
        source = torch.from_numpy(np.unique(probe.sources, return_inverse=True)[1])
        _fit_blocks(headed.head, headed.blocks, x, probe.labels, source, config)
    else:
        _fit_perceptrons(cast(nn.ModuleList, headed.head.members), x, probe.labels, config, seed)
    return module


def _fit_blocks(
    head: nn.Linear, blocks: list[int], x: Tensor, labels: Tensor, source: Tensor, config: PairLoopConfig
) -> None:
    """A linear head for each block of the features, and in `head` their mean: fitted together, views of one crop
    generalise less well than the mean of what each has learned by itself (avdetect/weights/README.md)."""
    with torch.no_grad():
        head.bias.zero_()
    for seen, weight in zip(x.split(blocks, 1), head.weight.split(blocks, 1), strict=True):
        one = nn.Linear(seen.shape[1], 1)
        _fit_linear(one, seen, labels, source, config)
        with torch.no_grad():
            weight.copy_(one.weight / len(blocks))
            head.bias.add_(one.bias / len(blocks))


def _fit_linear(head: nn.Linear, x: Tensor, labels: Tensor, source: Tensor, config: PairLoopConfig) -> None:
    """To the one optimum, from zero. source (N,): number of each row's source.

    With `source_biases` every source has a bias of its own, held back by that penalty and forgotten after the fit: how
    sources differ as wholes (cameras, codecs, all fake or all real) is explained by it, so that the head learns what
    tells fakes from reals of one source. A mixed model with random intercepts (Laird & Ware, "Random-Effects Models for
    Longitudinal Data", Biometrics 1982), penalised as ridge regression is.
    """
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    biases = nn.Parameter(torch.zeros(int(source.max()) + 1))
    learned = [*head.parameters(), *([biases] if config.source_biases else [])]
    optimizer = torch.optim.LBFGS(learned, max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = masked_bce(head(x).squeeze(1) + biases[source], labels, config.label_smoothing)
        loss = loss + config.weight_decay / 2 * head.weight.square().sum()
        loss = loss + config.source_biases / 2 * biases.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _fit_perceptrons(members: nn.ModuleList, x: Tensor, labels: Tensor, config: PairLoopConfig, seed: int) -> None:
    """A few passes of AdamW, at a rate that falls to 0; each member by itself, so that they stay different."""
    passes = [torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + k)) for k in range(PASSES)]
    batches = [rows for order in passes for rows in order.split(FIT_BATCH)]
    for index, member in enumerate(members):
        torch.manual_seed(seed + 1000 * index)  # of the start and of dropout
        for layer in member.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        optimizer = torch.optim.AdamW(member.parameters(), lr=FIT_RATE, weight_decay=config.weight_decay)
        member.train()
        for step, rows in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = FIT_RATE * (1 - step / len(batches))
            optimizer.zero_grad()
            masked_bce(member(x[rows]).squeeze(1), labels[rows], config.label_smoothing).backward()
            optimizer.step()
        member.eval()
