"""Side by side: every row on the same files, paired intervals, other bundles by the folders of their evaluations."""

from __future__ import annotations

import gzip
import json
import math
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import speech
from documents import results_table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from avdetect import cli
from avdetect.bundle import OUT_OF_FOLD, Bundle, write_bundle
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.manifest import write_manifest
from avdetect.errors import ConfigError
from avdetect.evaluation import views
from avdetect.evaluation.audit import FEATURE_SETS, guess_column, shortcuts
from avdetect.evaluation.comparison import OWN_NAMES, comparison, named_folders, read_beside
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.metrics import auc_gap, resampled, weights
from avdetect.pooling import FEATURES

ROUNDS = 40


def scores_table(count: int = 80) -> pd.DataFrame:
    """Clips and stills of two files a group; ours knows something, `cnn` less, and nothing of every tenth file."""
    rng = np.random.default_rng(0)
    fake = np.arange(count) % 2
    table = pd.DataFrame({"path": [f"/x/{i}.mp4" for i in range(count)], "group": [f"g{i // 2}" for i in range(count)]})
    table["fake"] = table["video_fake"] = table["audio_fake"] = pd.Series(fake).astype("Int8")
    table["kind"] = np.where(np.arange(count) % 8 < 6, "clip", "still")
    for name in FEATURES:
        table[name] = 1.0 if name.startswith("has_") else rng.normal(fake, 1)
    known = {name: 1 / (1 + np.exp(-rng.normal(2 * fake - 1, 1))) for name in OUTPUTS}
    other = np.where(np.arange(count) % 10 == 0, np.nan, rng.uniform(0, 0.8, count) + 0.1 * fake)
    table = table.assign(**known, **{f"beside:cnn:{name}": other for name in OUTPUTS})
    table["ablation:visual:mlp"] = rng.uniform(size=count)
    table.loc[3, "p_fake"] = np.nan
    table.loc[5, "fake"] = pd.NA
    return table


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return scores_table()


@pytest.fixture(scope="module")
def audit_rows(scores: pd.DataFrame) -> pd.DataFrame:
    return shortcuts(guessed(scores), ROUNDS)


