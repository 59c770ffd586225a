"""The shortcut audit finds the shortcuts that are there, none that are not, and says when a model does not beat one."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from media_factory import MediaFactory

from avdetect.errors import ManifestError, MediaError
from avdetect.evaluation.audit import (
    CODECS,
    CONTAINERS,
    FACTS,
    FEATURE_SETS,
    beaten,
    best_shortcuts,
    evaluation_folds,
    facts,
    facts_table,
    guesses,
    out_of_fold,
    shortcuts,
    sound_facts,
)
from avdetect.evaluation.columns import measurement_frame

SOUND = ("silence_share", "leading_silence_seconds", "loudness_db", "noise_floor_db")


def test_facts_of_a_clip(media: MediaFactory) -> None:
    path = media("clap.mp4")
    found = facts(path)
    assert tuple(found) == FACTS
    assert all(isinstance(value, float) for value in found.values())
    assert (found["width"], found["height"], found["fps"]) == (64, 48, 25)
    assert found["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert found["file_bytes"] == path.stat().st_size
    assert found["bit_rate"] == pytest.approx(found["file_bytes"] * 8 / found["duration_seconds"])
    assert (found["has_video_stream"], found["has_audio_stream"], found["sample_rate"]) == (1, 1, 48000)
    assert CONTAINERS[int(found["container"])] == "mov"
    assert (CODECS[int(found["video_codec"])], CODECS[int(found["audio_codec"])]) == ("h264", "aac")
    assert found["leading_silence_seconds"] == pytest.approx(1, abs=0.06)
    assert found["silence_share"] == pytest.approx(1 - 0.08 / 2, abs=0.03)


def test_facts_of_one_half_are_missing_not_zero(media: MediaFactory) -> None:
    film, tone = facts(media("silent_film.mp4")), facts(media("tone.wav"))
    assert all(math.isnan(film[name]) for name in (*SOUND, "sample_rate", "channels"))
    assert film["audio_codec"] == 0 == tone["video_codec"]
    assert math.isnan(tone["width"])
    assert tone["silence_share"] == 0
    assert tone["loudness_db"] == pytest.approx(20 * math.log10(0.125 / math.sqrt(2)), abs=0.2)


def test_an_unreadable_file_is_a_row_without_facts(media: MediaFactory, tmp_path: object) -> None:
    with pytest.raises(MediaError):
        facts(f"{tmp_path}/none.mp4")
    found = facts_table([media("tone.wav"), f"{tmp_path}/none.mp4"])
    assert list(found.columns) == list(FACTS)
    assert found.iloc[1].isna().all()
    assert found["channels"].iloc[0] == 1


def test_codes_of_names_are_stable() -> None:
    """A code that moved would make tables written before mean something else."""
    assert [CODECS.index(name) for name in ("h264", "hevc", "vp9", "aac", "opus", "pcm_s16le")] == [1, 2, 4, 13, 15, 26]
    assert len(set(CODECS)) == len(CODECS)
    assert len(set(CONTAINERS)) == len(CONTAINERS)


def test_sound_facts_by_hand() -> None:
    rng = np.random.default_rng(0)
    quiet = 1e-4 * rng.standard_normal(8000)  # -80 dB for 0.5 s
    loud = 0.1 * rng.standard_normal(16000)  # -20 dB for 1 s
    found = sound_facts(np.concatenate([quiet, loud, quiet]).astype(np.float32))
    assert found["leading_silence_seconds"] == pytest.approx(0.5)
    assert found["silence_share"] == pytest.approx(0.5)
    assert found["loudness_db"] == pytest.approx(-23, abs=0.2)
    assert found["noise_floor_db"] == pytest.approx(-80, abs=1)
    nothing = sound_facts(np.zeros(3200, np.float32))
    assert nothing == {
        "silence_share": 1,
        "leading_silence_seconds": pytest.approx(0.2),
        "loudness_db": pytest.approx(-100),
        "noise_floor_db": pytest.approx(-100),
    }
    assert all(math.isnan(value) for value in sound_facts(np.zeros(319, np.float32)).values())


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.integers(320, 4000), elements=st.floats(-1, 1, width=32)))
def test_sound_facts_of_anything(samples: np.ndarray) -> None:
    found = sound_facts(samples)
    assert all(math.isfinite(value) for value in found.values())
    assert 0 <= found["silence_share"] <= 1
    assert 0 <= found["leading_silence_seconds"] <= len(samples) / 16000
    assert -100.1 <= found["noise_floor_db"] <= 0.1


def table(rows: int = 120, sources: int = 6, both: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    fake = np.arange(rows) % 2
    return pd.DataFrame(
        {
            "path": [f"{i}.mp4" for i in range(rows)],
            "fake": fake,
            "video_fake": fake if both else None,
            "audio_fake": None,
            "group": [f"g{i // 4}" for i in range(rows)],
            "dataset": [f"s{i * sources // rows}" for i in range(rows)],
            "p_fake": np.clip(0.5 + 0.1 * (2 * fake - 1) + 0.2 * rng.standard_normal(rows), 0, 1),
            "p_video_fake": 0.5,
        }
    )


def halves(scores: pd.DataFrame) -> np.ndarray:
    """Two folds of whole sources: fewer classifiers to train than the five of `evaluation_folds`."""
    return scores["dataset"].isin(["s0", "s1", "s2"]).to_numpy(int)


def noise_facts(scores: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(rng.standard_normal((len(scores), len(FACTS))), columns=list(FACTS))


def audited(scores: pd.DataFrame, known: pd.DataFrame, fold: np.ndarray, **options: object) -> pd.DataFrame:
    return shortcuts(scores.join(guesses(scores, known, fold)), **options)


def test_a_planted_shortcut_is_found_and_beats_the_model() -> None:
    scores, known = table(), noise_facts(table())
    known["duration_seconds"] = 3 + scores["fake"] + 0.1 * known["duration_seconds"]
    rows = audited(scores, known, halves(scores), rounds=10)
    auc = rows.set_index(["subset", "label", "score"])["auc"]
    assert set(rows["table"]) == {"audit"}
    assert set(auc.index) == {("clips", "fake", name) for name in FEATURE_SETS}
    assert auc["clips", "fake", "duration"] > 0.99
    assert auc["clips", "fake", "all shortcuts"] > 0.95
    for name in ("container facts", "silence", "loudness", "noise floor"):
        assert auc["clips", "fake", name] < 0.7
    model = {"table": "output", "subset": "clips", "score": "p_fake", "label": "fake", "auc": 0.65}
    said = beaten(measurement_frame([model]), rows)
    best = best_shortcuts(rows).set_index("label")["auc"]["fake"]
    assert len(said) == 1
    assert said[0].startswith("clips/fake: the model's AUC .65 does not beat ")
    assert said[0].endswith(f" alone ({best:.2f})".replace("(0.", "(."))
    assert beaten(measurement_frame([model | {"auc": 1.01}]), rows) == []
    assert beaten(measurement_frame([model | {"subset": "speech"}]), rows) == []
    assert beaten(measurement_frame([model | {"auc": math.nan}]), rows) == []


def test_a_shortcut_of_one_source_is_none_in_the_others() -> None:
    """Out of fold by source: what holds in a single source only must not help."""
    scores, known = table(), noise_facts(table())
    known["loudness_db"] = np.where(scores["dataset"] == "s0", 10 * scores["fake"], known["loudness_db"])
    rows = audited(scores, known, halves(scores), rounds=2)
    assert rows.set_index(["label", "score"])["auc"]["fake", "loudness"] < 0.7


def test_only_what_the_model_judged_is_measured() -> None:
    scores = table(both=True)
    scores.loc[:9, "p_fake"] = np.nan
    rows = audited(scores, noise_facts(scores), halves(scores), rounds=2)
    counts = rows.drop_duplicates("label").set_index("label")["n"].to_dict()
    assert counts == {"fake": 110, "video_fake": 120}
    measured = np.arange(120) >= 60
    part = audited(scores.assign(p_video_fake=np.nan), noise_facts(scores), halves(scores), rounds=2, measured=measured)
    assert set(part["n"]) == {60}


def test_the_audit_is_deterministic_and_takes_missing_facts() -> None:
    scores, known = table(), noise_facts(table())
    known.loc[::3, "width"] = np.nan
    known["loudness_db"] = np.nan
    fold = halves(scores)
    first, again = (audited(scores, known, fold, rounds=5) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (first.loc[first["score"] == "loudness", "auc"] == 0.5).all(), "a fact that nobody states tells nothing"


def test_rows_that_no_classifier_could_be_trained_for_are_counted() -> None:
    scores = table()
    fold = np.where(scores["fake"] == 1, 0, np.arange(120) % 2)  # without fold 0 there is no fake
    rows = audited(scores, noise_facts(scores), fold, rounds=2)
    assert set(rows["n"]) == {int((fold == 1).sum())}
    assert set(rows["abstained"]) == {int((fold == 0).sum())}
    assert rows["auc"].isna().all()
    assert best_shortcuts(rows).empty


def test_a_classifier_never_sees_its_own_fold() -> None:
    x, y = np.arange(40.0)[:, None] % 2, np.arange(40.0) % 2
    fold = np.arange(40) // 10
    p = out_of_fold(x, y, fold, 0)
    changed = y.copy()
    changed[fold == 2] = 1 - y[fold == 2]
    np.testing.assert_array_equal(out_of_fold(x, changed, fold, 0)[fold == 2], p[fold == 2])


def test_lengths_must_agree() -> None:
    scores = table()
    with pytest.raises(ValueError, match="must be as many"):
        audited(scores, noise_facts(scores)[:5], np.zeros(120))


def test_folds_are_given_or_cut_by_source_or_by_group() -> None:
    scores = table(both=True)
    by_source = evaluation_folds(scores)
    assert (by_source.name, by_source.nunique()) == ("dataset", 5)
    assert (by_source.groupby(scores["dataset"]).nunique() == 1).all()
    given = evaluation_folds(scores.assign(fold=np.arange(120) % 3))
    assert given.name == "given"
    assert given.tolist() == (np.arange(120) % 3).tolist()
    assert evaluation_folds(scores.assign(fold=np.nan)).name == "dataset"
    assert evaluation_folds(scores.assign(fold=0)).name == "dataset", "one fold has no others to learn from"
    by_group = evaluation_folds(scores.assign(dataset="one"))
    assert (by_group.name, by_group.nunique()) == ("group", 5)
    with pytest.raises(ManifestError, match="shortcut audit"):
        evaluation_folds(scores.assign(dataset="one", group="one"))
