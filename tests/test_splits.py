"""Cutting a manifest: folds and splits never cut a group or part a fake from its original, whatever the rows' order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from avdetect.datasets.manifest import LABELS, validate
from avdetect.datasets.splits import assign_splits, check_folds, folds, media, origins
from avdetect.errors import ManifestError


def people(count: int, seed: int = 0) -> pd.DataFrame:
    """Groups of unequal sizes, each with reals and fakes of one kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(count):
        for clip in range(int(rng.integers(1, 6))):
            fake = clip % 2
            labels = {"fake": fake, "video_fake": fake * (person % 2), "audio_fake": fake * (1 - person % 2)}
            names = {"path": f"/data/{person}/{clip}.mp4", "group": f"person {person}", "dataset": f"set {person % 7}"}
            rows.append(labels | names)
    return validate(pd.DataFrame(rows).assign(split="", method=""), check_splits=False)


def strangers(count: int) -> pd.DataFrame:
    """Every file a group of its own; each odd one is a fake of the one before it."""
    rows = [
        {"path": f"/{i}.mp4", "fake": i % 2, "video_fake": i % 2, "group": f"g{i * 7 % count}", "dataset": f"set {i}"}
        | {"original": f"/{i - 1}.mp4" if i % 2 else ""}
        for i in range(count)
    ]
    return validate(pd.DataFrame(rows).assign(audio_fake=0, split="", method=""), check_splits=False)


