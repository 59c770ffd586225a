"""Training of the streams, and their outputs on files they were not trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchaudio
from lightning.fabric import Fabric
from torch import Tensor, nn

from avdetect.config import PairLoopConfig, TrainConfig
from avdetect.errors import ManifestError
from avdetect.model import Model
from avdetect.pooling import STREAMS
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.streams.audio import AudioStream
from avdetect.streams.speech import Mels
from avdetect.streams.whisper import WhisperEncoder
from avdetect.training.batches import AudioBatches, VisualBatches
from avdetect.training.lipsync import SyncBatches
from avdetect.training.loop import Batch, Batches, LossOf, fit
from avdetect.training.losses import alignment, contrastive_sync, masked_bce, uniformity
from avdetect.training.probe import ProbeSet, fit_head, probe_set
from avdetect.training.sampling import Subset
from avdetect.types import Clip, Float

DEV_BATCHES = 8  # the dev log loss of a stream is that of so many batches, balanced like those of training


@dataclass(frozen=True)
class Stage:
    """What the loop needs for one stream."""

    module: nn.Module
    batches: Batches
    loss: Callable[[float], LossOf]  # label smoothing -> loss


def trained(config: TrainConfig) -> list[str]:
    """The streams with steps, in the order of training."""
    return [name for name in STREAMS if getattr(config, name).steps]


def frozen(config: TrainConfig, name: str) -> bool:
    """Whether the stream's encoder keeps its weights: its head is then fitted on features of each fold."""
    return getattr(getattr(config.model, name), "frozen", False)


def check_streams(config: TrainConfig, held: Sequence[Subset], seen: Sequence[Subset], dev: Subset) -> None:
    """Make the first batch of every stream, so that what is wrong with data or settings shows before hours of training.

    held: the files of each fold; seen: those that streams are trained on. Raises ManifestError for data that lacks a
    class, ConfigError for settings that cannot be followed.
    """
    for name in trained(config):
        for subset in held if frozen(config, name) else seen:
            try:
                batches_of(name, config, subset)(0, 0, 1)
            except ManifestError as error:
                raise ManifestError(f"{name}: {error}. With {name}.steps: 0 it is left out") from error
        if getattr(config, name).evaluate_every:
            _dev_batches(name, config, dev)(0, 0, 1)


