"""Batches of the sync stream. Like all batches they are pure functions of the step (see avdetect.training.batches)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avdetect.audio import SILENCE_RMS
from avdetect.config import StreamLoopConfig
from avdetect.datasets.augment.codecs import Recipe, through_video_codec
from avdetect.datasets.augment.mouths import augment_mouths
from avdetect.datasets.manifest import own_voice
from avdetect.scoring import SYNC_FRAMES, mouth_windows, voice_windows
from avdetect.speech import speech_mask
from avdetect.training.pools import Part, Pool
from avdetect.training.treatment import share_of, treated_voice
from avdetect.types import FPS, HOP, SAMPLES_PER_FRAME, Bool, Float, UInt8, Waveform


class SyncBatches:
    """Moments of clips with their own voice: the windows of one clip are each other's shifts, other clips other voices.

    "mouths" (C * W, 5, M, M), "mels" (C * W, 20, N_MELS), "voiced" (C * W,) whether a window is speech; the
    W windows of a clip stand together.
    """

    windows_per_clip = 24
    frames_per_clip = windows_per_clip + SYNC_FRAMES - 1

    def __init__(self, part: Part, config: StreamLoopConfig, seed: int, augment: bool = True) -> None:
        self.archive, self.config, self.seed, self.augment = part.archive, config, seed, augment
        clips = self.archive.clips
        first, last = self._starts()
        own = own_voice(self.archive.files)[clips["file"].to_numpy()]
        one = clips["tracks"].to_numpy() == 1  # with two people in the picture, whose voice is it?
        loud = clips["sound_rms"].to_numpy() >= SILENCE_RMS
        usable = part.has_file() & own & one & loud & (last >= first)
        self.first, self.last = first, last
        self.pool = Pool(self.archive, usable, config.source_balance, "clip with a face and its own voice")

    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """(clips,) the first and the last mouth crop from which on there are enough crops with sound."""
        clips = self.archive.clips
        begin = np.round(clips["sound_start_seconds"].fillna(0).to_numpy(float) * FPS).astype(int)
        voice = begin - clips["main_first_frame"].to_numpy()
        heard = clips["sound_samples"].to_numpy() // SAMPLES_PER_FRAME + voice
        return np.maximum(0, voice), np.minimum(clips["main_mouths"].to_numpy(), heard) - self.frames_per_clip

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        chosen = self._chosen(step)
        made: dict[str, list[np.ndarray]] = {"mouths": [], "mels": [], "voiced": []}
        for item in share_of(self.config.batch_size, part, parts, "sync.batch_size"):
            rng = np.random.default_rng((self.seed, 3, step, item))
            crops, sound, speech = self._moment(chosen[item], rng)
            if self.augment:
                crops, sound = self._augmented(crops, sound, rng)
            windows, heard = voice_windows(Waveform(sound), speech)
            made["mouths"].append(mouth_windows(crops))
            made["mels"].append(windows)
            made["voiced"].append(heard)
        return {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in made.items()}

    def _augmented(self, crops: UInt8, sound: Float, rng: np.random.Generator) -> tuple[UInt8, Float]:
        recipe = Recipe.draw(rng)
        if rng.random() < self.config.codec:
            crops = through_video_codec(np.repeat(crops[..., None], 3, axis=3), recipe.video)[..., 0]
        return augment_mouths(crops, rng), treated_voice(sound, self.config.codec, int(rng.integers(2**32)))

    def _chosen(self, step: int) -> list[int]:
        """The clips of a step: no file twice while there are others, for it would be a negative of itself."""
        rng = np.random.default_rng((self.seed, 3, step))
        files = self.archive.clips["file"].to_numpy()
        chosen: dict[int, int] = {}  # file -> clip
        drawn = [self.pool.draw(rng) for _ in range(20 * self.config.batch_size)]
        for clip in drawn:
            chosen.setdefault(int(files[clip]), clip)
        return [*chosen.values(), *drawn][: self.config.batch_size]

    def _moment(self, clip: int, rng: np.random.Generator) -> tuple[UInt8, Float, Bool]:
        """Mouth crops and the sound of the same `frames_per_clip` frames, and where it is speech."""
        start = int(rng.integers(self.first[clip], self.last[clip] + 1))
        track = int(self.archive.clips["main_track"].iat[clip])
        crops = self.archive.mouths(clip, track, start, start + self.frames_per_clip)
        wave = self.archive.waveform(clip)
        assert wave is not None, "the pool holds clips with sound only"
        frame = int(self.archive.clips["main_first_frame"].iat[clip]) + start
        sample = (frame - round(wave.start_seconds * FPS)) * SAMPLES_PER_FRAME
        end = sample + self.frames_per_clip * SAMPLES_PER_FRAME
        return crops, wave.samples[sample:end], speech_mask(wave.samples)[sample // HOP : end // HOP]
