"""The rows of lip-sync on the report page's time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable

from avdetect.detector import CLEAR_SYNC
from avdetect.report.curves import MOST_TRACKS, face_curves, level, line, several
from avdetect.report.drawing import POINT_SECONDS, Dot, Legend, Row, Scale, TimeAxis, Word, gutter
from avdetect.report.evidence import Evidence, SyncCurve, SyncPoint
from avdetect.report.match import WINDOW_SECONDS
from avdetect.report.words import absence, clock, finite, number


def sync_curves(evidence: Evidence) -> list[SyncCurve]:
    """The track that fits the voice best first; at most MOST_TRACKS."""
    best = evidence.detection.sync.track_id if evidence.detection.sync else None
    return sorted(evidence.sync, key=lambda curve: curve.track_id != best)[:MOST_TRACKS]


def match_rows(axis: TimeAxis, evidence: Evidence) -> Iterable[Row]:
    """Offset and confidence over time, or why there is neither."""
    curves = sync_curves(evidence)
    measured = [p for c in curves for p in c.points if finite(p.offset_seconds) is not None]
    if not measured:
        judged = evidence.detection.sync is not None
        why = "Not measured second by second." if judged else absence(evidence.detection, "sync")
        yield Row("Match", "", "", 0, absent=why)
        return
    styles = {c.track_id: i for i, c in enumerate(face_curves(evidence.detection)[:MOST_TRACKS])}
    best = evidence.detection.sync.track_id if evidence.detection.sync else None
    legend = tuple(
        Legend(
            f"track t{styles.get(c.track_id, MOST_TRACKS - 1)}",
            f"track {c.track_id}" + (", which fits the voice best (round dots)" if c.track_id == best else ""),
        )
        for c in curves
    )
    yield _offsets(axis, curves, legend)
    values = [c for p in measured if (c := finite(p.confidence)) is not None]
    scale, height = Scale(0.0, max(0.3, math.ceil(10 * max(values, default=0.0)) / 10)), 64
    lines = [
        line(axis, scale, [(p.seconds, p.confidence) for p in c.points], item.css)
        for c, item in zip(curves, legend, strict=True)
    ]
    words = (
        Word("-8", 10, number(scale.high, 1), "gutter"),
        Word("-8", height * scale.y(CLEAR_SYNC) / 100 + 4, number(CLEAR_SYNC, 1), "gutter"),
    )
    note = "How much better the best offset fits than the others. Below the dashed line the offset is unclear."
    note += several(axis, False)
    yield Row(
        "Confidence of the match", note, "Confidence of the offset over time", height,
        paths=(level(scale, CLEAR_SYNC, "limit"), *lines[::-1]), words=words,
    )  # fmt: skip


def _offsets(axis: TimeAxis, curves: list[SyncCurve], legend: tuple[Legend, ...]) -> Row:
    offsets = [v for c in curves for p in c.points if (v := finite(p.offset_seconds)) is not None]
    top = max(0.6, *(math.ceil(abs(v) * 10) / 10 for v in offsets))
    scale, height = Scale(-top, top), 104
    dots = []
    for curve, item in zip(curves, legend, strict=True):
        for p in _clearest(axis, curve):
            y = round(height * scale.y(finite(p.offset_seconds) or 0.0) / 100, 1)
            css = f"{item.css} {'clear' if (finite(p.confidence) or 0.0) >= CLEAR_SYNC else 'unclear'}"
            middle = (max(axis.start, p.seconds - 0.5) + min(axis.end, p.seconds + 0.5)) / 2
            dots.append(Dot(axis.percent(middle), y, css, round=curve is curves[0]))
    size = axis.cell_seconds()
    many = f" The clearest of each {clock(size)} is drawn." if size > POINT_SECONDS else ""
    words = gutter(height, ("late", f"{number(top, 1, signed=True)} s"), (f"{number(-top, 1)} s", "early"))
    note = "How far the sound is behind the lips (late) or before them. Filled: clear; hollow: unclear. "
    note += f"Each is read from {WINDOW_SECONDS} seconds around it.{many}"
    return Row(
        "Match", note, "Offset between lips and voice over time", height,
        paths=(level(scale, 0, "zero"),), dots=tuple(dots[::-1]), words=words, legend=legend if len(legend) > 1 else (),
    )  # fmt: skip


def _clearest(axis: TimeAxis, curve: SyncCurve) -> list[SyncPoint]:
    """The points that have an offset; of a long file, the clearest of every few seconds."""
    seen = [p for p in curve.points if axis.start - 0.5 <= p.seconds <= axis.end + 0.5]
    seen = [p for p in seen if finite(p.offset_seconds) is not None]
    size = axis.cell_seconds()
    if size == POINT_SECONDS:
        return seen
    cells: dict[int, SyncPoint] = {}
    for p in seen:
        cell = math.floor((p.seconds - axis.start) / size)
        if cell not in cells or (finite(p.confidence) or 0.0) > (finite(cells[cell].confidence) or 0.0):
            cells[cell] = p
    return list(cells.values())
