"""The cursor of the time axis: where it stands at first, and what it says of every second.

All texts are made here; the script only looks them up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from avdetect.report.axis import axis_of
from avdetect.report.curves import MOST_TRACKS, face_curves, points_of
from avdetect.report.drawing import Points, TimeAxis
from avdetect.report.evidence import Evidence, Frame
from avdetect.report.match_rows import sync_curves
from avdetect.report.words import absence, finite, match_words, number, segment_words, span, stream
from avdetect.types import Curve

STRIP_CELLS = 8
MOST_NAMED = 3  # tracks that are named at a second


def first(evidence: Evidence) -> tuple[float, str]:
    """Where the cursor stands at first, and why: the worst second of the part that looks worse."""
    detection, time = evidence.detection, axis_of(evidence)
    audio = stream(detection, "audio")
    found = [("face", curve) for curve in face_curves(detection)[:1]]
    found += [("voice", curve) for curve in (audio.curves[:1] if audio else ())]
    if (finite(detection.audio_fake) or 0) > (finite(detection.video_fake) or 0):
        found.reverse()
    for name, curve in found:
        peak = _peak(curve, time)
        if peak is not None:
            return peak, f"First shown: the most suspicious second of the {name}."
    return round(time.start, 3), "First shown: the beginning."


def _peak(curve: Curve, time: TimeAxis) -> float | None:
    points = [
        (v, s)
        for s, value in zip(curve.times_seconds, curve.values, strict=True)
        if (v := finite(value)) is not None and math.isfinite(s)
    ]
    if not points:
        return None
    second = max(points)[1]
    return round((max(time.start, second - 0.5) + min(time.end, second + 0.5)) / 2, 3)


def reading(evidence: Evidence, seconds: float) -> tuple[str, ...]:
    found = readings(evidence)
    return found[min(max(math.floor(seconds), min(found)), max(found))]


def script_data(evidence: Evidence) -> dict[str, Any]:
    """What the script needs: the axis, where the cursor is, and what to say at each second."""
    time, times = axis_of(evidence), sorted(frame.seconds for frame in evidence.frames)
    spacing = time.length / len(times) if len(times) > 1 else time.length / 20
    return {
        "start": time.start,
        "end": round(time.end, 3),
        "at": first(evidence)[0],
        "step": round(min(1.0, spacing), 3),
        "seconds": {str(second): texts for second, texts in readings(evidence).items()},
    }


def strip(evidence: Evidence) -> dict[int, Frame]:
    """Index -> frame of those that stand in the strip: the one nearest to the middle of each of its cells."""
    axis, frames = axis_of(evidence), evidence.frames
    cells = min(STRIP_CELLS, len(frames))
    middles = [axis.start + (i + 0.5) * axis.length / cells for i in range(cells)]
    chosen = [min(range(len(frames)), key=lambda i: abs(frames[i].seconds - middle)) for middle in middles]
    return {i: frames[i] for i in dict.fromkeys(chosen)}


READINGS = ("Marked", "Face", "Voice", "Match")


def readings(evidence: Evidence) -> dict[int, tuple[str, ...]]:
    """Second of the file's clock -> what each of READINGS says there."""
    axis, detection = axis_of(evidence), evidence.detection
    faces = [(c.track_id, _by_second(points_of(c))) for c in face_curves(detection)[:MOST_TRACKS]]
    audio = stream(detection, "audio")
    voice = _by_second(points_of(audio.curves[0])) if audio and audio.curves else {}
    best = next(iter(sync_curves(evidence)), None)
    match = {math.floor(p.seconds): (p.offset_seconds, p.confidence) for p in best.points} if best else {}
    marked = defaultdict(list)
    for s in detection.segments:
        start, end = finite(s.start_seconds), finite(s.end_seconds)
        if start is not None and end is not None:
            for second in range(math.floor(max(start, axis.start)), math.ceil(min(end, axis.end))):
                marked[second].append(f"{segment_words(s)}: {span(start, end)}")
    found: dict[int, tuple[str, ...]] = {}
    for second in range(math.floor(axis.start), math.ceil(axis.end)):
        offset, confidence = match.get(second, (None, None))
        found[second] = (
            "; ".join(marked[second]) if second in marked else "nothing",
            _faces_at(faces, second) if faces else absence(detection, "visual"),
            _at(voice.get(second)) if audio else absence(detection, "audio"),
            _match_at(offset, confidence) if match or detection.sync else absence(detection, "sync"),
        )
    return found


def _by_second(points: Points) -> dict[int, float | None]:
    return {math.floor(seconds): value for seconds, value in points if math.isfinite(seconds)}


def _at(probability: float | None) -> str:
    return "no score" if finite(probability) is None else f"P = {number(probability)}"


def _faces_at(faces: list[tuple[int | None, dict[int, float | None]]], second: int) -> str:
    seen = [(track, v) for track, values in faces if (v := finite(values.get(second))) is not None]
    if not seen:
        return "no score"
    if len(faces) == 1:
        return _at(seen[0][1])
    seen.sort(key=lambda item: -item[1])
    words = [f"track {track}: {number(v)}" for track, v in seen[:MOST_NAMED]]
    return "; ".join(words) + (f"; {len(seen) - MOST_NAMED} more below" if len(seen) > MOST_NAMED else "")


def _match_at(offset: float | None, confidence: float | None) -> str:
    if finite(offset) is None or finite(confidence) is None:
        return "not measured"
    return f"{number(offset, signed=True)} s, {match_words(offset, confidence)} (confidence {number(confidence)})"
