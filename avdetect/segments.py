"""Where a file looks manipulated: stretches of the per-second curves of face and voice, by hysteresis. NumPy only.

A second whose logit reaches a high level starts a segment, and lower ones beside it belong to it (the double threshold
of Canny's edge detector, 1986). A curve rises and falls over the length of what its network sees (of the voice, the
stretches of `config.AudioConfig`), so the low level is half of the peak, as one measures the width of a blurred line
(FWHM).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from avdetect.types import Curve, Segment, StreamName, StreamScore

CELL_SECONDS = 1.0  # a curve's step
# Logits from which on a second starts a segment. The voice's is the lowest, in steps of a half, with which at most one
# in twenty real recordings has one, by streams that had not seen its source; with the face's 3 % of real clips have one
# (at 2.0: 4 %). Logits, since a bundle's calibration is of whole files.
# Sync has none: its curve rises where a voice was exchanged, but it was not measured which level real clips stay below.
HIGH: dict[StreamName, float] = {"visual": 2.5, "audio": 5.0}


def find_segments(
    streams: Sequence[StreamScore],
    start_seconds: float = 0.0,
    end_seconds: float = math.inf,
    windows: Sequence[tuple[float, float]] = (),
) -> tuple[Segment, ...]:
    """Segments of the streams in HIGH, of each curve (face track, voice) by itself, in the order of their start.

    What was scored lies between start_seconds and end_seconds, and in `windows`, their starts and ends in order, if not
    all of that was: the first and the last second are cut to it.
    """
    found = []
    for stream in streams:
        for curve in stream.curves if stream.name in HIGH else ():
            found += curve_segments(curve, stream.name, HIGH[stream.name], start_seconds, end_seconds)
    if windows:
        found = [_judged(segment, windows) for segment in found]
    return tuple(sorted(found, key=lambda segment: (segment.start_seconds, segment.end_seconds)))


def _judged(segment: Segment, windows: Sequence[tuple[float, float]]) -> Segment:
    first = min((start for start, end in windows if end > segment.start_seconds), default=0.0)
    last = max((end for start, end in windows if start < segment.end_seconds), default=math.inf)
    return replace(segment, start_seconds=max(segment.start_seconds, first), end_seconds=min(segment.end_seconds, last))


def curve_segments(
    curve: Curve, stream: StreamName, high: float, start_seconds: float = 0.0, end_seconds: float = math.inf
) -> list[Segment]:
    """Segments of one curve, apart and in the order of time. `high` must be above 0, which means undecided."""
    times, values = np.asarray(curve.times_seconds, np.float64), np.asarray(curve.values, np.float64)
    found = []
    for first, last in _stretches(times, values, high):
        start = max(start_seconds, float(times[first]) - CELL_SECONDS / 2)
        end = min(end_seconds, float(times[last]) + CELL_SECONDS / 2)
        if start < end:
            score = round(float(values[first : last + 1].mean()), 4)
            found.append(Segment(round(start, 3), round(end, 3), stream, score, curve.track_id))
    return found


def runs(above: np.ndarray, times: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of each run of True cells (T,) whose middles are at `times` (T,): a gap ends a run."""
    apart = np.diff(times) > 1.5 * CELL_SECONDS  # between cells i and i + 1 nothing was seen
    begins = above & np.concatenate([[True], ~above[:-1] | apart])[: len(above)]
    ends = above & np.concatenate([~above[1:] | apart, [True]])[: len(above)]
    return list(zip(np.flatnonzero(begins).tolist(), np.flatnonzero(ends).tolist(), strict=True))


def _stretches(times: np.ndarray, values: np.ndarray, high: float) -> Iterator[tuple[int, int]]:
    """(first, last) cell of each segment: of the seconds at or above half of the peak that they are beside."""
    for first, last in runs(values >= high / 2, times):
        inside = values[first : last + 1]
        for one, other in runs(inside >= inside.max() / 2, times[first : last + 1]):
            if inside[one : other + 1].max() >= high:
                yield first + one, first + other
