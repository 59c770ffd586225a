"""Multiple-instance training of the face and the voice stream on clips of which only REAL or FAKE is known (DFDC).

A clip is fake when one of its faces is, or its voice, or their match. Nobody says which, so the clip's probability is
the noisy-or of all of them, and its loss reaches whichever instance explains the label best. The lip-sync towers stand
still: they learn from real clips only, and give the match its distance. So does the speech encoder, whose frames they
have learned to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from avdetect.audio import MIN_AUDIO_SECONDS, N_MELS, SILENCE_RMS
from avdetect.config import ModelConfig, StreamLoopConfig
from avdetect.datasets.augment.mouths import augment_mouths
from avdetect.scoring import audio_mel, spoken_frames
from avdetect.speech import enough_speech, speech_mask
from avdetect.training.lipsync import MOMENTS, least_frames, window_at
from avdetect.training.losses import multiple_instance_bce
from avdetect.training.pools import Originals, Part, Pool
from avdetect.training.treatment import share_of, treated_faces, treated_voice
from avdetect.types import FPS, HOP, SAMPLE_RATE, SAMPLES_PER_FRAME, Float, Waveform

FACES, CROPS = 2, 3  # of a clip: the two faces seen longest, three crops of each


def clip_only(part: Part) -> np.ndarray:
    """(files,) of the archive: fakes of which neither part is known."""
    unknown = (part.label("video_fake") < 0) & (part.label("audio_fake") < 0)
    return (part.label("fake") == 1) & unknown


class JointBatches:
    """Fakes and their originals (or other reals) in turn, under one augmentation.

    "crops" (N, FACES, CROPS, S, S, 3), "has_face" (N, FACES), "mels" (N, T, N_MELS), "has_voice" (N,), "mouths"
    (N, MOMENTS + R - 1, M, M), "voices" (N, T, N_MELS) the window of speech that begins with them, "heard" (N, MOMENTS)
    which of the mouth embeddings belong to speech, all False without a match to judge; "labels" (N,) of the clip.
    """

    def __init__(
        self,
        part: Part,
        model: ModelConfig,
        config: StreamLoopConfig,
        seed: int,
        augment: bool = True,
        match: bool = True,
    ) -> None:
        """match: False where no lip-sync was learned. Raises ManifestError without such fakes or without reals."""
        self.match = match
        self.archive, self.config, self.seed, self.augment = part.archive, config, seed, augment
        self.model, self.audio, self.size = model, model.audio, round(model.audio.window_seconds * SAMPLE_RATE)
        clips = self.archive.clips
        file = clips["file"].to_numpy()
        usable = part.has_file() & ((clips["main_faces"].to_numpy() > 0) | (clips["sound_samples"].to_numpy() > 0))
        real = usable & (part.label("fake")[file] == 0)
        self.fake = Pool(self.archive, usable & clip_only(part)[file], config.source_balance, "fake clip", fake=True)
        self.real = Pool(self.archive, real, config.source_balance, "real clip")
        self.originals = Originals(part, real)
        self.labels = part.label("fake")

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        items = []
        for pair in share_of(self.config.batch_size // 2, part, parts, "joint: pairs"):
            rng = np.random.default_rng((self.seed, 4, step, pair))
            fake = self.fake.draw(rng)
            original = self.originals.of(fake)
            moment, treatment = float(rng.random()), int(rng.integers(2**32))
            other = treatment if original is not None else int(rng.integers(2**32))
            items.append(self._item(fake, moment, treatment))
            items.append(self._item(self.real.draw(rng) if original is None else original, moment, other))
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def _item(self, clip: int, moment: float, treatment: int) -> dict[str, np.ndarray]:
        """What is seen and heard of `clip` at `moment` (0..1 of its length)."""
        crops, has_face = self._faces(clip, moment, treatment)
        mel, has_voice = self._voice(clip, moment, treatment)
        mouths, voices, heard = self._match(clip, moment, treatment)
        return {
            "crops": crops,
            "has_face": has_face,
            "mels": mel,
            "has_voice": np.array(has_voice),
            "mouths": mouths,
            "voices": voices,
            "heard": heard,
            "labels": self.labels[int(self.archive.clips["file"].iat[clip])].astype(np.float32),
        }

    def _faces(self, clip: int, moment: float, treatment: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.archive.config.faces.crop_size
        crops = np.zeros((FACES, CROPS, size, size, 3), np.uint8)
        present = np.zeros(FACES, bool)
        for track in range(min(FACES, int(self.archive.clips["tracks"].iat[clip]))):
            count = len(self.archive.face_times(clip, track))
            if count:
                chosen = ((moment + np.arange(CROPS) / CROPS) % 1 * count).astype(int)
                faces = self.archive.faces(clip, track, chosen.tolist())
                crops[track] = treated_faces(faces, self.config.codec, treatment) if self.augment else faces.crops
                present[track] = True
        return crops, present

    def _voice(self, clip: int, moment: float, treatment: int) -> tuple[Float, bool]:
        row = self.archive.clips.iloc[clip]
        if row["sound_samples"] < MIN_AUDIO_SECONDS * SAMPLE_RATE or row["sound_rms"] < SILENCE_RMS:
            return np.zeros((self.size // HOP, N_MELS), np.float32), False
        wave = cast(Waveform, self.archive.waveform(clip))
        start = int(moment * max(0, len(wave.samples) - self.size))
        samples = wave.samples[start : start + self.size]
        speech = speech_mask(wave.samples)[start // HOP : (start + self.size) // HOP]
        if self.augment:
            samples = treated_voice(samples, self.config.codec, treatment)
        return audio_mel(samples, speech, self.audio), enough_speech(speech)

    def _match(self, clip: int, moment: float, treatment: int) -> tuple[np.ndarray, Float, np.ndarray]:
        """MOMENTS consecutive moments of mouth and voice, and which are speech."""
        side, need = self.archive.config.faces.mouth_size, least_frames(self.model)
        mouths = np.zeros((need, side, side), np.uint8)
        nothing = mouths, np.zeros((self.size // HOP, N_MELS), np.float32), np.zeros(MOMENTS, bool)
        row = self.archive.clips.iloc[clip]
        if not self.match or row["main_track"] < 0 or row["sound_samples"] < need * SAMPLES_PER_FRAME:
            return nothing
        wave = cast(Waveform, self.archive.waveform(clip))
        voice = round(wave.start_seconds * FPS) - int(row["main_first_frame"])
        first = max(0, voice)
        last = min(int(row["main_mouths"]), len(wave.samples) // SAMPLES_PER_FRAME + voice) - need
        if last < first:
            return nothing
        start = first + int(moment * (last - first))
        sound, speech = window_at(wave, int(row["main_first_frame"]) + start, self.size)
        crops = self.archive.mouths(clip, int(row["main_track"]), start, start + need)
        if self.augment:
            crops = augment_mouths(crops, np.random.default_rng(treatment))
            sound = treated_voice(sound, self.config.codec, treatment)
        edge = self.model.sync.mouth_frames // 2
        return crops, audio_mel(sound, speech, self.audio), spoken_frames(speech)[edge : edge + MOMENTS]


class JointModel(nn.Module):
    """The face and the voice stream, and a learned reading of the lip-sync distance."""

    def __init__(self, visual: nn.Module, speech: nn.Module, audio: nn.Module, sync: nn.Module) -> None:
        super().__init__()
        self.visual, self.speech, self.audio, self.sync = visual, speech, audio, sync
        self.match = nn.Linear(1, 1)
        nn.init.constant_(self.match.weight, 1.0)
        nn.init.constant_(self.match.bias, -2.0)  # distances of unit vectors are about 1: most clips match
        speech.requires_grad_(False)
        sync.requires_grad_(False)

    def train(self, mode: bool = True) -> JointModel:
        super().train(mode)
        self.sync.eval()  # its batch statistics stand still too
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, FACES + 2) of the faces, the voice and the match, and which of them there are.

        Only what is there goes through the networks: blank pictures would stand in the batch statistics.
        """
        has_face, has_voice, heard = batch["has_face"], batch["has_voice"], batch["heard"]
        logits = torch.zeros(len(has_face), FACES + 2, device=has_face.device)
        if has_face.any():
            crops = batch["crops"][has_face]  # (F, CROPS, S, S, 3)
            faces = self.visual(crops.flatten(0, 1)).float().unflatten(0, crops.shape[:2]).mean(dim=1)
            logits = logits.index_put(torch.nonzero(has_face, as_tuple=True), faces)
        if has_voice.any():
            (rows,) = torch.nonzero(has_voice, as_tuple=True)
            column = torch.full_like(rows, FACES)
            voices = self.audio(self.speech(batch["mels"][has_voice])).float()
            logits = logits.index_put((rows, column), voices)
        has_match = heard.any(dim=1)
        if has_match.any():
            (rows,) = torch.nonzero(has_match, as_tuple=True)
            match = self.match(self._distance(batch, has_match)).float().squeeze(1)
            logits = logits.index_put((rows, torch.full_like(rows, FACES + 1)), match)
        return logits, torch.cat([has_face, has_voice[:, None], has_match[:, None]], dim=1)

    def _distance(self, batch: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """(R, 1) mean distance of mouth and voice over the moments of speech."""
        mouths, heard = batch["mouths"][rows], batch["heard"][rows].float()
        with torch.no_grad():
            mouth, voice = self.sync(mouths, self.speech(batch["voices"][rows]))
            edge = (mouths.shape[1] - mouth.shape[1]) // 2
            distance = (mouth - voice[:, edge : edge + mouth.shape[1]]).norm(dim=2)
        return ((distance * heard).sum(dim=1) / heard.sum(dim=1))[:, None]


def joint_loss(model: nn.Module, batch: Mapping[str, Tensor], smoothing: float) -> Tensor:
    """The clip's label through the noisy-or of what it shows and says."""
    logits, present = model(batch)
    return multiple_instance_bce(logits, present, batch["labels"], smoothing)
