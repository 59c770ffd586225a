"""The evidence on one file as an HTML page that needs nothing else: it opens from disk, and loads and sends nothing.

Curves are drawn here, as SVG; the script only moves the cursor, and the page can be read without it. Its policy
(Content-Security-Policy) allows the one style and the one script that stand in it, by their hashes, and data: pictures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from avdetect.detector import CLEAR_SYNC
from avdetect.report import axis, cursor, words
from avdetect.report.curves import face_curves, waveform
from avdetect.report.data import printable
from avdetect.report.drawing import TimeAxis
from avdetect.report.evidence import Evidence, Moment, Picture
from avdetect.types import Detection, Segment, TrackSummary
from avdetect.verdict import NO_LIMITS

MOST_SHOWN = 6  # tracks whose moments are shown
MOST_LISTED = 40  # tracks in the table: a film has thousands
MODEL_NAMES = {
    "bundle": "Bundle",
    "bundle_digest": "Digest of the bundle",
    "training_data": "Digest of its training data",
    "avdetect": "avdetect",
    "preprocessing": "Digest of the preprocessing",
    "face_detector": "Face detector",
    "provider": "Ran on",
}


def render_page(evidence: Evidence) -> str:
    """The whole page. The same evidence gives the same text; nothing but this package's own templates is read."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style, script = words.tone_css() + _asset("page.css"), _asset("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        finalize=lambda value: _shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    environment.filters |= {
        "number": words.number, "clock": words.clock, "sentence": words.sentence, "uri": _uri,
    }  # fmt: skip
    return environment.from_string(_asset("page.html.j2")).render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_json(_script_data(evidence))),
        **_view(evidence),
    )


def _asset(name: str) -> str:
    return files("avdetect.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _shown(text: str) -> str:
    """Text as it may stand on the page: without what could steer or hide other text, but for our own spaces."""
    return words.SPACE.join(printable(part) for part in text.split(words.SPACE))


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _script_data(evidence: Evidence) -> dict[str, Any]:
    data = cursor.script_data(evidence)
    return data | {"seconds": {second: [_shown(t) for t in texts] for second, texts in data["seconds"].items()}}


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _uri(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode('ascii')}"


def _file_name(path: str) -> str:
    """The last part of the path: the page is passed on, and folders name people."""
    return path.rstrip("/").rpartition("/")[2] or path


def _view(evidence: Evidence) -> dict[str, Any]:
    detection, time = evidence.detection, axis.axis_of(evidence)
    at, first_note = cursor.first(evidence)
    return {
        "name": _file_name(detection.path),
        "detection": detection,
        "fake": words.finite(detection.fake),
        "whole": words.whole(detection),
        "thresholds": [words.finite(t) or 0.0 for t in (detection.undecided_threshold, detection.fake_threshold)],
        "heading": words.heading(detection),
        "causes": words.causes(detection),
        "evidence": evidence,
        "time": time,
        "scored": words.span(time.start, time.end),
        "rows": axis.rows(evidence),
        "bands": axis.bands(evidence),
        "segments": [_segment(s) for s in detection.segments],
        "strip": cursor.strip(evidence),
        "at": at,
        "first_note": first_note,
        "frame": min(evidence.frames, key=lambda f: abs(f.seconds - at), default=None),
        "readings": list(zip(cursor.READINGS, cursor.reading(evidence, at), strict=True)),
        "people": _people(evidence),
        "no_limits": NO_LIMITS,
        "blurred": any(moment.overlay for moment in evidence.moments),
        "hidden_people": max(0, len({m.track_id for m in evidence.moments}) - MOST_SHOWN),
        "tracks": _track_rows(detection),
        "unlisted": max(0, len(detection.tracks) - MOST_LISTED),
        "mouths": _mouths(evidence),
        "model": [(MODEL_NAMES.get(k, k.replace("_", " ").capitalize()), v) for k, v in detection.model.items()],
        "command": _command(evidence),
        "timing": [(k.replace("_", " "), words.number(v)) for k, v in detection.timing_seconds.items()],
    }


def _segment(segment: Segment) -> tuple[str, str, float | None]:
    """Whose it is, when it is, and where it begins."""
    when = words.span(segment.start_seconds, segment.end_seconds)
    return words.segment_words(segment), when, words.finite(segment.start_seconds)


@dataclass(frozen=True)
class Person:
    """The moments of one track."""

    track_id: int
    text: str
    groups: tuple[tuple[str, tuple[Moment, ...]], ...]


def _people(evidence: Evidence) -> tuple[Person, ...]:
    tracks = {t.track_id: t for t in evidence.detection.tracks}
    curves = {c.track_id: c for c in face_curves(evidence.detection)}
    people = []
    for track in list(dict.fromkeys(m.track_id for m in evidence.moments))[:MOST_SHOWN]:
        groups = tuple(
            (title, found)
            for title, kind in (("Most suspicious", "most"), ("Least suspicious", "least"))
            if (found := tuple(m for m in evidence.moments if m.track_id == track and m.kind == kind))
        )
        seen = f"seen {words.span(tracks[track].start_seconds, tracks[track].end_seconds)}" if track in tracks else ""
        score = f"P(video_fake) {words.number(curves[track].probability)}" if track in curves else ""
        people.append(Person(track, "; ".join(t for t in (seen, score) if t), groups))
    return tuple(people)


def _track_rows(detection: Detection) -> list[tuple[str, ...]]:
    """Track, time, place and score of each face, the most suspicious first."""
    scores = {c.track_id: c.probability for c in face_curves(detection)}
    order = {track: i for i, track in enumerate(scores)}
    found = sorted(detection.tracks, key=lambda t: order.get(t.track_id, len(order)))[:MOST_LISTED]
    return [
        (
            f"track {t.track_id}",
            words.span(t.start_seconds, t.end_seconds),
            _place(t),
            words.number(scores.get(t.track_id)),
        )
        for t in found
    ]


def _place(track: TrackSummary) -> str:
    left, top, right, bottom = track.box
    size = f"{words.number(right - left, 0)} × {words.number(bottom - top, 0)}"
    return f"{size} at {words.number(left, 0)}, {words.number(top, 0)}"


def _mouths(evidence: Evidence) -> dict[str, Any] | None:
    strip = evidence.mouths
    if strip is None:
        return None
    end = strip.start_seconds + strip.duration_seconds
    confidence = words.finite(strip.confidence)
    return {
        "strip": strip,
        "wave": waveform(strip.peaks),
        "span": words.span(strip.start_seconds, end),
        "ticks": TimeAxis.over(strip.start_seconds, strip.duration_seconds).ticks(),
        "middle": round(strip.start_seconds + strip.duration_seconds / 2, 3),
        "match": words.match_words(strip.offset_seconds, strip.confidence),
        "offset": words.number(strip.offset_seconds, signed=True),
        "confidence": words.number(confidence),
        "clear": confidence is not None and confidence >= CLEAR_SYNC,
    }


def _command(evidence: Evidence) -> str:
    """What gives this result again, where the file lies in the current folder."""
    detection, asked = evidence.detection, evidence.asked_seconds
    name, window = _file_name(detection.path), []
    if detection.start_seconds > 0:
        window += ["--start", f"{detection.start_seconds:.10g}"]  # a frame of a long file: six digits are too few
    if asked is not None:
        window += ["--duration", f"{asked:.10g}"]
    return shlex.join(["avdetect", "score", *window, *(["--"] if name.startswith("-") else []), name])
