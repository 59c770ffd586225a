"""The probe: level statistics as computed by hand, an encoder that nothing moves, and a head at its optimum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from avdetect.config import (
    AudioConfig,
    FusionFitConfig,
    ModelConfig,
    PairLoopConfig,
    StreamLoopConfig,
    TrainConfig,
    View,
    VisualConfig,
)
from avdetect.errors import ConfigError, ModelError
from avdetect.export import PARITY_TOLERANCE, _to_onnx
from avdetect.model import Model
from avdetect.preprocess import PREPROCESS_VERSION
from avdetect.streams.audio import AudioStream
from avdetect.streams.visual import VisualStream, _contrasts, regions
from avdetect.training import streams as stream_training
from avdetect.training.loop import fit, make_fabric
from avdetect.training.losses import masked_bce
from avdetect.training.probe import ProbeSet, fit_head, probe_set
from avdetect.training.run import _prepared

torch.set_num_threads(1)  # networks this small only wait for a second thread
FABRIC = make_fabric(accelerator="cpu")
ENCODER = "test_efficientnet"
LEVELS = ("blocks.0", "blocks.2")
PROBE = VisualConfig(encoder=ENCODER, levels=LEVELS, tune="none", dropout=0.5)
LOOP = PairLoopConfig(steps=10, batch_size=16, weight_decay=0.05, label_smoothing=0.0, warmup_steps=0)


CLIPS = 8


def make_batch(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
    """16 crops of 32 pixels; fakes have somewhat less grain than reals, and two labels are unknown."""
    rng = np.random.default_rng((7, step))
    labels = rng.integers(0, 2, 16).astype(np.float32)
    grain = (25 - 8 * labels + rng.uniform(-8, 8, 16)).astype(np.float32)
    crops = []
    for level in grain:
        picture = cv2.resize(rng.uniform(60, 190, (4, 4, 3)).astype(np.float32), (32, 32))
        crops.append(np.clip(picture + level * rng.standard_normal((32, 32, 3)), 0, 255).astype(np.uint8))
    labels[rng.choice(16, 2, replace=False)] = -1
    mine = slice(part * 16 // parts, (part + 1) * 16 // parts)
    clips = torch.arange(16) % CLIPS  # two neighbouring clips are of one file
    return {
        "crops": torch.from_numpy(np.stack(crops)[mine]),
        "labels": torch.from_numpy(labels[mine]),
        "clips": clips[mine],
    }


CROPS = make_batch(0, 0, 1)["crops"]
FILES = np.arange(16) % CLIPS // 2  # of a batch


def never(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
    pytest.fail("computed again")


def made(seed: int = 0, **changes: Any) -> VisualStream:
    """With batch statistics that are not those of a fresh network, as pretrained ones."""
    torch.manual_seed(seed)
    stream = VisualStream(dataclasses.replace(PROBE, **changes))
    for module in stream.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return stream


def part_of(rows: list[int]) -> Any:
    """What a probe reads of a Part."""
    clips = pd.DataFrame({"file": np.arange(CLIPS) // 2})
    files = pd.DataFrame({"dataset": ["first", "second", "first", "second"]})
    return SimpleNamespace(rows=np.array(rows), archive=SimpleNamespace(clips=clips, files=files))


PART = part_of([0, 1, 2, 3])
MakeSet = Callable[..., ProbeSet]


@pytest.fixture(scope="module")
def make_set() -> MakeSet:
    """`probe_set` on the batches of this file instead of an archive's."""

    def make(
        path: Path, module: VisualStream | None = None, batches=make_batch, config=LOOP, seed: int = 3
    ) -> ProbeSet:
        options = {"fabric": FABRIC, "seed": seed, "name": "t", "workers": 0}
        return probe_set(module or made(), batches, PART, config, path=path, **options)

    return make


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def drawn(folder: Path, make_set: MakeSet) -> ProbeSet:
    return make_set(folder / "visual.probe")


@pytest.fixture(scope="module")
def fitted(drawn: ProbeSet) -> VisualStream:
    return fit_head(made(), drawn, LOOP)


# -- levels


