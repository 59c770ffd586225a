"""Side by side: every row on the same files, and other bundles by the folders of their evaluations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from avdetect.errors import ConfigError
from avdetect.evaluation.audit import FEATURE_SETS, guess_column, shortcuts
from avdetect.evaluation.comparison import comparison, named_folders, read_beside
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.metrics import weights
from avdetect.pooling import FEATURES

ROUNDS = 40
NO_AUDIT = pd.DataFrame()


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Clips and stills of two files a group; ours knows something, `cnn` less, and nothing of every tenth file."""
    count, rng = 80, np.random.default_rng(0)
    fake = np.arange(count) % 2
    table = pd.DataFrame({"path": [f"/x/{i}.mp4" for i in range(count)], "group": [f"g{i // 2}" for i in range(count)]})
    table["fake"] = table["video_fake"] = table["audio_fake"] = pd.Series(fake).astype("Int8")
    table["kind"] = np.where(np.arange(count) % 8 < 6, "clip", "still")
    for name in FEATURES:
        table[name] = 1.0 if name.startswith("has_") else rng.normal(fake, 1)
    known = {name: 1 / (1 + np.exp(-rng.normal(2 * fake - 1, 1))) for name in OUTPUTS}
    other = np.where(np.arange(count) % 10 == 0, np.nan, rng.uniform(0, 0.8, count) + 0.1 * fake)
    table = table.assign(**known, **{f"beside:cnn:{name}": other for name in OUTPUTS})
    table = table.assign(**{guess_column("fake", name): rng.uniform(size=count) for name in FEATURE_SETS})
    table["ablation:visual:mlp"] = rng.uniform(size=count)
    table.loc[3, "p_fake"] = np.nan
    table.loc[5, "fake"] = pd.NA
    return table


@pytest.fixture(scope="module")
def audit_rows(scores: pd.DataFrame) -> pd.DataFrame:
    return shortcuts(scores, ROUNDS)


@pytest.fixture(scope="module")
def found(scores: pd.DataFrame, audit_rows: pd.DataFrame) -> pd.DataFrame:
    return comparison(scores, audit_rows, ROUNDS)


def block(found: pd.DataFrame, subset: str, label: str) -> pd.DataFrame:
    return found[(found["subset"] == subset) & (found["label"] == label)].set_index("score")


def test_each_block_holds_the_rows_in_their_order(found: pd.DataFrame) -> None:
    named = [f"shortcut: {name}" for name in FEATURE_SETS]
    assert block(found, "clips", "fake").index.tolist() == ["chance", *named, "cnn", "ablation: visual:mlp", "p_fake"]
    assert block(found, "stills", "fake").index.tolist() == ["chance", "cnn", "ablation: visual:mlp", "p_fake"]
    assert block(found, "clips", "video_fake").index.tolist() == ["chance", "cnn", "visual_logit", "p_video_fake"]
    assert block(found, "clips", "audio_fake").index.tolist() == ["chance", "cnn", "audio_logit", "p_audio_fake"]
    assert not found.duplicated(["table", "subset", "score", "label"]).any()
    assert block(found, "speech", "fake").empty


