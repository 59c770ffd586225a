"""A whole file, or a window of it, as arrays."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from avdetect.config import MediaConfig, MediaLimits
from avdetect.media import MediaInfo, MediaReader
from avdetect.types import SAMPLE_RATE, VideoFrames

LIMITS = MediaLimits(stall_seconds=20)


def frames_of(path: Path, config: MediaConfig | None = None, **window) -> list[VideoFrames]:
    with MediaReader(path, config, LIMITS) as reader:
        return list(reader.video(**window))


def pixels_of(path: Path, **window) -> tuple[int, np.ndarray]:
    """(number of the first frame, all frames), where there is no gap."""
    batches = frames_of(path, **window)
    for before, after in itertools.pairwise(batches):
        assert after.first_frame == before.first_frame + len(before)
    return batches[0].first_frame, np.concatenate([batch.i420 for batch in batches])


def samples_of(path: Path, chunk_seconds: float = 0.5, audio_track: int | None = None, **window) -> np.ndarray:
    with MediaReader(path, limits=LIMITS, audio_track=audio_track) as reader:
        chunks = list(reader.audio(chunk_seconds, **window))
    for before, after in itertools.pairwise(chunks):
        assert len(before.samples) == round(chunk_seconds * SAMPLE_RATE)
        assert after.start_seconds == pytest.approx(before.start_seconds + before.duration_seconds)
    return np.concatenate([chunk.samples for chunk in chunks])


def whole(path: Path) -> tuple[MediaInfo, np.ndarray, np.ndarray]:
    """What a file says of itself, all frames, all samples."""
    with MediaReader(path, limits=LIMITS) as reader:
        pixels = np.concatenate([batch.i420 for batch in reader.video()]) if reader.info.video else np.zeros(0)
        samples = np.concatenate([chunk.samples for chunk in reader.audio(60.0)]) if reader.info.audio else np.zeros(0)
        return reader.info, pixels, samples


def numbered(batches: Iterable[VideoFrames]) -> dict[int, bytes]:
    """Number of the frame -> its pixels."""
    return {batch.first_frame + i: frame.tobytes() for batch in batches for i, frame in enumerate(batch.i420)}


def read_all(path: Path | str | bytes, limits: MediaLimits | None = None) -> tuple[int, int, list[str]]:
    """(frames, samples, warnings)."""
    with MediaReader(os.fsdecode(path), MediaConfig(), limits) as reader:
        frames = sum(len(batch) for batch in reader.video()) if reader.info.video else 0
        samples = sum(len(chunk.samples) for chunk in reader.audio(1.0)) if reader.info.audio else 0
        return frames, samples, reader.warnings
