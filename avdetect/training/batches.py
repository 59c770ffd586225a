"""Batches of the face and the voice stream, as pure functions of the step number.

Item i of step s comes from a random generator seeded by (seed, stream, s, i) and from nothing else: a resumed run sees
the batches it would have seen, and the parts that several devices make are those of the joint batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avdetect.audio import MIN_AUDIO_SECONDS, SILENCE_RMS
from avdetect.config import AudioConfig, PairLoopConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries import audio as audio_forgeries
from avdetect.datasets.forgeries import visual as visual_forgeries
from avdetect.datasets.forgeries.clip import MIN_MOMENTS
from avdetect.errors import ConfigError, ManifestError
from avdetect.scoring import audio_mel
from avdetect.speech import enough_speech, speech_mask
from avdetect.training import sampling
from avdetect.training.sampling import Draws, Originals, Subset
from avdetect.types import FPS, HOP, SAMPLE_RATE, Bool, Float, UInt8

Moment = tuple[int, int]  # a clip of the archive, and the number of a face crop of its main track
Item = tuple[Any, int]  # what is trained on, and the clip that it, or what it was forged of, is from
NEAR = 5  # face crops, one second at five a second
MAX_SILENT = 50  # clips drawn in vain, one after the other, before giving up


class _PairBatches:
    """Groups of one fake, its original, and reals of other files: the items under `key`, "labels" (B,), "clips" (B,).
    Subclasses say what an item is."""

    stream: int
    key: str
    modality: str
    label: str

    def __init__(self, subset: Subset, usable: np.ndarray, config: PairLoopConfig, seed: int, augment: bool) -> None:
        """usable: (clips,) with enough of a face or a voice. Raises ManifestError for a class without a clip."""
        self.archive, self.config, self.seed, self.augment = subset.archive, config, seed, augment
        file = self.archive.clips["file"].to_numpy()
        usable = usable & subset.has_file()
        labels = subset.label(self.label, config.clip_labels)[file]
        self.real = Draws(self.archive, usable & (labels == 0), config.source_balance, f"real {self.modality}")
        self.originals = Originals(subset, usable & (labels == 0))
        self.spans = sampling.forged_spans(self.archive, self.label.removesuffix("_fake"))
        self.fake: Draws | None = None
        if config.forged < 1:
            fake = usable & (labels == 1)
            fake[fake] = [self.shows_fake(clip) for clip in np.flatnonzero(fake).tolist()]
            try:
                self.fake = Draws(self.archive, fake, config.source_balance, f"forged {self.modality}", fake=True)
            except ManifestError as error:
                stage = self.label.removesuffix("_fake").replace("video", "visual")
                raise ManifestError(
                    f"{error} ({self.label} is 1 for none of its files). Set {stage}.clip_labels: true where a clip's "
                    f"label `fake` is the {self.modality}'s, or {stage}.forged: 1 to forge every fake from real media"
                ) from error

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        reals, drawn = self.config.reals_per_fake, []
        groups = sampling.share_of(self.config.batch_size // self.config.items, part, parts, f"groups of {1 + reals}")
        for group in groups:
            rng = np.random.default_rng((self.seed, self.stream, step, group))
            drawn += [*self.pair(rng), *(self.single(rng) for _ in range(reals - 1))]
        items, clips = zip(*drawn, strict=True)
        labels = torch.tensor([1.0, *[0.0] * reals] * len(groups))
        return {**self.inputs(items), "labels": labels, "clips": torch.tensor(clips)}

    def inputs(self, items: Sequence[Any]) -> dict[str, Tensor]:
        """The items as the network takes them."""
        return {self.key: torch.from_numpy(np.stack(items))}

    def shows_fake(self, clip: int) -> bool:
        """Is there a moment of a fake file's clip that is known to be forged?"""
        raise NotImplementedError

    def pair(self, rng: np.random.Generator) -> tuple[Item, Item]:
        """A fake and a real one, augmented alike when they are of one recording."""
        raise NotImplementedError

    def single(self, rng: np.random.Generator) -> Item:
        """A random moment of a real clip, augmented."""
        raise NotImplementedError


