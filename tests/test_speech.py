"""Log-mels as librosa's; what is speech, whatever the level; and sound that nobody would send."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from readme_media import SAMPLE

from avdetect import Detector
from avdetect import speech as module
from avdetect.audio import FLOOR, N_FFT, N_MELS, SILENCE_RMS, WIN_LENGTH, log_mel, rms
from avdetect.errors import ModelError
from avdetect.scoring import StreamOutputs, StreamScorer
from avdetect.speech import SPEECH_RMS, STEP, enough_speech, level, speech_mask, speech_probability
from avdetect.types import HOP, SAMPLE_RATE, Float

RANDOM = np.random.default_rng(0)
SECONDS = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
CLICKS = np.zeros(5000)
CLICKS[[0, 1234, 4999]] = 1


@pytest.mark.parametrize(
    "samples",
    [speech(1.0), RANDOM.uniform(-1, 1, 12_345), RANDOM.standard_normal(8000) * 1e-4, CLICKS, np.full(200, 0.3)],
    ids=["speech", "noise", "quiet noise", "clicks", "shorter than a window"],
)
@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
def test_log_mel_equals_librosas(samples: np.ndarray) -> None:
    samples = samples.astype(np.float32)
    sizes = {"sr": SAMPLE_RATE, "n_fft": N_FFT, "win_length": WIN_LENGTH, "hop_length": HOP, "n_mels": N_MELS}
    power = librosa.feature.melspectrogram(y=samples.astype(np.float64), pad_mode="constant", dtype=np.float64, **sizes)
    expected = np.log(np.maximum(power, FLOOR)).T[: len(samples) // HOP]
    np.testing.assert_allclose(log_mel(samples), expected, atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 6000))
def test_there_are_as_many_frames_as_whole_hops(length: int) -> None:
    mels = log_mel(np.full(length, 0.1, np.float32))
    assert (mels.shape, mels.dtype) == ((length // HOP, N_MELS), np.float32)
    assert np.isfinite(mels).all()


def test_rms() -> None:
    assert rms(np.zeros(0, np.float32)) == 0
    # The sum of squares of an hour of quiet audio must not vanish in float32.
    assert rms(np.full(10_000_000, -1e-3, np.float32)) == pytest.approx(1e-3, rel=1e-6)
    assert pytest.approx(-55) == 20 * np.log10(SILENCE_RMS)


# -- what is speech


def sine(*frequencies: float) -> np.ndarray:
    return sum((np.sin(2 * np.pi * f * SECONDS) for f in frequencies), np.zeros(len(SECONDS)))


def noise(color: float) -> np.ndarray:
    """Power falls as frequency to the -color: 0 white, 1 pink."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(SECONDS)))
    return np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 1) ** (-color / 2), len(SECONDS))


def melody() -> np.ndarray:
    """Plucked strings, four notes a second."""
    rng, out = np.random.default_rng(0), np.zeros(len(SECONDS))
    for start in np.arange(0, 6, 0.25):
        pitch, since = 220 * 2 ** (rng.integers(24) / 12), np.maximum(SECONDS - start, 0)
        out += sum(np.sin(2 * np.pi * k * pitch * since) / k for k in range(1, 8)) * np.exp(-4 * since)
    return out


