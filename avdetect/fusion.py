"""Late fusion: stream outputs and an availability mask -> logits of fake, video_fake and audio_fake.

Any subset of streams may be missing. Sync enters with four two-sided quantities: a wholly generated head is in perfect
sync, so neither "in sync" nor "out of sync" may be hard-wired to a class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avdetect.config import FusionConfig
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE

OUTPUTS = ("fake", "video_fake", "audio_fake")


class Fusion(nn.Module):
    """MLP (or, with `hidden: 0`, logistic regression) over standardised features."""

    mean: Tensor
    std: Tensor
    stream_of_value: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_VALUES))
        self.register_buffer("std", torch.ones(NUM_VALUES))
        self.register_buffer("stream_of_value", torch.tensor(STREAM_OF_VALUE), persistent=False)
        width = len(FEATURES)
        self.stream_dropout = config.stream_dropout
        if config.hidden:
            self.body = nn.Sequential(nn.Linear(width, config.hidden), nn.Tanh(), nn.Dropout(config.dropout))
            width = config.hidden
        else:
            self.body = nn.Sequential()
        self.head = nn.Linear(width, len(OUTPUTS))

    def fit_scale(self, features: Tensor) -> None:
        """Set the standardisation from (N, F) training features, over the rows in which each value exists."""
        for column in range(NUM_VALUES):
            present = features[features[:, NUM_VALUES + STREAM_OF_VALUE[column]] > 0, column]
            if len(present) > 1:
                self.mean[column] = present.mean()
                self.std[column] = present.std().clamp_min(1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """features (N, len(FEATURES)) -> logits (N, 3) in the order of OUTPUTS."""
        values, mask = features[:, :NUM_VALUES], features[:, NUM_VALUES:]
        if self.training and self.stream_dropout:
            keep = (torch.rand_like(mask) >= self.stream_dropout).float()
            keep = torch.where((mask * keep).sum(1, keepdim=True) > 0, keep, torch.ones_like(keep))
            mask = mask * keep
        scaled = ((values - self.mean) / self.std).clamp(-5, 5) * mask[:, self.stream_of_value]
        return self.head(self.body(torch.cat([scaled, mask], dim=1)))
