"""A vision transformer of which only the norms learn: what moves, what teaches, how it resumes and is exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from archive_factory import make_archive
from clips import talking_clip
from safetensors.torch import save_file
from test_run import CONFIG, PAIRS, PREPROCESS, table_of

from avdetect.bundle import OnnxNetworks
from avdetect.config import VisualConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ConfigError
from avdetect.model import Model
from avdetect.streams.visual import VisualStream
from avdetect.training.loop import make_fabric
from avdetect.training.losses import alignment, masked_bce, uniformity
from avdetect.training.results import export
from avdetect.training.run import Settings, train
from avdetect.training.streams import visual_loss

torch.set_num_threads(1)
FABRIC = make_fabric(accelerator="cpu")
# 64 px, and crops of 32
TUNED = VisualConfig(
    encoder="test_vit", encoder_kwargs={"img_size": 64}, size=64, tune="norm", unit_features=True, dropout=0.1
)
LOOP = dataclasses.replace(PAIRS, steps=4, alignment=0.1, uniformity=0.5, weight_decay=0.0)
FACES_ALONE = {"audio": dataclasses.replace(PAIRS, steps=0), "sync": dataclasses.replace(CONFIG.sync, steps=0)}
TUNED_RUN = dataclasses.replace(
    CONFIG, model=dataclasses.replace(CONFIG.model, visual=TUNED), visual=LOOP, **FACES_ALONE
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    clips = [[talking_clip(45, seed=i, size=32)] for i in range(16)]
    return make_archive(tmp_path_factory.mktemp("archive"), table_of(), clips, PREPROCESS)


def start_weights(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state = timm.create_model("test_vit", num_classes=0, img_size=64).state_dict()
    save_file(state, path)
    return state


def test_a_run_moves_norms_and_head_alone_and_ends_in_a_bundle_that_says_the_same(
    archive: ClipArchive, tmp_path: Path
) -> None:
    start = start_weights(tmp_path / "start.safetensors")
    settings = Settings(FABRIC, workers=0)
    train(TUNED_RUN, archive, tmp_path / "run", settings, {"visual": str(tmp_path / "start.safetensors")})
    bundle, _ = export(tmp_path / "run", tmp_path / "bundle")
    visual = Model.load(bundle.info.model, tmp_path / "run" / "model.safetensors").visual
    after = visual.encoder.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in start if "norm" in name}
    crops = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        expected, features = visual(torch.from_numpy(crops), with_features=True)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(6))
    found = OnnxNetworks(bundle, device="cpu").visual(crops)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)
    assert np.ptp(found) > 1e-3, "the logits say something of the crops"


@pytest.mark.parametrize("encoder", ["test_vit", "test_efficientnet", "test_convnext", "test_nfnet"])
def test_norms_of_every_kind_are_found(encoder: str) -> None:
    if encoder == "test_nfnet":  # which is named after having none
        with pytest.raises(ConfigError, match=r"tune: norm: 'test_nfnet' has no norms"):
            VisualStream(VisualConfig(encoder=encoder, tune="norm"))
        return
    stream = VisualStream(VisualConfig(encoder=encoder, tune="norm"))
    learning = {name: p for name, p in stream.encoder.named_parameters() if p.requires_grad}
    assert learning
    assert all(p.ndim == 1 for p in learning.values())
    owners = [stream.encoder.get_submodule(name.rpartition(".")[0]) for name in learning]
    assert not [module for module in owners if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]


def test_the_features_losses_are_those_of_the_paper() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([1.0, 1.0, 0.0, -1.0])
    assert alignment(features, labels).item() == pytest.approx(2.0), "the one pair of a known class, at a right angle"
    assert alignment(features[1:3], labels[1:3]).item() == 0, "no pair"
    distances = torch.pdist(features).square()
    expected = (-2 * distances).exp().mean().log()
    torch.testing.assert_close(uniformity(features), expected)
    assert uniformity(features[:3]) < uniformity(features[:1].repeat(3, 1)) == 0


def test_the_features_losses_teach_and_are_not_measured() -> None:
    torch.manual_seed(0)
    stream = VisualStream(dataclasses.replace(TUNED, dropout=0.0))
    crops = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    batch = {"crops": crops, "labels": torch.tensor([1.0, 0, 1, 0, 1, 0])}
    logits, features = stream(crops, with_features=True)
    plain = masked_bce(logits, batch["labels"], 0.0)
    added = 0.1 * alignment(features, batch["labels"]) + 0.5 * uniformity(features)
    loss = visual_loss(0.0, LOOP)
    torch.testing.assert_close(loss(stream.train(), batch), plain + added)
    torch.testing.assert_close(loss(stream.eval(), batch), plain)


def test_weights_may_lie_in_several_files(tmp_path: Path) -> None:
    start = start_weights(tmp_path / "whole.safetensors")
    names = sorted(start)
    (tmp_path / "parts").mkdir()
    for number, part in enumerate((names[:5], names[5:])):
        save_file({name: start[name] for name in part}, tmp_path / "parts" / f"{number}.safetensors")
    one, several = (dataclasses.replace(TUNED, pretrained=str(tmp_path / n)) for n in ("whole.safetensors", "parts"))
    states = [VisualStream(config).encoder.state_dict() for config in (one, several)]
    for state in states:
        assert all(torch.equal(value, state[name]) for name, value in start.items())
    fresh = VisualStream(one, load_pretrained=False).encoder.state_dict()
    assert not all(torch.equal(value, fresh[name]) for name, value in start.items())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty does not fit"):
        VisualStream(dataclasses.replace(TUNED, pretrained=str(tmp_path / "empty")))
