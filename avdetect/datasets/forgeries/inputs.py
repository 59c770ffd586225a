"""The genuine files that are to be forged: their names, their bytes, their sound, and who belongs with whom."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avdetect.config import MediaConfig
from avdetect.errors import ConfigError, LimitError, MediaError
from avdetect.media import MediaReader
from avdetect.types import SAMPLE_RATE, Float

MAX_AUDIO_SECONDS = 3600.0  # held in memory at once: 230 MB


class Unfit(MediaError):
    """An input cannot take a method: no face, no voice, nobody else."""


@dataclass
class Input:
    """One genuine file, opened anew for each pass."""

    path: Path
    name: str  # of its outputs, unique among the inputs
    group: str  # its stem and its content: another file of that name has another group
    reader: MediaReader
    samples: Float | None = field(default=None, repr=False)

    @property
    def duration_seconds(self) -> float:
        stated = self.reader.info.duration_seconds
        if stated is None:
            raise MediaError(f"{self.path.name} does not say how long it is; give --segment START END")
        return stated

    def sound(self) -> Float:
        """All of the voice, (num_samples,) from the container's time zero.

        Raises Unfit without audio, LimitError beyond MAX_AUDIO_SECONDS.
        """
        if self.samples is None:
            if self.reader.info.audio is None:
                raise Unfit(f"{self.path.name} has no audio")
            chunks, count = [], 0
            for chunk in self.reader.audio(60.0):
                chunks.append(chunk.samples)
                count += len(chunk.samples)
                if count > MAX_AUDIO_SECONDS * SAMPLE_RATE:
                    raise LimitError(
                        f"{self.path.name} holds more than {MAX_AUDIO_SECONDS / 60:g} minutes of sound, too much to "
                        "forge at once; cut a part out of it first (ffmpeg -ss START -t SECONDS -i IN -c copy OUT)"
                    )
            self.samples = np.concatenate(chunks or [np.zeros(0, np.float32)])
        return self.samples


def open_inputs(paths: Sequence[Path]) -> list[Input]:
    """Probe all inputs before any work. Raises MediaError, ConfigError (one file twice, under whatever name)."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("an INPUT is named twice")
    inputs: list[Input] = []
    known: dict[str, Path] = {}
    media = MediaConfig(max_side=8192)  # the source's own resolution
    for path in paths:
        reader = MediaReader(path, media)
        content = _sha256(path)
        if content in known:
            raise ConfigError(
                f"{path} and {known[content]} hold the same bytes; name one: nobody is another person to himself"
            )
        known[content] = path
        stem = name = re.sub(r"[^\w.-]+", "_", path.stem).lstrip(".-")[:80] or "input"
        taken, number = {source.name.lower() for source in inputs}, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        inputs.append(Input(path, name, f"{stem}-{content[:8]}", reader))
    return inputs


def joined(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """A group for each of `groups`, one for all that `pairs` of indices connect: the first of them in the alphabet.

    Whoever lent a face or a voice is seen or heard in the forgery and must stand on the same side of a split.
    """
    heads = list(range(len(groups)))

    def head(index: int) -> int:
        while heads[index] != index:
            index = heads[index]
        return index

    for one, two in pairs:
        first, second = sorted((head(one), head(two)), key=lambda index: groups[index])
        heads[second] = first
    return [groups[head(index)] for index in range(len(groups))]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error
