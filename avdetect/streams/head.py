"""What stands behind an encoder: standardised features, and a head that gives a logit."""

from typing import cast

import torch
from torch import Tensor, nn


class Standard(nn.BatchNorm1d):
    """(N, F) -> (N, F): features standardised by what was seen while training.

    Batch normalisation that learns no scale of its own; written out where it is not learning, since the exporter
    refuses the operator behind a matmul.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False, momentum=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        return (x - mean) / (variance + self.eps).sqrt()


class PerceptronHead(nn.Module):
    """(N, F) -> (N, 1): the mean of `count` perceptrons with one hidden layer, which differ by their start alone."""

    def __init__(self, width: int, hidden: int, count: int, dropout: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            )
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)