def train_streams(
    config: TrainConfig,
    subset: Subset,
    dev: Subset,
    run: Path,
    fabric: Fabric,
    workers: int,
    probes: Mapping[str, Sequence[ProbeSet]],
) -> Model:
    """Train the streams on `subset`; checkpoints and logs go to `run`. No fusion yet.

    `dev` only chooses the best weights, where the configuration evaluates. probes: see probe_sets; of them only what is
    of `subset`'s files is used. Raises like check_streams.
    """
    torch.manual_seed(config.seed)
    model = Model(config.model)
    for name in trained(config):
        loop = getattr(config, name)
        if name in probes:
            mine = ProbeSet.of(probes[name], subset)
            setattr(model, name, fit_head(getattr(model, name), mine, loop, config.seed))
            continue
        stage = make_stage(name, model, config, subset)
        module = fit(
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
        if isinstance(module, VoiceModel):
            model.speech, model.audio = module.speech, module.audio
        else:
            setattr(model, name, module)
    return model.cpu().eval()


def probe_sets(
    config: TrainConfig, folds: Sequence[Subset], run: Path, fabric: Fabric, workers: int
) -> dict[str, list[ProbeSet]]:
    """For each stream with a frozen encoder: the features that heads are fitted on, of each fold."""
    sets: dict[str, list[ProbeSet]] = {}
    for name in trained(config):
        if not frozen(config, name):
            continue
        torch.manual_seed(config.seed)
        module = _module(name, Model(config.model))
        sets[name] = [
            probe_set(
                module,
                batches_of(name, config, subset),
                subset,
                getattr(config, name),
                fabric=fabric,
                workers=workers,
                seed=config.seed,
                path=run / f"fold{k}" / f"{name}.probe",
                name=f"fold{k} {name}",
            )
            for k, subset in enumerate(folds)
        ]
    return sets


def batches_of(name: str, config: TrainConfig, subset: Subset, augment: bool = True) -> Batches:
    """The batches of one stream. Raises ManifestError where the data lacks a class."""
    if name == "visual":
        return VisualBatches(subset, config.visual, config.seed, augment)
    if name == "audio":
        return AudioBatches(subset, config.model.audio, config.audio, config.seed, augment)
    return SyncBatches(subset, config.model, config.sync, config.seed, augment)


def make_stage(name: str, model: Model, config: TrainConfig, subset: Subset) -> Stage:
    """Module, batches and loss of one stream. Raises ManifestError where the data lacks a class."""
    losses: dict[str, Callable[[float], LossOf]] = {
        "visual": lambda smoothing: visual_loss(smoothing, config.visual),
        "audio": lambda smoothing: _audio_loss(smoothing, config.audio.items),
        "sync": lambda _: _sync_loss(model.speech),
    }
    return Stage(_module(name, model), batches_of(name, config, subset), losses[name])


def _module(name: str, model: Model) -> nn.Module:
    return VoiceModel(model.speech, model.audio) if name == "audio" else getattr(model, name)


def _dev_batches(name: str, config: TrainConfig, dev: Subset) -> Batches:
    """Without augmentation; on dev's own fakes, or where it has none that can be used, on forgeries of its reals."""
    loop = getattr(config, name)
    loops = [loop]
    if isinstance(loop, PairLoopConfig):
        loops = [replace(loop, forged=forged) for forged in (0.0, 1.0)]
    for tried in loops:
        try:
            return batches_of(name, replace(config, **{name: tried}), dev, augment=False)
        except ManifestError as error:
            last = error
    raise ManifestError(f"dev: {last}; set {name}.evaluate_every: 0 to keep the last weights instead")


def _evaluation(name: str, stage: Stage, config: TrainConfig, dev: Subset) -> Callable[[nn.Module], float]:
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


def visual_loss(smoothing: float, config: PairLoopConfig) -> LossOf:
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


def _audio_loss(smoothing: float, items: int) -> LossOf:
    def loss(module: nn.Module, batch: Batch) -> Tensor:
        mels = spec_augment(batch["mels"], items) if module.training else batch["mels"]
        return masked_bce(module(mels), batch["labels"], smoothing)

    return loss


def spec_augment(mels: Tensor, items: int) -> Tensor:
    """(B, T, N_MELS), a mask of bands and one of time for each `items` windows in turn (a fake, its original and the
    reals beside them), filled with the mean.

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


def _sync_loss(speech: nn.Module) -> LossOf:
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

    def features(self, mels: Tensor, stretches: Tensor | None = None) -> Tensor:
        """mels (N, T, N_MELS) -> (N, F): what the head sees, before it is standardised. stretches (N, 2): of each
        window only the log-mel frames [first, end) count."""
        frames = self.speech(mels)
        if stretches is None:
            return self.audio.encoder(frames)
        steps = stretches * frames.shape[1] // mels.shape[1]
        parts = zip(frames, steps.tolist(), strict=True)
        return torch.cat([self.audio.encoder(own[None, first:end]) for own, (first, end) in parts])


class TorchNetworks:
    """A Model's streams behind `scoring.Networks`, for scoring while training."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        model.to(device).eval()
        self.visual = partial(self._run, model.visual)
        self.speech = partial(self._run, model.speech)
        self.audio = partial(self._run, model.audio)
        self.mouth = partial(self._run, model.sync.mouth)
        self.voice = partial(self._run, model.sync.voice)

    def _run(self, module: nn.Module, array: np.ndarray) -> Float:
        with torch.inference_mode():
            rows = [torch.from_numpy(array[i : i + 128]).to(self.device) for i in range(0, len(array), 128)]
            return np.concatenate([module(some).cpu().numpy() for some in rows])


def score_clips(scorer: StreamScorer, clips: Sequence[Clip]) -> StreamOutputs:
    """The stream outputs of one file, through the same code as the Detector's."""
    outputs = scorer.start()
    for clip in clips:
        scorer.add(outputs, clip)
    return scorer.finish(outputs, {})