def wide(seed: int) -> pd.DataFrame:
    """Sources of very unequal sizes: of clips, speech and stills, of one class or both, some tied by a person."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in range(60):
        kind = ("real", "speech-tts", "still-gan")[source % 3]
        classes = ([0, 1], [0], [1])[int(rng.integers(3))]
        for file in range(int(rng.choice([1, 3, 10, 80]))):
            fake = classes[file % len(classes)]
            person = f"person {rng.integers(4)}" if rng.random() < 0.005 else f"{source}/{file // 4}"
            rows.append(
                {"path": f"/{source}/{file}.mp4", "fake": fake, "group": person, "split": "", "dataset": f"s{source}"}
                | {"video_fake": pd.NA if "speech" in kind else fake, "audio_fake": fake if "speech" in kind else pd.NA}
                | {"method": f"generator {rng.integers(90)}" if fake else "", "kind": kind}
            )
    return validate(pd.DataFrame(rows), check_splits=False)


def whole(parts: pd.Series, names: pd.Series) -> bool:
    return bool(parts.groupby(names).nunique().eq(1).all())


def test_folds_keep_groups_whole_in_any_order_and_are_stratified(monkeypatch: pytest.MonkeyPatch) -> None:
    given = people(300)
    fold = folds(given, 5)
    assert whole(fold, given["group"])
    assert set(fold) == {0, 1, 2, 3, 4}
    assert fold.value_counts().min() > 0.8 * len(given) / 5
    for label in LABELS:
        shares = given[label].astype(float).groupby(fold).mean()
        assert shares.max() - shares.min() < 0.03
    mixed = given.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(folds(mixed, 5).sort_index(), fold)
    monkeypatch.setattr("avdetect.datasets.splits.MAX_UNITS", 50)  # too many groups are dealt out in batches
    fold = folds(given, 5)
    assert whole(fold, given["group"])
    assert fold.value_counts().min() > 0.7 * len(given) / 5


def test_folds_are_written_down() -> None:
    """Bundles were trained on them: they must not change with a library."""
    assert "".join(map(str, folds(people(8), 3))) == "0000011112222211021"
    by_dataset = folds(people(14), 3, by="dataset")
    assert "".join(map(str, by_dataset)) == "00000111100011222201000001111222222222222"


@pytest.mark.parametrize("seed", range(2))
def test_sources_left_out_are_left_out_whole_and_weigh_alike(seed: int) -> None:
    given = wide(seed)
    fold = folds(given, 5, by="dataset")
    assert set(fold) == set(range(5))
    for name in ("dataset", "group"):
        assert whole(fold, given[name]), f"a {name} stands on two sides"
    origin = pd.Series(origins(given, given["fake"].eq(1).to_numpy(bool)), index=given.index)
    for medium in ("clips", "speech", "stills"):
        for fake in (0, 1):
            rows = (media(given) == medium) & (given["fake"] == fake).to_numpy(bool)
            number = origin[rows].groupby(fold[rows]).nunique().reindex(range(5), fill_value=0)
            assert number.min() > 0, f"a fold has no {medium} with fake = {fake}"
    again = pd.concat([given, given[given["dataset"] == "s0"].assign(path=lambda t: t["path"] + "2")])
    assert folds(again, 5, by="dataset").iloc[: len(given)].equals(fold), "more files of a source move nothing"


def test_folds_and_splits_keep_a_fake_with_its_original() -> None:
    given = strangers(100)
    given["dataset"] = "set " + given.index.map(lambda i: str(i % 50)).astype(str)
    for by in ("group", "dataset"):
        fold = folds(given, 4, by=by)  # type: ignore[arg-type]
        assert (fold[::2].to_numpy() == fold[1::2].to_numpy()).all()
        assert fold.nunique() == 4
        mixed = given.sample(frac=1, random_state=1)
        pd.testing.assert_series_equal(folds(mixed, 4, by=by).sort_index(), fold)  # type: ignore[arg-type]
    out = assign_splits(given, 0.3, 0.2, 0)
    validate(out)
    assert set(out["split"]) == {"train", "dev", "test"}
    assert (out["split"][::2].to_numpy() == out["split"][1::2].to_numpy()).all()
    given.loc[given.index[50], "split"] = "test"  # the split of an original is its fakes'
    assert assign_splits(given, 0.3, 0, 0)["split"].iloc[51] == "test"


def test_fakes_of_an_absent_original_and_files_of_equal_bytes_stay_together() -> None:
    given = strangers(80)
    given.loc[given.index[1::8], "original"] = "/absent.mp4"
    fold, split = folds(given, 3), assign_splits(given, 0.4, 0.2, 0)["split"]
    assert fold[1::8].nunique() == split[1::8].nunique() == 1
    given = given.assign(original="", sha256=[str(i // 4) for i in range(80)])
    assert whole(folds(given, 3), given["sha256"])


def test_folds_that_cannot_be() -> None:
    for change, number, by, message in (
        ({}, 1, "group", "at least 2"),
        ({"group": "one"}, 2, "group", r"1 group\(s\) cannot be cut into 2 folds; ask for fewer folds"),
        ({"dataset": "one"}, 2, "dataset", r"1 dataset\(s\) that share no group.*cut by='group'"),
        ({}, 2, "person", "'group' or 'dataset'"),
    ):
        with pytest.raises(ManifestError, match=message):
            folds(people(20).assign(**change), number, by=by)  # type: ignore[arg-type]
    for dev, test in ((0.5, 0.5), (-0.1, 0), (0, 1), (float("nan"), 0)):
        with pytest.raises(ManifestError, match="shares"):
            assign_splits(people(5), dev, test, seed=0)


def test_a_class_of_one_group_or_dataset_only_cannot_be_folded() -> None:
    given = people(20).assign(audio_fake=0)
    given["fake"] = given["video_fake"]
    given.loc[given["group"] == "person 3", ["fake", "video_fake", "audio_fake"]] = [1, 1, 1]
    with pytest.raises(ManifestError, match=r"every audio_fake = 1 stands in fold \d \(1 of the groups\)"):
        folds(given, 2)
    assert folds(given, 2, labels=("fake", "video_fake")).nunique() == 2
    # An output of one class only, or that nobody knows, asks for nothing.
    assert folds(given.assign(audio_fake=pd.array([pd.NA] * len(given), "Int8")), 2).nunique() == 2
    given = people(90)
    given.loc[given["dataset"] != "set 1", ["audio_fake"]] = 0
    with pytest.raises(ManifestError, match=r"audio_fake = 1 stands in fold .*1 of the datasets.*by='group'"):
        folds(given, 2, by="dataset")
    folds(given, 2)


def test_a_fold_without_a_class_that_enough_groups_have_is_refused() -> None:
    fold, unit = np.array([0, 0, 0, 1, 1, 2, 2]), np.arange(7)
    values = np.array([[0], [1], [-1], [0], [1], [0], [0]])
    check_folds(fold, unit, values, 3, "group", ["fake"])  # two groups cannot give three folds a fake
    values[2] = 1
    with pytest.raises(ManifestError, match="fold 2 has no fake = 1; ask for fewer folds"):
        check_folds(fold, unit, values, 3, "group", ["fake"])


def test_splits_have_their_share_of_every_class_and_new_rows_move_no_group() -> None:
    given = people(1500)
    first = assign_splits(given, 0.1, 0.2, 0)
    validate(first)
    for label in LABELS:
        for value in (0, 1):
            shares = first.loc[given[label] == value, "split"].value_counts(normalize=True)
            assert abs(shares["dev"] - 0.1) < 0.03
            assert abs(shares["test"] - 0.2) < 0.03
    half = given[given["group"].map(lambda g: int(g.split()[1])) < 200]
    pd.testing.assert_series_equal(assign_splits(half, 0.1, 0.2, 0)["split"], first.loc[half.index, "split"])
    pd.testing.assert_frame_equal(assign_splits(given.iloc[::-1], 0.1, 0.2, 0).sort_index(), first)
    assert not assign_splits(given, 0.1, 0.2, 1)["split"].equals(first["split"])


def test_a_small_set_still_gets_both_classes_on_each_side() -> None:
    for seed in range(4):
        out = assign_splits(people(12), 0.1, 0.1, seed)
        for split in ("train", "dev", "test"):
            for label in LABELS:
                assert set(out.loc[out["split"] == split, label]) == {0, 1}, (seed, split, label)


def test_a_split_that_is_given_stays() -> None:
    given = people(40)
    given.loc[given["group"] == "person 3", "split"] = "test"
    given.loc[given.index[given["group"] == "person 4"][0], "split"] = "dev"  # one row speaks for its group
    out = assign_splits(given, 0.2, 0, 0)
    assert set(out.loc[out["group"] == "person 3", "split"]) == {"test"}
    assert set(out.loc[out["group"] == "person 4", "split"]) == {"dev"}
    assert set(out.loc[~out["group"].isin(["person 3", "person 4"]), "split"]) == {"train", "dev"}
    pd.testing.assert_frame_equal(assign_splits(out, 0.5, 0.3, 9), out)
