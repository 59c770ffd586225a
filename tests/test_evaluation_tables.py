"""Which rows are measured, on scores tables made by hand; every number again by scikit-learn or by counting."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from avdetect.evaluation.columns import COLUMNS
from avdetect.evaluation.metrics import METRICS, PROPER, TOO_FEW, weights
from avdetect.evaluation.tables import MODALITIES, TABLES, as_result, measurements, missing_streams, with_outputs
from avdetect.evaluation.views import modalities_in_words, view
from avdetect.pooling import FEATURES, NUM_VALUES, SyncReading, fusion_features

READING = SyncReading(0.04, 0.5, 0.6, 0.7, 0.4, ((0.5, 0.7),))
CLASS_OF_ROW = ("real", "faceswap", "tts-dub", "mixed", "audio-swap")  # RVRA, FVRA, RVFA, FVFA, mismatch
CAUSES = ((0, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1), (1, 0, 0))  # fake, video_fake, audio_fake
OUTPUT_OF = {"visual": "p_video_fake", "audio": "p_audio_fake", "sync": "p_mismatch"}


def clips(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Clips of five classes in turn, 12 of each, in two sources; row 0 lacks a face, row 1 a voice, row 5 both."""
    rng = np.random.default_rng(seed)
    labels = np.array([CAUSES[i % 5] for i in range(rows)])
    features = []
    for i, (_, face, voice) in enumerate(labels):
        visual = None if i in (0, 5) else 2 * face - 1 + rng.standard_normal()
        audio = None if i in (1, 5) else 2 * voice - 1 + rng.standard_normal()
        features.append(fusion_features(visual, audio, None if i in (0, 1, 5) else READING))
    swapped = np.arange(rows) % 5 == 4
    p = np.column_stack([labels, swapped]) * 0.4 + 0.3 + 0.2 * rng.standard_normal((rows, 4))
    table = pd.DataFrame(labels, columns=["fake", "video_fake", "audio_fake"]).astype("Int8")
    table["path"] = [f"{i}.mp4" for i in range(rows)]
    table["group"] = [f"g{i // 10}" for i in range(rows)]
    table["dataset"] = np.where(np.arange(rows) < rows // 2, "one", "two")
    table["kind"] = [CLASS_OF_ROW[i % 5] for i in range(rows)]
    table["method"] = ["" if i % 5 == 0 else "m" if i % 10 == 1 else "n" for i in range(rows)]
    table["original"] = ""
    return with_outputs(table, np.stack(features), np.clip(p, 0.01, 0.99).astype(np.float32))


def mixed() -> pd.DataFrame:
    """Clips, speech and stills; a still has no voice, a recording no face."""
    one, two, three = clips(), clips(40, 1), clips(30, 2)
    two = two.assign(kind="speech", dataset="page", video_fake=pd.NA, fake=two["audio_fake"], has_visual=0, has_sync=0)
    three = three.assign(kind="still", audio_fake=pd.NA, fake=three["video_fake"], has_audio=0, has_sync=0)
    two["p_video_fake"] = two["p_mismatch"] = three["p_audio_fake"] = three["p_mismatch"] = np.nan
    return pd.concat([one, two, three], ignore_index=True)


def measured(scores: pd.DataFrame, *tables: str) -> pd.DataFrame:
    return measurements(scores, 0.6, rounds=3, tables=tables or None)


def balanced(metric: Any, scores: pd.DataFrame, label: str, score: str) -> float:
    """scikit-learn's, of rows that are all known."""
    y = scores[label].to_numpy(int)
    return metric(y, scores[score].to_numpy(float), sample_weight=weights(y, scores))


def one(frame: pd.DataFrame, table: str, subset: str, score: str) -> pd.Series:
    found = frame[(frame["table"] == table) & (frame["subset"] == subset) & (frame["score"] == score)]
    assert len(found) == 1, frame[["table", "subset", "score"]].to_string()
    return found.iloc[0]


def test_outputs_equal_scikit_learn_and_count_abstentions() -> None:
    scores = clips()
    scores.loc[7, ["fake", "video_fake"]] = pd.NA
    found = measured(scores, "output")
    for label, abstained in (("fake", 1), ("video_fake", 2)):
        row = one(found, "output", "clips", f"p_{label}")
        kept = scores[scores[f"p_{label}"].notna() & scores[label].notna()]
        y, p = kept[label].astype(float), kept[f"p_{label}"].astype(float)
        share = weights(y, kept)
        assert (row["n"], row["fakes"], row["abstained"]) == (60 - 1 - abstained, y.sum(), abstained)
        assert row["label"] == label
        assert row["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=share))
        assert row["auc_pooled"] == pytest.approx(roc_auc_score(y, p))
        assert row["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=share))
        assert row["false_alarms"] == pytest.approx(np.average(p[y == 0] >= 0.6, weights=share[y == 0]))
        assert row[[f"{name}_low" for name in METRICS]].notna().all()


def test_each_stream_answers_for_its_own_label() -> None:
    scores = clips()
    swapped = scores["kind"] == "audio-swap"
    scores["sync_confidence"] = np.where(swapped, 0.1, 0.9) * scores["has_sync"]
    found = measured(scores, "stream", "output")
    row, kept = one(found, "stream", "clips", "visual_logit"), scores["has_visual"] == 1
    assert (row["label"], row["n"], row["abstained"]) == ("video_fake", 58, 2)
    assert row["auc"] == pytest.approx(balanced(roc_auc_score, scores[kept], "video_fake", "visual_logit"))
    assert np.isnan(row["log_loss"]), "a logit is no probability"
    low_is_suspicious = one(found, "stream", "clips", "-sync_confidence")
    # Of 12 real clips two have no match; that the other fakes match says nothing of their match.
    assert (low_is_suspicious["label"], low_is_suspicious["auc"], low_is_suspicious["n"]) == ("mismatch", 1, 10 + 12)
    row = one(found, "output", "clips", "p_mismatch")
    kept = scores["kind"].isin(["real", "audio-swap"]) & scores["p_mismatch"].notna()
    assert (row["label"], row["n"], row["fakes"], row["abstained"]) == ("mismatch", 22, 12, 2)
    stranger = measured(scores.assign(own_voice=0), "output")
    assert one(stranger, "output", "clips", "p_mismatch")["n"] == 12, "a real clip of another's voice is no match"


def test_outputs_without_their_stream_or_of_a_silent_one_are_missing_never_half() -> None:
    scores = clips()
    assert scores.loc[[0, 5], "p_video_fake"].isna().all()
    assert np.flatnonzero(scores["p_fake"].isna()).tolist() == [5]
    features = np.zeros((3, len(FEATURES)), np.float32)
    features[:, NUM_VALUES:] = [[1, 1, 1], [0, 0, 1], [1, 0, 0]]
    found = with_outputs(scores.iloc[:3], features, np.full((3, 4), 0.7, np.float32), silent=("sync",))
    assert found["p_mismatch"].isna().all()
    assert found["p_fake"].isna().tolist() == [False, True, False]
    assert (found["has_sync"] == [1, 1, 0]).all(), "that it was there stays known"


def test_speech_and_stills_are_kept_apart() -> None:
    scores = mixed()
    scores["ablation:visual+audio:mlp"] = scores["p_fake"]
    scores["ablation:visual:max"] = scores["p_fake"].where(scores["has_visual"] == 1)
    found = measured(scores, "output", "stream", "source", "ablation")
    counted = found[(found["table"] == "output") & (found["score"] == "p_fake")].set_index("subset")
    assert (counted["n"] + counted["abstained"]).to_dict() == {"clips": 60, "speech": 40, "stills": 30}
    for subset, stream in (("speech", "audio_logit"), ("stills", "visual_logit")):
        assert set(found[(found["table"] == "stream") & (found["subset"] == subset)]["score"]) == {stream}
    assert {"speech: page", "clips: one", "clips: two"} <= set(found[found["table"] == "source"]["subset"])
    assert set(measured(mixed().drop(columns="kind"), "output")["subset"]) == {"clips"}
    # Ablations are probabilities on each subset that has them.
    for subset in ("clips", "speech", "stills"):
        both, output = one(found, "ablation", subset, "visual+audio:mlp"), one(found, "output", subset, "p_fake")
        assert all(both[name] == output[name] for name in (*PROPER, "auc", "balanced_accuracy"))
    alone = found[(found["table"] == "ablation") & (found["score"] == "visual:max")]
    assert list(alone["subset"]) == ["clips", "stills"]
    assert alone["abstained"].iloc[0] == 2


def test_a_kind_is_measured_by_what_should_see_it_against_reals_with_the_same_streams() -> None:
    scores = clips()
    found = measured(scores, "kind")
    by_kind = {kind: set(rows["score"]) for kind, rows in found.groupby("subset")}
    assert by_kind == {
        "faceswap": {"p_fake", "visual_logit"},
        "tts-dub": {"p_fake", "audio_logit"},
        "mixed": {"p_fake", "visual_logit", "audio_logit"},
        "audio-swap": {"p_fake", "-sync_match"},
    }
    # Fakes of the kind faceswap: row 1 has no voice, the others both; row 0, a real file, has a voice only.
    assert one(found, "kind", "faceswap", "p_fake")["n"] == 12 + 10
    scores.loc[scores["method"] == "m", "method"] = [f"rare{i // 4}" for i in range(6)]  # 4 and 2: too few
    assert set(measured(scores, "method")["subset"]) == {"clips: n"}


def test_a_sources_look_cannot_help_inside_the_source() -> None:
    scores = clips()
    forged = scores["video_fake"] == 1
    scores["dataset"] = np.where(np.arange(60) < 30, "both", np.where(forged, "only fakes", "only reals"))
    scores["visual_logit"] = np.where(scores["dataset"] == "both", 0, np.where(forged, 9, -9)).astype(float)
    found = measured(scores, "source", "stream")
    assert one(found, "source", "clips: both", "visual_logit")["auc"] == 0.5
    assert list(found[(found["table"] == "source") & (found["score"] == "visual_logit")]["subset"]) == ["clips: both"]
    stream = one(found, "stream", "clips", "visual_logit")
    assert stream["auc"] > 0.7
    assert stream["auc_within"] == 0.5


def test_sources_weigh_alike_in_their_mean_and_a_missing_sound_track_gives_nothing_away() -> None:
    scores = clips()
    scores["dataset"] = np.where(scores.index < 35, "large", "small")
    found = measured(scores, "source", "output")
    large, small = (one(found, "source", f"clips: {name}", "p_fake") for name in ("large", "small"))
    assert (large["n"], small["n"]) == (32, 25), "the rows that lack a face or a voice have none of the other class"
    within = one(found, "output", "clips", "p_fake")["auc_within"]
    assert within == pytest.approx((large["auc"] + small["auc"]) / 2)
    # A real source without sound, fakes with it: P(fake) could tell them by what there is to judge.
    scores.loc[(scores["dataset"] == "large") & (scores["fake"] == 0), ["has_audio", "has_sync"]] = 0
    found = measured(scores, "source").query("label == 'fake' and score == 'p_fake' or score == 'visual_logit'")
    told = found.groupby("score")["subset"].apply(list).to_dict()
    assert told == {"p_fake": ["clips: small"], "visual_logit": ["clips: large", "clips: small"]}


def test_false_alarms_are_told_by_source_the_worst_first() -> None:
    """Sources of 12, 12, 6 and 3 reals; the last one is too small to be told."""
    sources = ["calm"] * 12 + ["loud"] * 12 + ["small"] * 6 + ["tiny"] * 3
    p = [*np.linspace(0.1, 0.5, 12), *np.linspace(0.3, 0.9, 12), *[0.7] * 5, 0.2, *[0.99] * 3]
    scores = clips(33).assign(dataset=sources, p_fake=p, fake=0, video_fake=0, audio_fake=0, method="")
    scores = pd.concat([scores, clips(10).query("fake == 1")], ignore_index=True)
    found = measured(scores, "false alarms")
    found = found[found["score"] == "p_fake"]
    assert list(found["subset"]) == ["clips: small", "clips: loud", "clips: calm"]
    assert found["false_alarms"].tolist() == pytest.approx([5 / 6, (np.linspace(0.3, 0.9, 12) >= 0.6).mean(), 0])
    assert found["note"].tolist() == [TOO_FEW, "", ""]
    # Each source is a quarter of the reals, and each file of the tiny one a twelfth: none of them may alarm.
    assert (found["false_alarms_at_5"] == 0).all()


def speech_pairs(number: int = 0, page: str = "page") -> pd.DataFrame:
    """Group a: a recording and two fakes of it, one right, one wrong; group b: two recordings; c: nobody."""
    rows = [
        ("a0", 0, "", 0.0),
        ("a1", 1, "a0", 1.0),
        ("a2", 1, "a0", -1.0),
        ("b0", 0, "", 0.0),
        ("b1", 0, "", 2.0),
        ("b2", 1, "", 2.0),  # no original: above b0, tied with b1
        ("c0", 1, "", 5.0),  # nobody to be compared with
        ("d0", 1, "a0", 3.0),  # its original is of another group
        ("d1", 0, "", 9.0),
    ]
    table = pd.DataFrame(rows, columns=["path", "audio_fake", "original", "audio_logit"])
    table = table.assign(kind="speech", dataset=page, fake=table["audio_fake"], has_audio=1.0)
    return table.assign(group=table["path"].str[0] + str(number), path=table["path"] + str(number) * (number > 0))


def pairs_of(scores: pd.DataFrame) -> pd.Series:
    return one(measured(scores, "pairs"), "pairs", "speech", "audio_logit")


def test_pairs_are_counted_by_hand_inside_their_original_or_their_group() -> None:
    scores = speech_pairs()
    row = pairs_of(scores)
    assert row["auc"] == pytest.approx((1 / 2 + (1 + 0.5) / 2 + 1) / 3)
    assert (row["pairs"], row["n"], row["fakes"], row["note"]) == (5, 7, 4, TOO_FEW)
    assert row[["auc_low", "abstained"]].isna().all()
    scores.loc[scores["path"] == "a0", "has_audio"] = 0
    assert pairs_of(scores)["pairs"] == 3, "d0 has its group's d1"
    many = pd.concat([speech_pairs(k) for k in range(5)], ignore_index=True).assign(original="")
    row = pairs_of(many)
    assert row["note"] == ""
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    # Those of a source need five groups.
    apart = pd.concat([speech_pairs(k, f"page{k}") for k in range(2)], ignore_index=True)
    assert set(measured(apart, "pairs")["subset"]) == {"speech"}
    assert set(measured(apart.assign(dataset="page0"), "pairs")["subset"]) == {"speech", "speech: page0"}


def test_modalities_and_classes_are_measured_on_the_same_whole_clips() -> None:
    scores = mixed()
    for stream, output in OUTPUT_OF.items():
        scores[f"masked:{stream}"] = scores[output].where(scores[f"has_{stream}"] == 1)
    scores = scores.assign(**{f"masked:{p}": scores["p_fake"] for p in ("visual+audio", "visual+sync", "audio+sync")})
    found = measured(scores, "modality")
    assert list(dict.fromkeys(found["score"])) == list(MODALITIES)
    assert set(found["subset"]) == {"clips", "RVFA", "FVRA", "FVFA", "mismatch"}
    classes = measured(scores, "class").set_index("subset")
    assert list(classes.index) == ["RVFA", "FVRA", "FVFA", "mismatch"]
    whole = (scores["has_visual"] == 1) & (scores["has_audio"] == 1)
    for name, kind in (("FVRA", "faceswap"), ("RVFA", "tts-dub"), ("FVFA", "mixed"), ("mismatch", "audio-swap")):
        kept = scores[whole & scores["kind"].isin(["real", kind])]
        assert classes.loc[name, "auc"] == pytest.approx(balanced(roc_auc_score, kept, "fake", "p_fake"))
        assert classes.loc[name, ["n", "fakes"]].tolist() == [len(kept), (kept["kind"] == kind).sum()]
    assert found.groupby(["subset", "label"])["n"].nunique().eq(1).all(), "every line is of the same clips"
    assert found["abstained"].eq(0).all()
    alone = one(found[found["label"] == "fake"], "modality", "FVRA", "visual_logit")
    kept = scores[list(OUTPUT_OF.values())].notna().all(axis=1) & scores["kind"].isin(["real", "faceswap"])
    assert alone["n"] == kept.sum()
    assert alone["auc"] == pytest.approx(balanced(roc_auc_score, scores[kept], "fake", "visual_logit"))
    # The first table is the same on page and terminal.
    metrics = found.assign(part="all")
    table, lines = view("modalities", metrics, "all"), modalities_in_words(metrics, "all")
    raw, last = table.rows[1], table.rows[-1]
    assert (raw[-1], last[-1][-2:]) == ("–", " %"), "a ranking calls nothing fake"
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == "streams fake face voice match RVFA FVRA FVFA swap RVRA".split()
    assert lines[2 + len(MODALITIES)].split()[2:4] == [last[1].split()[0], last[2].split()[0]]
    two = scores.drop(columns=[name for name in scores if "sync" in name]).assign(p_mismatch=np.nan)
    names = [row[0] for row in view("modalities", measured(two, "modality").assign(part="all"), "all").rows]
    assert names == ["files (fakes)", "face, raw", "voice, raw", "face, P", "voice, P", "face + voice", "all three"]
    assert modalities_in_words(metrics, "dev") == []


def test_missing_streams_are_counted_with_their_reason() -> None:
    scores = clips().assign(error="", missing_visual="", missing_audio="", missing_sync="")
    scores.loc[[0, 5], "missing_visual"] = "no face"
    scores.loc[1, "missing_audio"] = "silent"
    scores.loc[5, "error"] = "MediaError: damaged"
    found = missing_streams(scores).set_index(["stream", "reason"])["files"].to_dict()
    assert found == {
        ("visual", "no face"): 1,
        ("audio", "silent"): 1,
        ("sync", "not stated"): 2,
        **{(stream, "not read: MediaError"): 1 for stream in OUTPUT_OF},
    }
    assert missing_streams(scores)["share"].max() == pytest.approx(2 / 60)


def test_rows_are_unique_typed_complete_and_the_same_from_csv_and_in_any_order() -> None:
    scores = mixed()
    found = measured(scores)
    assert set(found["table"]) == set(TABLES) - {"ablation"}
    key = ["table", "subset", "score", "label"]
    assert not found.duplicated(key).any()
    assert list(found.columns[: len(COLUMNS)]) == list(COLUMNS)
    wanted = ("output", "source")
    expected = found[found["table"].isin(wanted)].reset_index(drop=True)
    again = pd.read_csv(io.StringIO(scores.to_csv(index=False)), keep_default_na=True)
    pd.testing.assert_frame_equal(measured(again, *wanted)[list(expected)], expected, rtol=1e-6, check_dtype=False)
    backwards = measured(scores[::-1].reset_index(drop=True), *wanted)
    one_way, other = (frame.set_index(key)[["n", "auc", "auc_within"]].sort_index() for frame in (expected, backwards))
    pd.testing.assert_frame_equal(one_way, other)
    empty = measured(clips()[:0])
    assert empty.empty
    assert list(empty.columns) == list(found.columns)
    result = as_result(found)
    assert json.loads(json.dumps(result, allow_nan=False)) == result, "JSON without NaN"
    assert result["summary"]["clips/p_fake"]["auc"] == round(one(found, "output", "clips", "p_fake")["auc"], 4)
