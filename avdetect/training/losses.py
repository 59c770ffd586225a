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


def contrastive_sync(mouth: Tensor, voice: Tensor, windows_per_clip: int, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al., 2018) over (C * windows_per_clip, E) unit vectors; row i of both is one
    moment, and a clip's moments stand together.

    Mostly against other moments of the same clip. Other clips' voices weigh a fifth: to tell them apart it is enough
    to recognise the speaker, and on few clips a network learns that and no lip-sync at all.
    """
    within = _info_nce(
        mouth.view(-1, windows_per_clip, mouth.shape[1]), voice.view(-1, windows_per_clip, voice.shape[1]), temperature
    )
    return within + 0.2 * _info_nce(mouth[None], voice[None], temperature)


def _info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """(G, N, E) twice: within each group, row i of `a` belongs to row i of `b`."""
    similarity = a @ b.transpose(1, 2) / temperature  # (G, N, N)
    target = torch.arange(a.shape[1], device=a.device).expand(similarity.shape[:2])
    return (cross_entropy(similarity, target) + cross_entropy(similarity.transpose(1, 2), target)) / 2
