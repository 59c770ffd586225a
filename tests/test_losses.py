"""Losses: no unknown label is trained on, a bag is fake when one of its instances is, moments that belong together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from avdetect.training.losses import any_of, contrastive_sync, masked_bce, multiple_instance_bce


def test_unknown_labels_are_never_trained_on() -> None:
    logits = torch.tensor([2.0, -1.0, 5.0], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([1.0, 0.0, -1.0]), 0.0)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[2] == 0
    assert (logits.grad[:2] != 0).all()


def test_a_batch_of_unknown_labels_teaches_nothing() -> None:
    logits = torch.tensor([[9.0, -9.0, 0.0]], requires_grad=True)
    loss = masked_bce(logits, torch.full((1, 3), -1.0), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_weights_and_smoothing() -> None:
    logits, labels = torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0])
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    weighted = masked_bce(logits, labels, 0.0, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert masked_bce(logits[:1], labels[:1], 0.2).item() == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-5)
    sure = masked_bce(torch.tensor([20.0]), torch.tensor([1.0]), 0.1)
    assert sure > masked_bce(torch.tensor([3.0]), torch.tensor([1.0]), 0.1), "certainty is punished"


# -- multiple instances


def test_any_of_is_the_probability_that_at_least_one_is_fake() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [0.3, -1.2, 2.0], [-30.0, -30.0, -30.0]])
    present = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    p = torch.sigmoid(logits)
    expected = [1 - (1 - p[0]).prod(), 1 - (1 - p[1, :2]).prod()]
    found = torch.sigmoid(any_of(logits, present))
    torch.testing.assert_close(found[:2], torch.stack(expected))
    assert found[2] < 1e-5
    one = torch.tensor([[0.7]])
    torch.testing.assert_close(any_of(one, torch.ones_like(one, dtype=torch.bool)), one[:, 0])


def test_the_loss_reaches_the_instance_that_explains_the_label() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0]], requires_grad=True)
    present = torch.tensor([[True, True, False]])
    multiple_instance_bce(logits, present, torch.tensor([1.0]), 0.0).backward()
    assert logits.grad is not None
    likely, unlikely, absent = logits.grad[0].tolist()
    assert likely < 0, "a fake clip draws up"
    assert abs(likely) > 2 * abs(unlikely), "… what looks fake already, more than the rest"
    assert absent == 0
    real = torch.tensor([[2.0, -2.0, 1.0]], requires_grad=True)
    multiple_instance_bce(real, present, torch.tensor([0.0]), 0.0).backward()
    assert real.grad is not None
    assert (real.grad[0, :2] > 0).all(), "a real clip draws down every instance"


def test_bags_without_instances_or_label_teach_nothing() -> None:
    logits = torch.tensor([[5.0, 5.0], [5.0, 5.0]], requires_grad=True)
    present = torch.tensor([[False, False], [True, True]])
    loss = multiple_instance_bce(logits, present, torch.tensor([0.0, -1.0]), 0.01)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("value", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_extreme_logits_stay_finite(value: float) -> None:
    logits = torch.full((1, 4), value, requires_grad=True)
    for label in (0.0, 1.0):
        loss = multiple_instance_bce(logits, torch.ones(1, 4, dtype=torch.bool), torch.tensor([label]), 0.01)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_a_fake_clip_that_looks_all_real_can_still_be_learned() -> None:
    logits = torch.full((1, 3), -20.0, requires_grad=True)
    multiple_instance_bce(logits, torch.ones(1, 3, dtype=torch.bool), torch.tensor([1.0]), 0.0).backward()
    assert logits.grad is not None
    assert (logits.grad < -0.1).all()


# -- lip-sync


def test_contrastive_loss_prefers_moments_that_belong_together() -> None:
    torch.manual_seed(0)
    mouth = nn.functional.normalize(torch.randn(24, 16), dim=1)
    voice = nn.functional.normalize(mouth + 0.2 * torch.randn(24, 16), dim=1)
    aligned = contrastive_sync(mouth, voice, 12)
    assert aligned < contrastive_sync(mouth, voice.roll(1, 0), 12) - 1
    assert aligned < contrastive_sync(mouth, voice[torch.randperm(24)], 12) - 1
    torch.testing.assert_close(aligned, contrastive_sync(voice, mouth, 12))
    same = nn.functional.normalize(torch.ones(24, 16), dim=1)
    chance = math.log(12) + 0.2 * math.log(24)
    assert contrastive_sync(same, same, 12).item() == pytest.approx(chance, rel=1e-5)


def test_recognising_the_clip_is_not_enough() -> None:
    """Vectors that tell clips apart but not moments leave the loss near chance within a clip."""
    clips = nn.functional.normalize(torch.eye(2, 16), dim=1).repeat_interleave(12, dim=0)
    assert contrastive_sync(clips, clips, 12) > math.log(12)


def test_silence_is_nobodys_positive() -> None:
    torch.manual_seed(0)
    mouth = nn.functional.normalize(torch.randn(24, 16), dim=1)
    voice = mouth.clone()
    voice[5] = -mouth[5]  # as wrong as can be, but silent
    voiced = torch.ones(24, dtype=torch.bool)
    loud = contrastive_sync(mouth, voice, 12, voiced)
    voiced[5] = False
    assert contrastive_sync(mouth, voice, 12, voiced) < loud - 0.5
    silent = contrastive_sync(mouth, voice, 12, torch.zeros(24, dtype=torch.bool))
    assert silent.item() == 0
