"""Late fusion: any subset of streams, and no influence of a stream that is not there."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_model

from avdetect.config import AudioConfig, FusionConfig, ModelConfig, SyncConfig, VisualConfig
from avdetect.errors import ModelError
from avdetect.fusion import OUTPUTS, Fusion
from avdetect.model import Model
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE, STREAMS

torch.set_num_threads(1)  # networks this small only wait for a second thread
SUBSETS = list(product((0, 1), repeat=3))
TINY = ModelConfig(
    visual=VisualConfig(encoder="test_efficientnet"),
    audio=AudioConfig(channels=(4, 8), embedding=8),
    sync=SyncConfig(embedding=8, channels=(4, 4, 4, 4)),
    fusion=FusionConfig(parts=False),
)


def features(rows: int = 6, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(2, 3, (rows, NUM_VALUES))
    return torch.from_numpy(np.concatenate([values, np.ones((rows, 3))], 1).astype(np.float32))


LOGISTIC = FusionConfig(parts=False)


@pytest.mark.parametrize("config", [LOGISTIC, FusionConfig()], ids=["logistic", "parts"])
def test_a_missing_or_silent_stream_has_no_influence_and_others_have(config: FusionConfig) -> None:
    torch.manual_seed(1)
    fusion = Fusion(config).eval()
    if config == LOGISTIC:
        fusion.fit_scale(features(50, 9))
    silent = Fusion(dataclasses.replace(config, silent=("sync",))).eval()
    silent.load_state_dict(fusion.state_dict())
    for present in SUBSETS:
        x = features()
        x[:, NUM_VALUES:] = torch.tensor(present, dtype=torch.float32)
        expected = fusion(x)
        assert expected.shape == (6, len(OUTPUTS)) == (6, 4)
        assert torch.isfinite(expected).all()
        for value in (0.0, 1e6, -1e6, float("inf")):
            changed = x.clone()
            for column, stream in enumerate(STREAM_OF_VALUE):
                if not present[stream]:
                    changed[:, column] = value
            torch.testing.assert_close(fusion(changed), expected, atol=0, rtol=0)
        unheard = x.clone()
        unheard[:, 2:NUM_VALUES], unheard[:, NUM_VALUES + 2] = 7, 0
        torch.testing.assert_close(silent(x), silent(unheard), atol=0, rtol=0)
    for column in range(NUM_VALUES if config == LOGISTIC else 2):
        changed = features()
        changed[:, column] += 1
        assert (fusion(changed) - fusion(features())).abs().max() > 1e-3, FEATURES[column]


def test_scale_is_fitted_on_the_rows_that_have_the_value() -> None:
    x = features(40)
    x[::2, NUM_VALUES] = 0  # every other row without a face
    x[::2, 0] = 1000.0
    module = Fusion(LOGISTIC)
    module.fit_scale(x)
    assert module.mean[0] == pytest.approx(x[1::2, 0].mean().item(), rel=1e-5)
    assert module.std[0] == pytest.approx(x[1::2, 0].std().item(), rel=1e-5)
    assert module.mean[1] == pytest.approx(x[:, 1].mean().item(), rel=1e-5)


def test_stream_dropout_hides_streams_but_never_all() -> None:
    torch.manual_seed(0)
    module = Fusion(FusionConfig(parts=False, stream_dropout=0.9)).train()
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


def noisy_or_of(slope: list[float], bias: list[float], silent: tuple[str, ...] = ()) -> Fusion:
    module = Fusion(FusionConfig(silent=silent)).eval()
    with torch.no_grad():
        module.slope.copy_(torch.tensor(slope))
        module.bias.copy_(torch.tensor(bias))
    return module


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(finite, min_size=NUM_VALUES, max_size=NUM_VALUES),
    st.sampled_from(SUBSETS),
    st.lists(st.floats(0, 100, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3),
    st.sets(st.sampled_from(STREAMS)),
)
def test_the_whole_is_never_below_its_largest_part(
    values: list[float], present: tuple[int, int, int], slope: list[float], bias: list[float], silent: set[str]
) -> None:
    module = noisy_or_of(slope, bias, tuple(silent))
    with torch.no_grad():
        whole, *parts = module(torch.tensor([[*values, *present]], dtype=torch.float32))[0].tolist()
    there = [p for p, has, name in zip(parts, present, STREAMS, strict=True) if has and name not in silent]
    assert np.isfinite([whole, *parts]).all()
    if there:
        assert whole >= max(there)
    else:
        assert whole == 0


def test_the_whole_is_the_noisy_or_of_its_parts() -> None:
    x = features(200)
    with torch.no_grad():
        whole, *parts = torch.sigmoid(noisy_or_of([0.5, 0.7, 2.0], [-1.0, 0.3, 0.5])(x).double()).T
    torch.testing.assert_close(whole, 1 - torch.stack([1 - p for p in parts]).prod(0), atol=1e-6, rtol=0)
    values = x[:, [FEATURES.index(name) for name in ("visual_logit", "audio_logit", "sync_match")]]
    expected = torch.sigmoid(values * torch.tensor([0.5, 0.7, -2.0]) + torch.tensor([-1.0, 0.3, 0.5]))
    torch.testing.assert_close(torch.stack(parts, 1).float(), expected, atol=1e-6, rtol=1e-5)


def test_a_perfect_match_is_no_sign_of_truth() -> None:
    x = features(1)
    x[0, :2] = torch.tensor([2.0, 1.0])
    module = noisy_or_of([1.0, 1.0, 10.0], [0.0, 0.0, 0.0])
    without = x.clone()
    without[0, NUM_VALUES + 2] = 0
    for match in (0.0, 0.5, 100.0):
        x[0, FEATURES.index("sync_match")] = match
        assert module(x)[0, 0] >= module(without)[0, 0]


def test_a_model_survives_safetensors_and_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, model = tmp_path / "model.safetensors", Model(TINY)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        Model.load(TINY, path)
    model.fusion.fit_scale(features(30))
    save_model(model, str(path))
    again = Model.load(TINY, path)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)
    assert not again.training
    for config, content in (
        (dataclasses.replace(TINY, fusion=FusionConfig()), path.read_bytes()),
        (TINY, path.read_bytes()[:100]),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot load"):
            Model.load(config, path)
