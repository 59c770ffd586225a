"""Sync stream: two towers that map 0.2 s of mouth and 0.2 s of voice to comparable unit vectors.

After SyncNet (Chung & Zisserman, "Out of time", ACCV workshop 2016): five mouth frames against 20 log-mel frames.
Window i covers video frames i..i+4. The distance curve over offsets is `avdetect.pooling.sync_distances`.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import normalize

from avdetect.audio import N_MELS
from avdetect.config import SyncConfig
from avdetect.errors import ConfigError
from avdetect.scoring import SYNC_FRAMES, SYNC_MELS

BLOCKS = 4


def _block(channels_in: int, channels_out: int, stride: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class MouthTower(nn.Module):
    """(N, 5, M, M) luma 0..255 -> (N, E) unit vectors."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        first, *rest = config.channels
        self.stem = nn.Sequential(nn.Conv2d(SYNC_FRAMES, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.blocks = nn.Sequential(*[_block(a, b, 2) for a, b in pairwise([first, *rest])])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * rest[-1], config.embedding))

    def forward(self, mouths: Tensor) -> Tensor:
        x = mouths.float()
        x = x - x.mean(dim=(1, 2, 3), keepdim=True)  # lighting says nothing about speech
        return normalize(self.head(self.blocks(self.stem(x / 64.0))), dim=1)


class VoiceTower(nn.Module):
    """(N, 20, N_MELS) log-mel -> (N, E) unit vectors."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        first, *rest = config.channels
        strides = [(2, 1), (2, 2), (2, 2)]
        layers = [_block(1, first, (2, 1))]
        for (a, b), stride in zip(pairwise([first, *rest]), strides, strict=True):
            layers.append(_block(a, b, stride))
        self.blocks = nn.Sequential(*layers)
        bands, steps = N_MELS // 16, SYNC_MELS // 4
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(bands * steps * rest[-1], config.embedding))

    def forward(self, mels: Tensor) -> Tensor:
        x = (mels - mels.mean(dim=(1, 2), keepdim=True)) / 4.0
        return normalize(self.head(self.blocks(x.transpose(1, 2).unsqueeze(1))), dim=1)


class SyncStream(nn.Module):
    """Both towers."""

    def __init__(self, config: SyncConfig) -> None:
        """Raises ConfigError unless there are four blocks: the towers' heads are made for what four leave."""
        super().__init__()
        if len(config.channels) != BLOCKS:
            raise ConfigError(f"sync.channels: the towers have {BLOCKS} blocks, got {len(config.channels)} widths")
        self.mouth = MouthTower(config)
        self.voice = VoiceTower(config)

    def forward(self, mouths: Tensor, mels: Tensor) -> tuple[Tensor, Tensor]:
        return self.mouth(mouths), self.voice(mels)
