"""The clip of `avdetect demo`: small, decodable, and its mouth moves with its voice; the synthesiser repeats itself."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from types import ModuleType

import imageio_ffmpeg
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"
SIZE, FPS, SAMPLE_RATE = 480, 25, 16_000


def decode(*arguments: str) -> bytes:
    """What ffmpeg writes to its standard output for the sample."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(SAMPLE), *arguments, "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def luma() -> np.ndarray:
    """(T, H, W) uint8."""
    raw = decode("-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "gray")
    return np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE)


@pytest.fixture(scope="module")
def envelope(luma: np.ndarray) -> np.ndarray:
    """(T,) RMS of the voice within each video frame."""
    raw = decode("-map", "0:a:0", "-f", "s16le", "-ac", "1", "-ar", str(SAMPLE_RATE))
    samples = np.frombuffer(raw, "<i2").astype(float) / 32768.0
    need = len(luma) * SAMPLE_RATE // FPS
    assert abs(len(samples) - need) < 0.1 * SAMPLE_RATE, "the two streams differ in length by more than AAC's padding"
    samples = np.pad(samples, (0, max(0, need - len(samples))))[:need]
    return np.sqrt((samples.reshape(len(luma), -1) ** 2).mean(axis=1))


@pytest.fixture(scope="module")
def make_sample() -> ModuleType:
    return importlib.import_module("make_sample")


def correlation_at(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """Pearson's r of a[t + lag] with b[t]: lag > 0 means that a comes later than b."""
    if lag < 0:
        a, b = a[:lag], b[-lag:]
    elif lag > 0:
        a, b = a[lag:], b[:-lag]
    return float(np.corrcoef(a, b)[0, 1])


def test_file_is_small_and_lasts_six_to_eight_seconds(luma: np.ndarray) -> None:
    assert SAMPLE.stat().st_size <= 400_000
    assert 6.0 <= len(luma) / FPS <= 8.0


def test_picture_is_not_a_still_away_from_the_mouth(luma: np.ndarray) -> None:
    upper_face = luma[:, 60:260].astype(np.int16)
    assert np.abs(upper_face[1:] - upper_face[:-1]).mean() > 0.2


def test_mouth_opens_with_the_voice(luma: np.ndarray, envelope: np.ndarray) -> None:
    # Opening uncovers the dark between teeth and lower lip. The box holds the lips in every pose of the head.
    mouth = luma[:, 275:350, 165:310].astype(float)
    darkness = np.clip(70.0 - mouth, 0.0, None).mean(axis=(1, 2))
    lags = list(range(-8, 9))
    r = [correlation_at(darkness, envelope, lag) for lag in lags]
    assert abs(lags[int(np.argmax(r))]) <= 1
    assert r[lags.index(0)] > 0.6


def test_voice_is_speech_like_and_not_clipped(envelope: np.ndarray) -> None:
    assert 0.05 < envelope.max() < 0.6
    # Syllables: it rises out of near-silence again and again.
    loud = envelope > 0.35 * envelope.max()
    assert int((np.diff(loud.astype(int)) == 1).sum()) >= 8


def test_synthesiser_is_deterministic(make_sample: ModuleType) -> None:
    controls = make_sample.controls_for(("_:.05 h:.05 ^ah:.12 s:.08",))
    first = make_sample.synthesize(controls, seed=3)
    second = make_sample.synthesize(controls, seed=3)
    assert np.array_equal(first, second)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, make_sample.synthesize(controls, seed=4))


def test_vowel_has_its_formants(make_sample: ModuleType) -> None:
    # A low and a high vowel must differ as they do in speech: F1 of "ah" is far above that of "i".
    def strongest_below_1500(phone: str) -> float:
        samples = make_sample.synthesize(make_sample.controls_for((f"{phone}:.4",)))
        power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
        hz = np.fft.rfftfreq(len(samples), 1.0 / SAMPLE_RATE)
        band = (hz > 280.0) & (hz < 1500.0)  # above the voice's own pitch
        return float((hz[band] * power[band]).sum() / power[band].sum())

    assert strongest_below_1500("ah") > strongest_below_1500("i") + 250.0


def test_pose_follows_loudness(make_sample: ModuleType) -> None:
    quiet_then_loud = np.array([0.0] * 5 + [1.0] * 5)
    speech = make_sample.Speech(np.zeros(0), quiet_then_loud, np.full(10, 800.0), np.full(10, 1400.0))
    jaw = [pose.jaw for pose in make_sample.poses(speech)]
    assert jaw[2] == pytest.approx(make_sample.JAW_CLOSED)
    assert jaw[7] == pytest.approx(make_sample.JAW_OPEN)
