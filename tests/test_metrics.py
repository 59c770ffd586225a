"""Every metric against scikit-learn with weights; what balanced means; intervals, and where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

from avdetect.evaluation.metrics import (
    METRICS,
    PROPER,
    RANKING,
    TOO_FEW,
    alarm_limit,
    auc_gap,
    interval,
    measure,
    multiplicities,
    resampled,
    weights,
)

Files = pd.DataFrame  # the manifest's columns group, dataset and method

ROUNDS = 40


def judged(rows: int = 80, seed: int = 0, levels: int = 12, sources: int = 4) -> tuple[np.ndarray, np.ndarray, Files]:
    """labels, probabilities with ties; files in groups of two or three, of sources and generators of unequal sizes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows).astype(float)
    p = np.round(np.clip(0.35 + 0.3 * y + 0.25 * rng.standard_normal(rows), 0.01, 0.99) * levels) / levels
    group = np.arange(rows) * 2 // 5
    source = np.minimum(group % (2 * sources), sources - 1)  # the last one holds half of the groups
    made = [f"m{int(10 ** rng.random())}" if fake else "" for fake in y]
    files = pd.DataFrame({"group": group.astype(str), "dataset": source.astype(str), "method": made})
    return y, p.clip(0.01, 0.99), files


def alike(groups: list | np.ndarray) -> Files:
    """Files of these groups, all of one source and one unstated generator."""
    return pd.DataFrame({"group": np.asarray(groups).astype(str)})


def eer_by_bisection(y: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None) -> float:
    fpr, tpr, _ = roc_curve(y, p, sample_weight=weights, drop_intermediate=False)
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        # the curve as a function of its own length along (fpr + tpr), which only rises
        x, z = (np.interp(2 * t, fpr + tpr, axis) for axis in (fpr, tpr))
        low, high = (low, t) if x + z >= 1 else (t, high)
    return float(np.interp(2 * high, fpr + tpr, fpr))


def by_hand(y: np.ndarray, files: Files) -> np.ndarray:
    """The weights, file by file."""
    origin = [files["method"][i] or files["dataset"][i] if y[i] else files["dataset"][i] for i in range(len(y))]
    keys = list(zip(y, origin, strict=True))
    kinds = [len({key for key in keys if key[0] == value}) for value in (0, 1)]
    return np.array([1 / (keys.count(key) * kinds[int(key[0])]) for key in keys])


def expected(y: np.ndarray, p: np.ndarray, w: np.ndarray, threshold: float) -> dict[str, float]:
    """All metrics by scikit-learn, or by their definition; the classes of `w` are brought to weigh the same."""
    w = np.where(y == 1, w / w[y == 1].sum(), w / w[y == 0].sum())
    fpr, tpr, _ = roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    ece, edges = 0.0, np.linspace(0, 1, 11)
    for k in range(10):
        inside = (p * 10 >= k) & ((p * 10 < k + 1) | (edges[k + 1] == 1))
        if w[inside].sum():
            gap = np.average(p[inside], weights=w[inside]) - np.average(y[inside], weights=w[inside])
            ece += abs(gap) * w[inside].sum() / w.sum()
    return {
        "auc": roc_auc_score(y, p, sample_weight=w),
        "eer": eer_by_bisection(y, p, w),
        "tpr_at_fpr_5": tpr[fpr <= 0.05 + 1e-12].max(),
        "log_loss": log_loss(y, p, sample_weight=w),
        "ece": ece,
        "balanced_accuracy": balanced_accuracy_score(y, p >= threshold, sample_weight=w),
        "false_alarms": np.average(p[y == 0] >= threshold, weights=w[y == 0]),
    }


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_scikit_learn_with_weights(seed: int) -> None:
    y, p, files = judged(seed=seed)
    found = measure(y, p, files, proper=True, threshold=0.6, rounds=5)
    assert (found["n"], found["fakes"], found["note"]) == (80, y.sum(), "")
    share = by_hand(y, files)
    np.testing.assert_allclose(weights(y, files), share)
    want = expected(y, p, share, 0.6)
    assert set(want) == set(METRICS)
    for name, value in want.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
        assert found[f"{name}_low"] <= found[f"{name}_high"]
    assert found["auc_pooled"] == pytest.approx(roc_auc_score(y, p))


