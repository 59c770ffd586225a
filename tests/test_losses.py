"""Losses: no unknown label is trained on, moments that belong together are told from others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from avdetect.config import PairLoopConfig, VisualConfig
from avdetect.streams.visual import VisualStream
from avdetect.training.losses import alignment, contrastive_sync, masked_bce, uniformity
from avdetect.training.streams import visual_loss


def test_unknown_labels_are_never_trained_on() -> None:
    logits = torch.tensor([2.0, -1.0, 5.0], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([1.0, 0.0, -1.0]), 0.0)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad[2] == 0
    assert (logits.grad[:2] != 0).all()
    assert masked_bce(logits, torch.full((3,), -1.0), 0.1).item() == 0


def test_weights_and_smoothing() -> None:
    logits, labels = torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0])
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    weighted = masked_bce(logits, labels, 0.0, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert masked_bce(logits[:1], labels[:1], 0.2).item() == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-5)
    sure = masked_bce(torch.tensor([20.0]), torch.tensor([1.0]), 0.1)
    assert sure > masked_bce(torch.tensor([3.0]), torch.tensor([1.0]), 0.1), "certainty is punished"


def test_the_features_losses_are_those_of_the_paper() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([1.0, 1.0, 0.0, -1.0])
    assert alignment(features, labels).item() == pytest.approx(2.0), "the one pair of a known class, at a right angle"
    assert alignment(features[1:3], labels[1:3]).item() == 0, "no pair"
    torch.testing.assert_close(uniformity(features), (-2 * torch.pdist(features).square()).exp().mean().log())
    assert uniformity(features[:3]) < uniformity(features[:1].repeat(3, 1)) == 0


def test_the_features_losses_teach_and_are_not_measured() -> None:
    torch.manual_seed(0)
    stream = VisualStream(VisualConfig(encoder="test_vit", encoder_kwargs={"img_size": 64}, unit_features=True))
    crops = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8)
    batch = {"crops": crops, "labels": torch.tensor([1.0, 0, 1, 0, 1, 0])}
    logits, features = stream.eval()(crops, with_features=True)
    plain = masked_bce(logits, batch["labels"], 0.0)
    added = 0.1 * alignment(features, batch["labels"]) + 0.5 * uniformity(features)
    loss = visual_loss(0.0, PairLoopConfig(alignment=0.1, uniformity=0.5))
    torch.testing.assert_close(loss(stream, batch), plain)
    stream.training = True  # itself, not its dropout
    torch.testing.assert_close(loss(stream, batch), plain + added)


EVERY = torch.ones(2, 16, dtype=torch.bool)  # frames of two clips, of which 12 mouths see five each


def moments(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Mouths (2, 12, 16), and voices (2, 16, 16) that are near to those of their frames."""
    torch.manual_seed(seed)
    voice = nn.functional.normalize(torch.randn(2, 16, 16), dim=2)
    mouth = nn.functional.normalize(voice[:, 2:14] + 0.2 * torch.randn(2, 12, 16), dim=2)
    return mouth, voice


def test_contrastive_loss_prefers_moments_that_belong_together() -> None:
    mouth, voice = moments()
    aligned = contrastive_sync(mouth, voice, EVERY, EVERY)
    assert aligned < contrastive_sync(mouth, voice.roll(1, 1), EVERY, EVERY) - 1, "the mouth is in the middle"
    assert aligned < contrastive_sync(mouth, voice[:, torch.randperm(16)], EVERY, EVERY) - 1
    longer = torch.cat([voice, torch.randn(2, 9, 16)], dim=1)
    torch.testing.assert_close(aligned, contrastive_sync(mouth, longer, EVERY, EVERY))
    same = nn.functional.normalize(torch.ones(2, 16, 16), dim=2)
    chance = math.log(12) + 0.2 * math.log(24)
    assert contrastive_sync(same[:, :12], same, EVERY, EVERY).item() == pytest.approx(chance, rel=1e-5)
    # Vectors that tell clips apart but not moments leave the loss near chance within a clip.
    clips = nn.functional.normalize(torch.eye(2, 16), dim=1)[:, None].expand(2, 16, 16)
    assert contrastive_sync(clips[:, :12], clips, EVERY, EVERY) > math.log(12)


def test_silence_is_nobodys_positive() -> None:
    mouth, voice = moments()
    voice[0, 7] = -mouth[0, 5]  # as wrong as can be, but silent
    voiced = EVERY.clone()
    loud = contrastive_sync(mouth, voice, EVERY, voiced)
    voiced[0, 7] = False
    assert contrastive_sync(mouth, voice, EVERY, voiced) < loud - 0.2
    assert contrastive_sync(mouth, voice, EVERY, torch.zeros_like(EVERY)).item() == 0


def test_padding_is_neither_positive_nor_negative() -> None:
    mouth, voice = moments()
    there = EVERY.clone()
    there[1, 10:] = False  # six whole mouths are left of the second clip
    loss = contrastive_sync(mouth, voice, there, EVERY)
    other_mouth, other_voice = mouth.clone().requires_grad_(), voice.clone().requires_grad_()
    with torch.no_grad():
        other_mouth[1, 6:], other_voice[1, 8:] = mouth[0, :6], voice[0, :8]
    again = contrastive_sync(other_mouth, other_voice, there, EVERY)
    torch.testing.assert_close(loss, again)
    again.backward()
    assert (other_mouth.grad[1, 6:] == 0).all()
    assert (other_voice.grad[1, 8:] == 0).all()
    assert (other_mouth.grad[1, :6] != 0).any()
    mouth, voice, there = mouth[:1], voice[:1], there[:1]
    alone = contrastive_sync(mouth, voice, there, there)
    chance = contrastive_sync(torch.ones_like(mouth) / 4, torch.ones_like(voice) / 4, there, there)
    assert alone < chance == pytest.approx(1.2 * math.log(12), rel=1e-5)
