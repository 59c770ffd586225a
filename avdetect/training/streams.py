"""Training of the streams, and their outputs on files they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchaudio
from torch import Tensor, nn

from avdetect.config import TrainConfig
from avdetect.model import Model
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.training.batches import AudioBatches, SyncBatches, VisualBatches
from avdetect.training.loop import Batch, fit
from avdetect.training.losses import contrastive_sync, masked_bce
from avdetect.types import Clip, Float, UInt8

Clips = Sequence[Sequence[Clip]]


def train_streams(config: TrainConfig, table: pd.DataFrame, clips: Clips, run: Path) -> Model:
    """Train the three streams on `table` (row i = clips[i]); checkpoints and logs go to `run`. No fusion yet."""
    torch.manual_seed(config.seed)
    model = Model(config.model)
    model.visual = _fit(
        config,
        "visual",
        model.visual,
        VisualBatches(table, clips, config.preprocess.faces, config.visual, config.seed),
        _visual_loss(config),
        run,
    )
    model.audio = _fit(
        config,
        "audio",
        model.audio,
        AudioBatches(table, clips, config.model.audio, config.audio, config.seed),
        _audio_loss(config),
        run,
    )
    model.sync = _fit(config, "sync", model.sync, SyncBatches(table, clips, config.sync, config.seed), _sync_loss, run)
    return model


def _fit(config: TrainConfig, name: str, module: nn.Module, batches: Callable[[int], Batch], loss_of, run: Path):
    loop = getattr(config, name)
    return fit(
        module, batches, loss_of, loop, seed=config.seed, checkpoint=run / f"{name}.ckpt", name=f"{run.name} {name}"
    )


def _visual_loss(config: TrainConfig):
    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return masked_bce(module(batch["crops"]), batch["labels"], config.visual.label_smoothing)

    return loss


def _audio_loss(config: TrainConfig):
    mask_bands = torchaudio.transforms.FrequencyMasking(16, iid_masks=True)  # SpecAugment (Park et al., 2019)
    mask_times = torchaudio.transforms.TimeMasking(40, iid_masks=True)

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        mels = batch["mels"]
        centred = (mels - mels.mean((1, 2), keepdim=True)).transpose(1, 2).unsqueeze(1)  # masked with the mean
        masked = mask_times(mask_bands(centred)).squeeze(1).transpose(1, 2)
        return masked_bce(module(masked), batch["labels"], config.audio.label_smoothing)

    return loss


def _sync_loss(module: nn.Module, batch: Batch) -> Tensor:
    mouth, voice = module(batch["mouths"], batch["mels"])
    return contrastive_sync(mouth, voice, SyncBatches.windows_per_clip)


class TorchNetworks:
    """A Model's streams behind `scoring.Networks`, for scoring while training."""

    def __init__(self, model: Model) -> None:
        self.model = model.eval()

    def _run(self, module: nn.Module, array: np.ndarray) -> Float:
        with torch.inference_mode():
            return np.concatenate([module(torch.from_numpy(part)).numpy() for part in _parts(array)])

    def visual(self, crops: UInt8) -> Float:
        return self._run(self.model.visual, crops)

    def audio(self, mels: Float) -> Float:
        return self._run(self.model.audio, mels)

    def mouth(self, mouths: UInt8) -> Float:
        return self._run(self.model.sync.mouth, mouths)

    def voice(self, mels: Float) -> Float:
        return self._run(self.model.sync.voice, mels)


def _parts(array: np.ndarray, size: int = 128) -> list[np.ndarray]:
    return [array[i : i + size] for i in range(0, len(array), size)]


def score_streams(model: Model, clips: Clips) -> list[StreamOutputs]:
    """The stream outputs of every file, through the same code as the Detector's."""
    scorer = StreamScorer(TorchNetworks(model), model.config.audio, model.config.sync)
    results = []
    for file in clips:
        outputs = StreamOutputs()
        for clip in file:
            scorer.add(outputs, clip)
        results.append(scorer.finish(outputs, {}))
    return results