SOUNDS: dict[str, Callable[[], np.ndarray]] = {
    "chord": lambda: sine(698.5, 1046.5, 1396.9),
    "dial tones": lambda: sine(770, 1336) * (SECONDS % 0.3 < 0.15),
    "siren": lambda: np.sin(2 * np.pi * np.cumsum(700 + 400 * np.sin(2 * np.pi * 0.5 * SECONDS)) / SAMPLE_RATE),
    "pink noise": lambda: noise(1),
    "noise that swells like syllables": lambda: noise(0) * (1 + np.sin(2 * np.pi * 4 * SECONDS)),
    "clicks": lambda: (SECONDS % 0.5 < 0.002).astype(float),
    "melody": melody,
    "silence": lambda: np.zeros(len(SECONDS)),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_no_speech(name: str) -> None:
    sound = SOUNDS[name]()
    for gain in (0.5, 0.005):
        assert not speech_mask((gain * sound / max(np.abs(sound).max(), 1e-9)).astype(np.float32)).any()


def test_a_voice_is_speech_where_it_is_in_time() -> None:
    for samples in (speech(0.5), np.tile(speech(2.0), 18)):  # also beyond one run of the network
        assert speech_mask(samples).mean() > 0.95
    samples = np.zeros(6 * SAMPLE_RATE, np.float32)
    samples[2 * SAMPLE_RATE : 4 * SAMPLE_RATE] = speech(2.0)
    mask = speech_mask(samples)
    assert mask[210:390].all()
    assert not mask[:190].any()
    assert not mask[420:].any()  # its tail: a pause of up to 0.1 s and the pad


@pytest.mark.parametrize(("gain", "constant"), [(0.01, 0.0), (30.0, 0.0), (1.0, -0.3)])
def test_neither_level_nor_a_microphones_constant_is_heard(gain: float, constant: float) -> None:
    samples = np.concatenate([speech(2.0), np.zeros(SAMPLE_RATE, np.float32), 0.3 * speech(2.0, 1)]).astype(np.float32)
    changed, mask = samples * np.float32(gain) + np.float32(constant), speech_mask(samples)
    np.testing.assert_array_equal(speech_mask(changed), mask)
    np.testing.assert_allclose(level(changed, mask), level(samples, mask), atol=1e-4)


def test_neither_a_bang_nor_damaged_samples_hide_speech() -> None:
    samples = 0.02 * speech(4.0)
    samples[8000:8040] = 1
    assert speech_mask(samples.astype(np.float32))[60:].mean() > 0.9
    for value in (np.nan, np.inf, 3e38):
        samples = speech(3.0)
        samples[[5, 9000]] = value
        assert speech_mask(samples)[80:].mean() > 0.95


def test_stretches_by_rule() -> None:
    """Entered at .5 and left below .35, pauses under 96 ms filled, speech under 256 ms dropped, 32 ms of padding."""
    quiet, loud, between = 0.1, 0.9, 0.4
    probability = [quiet] * 5 + [between] * 3 + [loud] * 6 + [quiet] * 2 + [loud] * 2 + [between] * 4
    probability += [quiet] * 6 + [loud] * 7 + [quiet] * 6 + [loud] * 4
    expected = np.zeros(len(probability), bool)
    expected[7:23] = True
    np.testing.assert_array_equal(module._stretches(np.array(probability, np.float32)), expected)


def test_speech_is_brought_to_one_level() -> None:
    samples, mask = np.concatenate([2 * speech(2.0), np.zeros(2 * SAMPLE_RATE, np.float32)]), np.arange(400) < 200
    loud = level(samples, mask)
    assert loud.dtype == np.float32
    assert rms(loud[: 2 * SAMPLE_RATE]) == pytest.approx(SPEECH_RMS, rel=1e-4)
    without = level(speech(1.0), np.zeros(100, bool))  # all of it counts then
    assert rms(without) == pytest.approx(SPEECH_RMS, rel=1e-4)
    assert not level(np.zeros(1600, np.float32), np.ones(10, bool)).any()
    assert [enough_speech(np.arange(200) < frames) for frames in (39, 40)] == [False, True]


def test_level_moves_neither_the_voice_nor_the_match(detector: Detector) -> None:
    """Of the sample clip (a face, and a voice), by the default networks: as float, and as the 16-bit PCM that people
    have, where what is quiet is coarser and what is loud is cut off."""
    scorer, clips = StreamScorer(detector.networks, detector.bundle.info.model), detector.preprocessor.clips(SAMPLE)

    def heard(change: Callable[[Float], np.ndarray]) -> StreamOutputs:
        outputs = scorer.start()
        for clip in clips:
            sound = dataclasses.replace(clip.waveform, samples=change(clip.waveform.samples).astype(np.float32))
            scorer.score_audio(outputs, dataclasses.replace(clip, waveform=sound))
        return scorer.finish(outputs, {})

    plain = heard(lambda samples: samples)
    for gain in (10 ** (-25 / 20), 10 ** (6 / 20)):
        exact, coarse = heard(lambda x, by=gain: x * by), heard(lambda x, by=gain: np.round(x * by * 32767) / 32767)
        for copy in (exact, coarse):
            assert copy.audio_logit() == pytest.approx(plain.audio_logit(), rel=0.06)  # .02 of P is promised
            (_, found), (_, expected) = copy.sync_reading(), plain.sync_reading()
            assert found.offset_seconds == expected.offset_seconds
            assert found.confidence == pytest.approx(expected.confidence, abs=0.01)
        assert exact.audio_logit() == pytest.approx(plain.audio_logit(), abs=1e-3)


SAMPLES = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(arrays(np.float32, st.integers(0, 3 * STEP), elements=SAMPLES, fill=SAMPLES))
def test_any_samples_give_a_probability_and_a_mask(samples: Float) -> None:
    probability = speech_probability(samples)
    assert probability.shape == (-(-len(samples) // STEP),)
    assert ((probability >= 0) & (probability <= 1)).all()
    mask = speech_mask(samples)
    assert (mask.shape, mask.dtype) == ((len(samples) // HOP,), bool)


def test_damaged_weights_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "vad.onnx"
    broken.write_bytes(b"\x08\x08nothing")
    monkeypatch.setattr(module, "WEIGHTS", broken)
    module._network.cache_clear()
    try:
        with pytest.raises(ModelError, match="reinstall avdetect"):
            speech_mask(speech(0.5))
    finally:
        module._network.cache_clear()
