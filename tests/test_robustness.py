"""What is done to files before they are scored again: that it is done, on the same files, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import speech
from manifests import manifest_of
from media_factory import encode
from media_facts import video_facts
from readme_media import SAMPLE

from avdetect.audio import rms
from avdetect.detector import Detector
from avdetect.evaluation import robustness as module
from avdetect.evaluation.robustness import Condition, conditions, robustness, sample
from avdetect.media import probe
from avdetect.types import Waveform

BY_NAME = {condition.treatment: condition for condition in conditions()}


def test_each_condition_changes_one_half_and_has_a_name_of_its_own() -> None:
    assert all(bool(condition.picture) != (condition.sound is not None) for condition in conditions())
    assert len(BY_NAME) == len(conditions()) == 23
    expected = {
        "h264 43 crf": [(43, 1.0, 30.0)],
        "height 144 px": [(18, 0.3, 30.0)],
        "height 720 px": [(18, 1.0, 30.0)],  # never enlarged
        "frame rate 15 fps": [(18, 1.0, 15.0)],
        "encoded twice 28 crf": [(28, 1.0, 30.0), (28, 0.75, 30.0)],
    }
    for name, wanted in expected.items():
        codecs = [encoding(video_facts(width=640, height=480)) for encoding in BY_NAME[name].picture]
        assert [(codec.crf, codec.scale, codec.fps) for codec in codecs] == wanted


def changed(treatment: str, wave: Waveform) -> Waveform:
    sound = BY_NAME[treatment].sound
    assert sound is not None
    return sound(wave, np.random.default_rng(0))


def test_noise_has_the_stated_level() -> None:
    wave = Waveform(speech(2) * 0.2, 1.5)
    for snr in (40, 0):
        noisy = changed(f"white noise {snr} dB", wave)
        assert noisy.start_seconds == 1.5
        found = 20 * np.log10(rms(wave.samples) / rms(noisy.samples - wave.samples))
        assert found == pytest.approx(snr, abs=0.2)
    assert np.abs(changed("white noise 0 dB", Waveform(speech(1))).samples).max() <= 1
    silence = Waveform(np.zeros(100, np.float32))
    assert not changed("white noise 0 dB", silence).samples.any(), "there is no level that noise could stand below"


def manifest(rows: list[tuple[str, int | None, str, str]]) -> pd.DataFrame:
    """(path, fake, dataset, kind) of each file."""
    paths, fake, dataset, kind = zip(*rows, strict=True)
    return manifest_of(paths, fake=fake, dataset=dataset, kind=kind)


def test_a_sample_takes_classes_and_sources_alike() -> None:
    rows: list[tuple[str, int | None, str, str]] = []
    for label in (0, 1):
        for dataset, count, kind in (("large", 50, "any"), ("small", 3, "any"), ("voices", 2, "speech")):
            rows += [(f"/{dataset}{label}/{i}.mp4", label, dataset, kind) for i in range(count)]
        rows += [(f"/stills{label}/{i}.png", label, "faces", "still") for i in range(9)]
    rows += [("/photo.JPG", 1, "large", "any"), ("/unknown.mp4", None, "large", "any")]
    table = manifest(rows)
    found = sample(table, 8)
    counts = found.groupby(["subset", "fake", "dataset"]).size().to_dict()
    wanted = {("clips", "large"): 5, ("clips", "small"): 3, ("speech", "voices"): 2}
    assert counts == {(subset, label, name): n for (subset, name), n in wanted.items() for label in (0, 1)}
    shuffled = sample(table.sample(frac=1, random_state=1), 8)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), shuffled.reset_index(drop=True))


# -- through the detector


TRIED = tuple(BY_NAME[name] for name in ("encoded twice 28 crf", "audio bit rate 8 kbit/s", "white noise 0 dB"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Two faces with voices, two voices, one file of each class; and a real one that cannot be read."""
    folder = tmp_path_factory.mktemp("media")
    rows = []
    for label in (0, 1):
        cut = ("-ss", str(label), "-t", "1", "-i", str(SAMPLE))
        small = ("-vf", "scale=240:240", "-c:v", "libx264", "-preset", "ultrafast")
        face = encode(folder / f"{label}.mp4", *cut, *small, "-c:a", "aac")
        voice = encode(folder / f"{label}.wav", *cut, "-vn")
        rows += [(str(face), label, "made", "any"), (str(voice), label, "made", "speech")]
    (folder / "broken.mp4").write_text("no film")
    table = manifest([*rows, (str(folder / "broken.mp4"), 0, "made", "any")])
    return table.assign(video_fake=table["fake"].where(table["kind"] == "any"), audio_fake=table["fake"])


@pytest.fixture(scope="module")
def measured(files: pd.DataFrame, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("robustness")
    found = robustness(files, detector, folder, 5, rounds=20, tried=TRIED)
    assert [path.name for path in folder.iterdir()] == ["robustness.sqlite"], "no re-encoded file is left"
    return found


def test_a_row_for_each_subset_condition_and_output(measured: pd.DataFrame) -> None:
    rows = measured[measured["score"] == "p_fake"]
    names = ["clean", *(condition.name for condition in TRIED)]
    assert rows.loc[rows["subset"] == "clips", "condition"].tolist() == names
    assert rows.loc[rows["subset"] == "speech", "condition"].tolist() == ["clean", *names[2:]]
    assert rows[["n", "fakes"]].eq([2, 1]).all(axis=None)
    assert rows["abstained"].eq((rows["subset"] == "clips").astype(int)).all(), "what cannot be read is counted"
    assert rows["auc"].isin([0, 0.5, 1]).all()
    assert rows[["mean_p_real", "mean_p_fake"]].notna().all(axis=None)
    video = measured[(measured["score"] == "p_video_fake") & (measured["subset"] == "speech")]
    assert video["n"].eq(0).all()
    assert video["auc"].isna().all()
    # Each condition changes what it should.
    real = measured[measured["subset"] == "clips"].pivot(index="score", columns="condition", values="mean_p_real")
    for score, condition in (("video", "encoded twice"), ("audio", "white noise"), ("audio", "audio bit rate")):
        assert real.loc[f"p_{score}_fake", condition] != real.loc[f"p_{score}_fake", "clean"]


def test_a_run_goes_on_with_what_is_not_scored(files: pd.DataFrame, detector: Detector, tmp_path: Path) -> None:
    calls: list[str] = []

    def sound(wave: Waveform, _: np.random.Generator) -> Waveform:
        calls.append("heard")
        return wave

    tried, voices = [Condition("untouched", 1, "x", sound=sound)], files[files["kind"] == "speech"]
    runs = [robustness(voices, detector, tmp_path, 5, rounds=20, tried=tried) for _ in range(2)]
    assert len(calls) == len(voices), "the second run scores nothing"
    pd.testing.assert_frame_equal(*runs)
    by_condition = runs[0].groupby("condition")["mean_p_real"].apply(list)
    np.testing.assert_array_equal(by_condition["untouched"], by_condition["clean"])


def test_copies_go_even_when_the_scoring_stops(
    files: pd.DataFrame, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights: list[int] = []

    def stop(preprocessor: object, path: str, use: module.Use) -> dict[str, str]:
        if path.endswith(".mkv"):
            video = probe(path).video
            assert video is not None
            heights.append(video.height)
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(module, "feed_file", stop)
    with pytest.raises(KeyboardInterrupt):
        robustness(files[:4], detector, tmp_path, 1, tried=[BY_NAME["height 144 px"]])
    assert heights == [144]
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.sqlite"]
