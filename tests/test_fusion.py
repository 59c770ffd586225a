"""Late fusion: any subset of streams, and no influence of a stream that is not there."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from avdetect.config import AudioConfig, FusionConfig, ModelConfig, SyncConfig, VisualConfig
from avdetect.errors import ModelError
from avdetect.fusion import OUTPUTS, Fusion
from avdetect.model import Model
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE

torch.set_num_threads(1)  # networks this small only wait for a second thread
SUBSETS = list(product((0, 1), repeat=3))
TINY = ModelConfig(
    visual=VisualConfig(encoder="test_efficientnet"),
    audio=AudioConfig(channels=(4, 8), embedding=8),
    sync=SyncConfig(embedding=8, channels=(4, 4, 4, 4)),
    fusion=FusionConfig(hidden=4),
)


def features(rows: int = 6, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(2, 3, (rows, NUM_VALUES))
    return torch.from_numpy(np.concatenate([values, np.ones((rows, 3))], 1).astype(np.float32))


@pytest.fixture(params=[16, 0], ids=["mlp", "logistic"])
def fusion(request: pytest.FixtureRequest) -> Fusion:
    torch.manual_seed(1)
    module = Fusion(FusionConfig(hidden=request.param))
    module.fit_scale(features(50, 9))
    return module.eval()


@pytest.mark.parametrize("present", SUBSETS)
def test_any_subset_gives_three_finite_outputs(fusion: Fusion, present: tuple[int, int, int]) -> None:
    x = features()
    x[:, NUM_VALUES:] = torch.tensor(present, dtype=torch.float32)
    logits = fusion(x)
    assert logits.shape == (6, len(OUTPUTS)) == (6, 3)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("present", SUBSETS)
def test_a_missing_stream_has_no_influence(fusion: Fusion, present: tuple[int, int, int]) -> None:
    x = features()
    x[:, NUM_VALUES:] = torch.tensor(present, dtype=torch.float32)
    expected = fusion(x)
    for value in (0.0, 1e6, -1e6, float("inf")):
        changed = x.clone()
        for column, stream in enumerate(STREAM_OF_VALUE):
            if not present[stream]:
                changed[:, column] = value
        torch.testing.assert_close(fusion(changed), expected, atol=0, rtol=0)


@pytest.mark.parametrize("column", range(NUM_VALUES), ids=FEATURES[:NUM_VALUES])
def test_a_present_stream_has_influence(fusion: Fusion, column: int) -> None:
    x = features()
    changed = x.clone()
    changed[:, column] += 1
    assert (fusion(changed) - fusion(x)).abs().max() > 1e-3


def test_being_there_is_itself_seen(fusion: Fusion) -> None:
    x = torch.zeros(1, len(FEATURES))
    x[:, :NUM_VALUES] = fusion.mean
    outputs = []
    for present in SUBSETS:
        x[:, NUM_VALUES:] = torch.tensor(present, dtype=torch.float32)
        outputs.append(fusion(x)[0])
    assert torch.pdist(torch.stack(outputs)).min() > 1e-4


def test_scale_is_fitted_on_the_rows_that_have_the_value() -> None:
    x = features(40)
    x[::2, NUM_VALUES] = 0  # every other row without a face
    x[::2, 0] = 1000.0
    module = Fusion(FusionConfig())
    module.fit_scale(x)
    assert module.mean[0] == pytest.approx(x[1::2, 0].mean().item(), rel=1e-5)
    assert module.std[0] == pytest.approx(x[1::2, 0].std().item(), rel=1e-5)
    assert module.mean[1] == pytest.approx(x[:, 1].mean().item(), rel=1e-5)


def test_a_stream_that_never_occurs_keeps_the_scale_finite() -> None:
    x = features(10)
    x[:, NUM_VALUES + 2] = 0
    x[:, 1] = 3.0  # constant
    module = Fusion(FusionConfig())
    module.fit_scale(x)
    assert torch.isfinite(module.mean).all()
    assert (module.std > 0).all()
    assert torch.isfinite(module(features())).all()


def test_a_wild_value_is_bounded(fusion: Fusion) -> None:
    x = features(1)
    x[0, 0] = fusion.mean[0] + 5 * fusion.std[0]
    wild = x.clone()
    wild[0, 0] = 1e9
    torch.testing.assert_close(fusion(wild), fusion(x))


def test_stream_dropout_hides_streams_but_never_all() -> None:
    torch.manual_seed(0)
    module = Fusion(FusionConfig(hidden=0, dropout=0.0, stream_dropout=0.9)).train()
    seen = []
    module.head.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, NUM_VALUES:].detach()))
    module(features(500))
    kept = seen[0].sum(1)
    assert (kept >= 1).all()
    assert (kept < 3).any()
    only_voice = features(500)
    only_voice[:, NUM_VALUES] = 0
    only_voice[:, NUM_VALUES + 2] = 0
    module(only_voice)
    torch.testing.assert_close(seen[1], only_voice[:, NUM_VALUES:])


def test_stream_dropout_is_off_when_scoring() -> None:
    module = Fusion(FusionConfig(stream_dropout=0.9, dropout=0.9)).eval()
    torch.testing.assert_close(module(features()), module(features()), atol=0, rtol=0)


# -- the whole model


def test_a_model_survives_safetensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(TINY)
    model.fusion.fit_scale(features(30))
    model.save(tmp_path / "model.safetensors")
    again = Model.load(TINY, tmp_path / "model.safetensors")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)
    assert not again.training
    torch.testing.assert_close(again.fusion(features()), model.eval().fusion(features()))


def test_weights_that_do_not_fit_are_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        Model.load(TINY, path)
    Model(TINY).save(path)
    other = dataclasses.replace(TINY, fusion=FusionConfig(hidden=5))
    with pytest.raises(ModelError, match="cannot load"):
        Model.load(other, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot load"):
        Model.load(TINY, path)
