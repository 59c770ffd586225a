"""Numbers over time -> lines and areas of the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from avdetect.report.drawing import POINT_SECONDS, Cell, Path, Points, Scale, TimeAxis
from avdetect.report.evidence import Peaks
from avdetect.report.words import clock, finite, stream
from avdetect.types import Curve, Detection

MOST_PEAKS = 1000
MOST_TRACKS = 6  # that are drawn; a table names them all


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


def suspicion(curve: Curve) -> float:
    """The key that sorts tracks, the most suspicious first."""
    score = finite(curve.score)
    return math.inf if score is None else -score


def face_curves(detection: Detection) -> list[Curve]:
    """One a track, the most suspicious first."""
    visual = stream(detection, "visual")
    return sorted(visual.curves, key=suspicion) if visual else []


def points_of(curve: Curve) -> Points:
    """(seconds, P) of each point of a face or a voice."""
    return list(zip(curve.times_seconds, curve.probabilities, strict=True))


def several(axis: TimeAxis, area: bool) -> str:
    """What a note says where a point stands for more than a second."""
    if axis.cell_seconds() == POINT_SECONDS:
        return ""
    pale = " Pale: lowest to highest." if area else ""
    return f" In so long a file a point is the mean of {clock(axis.cell_seconds())}.{pale}"
