"""Audio stream: one logit a log-mel window.

A small residual CNN over (mel, time), then attentive statistics pooling over time (Okabe et al., Interspeech 2018):
the weighted mean and standard deviation keep the few frames that give a vocoder away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.audio import N_MELS
from avdetect.config import AudioConfig


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a projected shortcut; halves the mel axis and, by `stride`, the time axis."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class AttentiveStatisticsPooling(nn.Module):
    """(N, C, T) -> (N, 2 C): attention-weighted mean and standard deviation over time."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.attention(x), dim=2)
        mean = (weights * x).sum(2)
        variance = (weights * x.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=1)


class AudioStream(nn.Module):
    """Log-mel windows -> window logits."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        blocks, width, bands = [], 1, N_MELS
        for index, channels in enumerate(config.channels):
            blocks.append(ResidualBlock(width, channels, (2, 1 if index == 0 else 2)))
            width, bands = channels, (bands + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.squeeze = nn.Sequential(
            nn.Conv1d(width * bands, config.embedding, 1), nn.BatchNorm1d(config.embedding), nn.ReLU()
        )
        self.pool = AttentiveStatisticsPooling(config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * config.embedding, 1)

    def forward(self, mels: Tensor) -> Tensor:
        """mels (N, T, N_MELS) -> logits (N,). Each window's mean is removed, so that loudness says nothing."""
        x = (mels - mels.mean(dim=(1, 2), keepdim=True)) / 4.0
        x = self.blocks(x.transpose(1, 2).unsqueeze(1))  # (N, C, bands, T')
        x = self.squeeze(x.flatten(1, 2))  # (N, E, T')
        return self.head(self.dropout(self.pool(x))).squeeze(1)
