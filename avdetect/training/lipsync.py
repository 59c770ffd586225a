"""Batches of the sync stream. Like all batches they are pure functions of the step (see avdetect.training.batches)."""

import numpy as np
import torch
from torch import Tensor

from avdetect.audio import SILENCE_RMS
from avdetect.config import ModelConfig, StreamLoopConfig
from avdetect.datasets.augment.codecs import Recipe, through_video_codec
from avdetect.datasets.augment.mouths import augment_mouths
from avdetect.datasets.manifest import own_voice
from avdetect.errors import ConfigError
from avdetect.scoring import audio_mel, spoken_frames
from avdetect.speech import speech_mask
from avdetect.training.sampling import Draws, Subset, share_of, treated_voice
from avdetect.types import FPS, HOP, SAMPLE_RATE, SAMPLES_PER_FRAME, Bool, Float, UInt8

STRETCH = 2 * FPS  # frames of a clip at most
MOMENTS = 16  # mouth embeddings of a clip at least


class SyncBatches:
    """Stretches of clips with their own voice: moments of one clip are each other's shifts, other clips other voices.

    "mouths" (C, F, M, M), "mels" (C, T, N_MELS) the window of speech that begins with them, "voiced" (C, F) whether a
    frame is speech, "there" (C, F) False behind the end of a short clip, where the mouths are repeated, as the sound is
    behind its own.
    """

    def __init__(
        self, subset: Subset, model: ModelConfig, config: StreamLoopConfig, seed: int, augment: bool = True
    ) -> None:
        """Raises ManifestError without such clips, ConfigError for windows of speech that are too short."""
        self.archive, self.config, self.seed, self.augment = subset.archive, config, seed, augment
        self.audio, self.size = model.audio, round(model.audio.window_seconds * SAMPLE_RATE)
        least, held = MOMENTS + model.sync.mouth_frames - 1, self.size // SAMPLES_PER_FRAME
        if held < least:
            raise ConfigError(
                f"lip-sync with model.sync.mouth_frames {model.sync.mouth_frames} learns from stretches of at least "
                f"{least / FPS:g} s, but model.audio.window_seconds is {model.audio.window_seconds:g}: raise it, or "
                "set sync.steps: 0"
            )
        self.frames = min(STRETCH, held)
        clips = self.archive.clips
        self.first, self.stop = self._together()
        own = own_voice(self.archive.files)[clips["file"].to_numpy()]
        one = clips["tracks"].to_numpy() == 1  # with two people in the picture, whose voice is it?
        loud = clips["sound_rms"].to_numpy() >= SILENCE_RMS
        usable = subset.has_file() & own & one & loud & (self.stop - self.first >= least)
        self.draws = Draws(self.archive, usable, config.source_balance, "clip with a face and its own voice")

    def _together(self) -> tuple[np.ndarray, np.ndarray]:
        """(clips,) where the mouth crops with sound begin and end."""
        clips = self.archive.clips
        begin = np.round(clips["sound_start_seconds"].fillna(0).to_numpy(float) * FPS).astype(int)
        voice = begin - clips["main_first_frame"].to_numpy()
        heard = clips["sound_samples"].to_numpy() // SAMPLES_PER_FRAME + voice
        return np.maximum(0, voice), np.minimum(clips["main_mouths"].to_numpy(), heard)

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        chosen = self._chosen(step)
        mine = share_of(self.config.batch_size, part, parts, "sync.batch_size")
        items = [self._item(chosen[i], np.random.default_rng((self.seed, 3, step, i))) for i in mine]
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}

    def _chosen(self, step: int) -> list[int]:
        """The clips of a step: no file twice while there are others, for it would be a negative of itself."""
        rng = np.random.default_rng((self.seed, 3, step))
        files = self.archive.clips["file"].to_numpy()
        chosen: dict[int, int] = {}  # file -> clip
        drawn = [self.draws.draw(rng) for _ in range(20 * self.config.batch_size)]
        for clip in drawn:
            chosen.setdefault(int(files[clip]), clip)
        return [*chosen.values(), *drawn][: self.config.batch_size]

    def _item(self, clip: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        crops, sound, speech = self._stretch(clip, rng)
        if self.augment:
            recipe = Recipe.draw(rng)
            if rng.random() < self.config.codec:
                crops = through_video_codec(np.repeat(crops[..., None], 3, axis=3), recipe.video)[..., 0]
            crops = augment_mouths(crops, rng)
            sound = treated_voice(sound, self.config.codec, int(rng.integers(2**32)))
        place = np.arange(self.frames)
        return {
            "mouths": crops[place % len(crops)],
            "mels": audio_mel(sound, speech, self.audio),
            "voiced": spoken_frames(speech)[place % len(crops)],
            "there": place < len(crops),
        }

    def _stretch(self, clip: int, rng: np.random.Generator) -> tuple[UInt8, Float, Bool]:
        """Mouth crops, and the sound of a window that begins with them and where it is speech."""
        count = min(self.frames, int(self.stop[clip] - self.first[clip]))
        start = int(rng.integers(self.first[clip], self.stop[clip] - count + 1))
        row = self.archive.clips.iloc[clip]
        crops = self.archive.mouths(clip, int(row["main_track"]), start, start + count)
        wave = self.archive.waveform(clip)
        assert wave is not None, "clips with sound are drawn, no others"
        sample = (int(row["main_first_frame"]) + start - round(wave.start_seconds * FPS)) * SAMPLES_PER_FRAME
        speech = speech_mask(wave.samples)[sample // HOP : (sample + self.size) // HOP]
        return crops, wave.samples[sample : sample + self.size], speech
