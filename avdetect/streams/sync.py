"""Sync stream: two towers that give mouth and voice of one video frame comparable unit vectors, 25 a second.

After SyncNet (Chung & Zisserman, "Out of time", ACCV workshop 2016), whose voice tower learned from scratch; here it
reads the frames of the speech encoder (avdetect.streams.speech), which knows what is said. The distance curve over
offsets is `avdetect.pooling.sync_distances`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from avdetect.config import AudioConfig, SyncConfig
from avdetect.streams.speech import frame_shape

WIDTH = 256  # of what stands between a tower's two halves
STEM_FRAMES = 5  # that the mouth tower's first convolution sees
GRID = 4  # places across the picture of a mouth that stay apart


class MouthTower(nn.Module):
    """(N, T, M, M) luma 0..255 -> (N, T - R + 1, E) unit vectors, R = `mouth_frames`; output j is centred on frame
    j + R // 2. Nothing is padded in time: an output has seen real frames only."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        first = config.channels[0]
        self.stem = nn.Sequential(
            nn.Conv3d(1, first, STEM_FRAMES, (1, 2, 2), (0, 2, 2), bias=False), nn.BatchNorm3d(first), nn.ReLU()
        )
        blocks = nn.Sequential(*[_block(a, b) for a, b in pairwise(config.channels)])
        # On a CPU these blocks then learn in two thirds of the time; torch's stubs lack the argument.
        self.blocks = blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.project = nn.Linear(GRID * GRID * config.channels[-1], WIDTH)
        left = config.mouth_frames - STEM_FRAMES + 1  # frames of the second half
        kernel = (left - 1) // 2 + 1
        self.time = nn.Sequential(
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, kernel, bias=False),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Conv1d(WIDTH, config.embedding, left - kernel + 1),
        )

    def forward(self, mouths: Tensor) -> Tensor:
        x = mouths.float()
        x = (x - x.mean(dim=(2, 3), keepdim=True)) / 64.0  # lighting says nothing about speech
        x = self.stem(x.unsqueeze(1)).transpose(1, 2)  # (N, T', C, M / 2, M / 2)
        seen = self.project(_on_grid(self.blocks(x.flatten(0, 1))).flatten(1))  # (N T', WIDTH)
        return _unit(self.time(seen.reshape(x.shape[0], -1, WIDTH).transpose(1, 2)))


class VoiceTower(nn.Module):
    """Frames (N, T, L, C) of the speech encoder -> (N, T25, E) unit vectors, one a video frame."""

    def __init__(self, config: SyncConfig, audio: AudioConfig) -> None:
        super().__init__()
        levels, channels = frame_shape(audio)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(levels))
        self.project = nn.Sequential(nn.Dropout(0.1), nn.Linear(levels * channels, WIDTH))
        front = _mixed(4, 2, 1) if audio.encoder == "cnn" else ()  # 100 log-mels a second instead of 50 frames
        self.time = nn.Sequential(
            nn.GELU(),
            *front,
            *_mixed(5, 1, 2),
            *_mixed(4, 2, 1),
            *_mixed(5, 1, 2),
            nn.Conv1d(WIDTH, config.embedding, 1),
        )

    def forward(self, frames: Tensor) -> Tensor:
        levels = [norm(frames[:, :, level]) for level, norm in enumerate(self.norms)]
        return _unit(self.time(self.project(torch.cat(levels, dim=2)).transpose(1, 2)))


class SyncStream(nn.Module):
    """Both towers."""

    def __init__(self, config: SyncConfig, audio: AudioConfig) -> None:
        super().__init__()
        self.mouth = MouthTower(config)
        self.voice = VoiceTower(config, audio)

    def forward(self, mouths: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.mouth(mouths), self.voice(frames)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Half the side: (N, channels_in, S, S) -> (N, channels_out, S / 2, S / 2)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, 1, 1, groups=channels_out, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def _on_grid(maps: Tensor) -> Tensor:
    """(N, C, S, S) -> (N, C, GRID, GRID) by adaptive average pooling, written so that the exporter takes any side."""
    side = int(maps.shape[2])  # int: a constant when exported
    if side == GRID:
        return maps
    cells = [range(i * side // GRID, -(-(i + 1) * side // GRID)) for i in range(GRID)]
    shares = torch.tensor([[(place in cell) / len(cell) for place in range(side)] for cell in cells]).to(maps)
    return shares @ maps @ shares.T


def _mixed(kernel: int, stride: int, padding: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(WIDTH, WIDTH, kernel, stride, padding, bias=False), nn.BatchNorm1d(WIDTH), nn.GELU()


def _unit(x: Tensor) -> Tensor:
    """(N, E, T) -> (N, T, E), each of length 1."""
    return normalize(x.transpose(1, 2), dim=2)