def test_levels_are_mean_and_deviation_of_the_named_maps() -> None:
    stream = made().eval()
    encoder = timm.create_model(ENCODER, num_classes=0).eval()
    state = {key.removeprefix("maps."): value for key, value in stream.encoder.state_dict().items()}
    assert not encoder.load_state_dict(state, strict=False).unexpected_keys
    maps: dict[str, torch.Tensor] = {}
    for name, module in encoder.named_modules():
        if name in LEVELS:
            module.register_forward_hook(lambda _, __, out, name=name: maps.update({name: out}))
    with torch.inference_mode():
        encoder((CROPS.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
        found = stream.features(CROPS)
    expected = []
    for name in LEVELS:
        values = maps[name].double().flatten(2)
        expected += [values.mean(2), values.var(2, unbiased=False).clamp_min(1e-5).sqrt()]
    torch.testing.assert_close(found.double(), torch.cat(expected, 1), atol=1e-4, rtol=1e-4)
    assert stream.head.in_features == found.shape[1] == 2 * sum(maps[name].shape[1] for name in LEVELS)
    assert found.std(0).max() > 0.01, "constant features would agree too"


def test_highpass_sees_grain_and_neither_colour_nor_light() -> None:
    stream = made(views=(View(highpass=5, std=16.0),)).eval()
    assert stream.state_dict().keys() == made().state_dict().keys()
    grain = torch.from_numpy(np.random.default_rng(1).integers(-20, 21, (2, 32, 32, 3)))
    slope = torch.linspace(0, 20, 32)[None, :, None, None].expand(2, 32, 32, 3)
    with torch.inference_mode():
        dark, bright, lit = (stream.features((grain + x).float()) for x in (60, 160, 60 + slope))
        flat = stream.features(torch.full((1, 32, 32, 3), 90.0))
        loud = stream.features((grain * 100).float())
    torch.testing.assert_close(dark, bright, atol=1e-4, rtol=1e-4)
    inner = (dark - lit).abs().mean() / (dark - flat).abs().mean()
    assert inner < 0.1, "a slope of light is all but taken away"
    assert torch.isfinite(loud).all(), "and what is loud is cut"
    graph = _to_onnx(stream, CROPS[:2].numpy(), False)
    found = onnxruntime.InferenceSession(graph).run(None, {"input": CROPS.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(found, stream(CROPS).numpy(), atol=PARITY_TOLERANCE)
    with pytest.raises(ConfigError, match="highpass must be odd"):
        View(highpass=4)


def test_contrasts_compare_the_face_with_its_own_rim() -> None:
    """What camera and codec do to the whole crop cancels; what is done to the face alone does not."""
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 20, 20))).float()
    weights = regions(20, 20)
    upper, lower, rim = (weights[i] > 0 for i in range(3))
    assert not (upper & lower).any()
    assert not ((upper | lower) & rim).any()
    assert all(place for place in (upper[8, 10], lower[12, 10], rim[0, 0], rim[19, 10]))
    assert not rim[10, 2:18].any()
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(3))

    def read(values: torch.Tensor) -> torch.Tensor:
        return torch.stack(_contrasts(values), 1)  # (N, 4, C): mean of upper, of lower; spread of upper, of lower

    plain, brighter, rougher = read(maps), read(maps + 3), read(maps * 4)
    torch.testing.assert_close(brighter, plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rougher[:, 2:], plain[:, 2:], atol=0.02, rtol=0)  # up to the 0.01 for flat maps
    forged = maps.clone()
    forged[:, :, lower] *= 0.5
    changed = read(forged) - plain
    torch.testing.assert_close(changed[:, 3], torch.full((2, 3), -np.log(2.0)), atol=0.02, rtol=0)
    torch.testing.assert_close(changed[:, [0, 2]], torch.zeros(2, 2, 3), atol=1e-5, rtol=0)


