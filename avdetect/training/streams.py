"""Training of the streams, and their outputs on files they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torchaudio
from lightning.fabric import Fabric
from torch import Tensor, nn

from avdetect.config import LoopConfig, TrainConfig
from avdetect.errors import ManifestError
from avdetect.model import Model
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.streams.audio import AudioStream
from avdetect.streams.visual import VisualStream
from avdetect.training.batches import AudioBatches, SyncBatches, VisualBatches
from avdetect.training.joint import JointBatches, JointModel, clip_only, joint_loss
from avdetect.training.loop import Batch, Batches, fit
from avdetect.training.losses import contrastive_sync, masked_bce
from avdetect.training.pools import Part
from avdetect.types import Clip, Float, UInt8

STREAMS = ("visual", "audio", "sync", "joint")  # in the order of training
DEV_BATCHES = 8  # the dev log loss of a stream is that of so many batches, balanced like those of training
Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Stage:
    """What the loop needs for one stream."""

    module: nn.Module
    batches: Batches
    dev: Callable[[], Batches]  # made when it is needed
    loss: Callable[[float], Loss]  # label smoothing -> loss


def train_streams(config: TrainConfig, part: Part, dev: Part, run: Path, fabric: Fabric, workers: int = 1) -> Model:
    """Train the streams on `part`; checkpoints and logs go to `run`. No fusion yet.

    `dev` only chooses the best weights, where the configuration evaluates. Raises ManifestError for data that lacks a
    class, ConfigError for batches that cannot be shared.
    """
    torch.manual_seed(config.seed)
    model = Model(config.model)
    for name in STREAMS:
        loop: LoopConfig = getattr(config, name)
        if not loop.steps or (name == "joint" and not clip_only(part)[part.rows].any()):
            continue
        stage = make_stage(name, model, config, part, dev)
        trained = fit(
            stage.module,
            stage.batches,
            stage.loss(loop.label_smoothing),
            loop,
            fabric=fabric,
            workers=workers,
            seed=config.seed,
            checkpoint=run / f"{name}.ckpt",
            name=f"{run.name} {name}",
            evaluate=_evaluation(stage, config.seed) if loop.evaluate_every else None,
        )
        if isinstance(trained, JointModel):
            model.visual = cast(VisualStream, trained.visual)
            model.audio = cast(AudioStream, trained.audio)
        else:
            setattr(model, name, trained)
    return model.cpu().eval()


def make_stage(name: str, model: Model, config: TrainConfig, part: Part, dev: Part) -> Stage:
    seed = config.seed
    if name == "visual":
        plain = _for_dev(config.visual, dev, "video_fake")
        return Stage(
            model.visual,
            VisualBatches(part, config.visual, seed),
            lambda: VisualBatches(dev, plain, seed, augment=False),
            lambda smoothing: lambda module, batch: masked_bce(module(batch["crops"]), batch["labels"], smoothing),
        )
    if name == "audio":
        audio, plain = config.model.audio, _for_dev(config.audio, dev, "audio_fake")
        return Stage(
            model.audio,
            AudioBatches(part, audio, config.audio, seed),
            lambda: AudioBatches(dev, audio, plain, seed, augment=False),
            _audio_loss,
        )
    if name == "sync":
        return Stage(
            model.sync,
            SyncBatches(part, config.sync, seed),
            lambda: SyncBatches(dev, config.sync, seed, augment=False),
            lambda _: _sync_loss,
        )
    audio = config.model.audio
    return Stage(
        JointModel(model.visual, model.audio, model.sync),
        JointBatches(part, audio, config.joint, seed),
        lambda: JointBatches(dev, audio, config.joint, seed, augment=False),
        lambda smoothing: lambda module, batch: joint_loss(module, batch, smoothing),
    )


def _for_dev(config, dev: Part, label: str):
    """Dev is measured on its own fakes; where it has none, on forgeries of its reals."""
    has_fakes = (dev.label(label, config.clip_labels)[dev.rows] == 1).any()
    return replace(config, forged=0.0 if has_fakes else 1.0)


def _evaluation(stage: Stage, seed: int) -> Callable[[nn.Module], float]:
    try:
        source = stage.dev()
        batches = [source(step, 0, 1) for step in range(DEV_BATCHES)]
    except ManifestError as error:
        raise ManifestError(f"dev: {error}; set evaluate_every: 0 to keep the last weights instead") from error
    loss_of = stage.loss(0.0)

    def evaluate(module: nn.Module) -> float:
        device = next(module.parameters()).device
        with torch.inference_mode():
            on_device = ({k: v.to(device) for k, v in batch.items()} for batch in batches)
            return float(np.mean([loss_of(module, batch).item() for batch in on_device]))

    return evaluate


def _audio_loss(smoothing: float) -> Loss:
    mask_bands = torchaudio.transforms.FrequencyMasking(16, iid_masks=True)  # SpecAugment (Park et al., 2019)
    mask_times = torchaudio.transforms.TimeMasking(40, iid_masks=True)

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        mels = batch["mels"]
        if module.training:
            centred = (mels - mels.mean((1, 2), keepdim=True)).transpose(1, 2).unsqueeze(1)  # masked with the mean
            mels = mask_times(mask_bands(centred)).squeeze(1).transpose(1, 2)
        return masked_bce(module(mels), batch["labels"], smoothing)

    return loss


def _sync_loss(module: nn.Module, batch: Batch) -> Tensor:
    mouth, voice = module(batch["mouths"], batch["mels"])
    return contrastive_sync(mouth, voice, SyncBatches.windows_per_clip, batch["voiced"])


class TorchNetworks:
    """A Model's streams behind `scoring.Networks`, for scoring while training."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model.to(device).eval(), torch.device(device)

    def _run(self, module: nn.Module, array: np.ndarray) -> Float:
        with torch.inference_mode():
            parts = [array[i : i + 128] for i in range(0, len(array), 128)]
            return np.concatenate([module(torch.from_numpy(p).to(self.device)).cpu().numpy() for p in parts])

    def visual(self, crops: UInt8) -> Float:
        return self._run(self.model.visual, crops)

    def audio(self, mels: Float) -> Float:
        return self._run(self.model.audio, mels)

    def mouth(self, mouths: UInt8) -> Float:
        return self._run(self.model.sync.mouth, mouths)

    def voice(self, mels: Float) -> Float:
        return self._run(self.model.sync.voice, mels)


def score_clips(scorer: StreamScorer, clips: Sequence[Clip]) -> StreamOutputs:
    """The stream outputs of one file, through the same code as the Detector's."""
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, clip)
    return scorer.finish(outputs, {})
