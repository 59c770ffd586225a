"""Fitting the fusion: out-of-fold only, a calibration that tells the truth, a clip chosen on dev, fewer streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from avdetect.bundle import Calibration
from avdetect.config import FusionFitConfig, ModelConfig
from avdetect.datasets.manifest import validate
from avdetect.errors import ManifestError
from avdetect.pooling import FEATURES, NUM_VALUES, SyncReading, fusion_features
from avdetect.training import fusion as fusion_training
from avdetect.training.calibration import (
    CLIPS,
    UNCHANGED,
    best_threshold,
    choose_clip,
    measured_rates,
    thresholded,
    undecided_threshold,
    with_rates,
)
from avdetect.training.fusion import FittedFusion, Rows, class_weights, fit_candidates, label_matrix, logits_of
from avdetect.training.out_of_fold import STREAMS, ablations, only

torch.set_num_threads(1)  # networks this small only wait for a second thread
FIT = FusionFitConfig(steps=2)
MODEL = ModelConfig()
Data = tuple[pd.DataFrame, np.ndarray]


def separable(rows: int = 210) -> Data:
    """Faces, voices and matches, each forged or not; the streams' values follow the labels, with noise.

    Every stream is missing somewhere, and all of them are in row 35 and its multiples.
    """
    rng, number = np.random.default_rng(0), np.arange(rows)
    video, audio, swapped = rng.integers(0, 2, (3, rows))
    present = np.stack([number % 7 != 0, number % 5 != 0, number % 3 == 1], 1)
    present[::35] = False
    values = np.repeat(np.stack([2 * video - 1, 2 * audio - 1, 1 - 2 * swapped], 1), [1, 1, 4], axis=1)
    there = np.repeat(present, [1, 1, 4], axis=1)
    features = np.concatenate([there * (1.5 * values + rng.standard_normal((rows, 6))), present], 1).astype(np.float32)
    known = ["" if i % 11 == 0 else label for i, label in enumerate(video)]
    table = pd.DataFrame({"fake": video | audio | swapped, "video_fake": known, "audio_fake": audio})
    table["path"], table["group"] = [f"{i}.mp4" for i in number], [f"p{i // 3}" for i in number]
    return validate(table.assign(dataset=np.where(number % 4 == 0, "small", "big"), split="train", method="")), features


def test_out_of_fold_logits_come_from_other_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    table, features = separable()
    number = {row.tobytes(): i for i, row in enumerate(features)}
    trained: list[set[int]] = []
    original = fusion_training.fit_logistic

    def spy(rows, *args):
        trained.append({number[row.tobytes()] for row in rows.features})
        return original(rows, *args)

    monkeypatch.setattr(fusion_training, "fit_logistic", spy)
    results = fit_candidates(table, features, MODEL, FIT, 0)
    judged = set(np.flatnonzero(features[:, NUM_VALUES:].any(axis=1)).tolist())
    assert len(trained) == 21, "twenty folds and all rows"
    assert trained[-1] == judged, "the fusion that is shipped saw every row that has a stream, and no other"
    held = [judged - rows for rows in trained[:-1]]
    assert set().union(*held) == judged
    for out, rows in zip(held, trained, strict=False):
        assert out
        assert not set(table["group"].iloc[sorted(out)]) & set(table["group"].iloc[sorted(rows)])
    assert [result.kind for result in results] == ["parts", "logistic"]
    for result in results:
        assert (result.oof_logits != 0).any(axis=1).all()


def test_an_output_without_both_classes_cannot_be_calibrated() -> None:
    table, features = separable(60)
    table["audio_fake"] = table["audio_fake"].where(table["audio_fake"] == 0)
    with pytest.raises(ManifestError, match="audio_fake"):
        fit_candidates(table, features, MODEL, FIT, 0)


def test_class_weights_balance_classes_generators_and_missing_streams() -> None:
    table, features = separable(100)
    features[:, NUM_VALUES:] = 1
    labels = label_matrix(table)
    weights = class_weights(table, labels, features)
    for column in range(3):
        real, fake = (weights[labels[:, column] == value, column].sum() for value in (0, 1))
        assert real == pytest.approx(fake, rel=1e-4)
        assert (weights[labels[:, column] < 0, column] == 0).all()
    small, video_fake = (table["dataset"] == "small").to_numpy(), labels[:, 0] == 1
    assert weights[small & video_fake, 0].min() > weights[~small & video_fake, 0].max()
    table, labels[:] = table.assign(dataset="one", method=""), np.arange(100)[:, None] % 2
    rare, fakes = np.arange(100) < 10, labels[:, 0] == 1
    weights = class_weights(table.assign(method=np.where(rare, "rare", "common")), labels, features)[:, 0]
    assert weights[fakes & rare].sum() == pytest.approx(weights[fakes & ~rare].sum(), rel=1e-4)
    features[6:, NUM_VALUES:] = [1, 0, 0]
    weights = class_weights(table, labels, features)
    assert weights[:6, 0].sum() == pytest.approx(weights[6:, 0].sum(), rel=1e-4), "files with a face and a voice"
    assert (weights[6:, 3] == 0).all(), "a part is not taught where its stream is missing"


def test_the_threshold_does_not_cut_through_equal_probabilities() -> None:
    """Clipped probabilities are equal: a cut at the clip calls all of them fake."""
    p = np.array([0.01] * 50 + [0.99] * 50, np.float32)
    y = np.array([0] * 48 + [1] * 52, np.float32)
    alike = np.ones(100, np.float32)
    assert best_threshold(p, y, alike) == best_threshold(p[::-1], y[::-1], alike) == pytest.approx(0.5)
    assert best_threshold(np.full(100, 0.5, np.float32), y, alike) == 0.5


@pytest.mark.parametrize("limit", [0.0, 0.1, 1.0])
def test_no_other_threshold_within_the_false_alarms_is_better(limit: float) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0.0, 1.0], 300).astype(np.float32)
    p = (1 / (1 + np.exp(-(0.8 * (2 * y - 1) + rng.standard_normal(600))))).astype(np.float32)
    w = np.where(y == 0, 1, rng.uniform(0.1, 2, 600)).astype(np.float32)

    def measured(cut: float) -> tuple[float, float]:
        """Share of false alarms, and accuracy."""
        called = p >= cut
        return called[y == 0].mean(), (w * (called == y)).sum() / w.sum()

    alarms, accuracy = measured(best_threshold(p, y, w, limit))
    assert alarms <= limit
    others = [measured(cut) for cut in np.linspace(0, 1.01, 400)]
    assert accuracy >= max(right for wrong, right in others if wrong <= limit) - 1e-6
    least = np.array([0.1, 0.2, 0.3, 0.9], np.float32), np.array([1, 1, 0, 0], np.float32), np.ones(4, np.float32)
    assert best_threshold(*least, 0.0) == 0.6, "a fake below all reals leaves the highest"


def test_half_of_the_missed_fakes_are_undecided() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.45], np.float32)
    y = np.array([1, 1, 1, 1, 0, 1, -1], np.float32)
    alike = np.ones(len(p), np.float32)
    assert undecided_threshold(p, y, alike, 0.8) == pytest.approx(0.3, abs=2e-4), "two of four are at or above it"
    assert undecided_threshold(p, y, np.array([9, 1, 1, 1, 1, 1, 1], np.float32), 0.8) == pytest.approx(0.1, abs=2e-4)
    assert undecided_threshold(p, y, alike, 0.05) == 0.05, "none is missed"
    assert undecided_threshold(p, y, np.where(p < 0.8, 0, alike), 0.8) == 0.8, "none that counts"


def test_measured_rates_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 3000).astype(np.float32)
    p = np.clip(1 / (1 + np.exp(-(2 * y - 1 + 1.5 * rng.standard_normal(3000)))), 0.05, 0.95).astype(np.float32)
    w = rng.uniform(0.1, 2, 3000).astype(np.float32)
    found = measured_rates(p, y, w)
    assert {0.5, 0.3, 0.2, 0.1, 0.05} <= {rate.reals for rate in found}
    assert [rate.probability for rate in found] == sorted(rate.probability for rate in found)
    for rate in found:
        reals, fakes = (np.average(p[y == value] >= rate.probability, weights=w[y == value]) for value in (0, 1))
        assert reals <= rate.reals + 1e-4
        assert rate.fakes == pytest.approx(fakes, abs=1e-4)
        if rate.reals in (0.5, 0.3, 0.2, 0.1, 0.05):
            lower = p[(y == 0) & (p < rate.probability)].max()
            assert rate.reals < np.average(p[y == 0] >= lower, weights=w[y == 0]), "the lowest that does"
    shares = [rate.fakes for rate in found]
    apart = -np.diff(shares[:-1])  # the last probability is the clip, which many share
    assert (apart >= 0).all()
    assert apart.max() < 0.06, "what is said of a probability is true of those just above it"


def test_the_rates_of_the_whole_hold_those_of_its_thresholds_in_order() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.array([[0], [1]], np.float32), (500, 4))
    logits = rng.normal(2 * labels - 1, 1).astype(np.float32)
    ones = np.ones_like(labels)
    calibration = thresholded(UNCHANGED, logits, labels, ones, 0.05)
    rates = with_rates(calibration, logits, labels, ones).rates["fake"]
    assert rates == tuple(sorted(rates, key=lambda rate: (rate.probability, -rate.reals)))
    (called,) = [rate for rate in rates if rate.probability == calibration.fake_threshold]
    p = calibration.probabilities(logits)[:, 0]
    alarms = (p[labels[:, 0] == 0] >= calibration.fake_threshold).mean()
    assert called.reals == pytest.approx(alarms, abs=1e-4)
    assert alarms <= 0.05


def test_the_clip_is_the_one_that_dev_likes_best() -> None:
    rng = np.random.default_rng(0)
    labels = np.full((2000, 4), -1, np.float32)
    labels[:, 0] = rng.integers(0, 2, 2000)
    sure = 12 * (2 * labels[:, :1] - 1) * np.ones((1, 4), np.float32)
    calibration = Calibration((1.0,) * 4, (0.0,) * 4, clip=1e-4, fake_threshold=0.9999, undecided_threshold=0.0)
    right, tried = choose_clip(calibration, sure, labels)
    assert right.clip == CLIPS[0], "always right: no reason to hold back"
    p = right.probabilities(sure)[:, 0]
    assert right.fake_threshold == p.max(), "within the clip, and still reached"
    assert p.min() < right.undecided_threshold < right.fake_threshold, "the floor is not undecided"
    assert list(tried) == list(CLIPS)
    wrong = np.where(rng.random((2000, 1)) < 0.05, -sure, sure)
    careful, tried = choose_clip(calibration, wrong, labels)
    assert careful.clip == CLIPS[-1] == 0.01, "right 19 times of 20: as careful as a ranking allows"
    assert tried[0.01] == min(tried.values())
    labels[:, 0] = 1
    with pytest.raises(ManifestError, match="clip"):
        choose_clip(calibration, sure, labels)


def test_a_shift_needs_a_bias_and_no_shift_none() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, (4000, 1)), 4, 1).astype(np.float32)
    ones, half = np.ones_like(labels), np.arange(4000) % 2 == 0
    logits = (2 * labels - 1) * 2 + rng.standard_normal((4000, 4)).astype(np.float32)
    calibration, how = fusion_training.calibrate(logits + 3, labels, ones, half)
    assert how == "platt"
    assert calibration.bias[0] < -3
    found = []
    for _ in range(20):  # so few rows that the bias of one half is mostly chance for the other
        few = rng.permutation(4000)[:40]
        found.append(fusion_training.calibrate(logits[few], labels[few], ones[few], half[:40]))
    plain = [calibration for calibration, how in found if how == "temperature"]
    assert len(plain) >= 3
    assert all(calibration.bias == (0.0,) * 4 for calibration in plain)


def test_the_noisy_or_learns_from_differences_within_sources() -> None:
    """One source is all fake and scores low, the other all real but for a few: pooled, the slope would be negative."""
    rng = np.random.default_rng(0)
    source = np.arange(400) % 2
    fake = np.where(source == 0, rng.random(400) < 0.9, rng.random(400) < 0.1).astype(np.float32)
    value = fake + np.where(source == 0, -4.0, 4.0) + 0.3 * rng.standard_normal(400)
    features = np.stack([fusion_features(float(v), None, None) for v in value])
    labels = np.stack([fake, fake, *np.full((2, 400), -1)], 1).astype(np.float32)
    rows = Rows(features, labels, np.ones_like(labels), source)
    silent = fusion_training.silent_parts(rows)
    assert silent == ("audio", "sync"), "no voice and no match was judged"
    fitted = fusion_training.fit_parts(rows, dataclasses.replace(MODEL.fusion, silent=silent))
    assert fitted.slope[0] > 0.5
    assert fitted.slope[1] == fitted.slope[2] == 0
    p = 1 / (1 + np.exp(-logits_of(fitted, features)))
    assert p[:, 1].mean() == pytest.approx(fake.mean(), abs=1e-3)
    np.testing.assert_allclose(p[:, 0], p[:, 1], atol=1e-6)


def three_causes(rows: int = 900, match: float = 1.0) -> Data:
    """Of each of nine sources a third is real; the others have a forged face, a forged voice or another's voice.
    Sources differ in level. match: how much lower the match of a mismatch is, in its standard deviations."""
    rng = np.random.default_rng(0)
    kind, source = rng.choice(6, rows), np.arange(rows) % 9
    video, audio, mismatch = (np.isin(kind, kinds).astype(int) for kinds in ([2], [3], [4, 5]))
    level = 0.4 * rng.standard_normal((9, 3))[source]
    forged = np.stack([2 * video, 2 * audio, -match * mismatch], 1)
    face, voice, sync = (forged + level + rng.normal(size=(rows, 3))).T
    readings = [SyncReading(0.0, 0.3, 0.7, 0.7, 0.3 + 0.1 * float(s), ()) for s in sync]
    features = np.stack([fusion_features(*one) for one in zip(face.tolist(), voice.tolist(), readings, strict=True)])
    table = pd.DataFrame({"fake": (kind > 1).astype(int), "video_fake": video, "audio_fake": audio})
    table["method"] = np.array(["", "", "swap", "vocoder", "other_voice", "other_voice"], object)[kind]
    table["path"] = table["group"] = [f"{i}" for i in range(rows)]
    return validate(table.assign(split="train", dataset=[f"s{s}" for s in source])), features


def rows_of(table: pd.DataFrame, features: np.ndarray) -> Rows:
    labels = label_matrix(table)
    return Rows(features, labels, class_weights(table, labels, features), table["dataset"].to_numpy())


def noisy_or(table: pd.DataFrame, features: np.ndarray) -> FittedFusion:
    return fit_candidates(table, features, MODEL, FIT, 0, "dataset")[0]


@pytest.fixture(scope="module")
def fitted() -> FittedFusion:
    return noisy_or(*three_causes(match=2.0))


def test_the_whole_and_its_parts_are_calibrated_together(fitted: FittedFusion) -> None:
    assert fitted.config.silent == ()
    assert fitted.calibration.scale == (1.0,) * 4
    assert fitted.calibration.bias == (0.0,) * 4
    for column in range(4):
        y, p, w = (a[:, column] for a in (fitted.oof_labels, fitted.oof_probabilities, fitted.oof_weights))
        known = (y >= 0) & (w > 0)
        assert np.average(p[known], weights=w[known]) == pytest.approx(np.average(y[known], weights=w[known]), abs=0.15)
        assert roc_auc_score(y[known], p[known]) > 0.75
        assert fitted.log_loss[column] < 0.6


def test_no_other_biases_are_more_likely(fitted: FittedFusion) -> None:
    rows = rows_of(*three_causes(match=2.0))
    labels, weights = rows.labels, rows.weights

    def loss() -> float:
        p = 1 / (1 + np.exp(-logits_of(fitted.fusion, rows.features).astype(float)))
        known = (labels >= 0) & (weights > 0)
        losses = np.where(known, -np.log(np.where(labels == 1, p, 1 - p)) * weights, 0).sum(0)
        return float((losses / weights.sum(0)) @ [3, 1, 1, 1])  # the whole counts as much as its parts together

    least = loss()
    for part in range(3):
        for step in (-0.1, 0.1):
            with torch.no_grad():
                fitted.fusion.bias[part] += step
                assert loss() > least
                fitted.fusion.bias[part] -= step


def test_a_part_that_carries_no_information_is_silent() -> None:
    table, features = three_causes(match=0.0)
    fitted = noisy_or(table, features)
    assert fitted.config.silent == ("sync",)
    assert fitted.fusion.slope[2] == 0
    assert np.isnan(fitted.log_loss[3])
    # In one source of nine the match tells all, in the others it points the other way: that is none either.
    table, features = three_causes(match=-0.3)
    match, one = FEATURES.index("sync_match"), (table["dataset"] == "s0").to_numpy()
    features[one, match] -= 3 * (table["method"][one] == "other_voice").to_numpy()
    assert "sync" in fusion_training.silent_parts(rows_of(table, features))


@pytest.fixture(scope="module")
def two_folds() -> Iterator[None]:
    """Of the fusions' own, from here on: many are fitted, and none is asked how well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion_training, "INNER_FOLDS", (2,))
        yield


