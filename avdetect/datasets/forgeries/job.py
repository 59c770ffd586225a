"""One run of forging files: what its forgeries share, its controls, its manifest and its contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.config import FaceConfig
from avdetect.datasets.forgeries.clip import METHODS, labels
from avdetect.datasets.forgeries.contact import Row, write_sheet
from avdetect.datasets.forgeries.files import write_sound, write_video
from avdetect.datasets.forgeries.inputs import Input, joined
from avdetect.datasets.manifest import write_manifest
from avdetect.faces import FaceDetector
from avdetect.types import FPS

RANDOM_SECONDS = (1.0, 4.0)  # length of a random segment
SHORTEST_SECONDS = 0.6  # that is worth forging
TRIES = 6  # at a random segment with a face, or with a voice, in it
SHEET_ROWS = 80

Segment = tuple[float, float]  # start and end in seconds
Writer = Callable[[Path], None]


@dataclass
class Job:
    """What all forgeries of one run share, and what they have led to so far."""

    out: Path  # an existing folder
    inputs: list[Input]
    segment: Segment | None  # None: random
    seed: int
    split: str
    control: bool  # write the genuine file through the encoder of its forgeries, with a row of its own
    detector: FaceDetector
    faces: FaceConfig
    say: Callable[[str], None]  # is told of each file
    rows: list[dict[str, Any]] = field(default_factory=list)
    sheet: list[Row] = field(default_factory=list)
    controls: dict[tuple[int, str], Path] = field(default_factory=dict)
    shared: set[tuple[int, int]] = field(default_factory=set)  # inputs whose face or voice went into another's forgery

    def rng(self, index: int, count: int, use: int | str) -> np.random.Generator:
        """Random numbers for forgery `count` of an input: of a method, or of a use (0: segments, 1: donors)."""
        return np.random.default_rng((self.seed, index, count, METHODS.index(use) + 2 if isinstance(use, str) else use))

    def others(self, index: int, rng: np.random.Generator) -> list[int]:
        """All inputs but `index`, in random order: none is its own donor."""
        return [int(i) for i in rng.permutation([i for i in range(len(self.inputs)) if i != index])]

    def write(
        self,
        index: int,
        count: int,
        method: str,
        segments: Sequence[Segment],
        writer: Writer,
        row: Callable[[str], Row],
    ) -> None:
        """A forged file by `writer`, after its control; `row` makes the sheet's from a label."""
        kind = "video" if labels(method)[1] else "sound"
        plain = self._control(index, kind)
        target = self.out / f"{self.inputs[index].name}.{method}.{count}{self._suffix(index)}"
        writer(target)
        self.sheet.append(row(f"{target.name}  {_shown(segments)}"))
        self._add(index, target, method, segments, plain)

    def finish(self) -> None:
        """Manifest and sheet of what there is. Raises MediaError, ManifestError."""
        groups = joined([source.group for source in self.inputs], sorted(self.shared))
        if self.rows:
            table = pd.DataFrame([{**row, "group": groups[row["group"]]} for row in self.rows])
            write_manifest(table, self.out / "forged.csv")
        if self.sheet:
            write_sheet(self.sheet[:SHEET_ROWS], self.out / "contact.png")

    def _suffix(self, index: int) -> str:
        return ".m4a" if self.inputs[index].reader.info.video is None else ".mp4"

    def _control(self, index: int, kind: str) -> Path:
        """The genuine file through the encoder of forged videos or sounds; without `control` as it is."""
        source = self.inputs[index]
        if not self.control:
            return source.path
        if (index, kind) not in self.controls:
            target = self.out / f"{source.name}.control-{kind}{self._suffix(index)}"
            if kind == "video":
                write_video(source.reader.video(), source.reader.info, target)
            else:
                write_sound(source.sound(), source.reader.info, target)
            self.controls[index, kind] = target
            self._add(index, target, "", [], target)
        return self.controls[index, kind]

    def _add(self, index: int, path: Path, method: str, segments: Sequence[Segment], original: Path) -> None:
        """A row of the manifest; a method of "" is a control. The group is the input's number until `finish`."""
        info = self.inputs[index].reader.info
        fake, video_fake, audio_fake = labels(method) if method else (0, 0, 0)
        self.rows.append(
            {
                "path": str(path.resolve()),
                "fake": fake,
                "video_fake": None if info.video is None else video_fake,
                "audio_fake": None if info.audio is None else audio_fake,
                "group": index,
                "split": self.split,
                "dataset": "forge",
                "method": method,
                "original": str(original.resolve()) if method else "",
                "fake_segments": tuple((round(a, 4), round(b, 4)) for a, b in segments),
            }
        )
        self.say(f"wrote {path}")


def segments_to_try(job: Job, duration_seconds: Callable[[], float], rng: np.random.Generator) -> Iterator[Segment]:
    """The job's segment, or TRIES random ones: 1 to 4 s on whole frames of the video, all of a shorter file."""
    if job.segment is not None:
        yield job.segment
        return
    duration = duration_seconds()
    for _ in range(TRIES):
        length = min(round(rng.uniform(*RANDOM_SECONDS) * FPS) / FPS, duration)
        start = int(rng.uniform(0, max(0.0, duration - length)) * FPS) / FPS
        yield start, start + length


def _shown(segments: Sequence[Segment]) -> str:
    return ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in segments)
