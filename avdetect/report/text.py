"""Detections for people, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from avdetect.detector import CLEAR_SYNC
from avdetect.pooling import PART_OF
from avdetect.report import words
from avdetect.report.data import THRESHOLDS, printable
from avdetect.types import Detection, StreamName

MAX_SEGMENTS = 4  # lines, of a file with many
_PARTS = {"visual": "the face", "audio": "the voice", "sync": "the match"}


def render(detection: Detection) -> Text:
    """The whole verdict on one file, for a terminal of 80 columns or more."""
    out, said = Text(), words.heading(detection)
    out.append(f"{printable(detection.path)}\n", style="bold")
    out.append(detection.verdict.upper(), style=words.TONES[said.tone][0])
    p, thresholds = words.whole(detection)
    out.append(f"  P(fake) = {p} ({thresholds})\n" if p else "\n")
    out.append(f"{said.reason}\n{said.measured}\n{printable(said.limit)}\n\n")
    scores = {score.name: score for score in detection.streams}
    tracks = len(scores["visual"].curves) if "visual" in scores else 0
    note = f"{tracks} face track{'' if tracks == 1 else 's'}"
    if detection.faces and detection.faces.judged < detection.faces.seen:
        note = f"{words.people(detection)}, {note}"
    _line(out, detection, "face", "visual", words.track_words(detection, "video"), note)
    _line(out, detection, "voice", "audio", words.track_words(detection, "audio"))
    _line(out, detection, "match", "sync", "", _offset(detection))
    _segments(out, detection)
    for warning in detection.warnings:
        out.append(f"  warning: {printable(warning)}\n", style="yellow")
    model = detection.model
    out.append(
        f"\n  {detection.duration_seconds:.1f} s of media in {detection.timing_seconds['total']:.1f} s; bundle "
        f"{printable(model['bundle'])} ({model['avdetect']}), faces by {model['face_detector']}",
        style="dim",
    )
    return out


def _offset(detection: Detection) -> str:
    if detection.sync is None:
        return ""
    sync = detection.sync
    said = words.match_words(sync.offset_seconds, sync.confidence).partition(" by ")[0]  # the seconds stand before it
    return f"offset {sync.offset_seconds:+.2f} s ({said})"


def _line(out: Text, detection: Detection, name: str, stream: StreamName, track: str, note: str = "") -> None:
    """track: which of several was looked at. note: of what was judged."""
    out.append(f"  {name:<6} ")
    probability, (said, tone) = getattr(detection, PART_OF[stream]), words.sign(detection, PART_OF[stream])
    if probability is None:
        why = f"{said}: {detection.missing.get(stream)}{f' ({track})' if track else ''}"
        out.append(f"{why}\n", style=words.TONES[tone][0])
        return
    filled = round(probability * 20)
    out.append(f"{probability:.2f}  ")
    out.append("█" * filled, style=words.TONES[tone][0])
    out.append("░" * (20 - filled), style="dim")
    out.append(f"  {', '.join(filter(None, (said, track, note)))}\n")


def _segments(out: Text, detection: Detection) -> None:
    """The first MAX_SEGMENTS of them, a line each, and how many more there are."""
    for segment in detection.segments[:MAX_SEGMENTS]:
        who = f" of track {segment.track_id}" if segment.track_id is not None and len(detection.tracks) > 1 else ""
        when = f"from {segment.start_seconds:.1f} to {segment.end_seconds:.1f} s"
        out.append(f"  {when}  {_PARTS[segment.stream]}{who}\n")
    more = len(detection.segments) - MAX_SEGMENTS
    if more > 0:
        out.append(f"  and {more} more stretch{'es' if more > 1 else ''}: see --json\n")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each row of `report.data.to_row`, to which its THRESHOLDS may be added."""
    out = Table(box=None, pad_edge=False)
    out.add_column("file", overflow="fold", ratio=2)
    for name in ("verdict", "fake", "face", "voice", "match", "offset"):
        out.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    out.add_column("note", overflow="fold", ratio=3)
    for row in rows:
        file, note = Text(row["path"]), Text(row["reason"])
        if row["status"] == "failed":
            out.add_row(file, Text("failed", "red"), "", "", "", "", "", note)
            continue
        digits = {"fake": words.digits_apart(row["fake"], *(row.get(name) for name in THRESHOLDS))}
        digits |= dict.fromkeys(("video_fake", "audio_fake", "mismatch"), 2)
        numbers = ["-" if row[part] is None else f"{row[part]:.{places}f}" for part, places in digits.items()]
        offset, clear = row["sync_offset_seconds"], (row["sync_confidence"] or 0.0) >= CLEAR_SYNC
        styled = Text(row["verdict"], words.TONES[words.VERDICTS[row["verdict"]].tone][0])
        out.add_row(file, styled, *numbers, f"{offset:+.2f}" if offset is not None and clear else "-", note)
    return out
