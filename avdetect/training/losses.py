"""Losses. A label of -1 is unknown and never trained on."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

FAR = -1e4  # similarity of what is not known: no softmax sees it, and half precision holds it


def masked_bce(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over known labels; logits and labels (…) alike, labels in {-1, 0, 1}."""
    known = (labels >= 0).float()
    if weights is not None:
        known = known * weights
    target = labels.clamp_min(0) * (1 - smoothing) + 0.5 * smoothing
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1e-6)


def contrastive_sync(mouth: Tensor, voice: Tensor, there: Tensor, voiced: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al., 2018) over the moments of C clips.

    mouth (C, W, E) and voice (C, at least F, E) unit vectors; there and voiced (C, F) of the F frames that the mouth's
    network saw, F - W + 1 at a time: mouth j belongs to the middle one. Moments of which a frame is not `there` are
    neither positives nor negatives; those that are not `voiced` are nobody's positive: silence fits every closed mouth.

    Other clips' voices weigh a fifth: to tell them apart it is enough to recognise the speaker, and on few clips a
    network learns that and no lip-sync at all.
    """
    frames, count = there.shape[1], mouth.shape[1]
    edge = (frames - count) // 2
    known = there.unfold(1, frames - count + 1, 1).all(2)  # (C, W)
    counts = known & voiced[:, edge : edge + count]
    voice = voice[:, edge : edge + count]
    within = _info_nce(mouth, voice, known, counts, temperature)
    mouth, voice, known, counts = (x.flatten(0, 1)[None] for x in (mouth, voice, known, counts))
    return within + 0.2 * _info_nce(mouth, voice, known, counts, temperature)


def _info_nce(a: Tensor, b: Tensor, known: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(G, N, E) twice, (G, N) twice: within each group, row i of `a` belongs to row i of `b`, among those that are
    known. The mean over the rows that count; 0 without any."""
    similarity = a @ b.transpose(1, 2) / temperature  # (G, N, N)
    target = torch.arange(a.shape[1], device=a.device).expand(similarity.shape[:2])
    found = [
        cross_entropy(s.masked_fill(~known[:, None], FAR).transpose(1, 2), target, reduction="none")
        for s in (similarity, similarity.transpose(1, 2))
    ]
    return ((found[0] + found[1]) / 2 * counts).sum() / counts.sum().clamp_min(1)


def alignment(features: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of the pairs of one class; features (N, E) of length 1, labels (N,) in {-1, 0, 1}.

    Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere" (ICML 2020); pairs of one class instead of two views of one picture, as in GenD (Yermakov et al., 2025,
    arXiv 2508.06248). 0 without such a pair.
    """
    alike = ((labels[:, None] == labels) & (labels >= 0)).triu(1)
    return (_squared_distances(features) * alike).sum() / alike.sum().clamp_min(1)


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """Logarithm of the mean Gaussian potential exp(-t d²) of all pairs (Wang & Isola, as above); features (N, E) of
    length 1, N at least 2. Lower is more spread out."""
    rows, columns = torch.triu_indices(len(features), len(features), 1, device=features.device)
    return (-t * _squared_distances(features)[rows, columns]).exp().mean().log()


def _squared_distances(features: Tensor) -> Tensor:
    """(N, E) of length 1 -> (N, N)."""
    features = features.float()
    return 2 - 2 * features @ features.T