def guessed(scores: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return scores.assign(**{guess_column("fake", name): rng.uniform(size=len(scores)) for name in FEATURE_SETS})


@pytest.fixture(scope="module")
def found(scores: pd.DataFrame, audit_rows: pd.DataFrame) -> pd.DataFrame:
    return comparison(guessed(scores), audit_rows, ROUNDS)


def block(found: pd.DataFrame, subset: str, label: str) -> pd.DataFrame:
    return found[(found["subset"] == subset) & (found["label"] == label)].set_index("score")


# -- the table


def test_each_block_holds_the_rows_in_their_order(found: pd.DataFrame) -> None:
    named = [f"shortcut: {name}" for name in FEATURE_SETS]
    assert set(found["table"]) == {"comparison"}
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


def test_chance_is_stated_and_not_resampled(found: pd.DataFrame) -> None:
    rows = found[found["score"] == "chance"]
    assert (rows[["auc", "auc_pooled", "auc_within", "eer"]] == 0.5).all(axis=None)
    assert (rows["log_loss"] == math.log(2)).all()
    assert (rows["ece"] == 0).all()
    assert rows[["auc_low", "log_loss_high", "auc_gap", "auc_gap_low"]].isna().all(axis=None)


def test_the_audit_is_taken_as_it_is(found: pd.DataFrame, audit_rows: pd.DataFrame, scores: pd.DataFrame) -> None:
    rows = block(found, "clips", "fake")
    for row in audit_rows.to_dict("records"):
        shown = rows.loc[f"shortcut: {row['score']}"]
        assert shown[["n", "auc", "auc_low", "eer"]].tolist() == [row[name] for name in ("n", "auc", "auc_low", "eer")]
        assert shown["auc_gap"] == pytest.approx(rows.loc["p_fake", "auc"] - row["auc"])
    without = block(comparison(scores, audit_rows, ROUNDS), "clips", "fake")
    assert without.filter(like="shortcut", axis=0)["auc_gap"].isna().all(), "no score of each file, no paired interval"
    assert not comparison(scores, pd.DataFrame(), ROUNDS)["score"].str.startswith("shortcut").any()


def test_a_bundle_that_judges_none_of_the_files_is_told(scores: pd.DataFrame) -> None:
    silent = scores.assign(**{"beside:cnn:p_audio_fake": np.nan, "ablation:visual:mlp": np.nan})
    found = comparison(silent, pd.DataFrame(), ROUNDS)
    cnn = block(found, "clips", "audio_fake").loc["cnn"]
    assert (cnn["n"], np.isnan(cnn["auc"]), np.isnan(cnn["auc_gap"])) == (0, True, True)
    assert not found["score"].str.startswith("ablation").any()


def test_the_stream_behind_a_fusion_that_says_nothing_is_measured(scores: pd.DataFrame) -> None:
    mute = scores.assign(
        **{f"beside:cnn:{name}": 0.5 for name in OUTPUTS}, **{"beside:cnn:visual_logit": scores["visual_logit"]}
    )
    found = comparison(mute, pd.DataFrame(columns=["subset", "label"]), ROUNDS)
    faces = block(found, "clips", "video_fake")
    assert faces.loc["cnn", "auc"] == 0.5
    assert faces.loc["cnn, stream alone", "auc"] == faces.loc["visual_logit", "auc"] > 0.6
    assert np.isnan(faces.loc["cnn, stream alone", "log_loss"]), "a logit is no probability"
    for label in ("fake", "audio_fake"):
        assert "cnn, stream alone" not in block(found, "clips", label).index


def test_what_cannot_be_measured_has_no_block(scores: pd.DataFrame) -> None:
    found = comparison(scores.assign(video_fake=0, p_audio_fake=np.nan), pd.DataFrame(), ROUNDS)
    assert set(found["label"]) == {"fake"}
    assert comparison(scores[:0], pd.DataFrame(), ROUNDS).empty


def test_a_bundle_beside_itself_differs_by_nothing(scores: pd.DataFrame) -> None:
    found = comparison(scores.assign(**{"beside:cnn:p_fake": scores["p_fake"]}), pd.DataFrame(), ROUNDS)
    rows = block(found, "clips", "fake")
    assert rows.loc["cnn", ["auc_gap", "auc_gap_low", "auc_gap_high"]].tolist() == [0, 0, 0]
    assert rows.loc["cnn", "auc_low"] == rows.loc["p_fake", "auc_low"]


# -- the paired interval


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60))
def test_the_gap_is_antisymmetric_and_nothing_for_the_same_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    y, files = np.arange(count) % 2, pd.DataFrame({"group": rng.integers(0, max(2, count // 3), count)})
    p, q = rng.random(count), rng.random(count)
    same = auc_gap(y, p, p**3, files, rounds=20, seed=seed)
    assert set(same.values()) == {0}
    there, back = (auc_gap(y, *pair, files, rounds=20, seed=seed) for pair in ((p, q), (q, p)))
    assert there["auc_gap"] == -back["auc_gap"]
    np.testing.assert_allclose(
        [there["auc_gap_low"], there["auc_gap_high"]], [-back["auc_gap_high"], -back["auc_gap_low"]]
    )


def test_the_paired_interval_is_narrower_than_that_of_separate_draws() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    p = rng.normal(y, 1)
    q, files = p + 0.1 * rng.standard_normal(200), pd.DataFrame({"group": np.arange(200)})
    gap = auc_gap(y, p, q, files, rounds=200)
    apart = resampled(y, p, files, rounds=200)["auc"] - resampled(y, q, files, rounds=200, seed=1)["auc"]
    assert gap["auc_gap_high"] - gap["auc_gap_low"] < 0.5 * np.ptp(np.quantile(apart, [0.025, 0.975]))
    assert auc_gap(np.ones(4), np.ones(4), np.ones(4), files[:4]) == {}


# -- the view


def test_the_view_says_what_the_csv_says(found: pd.DataFrame) -> None:
    table = views.view("comparison", found.assign(part="all"), "all")
    assert len(table.rows) == len(found)
    by_row = {row[:3]: row for row in table.rows}
    cnn = block(found, "clips", "fake").loc["cnn"]
    row = by_row["clips", "fake", "cnn"]
    assert row[3] == f"{cnn['n']} ({cnn['fakes']})"
    assert row[4] == f"{cnn['auc']:.3f} [{cnn['auc_low']:.2f}–{cnn['auc_high']:.2f}]"
    assert row[-1] == f"{cnn['auc_gap']:+.3f} [{cnn['auc_gap_low']:+.2f} to {cnn['auc_gap_high']:+.2f}]"
    chance = by_row["clips", "fake", "chance"]
    loss = table.columns.index("log loss")
    assert (chance[4], chance[loss], chance[-1]) == ("0.500", "0.693", "–")
    assert by_row["clips", "video_fake", "face stream"][loss] == "–", "a logit has no log loss"
    assert by_row["clips", "fake", "this bundle"][-1] == "–"


# -- other evaluations


@pytest.mark.parametrize("word", ["cnn", "=folder", "cnn=", "="])
def test_a_name_and_a_folder_are_asked_for(word: str) -> None:
    with pytest.raises(ConfigError, match="it must be NAME=FOLDER"):
        named_folders([word])


def test_names_are_given_once() -> None:
    assert named_folders(["a=x=y", "b=x"]) == {"a": Path("x=y"), "b": Path("x")}
    with pytest.raises(ConfigError, match="'a' is given twice"):
        named_folders(["a=x", "a=y"])


@pytest.mark.parametrize("name", [*sorted(OWN_NAMES), "a:b", "a|b", "<b>", " a"])
def test_a_name_is_no_row_of_ours_and_breaks_no_table(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another name"):
        read_beside({name: tmp_path}, pd.Series(["/x"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[2:], r"lacks 2 of the 80 files that are measured"),
        (lambda t: t[:0], r"lacks 80 of the 80"),
        (lambda t: t.drop(columns="p_fake"), "no finished evaluation"),
        (lambda t: t.assign(p_fake="x"), "no finished evaluation"),
        (lambda t: t.assign(p_fake=1.5), "no probabilities"),
        (lambda t: pd.concat([t, t]), "states a file twice"),
    ],
)
def test_what_is_no_evaluation_of_these_files_is_refused(change, message: str, tmp_path: Path) -> None:
    table = scores_table()
    change(table.assign(bundle="0123")).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ConfigError, match=message) as error:
        read_beside({"cnn": tmp_path}, table["path"])
    assert str(error.value).startswith(f"--beside cnn={tmp_path}: ")
    assert "\n" not in str(error.value)


def test_files_are_matched_by_their_path_in_any_order(tmp_path: Path) -> None:
    table = scores_table()
    table.assign(bundle="0123")[::-1].to_csv(tmp_path / "scores.csv", index=False)
    found = read_beside({"cnn": tmp_path}, table["path"][:50])
    assert found.bundles == {"cnn": "0123"}
    np.testing.assert_allclose(found.outputs["beside:cnn:p_fake"], table["p_fake"][:50])
    assert read_beside({}, table["path"]).outputs == {}


# -- the command

FILES = 24


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 0.6 s recordings, reals and fakes in turn, of two sources."""
    folder = tmp_path_factory.mktemp("spoken")
    for i in range(FILES):
        with wave.open(str(folder / f"{i:02d}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((speech(0.6, seed=i) * 32767).astype("<i2").tobytes())
    fake, number = np.arange(FILES) % 2, np.arange(FILES)
    table = pd.DataFrame({"path": [str(folder / f"{i:02d}.wav") for i in number], "fake": fake, "audio_fake": fake})
    table = table.assign(video_fake=None, group=[f"g{i // 2}" for i in number], split="dev", kind="speech", original="")
    table = table.assign(dataset=[f"d{i // 4 % 2}" for i in number], method=np.where(fake, "made", ""))
    write_manifest(table.assign(fake_segments=[()] * FILES), folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def bundles(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bundles that hold out-of-fold outputs of these files: one knows much, one nothing."""
    folder, shipped = tmp_path_factory.mktemp("bundles"), Bundle.load()
    number = np.arange(FILES)
    sha256 = [file_sha256(spoken.parent / f"{i:02d}.wav") for i in number]
    for name, p in (("good", 0.3 + 0.4 * (number % 2) - 0.3 * (number % 5 == 0)), ("poor", 0.2 + 0.02 * number)):
        held = pd.DataFrame({"sha256": sha256, "fold": number // 4 % 2}).assign(**dict.fromkeys(FEATURES, 0.0))
        held = held.assign(
            audio_logit=p, has_audio=1.0, p_fake=p, p_video_fake=np.nan, p_audio_fake=p, p_mismatch=np.nan
        )
        held["ablation:audio:logistic"] = p
        content = gzip.compress(held.to_csv(index=False).encode(), mtime=0)
        write_bundle(folder / name, shipped.info, shipped.files | {OUT_OF_FOLD: content})
    return {name: folder / name for name in ("good", "poor")}


@pytest.fixture(scope="module")
def poor(spoken: Path, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("poor") / "results"
    assert evaluate(spoken, bundles["poor"], out, "--no-audit") == 0
    return out


def evaluate(manifest: Path, bundle: Path, out: Path, *options: str) -> int:
    asked = ["evaluate", str(manifest), "--bundle", str(bundle), "--out", str(out), "--out-of-fold", "--no-sync"]
    return cli.run([*asked, *options])


def test_another_bundle_stands_beside_in_every_place(
    spoken: Path, bundles: dict[str, Path], poor: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, beside = tmp_path / "out", ["--beside", f"plain CNN={poor}"]
    assert evaluate(spoken, bundles["good"], out, *beside) == 0
    metrics = pd.read_csv(out / "metrics.csv")
    rows = block(metrics[metrics["table"] == "comparison"], "speech", "audio_fake")
    number = np.arange(FILES)
    ours, theirs = 0.4 * (number % 2) - 0.3 * (number % 5 == 0), number
    want = [roc_auc_score(number % 2, p) for p in (np.round(ours, 6), theirs)]
    assert rows.loc[["p_audio_fake", "plain CNN"], "auc"].tolist() == pytest.approx(want)
    assert rows.loc["plain CNN", "auc_gap"] == pytest.approx(want[0] - want[1])
    assert rows.filter(like="shortcut: ", axis=0)["auc_gap"].notna().all()
    for audited in metrics[(metrics["table"] == "audit") & (metrics["label"] == "audio_fake")].to_dict("records"):
        assert rows.loc[f"shortcut: {audited['score']}", "auc"] == audited["auc"]
    stated = Bundle.load(bundles["poor"]).digest
    summary = json.loads((out / "summary.json").read_text())
    assert summary["beside"] == [{"name": "plain CNN", "bundle": stated}]
    assert summary["command"].count(f"--beside 'plain CNN={poor}'") == 1
    assert json.loads((out / "run.json").read_text())["beside"] == {"plain CNN": stated}
    page = (out / "report.html").read_text()
    assert "Side by side" in page
    assert f"plain CNN ({stated})" in page
    assert "| speech | audio_fake | plain CNN | 24 (12) |" in results_table(out, "comparison")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert evaluate(spoken, bundles["good"], out, *beside) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    capsys.readouterr()
    assert evaluate(spoken, bundles["good"], out) == 2
    assert f"belongs to another run (beside.plain CNN: {stated} there, None now)" in capsys.readouterr().err
    assert evaluate(spoken, bundles["poor"], poor, "--beside", f"good={out}", "--no-audit") == 2
    assert "(beside.good: None there, " in capsys.readouterr().err


def test_a_folder_without_anything_beside_is_known_as_before(
    poor: Path, spoken: Path, bundles: dict[str, Path]
) -> None:
    assert set(json.loads((poor / "run.json").read_text())) == {"bundle", "manifest", "split", "out_of_fold"}
    assert evaluate(spoken, bundles["poor"], poor, "--no-audit") == 0
    assert "| speech | fake | this bundle | 24 (12) |" in results_table(poor, "comparison")


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        (["poor"], "--beside poor: it must be NAME=FOLDER"),
        (["a=POOR", "a=POOR"], "the name 'a' is given twice"),
        (["chance=POOR"], "choose another name"),
        (["a=EMPTY"], "it holds no finished evaluation, no scores.csv"),
        (["a=FEWER"], "lacks 2 of the 24 files that are measured"),
    ],
)
def test_refusals_are_one_line_and_claim_no_folder(
    beside: list[str],
    message: str,
    spoken: Path,
    bundles: dict[str, Path],
    poor: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    for name in ("empty", "fewer"):
        (tmp_path / name).mkdir()
    pd.read_csv(poor / "scores.csv")[2:].to_csv(tmp_path / "fewer" / "scores.csv", index=False)
    places = {"POOR": poor, "EMPTY": tmp_path / "empty", "FEWER": tmp_path / "fewer"}
    words = [part for word in beside for part in ("--beside", word)]
    for place, folder in places.items():
        words = [word.replace(place, str(folder)) for word in words]
    capsys.readouterr()
    assert evaluate(spoken, bundles["good"], tmp_path / "out", *words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert not (tmp_path / "out").exists()
