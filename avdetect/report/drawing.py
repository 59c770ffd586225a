"""Shapes of the report page's time axis.

Every row is as wide as the page lets it be. Lines stand in a box of 1000 x 100 that is stretched to the row, with
strokes that are not; words, dots and bars stand at percentages, so that they keep their size from a telephone to paper.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from avdetect.report.evidence import Peaks, Picture
from avdetect.report.words import clock, finite

MOST_TICKS = 6  # more would touch on a telephone
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
POINT_SECONDS = 1.0  # a curve's value is the mean over this much around its time (avdetect.types.Curve)
MOST_CELLS = 200  # points of a curve that are drawn
MOST_PEAKS = 1000
Points = Sequence[tuple[float, float | None]]  # (seconds, value); None is a gap


@dataclass(frozen=True)
class Tick:
    percent: float
    text: str
    anchor: str  # of SVG text: start, middle or end


@dataclass(frozen=True)
class Path:
    """A line or an area in the box of 1000 x 100."""

    d: str
    css: str


@dataclass(frozen=True)
class Dot:
    percent: float  # to the right
    y: float  # in pixels
    css: str
    round: bool  # or square


@dataclass(frozen=True)
class Word:
    """Text on a plot."""

    x: str  # in pixels; left of 0 is the margin beside the plot
    y: float  # of its base line, in pixels
    text: str
    css: str = ""


@dataclass(frozen=True)
class Bar:
    """A stretch of time."""

    percent: float
    width: float
    y: float
    height: float
    css: str


@dataclass(frozen=True)
class Image:
    picture: Picture
    percent: float
    width: float


@dataclass(frozen=True)
class TimeAxis:
    """The seconds that all rows share."""

    start: float
    end: float

    @classmethod
    def over(cls, start: float, duration: float) -> TimeAxis:
        """From `start` for `duration` seconds; an axis of no length gets that of one frame."""
        start = finite(start) or 0.0
        return cls(start, start + max(finite(duration) or 0.0, 0.04))

    @property
    def length(self) -> float:
        return self.end - self.start

    def percent(self, seconds: float) -> float:
        """Where a time stands, 0 to 100."""
        return round(min(100.0, max(0.0, 100 * (seconds - self.start) / self.length)), 2)

    def ticks(self) -> tuple[Tick, ...]:
        step = next((s for s in STEPS if self.length / s <= MOST_TICKS), self.length / MOST_TICKS)
        first, last = math.ceil(self.start / step - 1e-6), math.floor(self.end / step + 1e-6)
        return tuple(self._tick(i * step) for i in range(first, last + 1))

    def _tick(self, seconds: float) -> Tick:
        percent = self.percent(seconds)
        anchor = "start" if percent < 4 else "end" if percent > 96 else "middle"
        return Tick(percent, clock(seconds), anchor)

    def bar(self, start: float | None, end: float | None, y: float, height: float, css: str) -> Bar | None:
        """The visible part of a stretch, at least a hair wide; None where there is none."""
        start, end = finite(start), finite(end)
        if start is None or end is None or end < self.start or start > self.end:
            return None
        left, right = self.percent(start), self.percent(end)
        return Bar(left, round(max(0.4, right - left), 2), y, height, css)

    def image(self, picture: Picture, start: float, duration: float) -> Image:
        """A picture over its stretch of the axis. One that reaches beyond the axis is cut by the row's edge."""
        left = 100 * (start - self.start) / self.length
        return Image(picture, round(left, 2), round(100 * duration / self.length, 2))

    def cells(self, points: Points) -> list[Cell]:
        """The points as far as they lie on the axis, in order; of a long file, several seconds in one cell."""
        size, groups = self.cell_seconds(), defaultdict[int, list[Cell]](list)
        for seconds, value in sorted((p for p in points if math.isfinite(p[0])), key=lambda p: p[0]):
            left, right = max(self.start, seconds - POINT_SECONDS / 2), min(self.end, seconds + POINT_SECONDS / 2)
            value = finite(value)
            if left < right and value is not None:
                groups[math.floor((seconds - self.start) / size)].append(Cell(left, right, value, value, value))
        if size == POINT_SECONDS:
            return [cell for group in groups.values() for cell in group]
        return [Cell.joined(group) for group in groups.values()]

    def cell_seconds(self) -> float:
        """How many seconds a drawn point stands for: more would not be told apart."""
        return POINT_SECONDS * math.ceil(self.length / MOST_CELLS)


