"""Training of the streams, and their outputs on files they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torchaudio
from lightning.fabric import Fabric
from torch import Tensor, nn

from avdetect.config import LoopConfig, PairLoopConfig, TrainConfig
from avdetect.errors import ManifestError
from avdetect.model import Model
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.streams.audio import AudioStream
from avdetect.streams.speech import Mels
from avdetect.streams.visual import VisualStream
from avdetect.streams.whisper import WhisperEncoder
from avdetect.training.autoencoders import Autoencoders, fit_autoencoders
from avdetect.training.batches import AudioBatches, Reconstruct, VisualBatches
from avdetect.training.joint import JointBatches, JointModel, clip_only, joint_loss
from avdetect.training.lipsync import SyncBatches
from avdetect.training.loop import Batch, Batches, fit
from avdetect.training.losses import alignment, contrastive_sync, masked_bce, uniformity
from avdetect.training.pools import Part
from avdetect.training.probe import ProbeSet, fit_head, probe_set
from avdetect.types import Clip, Float, UInt8

STREAMS = ("visual", "audio", "sync", "joint")  # in the order of training
DEV_BATCHES = 8  # the dev log loss of a stream is that of so many batches, balanced like those of training
Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Stage:
    """What the loop needs for one stream."""

    module: nn.Module
    batches: Batches
    loss: Callable[[float], Loss]  # label smoothing -> loss


def active(config: TrainConfig, part: Part) -> list[str]:
    """The stages that are trained on `part`: those with steps; the joint one where clips have only their own label."""
    names = [name for name in STREAMS if getattr(config, name).steps]
    return [name for name in names if name != "joint" or clip_only(part)[part.rows].any()]


def check_streams(config: TrainConfig, held: Sequence[Part], seen: Sequence[Part], dev: Part) -> None:
    """Make the first batch of every stage, so that what is wrong with data or settings shows before hours of training.

    held: the files of each fold; seen: those that streams are trained on. Raises ManifestError for data that lacks a
    class, ConfigError for settings that cannot be followed.
    """
    for part in seen:
        _check(config, part, [name for name in active(config, part) if name not in _probed(config)], dev)
    for part in held:
        _check(config, part, _probed(config), dev)


def _probed(config: TrainConfig) -> list[str]:
    """The streams whose encoder is frozen: their heads are fitted, on features of each fold."""
    frozen = {"visual": config.model.visual.frozen, "audio": config.model.audio.frozen}
    return [name for name, is_frozen in frozen.items() if is_frozen and getattr(config, name).steps]


def _check(config: TrainConfig, part: Part, names: Sequence[str], dev: Part) -> None:
    for name in names:
        try:
            batches_of(name, config, part)(0, 0, 1)
        except ManifestError as error:
            raise ManifestError(f"{name}: {error}. With {name}.steps: 0 it is left out") from error
        if getattr(config, name).evaluate_every:
            _dev_batches(name, config, dev)(0, 0, 1)


def train_streams(
    config: TrainConfig,
    part: Part,
    dev: Part,
    run: Path,
    fabric: Fabric,
    workers: int = 1,
    probes: Mapping[str, Sequence[ProbeSet]] | None = None,
) -> Model:
    """Train the streams on `part`; checkpoints and logs go to `run`. No fusion yet.

    `dev` only chooses the best weights, where the configuration evaluates. probes: see probe_sets; of them only what is
    of `part`'s files is used. Raises like check_streams.
    """
    torch.manual_seed(config.seed)
    model = Model(config.model)
    for name in active(config, part):
        loop: LoopConfig = getattr(config, name)
        if probes and name in probes:
            probe = ProbeSet.of(probes[name], part)
            setattr(model, name, fit_head(getattr(model, name), probe, getattr(config, name), config.seed))
            continue
        stage = make_stage(
            name, model, config, part, _reconstruct(config, part, run, fabric) if name == "visual" else None
        )
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
            evaluate=_evaluation(name, stage, config, dev) if loop.evaluate_every else None,
        )
        if isinstance(trained, JointModel):
            model.visual = cast(VisualStream, trained.visual)
            model.audio = cast(AudioStream, trained.audio)
        elif isinstance(trained, VoiceModel):
            model.speech, model.audio = trained.speech, trained.audio
        else:
            setattr(model, name, trained)
    return model.cpu().eval()


def probe_sets(
    config: TrainConfig, parts: Sequence[Part], run: Path, fabric: Fabric, workers: int = 1
) -> dict[str, list[ProbeSet]]:
    """For each stream with a frozen encoder: the features that heads are fitted on, of each part."""
    sets: dict[str, list[ProbeSet]] = {}
    for name in _probed(config):
        torch.manual_seed(config.seed)
        model = Model(config.model)
        sets[name] = [
            probe_set(
                model.visual if name == "visual" else VoiceModel(model.speech, model.audio),
                batches_of(
                    name,
                    config,
                    part,
                    reconstruct=_reconstruct(config, part, run / f"fold{k}", fabric) if name == "visual" else None,
                ),
                part,
                getattr(config, name),
                fabric=fabric,
                workers=workers,
                seed=config.seed,
                path=run / f"fold{k}" / f"{name}.probe",
                name=f"fold{k} {name}",
            )
            for k, part in enumerate(parts)
        ]
    return sets


def _reconstruct(config: TrainConfig, part: Part, folder: Path, fabric: Fabric) -> Autoencoders | None:
    """The autoencoders that make `visual.reconstructed`, trained on the real faces of `part` only."""
    if not config.visual.reconstructed:
        return None
    real = VisualBatches(part, config.visual, config.seed, augment=False)
    return fit_autoencoders(
        real.real_crop,
        config.visual,
        fabric=fabric,
        seed=config.seed,
        path=folder / "autoencoders.ckpt",
        name=f"{folder.name} autoencoder",
    )


def batches_of(
    name: str, config: TrainConfig, part: Part, augment: bool = True, reconstruct: Reconstruct | None = None
) -> Batches:
    """The batches of stage `name` (of STREAMS). reconstruct: see VisualBatches."""
    seed = config.seed
    if name == "visual":
        return VisualBatches(part, config.visual, seed, augment, reconstruct)
    if name == "audio":
        return AudioBatches(part, config.model.audio, config.audio, seed, augment)
    if name == "sync":
        return SyncBatches(part, config.model, config.sync, seed, augment)
    return JointBatches(part, config.model, config.joint, seed, augment, match=config.sync.steps > 0)


def make_stage(
    name: str, model: Model, config: TrainConfig, part: Part, reconstruct: Reconstruct | None = None
) -> Stage:
    """Network, batches and loss of stage `name` (of STREAMS). reconstruct: see VisualBatches."""
    batches = batches_of(name, config, part, reconstruct=reconstruct)
    if name == "visual":
        return Stage(model.visual, batches, lambda smoothing: visual_loss(smoothing, config.visual))
    if name == "audio":
        module = VoiceModel(model.speech, model.audio)
        return Stage(module, batches, lambda smoothing: _audio_loss(smoothing, config.audio.items))
    if name == "sync":
        return Stage(model.sync, batches, lambda _: _sync_loss(model.speech))
    return Stage(
        JointModel(model.visual, model.speech, model.audio, model.sync),
        batches,
        lambda smoothing: lambda module, batch: joint_loss(module, batch, smoothing),
    )


def _dev_batches(name: str, config: TrainConfig, dev: Part) -> Batches:
    """Without augmentation; on dev's own fakes, or where it has none that can be used, on forgeries of its reals."""
    if name in ("visual", "audio"):
        for forged in (0.0, 1.0):
            loop = replace(getattr(config, name), forged=forged)
            try:
                return batches_of(name, replace(config, **{name: loop}), dev, augment=False)
            except ManifestError as error:
                last = error
        raise ManifestError(f"dev: {last}; set {name}.evaluate_every: 0 to keep the last weights instead")
    try:
        return batches_of(name, config, dev, augment=False)
    except ManifestError as error:
        raise ManifestError(f"dev: {error}; set {name}.evaluate_every: 0 to keep the last weights instead") from error


