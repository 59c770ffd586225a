"""Synthetic clips for the tests: faces of noise, a voice that speech detection takes for one, and above that voice one
tone a video frame whose number the mouth shows.

A mouth crop's luma states a code and the 40 ms of sound under it are the tone of the same code, so whatever measures
lip-sync can be given clips whose offset is known exactly.
"""

from __future__ import annotations

import functools
import wave
from pathlib import Path

import numpy as np

from avdetect.audio import N_MELS, mel_filters
from avdetect.config import SyncConfig
from avdetect.types import MELS_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, FaceTrack, Float, Waveform

CODES = 24  # distinct tones, two mel bands apart
FIRST_BAND = 25  # above 1 kHz, where a band is wider than the window's main lobe
EMBEDDING = 16
MOUTH_FRAMES = SyncConfig().mouth_frames
VOWELS = np.array(
    [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410), (660, 1720, 2410)]
)  # formants in Hz (Peterson & Barney, 1952)
SYLLABLE_SECONDS = 0.16


def codes_of(frames: int, seed: int = 0) -> np.ndarray:
    """(frames,) a code for each video frame."""
    return np.random.default_rng(seed).integers(CODES, size=frames)


def tones(codes: np.ndarray) -> Float:
    """(len(codes) * 640,) the tones of the codes, over the low half of a voice."""
    peaks = mel_filters().argmax(1)[FIRST_BAND + 2 * np.arange(CODES)] * SAMPLE_RATE / 512
    time = np.arange(SAMPLES_PER_FRAME) / SAMPLE_RATE
    sound = np.concatenate([0.1 * np.sin(2 * np.pi * peaks[c] * time) for c in codes])
    spectrum = np.fft.rfft(speech(len(sound) / SAMPLE_RATE, seed=2))
    spectrum[np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE) > 900] = 0
    return (sound + 2 * np.fft.irfft(spectrum, len(sound))).astype(np.float32)


def speech(seconds: float, seed: int = 0) -> Float:
    """Syllables of vowels that glide into each other, at -22 dBFS: never silent, the same at every call."""
    return _speech(seconds, seed).copy()


@functools.lru_cache(256)
def _speech(seconds: float, seed: int) -> Float:
    count = round(seconds * SAMPLE_RATE)
    rng, time = np.random.default_rng(seed), np.arange(count) / SAMPLE_RATE
    steps = rng.integers(1, len(VOWELS), int(seconds / SYLLABLE_SECONDS) + 2)  # never the same vowel twice
    formants = VOWELS[np.cumsum(steps) % len(VOWELS)].T
    syllable = time / SYLLABLE_SECONDS
    glide = np.floor(syllable) + np.clip(2 * (syllable % 1) - 1, 0, 1)
    formants = np.stack([np.interp(glide, np.arange(len(steps)), formant) for formant in formants])
    pitch = 100 + 12 * np.sin(2 * np.pi * 0.7 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = 0.01 * rng.standard_normal(count)
    for harmonic in range(1, 36):
        gains = 1 / (1 + ((harmonic * pitch - formants) / [[60], [100], [140]]) ** 2)
        voice += ([[1], [0.6], [0.3]] * gains).sum(0) * np.sin(harmonic * phase)
    voice *= 0.55 + 0.45 * np.sin(2 * np.pi * 5 * time)
    return (0.08 * voice / np.sqrt(np.mean(voice**2))).astype(np.float32)


def write_wav(path: Path, samples: Float) -> Path:
    """(num_samples,) at 16 kHz as a file of 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def make_track(
    codes: np.ndarray, first_frame: int = 0, track_id: int = 0, *, size: int = 64, mouth: int = 64, every: int = 5
) -> FaceTrack:
    """A face of noise with upright landmarks and a line for a mouth; the luma of mouth crop i is 10 * codes[i]."""
    rng = np.random.default_rng((track_id, 7))
    frames = np.arange(0, len(codes), every) + first_frame
    count = len(frames)
    coarse = rng.integers(40, 216, (count, size // 8, size // 8, 3), dtype=np.uint8)
    box = np.array([100, 100, 180, 200], np.float32)
    marks = np.array([[125, 135], [155, 135], [140, 155], [128, 175], [152, 175]], np.float32)
    crops = coarse.repeat(8, axis=1).repeat(8, axis=2)
    crops[:, size * 21 // 32 : size * 23 // 32, size // 4 : size * 3 // 4] = 0  # or it would seem hidden
    mouths = np.broadcast_to((10 * codes).astype(np.uint8)[:, None, None], (len(codes), mouth, mouth)).copy()
    return FaceTrack(
        track_id=track_id,
        first_frame=first_frame,
        mouth_crops=mouths,
        face_crops=crops,
        face_frames=frames.astype(np.int64),
        boxes=np.tile(box, (count, 1)),
        landmarks=np.tile(marks, (count, 1, 1)),
        confidences=np.ones(count, np.float32),
    )


def talking_clip(frames: int = 60, *, lag: int = 0, seed: int = 0, start_frame: int = 0, **track) -> Clip:
    """One face and its voice, `lag` frames late (early where negative). The clip begins at `start_frame`."""
    codes = codes_of(frames + 2 * abs(lag) + 2, seed)
    shown = codes[abs(lag) :][:frames]
    heard = codes[abs(lag) - lag :][:frames]
    return Clip(
        start_frame / 25,
        frames / 25,
        (make_track(shown, start_frame, **track),),
        Waveform(tones(heard), start_frame / 25),
    )


class ToneNetworks:
    """`scoring.Networks` that read the codes: mouth and voice embeddings of one moment are equal.

    The visual logit of a crop is `visual_logit`, the audio logit of a window `audio_logit`. Frames are the log-mels.
    What is seen and heard is counted: crops, windows, mouth frames.
    """

    def __init__(self, visual_logit: float = 1.5, audio_logit: float = -0.5) -> None:
        vectors = np.random.default_rng(3).standard_normal((CODES, EMBEDDING))
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        self.visual_logit, self.audio_logit = visual_logit, audio_logit
        self.calls = dict.fromkeys(("visual", "speech", "audio", "mouth", "voice"), 0)

    def visual(self, crops: np.ndarray) -> Float:
        assert crops.dtype == np.uint8
        assert crops.ndim == 4
        self.calls["visual"] += len(crops)
        return np.full(len(crops), self.visual_logit, np.float32)

    def speech(self, mels: Float) -> Float:
        assert mels.dtype == np.float32
        assert mels.shape[2] == N_MELS
        self.calls["speech"] += len(mels)
        return mels[:, :, None]

    def audio(self, frames: Float) -> Float:
        assert frames.shape[2:] == (1, N_MELS)
        self.calls["audio"] += len(frames)
        return np.full(len(frames), self.audio_logit, np.float32)

    def mouth(self, mouths: np.ndarray) -> Float:
        assert mouths.dtype == np.uint8
        assert len(mouths) == 1, "one track at a time"
        assert mouths.shape[1] >= MOUTH_FRAMES
        self.calls["mouth"] += mouths.shape[1]
        edge = MOUTH_FRAMES // 2
        return self.vectors[mouths[:, edge : mouths.shape[1] - edge, 0, 0] // 10]

    def voice(self, frames: Float) -> Float:
        assert frames.shape[2:] == (1, N_MELS)
        self.calls["voice"] += len(frames)
        middles = frames[:, 2::MELS_PER_FRAME, 0]  # 20 ms into each video frame
        above = middles[:, :, FIRST_BAND - 1 :].argmax(2)
        return self.vectors[np.clip(above // 2, 0, CODES - 1)]
