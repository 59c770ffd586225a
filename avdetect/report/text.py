"""Detections for people, on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from avdetect.pooling import PART_OF
from avdetect.report import words
from avdetect.report.data import printable
from avdetect.types import Detection, StreamName

MAX_SEGMENTS = 4  # lines, of a file with many
MAX_NAMES = 10  # of files with warnings, below a table


def render(detection: Detection) -> Text:
    """The whole verdict on one file, for a terminal of 80 columns or more."""
    out = Text()
    out.append(f"{printable(detection.path)}\n", style="bold")
    out.append(detection.verdict.upper(), style=words.TONES[words.TONE_OF[detection.verdict]][0])
    p, thresholds = words.whole(detection)
    out.append(f"  P(fake) = {p} ({thresholds})\n" if p else "\n")
    limit = printable(words.sentence(detection.limit))
    out.append(f"{words.sentence(detection.reason)}\n{words.rarity(detection)}\n{limit}\n\n")
    faces, visual = detection.faces, words.stream(detection, "visual")
    tracks = len(visual.curves) if visual else 0
    note = f"{tracks} face track{'' if tracks == 1 else 's'}"
    if faces and faces.judged < faces.seen:
        note = f"{words.people(detection)}, {note}"
    _line(out, detection, "visual", words.track_words(detection, "video"), note)
    heard = f"{detection.media.speech_seconds:.1f} s of speech" if detection.media else ""
    _line(out, detection, "audio", words.track_words(detection, "audio"), heard)
    _line(out, detection, "sync", "", _offset(detection))
    if summed := words.summed(detection):
        out.append(f"  {summed}\n")
    for segment in detection.segments[:MAX_SEGMENTS]:
        who = f" of track {segment.track_id}" if segment.track_id is not None and len(detection.tracks) > 1 else ""
        when = f"from {segment.start_seconds:.1f} to {segment.end_seconds:.1f} s"
        out.append(f"  {when} the {words.PART_NAMES[segment.stream]}{who} stands out\n")
    more = len(detection.segments) - MAX_SEGMENTS
    if more > 0:
        out.append(f"  and {more} more stretch{'es' if more > 1 else ''}: see --json\n")
    for warning in detection.warnings:
        out.append(f"  warning: {printable(warning)}\n", style="yellow")
    model = detection.model
    out.append(
        f"\n  {_judged(detection)} s of media in {detection.timing_seconds['total']:.1f} s; bundle "
        f"{printable(model['bundle'])} ({model['avdetect']}), faces by {model['face_detector']}",
        style="dim",
    )
    return out


def _judged(detection: Detection) -> str:
    if not detection.windows:
        return f"{detection.duration_seconds:.1f}"
    return f"{sum(end - start for start, end in detection.windows):.1f} of {detection.duration_seconds:.1f}"


def _offset(detection: Detection) -> str:
    sync = detection.sync
    if sync is None:
        return ""
    said = words.match_words(sync.offset_seconds, sync.confidence).partition(" by ")[0]  # the seconds stand before it
    return "offset unclear" if said == "unclear" else f"offset {sync.offset_seconds:+.2f} s ({said})"


def _line(out: Text, detection: Detection, stream: StreamName, track: str, note: str = "") -> None:
    """track: which of several was looked at. note: of what was judged."""
    out.append(f"  {words.PART_NAMES[stream]:<6} ")
    probability, (said, tone) = getattr(detection, PART_OF[stream]), words.sign(detection, PART_OF[stream])
    style = words.TONES[tone][0]
    if probability is None:
        out.append(f"{said}: {detection.missing.get(stream)}{f' ({track})' if track else ''}\n", style=style)
        return
    filled = round(probability * 20)
    out.append(f"{probability:.2f}  ")
    out.append("█" * filled, style=style)
    out.append("░" * (20 - filled), style="dim")
    out.append(f"  {', '.join(filter(None, (said, track, note)))}\n")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each row of `report.data.to_row`; for a terminal of 80 columns or more."""
    out = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("file", overflow="fold")
    for name in ("verdict", "fake", "face", "voice", "match", "offset"):
        out.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    for row in rows:
        file = Text(row["path"])
        if row["status"] == "failed":
            out.add_row(file, Text("failed", "red"))
            continue
        whole = words.digits_apart(row["fake"], row["undecided_threshold"], row["fake_threshold"])
        digits = {"fake": whole, "video_fake": 2, "audio_fake": 2, "mismatch": 2}
        numbers = ["-" if row[output] is None else f"{row[output]:.{places}f}" for output, places in digits.items()]
        offset = f"{row['sync_offset_seconds']:+.2f}" if words.is_clear(row["sync_confidence"]) else "-"
        verdict = Text(row["verdict"], words.TONES[words.TONE_OF[row["verdict"]]][0])
        out.add_row(file, verdict, *numbers, offset)
    return out


def notes(rows: Sequence[Mapping[str, Any]]) -> list[Text]:
    """What the numbers of `table` do not say, below it: why a file failed or was not judged, and what stands out where
    the whole shows no sign; and which have warnings. The rows have their `segments` too."""
    found = []
    for row in rows:
        stands_out = row["segments"] and row["fake"] < row["undecided_threshold"]
        if row["status"] == "failed" or row["verdict"] == "abstain" or stands_out:
            path, reason = row["path"], row["reason"]
            found.append(Text(reason if reason.startswith((path, f"'{path}'")) else f"{path}: {reason}"))
    if warned := [row["path"] for row in rows if row["warnings"]]:
        names = ", ".join(warned[:MAX_NAMES]) + (" …" if len(warned) > MAX_NAMES else "")
        found.append(Text(f"these have warnings; --json, or scoring one alone, shows them: {names}"))
    return found