def _evaluation(name: str, stage: Stage, config: TrainConfig, dev: Part) -> Callable[[nn.Module], float]:
    """The log loss on the first DEV_BATCHES batches of dev, made when it is first asked for."""
    batches: list[Batch] = []
    loss_of = stage.loss(0.0)

    def evaluate(module: nn.Module) -> float:
        if not batches:
            source = _dev_batches(name, config, dev)
            batches.extend(source(step, 0, 1) for step in range(DEV_BATCHES))
        device = next(module.parameters()).device
        with torch.inference_mode():
            on_device = ({k: v.to(device) for k, v in batch.items()} for batch in batches)
            return float(np.mean([loss_of(module, batch).item() for batch in on_device]))

    return evaluate


def visual_loss(smoothing: float, config: PairLoopConfig) -> Loss:
    """The labels' cross-entropy, and while training what `config` adds: it teaches, the log loss alone is measured."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits, features = module(batch["crops"], with_features=True)
        total = masked_bce(logits, batch["labels"], smoothing)
        if module.training and config.alignment:
            total = total + config.alignment * alignment(features, batch["labels"])
        if module.training and config.uniformity:
            total = total + config.uniformity * uniformity(features)
        return total

    return loss


def _audio_loss(smoothing: float, items: int) -> Loss:
    """`items`: a fake, its original and the reals beside them are masked alike."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        mels = batch["mels"]
        if module.training:
            mels = spec_augment(mels, items)
        return masked_bce(module(mels), batch["labels"], smoothing)

    return loss