@pytest.mark.parametrize(("seed", "sources"), [(0, 4), (1, 4), (2, 14)])
def test_each_resample_is_scikit_learn_with_weights(seed: int, sources: int) -> None:
    """Of groups, or where each class stands in ten sources or more, of sources."""
    y, p, files = judged(rows=50 if sources < 10 else 140, seed=seed, sources=sources)
    unit = files["dataset" if sources >= 10 else "group"]
    found = resampled(y, p, files, proper=True, threshold=0.4, rounds=ROUNDS, seed=seed)
    names = list(dict.fromkeys(unit))  # numbered as they appear
    place = unit.map(names.index).to_numpy()
    rng, share = np.random.default_rng(seed), by_hand(y, files)
    for k in range(ROUNDS):
        w = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[place] * share
        kept = w > 0
        for name, value in expected(y[kept], p[kept], w[kept], 0.4).items():
            assert found[name][k] == pytest.approx(value, abs=1e-9), (name, k)


# -- what balanced means


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_more_files_of_a_generator_or_of_a_source_change_nothing(seed: int, times: int) -> None:
    y, p, files = judged(40, seed=seed)
    if len(set(y)) < 2:
        return
    plain = measure(y, p, files, proper=True, threshold=0.5, rounds=1)
    for column, value in (("method", 1), ("dataset", 0)):
        names = files[column][y == value]
        again = np.flatnonzero((files[column] == names.iloc[0]) & (y == value)).repeat(times)
        rows = np.concatenate([np.arange(40), again])
        more = measure(y[rows], p[rows], files.iloc[rows], proper=True, threshold=0.5, rounds=1)
        for name in METRICS:
            assert more[name] == pytest.approx(plain[name], abs=1e-9), (column, name)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_balanced_is_pooled_where_every_origin_has_one_file(seed: int) -> None:
    y, p, files = judged(40, seed=seed)
    if len(set(y)) < 2:
        return
    own = files.assign(dataset=np.arange(40).astype(str), method=np.where(y == 1, np.arange(40).astype(str), ""))
    for table in (own, alike(np.arange(40))):  # and where nobody says what the files are of
        found = measure(y, p, table, proper=False, rounds=1)
        assert found["auc"] == pytest.approx(found["auc_pooled"], abs=1e-9)


def test_a_large_generator_decides_the_pooled_result_only() -> None:
    y = np.array([0] * 10 + [1] * 400 + [1] * 10)
    p = np.array([0.5] * 10 + [0.9] * 400 + [0.1] * 10)
    files = pd.DataFrame({"group": np.arange(420).astype(str), "dataset": "s"})
    files["method"] = [""] * 10 + ["easy"] * 400 + ["hard"] * 10
    found = measure(y, p, files, proper=False, rounds=2)
    assert found["auc"] == pytest.approx(0.5)
    assert found["auc_pooled"] == pytest.approx(400 / 410)


def test_weights_of_a_class_alone() -> None:
    files = pd.DataFrame({"group": list("abc"), "dataset": ["x", "x", "y"], "method": ["", "", ""]})
    np.testing.assert_allclose(weights([0, 0, 0], files), [0.25, 0.25, 0.5])
    assert weights([], files[:0]).shape == (0,)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=30))
def test_the_limit_alarms_on_few_and_a_lower_one_on_more(rows: list[tuple[int, int]]) -> None:
    p, w = np.array(rows, float).T
    w /= w.sum()
    limit = alarm_limit(p, w)
    assert w[p >= limit].sum() <= 0.05 + 1e-9
    below = p[p < limit]
    assert w[p >= below.max()].sum() > 0.05


# -- too few files, and intervals


@pytest.mark.parametrize(("reals", "fakes", "few"), [(9, 30, True), (30, 9, True), (10, 10, False)])
def test_too_few_files_of_a_class_have_no_interval(reals: int, fakes: int, few: bool) -> None:
    y = np.array([0] * reals + [1] * fakes)
    p, files = np.random.default_rng(0).random(len(y)), alike(np.arange(len(y)))
    found = measure(y, p, files, proper=True, threshold=0.5, rounds=20)
    assert (found["note"] == TOO_FEW) is few
    for name in METRICS:
        assert np.isfinite(found[name])
        assert np.isnan(found[f"{name}_low"]) == np.isnan(found[f"{name}_high"]) == few
    gap = auc_gap(y, p, 1 - p, files, rounds=20)
    assert np.isfinite(gap["auc_gap"])
    assert np.isnan(gap["auc_gap_low"]) == few


