"""What is done to files before they are scored again: that it is done, on the same files, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st
from media_factory import RENDERER
from media_facts import video_facts
from readme_media import SAMPLE

import avdetect
from avdetect.audio import rms
from avdetect.datasets.manifest import validate
from avdetect.detector import Detector
from avdetect.errors import ConfigError
from avdetect.evaluation import robustness as module
from avdetect.evaluation.robustness import Condition, conditions, robustness, sample
from avdetect.media import probe
from avdetect.types import Waveform

BY_NAME = {condition.treatment: condition for condition in conditions()}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return avdetect.load_detector(device="cpu")


def test_every_severity_of_every_curve() -> None:
    curves: dict[str, list[float]] = {}
    for condition in conditions():
        assert bool(condition.picture) != (condition.sound is not None)
        curves.setdefault(condition.name, []).append(condition.severity)
    assert curves == {
        "h264": [18, 23, 28, 33, 38, 43],
        "height": [720, 480, 360, 240, 144],
        "frame rate": [15],
        "encoded twice": [28],
        "audio bit rate": [128, 64, 32, 16, 8],
        "white noise": [40, 30, 20, 10, 0],
    }
    assert len(BY_NAME) == len(conditions()), "each has a name of its own"


@pytest.mark.parametrize(
    ("treatment", "height", "expected"),
    [
        ("h264 43 crf", 480, [(43, 1.0, 30.0)]),
        ("height 144 px", 480, [(18, 0.3, 30.0)]),
        ("height 720 px", 480, [(18, 1.0, 30.0)]),  # never enlarged
        ("frame rate 15 fps", 480, [(18, 1.0, 15.0)]),
        ("encoded twice 28 crf", 480, [(28, 1.0, 30.0), (28, 0.75, 30.0)]),
    ],
)
def test_encodings_of_a_picture(treatment: str, height: int, expected: list[tuple[float, ...]]) -> None:
    video = video_facts(width=640, height=height)
    codecs = [encoding.of(video) for encoding in BY_NAME[treatment].picture]
    assert [(codec.crf, codec.scale, codec.fps) for codec in codecs] == expected
    unstated = dataclasses.replace(video, fps=None)
    assert BY_NAME["h264 18 crf"].picture[0].of(unstated).fps == 25


def changed(treatment: str, wave: Waveform, seed: int = 0) -> Waveform:
    sound = BY_NAME[treatment].sound
    assert sound is not None
    return sound(wave, np.random.default_rng(seed))


@pytest.mark.parametrize("snr", [40, 30, 20, 10, 0])
def test_noise_has_the_stated_level(snr: int) -> None:
    wave = Waveform(speech(2) * 0.2, 1.5)
    noisy = changed(f"white noise {snr} dB", wave)
    assert noisy.start_seconds == 1.5
    found = 20 * np.log10(rms(wave.samples) / rms(noisy.samples - wave.samples))
    assert found == pytest.approx(snr, abs=0.2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2000), st.floats(0, 1), st.integers(0, 3))
def test_noise_stays_a_waveform(count: int, level: float, seed: int) -> None:
    wave = Waveform((np.random.default_rng(seed).uniform(-1, 1, count) * level).astype(np.float32))
    noisy = changed("white noise 0 dB", wave, seed)
    assert noisy.samples.shape == wave.samples.shape
    assert np.abs(noisy.samples).max(initial=0) <= 1
    np.testing.assert_array_equal(noisy.samples, changed("white noise 0 dB", wave, seed).samples)
    if not wave.samples.any():
        assert not noisy.samples.any(), "silence has no level that noise could stand below"


def test_lower_bit_rates_leave_less() -> None:
    wave = Waveform(speech(2))
    errors = []
    for kbps in (128, 32, 8):
        coded = changed(f"audio bit rate {kbps} kbit/s", wave)
        assert coded.samples.shape == wave.samples.shape
        errors.append(rms(coded.samples - wave.samples))
    assert 0 < errors[0] < errors[1] < errors[2]


def manifest(rows: list[tuple[str, int | None, str, str]]) -> pd.DataFrame:
    """(path, fake, dataset, kind) of each file."""
    table = pd.DataFrame(rows, columns=["path", "fake", "dataset", "kind"])
    table = table.assign(video_fake=None, audio_fake=None, group=table["path"], split="dev", method="")
    return validate(table)


def test_a_sample_takes_classes_and_sources_alike() -> None:
    rows: list[tuple[str, int | None, str, str]] = []
    for label in (0, 1):
        rows += [(f"/large{label}/{i}.mp4", label, "large", "any") for i in range(50)]
        rows += [(f"/small{label}/{i}.mp4", label, "small", "any") for i in range(3)]
        rows += [(f"/voices{label}/{i}.wav", label, "voices", "speech") for i in range(2)]
        rows += [(f"/stills{label}/{i}.png", label, "faces", "still") for i in range(9)]
    rows += [("/photo.JPG", 1, "large", "any"), ("/unknown.mp4", None, "large", "any")]
    table = manifest(rows)
    found = sample(table, 8)
    counts = found.groupby(["subset", "fake", "dataset"]).size().to_dict()
    assert counts == {
        **{("clips", label, "large"): 5 for label in (0, 1)},
        **{("clips", label, "small"): 3 for label in (0, 1)},
        **{("speech", label, "voices"): 2 for label in (0, 1)},
    }
    shuffled = sample(table.sample(frac=1, random_state=1), 8)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), shuffled.reset_index(drop=True))
    assert set(sample(table, 8, seed=1)["path"]) != set(found["path"])
    with pytest.raises(ConfigError, match="at least 1"):
        sample(table, 0)


# -- through the detector


TRIED = tuple(BY_NAME[name] for name in ("h264 43 crf", "encoded twice 28 crf", "audio bit rate 8 kbit/s"))
TRIED += (BY_NAME["white noise 0 dB"],)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Two faces with voices, two voices; one file of each class."""
    folder = tmp_path_factory.mktemp("media")
    rows = []
    for label in (0, 1):
        cut = [RENDERER, "-v", "error", "-ss", str(label), "-t", "1.5", "-i", str(SAMPLE)]
        face, voice = folder / f"{label}.mp4", folder / f"{label}.wav"
        subprocess.run([*cut, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(face)], check=True)
        subprocess.run([*cut, "-vn", str(voice)], check=True)
        rows += [(str(face), label, "made", "any"), (str(voice), label, "made", "speech")]
    table = manifest(rows)
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
    assert rows.loc[rows["subset"] == "speech", "condition"].tolist() == ["clean", *names[3:]]
    assert rows["n"].eq(2).all()
    assert rows["fakes"].eq(1).all()
    assert rows["abstained"].eq(0).all()
    assert rows["auc"].isin([0, 0.5, 1]).all()
    assert rows[["mean_p_real", "mean_p_fake"]].notna().all(axis=None)
    video = measured[(measured["score"] == "p_video_fake") & (measured["subset"] == "speech")]
    assert video["n"].eq(0).all()
    assert video["auc"].isna().all()