@dataclass(frozen=True)
class Cell:
    """One point of a curve."""

    left: float  # seconds
    right: float
    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @classmethod
    def joined(cls, cells: Sequence[Cell]) -> Cell:
        mean = sum(cell.mean for cell in cells) / len(cells)
        low, high = min(cell.low for cell in cells), max(cell.high for cell in cells)
        return cls(cells[0].left, cells[-1].right, mean, low, high)


@dataclass(frozen=True)
class Scale:
    """The values that a row's height holds."""

    low: float
    high: float

    def y(self, value: float) -> float:
        """0 (top) to 100 (bottom)."""
        part = (value - self.low) / (self.high - self.low)
        return round(100 * (1 - min(1.0, max(0.0, part))), 1)


def line(axis: TimeAxis, scale: Scale, points: Points, css: str) -> Path:
    """A curve through the middles of the cells, level to the outer edges of the first and last; gaps stay gaps."""
    parts = []
    for run in _runs(axis.cells(points)):
        stops = [(run[0].left, run[0].mean), *((c.middle, c.mean) for c in run), (run[-1].right, run[-1].mean)]
        parts.append("M" + _polyline(axis, scale, stops))
    return Path("".join(parts), css)


def spread(axis: TimeAxis, scale: Scale, points: Points, css: str) -> Path:
    """The area between the lowest and highest values of cells that hold several seconds; else nothing."""
    if axis.cell_seconds() == POINT_SECONDS:
        return Path("", css)
    parts = []
    for run in _runs(axis.cells(points)):
        edges = [(run[0].left, run[0]), *((c.middle, c) for c in run), (run[-1].right, run[-1])]
        there = _polyline(axis, scale, [(s, c.high) for s, c in edges])
        back = _polyline(axis, scale, [(s, c.low) for s, c in reversed(edges)])
        parts.append(f"M{there}L{back}Z")
    return Path("".join(parts), css)


def _polyline(axis: TimeAxis, scale: Scale, stops: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{10 * axis.percent(seconds):.1f} {scale.y(value)}" for seconds, value in stops)


def _runs(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that follow each other without a gap."""
    runs: list[list[Cell]] = []
    for cell in cells:
        if not runs or cell.left > runs[-1][-1].right + POINT_SECONDS / 2:
            runs.append([])
        runs[-1].append(cell)
    return runs


def level(scale: Scale, value: float, css: str) -> Path:
    """A horizontal line over the whole row."""
    return Path(f"M0 {scale.y(value)}H1000", css)


def waveform(peaks: Peaks, left: float = 0.0, width: float = 100.0) -> Path:
    """The area between lowest and highest samples, from `left` percent for `width` percent."""
    drawn = _coarser(peaks)
    if not drawn:
        return Path("", "wave")
    xs = [10 * (left + width * i / len(drawn)) for i in range(len(drawn) + 1)]
    tops, bottoms = [50 - 48 * high for _, high in drawn], [50 - 48 * low for low, _ in drawn]
    upper = [f"L{xs[i]:.1f} {y:.1f}H{xs[i + 1]:.1f}" for i, y in enumerate(tops)]
    lower = [f"L{xs[i + 1]:.1f} {bottoms[i] + 0.6:.1f}H{xs[i]:.1f}" for i in reversed(range(len(drawn)))]
    return Path("M" + "".join((*upper, *lower))[1:] + "Z", "wave")


def _coarser(peaks: Peaks) -> list[tuple[float, float]]:
    """At most MOST_PEAKS, of neighbours the outermost; what is no number is silence."""
    clean = [(finite(low) or 0.0, finite(high) or 0.0) for low, high in peaks]
    size = math.ceil(len(clean) / MOST_PEAKS) or 1
    groups = [clean[i : i + size] for i in range(0, len(clean), size)]
    return [(max(-1.0, min(low for low, _ in g)), min(1.0, max(high for _, high in g))) for g in groups]