def test_contrasts_follow_the_statistics_of_their_level() -> None:
    stream, without = made(contrasts=LEVELS[:1]).eval(), made().eval()
    without.encoder.load_state_dict(stream.encoder.state_dict())
    with torch.inference_mode():
        found, plain = stream.features(CROPS), without.features(CROPS)
    channels = (found.shape[1] - plain.shape[1]) // 4
    first = 2 * channels
    torch.testing.assert_close(found[:, :first], plain[:, :first])
    torch.testing.assert_close(found[:, first + 4 * channels :], plain[:, first:])
    assert found[:, first : first + 4 * channels].std(0).max() > 0.01
    session = onnxruntime.InferenceSession(_to_onnx(stream, CROPS[:2].numpy(), False))
    with torch.inference_mode():
        expected = stream(CROPS).numpy()
    np.testing.assert_allclose(session.run(None, {"input": CROPS.numpy()})[0], expected, atol=PARITY_TOLERANCE)


def test_contrasts_are_levels() -> None:
    with pytest.raises(ConfigError, match=r"contrasts: blocks\.4 must also be named in levels"):
        VisualConfig(levels=("blocks.1",), contrasts=("blocks.4",))


@pytest.mark.parametrize("levels", [("blocks.9",), ("blocks.1", "layer1"), ("blocks.1 ",)])
def test_an_unknown_level_is_named(levels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"visual\.levels.*no '{levels[-1]}'.*blocks\.1"):
        made(levels=levels)


def test_without_levels_the_encoder_pools_itself() -> None:
    stream = made(levels=()).eval()
    with torch.inference_mode():
        x = (CROPS.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        torch.testing.assert_close(stream.features(CROPS), stream.encoder(x))
    assert stream.head.in_features == stream.encoder.head_hidden_size


def test_a_flat_picture_gives_finite_gradients() -> None:
    stream = made(tune="all")
    stream(torch.full((2, 32, 32, 3), 90.0)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stream.parameters() if p.grad is not None)


# -- frozen


@pytest.mark.parametrize("levels", [(), LEVELS])
def test_a_frozen_encoder_starts_as_the_file_has_it(tmp_path: Path, levels: tuple[str, ...]) -> None:
    donor = made(1, levels=()).encoder.state_dict()
    path = tmp_path / "encoder.safetensors"
    save_file({k: v.contiguous() for k, v in donor.items() if not k.endswith("num_batches_tracked")}, str(path))
    stream = VisualStream(dataclasses.replace(PROBE, levels=levels, pretrained=str(path)))
    for key, value in stream.encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, donor[key.removeprefix("maps.")], atol=0, rtol=0, msg=key)


def train_by_steps(stream: VisualStream, checkpoint: Path) -> VisualStream:
    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return masked_bce(module(batch["crops"]), batch["labels"], 0.0)

    config = dataclasses.replace(LOOP, steps=3)
    options = {"fabric": FABRIC, "seed": 1, "name": "t", "workers": 0}
    return fit(stream, make_batch, loss, config, checkpoint=checkpoint, **options)


@pytest.mark.parametrize("levels", [(), LEVELS])
def test_the_loop_leaves_a_frozen_encoder_as_it_was(tmp_path: Path, levels: tuple[str, ...]) -> None:
    stream = made(levels=levels)
    before = state_of(stream)
    after = train_by_steps(stream, tmp_path / "a.ckpt")
    for module in (after, stream):  # the average and what was averaged
        moved = {key for key, value in module.state_dict().items() if not value.equal(before[key])}
        assert {"head.weight", "head.bias", "standard.running_mean", "standard.running_var"} <= moved
        assert not [key for key in moved if key.startswith("encoder.")]


def test_an_encoder_that_is_not_frozen_learns(tmp_path: Path) -> None:
    stream = made(tune="all")
    before = state_of(stream)
    after = train_by_steps(stream, tmp_path / "a.ckpt").state_dict()
    moved = {
        key.rpartition(".")[2] for key in after if key.startswith("encoder.") and not after[key].equal(before[key])
    }
    assert {"weight", "running_mean", "running_var"} <= moved


def test_a_frozen_encoder_is_never_in_training_mode() -> None:
    stream = made().eval()
    stream.train()
    assert stream.training
    assert stream.dropout.training
    assert not any(module.training for module in stream.encoder.modules())
    assert not any(p.requires_grad for p in stream.encoder.parameters())
    assert all(p.requires_grad for p in stream.head.parameters())


# -- the features


