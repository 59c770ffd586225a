"""Metrics on tables made by hand, against scikit-learn; abstentions are counted, never scored as 0.5."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from avdetect.evaluation.metrics import bootstrap_auc, evaluate
from avdetect.pooling import FEATURES, SyncReading, fusion_features

READING = SyncReading(0.04, 0.5, 0.6, 0.7, ((0.5, 0.7),))


def hand_made(rows: int = 40) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """table, labels, features, probabilities. Every fifth row lacks a face, every seventh a voice."""
    rng = np.random.default_rng(0)
    video, audio = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    labels = np.stack([video | audio, video, audio], 1).astype(np.float32)
    labels[3, 1] = labels[4, 2] = labels[6, 0] = -1
    features = np.stack(
        [
            fusion_features(
                None if i % 5 == 0 else 2 * video[i] - 1 + 1.5 * rng.standard_normal(),
                None if i % 7 == 0 else 2 * audio[i] - 1 + 1.5 * rng.standard_normal(),
                None if i % 5 == 0 or i % 7 == 0 else READING,
            )
            for i in range(rows)
        ]
    )
    p = np.clip(labels.clip(0) * 0.4 + 0.3 + 0.25 * rng.standard_normal((rows, 3)), 0.01, 0.99).astype(np.float32)
    table = pd.DataFrame({"group": [f"g{i // 2}" for i in range(rows)], "dataset": "one", "kind": "real"})
    return table, labels, features, p


def row_of(result: dict, subset: str, score: str) -> dict:
    found = [r for r in result["rows"] if r["subset"] == subset and r["score"] == score]
    assert len(found) == 1, [(r["subset"], r["score"]) for r in result["rows"]]
    return found[0]


@pytest.mark.parametrize(("column", "name"), list(enumerate(["fake", "video_fake", "audio_fake"])))
def test_numbers_equal_scikit_learn(column: int, name: str) -> None:
    table, labels, features, p = hand_made()
    result = evaluate(table, labels, features, p, 0.6)
    has = [features[:, -3:].any(1), features[:, -3] > 0, features[:, -2] > 0][column]
    keep = has & (labels[:, column] >= 0)
    y, q = labels[keep, column], p[keep, column].astype(float)
    row = row_of(result, "clips", name)
    assert row["n"] == keep.sum() < 40
    assert row["fakes"] == y.sum()
    assert row["auc"] == pytest.approx(roc_auc_score(y, q))
    assert row["log_loss"] == pytest.approx(log_loss(y, q))
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert result["summary"][f"clips/{name}"]["auc"] == round(row["auc"], 4)
    if name == "fake":
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, q >= 0.6))


def test_abstentions_are_counted_and_left_out() -> None:
    table, labels, features, p = hand_made()
    p[0] = 0.5  # what an abstention must never become
    base = evaluate(table, labels, features, p, 0.5)
    assert row_of(base, "clips", "fake")["abstained"] == 2  # rows 0 and 35
    assert row_of(base, "clips", "video_fake")["abstained"] == 8
    assert row_of(base, "clips", "audio_fake")["abstained"] == 6
    p[[0, 35]] = 0.99
    changed = evaluate(table, labels, features, p, 0.5)
    assert row_of(changed, "clips", "fake") == row_of(base, "clips", "fake")


def test_rows_with_an_unknown_label_are_left_out() -> None:
    table, labels, features, p = hand_made()
    base = evaluate(table, labels, features, p, 0.5)
    p[6, 0] = 1 - p[6, 0]
    p[3, 1] = 1 - p[3, 1]
    assert evaluate(table, labels, features, p, 0.5) == base


def test_each_stream_alone_answers_for_its_own_label() -> None:
    table, labels, features, p = hand_made()
    result = evaluate(table, labels, features, p, 0.5)
    for name, feature, column, mask in (("visual", "visual_logit", 1, -3), ("audio", "audio_logit", 2, -2)):
        keep = (features[:, mask] > 0) & (labels[:, column] >= 0)
        row = row_of(result, "clips", f"{name} alone -> {name.replace('visual', 'video')}_fake")
        assert row["n"] == keep.sum()
        assert row["auc"] == pytest.approx(roc_auc_score(labels[keep, column], features[keep, FEATURES.index(feature)]))
        assert "log_loss" not in row, "a logit is no probability"


def test_low_sync_confidence_is_the_suspicious_side() -> None:
    table, labels, features, p = hand_made()
    confidence = FEATURES.index("sync_confidence")
    features[:, confidence] = np.where(labels[:, 0] == 1, 0.1, 0.9) * features[:, -1]
    row = row_of(evaluate(table, labels, features, p, 0.5), "clips", "sync alone (- confidence) -> fake")
    assert row["auc"] == 1


def test_speech_and_stills_are_kept_apart() -> None:
    table, labels, features, p = hand_made()
    table["kind"] = [("real", "speech", "still")[i % 3] for i in range(len(table))]
    result = evaluate(table, labels, features, p, 0.5)
    counted = {r["subset"]: r["n"] + r["abstained"] for r in result["rows"] if r["score"] == "fake"}
    assert counted == {"clips": 13, "speech": 13, "stills": 13}  # one clip has no label
    without = evaluate(table.drop(columns="kind"), labels, features, p, 0.5)
    assert {r["subset"] for r in without["rows"] if r["score"] == "fake"} == {"clips"}


def test_a_subset_with_one_class_has_no_auc() -> None:
    table, labels, features, p = hand_made()
    table["kind"] = np.where(labels[:, 2] == 1, "speech", "real")
    result = evaluate(table, labels, features, p, 0.5)
    assert not [r for r in result["rows"] if r["subset"] == "speech" and r["score"] == "audio_fake"]
    assert "speech/audio_fake" not in result["summary"]


def test_within_sources_needs_both_classes() -> None:
    table, labels, features, p = hand_made(60)
    fake = labels[:, 1] == 1
    table["dataset"] = np.where(np.arange(60) < 30, "mixed", np.where(fake, "only fakes", "only reals"))
    features[:, 0] = np.where(table["dataset"] == "mixed", 0, np.where(fake, 9, -9)) * features[:, -3]
    result = evaluate(table, labels, features, p, 0.5)
    rows = [r for r in result["rows"] if r["score"] == "visual_logit within source"]
    assert [r["subset"] for r in rows] == ["mixed"]
    assert rows[0]["auc"] == 0.5, "a source's look cannot help inside the source"
    assert row_of(result, "clips", "visual alone -> video_fake")["auc"] > 0.6


def test_intervals_resample_whole_groups() -> None:
    """Copies of one clip are no new evidence: the interval of 10 groups of 20 is as wide as that of 10 rows."""
    rng = np.random.default_rng(1)
    labels, scores = np.array([0, 1] * 10), rng.standard_normal(20) + np.array([0, 1] * 10)
    one_each = pd.Series(np.arange(20))
    narrow = bootstrap_auc(np.repeat(labels, 20), np.repeat(scores, 20), pd.Series(np.arange(400)))
    by_group = bootstrap_auc(np.repeat(labels, 20), np.repeat(scores, 20), one_each.repeat(20).reset_index(drop=True))
    plain = bootstrap_auc(labels, scores, one_each)
    assert by_group == pytest.approx(plain)
    assert by_group[1] - by_group[0] > 2 * (narrow[1] - narrow[0])
    assert bootstrap_auc(labels, scores, one_each) == plain, "the same interval every time"


def test_intervals_are_quantiles_of_the_resampled_auc() -> None:
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, 30), rng.integers(0, 6, 30) / 5  # with ties
    groups = pd.Series([f"g{i % 12}" for i in range(30)])
    draws, expected = np.random.default_rng(4), []
    for _ in range(60):
        drawn = [np.flatnonzero(groups == f"g{g}") for g in draws.integers(12, size=12)]
        rows = np.concatenate(drawn)
        if len(set(labels[rows])) == 2:
            expected.append(roc_auc_score(labels[rows], scores[rows]))
    found = bootstrap_auc(labels, scores, groups, rounds=60, seed=4)
    assert found == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_one_group_has_no_interval() -> None:
    low, high = bootstrap_auc(np.array([0, 0]), np.array([0.1, 0.2]), pd.Series(["a", "b"]))
    assert np.isnan(low)
    assert np.isnan(high)
