"""From frame and window outputs to what the fusion sees. NumPy only: training, evaluation and the Detector share it.

Nothing here is learned. Streams emit one logit a face crop, one a log-mel window, and unit vectors a 0.2 s window;
this file turns them into one number a stream, the lip-sync quantities, and the fusion's feature vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avdetect.types import FPS, Float

MIN_TRACK_CROPS = 3  # a track with fewer face crops counts only when no track has more
MIN_SYNC_WINDOWS = 20  # 0.8 s of windows, 1 s of track
MIN_OFFSET_PAIRS = 10  # an offset backed by fewer valid pairs is not searched


def confident_mean(logits: Float) -> float:
    """Mean in which a frame weighs by its distance from indecision, |2 p - 1|.

    The DFDC winner's "confident strategy" (Seferbekov, 2020) without its thresholds: blurred or turned faces, about
    which the encoder says nothing, do not drown the frames that show the seam.
    """
    weights = np.abs(np.tanh(logits / 2)) + 0.05
    return float(np.sum(weights * logits) / np.sum(weights))


def pool_tracks(logits: Mapping[int, Float]) -> float | None:
    """Frame logits by track -> one logit: the most suspicious track, for one forged face makes a forged video."""
    tracks = [values for values in logits.values() if len(values)]
    long = [values for values in tracks if len(values) >= MIN_TRACK_CROPS]
    return max(map(confident_mean, long or tracks), default=None)


@dataclass(frozen=True)
class SyncDistances:
    """Distances of one track's mouth windows to the voice windows, by offset; sums so that clips add up."""

    offsets: np.ndarray  # (O,) frames, -max..max
    total: np.ndarray  # (O,) sum of distances over valid pairs
    count: np.ndarray  # (O,) number of valid pairs
    frames: np.ndarray  # (W,) centre frame of each mouth window
    by_window: np.ndarray  # (W, O) distances, NaN where no valid pair exists

    @staticmethod
    def join(parts: Sequence[SyncDistances]) -> SyncDistances:
        return SyncDistances(
            parts[0].offsets,
            np.sum([p.total for p in parts], axis=0),
            np.sum([p.count for p in parts], axis=0),
            np.concatenate([p.frames for p in parts]),
            np.concatenate([p.by_window for p in parts]),
        )


def sync_distances(mouth: Float, mouth_start: int, voice: Float, voice_valid: np.ndarray, max_offset: int):
    """Distances between mouth window t and voice window t + offset, valid pairs only.

    mouth (W, E) unit vectors, window i begins at frame `mouth_start + i` of the voice's clock; voice (V, E), window j
    begins at frame j; voice_valid (V,) False where the voice is silent or padding. SyncNet pads with zeros at the
    edges, which favours offsets other than 0; pairs that do not exist are left out here.
    """
    offsets = np.arange(-max_offset, max_offset + 1)
    index = mouth_start + np.arange(len(mouth))[:, None] + offsets  # (W, O) voice window of each pair
    inside = (index >= 0) & (index < len(voice))
    clipped = np.clip(index, 0, max(len(voice) - 1, 0))
    valid = inside & voice_valid[clipped] if len(voice) else inside
    similarity = mouth @ voice.T if len(voice) else np.zeros((len(mouth), 1), np.float32)  # (W, V)
    cosine = np.take_along_axis(similarity, clipped, axis=1)
    distance = np.sqrt(np.maximum(0, 2 - 2 * cosine))
    by_window = np.where(valid, distance, np.nan)
    centre = mouth_start + np.arange(len(mouth)) + 2
    return SyncDistances(offsets, np.nansum(by_window, 0), valid.sum(0), centre, by_window)


@dataclass(frozen=True)
class SyncReading:
    """SyncNet's three quantities, and the distance of each mouth window at the best offset."""

    offset_seconds: float  # > 0: the audio lags the video
    confidence: float
    min_distance: float
    at_zero: float  # mean distance at offset 0 (of the nearest searched offset)
    frames: np.ndarray
    curve: np.ndarray


def read_sync(distances: SyncDistances) -> SyncReading | None:
    """None when the track has too few valid pairs to say anything."""
    searched = distances.count >= MIN_OFFSET_PAIRS
    if distances.count.max(initial=0) < MIN_SYNC_WINDOWS or searched.sum() < len(distances.offsets) // 2:
        return None
    mean = np.where(searched, distances.total / np.maximum(distances.count, 1), np.nan)
    distance_from_zero = np.where(searched, np.abs(distances.offsets), np.inf)
    nearest_zero = int(np.argmin(distance_from_zero))
    # Equal up to rounding: the offset nearest 0, so that a flat curve does not read as out of step.
    best = int(np.argmin(np.where(mean <= np.nanmin(mean) + 1e-6, distance_from_zero, np.inf)))
    curve = distances.by_window[:, best]
    known = ~np.isnan(curve)
    return SyncReading(
        offset_seconds=float(distances.offsets[best]) / FPS,
        confidence=float(np.nanmedian(mean) - mean[best]),
        min_distance=float(mean[best]),
        at_zero=float(mean[nearest_zero]),
        frames=distances.frames[known],
        curve=curve[known].astype(np.float32),
    )


# The fusion's input: stream values (0 where missing), then one availability bit a stream.
FEATURES = (
    "visual_logit",
    "audio_logit",
    "sync_confidence",
    "sync_min_distance",
    "sync_at_zero",
    "sync_abs_offset",
    "has_visual",
    "has_audio",
    "has_sync",
)
NUM_VALUES = 6  # the first NUM_VALUES features are values, the rest the mask
STREAM_OF_VALUE = (0, 1, 2, 2, 2, 2)  # index into (visual, audio, sync)


def fusion_features(visual: float | None, audio: float | None, sync: SyncReading | None) -> Float:
    """(len(FEATURES),) float32; any of the three may be None."""
    values = [
        0.0 if visual is None else visual,
        0.0 if audio is None else audio,
        *([0.0] * 4 if sync is None else [sync.confidence, sync.min_distance, sync.at_zero, abs(sync.offset_seconds)]),
        float(visual is not None),
        float(audio is not None),
        float(sync is not None),
    ]
    return np.array(values, np.float32)
