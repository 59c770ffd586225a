"""Batches as pure functions of the step number, balanced over classes and sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from avdetect.audio import SILENCE_RMS, log_mel, rms
from avdetect.config import AudioConfig, FaceConfig, LoopConfig
from avdetect.datasets.augment import augment_face, augment_mouths, augment_voice
from avdetect.datasets.forgeries.selfblend import self_blend
from avdetect.errors import ManifestError
from avdetect.scoring import SYNC_FRAMES, mouth_windows, voice_windows
from avdetect.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, FaceTrack, Float, Waveform


def source_weights(datasets: pd.Series) -> np.ndarray:
    """Probabilities that give a source the square root of its share: large sources count more, but drown no other."""
    weights = 1 / np.sqrt(datasets.map(datasets.value_counts()).to_numpy(float))
    return weights / weights.sum()


@dataclass
class Pool:
    """Rows of one class, drawn by source."""

    items: list
    weights: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, items: Sequence, keep: np.ndarray, what: str) -> Pool:
        if not keep.any():
            raise ManifestError(f"nothing to train on: no {what} in this split")
        return cls([items[i] for i in np.flatnonzero(keep).tolist()], source_weights(table["dataset"][keep]))

    def draw(self, rng: np.random.Generator):
        return self.items[rng.choice(len(self.items), p=self.weights)]


def main_track(clips: Sequence[Clip]) -> FaceTrack | None:
    """The track with the most face crops of the first clip: the person a clip is about."""
    tracks = [track for track in clips[0].tracks if len(track.face_crops)] if clips else []
    return max(tracks, key=lambda track: len(track.face_crops), default=None)


def crop_landmarks(track: FaceTrack, index: int, config: FaceConfig) -> Float:
    """(5, 2) landmarks of face crop `index` in its own pixels."""
    x0, y0, x1, y1 = track.boxes[index]
    side = max(x1 - x0, y1 - y0) * config.crop_margin
    corner = np.array([(x0 + x1) / 2 - side / 2, (y0 + y1) / 2 - side / 2])
    return ((track.landmarks[index] - corner) / side * config.crop_size).astype(np.float32)


class VisualBatches:
    """A quarter forged, a quarter self-blends, a quarter the originals of those self-blends, a quarter other reals.

    A self-blend and its original go through the same augmentation.
    """

    def __init__(
        self, table: pd.DataFrame, clips: Sequence[Sequence[Clip]], faces: FaceConfig, config: LoopConfig, seed: int
    ):
        self.faces, self.seed, self.quarter = faces, seed, max(1, config.batch_size // 4)
        tracks = [main_track(c) for c in clips]
        usable = np.array([t is not None for t in tracks])
        label = table["video_fake"]
        self.real = Pool.of(table, tracks, usable & label.eq(0).fillna(False).to_numpy(bool), "real face")
        self.fake = Pool.of(table, tracks, usable & label.eq(1).fillna(False).to_numpy(bool), "forged face")

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, 1, step))
        crops, labels = [], []
        for _ in range(self.quarter):
            original, marks = self._crop(self.real, rng)
            blend = self_blend(original, marks, rng)
            shared = int(rng.integers(2**32))
            for image in (original, blend):
                crops.append(augment_face(image, np.random.default_rng(shared)))
            crops.append(augment_face(self._crop(self.fake, rng)[0], rng))
            crops.append(augment_face(self._crop(self.real, rng)[0], rng))
            labels += [0, 1, 1, 0]
        return {"crops": torch.from_numpy(np.stack(crops)), "labels": torch.tensor(labels, dtype=torch.float32)}

    def _crop(self, pool: Pool, rng: np.random.Generator):
        track = pool.draw(rng)
        index = int(rng.integers(len(track.face_crops)))
        return track.face_crops[index], crop_landmarks(track, index, self.faces)


class AudioBatches:
    """Half human, half synthetic; random windows, shorter recordings repeated to the window's length."""

    def __init__(
        self, table: pd.DataFrame, clips: Sequence[Sequence[Clip]], audio: AudioConfig, config: LoopConfig, seed: int
    ):
        self.seed, self.size, self.half = (
            seed,
            round(audio.window_seconds * SAMPLE_RATE),
            max(1, config.batch_size // 2),
        )
        waves = [c[0].waveform if c else None for c in clips]
        usable = np.array([w is not None and rms(w.samples) > SILENCE_RMS and w.duration_seconds > 0.5 for w in waves])
        label = table["audio_fake"]
        self.real = Pool.of(table, waves, usable & label.eq(0).fillna(False).to_numpy(bool), "human voice")
        self.fake = Pool.of(table, waves, usable & label.eq(1).fillna(False).to_numpy(bool), "synthetic voice")

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, 2, step))
        mels, labels = [], []
        for _ in range(self.half):
            for label, pool in enumerate((self.real, self.fake)):
                mels.append(log_mel(augment_voice(self._window(pool.draw(rng), rng), rng)))
                labels.append(label)
        return {"mels": torch.from_numpy(np.stack(mels)), "labels": torch.tensor(labels, dtype=torch.float32)}

    def _window(self, wave: Waveform, rng: np.random.Generator) -> Float:
        samples = wave.samples
        for _ in range(4):  # a window of silence teaches nothing
            start = int(rng.integers(max(1, len(samples) - self.size + 1)))
            window = samples[start : start + self.size]
            if rms(window) > SILENCE_RMS:
                break
        return np.resize(window, self.size)


class SyncBatches:
    """Moments of real clips: the windows of one clip are each other's shifts, the other clips are other voices."""

    windows_per_clip = 24
    frames_per_clip = windows_per_clip + SYNC_FRAMES - 1

    def __init__(self, table: pd.DataFrame, clips: Sequence[Sequence[Clip]], config: LoopConfig, seed: int):
        self.seed, self.count = seed, config.batch_size
        pairs = [self._pair(c) for c in clips]
        usable = np.array([p is not None for p in pairs])
        self.pool = Pool.of(
            table, pairs, usable & table["fake"].eq(0).fillna(False).to_numpy(bool), "real clip with voice"
        )

    def _pair(self, clips: Sequence[Clip]) -> tuple[FaceTrack, Waveform] | None:
        track = main_track(clips)
        if track is None or clips[0].waveform is None or len(clips[0].tracks) > 1:
            return None  # with two people in the picture, whose voice is it?
        first, last = self._starts(track, clips[0].waveform)
        return (track, clips[0].waveform) if last >= first else None

    def _starts(self, track: FaceTrack, wave: Waveform) -> tuple[int, int]:
        """The first and the last mouth crop from which on there are enough crops with sound."""
        voice_start = round(wave.start_seconds * FPS) - track.first_frame
        end = min(len(track.mouth_crops), len(wave.samples) // SAMPLES_PER_FRAME + voice_start)
        return max(0, voice_start), end - self.frames_per_clip

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, 3, step))
        mouths, mels = [], []
        need = self.frames_per_clip
        for _ in range(self.count):
            track, wave = self.pool.draw(rng)
            first, last = self._starts(track, wave)
            start = int(rng.integers(first, last + 1))
            sample = (track.first_frame + start - round(wave.start_seconds * FPS)) * SAMPLES_PER_FRAME
            sound = augment_voice(wave.samples[sample : sample + need * SAMPLES_PER_FRAME], rng)
            mouths.append(mouth_windows(augment_mouths(track.mouth_crops[start : start + need], rng)))
            mels.append(voice_windows(Waveform(sound))[0])
        return {"mouths": torch.from_numpy(np.concatenate(mouths)), "mels": torch.from_numpy(np.concatenate(mels))}
