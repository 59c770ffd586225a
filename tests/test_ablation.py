"""Ablations: what a file's probability would be with fewer streams; NaN where nothing is left to judge by."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from fusion_rows import Data, separable

from avdetect.config import FusionFitConfig, ModelConfig
from avdetect.pooling import FEATURES, NUM_VALUES
from avdetect.training.out_of_fold import STREAMS, ablations, only

torch.set_num_threads(1)  # networks this small only wait for a second thread
FIT = FusionFitConfig(steps=5, lr=0.05)
MODEL = ModelConfig()
COLUMNS = {  # of each stream: its values and its bit
    "visual": ["visual_logit", "has_visual"],
    "audio": ["audio_logit", "has_audio"],
    "sync": ["sync_confidence", "sync_min_distance", "sync_match", "sync_abs_offset", "has_sync"],
}
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(STREAMS, size)]


@pytest.fixture(scope="module")
def data() -> Data:
    return separable()


@pytest.fixture(scope="module")
def found(data: Data) -> dict[str, np.ndarray]:
    table, features = data
    before = features.copy()
    result = ablations(table, features, MODEL, FIT, 0, "group")
    np.testing.assert_array_equal(features, before, err_msg="the features were changed")
    return result


def streams_of(name: str) -> tuple[str, ...]:
    label = name.partition(":")[0]
    return STREAMS if label == "all" else tuple(label.split("+"))


@pytest.mark.parametrize("streams", [(), ("audio",), ("visual", "sync")], ids="+".join)
def test_only_hides_exactly_the_other_streams(streams: tuple[str, ...]) -> None:
    features = np.random.default_rng(0).uniform(0.5, 2, (5, len(FEATURES))).astype(np.float32)
    kept = pd.DataFrame(only(features, streams), columns=list(FEATURES))
    for stream, columns in COLUMNS.items():
        expected = pd.DataFrame(features, columns=list(FEATURES))[columns] if stream in streams else 0 * kept[columns]
        pd.testing.assert_frame_equal(kept[columns], expected)


def test_every_combination_is_there_with_every_fusion(found: dict[str, np.ndarray]) -> None:
    labels = ["all" if subset == STREAMS else "+".join(subset) for subset in SUBSETS]
    expected = {f"{label}:{kind}" for label in labels for kind in ("logistic", "parts")} | {"all:max"}
    assert set(found) == expected


def test_a_file_has_a_probability_where_it_has_a_stream(data: Data, found: dict[str, np.ndarray]) -> None:
    features = pd.DataFrame(data[1], columns=list(FEATURES))
    alone = np.stack([found[f"{name}:logistic"] for name in STREAMS])
    np.testing.assert_array_equal(found["all:max"], np.fmax.reduce(alone))
    for name, p in found.items():
        judged = features[[f"has_{stream}" for stream in streams_of(name)]].any(axis=1).to_numpy()
        assert 0 < judged.sum() < len(judged)
        np.testing.assert_array_equal(np.isfinite(p), judged, err_msg=name)
        assert ((p[judged] > 0) & (p[judged] < 1)).all()


def test_one_stream_does_not_know_of_the_others(data: Data, found: dict[str, np.ndarray]) -> None:
    table, features = data
    changed = features.copy()
    rng = np.random.default_rng(5)
    changed[:, 1:NUM_VALUES] = rng.standard_normal(changed[:, 1:NUM_VALUES].shape)
    changed[:, NUM_VALUES + 1 :] = rng.integers(0, 2, changed[:, NUM_VALUES + 1 :].shape)
    again = ablations(table, changed, dataclasses.replace(MODEL, streams=("visual",)), FIT, 0, "group")
    assert set(again) == {"all:logistic", "all:parts"}
    np.testing.assert_array_equal(again["all:logistic"], found["visual:logistic"])


def test_what_cannot_be_fitted_is_left_out(data: Data) -> None:
    """Sync of reals only: alone it could not be calibrated, beside the others it says nothing."""
    table, features = data
    scarce = features.copy()
    hidden = (table["fake"] == 1).to_numpy(bool)
    scarce[hidden] = only(scarce[hidden], ("visual", "audio"))
    left = ablations(table, scarce, MODEL, dataclasses.replace(FIT, steps=2), 0, "group")
    assert "sync:logistic" not in left
    assert {"visual:logistic", "audio:logistic", "visual+audio:logistic", "all:max"} <= set(left)
    highest = np.fmax(left["visual:logistic"], left["audio:logistic"])
    np.testing.assert_array_equal(left["all:max"], highest, err_msg="of those that there are")