def spec_augment(mels: Tensor, items: int) -> Tensor:
    """(B, T, N_MELS), a mask of bands and one of time for each `items` windows in turn, filled with the mean.

    SpecAugment (Park et al., 2019) with torchaudio's masks, which know one axis pair: the items of a group stand side
    by side on the axis that is not masked.
    """
    groups, (frames, bands) = len(mels) // items, mels.shape[1:]
    centred = (mels - mels.mean((1, 2), keepdim=True)).view(groups, items, frames, bands)
    wide = centred.permute(0, 3, 1, 2).reshape(groups, 1, bands, items * frames)
    wide = torchaudio.transforms.FrequencyMasking(16, iid_masks=True)(wide)
    tall = wide.view(groups, bands, items, frames).reshape(groups, 1, bands * items, frames)
    tall = torchaudio.transforms.TimeMasking(40, iid_masks=True)(tall)
    return tall.view(groups, bands, items, frames).permute(0, 2, 3, 1).reshape(len(mels), frames, bands)


def _sync_loss(speech: nn.Module) -> Loss:
    """speech: the encoder, which stands still and is no part of the module that learns."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            frames = speech.to(batch["mels"].device).eval()(batch["mels"])
        mouth, voice = module(batch["mouths"], frames)
        return contrastive_sync(mouth, voice, batch["there"], batch["voiced"])

    return loss


class VoiceModel(nn.Module):
    """The voice from its log-mels on, as it is trained: the speech encoder and the audio stream."""

    def __init__(self, speech: Mels | WhisperEncoder, audio: AudioStream) -> None:
        super().__init__()
        self.speech, self.audio = speech, audio

    def forward(self, mels: Tensor) -> Tensor:
        """mels (N, T, N_MELS) -> logits (N,)."""
        return self.audio(self.speech(mels))

    def features(self, mels: Tensor) -> Tensor:
        """mels (N, T, N_MELS) -> (N, F): what the head sees, before it is standardised."""
        return self.audio.encoder(self.speech(mels))


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

    def speech(self, mels: Float) -> Float:
        return self._run(self.model.speech, mels)

    def audio(self, frames: Float) -> Float:
        return self._run(self.model.audio, frames)

    def mouth(self, mouths: UInt8) -> Float:
        return self._run(self.model.sync.mouth, mouths)

    def voice(self, frames: Float) -> Float:
        return self._run(self.model.sync.voice, frames)


def score_clips(scorer: StreamScorer, clips: Sequence[Clip]) -> StreamOutputs:
    """The stream outputs of one file, through the same code as the Detector's."""
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, clip)
    return scorer.finish(outputs, {})
