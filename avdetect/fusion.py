"""Late fusion: stream outputs and an availability mask -> logits of fake, video_fake, audio_fake and mismatch.

Any subset of streams may be missing. Lips that speak another voice are a sign of forgery; a perfect match is no sign of
truth, for a wholly generated head is in perfect sync.
"""

from itertools import product

import torch
from torch import Tensor, nn

from avdetect.config import FusionConfig
from avdetect.pooling import FEATURES, NUM_VALUES, PART_OF, STREAM_OF_VALUE, STREAMS

OUTPUTS = ("fake", *PART_OF.values())
# Of the noisy-or: the value of each stream, and its sign, for higher must be more fake.
PART_VALUES = tuple(FEATURES.index(name) for name in ("visual_logit", "audio_logit", "sync_match"))
PART_SIGNS = (1.0, 1.0, -1.0)
_COMBINATIONS = [one for one in product((0.0, 1.0), repeat=3) if any(one)]  # of the parts
_NEVER = -1e4  # logit of a combination with a part that is missing


class Fusion(nn.Module):
    """A noisy-or of the parts; or, without `parts`, a logistic regression over standardised features.

    The noisy-or (Pearl, 1988) says that a clip is fake if its face or its voice is, or if these lips do not speak this
    voice, and judges each by its own stream alone. It cannot learn what a stream of one part says of another, which on
    few sources is what sources look like. A part with a low probability adds nothing: no match speaks for truth.
    """

    mean: Tensor
    std: Tensor
    stream_of_value: Tensor
    heard: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_VALUES))
        self.register_buffer("std", torch.ones(NUM_VALUES))
        self.register_buffer("stream_of_value", torch.tensor(STREAM_OF_VALUE), persistent=False)
        heard = torch.tensor([float(name not in config.silent) for name in STREAMS])
        self.register_buffer("heard", heard, persistent=False)
        self.stream_dropout = config.stream_dropout
        self.parts = config.parts
        if config.parts:
            self.slope, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))  # face, voice, match
        else:
            self.head = nn.Linear(len(FEATURES), len(OUTPUTS))

    def fit_scale(self, features: Tensor) -> None:
        """Set the standardisation from (N, F) training features, over the rows in which each value exists."""
        for column in range(NUM_VALUES):
            present = features[features[:, NUM_VALUES + STREAM_OF_VALUE[column]] > 0, column]
            if len(present) > 1:
                self.mean[column] = present.mean()
                self.std[column] = present.std().clamp_min(1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """features (N, len(FEATURES)) -> logits (N, len(OUTPUTS)) in the order of OUTPUTS."""
        values, mask = features[:, :NUM_VALUES], features[:, NUM_VALUES:] * self.heard
        if self.parts:
            signs = torch.tensor(PART_SIGNS, device=values.device)
            return noisy_or(self.slope * signs * values[:, PART_VALUES] + self.bias, mask)
        if self.training and self.stream_dropout:
            keep = (torch.rand_like(mask) >= self.stream_dropout).float()
            mask = torch.where((mask * keep).sum(1, keepdim=True) > 0, mask * keep, mask)
        scaled = ((values - self.mean) / self.std).clamp(-5, 5) * mask[:, self.stream_of_value]
        return self.head(torch.cat([scaled, mask], dim=1))


def noisy_or(parts: Tensor, present: Tensor) -> Tensor:
    """parts, present (N, 3) logits and whether they are there (0 or 1) -> (N, 4) logits of the whole and of the parts;
    0, no evidence, where one is missing.

    1 - P(whole) is the product of all 1 - P(part), so the odds are the sum over all combinations of parts of the
    product of their odds. As a sum of logarithms it loses no digit, and is never below its largest term.
    """
    parts = torch.where(present > 0, parts, torch.zeros_like(parts))
    members = torch.tensor(_COMBINATIONS, dtype=parts.dtype, device=parts.device).T  # (3, 7)
    together = torch.where((1 - present) @ members > 0, _NEVER, parts @ members)  # (N, 7)
    largest = together.amax(dim=1, keepdim=True)
    whole = largest + torch.log(torch.exp(together - largest).sum(dim=1, keepdim=True))
    return torch.cat([whole * present.amax(dim=1, keepdim=True), parts], dim=1)
