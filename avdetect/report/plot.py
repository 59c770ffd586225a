"""Evidence as one static picture: `avdetect score FILE --plot out.png`.

Drawn with matplotlib's Agg canvas, without pyplot: no display, no global state. Colours are Okabe & Ito's, which the
colour-blind tell apart.
"""

from __future__ import annotations

import io
import os
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from avdetect.audio import N_MELS, mel_filters
from avdetect.detector import CLEAR_SYNC
from avdetect.report.curves import face_curves
from avdetect.report.data import printable
from avdetect.report.evidence import Evidence, Picture
from avdetect.report.match_rows import sync_curves
from avdetect.report.words import TONES, heading, number, stream, whole
from avdetect.segments import CELL_SECONDS
from avdetect.types import SAMPLE_RATE, Detection, StreamName, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES, DPI = 12, 10, 110
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SUSPECT = "#D55E00"
_LEFT, _RIGHT = 0.08, 0.93  # of the figure: the shared time axis
_MAX_TRACKS = len(_COLOURS)
_MOST_FRAMES = 16  # beside each other: of a picture as narrow as a hair thousands would fit
_TICKS_HZ = (250, 500, 1000, 2000, 4000)


def draw_plot(evidence: Evidence) -> bytes:
    """A PNG of WIDTH_INCHES x HEIGHT_INCHES at DPI: verdict, frames, and three curves over one time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    _headline(figure, evidence.detection)
    _frames(figure, evidence)
    grid = figure.add_gridspec(3, 1, left=_LEFT, right=_RIGHT, top=0.76, bottom=0.09, hspace=0.24)
    face = figure.add_subplot(grid[0])
    voice, match = (figure.add_subplot(grid[row], sharex=face) for row in (1, 2))
    _face(face, evidence)
    _voice(voice, evidence)
    _match(match, evidence)
    rows: tuple[tuple[Axes, StreamName], ...] = ((face, "visual"), (voice, "audio"), (match, "sync"))
    for axes, name in rows:
        _segments(axes, evidence.detection, name)
        axes.tick_params(labelbottom=name == "sync")
    face.set_xlim(_span(evidence))
    match.set_xlabel("time in the file, seconds")
    _footer(figure, evidence.detection)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas.print_png(buffer, metadata={"Software": None})  # the same evidence, the same bytes
    return buffer.getvalue()


def _span(evidence: Evidence) -> tuple[float, float]:
    start = evidence.detection.start_seconds
    return start, start + max(evidence.detection.duration_seconds, 0.04)


def _plain(text: str) -> str:
    """Printable, and without the dollars that begin matplotlib's formulas."""
    return printable(text).replace("$", r"\$")


def _headline(figure: Figure, detection: Detection) -> None:
    words, (p, thresholds) = heading(detection), whole(detection)
    said = detection.verdict.upper() + (f"   P(fake) = {p} ({thresholds})" if p else "")
    parts = (("face", detection.video_fake), ("voice", detection.audio_fake), ("match", detection.mismatch))
    said += "".join(f"   {name} {p:.2f}" for name, p in parts if p is not None)
    name = os.path.basename(detection.path)[-100:]  # without its folders: a picture is passed on
    figure.text(_LEFT, 0.977, said, fontsize=12, weight="bold", color=TONES[words.tone][1])
    lines = textwrap.wrap(f"{name}: {words.reason}", 150) + textwrap.wrap(f"{words.measured} {words.limit}", 150)
    figure.text(_LEFT, 0.967, "\n".join(map(_plain, lines)), fontsize=8, color="0.2", va="top")


def _frames(figure: Figure, evidence: Evidence) -> None:
    """Some frames, each above its own time."""
    if not evidence.frames:
        return
    begin, end = _span(evidence)
    picture = evidence.frames[0].picture
    height = 0.12
    aspect = picture.width / picture.height
    each = min(aspect * height * HEIGHT_INCHES / WIDTH_INCHES, (_RIGHT - _LEFT) / 4)
    count = min(max(1, int((_RIGHT - _LEFT) / each)), _MOST_FRAMES)
    for place in range(count):
        seconds = begin + (place + 0.5) / count * (end - begin)
        frame = min(evidence.frames, key=lambda f: abs(f.seconds - seconds))
        left = _LEFT + (place + 0.5) / count * (_RIGHT - _LEFT) - each / 2
        axes = figure.add_axes((left, 0.785, each * 0.97, height))
        axes.imshow(decoded(frame.picture))
        axes.set_axis_off()
        axes.set_title(f"{frame.seconds:.1f} s", fontsize=7, pad=2)


def decoded(picture: Picture) -> UInt8:
    """RGB (H, W, 3)."""
    bgr = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None, "we encoded it ourselves"
    return bgr[..., ::-1].astype(np.uint8)


def _colours(detection: Detection) -> dict[int | None, str]:
    """By track, the same in every row; tracks beyond the _MAX_TRACKS most suspicious share the last colour."""
    colours = zip((curve.track_id for curve in face_curves(detection)), _COLOURS, strict=False)
    return defaultdict(lambda: _COLOURS[-1], colours)


def _apart(times: Sequence[float], *values: Sequence[float | None]) -> list[list[float]]:
    """Times and values to draw: a gap in time ends the line, and so does what was not measured."""
    rows: list[list[float]] = []
    for row in zip(times, *values, strict=True):
        if rows and row[0] - rows[-1][0] > 1.5 * CELL_SECONDS:
            rows.append([np.nan] * len(row))
        rows.append([np.nan if value is None else value for value in row])
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(1 + len(values))]


