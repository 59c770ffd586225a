"""Audio stream: frames of the speech encoder (avdetect.streams.speech) -> one logit a window, or a stretch of it.

`cnn`, trained from scratch: a small residual CNN over (mel, time), then attentive statistics pooling over time (Okabe
et al., Interspeech 2018): the weighted mean and standard deviation keep the few frames that give a vocoder away.
`whisper-tiny.en`: statistics over time of each level of the encoder.
"""

import torch
from torch import Tensor, nn

from avdetect.audio import N_MELS
from avdetect.config import AudioConfig
from avdetect.streams.head import PerceptronHead, Standard
from avdetect.streams.speech import frame_shape


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


class MelEncoder(nn.Module):
    """The CNN: log-mels as frames (N, T, 1, N_MELS) -> (N, 2 embedding)."""

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
        self.width = 2 * config.embedding

    def forward(self, frames: Tensor) -> Tensor:
        """Each window's mean is removed, so that loudness says nothing."""
        mels = frames.squeeze(2)
        x = (mels - mels.mean(dim=(1, 2), keepdim=True)) / 4.0
        x = self.blocks(x.transpose(1, 2).unsqueeze(1))  # (N, C, bands, T')
        return self.pool(self.squeeze(x.flatten(1, 2)))  # (N, E, T') -> (N, 2 E)


class OverTime(nn.Module):
    """Frames (N, T, L, C) -> (N, 3 L C), level by level: of each channel its mean, its standard deviation, and that of
    its change from one frame to the next, in which a vocoder's too even or too rough course shows."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.width = 3 * levels * channels

    def forward(self, frames: Tensor) -> Tensor:
        change = frames[:, 1:] - frames[:, :-1]
        return torch.stack([frames.mean(1), _deviation(frames), _deviation(change)], dim=2).flatten(1)


def _deviation(x: Tensor) -> Tensor:
    """(N, T, L, C) -> (N, L, C): standard deviation over time."""
    return (x.square().mean(1) - x.mean(1).square()).clamp_min(1e-5).sqrt()


class AudioStream(nn.Module):
    """Frames of windows -> window logits. Pooling over windows is `avdetect.pooling`, shared with the Detector."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.encoder: MelEncoder | OverTime
        self.encoder = MelEncoder(config) if config.encoder == "cnn" else OverTime(*frame_shape(config))
        self.blocks = [self.encoder.width]
        self.standard = Standard(self.encoder.width) if config.encoder != "cnn" else nn.Identity()
        self.dropout = nn.Dropout(0.0 if config.hidden else config.dropout)
        self.head: nn.Module = nn.Linear(self.encoder.width, 1)
        if config.hidden:
            self.head = PerceptronHead(self.encoder.width, config.hidden, config.heads, config.dropout)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (N, T, L, C) -> logits (N,)."""
        return self.head(self.dropout(self.standard(self.encoder(frames)))).squeeze(1)