def test_features_are_those_of_every_batch(drawn: ProbeSet) -> None:
    module = made().eval()
    batches = [make_batch(step, 0, 1) for step in range(LOOP.steps)]
    with torch.inference_mode():
        features = torch.cat([module.features(batch["crops"]) for batch in batches])
    torch.testing.assert_close(drawn.features, features, atol=1e-3, rtol=1e-3)  # stored as 16-bit floats
    assert drawn.features.dtype == torch.float32
    assert drawn.labels.equal(torch.cat([batch["labels"] for batch in batches]))
    np.testing.assert_array_equal(drawn.files, np.tile(FILES, LOOP.steps))
    assert set(drawn.sources[drawn.files % 2 == 0]) == {"first"}
    assert set(drawn.sources[drawn.files % 2 == 1]) == {"second"}


def test_drawing_features_moves_nothing_in_the_encoder(make_set: MakeSet, tmp_path: Path) -> None:
    module = made()
    before = state_of(module)
    make_set(tmp_path / "a.probe", module, config=dataclasses.replace(LOOP, steps=2))
    torch.testing.assert_close(dict(module.state_dict()), before, atol=0, rtol=0)


def test_a_run_sees_only_what_is_of_its_files(drawn: ProbeSet) -> None:
    other = ProbeSet(drawn.features + 1, drawn.labels, drawn.files + 10, drawn.sources + " copied")
    mine = ProbeSet.of([drawn, other], part_of([1, 3, 12]))
    assert set(mine.files) == {1, 3, 12}
    inside, beside = np.isin(drawn.files, [1, 3]), other.files == 12
    assert mine.features.equal(torch.cat([drawn.features[inside], other.features[beside]]))
    assert mine.labels.equal(torch.cat([drawn.labels[inside], drawn.labels[beside]]))
    assert list(mine.sources) == [*drawn.sources[inside], *other.sources[beside]]
    assert len(ProbeSet.of([drawn, other], part_of([7])).labels) == 0


class Killed(Exception):
    pass