def _face(axes: Axes, evidence: Evidence) -> None:
    axes.set_title("face: is the picture manipulated?", loc="left", fontsize=10)
    axes.set_ylabel("P(video_fake)\nof each second")
    curves, colours = face_curves(evidence.detection), _colours(evidence.detection)
    if not curves:
        _missing(axes, evidence.detection, "visual")
        return
    for curve in curves[:_MAX_TRACKS]:
        label = f"track {curve.track_id} ({number(curve.probability)})"
        drawn = _apart(curve.times_seconds, curve.probabilities)
        axes.plot(*drawn, "o-", markersize=3, color=colours[curve.track_id], label=label)
    if len(curves) > _MAX_TRACKS:
        axes.plot([], [], " ", label=f"and {len(curves) - _MAX_TRACKS} less suspicious")
    _from_0_to_1(axes, evidence.levels["visual"])
    axes.legend(loc="best", fontsize=7, ncols=4)


def _voice(axes: Axes, evidence: Evidence) -> None:
    axes.set_title("voice: is the sound manipulated? (over its log-mel spectrogram)", loc="left", fontsize=10)
    axes.set_ylabel("P(audio_fake)\nof each second")
    scores = stream(evidence.detection, "audio")
    curves = scores.curves if scores else ()
    if evidence.sound is not None:
        _spectrogram(axes, evidence)
    if not curves:
        _missing(axes, evidence.detection, "audio")
        return
    for curve in curves:
        drawn = _apart(curve.times_seconds, curve.probabilities)
        axes.plot(*drawn, "o-", markersize=4, color="white", linewidth=3.4)
        axes.plot(*drawn, "o-", markersize=3, color=_COLOURS[0], linewidth=1.8)
    _from_0_to_1(axes, evidence.levels["audio"])


def _from_0_to_1(axes: Axes, level: float) -> None:
    """The scale of every report, and the level from which on a stretch is marked."""
    axes.set_ylim(0, 1)
    axes.axhline(level, color="0.6", linewidth=1, linestyle="--")


def _spectrogram(axes: Axes, evidence: Evidence) -> None:
    """Behind the curve, with an axis of its own at the right: Hz, as the mel bands lie."""
    sound = evidence.sound
    assert sound is not None
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    extent = (sound.start_seconds, sound.start_seconds + sound.duration_seconds, 0.0, float(N_MELS))
    behind.imshow(decoded(sound.mel), extent=extent, aspect="auto", interpolation="nearest")
    peaks = mel_filters().argmax(1) * SAMPLE_RATE / 2 / (mel_filters().shape[1] - 1)  # of the bands, Hz
    behind.set_yticks([float(np.interp(hertz, peaks, np.arange(N_MELS))) + 0.5 for hertz in _TICKS_HZ])
    behind.set_yticklabels([f"{hertz:g}" for hertz in _TICKS_HZ], fontsize=7)
    behind.set_ylabel("Hz")


def _match(axes: Axes, evidence: Evidence) -> None:
    axes.set_title("match: how far does the audio lag the video?", loc="left", fontsize=10)
    axes.set_ylabel("offset, seconds\n(> 0: audio lags)")
    axes.axhline(0, color="0.6", linewidth=0.8)
    if not evidence.sync:
        _missing(axes, evidence.detection, "sync")
        return
    beside = axes.twinx()
    beside.set_ylabel("confidence (dashed)")
    beside.axhline(CLEAR_SYNC, color="0.6", linewidth=0.8, linestyle=":")
    top, colours = CLEAR_SYNC * 1.5, _colours(evidence.detection)
    for curve in sync_curves(evidence):
        offsets, confidences = [p.offset_seconds for p in curve.points], [p.confidence for p in curve.points]
        times, late, sure = _apart([p.seconds for p in curve.points], offsets, confidences)
        colour = colours[curve.track_id]
        axes.plot(times, late, "o-", markersize=3, color=colour, label=f"track {curve.track_id}")
        beside.plot(times, sure, "--", linewidth=1, color=colour)
        top = max([top, *(1.1 * value for value in sure if value == value)])
    most = max([0.65, *(1.1 * abs(p.offset_seconds) for c in evidence.sync for p in c.points if p.offset_seconds)])
    axes.set_ylim(-most, most)
    beside.set_ylim(0, top)
    across = beside.get_yaxis_transform()
    beside.text(0.005, CLEAR_SYNC, "confidence above this line: clear", va="bottom", transform=across, fontsize=7)
    axes.legend(loc="lower right", fontsize=7, ncols=4)


def _segments(axes: Axes, detection: Detection, name: StreamName) -> None:
    """Suspicious segments on every row, stronger on the row of their stream."""
    for segment in detection.segments:
        own = segment.stream == name
        axes.axvspan(
            segment.start_seconds,
            segment.end_seconds,
            facecolor=_SUSPECT,
            edgecolor=_SUSPECT if own else "none",
            alpha=0.3 if own else 0.1,
            hatch="//" if own else None,
        )


def _missing(axes: Axes, detection: Detection, name: StreamName) -> None:
    why = f"not judged: {_plain(detection.missing.get(name, 'nothing to show'))}"
    box = {"facecolor": "white", "edgecolor": "0.6"}
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=10, bbox=box)
    axes.set_yticks([])


def _footer(figure: Figure, detection: Detection) -> None:
    model = detection.model
    lines = [f"bundle {model['bundle']} {model['bundle_digest']}, avdetect {model['avdetect']}."]
    lines += ["Dashed in the upper rows: from there on a stretch is marked."]
    lines += [f"Warning: {warning}" for warning in detection.warnings]
    lines += ["Shaded: stretches that look manipulated."] if detection.segments else []
    text = "\n".join(textwrap.wrap(_plain("  ".join(lines)), 190)[:3])
    figure.text(_LEFT, 0.045, text, fontsize=7, color="0.3", va="top")
