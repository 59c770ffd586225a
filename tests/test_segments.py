"""Segments of per-second curves: their laws, and those of a file that is forged from end to end."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.segments import HIGH, curve_segments, find_segments
from avdetect.types import Curve, Segment, StreamScore

HEIGHT = 2.0


def curve(*values: float, start: int = 0, track: int | None = None) -> Curve:
    return Curve(tuple(start + i + 0.5 for i in range(len(values))), values, 0.0, track)


def spans(found: list[Segment]) -> list[tuple[float, float]]:
    return [(segment.start_seconds, segment.end_seconds) for segment in found]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Up to forty seconds, some of them unseen, with logits as streams give them."""
    seconds = sorted(draw(st.sets(st.integers(0, 60), max_size=40)))
    values = draw(st.lists(st.floats(-12, 12, width=32), min_size=len(seconds), max_size=len(seconds)))
    return Curve(tuple(second + 0.5 for second in seconds), tuple(values), 0.0)


def test_a_segment_is_as_long_as_its_curve_stays_above_half_of_its_peak() -> None:
    for one, end, expected in (
        (curve(-1, 0.9, 2.0, 4.0, 2.5, 1.9, -1), 9, [(2.0, 5.0)]),
        (curve(3.0, 2.5, 3.5, 2.0), 3.7, [(0.0, 3.7)]),
        (curve(1.9, 1.9, -3, 0), 9, []),
        (curve(0, 8, 0, 2, 1.5, 0), 9, [(1.0, 2.0), (3.0, 5.0)]),  # each by its own height
        (Curve((0.5, 3.5, 4.5), (3.0, 3.0, 3.0), 0.0), 9, [(0.0, 1.0), (3.0, 5.0)]),  # what was not seen is in none
    ):
        assert spans(curve_segments(one, "audio", HEIGHT, 0.0, end)) == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(curves(), st.floats(0.5, 6), st.floats(0, 30), st.floats(0, 30))
def test_the_law_of_hysteresis(one: Curve, high: float, start: float, length: float) -> None:
    """Segments are apart and in order. Each reaches the high level and nowhere falls below half of its peak; the
    curve's peak is in one. They lie in what was scored."""
    for begin, end in spans(curve_segments(one, "audio", high, start, start + length)):
        assert round(start, 3) <= begin <= end <= round(start + length, 3)
    found, times, peaks = curve_segments(one, "audio", high), np.array(one.times_seconds), []
    edges = [edge for span in spans(found) for edge in span]
    assert edges == sorted(edges)
    for segment in found:
        inside = np.array(one.values)[(times > segment.start_seconds) & (times < segment.end_seconds)]
        assert len(inside) == round(segment.end_seconds - segment.start_seconds) > 0, "no second of it was unseen"
        assert inside.max() >= high
        assert inside.min() >= inside.max() / 2
        assert segment.score == pytest.approx(inside.mean(), abs=1e-3)
        peaks.append(inside.max())
    highest = max(one.values, default=-math.inf)
    assert max(peaks, default=highest) == highest
    assert bool(found) == (highest >= high)


def test_segments_of_a_sample_end_where_its_stretches_do() -> None:
    """They begin within a second: what was not judged of it is in no segment."""
    high = 2 * HIGH["audio"]
    one = Curve((29.5, 30.5, 41.5, 77.5, 89.5), (high,) * 5, 0.0)
    found = find_segments([StreamScore("audio", 0.0, (one,))], 5.4, 105.4, [(29.4, 41.4), (77.4, 89.4)])
    assert spans(list(found)) == [(29.4, 31.0), (41.0, 41.4), (77.4, 78.0), (89.0, 89.4)]


def test_all_streams_with_a_level_in_the_order_of_their_start() -> None:
    face, voice = HIGH["visual"] + 1, HIGH["audio"] + 1
    streams = (
        StreamScore("visual", 0.0, (curve(-9, -9, face, track=0), curve(face, -9, -9, track=1))),
        StreamScore("audio", 0.0, (curve(-9, voice, -9),)),
        StreamScore("sync", 0.0, (curve(99, 99, 99, track=0),)),
    )
    found = find_segments(streams, 0.0, 2.5)
    assert spans(list(found)) == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    assert [(segment.stream, segment.track_id) for segment in found] == [("visual", 1), ("audio", None), ("visual", 0)]
