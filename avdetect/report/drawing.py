"""Shapes of the report page's time axis.

Every row is as wide as the page lets it be. Lines stand in a box of 1000 x 100 that is stretched to the row, with
strokes that are not; words, dots and bars stand at percentages, so that they keep their size from a telephone to paper.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from avdetect.report.evidence import Picture
from avdetect.report.words import clock, finite

MOST_TICKS = 6  # more would touch on a telephone
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
POINT_SECONDS = 1.0  # a curve's value is the mean over this much around its time (avdetect.types.Curve)
MOST_CELLS = 200  # points of a curve that are drawn
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


@dataclass(frozen=True)
class Legend:
    css: str
    text: str


@dataclass(frozen=True)
class Row:
    """One plot of the axis."""

    title: str
    note: str  # how to read it
    label: str  # what is drawn, for those who cannot see it
    height: int  # pixels
    absent: str = ""  # instead of the plot: why there is none
    paths: tuple[Path, ...] = ()
    dots: tuple[Dot, ...] = ()
    bars: tuple[Bar, ...] = ()
    words: tuple[Word, ...] = ()
    image: Image | None = None
    legend: tuple[Legend, ...] = ()


def gutter(height: int, top: tuple[str, str], bottom: tuple[str, str]) -> tuple[Word, ...]:
    """Words beside the plot at its upper end, at 0 in its middle and at its lower end."""
    ends = (*zip((10, 24), top, strict=True), *zip((height - 17, height - 3), bottom, strict=True))
    return (*(Word("-8", y, text, "gutter") for y, text in ends), Word("-8", height / 2 + 4, "0", "gutter"))
