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
    """MLP (or, with `hidden: 0`, logistic regression) over standardised features; or, with `parts`, a noisy-or.

    The noisy-or (Pearl, 1988) says that a clip is fake if its face or its voice is, and judges each by its own stream
    alone. It cannot learn what a stream of one part says of the other, which on few sources is what sources look like.
    """

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
        self.parts = config.parts
        if config.parts:
            self.slope, self.bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))  # of face and voice
            return
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
        if self.parts:
            return self._noisy_or(values[:, :2], mask[:, :2])
        if self.training and self.stream_dropout:
            keep = (torch.rand_like(mask) >= self.stream_dropout).float()
            keep = torch.where((mask * keep).sum(1, keepdim=True) > 0, keep, torch.ones_like(keep))
            mask = mask * keep
        scaled = ((values - self.mean) / self.std).clamp(-5, 5) * mask[:, self.stream_of_value]
        return self.head(self.body(torch.cat([scaled, mask], dim=1)))

    def _noisy_or(self, values: Tensor, present: Tensor) -> Tensor:
        """values, present (N, 2) of face and voice -> logits (N, 3); 0, no evidence, where a part is missing."""
        parts = (self.slope * values + self.bias) * present
        real = (torch.sigmoid(-parts) * present + (1 - present)).prod(dim=1).clamp(1e-6, 1 - 1e-6)
        fake = torch.log((1 - real) / real) * present.amax(dim=1)
        return torch.cat([fake[:, None], parts], dim=1)
