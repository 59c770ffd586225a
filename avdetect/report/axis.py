"""The rows that share one time axis."""

from __future__ import annotations

from collections.abc import Iterable

from avdetect.report.curves import MOST_TRACKS, face_curves, level, line, points_of, several, spread, waveform
from avdetect.report.drawing import Bar, Legend, Path, Points, Row, Scale, TimeAxis, Word
from avdetect.report.evidence import Evidence
from avdetect.report.match_rows import match_rows
from avdetect.report.words import PART_NAMES, absence, number, segment_words, span, stream
from avdetect.types import Detection

LANE, BAR = 24, 12  # pixels
PROBABILITY = Scale(0.0, 1.0)  # the same in every report
_UNITS = (
    "P({}) if a long file were all like this second; the card above weighs all of it. A stretch is marked where the "
    "curve reaches the dashed line."
)


def axis_of(evidence: Evidence) -> TimeAxis:
    return TimeAxis.over(evidence.detection.start_seconds, evidence.detection.duration_seconds)


def rows(evidence: Evidence) -> tuple[Row, ...]:
    """Marked stretches, face, voice, sound, offset and confidence, from top to bottom."""
    axis, detection = axis_of(evidence), evidence.detection
    return (_marked(axis, detection), _face(axis, evidence), *_sound(axis, evidence), *match_rows(axis, evidence))


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


def _words(level: float, height: int) -> tuple[Word, ...]:
    """Beside the plot of a probability: its ends, and the level at which a stretch is marked."""
    start = PROBABILITY.y(level) * height / 100 + 4
    ends = [(y, text) for y, text in ((10, "1"), (height - 3, "0")) if abs(y - start) > 12]  # else they would touch
    return tuple(Word("-8", round(y, 1), text, "gutter") for y, text in (*ends, (start, number(level))))


def _face(axis: TimeAxis, evidence: Evidence) -> Row:
    detection = evidence.detection
    title, height = "Face", 150
    note = f"{_UNITS.format('video_fake')} One line a face.{several(axis, True)}"
    curves = face_curves(detection)
    drawn = curves[:MOST_TRACKS]
    if not drawn:
        return Row(title, note, "", 0, absent=absence(detection, "visual"))
    scale, start = PROBABILITY, evidence.levels["visual"]
    # The most suspicious one is drawn last, over the others.
    area = spread(axis, scale, points_of(drawn[0]), "range")
    lines = [line(axis, scale, points_of(curve), f"track t{i}") for i, curve in enumerate(drawn)][::-1]
    legend = [
        Legend(f"track t{i}", f"track {curve.track_id}, as a whole {number(curve.probability)}")
        for i, curve in enumerate(drawn)
    ]
    if len(curves) > MOST_TRACKS:
        legend.append(Legend("", f"and {len(curves) - MOST_TRACKS} more, in the table of faces below"))
    label = "P(video_fake) over time: " + "; ".join(item.text for item in legend)
    paths = (level(scale, start, "limit"), area, *lines)
    return Row(title, note, label, height, paths=paths, words=_words(start, height), legend=tuple(legend))


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
        start = evidence.levels["audio"]
        paths, words = _voice_paths(axis, start, points_of(curve), sound is not None), _words(start, height)
        over = " Behind it the log-mel spectrogram: high tones at the top, bright is loud." if sound else ""
        note = f"{_UNITS.format('audio_fake')}{over}{several(axis, True)}"
        label = f"P(audio_fake) over time; as a whole {number(curve.probability)}"
    else:
        note = f"{absence(detection, 'audio')} {note}"
    image = axis.image(sound.mel, sound.start_seconds, sound.duration_seconds) if sound else None
    yield Row("Voice", note, label, height, paths=paths, words=words, image=image)
    if sound and image:
        yield Row("Waveform", "", "Waveform", 44, paths=(waveform(sound.peaks, image.percent, image.width),))


def _voice_paths(axis: TimeAxis, start: float, points: Points, on_picture: bool) -> tuple[Path, ...]:
    """The curve; on a picture in white with a dark rim, which is seen on every colour."""
    css, scale = " on-picture" if on_picture else "", PROBABILITY
    drawn = line(axis, scale, points, "over" if on_picture else "track t0")
    rim = (Path(drawn.d, "under"),) if on_picture else ()
    return (level(scale, start, f"limit{css}"), spread(axis, scale, points, f"range{css}"), *rim, drawn)
