"""Every metric against scikit-learn, the vectorised ones with weights; intervals by group, the same every time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

from avdetect.evaluation.metrics import METRICS, PROPER, RANKING, interval, measure, multiplicities, resampled

ROUNDS = 40


def judged(rows: int = 80, seed: int = 0, levels: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """labels, probabilities with ties, groups of two or three."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows).astype(float)
    p = np.round(np.clip(0.35 + 0.3 * y + 0.25 * rng.standard_normal(rows), 0.01, 0.99) * levels) / levels
    return y, p.clip(0.01, 0.99), np.array([f"g{i * 2 // 5}" for i in range(rows)])


def eer_by_bisection(y: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None) -> float:
    fpr, tpr, _ = roc_curve(y, p, sample_weight=weights, drop_intermediate=False)
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        # the curve as a function of its own length along (fpr + tpr), which only rises
        x, z = (np.interp(2 * t, fpr + tpr, axis) for axis in (fpr, tpr))
        low, high = (low, t) if x + z >= 1 else (t, high)
    return float(np.interp(2 * high, fpr + tpr, fpr))


def expected(y: np.ndarray, p: np.ndarray, w: np.ndarray | None, threshold: float) -> dict[str, float]:
    """All metrics by scikit-learn, or by their definition."""
    w = np.ones(len(y)) if w is None else w
    fpr, tpr, _ = roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    ece, edges = 0.0, np.linspace(0, 1, 11)
    for k in range(10):
        inside = (p * 10 >= k) & ((p * 10 < k + 1) | (edges[k + 1] == 1))
        if w[inside].sum():
            gap = np.average(p[inside], weights=w[inside]) - np.average(y[inside], weights=w[inside])
            ece += abs(gap) * w[inside].sum() / w.sum()
    by_class = [log_loss(y[y == v], p[y == v], sample_weight=w[y == v], labels=[0, 1]) for v in (0, 1)]
    return {
        "auc": roc_auc_score(y, p, sample_weight=w),
        "ap": average_precision_score(y, p, sample_weight=w),
        "eer": eer_by_bisection(y, p, w),
        "tpr_at_fpr_1": tpr[fpr <= 0.01 + 1e-12].max(),
        "tpr_at_fpr_5": tpr[fpr <= 0.05 + 1e-12].max(),
        "log_loss": log_loss(y, p, sample_weight=w),
        "log_loss_balanced": sum(by_class) / 2,
        "ece": ece,
        "balanced_accuracy": balanced_accuracy_score(y, p >= threshold, sample_weight=w),
        "false_alarms": np.average(p[y == 0] >= threshold, weights=w[y == 0]),
    }


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scikit_learn(seed: int) -> None:
    y, p, groups = judged(seed=seed)
    found = measure(y, p, groups, proper=True, threshold=0.6, rounds=5)
    assert (found["n"], found["fakes"]) == (80, y.sum())
    want = expected(y, p, None, 0.6)
    assert set(want) == set(METRICS)
    for name, value in want.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
        assert found[f"{name}_low"] <= found[f"{name}_high"]


@pytest.mark.parametrize("seed", range(3))
def test_each_resample_is_scikit_learn_with_weights(seed: int) -> None:
    y, p, groups = judged(rows=50, seed=seed)
    found = resampled(y, p, groups, proper=True, threshold=0.4, rounds=ROUNDS, seed=seed)
    names, group = np.unique(groups, return_inverse=True)
    order = np.argsort([list(groups).index(name) for name in names])  # groups are numbered as they appear
    group = np.argsort(order)[group]
    rng = np.random.default_rng(seed)
    for k in range(ROUNDS):
        w = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[group]
        kept = w > 0
        for name, value in expected(y[kept], p[kept], w[kept].astype(float), 0.4).items():
            assert found[name][k] == pytest.approx(value, abs=1e-9), (name, k)


