"""Evidence as one static picture: `avdetect score FILE --plot out.png`.

Drawn with matplotlib's Agg canvas, without pyplot: no display, no global state. Colours are Okabe & Ito's, which the
colour-blind tell apart.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from avdetect.report import words
from avdetect.report.data import printable
from avdetect.report.evidence import Evidence, Picture
from avdetect.report.page import file_name
from avdetect.report.rows import Axis, Line, Row, axis_of, rows, unseen
from avdetect.types import Detection, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES, DPI = 12, 10, 110
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SUSPECT = "#D55E00"
_LEFT, _RIGHT = 0.08, 0.97  # of the figure: the shared time axis
_MOST_FRAMES = 16  # beside each other: of a picture as narrow as a hair thousands would fit


def draw_plot(evidence: Evidence) -> bytes:
    """A PNG of WIDTH_INCHES x HEIGHT_INCHES at DPI: verdict, frames, and the rows over one time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure, axis, detection = (
        Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI),
        axis_of(evidence),
        evidence.detection,
    )
    canvas = FigureCanvasAgg(figure)
    _headline(figure, detection)
    _frames(figure, axis, evidence)
    drawn = [row for row in rows(evidence) if not row.wave]
    grid = figure.add_gridspec(
        len(drawn), 1, left=_LEFT, right=_RIGHT, top=0.76, bottom=0.09, hspace=0.35,
        height_ratios=[row.height for row in drawn],
    )  # fmt: skip
    for place, row in enumerate(drawn):
        axes = figure.add_subplot(grid[place])
        _row(axes, row)
        for segment in detection.segments:
            axes.axvspan(segment.start_seconds, segment.end_seconds, color=_SUSPECT, alpha=0.15, zorder=0.5)
        for start, end in unseen(detection):
            axes.axvspan(start, end, color="0.5", alpha=0.22, zorder=0.6)
        axes.set_xlim(axis.start, axis.end)
        axes.tick_params(labelbottom=place == len(drawn) - 1)
    axes.set_xlabel("time in the file, seconds")
    _footer(figure, detection)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas.print_png(buffer, metadata={"Software": None})  # the same evidence, the same bytes
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Printable, and without the dollars that begin matplotlib's formulas."""
    return printable(text).replace("$", r"\$")


def _headline(figure: Figure, detection: Detection) -> None:
    p, thresholds = words.whole(detection)
    said = detection.verdict.upper() + (f"   P(fake) = {p} ({thresholds})" if p else "")
    causes = (("face", detection.video_fake), ("voice", detection.audio_fake), ("match", detection.mismatch))
    said += "".join(f"   {name} {words.number(probability)}" for name, probability in causes if probability is not None)
    tone = words.TONE_OF[detection.verdict]
    figure.text(_LEFT, 0.977, said, fontsize=12, weight="bold", color=words.TONES[tone][1])
    lines = textwrap.wrap(f"{file_name(detection.path)[-100:]}: {words.sentence(detection.reason)}", 150)
    lines += textwrap.wrap(f"{words.rarity(detection)} {words.sentence(detection.limit)}", 150)
    figure.text(_LEFT, 0.967, "\n".join(map(_plain, lines)), fontsize=8, color="0.2", va="top")


def _frames(figure: Figure, axis: Axis, evidence: Evidence) -> None:
    if not evidence.frames:
        return
    picture, height = evidence.frames[0].picture, 0.12
    width = min(picture.width / picture.height * height * HEIGHT_INCHES / WIDTH_INCHES, (_RIGHT - _LEFT) / 4)
    count = min(int((_RIGHT - _LEFT) / width), _MOST_FRAMES)
    for place in range(count):
        part = (place + 0.5) / count
        seconds = axis.start + part * axis.length
        frame = min(evidence.frames, key=lambda f: abs(f.seconds - seconds))
        axes = figure.add_axes((_LEFT + part * (_RIGHT - _LEFT) - width / 2, 0.785, width * 0.97, height))
        axes.imshow(decoded(frame.picture))
        axes.set_axis_off()
        axes.set_title(f"{frame.seconds:.1f} s", fontsize=7, pad=2)


def decoded(picture: Picture) -> UInt8:
    """RGB (H, W, 3)."""
    bgr = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None, "we encoded it ourselves"
    return bgr[..., ::-1].astype(np.uint8)


def _row(axes: Axes, row: Row) -> None:
    axes.set_title(row.label or row.title, loc="left", fontsize=9)
    axes.set_ylim(row.low, row.high)
    axes.set_yticks([value for value, _ in row.ticks], [text for _, text in row.ticks])
    if row.sound:
        end = row.sound.start_seconds + row.sound.duration_seconds
        axes.imshow(decoded(row.sound.mel), extent=(row.sound.start_seconds, end, row.low, row.high), aspect="auto")
    if row.level is not None:
        axes.axhline(row.level, color="0.6", linewidth=1, linestyle="--")
    for line in row.lines[::-1]:  # the most suspicious one over the others
        if row.sound:  # a white rim is seen on every colour
            _line(axes, line, color="white", linewidth=3.4)
        _line(axes, line, color=_COLOURS[line.colour], linewidth=1.8)
    for dot in row.dots[::-1]:  # the best track over the others
        colour = _COLOURS[dot.colour]
        face = colour if dot.clear else "white"
        axes.plot(dot.seconds, dot.value, "o" if dot.best else "s", markersize=4, color=colour, markerfacecolor=face)
    if row.low < 0:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
    if row.absent:
        box = {"facecolor": "white", "edgecolor": "0.6"}
        axes.text(
            0.5, 0.5, _plain(row.absent), transform=axes.transAxes, ha="center", va="center", fontsize=10, bbox=box
        )
    if row.legend:
        for colour_of, text in row.legend:
            axes.plot([], [], color="none" if colour_of is None else _COLOURS[colour_of], label=text)
        axes.legend(loc="best", fontsize=7, ncols=2)


def _line(axes: Axes, line: Line, **style: Any) -> None:
    """A gap in time ends a run, and so the line."""
    for run in line.runs:
        axes.plot([p.middle for p in run], [p.mean for p in run], "o-", markersize=3, **style)


def _footer(figure: Figure, detection: Detection) -> None:
    model = detection.model
    lines = [f"bundle {model['bundle']} {model['bundle_digest']}, avdetect {model['avdetect']}."]
    lines += ["Dashed: from there on a stretch is marked, or an offset is clear."]
    lines += [f"Warning: {warning}" for warning in detection.warnings]
    lines += ["Shaded: stretches that look manipulated."] if detection.segments else []
    lines += ["Gray: not judged."] if detection.windows else []
    text = "\n".join(textwrap.wrap(_plain("  ".join(lines)), 190)[:3])
    figure.text(_LEFT, 0.045, text, fontsize=7, color="0.3", va="top")