def _treatments(rng: np.random.Generator, alike: bool) -> tuple[int, int]:
    treatment = int(rng.integers(2**32))
    return treatment, treatment if alike else int(rng.integers(2**32))


class VisualBatches(_PairBatches):
    """ "crops" (B, S, S, 3) uint8 of real and forged faces."""

    stream, key, modality, label = 1, "crops", "face", "video_fake"

    def __init__(self, subset: Subset, config: PairLoopConfig, seed: int, augment: bool = True) -> None:
        super().__init__(subset, subset.archive.clips["main_faces"].to_numpy() > 0, config, seed, augment)
        self.names, self.weights = sampling.choices(config.forgeries, visual_forgeries.VISUAL, "visual")

    def pair(self, rng: np.random.Generator) -> tuple[Item, Item]:
        twins = forged = True
        if self.fake is None or rng.random() < self.config.forged:
            real = shown = self.real_moment(rng)
            fake = self._forgery(real, rng)
        else:
            forged = False
            shown, real, twins = self.moments(self.fake, rng)
            fake = self._faces(shown)
        treatment, other = _treatments(rng, twins)
        return (
            (self._augmented(fake, treatment, forged), shown[0]),
            (self._augmented(self._faces(real), other, forged), real[0]),
        )

    def single(self, rng: np.random.Generator) -> Item:
        moment = self.real_moment(rng)
        return self._augmented(self._faces(moment), int(rng.integers(2**32))), moment[0]

    def moments(self, fakes: Draws, rng: np.random.Generator) -> tuple[Moment, Moment, bool]:
        """A forged crop of `fakes`, and its original's at that time or else any real one; is it the original's?"""
        clip = fakes.draw(rng)
        shown, seconds = self._forged_moment(clip, rng)
        original = self.originals.of(clip)
        if original is None:
            return shown, self.real_moment(rng), False
        return shown, (original, int(np.abs(self._times(original) - seconds).argmin())), True

    def real_moment(self, rng: np.random.Generator) -> Moment:
        """A crop of a real clip."""
        clip = self.real.draw(rng)
        return clip, int(rng.integers(self.archive.clips["main_faces"].iat[clip]))

    def shows_fake(self, clip: int) -> bool:
        """By the tracker's rule that one frame in `crop_every` has a crop: nothing is read."""
        every, row = self.archive.config.faces.crop_every, self.archive.clips
        first = int(row["main_first_frame"].iat[clip])
        last = first + int(row["main_mouths"].iat[clip])
        return not self.spans[clip] or any(
            min(last, b * FPS) - max(first, a * FPS) >= every for a, b in self.spans[clip]
        )

    def _forgery(self, real: Moment, rng: np.random.Generator) -> FaceCrops:
        faces = self._faces(real)
        moment = self._other_moment(real, faces, rng)
        possible = [moment is not None or name not in visual_forgeries.NEEDS_MOMENT for name in self.names]
        weights = np.where(possible, self.weights, 0.0)
        if not weights.any():
            raise ConfigError("visual.forgeries: none of them can be made of a single picture; add self_blend")
        name = str(rng.choice(self.names, p=weights / weights.sum()))
        return FaceCrops(visual_forgeries.VISUAL[name](faces, rng, moment).crops, faces.landmarks)

    def _other_moment(self, real: Moment, faces: FaceCrops, rng: np.random.Generator) -> FaceCrops | None:
        """A second away at most, for the face of another pose does not fit; None in a still, or a frozen picture."""
        clip, index = real
        count = int(self.archive.clips["main_faces"].iat[clip])
        near = [i for i in range(max(0, index - NEAR), min(count, index + NEAR + 1)) if i != index]
        for i in rng.permutation(near).tolist() if count >= MIN_MOMENTS else ():
            moment = self._faces((clip, int(i)))
            if not np.array_equal(moment.crops, faces.crops):
                return moment
        return None

    def _augmented(self, faces: FaceCrops, treatment: int, forged: bool = False) -> UInt8:
        light = self.config.augmentation == "light"
        # Half of the real media stays as it is. A forgery never does: what is left of its making would be the label.
        if not self.augment or (light and not forged and treatment % 2):
            return faces.crops[0]
        return sampling.treated_faces(faces, self.config.codec, treatment, light)[0]

    def _faces(self, moment: Moment) -> FaceCrops:
        clip, index = moment
        return self.archive.faces(clip, int(self.archive.clips["main_track"].iat[clip]), [index])

    def _times(self, clip: int) -> np.ndarray:
        return self.archive.face_times(clip, int(self.archive.clips["main_track"].iat[clip]))

    def _forged_moment(self, clip: int, rng: np.random.Generator) -> tuple[Moment, float]:
        """A crop inside the forged spans, any one where there are none; and its time."""
        times, spans = self._times(clip).tolist(), self.spans[clip]
        inside = [i for i, t in enumerate(times) if not spans or any(a <= t < b for a, b in spans)]
        if not inside:
            raise ManifestError(f"clip {clip} of the cache shows no face where its file is fake; preprocess it again")
        index = inside[int(rng.integers(len(inside)))]
        return (clip, index), times[index]


