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

from avdetect.errors import ManifestError
from avdetect.evaluation import audit
from avdetect.evaluation.audit import FACTS, FEATURE_SETS, facts, guesses, out_of_fold, shortcuts, sound_facts
from avdetect.evaluation.columns import measurement_frame


def test_facts_of_a_clip(media: MediaFactory) -> None:
    path = media("clap.mp4")
    found = facts(path)
    assert tuple(found) == FACTS
    assert (found["width"], found["height"], found["fps"]) == (64, 48, 25)
    assert found["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert found["file_bytes"] == path.stat().st_size
    assert found["bit_rate"] == pytest.approx(found["file_bytes"] * 8 / found["duration_seconds"])
    assert (found["has_video_stream"], found["has_audio_stream"], found["sample_rate"]) == (1, 1, 48000)
    assert audit.CONTAINERS[int(found["container"])] == "mov"
    assert (audit.CODECS[int(found["video_codec"])], audit.CODECS[int(found["audio_codec"])]) == ("h264", "aac")
    assert found["leading_silence_seconds"] == pytest.approx(1, abs=0.06)
    assert found["silence_share"] == pytest.approx(1 - 0.08 / 2, abs=0.03)
    # A code that moved would make tables written before mean something else.
    assert [audit.CODECS.index(name) for name in ("h264", "hevc", "vp9", "aac", "opus", "pcm_s16le")] == [
        1,
        2,
        4,
        13,
        15,
        26,
    ]


def test_what_a_file_lacks_is_missing_not_zero(media: MediaFactory, tmp_path: object) -> None:
    film, tone = facts(media("silent_film.mp4")), facts(media("tone.wav"))
    assert all(math.isnan(film[name]) for name in ("silence_share", "loudness_db", "noise_floor_db", "sample_rate"))
    assert film["audio_codec"] == 0 == tone["video_codec"]
    assert math.isnan(tone["width"])
    assert tone["loudness_db"] == pytest.approx(20 * math.log10(0.125 / math.sqrt(2)), abs=0.2)
    assert all(math.isnan(value) for value in facts(f"{tmp_path}/none.mp4").values())
    assert all(math.isnan(value) for value in sound_facts(np.zeros(319, np.float32)).values())


def test_sound_facts_by_hand() -> None:
    rng = np.random.default_rng(0)
    quiet = 1e-4 * rng.standard_normal(8000)  # -80 dB for 0.5 s
    loud = 0.1 * rng.standard_normal(16000)  # -20 dB for 1 s
    found = sound_facts(np.concatenate([quiet, loud, quiet]).astype(np.float32))
    assert (found["leading_silence_seconds"], found["silence_share"]) == pytest.approx((0.5, 0.5))
    assert found["loudness_db"] == pytest.approx(-23, abs=0.2)
    assert found["noise_floor_db"] == pytest.approx(-80, abs=1)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, st.integers(320, 4000), elements=st.floats(-1, 1, width=32)))
def test_sound_facts_of_anything(samples: np.ndarray) -> None:
    found = sound_facts(samples)
    assert all(math.isfinite(value) for value in found.values())
    assert 0 <= found["silence_share"] <= 1
    assert 0 <= found["leading_silence_seconds"] <= len(samples) / 16000
    assert -100.1 <= found["noise_floor_db"] <= 0.1


def table(rows: int = 120) -> pd.DataFrame:
    """Of six sources."""
    fake, numbers = np.arange(rows) % 2, np.arange(rows)
    p = np.clip(0.5 + 0.1 * (2 * fake - 1) + 0.2 * np.random.default_rng(0).standard_normal(rows), 0, 1)
    sources = {"group": [f"g{i // 4}" for i in numbers], "dataset": [f"s{i * 6 // rows}" for i in numbers]}
    labels = {"path": [f"{i}.mp4" for i in numbers], "fake": fake, "video_fake": None, "audio_fake": None}
    return pd.DataFrame(labels | sources | {"p_fake": p, "p_video_fake": 0.5})


