"""From frame and window outputs to what the fusion sees. NumPy only: training, evaluation and the Detector share it.

Nothing here is learned. Streams emit one logit a face crop, one a window of speech or a stretch of it, and unit vectors
a video frame; this file turns them into one number a stream, the lip-sync quantities, and the fusion's feature vector.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avdetect.types import FPS, SAMPLE_RATE, Float, StreamName

PRIOR_CROPS = 4.0  # a track of so many face crops is half its own and half the file's
MIN_SYNC_WINDOWS = 50  # 2 s of mouth embeddings with their voice: with less no match of a file is judged
MIN_STRETCH_WINDOWS = 20  # 0.8 s: the same for a stretch of a file, which is only shown
# Frames around offset 0 in which the match is sought: a third of a second. Players, platforms and muxers shift sound by
# as much (real clips of the corpus by up to 8 frames), and the lips speak the voice all the same.
NEAR = 8
# Below it the mouth stands still while there is speech: somebody else speaks. Of those who speak one in two hundred is
# below .15; photographs that are zoomed or moved stay below .07.
MIN_SPEAKING = 0.1
MIN_OFFSET_PAIRS = 10  # an offset backed by fewer valid pairs is not searched


def confident_mean(logits: Float) -> float:
    """Mean in which a frame weighs by its distance from indecision, |2 p - 1|.

    The DFDC winner's "confident strategy" (Seferbekov, 2020) without its thresholds: blurred or turned faces, about
    which the encoder says nothing, do not drown the frames that show the seam.
    """
    weights = np.abs(np.tanh(logits / 2)) + 0.05
    return float(np.sum(weights * logits) / np.sum(weights))


def track_logits(logits: Mapping[int, Float], pooling: str = "confident") -> dict[int, float]:
    """Frame logits by track -> a logit a track, drawn towards that of all crops of the file when few back it.

    Tracks of one file share camera and codec, so what one of few crops says beyond the others is mostly noise: without
    this the most suspicious of many short tracks of a cut video would always look forged. `pooling` is "confident" or
    "mean" (`config.VisualConfig.pooling`).
    """
    mean = confident_mean if pooling == "confident" else lambda values: float(np.mean(values))
    seen = {track: values for track, values in logits.items() if len(values)}
    together = mean(np.concatenate(list(seen.values()))) if seen else 0.0
    return {
        track: (len(values) * mean(values) + PRIOR_CROPS * together) / (len(values) + PRIOR_CROPS)
        for track, values in seen.items()
    }


def per_second(points: Iterable[tuple[float, float]]) -> dict[int, float]:
    """(seconds, value) points -> their means over each second of the file's clock."""
    cells: dict[int, list[float]] = defaultdict(list)
    for seconds, value in points:
        cells[math.floor(seconds)].append(value)
    return {second: float(np.mean(values)) for second, values in cells.items()}


def heard_per_second(stretches: Iterable[tuple[float, float, float]]) -> dict[int, float]:
    """(start, end, value) of stretches of sound, in seconds -> means over each second of the file's clock. Stretches
    overlap and outlast a second: each counts as much as it holds of it."""
    total, heard = defaultdict[int, float](float), defaultdict[int, float](float)
    for start, end, value in stretches:
        for second in range(math.floor(start), math.ceil(end)):
            share = min(end, second + 1) - max(start, second)
            total[second] += share * value
            heard[second] += share
    # Less than a sample is rounding.
    return {second: total[second] / share for second, share in heard.items() if share > 1 / SAMPLE_RATE}


@dataclass(frozen=True)
class SyncDistances:
    """Distances of one track's mouth to the voice, by second and offset, and how the mouth looks while there is speech;
    sums, so that clips add up."""

    offsets: np.ndarray  # (O,) frames, -max..max
    seconds: np.ndarray  # (S,) whole seconds on the file's clock
    total: np.ndarray  # (S, O) sum of the distances of valid pairs whose mouth embedding belongs to that second
    count: np.ndarray  # (S, O) number of those pairs
    mouth: np.ndarray  # (S, E) sum of the mouth embeddings of the frames with speech
    spoken: np.ndarray  # (S,) number of those frames

    @property
    def _sums(self) -> tuple[np.ndarray, ...]:
        return self.seconds, self.total, self.count, self.mouth, self.spoken

    @staticmethod
    def join(parts: Sequence[SyncDistances]) -> SyncDistances:
        sums = zip(*(part._sums for part in parts), strict=True)
        return SyncDistances(parts[0].offsets, *map(np.concatenate, sums))

    def within(self, inside: np.ndarray) -> SyncDistances:
        """Only the seconds of the mask `inside` (S,)."""
        return SyncDistances(self.offsets, *(values[inside] for values in self._sums))

    def speaking(self) -> float:
        """How much the mouth moves while there is speech: 1 - |mean embedding|; 0: it stands still."""
        return 1 - float(np.linalg.norm(self.mouth.sum(0, dtype=np.float64))) / max(int(self.spoken.sum()), 1)

    def stands_still(self) -> bool:
        """Whether the mouth is seen for long enough while there is speech, and does not speak."""
        return int(self.spoken.sum()) >= MIN_SYNC_WINDOWS and self.speaking() < MIN_SPEAKING


