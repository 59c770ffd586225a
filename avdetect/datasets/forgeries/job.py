"""One run of forging files: its inputs, what its forgeries share, its controls and its manifest."""

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.config import MediaConfig, PreprocessConfig
from avdetect.datasets.forgeries.clip import labels
from avdetect.datasets.forgeries.files import write_sound, write_video
from avdetect.datasets.manifest import write_manifest
from avdetect.errors import ConfigError, LimitError, MediaError
from avdetect.faces import FaceDetector, build_detector
from avdetect.media import MediaReader
from avdetect.types import FPS, SAMPLE_RATE, Float

MAX_AUDIO_SECONDS = 3600.0  # held in memory at once: 230 MB
RANDOM_SECONDS = (1.0, 4.0)  # length of a random segment
SHORTEST_SECONDS = 0.6  # that is worth forging
TRIES = 6  # at a random segment with a face, or with a voice, in it

Segment = tuple[float, float]  # start and end in seconds


class Unfit(MediaError):
    """An input cannot take a method: no face, no voice, nobody else."""


@dataclass
class Input:
    """One genuine file, opened anew for each pass."""

    number: int  # in the order of the inputs
    path: Path
    name: str  # of its outputs, unique among the inputs
    group: str  # its stem and its content: another file of that name has another group
    reader: MediaReader

    @cached_property
    def sound(self) -> Float:
        """All of the voice, (num_samples,) from the container's time zero. Raises Unfit without audio, LimitError
        beyond MAX_AUDIO_SECONDS."""
        if self.reader.info.audio is None:
            raise Unfit(f"{self.path.name} has no audio")
        chunks = [np.zeros(0, np.float32)]
        for chunk in self.reader.audio(60.0):
            chunks.append(chunk.samples)
            if sum(map(len, chunks)) > MAX_AUDIO_SECONDS * SAMPLE_RATE:
                raise LimitError(
                    f"{self.path.name} holds more than {MAX_AUDIO_SECONDS / 60:g} minutes of sound, too much to "
                    "forge at once; cut a part out of it first (ffmpeg -ss START -t SECONDS -i IN -c copy OUT)"
                )
        return np.concatenate(chunks)


def open_inputs(paths: Sequence[Path]) -> list[Input]:
    """Probe all inputs before any work. Raises MediaError, ConfigError (the same bytes twice)."""
    inputs: list[Input] = []
    known: dict[str, Path] = {}
    media = MediaConfig(max_side=8192)  # the source's own resolution
    for number, path in enumerate(paths):
        reader = MediaReader(path, media)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if content in known:
            raise ConfigError(
                f"{path} and {known[content]} hold the same bytes; name one: nobody is another person to himself"
            )
        known[content] = path
        stem = re.sub(r"[^\w.-]+", "_", path.stem).lstrip(".-")[:80] or "input"
        group = f"{stem}-{content[:8]}"
        taken = stem.lower() in {source.name.lower() for source in inputs}
        inputs.append(Input(number, path, group if taken else stem, group, reader))
    return inputs


@dataclass
class Job:
    """What all forgeries of one run share, and what they have led to so far."""

    out: Path
    inputs: list[Input]
    segment: Segment | None  # None: random
    seed: int
    split: str
    control: bool  # write the genuine file through the encoder of its forgeries, with a row of its own
    say: Callable[[str], None]  # is told of each file
    detector: FaceDetector = field(default_factory=lambda: build_detector(PreprocessConfig().detector))
    rows: list[dict[str, Any]] = field(default_factory=list)
    controls: set[Path] = field(default_factory=set)
    mixed: bool = False  # an input's voice went into another's forgery

    def rng(self, source: Input, count: int, use: str) -> np.random.Generator:
        """Random numbers for forgery `count` of an input: of a method, or of another use."""
        return np.random.default_rng((self.seed, source.number, count, zlib.crc32(use.encode())))

    def others(self, source: Input, count: int) -> list[Input]:
        """All inputs but `source`, in random order: none is its own donor."""
        order = self.rng(source, count, "others").permutation(len(self.inputs)).tolist()
        return [self.inputs[number] for number in order if number != source.number]

    def segments_to_try(self, source: Input, rng: np.random.Generator) -> Iterator[Segment]:
        """The job's segment, or TRIES random ones: 1 to 4 s on whole frames of the video, all of a shorter file."""
        duration = source.reader.info.duration_seconds
        if self.segment is not None:
            yield self.segment
        elif duration is None:
            raise MediaError(f"{source.path.name} does not say how long it is; give --segment START END")
        else:
            for _ in range(TRIES):
                length = min(round(rng.uniform(*RANDOM_SECONDS) * FPS) / FPS, duration)
                start = int(rng.uniform(0, max(0.0, duration - length)) * FPS) / FPS
                yield start, start + length

    def write(
        self, source: Input, count: int, method: str, segments: Sequence[Segment], writer: Callable[[Path], None]
    ) -> None:
        """A forged file by `writer`, after its control."""
        original = self._control(source, "video" if labels(method)[1] else "sound")
        target = self._target(source, f"{method}.{count}")
        writer(target)
        self._add(source, target, method, segments, original)

    def finish(self) -> None:
        """The manifest of what there is. Raises ManifestError.

        Who lent a voice is heard in the forgery, and must stand on the same side of a split: all inputs are one group
        then.
        """
        if self.rows:
            table = pd.DataFrame(self.rows)
            if self.mixed:
                table["group"] = min(table["group"])
            write_manifest(table, self.out / "forged.csv")

    def _target(self, source: Input, kind: str) -> Path:
        return self.out / f"{source.name}.{kind}{'.m4a' if source.reader.info.video is None else '.mp4'}"

    def _control(self, source: Input, kind: str) -> Path:
        """The genuine file through the encoder of forged videos or sounds; without `control` as it is."""
        target = self._target(source, f"control-{kind}")
        if not self.control:
            return source.path
        if target not in self.controls:
            if kind == "video":
                write_video(source.reader.video(), source.reader.info, target)
            else:
                write_sound(source.sound, source.reader.info, target)
            self.controls.add(target)
            self._add(source, target, "", [], target)
        return target

    def _add(self, source: Input, path: Path, method: str, segments: Sequence[Segment], original: Path) -> None:
        """A row of the manifest; a method of "" is a control."""
        info = source.reader.info
        fake, video_fake, audio_fake = labels(method) if method else (0, 0, 0)
        self.rows.append(
            {
                "path": str(path.resolve()),
                "fake": fake,
                "video_fake": None if info.video is None else video_fake,
                "audio_fake": None if info.audio is None else audio_fake,
                "group": source.group,
                "split": self.split,
                "dataset": "forge",
                "method": method,
                "original": str(original.resolve()) if method else "",
                "fake_segments": tuple((round(a, 4), round(b, 4)) for a, b in segments),
            }
        )
        self.say(f"wrote {path}")
