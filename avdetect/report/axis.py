"""The rows that share one time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable

from avdetect.report.curves import MOST_TRACKS, face_curves, level, line, points_of, several, spread, waveform
from avdetect.report.drawing import Bar, Legend, Path, Points, Row, Scale, TimeAxis, Word, gutter
from avdetect.report.evidence import Evidence
from avdetect.report.match_rows import match_rows
from avdetect.report.words import PART_NAMES, absence, finite, number, segment_words, span, stream
from avdetect.types import Curve, Detection

LANE, BAR = 24, 12  # pixels


def axis_of(evidence: Evidence) -> TimeAxis:
    return TimeAxis.over(evidence.detection.start_seconds, evidence.detection.duration_seconds)


def rows(evidence: Evidence) -> tuple[Row, ...]:
    """Marked stretches, face, voice, sound, offset and confidence, from top to bottom."""
    axis, detection = axis_of(evidence), evidence.detection
    return (_marked(axis, detection), _face(axis, detection), *_sound(axis, evidence), *match_rows(axis, evidence))


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


def _symmetric(curves: Iterable[Curve], least: float = 2.0) -> Scale:
    """Raw scores with 0 in the middle."""
    values = [abs(v) for curve in curves for value in curve.values if (v := finite(value)) is not None]
    top = min(12.0, max(least, math.ceil(max(values, default=0.0))))
    return Scale(-top, top)


def _score_words(scale: Scale, height: int) -> tuple[Word, ...]:
    return gutter(height, ("fake", number(scale.high, 0, signed=True)), (number(scale.low, 0), "real"))


def _face(axis: TimeAxis, detection: Detection) -> Row:
    title, height = "Face", 150
    note = (
        "Mean score of each second, one line a face. Above 0 it leans towards fake, below towards real: a raw score, "
        "no probability. The card above weighs the whole file and is calibrated: its 0.50 need not be this 0. "
        f"Compare heights.{several(axis, True)}"
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
    scores = stream(detection, "audio")
    curve = scores.curves[0] if scores and scores.curves else None
    if sound is None and curve is None:
        yield Row("Voice", "", "", 0, absent=absence(detection, "audio"))
        return
    height, label = 130, "Log-mel spectrogram"
    note = "The log-mel spectrogram shows what was heard: high tones at the top, bright is loud."
    paths: tuple[Path, ...] = ()
    words: tuple[Word, ...] = ()
    if curve:
        scale = _symmetric([curve])
        paths, words = _voice_paths(axis, scale, points_of(curve), sound is not None), _score_words(scale, height)
        over = " over the log-mel spectrogram: high tones at the top, bright is loud" if sound else ""
        note = f"Mean score of each second{over}.{several(axis, True)}"
        label = f"Score of the voice over time; as a whole {number(curve.score, signed=True)}"
    else:
        note = f"{absence(detection, 'audio')} {note}"
    image = axis.image(sound.mel, sound.start_seconds, sound.duration_seconds) if sound else None
    yield Row("Voice", note, label, height, paths=paths, words=words, image=image)
    if sound and image:
        yield Row("Waveform", "", "Waveform", 44, paths=(waveform(sound.peaks, image.percent, image.width),))


def _voice_paths(axis: TimeAxis, scale: Scale, points: Points, on_picture: bool) -> tuple[Path, ...]:
    """The curve; on a picture in white with a dark rim, which is seen on every colour."""
    css = " on-picture" if on_picture else ""
    drawn = line(axis, scale, points, "over" if on_picture else "track t0")
    rim = (Path(drawn.d, "under"),) if on_picture else ()
    return (level(scale, 0, f"zero{css}"), spread(axis, scale, points, f"range{css}"), *rim, drawn)