def test_intervals_are_quantiles_of_the_resamples() -> None:
    y, p, groups = judged()
    found = measure(y, p, groups, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    drawn = resampled(y, p, groups, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    for name in METRICS:
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(
            tuple(np.quantile(drawn[name], [0.025, 0.975]))
        )
    again = measure(y, p, groups, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    assert again == found, "the same every time"


def test_intervals_resample_whole_groups() -> None:
    """Copies of one clip are no new evidence: 20 groups of 20 copies say as little as 20 rows."""
    rng = np.random.default_rng(1)
    y, p = np.array([0, 1] * 10), np.clip(0.4 + 0.2 * np.array([0, 1] * 10) + 0.2 * rng.standard_normal(20), 0, 1)
    plain = measure(y, p, np.arange(20), proper=True)
    copies = measure(np.repeat(y, 20), np.repeat(p, 20), np.repeat(np.arange(20), 20), proper=True)
    loose = measure(np.repeat(y, 20), np.repeat(p, 20), np.arange(400), proper=True)
    for name in (*RANKING, *PROPER):
        assert copies[f"{name}_low"] == pytest.approx(plain[f"{name}_low"]), name
    assert copies["auc_high"] - copies["auc_low"] > 2 * (loose["auc_high"] - loose["auc_low"])


def test_a_missing_class_is_no_measurement() -> None:
    assert measure([1, 1], [0.2, 0.3], ["a", "b"], proper=True) == {}
    assert measure([], [], [], proper=False) == {}


def test_rounds_without_a_class_are_left_out() -> None:
    drawn = resampled([0, 1], [0.1, 0.9], ["a", "b"], proper=True, threshold=0.5, rounds=60)
    both = np.isfinite(drawn["auc"])
    assert 0 < both.sum() < 60
    assert (drawn["auc"][both] == 1).all()
    for name in METRICS:
        np.testing.assert_array_equal(np.isfinite(drawn[name]), both, err_msg=name)
    low, high = interval(np.full(3, np.nan))
    assert np.isnan(low)
    assert np.isnan(high)


def test_a_logit_has_no_log_loss_and_no_threshold_no_accuracy() -> None:
    y, p, groups = judged()
    ranked = measure(y, 9 * p - 4, groups, proper=False, threshold=0.5, rounds=3)
    assert {name for name in METRICS if name in ranked} == set(RANKING)
    without = measure(y, p, groups, proper=True, rounds=3)
    assert {name for name in METRICS if name in without} == {*RANKING, *PROPER}


@pytest.mark.parametrize(
    ("labels", "scores", "proper"),
    [
        ([0, -1], [0.1, 0.2], True),
        ([0, np.nan], [0.1, 0.2], True),
        ([0, 1], [0.1, np.nan], False),
        ([0, 1], [0.1, 1.2], True),
        ([0, 1, 1], [0.1, 0.2], True),
    ],
)
def test_what_cannot_be_measured_is_refused(labels: list, scores: list, proper: bool) -> None:
    with pytest.raises(ValueError, match=r"must be|leave out|probability"):
        measure(labels, scores, list("abc")[: len(labels)], proper=proper)


def test_extreme_probabilities_have_a_finite_log_loss() -> None:
    found = measure([0, 1, 0, 1], [1.0, 0.0, 0.0, 1.0], list("abcd"), proper=True, threshold=0.5, rounds=20)
    assert found["log_loss"] == pytest.approx(log_loss([0, 1, 0, 1], [1.0, 0.0, 0.0, 1.0]))
    assert np.isfinite(found["log_loss_high"])
    assert found["ece"] == pytest.approx(0.5), "half of those at 0 and at 1 are the other class"


def test_classes_weigh_alike_in_the_balanced_log_loss() -> None:
    y, p = np.array([0] * 90 + [1] * 10), np.array([0.2] * 90 + [0.3] * 10)
    found = measure(y, p, np.arange(100), proper=True, rounds=2)
    assert found["log_loss_balanced"] == pytest.approx(-(np.log(0.8) + np.log(0.3)) / 2)
    assert found["log_loss"] == pytest.approx(-(0.9 * np.log(0.8) + 0.1 * np.log(0.3)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 5)), min_size=2, max_size=40))
def test_any_table(rows: list[tuple[int, int, int]]) -> None:
    y, p, groups = np.array(rows, float).T
    found = measure(y, p / 8, groups, proper=True, threshold=0.5, rounds=10)
    if len(set(y)) < 2:
        assert found == {}
        return
    for name in METRICS:
        assert np.isfinite(found[name])
        assert found[name] >= 0
    assert found["auc"] == pytest.approx(roc_auc_score(y, p))
    assert found["eer"] == pytest.approx(eer_by_bisection(y, p), abs=1e-9)
    assert found["tpr_at_fpr_1"] <= found["tpr_at_fpr_5"]
    mirrored = measure(1 - y, 1 - p / 8, groups, proper=True, rounds=10)
    for name in ("auc", "eer", "log_loss", "log_loss_balanced"):
        assert mirrored[name] == pytest.approx(found[name], abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_draws_do_not_depend_on_the_chunks(chunk: int) -> None:
    parts = list(multiplicities(6, 20, 5, chunk))
    assert max(map(len, parts)) <= chunk
    np.testing.assert_array_equal(np.concatenate(parts), next(multiplicities(6, 20, 5, 20)))
    assert (np.concatenate(parts).sum(axis=1) == 6).all()


def test_500_rounds_of_600_files_are_quick() -> None:
    y, p, groups = judged(600, levels=10**6)
    began = time.process_time()
    measure(y, p, groups, proper=True, threshold=0.5)
    assert time.process_time() - began < 2, "0.1 s of CPU when nothing else runs"


def test_a_single_group_has_no_bounds() -> None:
    row = measure([0, 1, 0, 1], [0.1, 0.9, 0.6, 0.5], ["one"] * 4, proper=True)
    assert row["auc"] == 0.75
    assert np.isnan(row["auc_low"])
    assert np.isnan(row["log_loss_high"])