def sync_distances(
    mouth: Float, mouth_frame: int, voice: Float, voice_frame: int, voice_valid: np.ndarray, max_offset: int
) -> SyncDistances:
    """Distances between the mouth at frame t and the voice at frame t + offset, valid pairs only.

    mouth (W, E) and voice (V, E) unit vectors, one a video frame, which is the one that each is centred on; the first
    belong to frames `mouth_frame` and `voice_frame` of the file's clock; voice_valid (V,) False where there is no
    speech or no embedding. SyncNet pads with zeros at the edges, which favours offsets other than 0. Some embeddings
    are near to all others and would draw the offset to themselves (hubs: Radovanovic et al., JMLR 2010), so what one is
    nearer on average, over the whole clip, is taken off.
    """
    offsets = np.arange(-max_offset, max_offset + 1)
    frames = mouth_frame + np.arange(len(mouth))
    if not len(voice):
        voice, voice_valid = np.zeros((1, mouth.shape[1]), np.float32), np.zeros(1, bool)
    index = frames[:, None] - voice_frame + offsets  # (W, O) voice embedding of each pair
    clipped = np.clip(index, 0, len(voice) - 1)
    valid = (index == clipped) & voice_valid[clipped]
    distances = np.sqrt(np.maximum(0, 2 - 2 * (mouth @ voice.T)))  # (W, V)
    if valid.any():
        by_mouth, by_voice = distances[:, voice_valid].mean(1, keepdims=True), distances.mean(0, keepdims=True)
        distances = distances - by_mouth - by_voice + 2 * by_mouth.mean()
    distance = np.where(valid, np.take_along_axis(distances, clipped, axis=1), 0)
    seconds, cell = np.unique(frames // FPS, return_inverse=True)
    total, count = np.zeros((len(seconds), len(offsets)), np.float32), np.zeros((len(seconds), len(offsets)), np.int32)
    np.add.at(total, cell, distance)
    np.add.at(count, cell, valid)
    heard = valid[:, max_offset]
    shown, spoken = np.zeros((len(seconds), mouth.shape[1]), np.float32), np.zeros(len(seconds), np.int32)
    np.add.at(shown, cell[heard], mouth[heard])
    np.add.at(spoken, cell[heard], 1)
    return SyncDistances(offsets, seconds, total, count, shown, spoken)


@dataclass(frozen=True)
class SyncReading:
    """SyncNet's three quantities, the match, and the mean distance at the best offset in each second."""

    offset_seconds: float  # > 0: the audio lags the video
    confidence: float
    min_distance: float
    at_zero: float  # mean distance at offset 0 (of the nearest searched offset)
    match: float  # median of the mean distances minus the smallest near offset 0; high: lips and voice belong together
    curve: tuple[tuple[float, float], ...]  # (middle of the second, distance)


def read_sync(distances: SyncDistances, least: int = MIN_SYNC_WINDOWS) -> SyncReading | None:
    """None when the track has too few valid pairs to say anything, or its mouth stands still. least: pairs that one of
    the offsets must have."""
    count = distances.count.sum(0)
    searched = count >= MIN_OFFSET_PAIRS
    near = searched & (np.abs(distances.offsets) <= NEAR)
    if count.max(initial=0) < least or searched.sum() < len(distances.offsets) // 2 or not near.any():
        return None
    if distances.speaking() < MIN_SPEAKING:
        return None
    mean = np.where(searched, distances.total.sum(0, dtype=np.float64) / np.maximum(count, 1), np.nan)
    distance_from_zero = np.where(searched, np.abs(distances.offsets), np.inf)
    # Equal up to rounding: the offset nearest 0, so that a flat curve does not read as out of step.
    best = int(np.argmin(np.where(mean <= np.nanmin(mean) + 1e-6, distance_from_zero, np.inf)))
    seen = distances.count[:, best] > 0
    curve = distances.total[seen, best] / distances.count[seen, best]
    return SyncReading(
        offset_seconds=float(distances.offsets[best]) / FPS,
        confidence=float(np.nanmedian(mean) - mean[best]),
        min_distance=float(mean[best]),
        at_zero=float(mean[np.argmin(distance_from_zero)]),
        match=float(np.nanmedian(mean) - mean[near].min()),
        curve=tuple(zip((distances.seconds[seen] + 0.5).tolist(), curve.tolist(), strict=True)),
    )


def sync_over_time(distances: SyncDistances, window_seconds: int) -> tuple[tuple[float, SyncReading | None], ...]:
    """(middle of the second, what `read_sync` says of the seconds around it), for every second with a mouth embedding.

    window_seconds: odd, how many whole seconds are read together: an offset settles as more moments are averaged
    (Chung & Zisserman, 2016, table 1). None where a stretch has too few valid pairs.
    """
    points = []
    for second in np.unique(distances.seconds).tolist():
        near = np.abs(distances.seconds - second) <= window_seconds // 2
        points.append((second + 0.5, read_sync(distances.within(near), MIN_STRETCH_WINDOWS)))
    return tuple(points)


# The fusion's input: stream values (0 where missing), then one availability bit a stream.
FEATURES = (
    "visual_logit",
    "audio_logit",
    "sync_confidence",
    "sync_min_distance",
    "sync_match",
    "sync_abs_offset",
    "has_visual",
    "has_audio",
    "has_sync",
)
PART_OF: dict[StreamName, str] = {"visual": "video_fake", "audio": "audio_fake", "sync": "mismatch"}  # what each judges
STREAMS = tuple(PART_OF)  # in the order of the mask
NUM_VALUES = 6  # the first NUM_VALUES features are values, the rest the mask
STREAM_OF_VALUE = (0, 1, 2, 2, 2, 2)  # index into STREAMS


def fusion_features(visual: float | None, audio: float | None, sync: SyncReading | None) -> Float:
    """(len(FEATURES),) float32; any of the three may be None."""
    values = [0.0 if visual is None else visual, 0.0 if audio is None else audio]
    values += [0.0] * 4 if sync is None else [sync.confidence, sync.min_distance, sync.match, abs(sync.offset_seconds)]
    return np.array([*values, *(stream is not None for stream in (visual, audio, sync))], np.float32)
