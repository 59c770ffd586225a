"""Rows as SVG: what the template of the page asks for.

Every row is as wide as the page lets it be. Lines stand in a box of 1000 x 100 that is stretched to the row, with
strokes that are not; words, dots and bars stand at percentages, so that they keep their size from a telephone to paper.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from avdetect.report.evidence import Peaks
from avdetect.report.rows import Axis, Line, Row
from avdetect.report.words import PART_NAMES, clock
from avdetect.types import Segment, StreamName

MOST_TICKS = 6  # more would touch on a telephone
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Tick:
    percent: float
    text: str
    anchor: str  # of SVG text: start, middle or end


def percent(axis: Axis, seconds: float) -> float:
    """Where a time stands, 0 to 100."""
    return round(min(100.0, max(0.0, share(axis, seconds))), 2)


def share(axis: Axis, seconds: float) -> float:
    """`percent` of a time that need not lie on the axis."""
    return 100 * (seconds - axis.start) / axis.length


def ticks(axis: Axis) -> list[Tick]:
    step = next((s for s in STEPS if axis.length / s <= MOST_TICKS), axis.length / MOST_TICKS)
    found = []
    for i in range(math.ceil(axis.start / step - 1e-6), math.floor(axis.end / step + 1e-6) + 1):
        at = percent(axis, i * step)
        found.append(Tick(at, clock(i * step), "start" if at < 4 else "end" if at > 96 else "middle"))
    return found


def bar(axis: Axis, start: float, end: float) -> tuple[float, float]:
    """Left and width of a stretch in percent, at least a hair wide."""
    left = percent(axis, start)
    return left, round(max(0.4, percent(axis, end) - left), 2)


def lanes(segments: Iterable[Segment]) -> list[StreamName]:
    """The streams that have marked stretches, from top to bottom."""
    marked = {segment.stream for segment in segments}
    return [name for name in PART_NAMES if name in marked]


def y(row: Row, value: float) -> float:
    """0 (top) to 100 (bottom)."""
    part = (value - row.low) / (row.high - row.low)
    return round(100 * (1 - min(1.0, max(0.0, part))), 1)


def gutter(row: Row) -> list[tuple[float, str]]:
    """The words beside a plot: pixels from its top to their base line, and text."""
    return [(min(max(10, y(row, value) * row.height / 100 + 4), row.height - 3), text) for value, text in row.ticks]


def line(axis: Axis, row: Row, drawn: Line) -> str:
    """Through the middles of the points, level to the outer edges of the first and last; gaps stay gaps."""
    runs = []
    for run in drawn.runs:
        stops = [(run[0].left, run[0].mean), *((p.middle, p.mean) for p in run), (run[-1].right, run[-1].mean)]
        runs.append("M" + _polyline(axis, row, stops))
    return "".join(runs)


def spread(axis: Axis, row: Row, drawn: Line) -> str:
    """The area between the lowest and the highest values of points that hold several seconds."""
    runs = []
    for run in drawn.runs:
        edges = [(run[0].left, run[0]), *((p.middle, p) for p in run), (run[-1].right, run[-1])]
        there = _polyline(axis, row, [(seconds, p.high) for seconds, p in edges])
        back = _polyline(axis, row, [(seconds, p.low) for seconds, p in reversed(edges)])
        runs.append(f"M{there}L{back}Z")
    return "".join(runs)


def _polyline(axis: Axis, row: Row, stops: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{10 * percent(axis, seconds):.1f} {y(row, value)}" for seconds, value in stops)


def wave(peaks: Peaks) -> str:
    """The area between the lowest and the highest samples, over the whole box."""
    edges = [1000 * i / len(peaks) for i in range(len(peaks) + 1)]
    there = [f"L{edges[i]:.1f} {50 - 48 * high:.1f}H{edges[i + 1]:.1f}" for i, (_, high) in enumerate(peaks)]
    back = [f"L{edges[i + 1]:.1f} {50.6 - 48 * low:.1f}H{edges[i]:.1f}" for i, (low, _) in enumerate(peaks)]
    return f"M{''.join((*there, *back[::-1]))[1:]}Z" if peaks else ""
