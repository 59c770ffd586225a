"""Every metric against scikit-learn with weights; what balanced means; intervals, and where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, roc_curve

from avdetect.evaluation.metrics import METRICS, SEED, TOO_FEW, alarm_limit, measure, multiplicities, resampled, weights

Files = pd.DataFrame  # the manifest's columns group, dataset and method
ROUNDS = 12


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
        "eer": brentq(lambda x: np.interp(x, fpr, tpr) - (1 - x), 0, 1),
        "tpr_at_fpr_5": tpr[fpr <= 0.05 + 1e-12].max(),
        "log_loss": log_loss(y, p, sample_weight=w),
        "ece": ece,
        "balanced_accuracy": balanced_accuracy_score(y, p >= threshold, sample_weight=w),
        "false_alarms": np.average(p[y == 0] >= threshold, weights=w[y == 0]),
    }


@pytest.mark.parametrize(("seed", "sources"), [(0, 4), (1, 4), (2, 14)])
def test_values_and_each_resample_are_scikit_learn_with_weights(seed: int, sources: int) -> None:
    """Of groups, or where each class stands in ten sources or more, of sources."""
    y, p, files = judged(rows=50 if sources < 10 else 140, seed=seed, sources=sources)
    share = by_hand(y, files)
    np.testing.assert_allclose(weights(y, files), share)
    measured = measure(y, p, files, proper=True, threshold=0.4, rounds=ROUNDS)
    assert (measured["n"], measured["fakes"], measured["note"]) == (len(y), y.sum(), "")
    assert measured["auc_pooled"] == pytest.approx(roc_auc_score(y, p))
    found = resampled(y, p, files, proper=True, threshold=0.4, rounds=ROUNDS)
    for name, value in expected(y, p, share, 0.4).items():
        assert measured[name] == pytest.approx(value, abs=1e-9), name
        bounds = measured[f"{name}_low"], measured[f"{name}_high"]
        assert bounds == pytest.approx(tuple(np.quantile(found[name], [0.025, 0.975])))
    unit = files["dataset" if sources >= 10 else "group"]
    names = list(dict.fromkeys(unit))  # numbered as they appear
    place, rng = unit.map(names.index).to_numpy(), np.random.default_rng(SEED)
    for k in range(ROUNDS):
        w = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[place] * share
        kept = w > 0
        for name, value in expected(y[kept], p[kept], w[kept], 0.4).items():
            assert found[name][k] == pytest.approx(value, abs=1e-9), (name, k)


# -- what balanced means


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_more_files_of_a_generator_or_of_a_source_change_nothing(seed: int, times: int) -> None:
    y, p, files = judged(40, seed=seed)
    plain = measure(y, p, files, proper=True, threshold=0.5, rounds=1)
    for column, value in (("method", 1), ("dataset", 0)):
        names = files[column][y == value]
        again = np.flatnonzero((files[column] == names.iloc[0]) & (y == value)).repeat(times)
        rows = np.concatenate([np.arange(40), again])
        more = measure(y[rows], p[rows], files.iloc[rows], proper=True, threshold=0.5, rounds=1)
        for name in METRICS:
            assert more[name] == pytest.approx(plain[name], abs=1e-9), (column, name)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=30))
def test_the_limit_alarms_on_few_and_a_lower_one_on_more(rows: list[tuple[int, int]]) -> None:
    p, w = np.array(rows, float).T
    w /= w.sum()
    limit = alarm_limit(p, w)
    assert w[p >= limit].sum() <= 0.05 + 1e-9
    assert w[p >= p[p < limit].max()].sum() > 0.05


# -- too few files, and intervals


def test_too_few_files_of_a_class_have_no_interval() -> None:
    for reals, fakes, few in ((9, 30, True), (30, 9, True), (10, 10, False)):
        y = np.array([0] * reals + [1] * fakes)
        p, files = np.random.default_rng(0).random(len(y)), alike(np.arange(len(y)))
        found = measure(y, p, files, proper=True, threshold=0.5, rounds=20)
        assert (found["note"] == TOO_FEW) is few
        for name in METRICS:
            assert np.isfinite(found[name])
            assert np.isnan(found[f"{name}_low"]) == np.isnan(found[f"{name}_high"]) == few


def test_a_missing_class_is_no_measurement_and_a_single_group_has_no_bounds() -> None:
    assert measure([1, 1], [0.2, 0.3], alike(["a", "b"]), proper=True) == {}
    row = measure([0, 1] * 10, [0.1, 0.9, 0.6, 0.5] * 5, alike(["one"] * 20), proper=True)
    assert (row["auc"], row["note"]) == (0.75, "")
    assert np.isnan(row["auc_low"])
    for labels, scores, proper, said in (
        ([0, np.nan], [0.1, 0.2], True, "leave out"),
        ([0, 1], [0.1, np.nan], False, "leave out"),
        ([0, 1], [0.1, 1.2], True, "probability"),
        ([0, 1, 1], [0.1, 0.2], True, "must be"),
    ):
        with pytest.raises(ValueError, match=said):
            measure(labels, scores, alike(list("abc")[: len(labels)]), proper=proper)


def test_the_draws_do_not_depend_on_the_chunks() -> None:
    chunks = list(multiplicities(6, 20, 5, 7))
    assert max(map(len, chunks)) <= 7
    np.testing.assert_array_equal(np.concatenate(chunks), next(multiplicities(6, 20, 5, 20)))
    assert (np.concatenate(chunks).sum(axis=1) == 6).all()
