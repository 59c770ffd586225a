"""Face tracks on real clips (development only: the corpus is not redistributable and not needed by anybody else)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from avdetect.config import FaceConfig
from avdetect.faces import FaceTracker, TrackedFace, build_detector
from avdetect.media import MediaReader
from avdetect.types import VideoFrames

CORPUS = Path(__file__).parents[2] / "shared/corpus"
pytestmark = pytest.mark.skipif(
    not CORPUS.exists(), reason="no ../shared/corpus here (real clips, not redistributable)"
)


def some_clips(count: int) -> list[Path]:
    """One clip of each of `count` sources, by the order of their (random) names."""
    with (CORPUS / "clips.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: Path(row["file"]).name)
    chosen: dict[str, Path] = {}
    for row in rows:
        chosen.setdefault(row["source"], CORPUS / row["file"])
    return list(chosen.values())[:count]


def read(path: Path) -> list[VideoFrames]:
    with MediaReader(path) as reader:
        return list(reader.video(duration_seconds=2.0))


@pytest.mark.parametrize("path", some_clips(8) if CORPUS.exists() else [], ids=lambda path: path.stem)
def test_talking_heads_are_tracked(path: Path) -> None:
    tracker = FaceTracker(build_detector("mtcnn"), FaceConfig())
    faces: list[TrackedFace] = []
    batches = read(path)
    for frames in batches:
        faces += tracker.push(frames)
    faces += tracker.flush()
    total = sum(len(frames) for frames in batches)
    assert len({face.frame for face in faces}) >= 0.8 * total
    for face in faces:
        assert np.std(face.mouth_crop) > 8  # a mouth, not a flat patch
        eyes, mouth = face.landmarks[:2].mean(axis=0), face.landmarks[3:].mean(axis=0)
        assert eyes[1] < mouth[1]