def test_two_runs_are_equal_and_a_killed_one_begins_again(make_set: MakeSet, drawn: ProbeSet, tmp_path: Path) -> None:
    def dies(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        if step == 2:
            raise Killed
        return make_batch(step, part, parts)

    with pytest.raises(Killed):
        make_set(tmp_path / "a.probe", batches=dies)
    assert not list(tmp_path.iterdir())
    again = make_set(tmp_path / "a.probe")
    assert again.features.equal(drawn.features)
    assert again.labels.equal(drawn.labels)
    one, two = (fit_head(made(seed), again, LOOP) for seed in (0, 5))
    for name in ("weight", "bias"):
        assert getattr(one.head, name).equal(getattr(two.head, name)), "the head does not depend on where it starts"


def test_parts_make_the_whole_batch(make_set: MakeSet, drawn: ProbeSet, tmp_path: Path) -> None:
    parted = make_set(tmp_path / "a.probe", config=dataclasses.replace(LOOP, batch_size=16, accumulate=4))
    torch.testing.assert_close(parted.features, drawn.features, atol=2e-3, rtol=2e-3)
    assert parted.labels.equal(drawn.labels)


# -- the head


def standardised(module: VisualStream, probe: ProbeSet) -> torch.Tensor:
    with torch.no_grad():
        return module.standard(probe.features).double()


def test_the_fit_changes_head_and_standardisation_only(fitted: VisualStream) -> None:
    before = made().state_dict()
    moved = {key for key, value in fitted.state_dict().items() if not value.equal(before[key])}
    changed = {"head.weight", "head.bias", "standard.running_mean", "standard.running_var"}
    assert moved - {"standard.num_batches_tracked"} == changed
    assert not fitted.training


def test_training_features_are_standardised(drawn: ProbeSet) -> None:
    large = dataclasses.replace(drawn, features=100 * drawn.features)  # beside which the epsilon is next to nothing
    x = standardised(fit_head(made(), large, LOOP), large)
    varied = large.features.double().var(0, unbiased=False) > 1e-2
    assert varied.double().mean() > 0.3
    torch.testing.assert_close(x.mean(0), torch.zeros_like(x[0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(x.var(0, unbiased=False)[varied], torch.ones_like(x[0, varied]), atol=3e-3, rtol=0)


def test_the_head_is_at_the_optimum(fitted: VisualStream, drawn: ProbeSet) -> None:
    x = standardised(fitted, drawn)
    head = nn.Linear(x.shape[1], 1).double()
    head.load_state_dict(fitted.head.state_dict())

    def loss() -> torch.Tensor:
        known = masked_bce(head(x).squeeze(1), drawn.labels.double(), 0.0)
        return known + LOOP.weight_decay / 2 * head.weight.square().sum()

    reached = loss()
    reached.backward()
    gradient = torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None])
    assert gradient.norm() < 1e-3
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
    assert reached < 0.9 * loss(), "chance would be at an optimum too, had the features nothing to say"


def test_the_head_is_the_logistic_regression(fitted: VisualStream, drawn: ProbeSet) -> None:
    x, y = standardised(fitted, drawn).numpy(), drawn.labels.numpy()
    known = y >= 0
    assert 0 < (~known).sum() < len(known)
    # scikit-learn sums the losses and multiplies them by C; here they are averaged.
    regression = LogisticRegression(C=1 / (LOOP.weight_decay * known.sum()), tol=1e-8, max_iter=5000)
    regression.fit(x[known], y[known])
    weight, bias = fitted.head.weight.detach().numpy(), fitted.head.bias.detach().numpy()
    np.testing.assert_allclose(weight, regression.coef_, atol=5e-3)
    np.testing.assert_allclose(bias, regression.intercept_, atol=5e-3)
    np.testing.assert_allclose(x @ weight[0] + bias, regression.decision_function(x), atol=2e-2)
    assert regression.score(x[known], y[known]) > 0.6


def test_penalty_and_smoothing_hold_the_head_back(fitted: VisualStream, drawn: ProbeSet) -> None:
    strong = fit_head(made(), drawn, dataclasses.replace(LOOP, weight_decay=50.0))
    smooth = fit_head(made(), drawn, dataclasses.replace(LOOP, label_smoothing=0.5))
    assert strong.head.weight.norm() < 0.3 * fitted.head.weight.norm()
    assert smooth.head.weight.norm() < 0.9 * fitted.head.weight.norm()


def test_biases_of_the_sources_leave_what_differs_inside_them(drawn: ProbeSet) -> None:
    """The first feature says which of two sources a row is of, and so nearly its label, which is of no use for a third
    source; the second says a little of the label inside each."""
    rng = np.random.default_rng(0)
    rows = 4000
    source = rng.integers(0, 2, rows)
    labels = (rng.random(rows) < np.where(source == 1, 0.9, 0.1)).astype(np.float32)
    features = torch.zeros(rows, drawn.features.shape[1])
    features[:, 0] = torch.from_numpy(source + 0.1 * rng.standard_normal(rows))
    features[:, 1] = torch.from_numpy(labels + rng.standard_normal(rows))
    probe = ProbeSet(features, torch.from_numpy(labels), np.arange(rows), source.astype(str))
    without, within = (
        fit_head(made(), probe, dataclasses.replace(LOOP, weight_decay=0.01, source_biases=penalty)).head.weight[0]
        for penalty in (0.0, 1e-4)
    )
    assert without[0] > 2 * without[1]
    assert abs(within[0]) < 0.2 * within[1]
    assert within[1] > 0.9 * without[1]


def test_the_fitted_stream_tells_other_crops_apart(fitted: VisualStream) -> None:
    """Through the whole forward: crops in, logits out."""
    batches = [make_batch(step, 0, 1) for step in range(20, 26)]
    with torch.inference_mode():
        logits = torch.cat([fitted(batch["crops"]) for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    assert logits[labels == 1].mean() > logits[labels == 0].mean() + 0.2


# -- the file of features


def test_features_that_are_there_are_read(make_set: MakeSet, folder: Path, drawn: ProbeSet) -> None:
    config = dataclasses.replace(LOOP, checkpoint_every=7)  # how often a loop is saved changes nothing
    read = make_set(folder / "visual.probe", made(9), never, config)
    assert read.features.equal(drawn.features)
    assert read.labels.equal(drawn.labels)
    np.testing.assert_array_equal(read.files, drawn.files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, r"seed 3 \(here 4\)"),
        ({"config": dataclasses.replace(LOOP, forged=0.1)}, r"forged 0\.5 \(here 0\.1\)"),
        ({"config": dataclasses.replace(LOOP, steps=11)}, r"steps 10 \(here 11\)"),
    ],
)
def test_features_of_another_run_are_refused(
    make_set: MakeSet, folder: Path, drawn: ProbeSet, options: dict, message: str
) -> None:
    before = (folder / "visual.probe").read_bytes()
    with pytest.raises(ModelError, match=f"{message}.*name a new --run folder"):
        make_set(folder / "visual.probe", batches=never, **options)
    assert (folder / "visual.probe").read_bytes() == before


@pytest.mark.parametrize("keep", [0, 1000, -10])
def test_a_damaged_file_is_refused(make_set: MakeSet, folder: Path, drawn: ProbeSet, tmp_path: Path, keep: int) -> None:
    (tmp_path / "a.probe").write_bytes((folder / "visual.probe").read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"damaged.*name a new --run folder"):
        make_set(tmp_path / "a.probe", batches=never)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(make_set: MakeSet, tmp_path: Path, value: float) -> None:
    module = made()
    with torch.no_grad():
        next(module.encoder.parameters())[0] = value
    with pytest.raises(ModelError, match=r"not finite.*weights it starts with"):
        make_set(tmp_path / "a.probe", module, config=dataclasses.replace(LOOP, steps=1))
    assert not list(tmp_path.iterdir())


# -- export


def test_level_statistics_export(fitted: VisualStream) -> None:
    graph = _to_onnx(fitted, CROPS[:2].numpy(), False)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    flat = torch.full((1, 32, 32, 3), 77, dtype=torch.uint8)  # where the deviations are next to nothing
    for crops in (CROPS, CROPS[:1], flat):
        with torch.inference_mode():
            expected = fitted(crops).numpy()
        found = session.run(None, {"input": crops.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=PARITY_TOLERANCE, rtol=1e-4)


# -- how a run comes to it


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_decides_who_trains(
    monkeypatch: pytest.MonkeyPatch, drawn: ProbeSet, tmp_path: Path, frozen: bool
) -> None:
    """A run's head is fitted on what is of its own files, and nothing is trained step by step."""
    called: list[tuple] = []

    def fit_head_(module: nn.Module, probe: ProbeSet, *_: object) -> nn.Module:
        called.append(("fit_head", set(probe.files)))
        return module

    def fit_(module: nn.Module, *_: object, **options: Any) -> nn.Module:
        called.append(("fit", options["checkpoint"]))
        return module

    monkeypatch.setattr(stream_training, "fit_head", fit_head_)
    monkeypatch.setattr(stream_training, "fit", fit_)
    monkeypatch.setattr(stream_training, "active", lambda *_: ["visual"])
    monkeypatch.setattr(stream_training, "batches_of", lambda *_, **__: make_batch)
    config = TrainConfig(
        model=ModelConfig(visual=dataclasses.replace(PROBE, tune="none" if frozen else "all")), visual=LOOP
    )
    part = part_of([0, 2])
    probes = {"visual": [drawn]} if frozen else {}
    model = stream_training.train_streams(config, part, part, tmp_path, FABRIC, probes=probes)
    assert called == [("fit_head", {0, 2}) if frozen else ("fit", tmp_path / "visual.ckpt")]
    assert isinstance(model, Model)
    assert not model.training


def test_every_fold_has_its_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths: list[Path] = []
    monkeypatch.setattr(stream_training, "probe_set", lambda *_, path, **__: paths.append(path))
    monkeypatch.setattr(stream_training, "batches_of", lambda *_, **__: make_batch)
    speech = AudioConfig(encoder="whisper-tiny.en", frozen=True, levels=("stem",))
    config = TrainConfig(model=ModelConfig(visual=PROBE, audio=speech), visual=LOOP)
    sets = stream_training.probe_sets(config, [PART, PART], tmp_path, FABRIC)
    assert paths == [tmp_path / f"fold{k}" / f"{name}.probe" for name in ("visual", "audio") for k in range(2)]
    assert {name: len(found) for name, found in sets.items()} == {"visual": 2, "audio": 2}
    plain = dataclasses.replace(config, model=ModelConfig(visual=dataclasses.replace(PROBE, tune="all")))
    assert stream_training.probe_sets(plain, [PART, PART], tmp_path, FABRIC) == {}


def prepared(named: str | None = None, audio: AudioConfig | None = None, **visual: Any) -> TrainConfig:
    model = ModelConfig(visual=dataclasses.replace(PROBE, **visual), audio=audio or AudioConfig())
    config = TrainConfig(model=model)
    cache: Any = SimpleNamespace(config=config.preprocess, version=PREPROCESS_VERSION)
    return _prepared(config, cache, {"visual": named})


def test_a_frozen_encoder_needs_weights_to_start_from() -> None:
    with pytest.raises(ConfigError, match=r"tune: none.*--pretrained"):
        prepared()
    assert prepared("encoder.safetensors").model.visual.pretrained == "encoder.safetensors"
    assert prepared(None, pretrained=True).model.visual.frozen
    assert prepared(tune="all").model.visual.pretrained is False
    with pytest.raises(ConfigError, match=r"whisper-tiny.en.*convert_whisper.py.*--pretrained-audio"):
        prepared(tune="all", audio=AudioConfig(encoder="whisper-tiny.en"))
    assert prepared(tune="all", audio=AudioConfig(encoder="whisper-tiny.en", pretrained="w")).model.audio


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual": PairLoopConfig(evaluate_every=10)}, r"model\.visual is frozen.*evaluate_every"),
        ({"joint": StreamLoopConfig(steps=10)}, r"frozen.*joint\.steps"),
        ({"release": True, "sync": StreamLoopConfig(evaluate_every=10)}, r"sync\.evaluate_every.*release"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(model=ModelConfig(visual=PROBE), **options)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_false_alarms_are_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="max_false_alarms"):
        FusionFitConfig(max_false_alarms=share)
    assert FusionFitConfig(max_false_alarms=0.0).max_false_alarms == 0


def test_a_level_without_maps_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"visual\.levels: 'global_pool' gives no maps"):
        VisualStream(VisualConfig(encoder="test_efficientnet", levels=("global_pool",)))


# -- perceptrons


def perceptrons(seed: int = 0) -> AudioStream:
    """A stream whose encoder hands its windows' band means on."""
    torch.manual_seed(seed)
    config = AudioConfig(encoder="whisper-tiny.en", frozen=True, levels=("stem",), hidden=32, heads=2, dropout=0.0)
    stream = AudioStream(config)
    return stream.eval()


def rings(seed: int) -> ProbeSet:
    """Two classes that no line parts: near the middle, and around it."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5000, perceptrons().encoder.width, generator=generator)
    features[:, 2:] = 0
    labels = (features[:, :2].norm(dim=1) > 1.2).float()
    return ProbeSet(features, labels, np.zeros(5000, np.int64), np.full(5000, "one"))


def test_perceptrons_learn_what_no_line_parts() -> None:
    config = PairLoopConfig(weight_decay=0.01, label_smoothing=0.0)
    stream = fit_head(perceptrons(), rings(1), config)
    test = rings(2)
    with torch.inference_mode():
        logits = stream.head(stream.standard(test.features)).squeeze(1)
    assert not stream.training
    assert ((logits > 0) == (test.labels > 0)).float().mean() > 0.85
    linear = fit_head(
        AudioStream(AudioConfig(encoder="whisper-tiny.en", frozen=True, levels=("stem",))), rings(1), config
    )
    with torch.inference_mode():
        guess = linear.head(linear.standard(test.features)).squeeze(1)
    assert ((guess > 0) == (test.labels > 0)).float().mean() < 0.75


def test_perceptrons_follow_from_the_seed_alone() -> None:
    config = PairLoopConfig(weight_decay=0.01)
    starts, seeds = (0, 7, 0), (3, 3, 4)
    first, again, other = (
        fit_head(perceptrons(start), rings(1), config, seed).head.state_dict()
        for start, seed in zip(starts, seeds, strict=True)
    )
    assert all(torch.equal(value, again[key]) for key, value in first.items()), "whatever the head started as"
    assert any(not torch.equal(value, other[key]) for key, value in first.items())
    assert not torch.equal(first["members.0.1.weight"], first["members.1.1.weight"]), "its members differ"