def test_intervals_are_quantiles_of_the_resamples() -> None:
    y, p, files = judged()
    found = measure(y, p, files, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    drawn = resampled(y, p, files, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    for name in METRICS:
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(
            tuple(np.quantile(drawn[name], [0.025, 0.975]))
        )
    again = measure(y, p, files, proper=True, threshold=0.5, rounds=ROUNDS, seed=4)
    assert again == found, "the same every time"


def test_intervals_resample_whole_groups() -> None:
    """Copies of one clip are no new evidence: 20 groups of 20 copies say as little as 20 rows."""
    rng = np.random.default_rng(1)
    y, p = np.array([0, 1] * 10), np.clip(0.4 + 0.2 * np.array([0, 1] * 10) + 0.2 * rng.standard_normal(20), 0, 1)
    plain = measure(y, p, alike(np.arange(20)), proper=True)
    copies = measure(np.repeat(y, 20), np.repeat(p, 20), alike(np.repeat(np.arange(20), 20)), proper=True)
    loose = measure(np.repeat(y, 20), np.repeat(p, 20), alike(np.arange(400)), proper=True)
    for name in (*RANKING, *PROPER):
        assert copies[f"{name}_low"] == pytest.approx(plain[f"{name}_low"]), name
    assert copies["auc_high"] - copies["auc_low"] > 2 * (loose["auc_high"] - loose["auc_low"])


def test_a_missing_class_is_no_measurement() -> None:
    assert measure([1, 1], [0.2, 0.3], alike(["a", "b"]), proper=True) == {}
    assert measure([], [], alike([]), proper=False) == {}


def test_rounds_without_a_class_are_left_out() -> None:
    drawn = resampled([0, 1], [0.1, 0.9], alike(["a", "b"]), proper=True, threshold=0.5, rounds=60)
    both = np.isfinite(drawn["auc"])
    assert 0 < both.sum() < 60
    assert (drawn["auc"][both] == 1).all()
    for name in METRICS:
        np.testing.assert_array_equal(np.isfinite(drawn[name]), both, err_msg=name)
    low, high = interval(np.full(3, np.nan))
    assert np.isnan(low)
    assert np.isnan(high)


def test_a_logit_has_no_log_loss_and_no_threshold_no_accuracy() -> None:
    y, p, files = judged()
    ranked = measure(y, 9 * p - 4, files, proper=False, threshold=0.5, rounds=3)
    assert {name for name in METRICS if name in ranked} == set(RANKING)
    without = measure(y, p, files, proper=True, rounds=3)
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
        measure(labels, scores, alike(list("abc")[: len(labels)]), proper=proper)


def test_extreme_probabilities_have_a_finite_log_loss() -> None:
    y, p = np.tile([0, 1, 0, 1], 5), np.tile([1.0, 0.0, 0.0, 1.0], 5)
    found = measure(y, p, alike(np.arange(20)), proper=True, threshold=0.5, rounds=20)
    assert found["log_loss"] == pytest.approx(log_loss(y, p))
    assert np.isfinite(found["log_loss_high"])
    assert found["ece"] == pytest.approx(0.5), "half of those at 0 and at 1 are the other class"


def test_classes_weigh_alike() -> None:
    y, p = np.array([0] * 90 + [1] * 10), np.array([0.2] * 90 + [0.3] * 10)
    found = measure(y, p, alike(np.arange(100)), proper=True, rounds=2)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.3)) / 2)
    assert found["ece"] == pytest.approx((0.2 + 0.7) / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 5)), min_size=2, max_size=40))
def test_any_table(rows: list[tuple[int, int, int]]) -> None:
    y, p, groups = np.array(rows, float).T
    found = measure(y, p / 8, alike(groups), proper=True, threshold=0.5, rounds=10)
    if len(set(y)) < 2:
        assert found == {}
        return
    for name in METRICS:
        assert np.isfinite(found[name])
        assert found[name] >= 0
    assert found["auc"] == pytest.approx(roc_auc_score(y, p))
    assert found["eer"] == pytest.approx(eer_by_bisection(y, p), abs=1e-9)
    mirrored = measure(1 - y, 1 - p / 8, alike(groups), proper=True, rounds=10)
    for name in ("auc", "eer", "log_loss"):
        assert mirrored[name] == pytest.approx(found[name], abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_draws_do_not_depend_on_the_chunks(chunk: int) -> None:
    parts = list(multiplicities(6, 20, 5, chunk))
    assert max(map(len, parts)) <= chunk
    np.testing.assert_array_equal(np.concatenate(parts), next(multiplicities(6, 20, 5, 20)))
    assert (np.concatenate(parts).sum(axis=1) == 6).all()


def test_a_single_group_has_no_bounds() -> None:
    row = measure([0, 1] * 10, [0.1, 0.9, 0.6, 0.5] * 5, alike(["one"] * 20), proper=True)
    assert row["auc"] == 0.75
    assert row["note"] == ""
    assert np.isnan(row["auc_low"])
    assert np.isnan(row["log_loss_high"])