def test_every_row_is_measured_on_the_files_that_we_judged(found: pd.DataFrame, scores: pd.DataFrame) -> None:
    rows = block(found, "clips", "fake")
    ours = (scores["kind"] == "clip") & scores["p_fake"].notna() & scores["fake"].notna()
    both = ours & scores["beside:cnn:p_fake"].notna()
    assert (rows.drop(index="cnn")["n"] == ours.sum()).all()
    cnn = rows.loc["cnn"]
    assert (cnn["n"], cnn["abstained"]) == (both.sum(), ours.sum() - both.sum())
    y, p = scores.loc[both, "fake"].to_numpy(int), scores.loc[both, "beside:cnn:p_fake"]
    assert cnn["auc"] == pytest.approx(roc_auc_score(y, p))
    assert cnn["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=weights(y, scores[both])))
    assert cnn["auc_gap"] == pytest.approx(roc_auc_score(y, scores.loc[both, "p_fake"]) - cnn["auc"])
    assert cnn["auc_gap_low"] < cnn["auc_gap"] < cnn["auc_gap_high"]
    assert np.isnan(cnn["false_alarms"]), "the threshold is another bundle's"


def test_chance_is_stated_and_the_audit_is_taken_as_it_is(found: pd.DataFrame, audit_rows: pd.DataFrame) -> None:
    rows = block(found, "clips", "fake")
    assert (rows.loc["chance", ["auc", "auc_pooled", "auc_within", "eer"]] == 0.5).all()
    assert rows.loc["chance", "log_loss"] == math.log(2)
    assert rows.loc["chance", ["auc_low", "auc_gap"]].isna().all()
    for row in audit_rows.to_dict("records"):
        shown = rows.loc[f"shortcut: {row['score']}"]
        assert shown[["n", "auc", "auc_low", "eer"]].tolist() == [row[name] for name in ("n", "auc", "auc_low", "eer")]
        assert shown["auc_gap"] == pytest.approx(rows.loc["p_fake", "auc"] - row["auc"])


def test_a_bundle_that_judges_none_of_the_files_is_told(scores: pd.DataFrame) -> None:
    silent = scores.assign(**{"beside:cnn:p_audio_fake": np.nan, "ablation:visual:mlp": np.nan}, video_fake=0)
    found = comparison(silent, NO_AUDIT, ROUNDS)
    cnn = block(found, "clips", "audio_fake").loc["cnn"]
    assert (cnn["n"], np.isnan(cnn["auc"]), np.isnan(cnn["auc_gap"])) == (0, True, True)
    assert not found["score"].str.startswith("ablation").any()
    assert "video_fake" not in set(found["label"]), "what cannot be measured has no block"


def test_the_stream_behind_a_fusion_that_says_nothing_is_measured(scores: pd.DataFrame) -> None:
    mute = scores.assign(
        **{f"beside:cnn:{name}": 0.5 for name in OUTPUTS}, **{"beside:cnn:visual_logit": scores["visual_logit"]}
    )
    found = comparison(mute, NO_AUDIT, ROUNDS)
    faces = block(found, "clips", "video_fake")
    assert faces.loc["cnn", "auc"] == 0.5
    assert faces.loc["cnn, stream alone", "auc"] == faces.loc["visual_logit", "auc"] > 0.6
    assert np.isnan(faces.loc["cnn, stream alone", "log_loss"]), "a logit is no probability"
    assert "cnn, stream alone" not in block(found, "clips", "audio_fake").index


# -- other evaluations


@pytest.mark.parametrize("words", [["cnn"], ["=folder"], ["cnn="], ["a=x", "a=y"]])
def test_a_name_and_a_folder_are_asked_for_once(words: list[str]) -> None:
    assert named_folders(["a=x=y", "b=x"]) == {"a": Path("x=y"), "b": Path("x")}
    with pytest.raises(ConfigError, match=r"must be NAME=FOLDER|given twice"):
        named_folders(words)


@pytest.mark.parametrize("name", ["chance", "duration", "p_fake", "a:b", "a|b", "<b>", " a"])
def test_a_name_is_no_row_of_ours_and_breaks_no_table(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another name"):
        read_beside({name: tmp_path}, pd.Series(["/x"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[2:], r"lacks 2 of the 80 files that are measured"),
        (lambda t: t.drop(columns="p_fake"), "no finished evaluation"),
        (lambda t: t.assign(p_fake="x"), "no finished evaluation"),
        (lambda t: t.assign(p_fake=1.5), "no probabilities"),
        (lambda t: pd.concat([t, t]), "states a file twice"),
    ],
)
def test_what_is_no_evaluation_of_these_files_is_refused(
    change, message: str, scores: pd.DataFrame, tmp_path: Path
) -> None:
    change(scores.assign(bundle="0123")).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ConfigError, match=message) as error:
        read_beside({"cnn": tmp_path}, scores["path"])
    assert str(error.value).startswith(f"--beside cnn={tmp_path}: ")
    assert "\n" not in str(error.value)


def test_files_are_matched_by_their_path_in_any_order(scores: pd.DataFrame, tmp_path: Path) -> None:
    scores.assign(bundle="0123")[::-1].to_csv(tmp_path / "scores.csv", index=False)
    bundles, outputs = read_beside({"cnn": tmp_path}, scores["path"][:50])
    assert bundles == {"cnn": "0123"}
    np.testing.assert_allclose(outputs["beside:cnn:p_fake"], scores["p_fake"][:50])