def test_clean_is_what_the_detector_says(measured: pd.DataFrame, files: pd.DataFrame, detector: Detector) -> None:
    clean = measured[measured["condition"] == "clean"].set_index(["subset", "score"])
    for subset, path in (("clips", files["path"][0]), ("speech", files["path"][1])):
        assert clean.loc[(subset, "p_fake"), "mean_p_real"] == detector.score(path).fake


def test_each_condition_changes_what_it_should(measured: pd.DataFrame) -> None:
    clips = measured[measured["subset"] == "clips"].set_index(["condition", "score"])["mean_p_real"]
    video, audio = (clips.xs(score, level="score") for score in ("p_video_fake", "p_audio_fake"))
    assert video["h264"] != video["clean"]
    assert video["encoded twice"] != video["h264"]
    assert audio["white noise"] != audio["clean"]
    assert audio["audio bit rate"] != audio["clean"]


def test_a_run_goes_on_with_what_is_not_scored(files: pd.DataFrame, detector: Detector, tmp_path: Path) -> None:
    calls: list[str] = []

    def sound(wave: Waveform, _: np.random.Generator) -> Waveform:
        calls.append("heard")
        return wave

    tried = [Condition("untouched", 1, "x", sound=sound)]
    runs = [robustness(files, detector, tmp_path, 5, rounds=20, tried=tried) for _ in range(2)]
    assert len(calls) == len(files), "the second run scores nothing"
    pd.testing.assert_frame_equal(*runs)
    by_condition = runs[0].groupby("condition")["mean_p_real"].apply(list)
    np.testing.assert_array_equal(by_condition["untouched"], by_condition["clean"])


def test_what_cannot_be_read_is_counted_and_leaves_nothing(
    files: pd.DataFrame, detector: Detector, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    table = pd.concat([files, manifest([(str(broken), 0, "made", "any")])], ignore_index=True)
    table = table[table["path"].isin([str(broken), files["path"][2]])]
    found = robustness(table, detector, tmp_path / "out", 5, rounds=20, tried=[BY_NAME["height 144 px"]])
    rows = found[found["score"] == "p_fake"]
    assert rows["abstained"].eq(1).all()
    assert rows["n"].eq(1).all()
    assert rows["auc"].isna().all()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["robustness.sqlite"]


def test_copies_go_even_when_the_scoring_stops(
    files: pd.DataFrame, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights: list[int] = []

    def stop(source: module.FileClips, path: str, use: module.Use) -> dict[str, str]:
        if path.endswith(".mkv"):
            video = probe(path).video
            assert video is not None
            heights.append(video.height)
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(module.FileClips, "feed_file", stop)
    with pytest.raises(KeyboardInterrupt):
        robustness(files, detector, tmp_path, 1, tried=[BY_NAME["height 144 px"]])
    assert heights == [144]
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.sqlite"]
