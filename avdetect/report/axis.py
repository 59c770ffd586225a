"""The rows that share one time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from avdetect.detector import CLEAR_SYNC
from avdetect.report.drawing import (
    POINT_SECONDS,
    Bar,
    Dot,
    Image,
    Path,
    Points,
    Scale,
    TimeAxis,
    Word,
    level,
    line,
    spread,
    waveform,
)
from avdetect.report.evidence import Evidence, SyncCurve, SyncPoint
from avdetect.report.words import PART_NAMES, absence, clock, finite, number, segment_words, span, stream
from avdetect.types import Curve, Detection

MOST_TRACKS = 6  # that are drawn; a table names them all
LANE, BAR = 24, 12  # pixels


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


def axis_of(evidence: Evidence) -> TimeAxis:
    return TimeAxis.over(evidence.detection.start_seconds, evidence.detection.duration_seconds)


def rows(evidence: Evidence) -> tuple[Row, ...]:
    """Marked stretches, face, voice, sound, offset and confidence, from top to bottom."""
    axis, detection = axis_of(evidence), evidence.detection
    return (_marked(axis, detection), _face(axis, detection), *_sound(axis, evidence), *_match(axis, evidence))


def bands(evidence: Evidence) -> tuple[Bar, ...]:
    """The marked stretches as they stand behind every other row."""
    axis = axis_of(evidence)
    found = (axis.bar(s.start_seconds, s.end_seconds, 0, 100, "band") for s in evidence.detection.segments)
    return tuple(bar for bar in found if bar)


def _marked(axis: TimeAxis, detection: Detection) -> Row:
    title, note = "Marked stretches", "Where a stream's curve stays suspicious. None of them decides the verdict."
    if not detection.segments:
        return Row(title, note, "", 0, absent="No stretch stands out.")
    lanes = [name for name in PART_NAMES if any(s.stream == name for s in detection.segments)]
    drawn = [
        axis.bar(s.start_seconds, s.end_seconds, lanes.index(s.stream) * LANE + 6, BAR, "segment")
        for s in detection.segments
    ]
    words = tuple(Word("-8", i * LANE + 16, PART_NAMES[name], "gutter") for i, name in enumerate(lanes))
    label = "; ".join(f"{segment_words(s)} {span(s.start_seconds, s.end_seconds)}" for s in detection.segments[:20])
    return Row(title, note, label, LANE * len(lanes), bars=tuple(b for b in drawn if b), words=words)


def suspicion(curve: Curve) -> float:
    """The key that sorts tracks, the most suspicious first."""
    score = finite(curve.score)
    return math.inf if score is None else -score


def face_curves(detection: Detection) -> list[Curve]:
    """One a track, the most suspicious first."""
    visual = stream(detection, "visual")
    return sorted(visual.curves, key=suspicion) if visual else []


def points_of(curve: Curve) -> Points:
    return list(zip(curve.times_seconds, curve.values, strict=True))


def _symmetric(curves: Iterable[Curve], least: float = 2.0) -> Scale:
    """Raw scores with 0 in the middle."""
    values = [abs(v) for curve in curves for value in curve.values if (v := finite(value)) is not None]
    top = min(12.0, max(least, math.ceil(max(values, default=0.0))))
    return Scale(-top, top)


def _gutter(height: int, top: tuple[str, str], bottom: tuple[str, str]) -> tuple[Word, ...]:
    """Words beside the plot at its upper end, at 0 in its middle and at its lower end."""
    ends = (*zip((10, 24), top, strict=True), *zip((height - 17, height - 3), bottom, strict=True))
    return (*(Word("-8", y, text, "gutter") for y, text in ends), Word("-8", height / 2 + 4, "0", "gutter"))


def _score_words(scale: Scale, height: int) -> tuple[Word, ...]:
    return _gutter(height, ("fake", number(scale.high, 0, signed=True)), (number(scale.low, 0), "real"))


def _face(axis: TimeAxis, detection: Detection) -> Row:
    title, height = "Face", 150
    note = (
        "Mean score of each second, one line a face. Above 0 it leans towards fake, below towards real: a raw score, "
        f"no probability. Compare heights.{_several(axis, True)}"
    )
    curves = face_curves(detection)
    drawn = curves[:MOST_TRACKS]
    if not drawn:
        return Row(title, note, "", 0, absent=absence(detection, "visual"))
    scale = _symmetric(drawn)
    # The most suspicious one is drawn last, over the others.
    area = spread(axis, scale, points_of(drawn[0]), "range")
    lines = [line(axis, scale, points_of(curve), f"track t{i}") for i, curve in enumerate(drawn)][::-1]
    legend = [
        Legend(f"track t{i}", f"track {curve.track_id}, as a whole {number(curve.score, signed=True)}")
        for i, curve in enumerate(drawn)
    ]
    if len(curves) > MOST_TRACKS:
        legend.append(Legend("", f"and {len(curves) - MOST_TRACKS} more, in the table of faces below"))
    label = "Score over time: " + "; ".join(item.text for item in legend)
    paths = (level(scale, 0, "zero"), area, *lines)
    return Row(title, note, label, height, paths=paths, words=_score_words(scale, height), legend=tuple(legend))


def _sound(axis: TimeAxis, evidence: Evidence) -> Iterable[Row]:
    detection, sound = evidence.detection, evidence.sound
    title, height = "Voice", 130
    scores = stream(detection, "audio")
    curve = scores.curves[0] if scores and scores.curves else None
    if sound is None and curve is None:
        yield Row(title, "", "", 0, absent=absence(detection, "audio"))
        return
    note = "Score of each second (line) over the log-mel spectrogram: high tones at the top, bright is loud."
    note += _several(axis, True)
    paths: tuple[Path, ...] = ()
    words: tuple[Word, ...] = ()
    if curve:
        scale = _symmetric([curve])
        drawn = line(axis, scale, points_of(curve), "over")
        area = spread(axis, scale, points_of(curve), "range on-picture" if sound else "range")
        paths = (
            Path(f"M0 {scale.y(0)}H1000", "zero on-picture" if sound else "zero"),
            area,
            Path(drawn.d, "under"),
            drawn,
        )
        words = _score_words(scale, height)
    else:
        note = f"{absence(detection, 'audio')} The log-mel spectrogram shows what was heard."
    image = axis.image(sound.mel, sound.start_seconds, sound.duration_seconds) if sound else None
    yield Row(title, note, "Spectrogram and score of the voice", height, paths=paths, words=words, image=image)
    if sound:
        left, width = image.percent if image else 0, image.width if image else 100
        yield Row("Waveform", "", "Waveform", 44, paths=(waveform(sound.peaks, left, width),))


def sync_curves(evidence: Evidence) -> list[SyncCurve]:
    """The track that fits the voice best first; at most MOST_TRACKS."""
    best = evidence.detection.sync.track_id if evidence.detection.sync else None
    return sorted(evidence.sync, key=lambda curve: curve.track_id != best)[:MOST_TRACKS]


def _match(axis: TimeAxis, evidence: Evidence) -> Iterable[Row]:
    curves = sync_curves(evidence)
    measured = [p for c in curves for p in c.points if finite(p.offset_seconds) is not None]
    if not measured:
        why = (
            absence(evidence.detection, "sync") if evidence.detection.sync is None else "Not measured second by second."
        )
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
    note += _several(axis, False)
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
    several = axis.cell_seconds()
    many = f" The clearest of each {clock(several)} is drawn." if several > 1 else ""
    words = _gutter(height, ("late", f"{number(top, 1, signed=True)} s"), (f"{number(-top, 1)} s", "early"))
    note = f"How far the sound is behind the lips (late) or before them. Filled: clear; hollow: unclear.{many}"
    return Row(
        "Match", note, "Offset between lips and voice over time", height,
        paths=(level(scale, 0, "zero"),), dots=tuple(dots[::-1]), words=words, legend=legend if len(legend) > 1 else (),
    )  # fmt: skip


def _clearest(axis: TimeAxis, curve: SyncCurve) -> list[SyncPoint]:
    """The points that have an offset; of a long file, the clearest of every few seconds."""
    cells: dict[int, SyncPoint] = {}
    for p in curve.points:
        if finite(p.offset_seconds) is None or not axis.start <= p.seconds + 0.5 or not p.seconds - 0.5 <= axis.end:
            continue
        cell = math.floor((p.seconds - axis.start) / axis.cell_seconds())
        if cell not in cells or (finite(p.confidence) or 0.0) > (finite(cells[cell].confidence) or 0.0):
            cells[cell] = p
    return list(cells.values())


def _several(axis: TimeAxis, area: bool) -> str:
    """What a note says where a point stands for more than a second."""
    if axis.cell_seconds() == POINT_SECONDS:
        return ""
    pale = " Pale: lowest to highest." if area else ""
    return f" In so long a file a point is the mean of {clock(axis.cell_seconds())}.{pale}"
