"""The rows of a report over one time axis, as numbers; `svg` paints them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avdetect.detector import CLEAR_SYNC
from avdetect.report.evidence import Evidence, Sound
from avdetect.report.match import WINDOW_SECONDS
from avdetect.report.words import absence, clock, finite, number, stream
from avdetect.types import Curve, Detection, StreamName

MOST_TRACKS = 6  # that are drawn; the table of faces names more
MOST_POINTS = 200  # of a curve that are drawn
POINT_SECONDS = 1.0  # a curve's value is the mean over this much around its time (avdetect.types.Curve)
Span = tuple[float, float]
ALWAYS: Span = (-math.inf, math.inf)


@dataclass(frozen=True)
class Axis:
    """The seconds that all rows share."""

    start: float
    end: float

    @classmethod
    def over(cls, start: float, duration: float) -> Axis:
        """An axis of no length gets that of one frame."""
        return cls(start, start + max(duration, 0.04))

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def cell_seconds(self) -> float:
        """How much time a drawn point stands for."""
        return POINT_SECONDS * math.ceil(self.length / MOST_POINTS)

    @property
    def is_long(self) -> bool:
        """Whether a drawn point stands for several seconds."""
        return self.length > MOST_POINTS * POINT_SECONDS

    def middle(self, seconds: float) -> float:
        """Of what the axis holds of the second around that time."""
        half = POINT_SECONDS / 2
        return (max(self.start, seconds - half) + min(self.end, seconds + half)) / 2

    def cell(self, seconds: float) -> int:
        return math.floor((seconds - self.start) / self.cell_seconds)


@dataclass(frozen=True)
class Point:
    """What a curve says of some time."""

    left: float  # seconds
    right: float
    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


@dataclass(frozen=True)
class Line:
    colour: int  # from 0, the most suspicious track, to MOST_TRACKS - 1
    runs: tuple[tuple[Point, ...], ...]  # a gap in time ends a run


@dataclass(frozen=True)
class Dot:
    seconds: float
    value: float
    colour: int
    clear: bool  # filled, or else hollow
    best: bool  # round, or else a square


@dataclass(frozen=True)
class Row:
    title: str
    stream: StreamName  # whose marked stretches are shaded
    height: int  # pixels
    absent: str = ""  # why there are no curves
    note: str = ""  # how to read it
    label: str = ""  # what is drawn, for those who cannot see it
    low: float = 0.0  # the values at the lower and the upper edge
    high: float = 1.0
    level: float | None = None  # a dashed line
    ticks: tuple[tuple[float, str], ...] = ()  # beside the plot
    lines: tuple[Line, ...] = ()  # the first one with its spread, where a point stands for several seconds
    dots: tuple[Dot, ...] = ()
    sound: Sound | None = None  # its spectrogram, behind the curves
    wave: Sound | None = None  # nothing but its waveform
    legend: tuple[tuple[int | None, str], ...] = ()  # colour and text


def axis_of(evidence: Evidence) -> Axis:
    return Axis.over(evidence.detection.start_seconds, evidence.detection.duration_seconds)


def unseen(detection: Detection) -> list[tuple[float, float]]:
    """Start and end of what was not judged, where only a sample was."""
    edges = [detection.start_seconds, *(t for window in detection.windows for t in window)]
    edges.append(detection.start_seconds + detection.duration_seconds)
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pairs if end > start] if detection.windows else []


def rows(evidence: Evidence) -> tuple[Row, ...]:
    """Face, voice, sound, offset and confidence, from top to bottom."""
    axis = axis_of(evidence)
    return (_face(axis, evidence), *_sound(axis, evidence), *_match(axis, evidence))


def face_curves(detection: Detection) -> list[Curve]:
    """One a track, the most suspicious first."""
    visual = stream(detection, "visual")
    curves = visual.curves if visual else ()
    return sorted(curves, key=lambda curve: -curve.score if math.isfinite(curve.score) else math.inf)


def _face(axis: Axis, evidence: Evidence) -> Row:
    curves = face_curves(evidence.detection)
    if not curves:
        return Row("Face", "visual", 150, absence(evidence.detection, "visual"))
    half = evidence.crop_seconds / 2
    tracks = evidence.detection.tracks
    seen: dict[int | None, Span] = {t.track_id: (t.start_seconds - half, t.end_seconds + half) for t in tracks}
    lines = tuple(_line(axis, i, curve, seen[curve.track_id]) for i, curve in enumerate(curves[:MOST_TRACKS]))
    legend: list[tuple[int | None, str]] = [
        (line.colour, f"track {curve.track_id}, as a whole {number(curve.probability)}")
        for line, curve in zip(lines, curves, strict=False)
    ]
    if len(curves) > MOST_TRACKS:
        legend.append((None, f"and {len(curves) - MOST_TRACKS} less suspicious ones"))
    note, level = _of_seconds(axis, "video_fake"), evidence.levels["visual"]
    label = "P(video_fake) over time: " + "; ".join(text for _, text in legend)
    return Row(
        "Face", "visual", 150, note=f"{note} One line a face.", label=label, level=level,
        ticks=_probability_ticks(level), lines=lines, legend=tuple(legend),
    )  # fmt: skip


def _sound(axis: Axis, evidence: Evidence) -> Iterator[Row]:
    sound, scores = evidence.sound, stream(evidence.detection, "audio")
    shows = "The log-mel spectrogram shows what was heard: high tones at the top, bright is loud." if sound else ""
    if scores and scores.curves:
        curve, level = scores.curves[0], evidence.levels["audio"]
        yield Row(
            "Voice", "audio", 130, note=f"{_of_seconds(axis, 'audio_fake')} {shows}", sound=sound, level=level,
            label=f"P(audio_fake) over time; as a whole {number(curve.probability)}", ticks=_probability_ticks(level),
            lines=(_line(axis, 0, curve),),
        )  # fmt: skip
    else:
        absent = absence(evidence.detection, "audio")
        yield Row("Voice", "audio", 130, absent, shows, "Log-mel spectrogram", sound=sound)
    if sound:
        yield Row("Waveform", "audio", 44, label="Waveform", wave=sound)


def _match(axis: Axis, evidence: Evidence) -> Iterator[Row]:
    """Offset and confidence; the track that fits the voice best comes first."""
    detection, sync = evidence.detection, evidence.detection.sync
    best = sync.track_id if sync else None
    colours = {curve.track_id: i for i, curve in enumerate(face_curves(detection)[:MOST_TRACKS])}
    dots: list[Dot] = []
    lines: list[Line] = []
    legend: list[tuple[int | None, str]] = []
    for curve in sorted(evidence.sync, key=lambda curve: curve.track_id != best)[:MOST_TRACKS]:
        colour, is_best = colours.get(curve.track_id, MOST_TRACKS - 1), curve.track_id == best
        clearest = {axis.cell(p.seconds): p for p in sorted(curve.points, key=lambda p: p.confidence)}
        for p in clearest.values():
            dots.append(Dot(axis.middle(p.seconds), p.offset_seconds, colour, p.confidence >= CLEAR_SYNC, is_best))
        lines.append(Line(colour, _runs(axis, ((p.seconds, p.confidence) for p in curve.points))))
        legend.append((colour, f"track {curve.track_id}{', which fits the voice best (round dots)' * is_best}"))
    if not dots:
        yield Row("Match", "sync", 104, "Not measured second by second." if sync else absence(detection, "sync"))
        return
    most = max([0.6, *(math.ceil(abs(dot.value) * 10) / 10 for dot in dots)])
    several = f" The clearest of each {clock(axis.cell_seconds)} is drawn." if axis.is_long else ""
    yield Row(
        "Match", "sync", 104,
        note="How many seconds the sound is behind the lips (above 0) or before them. Filled: clear; hollow: unclear. "
        f"Each is read from {WINDOW_SECONDS} seconds around it.{several}",
        label="Offset between lips and voice over time", low=-most, high=most, dots=tuple(dots),
        ticks=((most, number(most, 1, signed=True)), (0.0, "0"), (-most, number(-most, 1))),
        legend=tuple(legend) if len(legend) > 1 else (),
    )  # fmt: skip
    top = max([0.3, *(math.ceil(10 * point.high) / 10 for line in lines for run in line.runs for point in run)])
    note = "How much better the best offset fits than the others. Below the dashed line the offset is unclear."
    yield Row(
        "Confidence of the match", "sync", 64, note=note + _mean_of(axis), label="Confidence of the offset over time",
        high=top, level=CLEAR_SYNC, ticks=((top, number(top, 1)), (CLEAR_SYNC, number(CLEAR_SYNC))), lines=tuple(lines),
    )  # fmt: skip


def _of_seconds(axis: Axis, output: str) -> str:
    return (
        f"P({output}) if a long file were all like this second; the card above weighs all of it. A stretch is marked "
        f"where the curve reaches the dashed line.{_mean_of(axis)}"
    )


def _mean_of(axis: Axis) -> str:
    if not axis.is_long:
        return ""
    return f" In so long a file a point is the mean of {clock(axis.cell_seconds)}; pale: lowest to highest."


def _probability_ticks(level: float) -> tuple[tuple[float, str], ...]:
    """The ends of the scale, and the level where a stretch is marked; an end that would touch it gives way."""
    return (*((v, f"{v:.0f}") for v in (1.0, 0.0) if abs(v - level) > 0.1), (level, number(level)))


def _line(axis: Axis, colour: int, curve: Curve, seen: Span = ALWAYS) -> Line:
    return Line(colour, _runs(axis, zip(curve.times_seconds, curve.probabilities, strict=True), seen))


def _runs(
    axis: Axis, values: Iterable[tuple[float, float | None]], seen: Span = ALWAYS
) -> tuple[tuple[Point, ...], ...]:
    """(seconds, value) as far as they lie on the axis; of a long file, several of them in one point. seen: from when to
    when there is what they are of, for the first and the last second may be longer."""
    start, end = max(axis.start, seen[0]), min(axis.end, seen[1])
    cells: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for seconds, value in sorted((s, v) for s, each in values if (v := finite(each)) is not None):
        cells[axis.cell(seconds)].append((seconds, value))
    runs: list[list[Point]] = []
    for cell in cells.values():
        found = [value for _, value in cell]
        left = max(start, cell[0][0] - POINT_SECONDS / 2)
        right = min(end, cell[-1][0] + POINT_SECONDS / 2)
        if left >= right:
            continue
        if not runs or left > runs[-1][-1].right + POINT_SECONDS / 2:
            runs.append([])
        runs[-1].append(Point(left, right, sum(found) / len(found), min(found), max(found)))
    return tuple(map(tuple, runs))