@pytest.mark.parametrize("kind", ["logistic", "parts"])
def test_where_no_mismatch_is_known_the_match_is_silent(kind: str, two_folds: None) -> None:
    table, features = three_causes(120)
    kept = (table["method"] != "other_voice").to_numpy()
    table, features = table[kept].reset_index(drop=True), features[kept]
    fitted = fit_candidates(table, features, MODEL, dataclasses.replace(FIT, kind=kind), 0)[0]
    assert "sync" in fitted.config.silent
    assert fitted.kind == kind


ABLATED = FusionFitConfig(steps=5, lr=0.05)


@pytest.fixture(scope="module")
def found(two_folds: None) -> dict[str, np.ndarray]:
    table, features = separable()
    before = features.copy()
    result = ablations(table, features, MODEL, ABLATED, 0, "group")
    np.testing.assert_array_equal(features, before, err_msg="the features were changed")
    return result


def test_a_file_has_a_probability_of_every_combination_where_it_has_a_stream(found: dict[str, np.ndarray]) -> None:
    features = pd.DataFrame(separable()[1], columns=list(FEATURES))
    combined = [streams for size in (1, 2, 3) for streams in combinations(STREAMS, size)]
    named = {"all" if streams == STREAMS else "+".join(streams): streams for streams in combined}
    assert set(found) == {f"{label}:{kind}" for label in named for kind in ("logistic", "parts")} | {"all:max"}
    alone = np.stack([found[f"{name}:logistic"] for name in STREAMS])
    np.testing.assert_array_equal(found["all:max"], np.fmax.reduce(alone))
    for name, p in found.items():
        judged = features[[f"has_{stream}" for stream in named[name.partition(":")[0]]]].any(axis=1).to_numpy()
        assert 0 < judged.sum() < len(judged)
        np.testing.assert_array_equal(np.isfinite(p), judged, err_msg=name)
        assert ((p[judged] > 0) & (p[judged] < 1)).all()


