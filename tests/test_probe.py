"""The probe: features that are drawn once, of whose files a head sees only its own, and a head at its optimum."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from loop_runs import FABRIC, Killed, dies_at, never
from sklearn.linear_model import LogisticRegression
from torch import nn

from avdetect.config import PairLoopConfig, View, VisualConfig
from avdetect.errors import ModelError
from avdetect.streams.head import PerceptronHead, Standard
from avdetect.streams.visual import VisualStream
from avdetect.training.probe import ProbeSet, fit_head, probe_set

torch.set_num_threads(1)  # networks this small only wait for a second thread
ENCODER = "test_efficientnet"
LEVELS = ("blocks.0", "blocks.2")
PROBE = VisualConfig(encoder=ENCODER, levels=LEVELS, tune="none", dropout=0.5)
LOOP = PairLoopConfig(steps=8, batch_size=16, weight_decay=0.05, label_smoothing=0.0, warmup_steps=0)
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
    clips = torch.arange(16) % CLIPS  # two neighbouring clips are of one file
    whole = {"crops": torch.from_numpy(np.stack(crops)), "labels": torch.from_numpy(labels), "clips": clips}
    return {name: values[part * 16 // parts : (part + 1) * 16 // parts] for name, values in whole.items()}


FILES = np.arange(16) % CLIPS // 2  # of a batch


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


def make_set(
    path: Path, module: VisualStream | None = None, batches=make_batch, config=LOOP, seed: int = 3
) -> ProbeSet:
    """`probe_set` on the batches of this file instead of an archive's."""
    options = {"fabric": FABRIC, "seed": seed, "name": "t", "workers": 0}
    return probe_set(module or made(), batches, PART, config, path=path, **options)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> ProbeSet:
    return make_set(tmp_path_factory.mktemp("probe") / "visual.probe")


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


