"""What the report page says: numbers, times and verdicts in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from avdetect.detector import CLEAR_SYNC, MISMATCH_SECONDS, PART_THRESHOLD
from avdetect.types import Detection, FacesSeen, Segment, StreamName, StreamScore

Tone = Literal["fake", "real", "plain", "void"]  # suspicious, not suspicious, said but neither, nothing said

PART_NAMES: dict[StreamName, str] = {"visual": "face", "audio": "voice", "sync": "match"}
RARE = 100  # the base-rate example: one fake in so many clips
DASH = "–"
SPACE = "\u00a0"  # no line ends between a number and its unit


def finite(value: float | None) -> float | None:
    """The number, or None where there is none: NaN and infinity never reach the page."""
    return value if value is not None and math.isfinite(value) else None


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """0.64, +1.20, −0.30, or a dash for no number."""
    value = finite(value)
    if value is None:
        return DASH
    rounded = round(value, digits) + 0.0  # no -0.00
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def digits_apart(probability: float | None, threshold: float | None) -> int:
    """Decimals with which a probability below the threshold still looks below it: 2, at most 4."""
    if probability is None or threshold is None or probability >= threshold:
        return 2
    return next((digits for digits in (2, 3) if round(probability, digits) < round(threshold, digits)), 4)


def clock(seconds: float | None) -> str:
    """3.4 s, 1:02.5 or 1:00:02: a time of the file's clock (page.js has the same)."""
    seconds = finite(seconds)
    if seconds is None:
        return DASH
    sign, hundredths = ("−" if seconds < -0.005 else ""), round(abs(seconds) * 100)
    if hundredths < 6000:
        return f"{sign}{_short(hundredths / 100, 2)}{SPACE}s"
    tenths = round(hundredths / 10)
    minutes, rest = divmod(tenths, 600)
    tail = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    if minutes < 60:
        return f"{sign}{minutes}:{tail}"
    return f"{sign}{minutes // 60}:{minutes % 60:02d}:{tail}"


def span(start: float | None, end: float | None) -> str:
    """From here to there."""
    return f"{clock(start)} to {clock(end)}"