def test_one_stream_does_not_know_of_the_others(found: dict[str, np.ndarray]) -> None:
    table, features = separable()
    rng = np.random.default_rng(5)
    features[:, 1:NUM_VALUES] = rng.standard_normal(features[:, 1:NUM_VALUES].shape)
    features[:, NUM_VALUES + 1 :] = rng.integers(0, 2, features[:, NUM_VALUES + 1 :].shape)
    again = ablations(table, features, dataclasses.replace(MODEL, streams=("visual",)), ABLATED, 0, "group")
    assert set(again) == {"all:logistic", "all:parts"}
    np.testing.assert_array_equal(again["all:logistic"], found["visual:logistic"])


def test_what_cannot_be_fitted_is_left_out(two_folds: None) -> None:
    """Sync of reals only: alone it could not be calibrated, beside the others it says nothing."""
    table, features = separable()
    hidden = (table["fake"] == 1).to_numpy(bool)
    features[hidden] = only(features[hidden], ("visual", "audio"))
    left = ablations(table, features, MODEL, FIT, 0, "group")
    assert "sync:logistic" not in left
    assert {"visual:logistic", "audio:logistic", "visual+audio:logistic", "all:max"} <= set(left)
    highest = np.fmax(left["visual:logistic"], left["audio:logistic"])
    np.testing.assert_array_equal(left["all:max"], highest, err_msg="of those that there are")
