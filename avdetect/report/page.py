"""The evidence on one file as an HTML page that needs nothing else: it opens from disk, and loads and sends nothing.

The script only moves the cursor, and the page can be read without it. Its policy (Content-Security-Policy) allows the
one style and the one script that stand in it, by their hashes, and data: pictures.
"""

import base64
import hashlib
import shlex
from importlib.resources import files
from typing import Any

from avdetect.report import svg, words
from avdetect.report.data import printable
from avdetect.report.evidence import Evidence, Frame, Picture
from avdetect.report.rows import Axis, axis_of, face_curves, rows, unseen
from avdetect.types import Curve, Detection
from avdetect.verdict import NO_LIMITS

STRIP_CELLS = 8
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

    def uri(picture: Picture) -> str:
        return Markup(f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode('ascii')}")

    style, script = words.tone_css() + _asset("page.css"), _asset("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        finalize=lambda value: _shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    environment.filters |= {"number": words.number, "clock": words.clock, "sentence": words.sentence, "uri": uri}
    return environment.from_string(_asset("page.html.j2")).render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        **_view(evidence),
    )


def _asset(name: str) -> str:
    return files("avdetect.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _shown(text: str) -> str:
    """Without what could steer or hide other text, but for our own spaces."""
    return words.SPACE.join(printable(part) for part in text.split(words.SPACE))


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _view(evidence: Evidence) -> dict[str, Any]:
    detection, axis, strip = evidence.detection, axis_of(evidence), evidence.mouths
    probability = {curve.track_id: curve.probability for curve in face_curves(detection)}
    order = {track: place for place, track in enumerate(probability)}
    tracks = sorted(detection.tracks, key=lambda track: order.get(track.track_id, len(order)))
    at, first_note = first_shown(evidence)
    p, thresholds = words.whole(detection)
    return {
        **{"evidence": evidence, "detection": detection, "words": words, "svg": svg, "no_limits": NO_LIMITS},
        **{
            "name": file_name(detection.path),
            "tone": words.TONE_OF[detection.verdict],
            "causes": words.causes(detection),
        },
        **{"p": p, "thresholds": thresholds, "at": at, "first_note": first_note, "axis": axis},
        "rows": rows(evidence),
        "ticks": svg.ticks(axis),
        "bars": [(s.stream, *svg.bar(axis, s.start_seconds, s.end_seconds)) for s in detection.segments],
        "unseen": [svg.bar(axis, start, end) for start, end in unseen(detection)],
        "scored": _scored(detection, axis),
        "frame": min(evidence.frames, key=lambda f: abs(f.seconds - at), default=None),
        "in_strip": in_strip(evidence),
        "step": round(min(1.0, axis.length / (len(evidence.frames) or 20)), 3),
        "tracks": [(track, probability.get(track.track_id)) for track in tracks[:MOST_LISTED]],
        "unlisted": len(tracks) - MOST_LISTED,
        "strip_axis": Axis.over(strip.start_seconds, strip.duration_seconds) if strip else None,
        "facts": [(name[0].upper() + name[1:], value) for name, value in evidence.facts.items()],
        "model": [(MODEL_NAMES.get(k, k.replace("_", " ").capitalize()), v) for k, v in detection.model.items()],
        "command": _command(evidence),
        "timing": [(k.replace("_", " "), words.number(v)) for k, v in detection.timing_seconds.items()],
    }


def _scored(detection: Detection, axis: Axis) -> str:
    whole = words.span(axis.start, axis.end)
    seconds = sum(end - start for start, end in detection.windows)
    return f"{len(detection.windows)} stretches ({seconds:.0f} s) of {whole}" if detection.windows else whole


def file_name(path: str) -> str:
    """Without its folders, which name people: a page is passed on."""
    return path.rstrip("/").rpartition("/")[2] or path


def first_shown(evidence: Evidence) -> tuple[float, str]:
    """Where the cursor stands at first, and why: the worst second of the face or of the voice, whichever is worse."""
    detection, axis = evidence.detection, axis_of(evidence)
    audio = words.stream(detection, "audio")
    found = [("face", face_curves(detection)), ("voice", audio.curves if audio else ())]
    if (words.finite(detection.audio_fake) or 0) > (words.finite(detection.video_fake) or 0):
        found.reverse()
    for name, curves in found:
        if curves and (seconds := _worst(curves[0])) is not None:
            return round(axis.middle(seconds), 3), f"First shown: the most suspicious second of the {name}."
    return round(axis.start, 3), "First shown: the beginning."


def _worst(curve: Curve) -> float | None:
    points = zip(curve.values, curve.times_seconds, strict=True)
    return max(((v, s) for v, s in points if words.finite(v) is not None), default=(0.0, None))[1]


def in_strip(evidence: Evidence) -> list[Frame]:
    """The frames that stand in the strip: the one nearest to the middle of each of its cells."""
    axis, frames = axis_of(evidence), evidence.frames
    cells = min(STRIP_CELLS, len(frames))
    middles = [axis.start + (i + 0.5) * axis.length / cells for i in range(cells)]
    return [min(frames, key=lambda frame: abs(frame.seconds - middle)) for middle in middles]


def _command(evidence: Evidence) -> str:
    """What gives this result again, where the file lies in the current folder."""
    detection, asked = evidence.detection, evidence.asked_seconds
    name, window = file_name(detection.path), []
    if detection.start_seconds > 0:
        window += ["--start", f"{detection.start_seconds:.10g}"]  # a frame of a long file: six digits are too few
    if asked is not None:
        window += ["--duration", f"{asked:.10g}"]
    if evidence.asked_sample is not None:
        window += ["--sample", str(evidence.asked_sample)]
    return shlex.join(["avdetect", "score", *window, *(["--"] if name.startswith("-") else []), name])
