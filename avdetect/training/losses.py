"""Losses. A label of -1 is unknown and never trained on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def masked_bce(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over known labels; logits and labels (…) alike, labels in {-1, 0, 1}."""
    known = (labels >= 0).float()
    if weights is not None:
        known = known * weights
    target = labels.clamp_min(0) * (1 - smoothing) + 0.5 * smoothing
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1e-6)


def contrastive_sync(mouth: Tensor, voice: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al., 2018) over (N, E) unit vectors; row i of both is one moment.

    The other rows are negatives: other moments of the clip (shifts) and other clips (somebody else's voice).
    """
    similarity = mouth @ voice.T / temperature
    target = torch.arange(len(mouth), device=mouth.device)
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2