def _short(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def leaning(logit: float | None) -> str:
    """A stream's raw score and the side it leans to."""
    logit = finite(logit)
    if logit is None:
        return "no score"
    return f"{number(logit, signed=True)}, leans {'fake' if logit > 0 else 'real'}"


def match_words(offset_seconds: float | None, confidence: float | None) -> str:
    """What an offset means, if it is clear enough to mean anything."""
    offset, confidence = finite(offset_seconds), finite(confidence)
    if offset is None or confidence is None:
        return "not measured"
    if confidence < CLEAR_SYNC:
        return "unclear"
    if abs(offset) <= MISMATCH_SECONDS:
        return "in step"
    return f"sound {'late' if offset > 0 else 'early'} by {number(abs(offset))}{SPACE}s"


def stream(detection: Detection, name: StreamName) -> StreamScore | None:
    """What the stream of that name said."""
    return next((score for score in detection.streams if score.name == name), None)


def absence(detection: Detection, name: StreamName) -> str:
    """Why a stream says nothing, as a sentence."""
    return sentence(f"not judged: {detection.missing.get(name, 'no usable score')}")


def people(detection: Detection) -> str:
    """How many faces there were at once, and how many of them were judged."""
    faces = detection.faces
    if faces is None or not faces.seen:
        return ""
    if faces.judged < faces.seen:
        return f"{faces.judged} of {faces.seen} faces judged"
    return f"{faces.seen} face{'' if faces.seen == 1 else 's'} at a time"


def track_words(detection: Detection, kind: Literal["video", "audio"]) -> str:
    """Which of several tracks was judged; nothing where there is one."""
    media = detection.media
    if media is None:
        return ""
    track, count = (media.video, media.videos) if kind == "video" else (media.audio, media.audios)
    return f"{kind} track {track} of {count}" if track is not None and count > 1 else ""


def segment_words(segment: Segment) -> str:
    """Whose stretch it is."""
    track = "" if segment.track_id is None else f", track {segment.track_id}"
    return f"{PART_NAMES[segment.stream]}{track}"


@dataclass(frozen=True)
class Heading:
    """The verdict in words."""

    title: str
    tone: Tone
    reason: str
    meaning: tuple[str, ...]  # of P(fake): what it says and what it does not


def heading(detection: Detection) -> Heading:
    titles: dict[str, tuple[str, Tone]] = {
        "fake": ("Looks manipulated", "fake"),
        "real": ("No clear sign of manipulation", "real"),
        "abstain": ("Could not be judged", "void"),
    }
    title, tone = titles[detection.verdict]
    parts = map(finite, (detection.video_fake, detection.audio_fake, detection.mismatch))
    if tone == "real" and any(p is not None and p >= PART_THRESHOLD for p in parts):
        title += " overall"  # the sentence below it names the part that does look manipulated
    return Heading(title, tone, sentence(detection.reason), _meaning(detection))


def _meaning(detection: Detection) -> tuple[str, ...]:
    fake = finite(detection.fake)
    if fake is None and detection.verdict != "abstain":
        return ("The model gave no usable probability.",)
    if fake is None:
        return (
            "There is no probability, because there was nothing to judge. That is no sign of manipulation, and none of "
            "its absence.",
        )
    rare = fake / max(1e-9, fake + (1 - fake) * (RARE - 1))
    shown = number(fake, digits_apart(fake, detection.threshold))
    return (
        f"Of many clips that score {shown}, about {round(100 * fake)} in 100 would be fakes, if half of all "
        "clips were and if they were like those the model was trained and calibrated on. How well that holds for this "
        "clip nobody knows.",
        f"It is evidence, not proof. Where only one clip in {RARE} is a fake, the same number would mean about "
        f"{number(100 * rare, 1)} in 100.",
    )


@dataclass(frozen=True)
class Cause:
    """One of the three cards."""

    name: str
    question: str
    headline: str
    tone: Tone
    probability: float | None
    lines: tuple[str, ...]


def causes(detection: Detection) -> tuple[Cause, Cause, Cause]:
    """Face, voice and match: what each stream said, or why it says nothing."""
    return _face(detection), _voice(detection), _match(detection)


def _part(probability: float | None) -> tuple[str, Tone]:
    if probability is None:
        return "Not judged", "void"
    return ("Looks manipulated", "fake") if probability >= PART_THRESHOLD else ("No clear sign", "real")


def _face(detection: Detection) -> Cause:
    probability, scores = finite(detection.video_fake), stream(detection, "visual")
    count = len(detection.tracks)
    seen = f"{count} face{'' if count == 1 else 's'} followed"
    lines = []
    if probability is None or scores is None:
        lines = [sentence(detection.missing.get("visual", "no usable score"))] + ([f"{seen}."] if count else [])
    else:
        if count == 1:
            lines = [f"{seen}, {span(detection.tracks[0].start_seconds, detection.tracks[0].end_seconds)}."]
        else:
            lines = [f"{seen}; the most suspicious one decides."]
        if (said := people(detection)) and detection.faces != FacesSeen(count, count):
            lines.append(sentence(said))
        lines.append("Judged by pictures of the face alone.")
    if said := track_words(detection, "video"):
        lines.append(sentence(said))
    headline, tone = _part(probability)
    return Cause("Face", "Was the face altered or generated?", headline, tone, probability, tuple(lines))


def _voice(detection: Detection) -> Cause:
    probability = finite(detection.audio_fake)
    if probability is None:
        lines = [sentence(detection.missing.get("audio", "no usable score"))]
    else:
        heard = detection.media.speech_seconds if detection.media else 0.0
        lines = ["Judged by the sound alone" + (f", {heard:.1f}{SPACE}s of speech." if heard else ".")]
    if said := track_words(detection, "audio"):
        lines.append(sentence(said))
    headline, tone = _part(probability)
    return Cause("Voice", "Was the voice synthesised or altered?", headline, tone, probability, tuple(lines))


def _match(detection: Detection) -> Cause:
    """Lips that speak another voice are a sign; a good match is none, so it has no tone of its own."""
    question = "Do the lips and the voice belong together?"
    probability, sync = finite(detection.mismatch), detection.sync
    offset = finite(sync.offset_seconds) if sync else None
    confidence = finite(sync.confidence) if sync else None
    if probability is None or sync is None or offset is None or confidence is None:
        reason = sentence(detection.missing.get("sync", "no usable measurement"))
        return Cause("Match", question, "Not judged", "void", None, (reason,))
    measured = (
        f"Offset {number(offset, signed=True)} s, confidence {number(confidence)}; measured on track {sync.track_id}."
    )
    headline, why = _offset_words(offset, confidence)
    tone: Tone = "plain"
    if probability >= PART_THRESHOLD:
        headline, tone = "The lips do not speak this voice", "fake"
        why = "Dubbing, a voice-over and an exchanged voice look like that; so do lips that are badly seen."
    return Cause("Match", question, headline, tone, probability, (measured, why))


def _offset_words(offset: float, confidence: float) -> tuple[str, str]:
    """What an offset in seconds means, and what it does not."""
    headline = match_words(offset, confidence)
    if confidence < CLEAR_SYNC:
        why = f"Below a confidence of {CLEAR_SYNC} the offset is not worth reading."
    elif abs(offset) <= MISMATCH_SECONDS:
        why = "That excludes nothing: heads that are generated to a voice keep its time."
    else:
        why = "Dubbing and exchanged voices do that, and so do bad transmission and careless cutting."
    return headline[0].upper() + headline[1:], why