@dataclass(frozen=True)
class Window:
    """A stretch of a clip's sound, at most as long as the network's window."""

    clip: int
    samples: Float
    speech: Bool  # of the samples, a log-mel frame each, as heard in the whole clip
    start_seconds: float


class AudioBatches(_PairBatches):
    """ "mels" (B, T, N_MELS), windows of real and forged speech; short recordings are repeated. With
    `audio.stretch_seconds` also "stretches" (B, 2): first and last + 1 log-mel frame of what the head sees of each."""

    stream, key, modality, label = 2, "mels", "voice", "audio_fake"

    def __init__(
        self, subset: Subset, audio: AudioConfig, config: PairLoopConfig, seed: int, augment: bool = True
    ) -> None:
        self.audio, self.size = audio, round(audio.window_seconds * SAMPLE_RATE)
        clips = subset.archive.clips
        voiced = (clips["sound_samples"] >= MIN_AUDIO_SECONDS * SAMPLE_RATE) & (clips["sound_rms"] >= SILENCE_RMS)
        super().__init__(subset, voiced.to_numpy(bool), config, seed, augment)
        self.names, self.weights = sampling.choices(config.forgeries, audio_forgeries.AUDIO, "audio")
        if audio.stretch_seconds and (config.forged or any(self.spans)):
            raise ManifestError(
                "a stretch of a voice that is fake in part, as some forgeries are, may be genuine: set model.audio."
                "stretch_seconds to null, or train on voices that are fake from end to end (audio.forged: 0)"
            )

    def pair(self, rng: np.random.Generator) -> tuple[Item, Item]:
        twins = True
        if self.fake is None or rng.random() < self.config.forged:
            real, fake = self._forgery(rng)
        else:
            fake = self._draw(self.fake, rng, forged=True)
            original = self.originals.of(fake.clip)
            twins = original is not None
            if original is None:
                real = self._draw(self.real, rng)
            else:
                real = self._window(original, rng, at_seconds=fake.start_seconds)
        treatment, other = _treatments(rng, twins)
        stretch = self._stretch(fake, rng)
        own = stretch if twins else self._stretch(real, rng)
        return self._item(fake, treatment, stretch), self._item(real, other, own)

    def single(self, rng: np.random.Generator) -> Item:
        window = self._draw(self.real, rng)
        return self._item(window, int(rng.integers(2**32)), self._stretch(window, rng))

    def _item(self, window: Window, treatment: int, stretch: tuple[int, int]) -> Item:
        return (self._augmented(window, treatment), stretch), window.clip

    def inputs(self, items: Sequence[Any]) -> dict[str, Tensor]:
        mels, stretches = zip(*items, strict=True)
        found = super().inputs(mels)
        return found | {"stretches": torch.tensor(stretches)} if self.audio.stretch_seconds else found

    def _stretch(self, window: Window, rng: np.random.Generator) -> tuple[int, int]:
        """A part of a window with enough speech, of random (log-uniform) length between the shortest and the whole; the
        whole where a few tries find none."""
        whole = self.size // HOP
        if self.audio.stretch_seconds:
            shortest = round(self.audio.stretch_seconds * SAMPLE_RATE) // HOP
            speech = np.resize(window.speech, whole)
            for _ in range(8):
                length = round(shortest * (whole / shortest) ** rng.random())
                first = int(rng.integers(whole - length + 1))
                if enough_speech(speech[first : first + length]):
                    return first, first + length
        return 0, whole

    def shows_fake(self, clip: int) -> bool:
        return not self.spans[clip] or bool(self._forged_starts(clip))

    def _forgery(self, rng: np.random.Generator) -> tuple[Window, Window]:
        for _ in range(MAX_SILENT):
            real, other = self._draw(self.real, rng), self._draw(self.real, rng)
            forge = audio_forgeries.AUDIO[str(rng.choice(self.names, p=self.weights))]
            forged = forge(real.samples, rng, other.samples)
            if forged.segments:
                return real, replace(real, samples=forged.samples)
        raise ManifestError(f"{MAX_SILENT} real voices in turn were silent where they were drawn; leave such files out")

    def _augmented(self, window: Window, treatment: int) -> Float:
        samples = window.samples
        as_it_is = self.config.augmentation == "light" and treatment % 2
        if self.augment and not as_it_is:
            samples = sampling.treated_voice(samples, self.config.codec, treatment)
        return audio_mel(samples, window.speech, self.audio)

    def _last_start(self, clip: int) -> int:
        return max(0, int(self.archive.clips["sound_samples"].iat[clip]) - self.size)

    def _forged_starts(self, clip: int) -> list[tuple[int, int]]:
        """First and last start of the windows that hold a forged span, or enough of a long one; one pair a span."""
        begin = float(self.archive.clips["sound_start_seconds"].iat[clip])
        last, least = self._last_start(clip), round(MIN_AUDIO_SECONDS * SAMPLE_RATE)
        ranges = []
        for a, b in self.spans[clip]:
            first, end = round((a - begin) * SAMPLE_RATE), round((b - begin) * SAMPLE_RATE)
            need = min(least, end - first)
            low, high = max(0, first + need - self.size), min(last, end - need)
            if need > 0 and low <= high:
                ranges.append((low, high))
        return ranges

    def _draw(self, draws: Draws, rng: np.random.Generator, *, forged: bool = False) -> Window:
        for _ in range(MAX_SILENT):
            window = self._window(draws.draw(rng), rng, forged=forged)
            if enough_speech(window.speech):
                return window
        raise ManifestError(f"{MAX_SILENT} voices in turn held no speech where they were drawn; leave such files out")

    def _window(
        self, clip: int, rng: np.random.Generator, *, forged: bool = False, at_seconds: float | None = None
    ) -> Window:
        """A random window, over a forged span or at a given time; with enough speech if a few tries find that."""
        wave = self.archive.waveform(clip)
        assert wave is not None, "clips with sound are drawn, no others"
        speech = speech_mask(wave.samples)
        low, high = 0, self._last_start(clip)
        if forged and self.spans[clip]:
            ranges = self._forged_starts(clip)
            low, high = ranges[int(rng.integers(len(ranges)))]
        if at_seconds is not None:
            low = high = int(np.clip(round((at_seconds - wave.start_seconds) * SAMPLE_RATE), 0, high))
        for _ in range(8):
            start = int(rng.integers(low, high + 1))
            mask = speech[start // HOP : (start + self.size) // HOP]
            if enough_speech(mask):
                break
        return Window(clip, wave.samples[start : start + self.size], mask, wave.start_seconds + start / SAMPLE_RATE)