def test_an_encoder_gets_all_that_a_batch_holds_beside_labels_and_clips(tmp_path: Path) -> None:
    class Sums(nn.Module):
        def features(self, crops: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return torch.stack([crops.flatten(1).float().mean(1), rows.float()], dim=1)

    def with_rows(step: int, part: int, parts: int) -> dict[str, torch.Tensor]:
        return make_batch(step, part, parts) | {"rows": torch.arange(16)}

    found = make_set(tmp_path / "a.probe", Sums(), with_rows)
    assert found.features[:, 1].tolist() == list(range(16)) * LOOP.steps


def test_a_run_sees_only_what_is_of_its_files(drawn: ProbeSet) -> None:
    other = ProbeSet(drawn.features + 1, drawn.labels, drawn.files + 10, drawn.sources + " copied")
    mine = ProbeSet.of([drawn, other], part_of([1, 3, 12]))
    assert set(mine.files) == {1, 3, 12}
    inside, beside = np.isin(drawn.files, [1, 3]), other.files == 12
    assert mine.features.equal(torch.cat([drawn.features[inside], other.features[beside]]))
    assert mine.labels.equal(torch.cat([drawn.labels[inside], drawn.labels[beside]]))
    assert list(mine.sources) == [*drawn.sources[inside], *other.sources[beside]]
    assert len(ProbeSet.of([drawn, other], part_of([7])).labels) == 0


def test_a_killed_run_begins_again_and_another_is_refused(drawn: ProbeSet, tmp_path: Path) -> None:
    path = tmp_path / "a.probe"
    with pytest.raises(Killed):
        make_set(path, batches=dies_at(2, make_batch))
    assert not list(tmp_path.iterdir())
    make_set(path)
    again = make_set(path, made(9), never, dataclasses.replace(LOOP, checkpoint_every=7))
    assert again.features.equal(drawn.features)
    assert again.labels.equal(drawn.labels)
    one, two = (fit_head(made(seed), again, LOOP) for seed in (0, 5))
    for name in ("weight", "bias"):
        assert getattr(one.head, name).equal(getattr(two.head, name)), "the head does not depend on where it starts"
    before = path.read_bytes()
    for options, message in (
        ({"seed": 4}, r"seed 3 \(here 4\)"),
        ({"config": dataclasses.replace(LOOP, forged=0.1)}, r"forged 0\.5 \(here 0\.1\)"),
    ):
        with pytest.raises(ModelError, match=f"{message}.*name a new --run folder"):
            make_set(path, batches=never, **options)
    assert path.read_bytes() == before


def test_the_head_is_the_logistic_regression(drawn: ProbeSet) -> None:
    fitted = fit_head(made(), drawn, LOOP)
    with torch.no_grad():
        x, y = fitted.standard(drawn.features).double().numpy(), drawn.labels.numpy()
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


def test_biases_of_the_sources_leave_what_differs_inside_them(drawn: ProbeSet) -> None:
    """The first feature says which of two sources a row is of, and so nearly its label, which is of no use for a third
    source; the second says a little of the label inside each."""
    rng = np.random.default_rng(0)
    rows = 2000
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


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module = made()
    with torch.no_grad():
        next(module.encoder.parameters())[0] = float("nan")
    with pytest.raises(ModelError, match=r"not finite.*weights it starts with"):
        make_set(tmp_path / "a.probe", module, config=dataclasses.replace(LOOP, steps=1))
    assert not list(tmp_path.iterdir())


def test_each_block_gets_the_head_that_it_would_get_alone(tmp_path: Path) -> None:
    two = (View(), View(encoder="test_resnet", share=0.5))
    whole = made(views=two, levels=())
    probe = make_set(tmp_path / "a.probe", whole)
    fit_head(whole, probe, LOOP)
    biases = []
    seen, weights = probe.features.split(whole.blocks, 1), whole.head.weight.split(whole.blocks, 1)
    for features, weight in zip(seen, weights, strict=True):
        alone = OnPlane(nn.Linear(features.shape[1], 1))
        fit_head(alone, dataclasses.replace(probe, features=features), LOOP)
        torch.testing.assert_close(len(two) * weight, alone.head.weight)
        biases.append(alone.head.bias)
    assert len({*whole.blocks}) == 2, "of different width"
    torch.testing.assert_close(whole.head.bias, torch.stack(biases).mean(0))


class OnPlane(nn.Module):
    """What `fit_head` knows of a stream."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        width = head.in_features if isinstance(head, nn.Linear) else 2
        self.standard, self.head, self.blocks = Standard(width), head, [width]


def rings(seed: int) -> ProbeSet:
    """Two classes that no line parts: near the middle, and around it."""
    features = torch.randn(1500, 2, generator=torch.Generator().manual_seed(seed))
    labels = (features.norm(dim=1) > 1.2).float()
    return ProbeSet(features, labels, np.zeros(1500, np.int64), np.full(1500, "one"))


def test_perceptrons_learn_what_no_line_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.training.probe.FIT_RATE", 2e-2)  # for a tenth of the rows that there would be
    train, test = rings(1), rings(2)

    def fitted(head: nn.Module) -> tuple[dict[str, torch.Tensor], float]:
        """The head, and the share of the test rows that it is right on."""
        stream = fit_head(OnPlane(head), train, PairLoopConfig(weight_decay=0.01, label_smoothing=0.0))
        assert not stream.training
        with torch.inference_mode():
            logits = stream.head(stream.standard(test.features)).squeeze(1)
        return stream.head.state_dict(), ((logits > 0) == (test.labels > 0)).float().mean().item()

    (head, right), (again, _) = (fitted(PerceptronHead(2, hidden=32, count=2, dropout=0.0)) for _ in range(2))
    assert all(torch.equal(value, again[key]) for key, value in head.items()), "from the seed alone"
    assert not torch.equal(again["members.0.1.weight"], again["members.1.1.weight"]), "its members differ"
    assert right > 0.85
    assert fitted(nn.Linear(2, 1))[1] < 0.75