def halves(scores: pd.DataFrame) -> np.ndarray:
    """Two folds of whole sources: fewer classifiers to train than the five of `audit.evaluation_folds`."""
    return scores["dataset"].isin(["s0", "s1", "s2"]).to_numpy(int)


def noise_facts(scores: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(rng.standard_normal((len(scores), len(FACTS))), columns=list(FACTS))


def test_a_planted_shortcut_is_found_and_beats_the_model() -> None:
    scores, known = table(), noise_facts(table())
    known["duration_seconds"] = 3 + scores["fake"] + 0.1 * known["duration_seconds"]
    # What holds in a single source only must not help, and a fact that nobody states tells nothing.
    known["loudness_db"] = np.where(scores["dataset"] == "s0", 10 * scores["fake"], known["loudness_db"])
    known["noise_floor_db"] = np.nan
    rows = shortcuts(scores.join(guesses(scores, known, halves(scores))), 5)
    auc = rows.set_index(["subset", "label", "score"])["auc"]
    assert set(auc.index) == {("clips", "fake", name) for name in FEATURE_SETS}
    assert auc["clips", "fake", "duration"] > 0.99
    assert auc["clips", "fake", "all shortcuts"] > 0.95
    for name in ("container facts", "silence", "loudness"):
        assert auc["clips", "fake", name] < 0.7
    assert auc["clips", "fake", "noise floor"] == 0.5
    model = {"table": "output", "subset": "clips", "score": "p_fake", "label": "fake", "auc": 0.65}
    best = audit.best_shortcuts(rows).set_index("label")["auc"]["fake"]
    (said,) = audit.beaten(measurement_frame([model]), rows)
    assert said.startswith("clips/fake: the model's AUC .65 does not beat ")
    assert said.endswith(f" alone ({best:.2f})".replace("(0.", "(."))
    assert audit.beaten(measurement_frame([model | {"auc": 1.01}, model | {"subset": "speech"}]), rows) == []


def test_only_what_the_model_judged_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FEATURE_SETS", {"duration": FEATURE_SETS["duration"]})
    scores = table().assign(video_fake=table()["fake"])
    scores.loc[:9, "p_fake"] = np.nan
    scores = scores.join(guesses(scores, noise_facts(scores), halves(scores)))
    counts = shortcuts(scores, 5).drop_duplicates("label").set_index("label")["n"].to_dict()
    assert counts == {"fake": 110, "video_fake": 120}
    assert set(shortcuts(scores, 5, np.arange(120) >= 60)["n"]) == {60}


def test_a_classifier_never_sees_its_own_fold() -> None:
    x, y = np.arange(40.0)[:, None] % 2, np.arange(40.0) % 2
    fold = np.arange(40) // 10
    p = out_of_fold(x, y, fold)
    np.testing.assert_array_equal(out_of_fold(x, y, fold), p)
    changed = y.copy()
    changed[fold == 2] = 1 - y[fold == 2]
    np.testing.assert_array_equal(out_of_fold(x, changed, fold)[fold == 2], p[fold == 2])


def test_folds_are_given_or_cut_by_source_or_by_group() -> None:
    scores, third = table(), np.arange(120) % 3
    for columns, name, number in (({}, "dataset", 5), ({"fold": third}, "given", 3), ({"dataset": "one"}, "group", 5)):
        found = audit.evaluation_folds(scores.assign(**columns))
        assert (found.name, found.nunique()) == (name, number)
    assert (audit.evaluation_folds(scores).groupby(scores["dataset"]).nunique() == 1).all()
    assert audit.evaluation_folds(scores.assign(fold=third)).tolist() == third.tolist()
    assert audit.evaluation_folds(scores.assign(fold=0)).name == "dataset", "one fold has no others to learn from"
    with pytest.raises(ManifestError, match="shortcut audit"):
        audit.evaluation_folds(scores.assign(dataset="one", group="one"))
