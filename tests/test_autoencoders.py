"""Faces given back by autoencoders that were trained on real ones: networks, their files, and the forgeries of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avdetect.config import PairLoopConfig, TrainConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.visual import given_back
from avdetect.errors import ConfigError, ModelError
from avdetect.training import autoencoders as module
from avdetect.training.autoencoders import DESIGNS, Autoencoder, Autoencoders, fit_autoencoders
from avdetect.training.loop import make_fabric
from avdetect.types import UInt8

torch.set_num_threads(1)
FABRIC = make_fabric(accelerator="cpu")
SIDE = 48
LANDMARKS = np.array([[[17, 20], [31, 20], [24, 27], [19, 34], [29, 34]]], np.float32)


def draw(rng: np.random.Generator) -> UInt8:
    """A smooth picture with a square in it."""
    picture = cv2.resize(rng.uniform(30, 220, (6, 6, 3)).astype(np.float32), (SIDE, SIDE))
    x, y = rng.integers(0, SIDE - 8, 2)
    picture[y : y + 8, x : x + 8] = rng.uniform(0, 255, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def fitted(path: Path, seed: int = 0, steps: int = 120, config: PairLoopConfig | None = None) -> Autoencoders:
    return fit_autoencoders(
        draw, config or PairLoopConfig(), fabric=FABRIC, seed=seed, path=path, name="t", steps=steps
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Autoencoders]:
    path = tmp_path_factory.mktemp("autoencoders") / "autoencoders.ckpt"
    return path, fitted(path)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d[0])
def test_a_picture_of_any_side_keeps_its_shape(design: tuple[str, int, int]) -> None:
    for side in (48, 45):
        assert Autoencoder(*design)(torch.zeros(2, 3, side, side)).shape == (2, 3, side, side)


def test_they_learn_to_draw_what_they_saw(trained: tuple[Path, Autoencoders], tmp_path: Path) -> None:
    faces = np.stack([draw(np.random.default_rng(100 + i)) for i in range(4)])
    torch.manual_seed(0)
    fresh = Autoencoders([Autoencoder(*design) for design in DESIGNS])
    for after, before in zip(trained[1].networks, fresh.networks, strict=True):
        errors = []
        for network in (after, before):
            drawn = Autoencoders([network])(faces, np.random.default_rng(0))
            assert drawn.shape == faces.shape
            assert drawn.dtype == np.uint8
            errors.append(np.abs(drawn.astype(int) - faces).mean())
        assert errors[0] < 0.85 * errors[1]
        assert errors[0] > 0.5, "a perfect one would leave no trace"


def test_each_call_draws_one_of_them(trained: tuple[Path, Autoencoders]) -> None:
    faces = draw(np.random.default_rng(5))[None]
    drawn = {trained[1](faces, np.random.default_rng(i)).tobytes() for i in range(30)}
    assert len(drawn) == len(DESIGNS)
    assert np.array_equal(trained[1](faces, np.random.default_rng(3)), trained[1](faces, np.random.default_rng(3)))


def test_they_are_trained_once(
    trained: tuple[Path, Autoencoders], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, first = trained
    state = torch.random.get_rng_state()
    again = fitted(tmp_path / "again.ckpt")
    assert torch.equal(state, torch.random.get_rng_state()), "what follows draws as it would have drawn"
    monkeypatch.setattr(module, "_trained", lambda *_: pytest.fail("trained again"))
    for other in (again, fitted(path)):
        for a, b in zip(first.networks, other.networks, strict=True):
            assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    with pytest.raises(ModelError, match="seed 0 \\(here 1\\)"):
        fitted(path, seed=1)
    with pytest.raises(ModelError, match="source_balance"):
        fitted(path, config=dataclasses.replace(PairLoopConfig(), source_balance=0.25))


def test_a_loss_that_is_not_finite_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LR", float("inf"))
    with pytest.raises(ModelError, match="t nearest: the loss is not finite"):
        fitted(tmp_path / "a.ckpt", steps=3)
    assert not (tmp_path / "a.ckpt").exists()


def test_what_is_given_back_is_all_or_a_region() -> None:
    rng = np.random.default_rng(0)
    crops = draw(rng)[None]
    faces, drawn = FaceCrops(crops, LANDMARKS), 255 - crops
    whole = 0
    for _ in range(40):
        forged = given_back(faces, drawn, rng)
        touched = forged.mask > 0
        assert np.array_equal(forged.crops[~touched], crops[~touched])
        assert (forged.crops != crops).any()
        if touched.all() and np.array_equal(forged.crops, drawn):
            whole += 1
    assert 0 < whole < 40


def test_voices_are_not_reconstructed() -> None:
    with pytest.raises(ConfigError, match=r"audio\.reconstructed"):
        TrainConfig(audio=PairLoopConfig(reconstructed=0.5))
    with pytest.raises(ConfigError, match="reconstructed"):
        PairLoopConfig(reconstructed=1.5)
