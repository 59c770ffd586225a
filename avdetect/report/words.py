"""What every output says and how it looks: verdicts, signs, numbers and times in words, and the colours of both.

Terminal, table, page, picture and server take theirs from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from avdetect.detector import CLEAR_SYNC, MISMATCH_SECONDS
from avdetect.types import Detection, FacesSeen, Segment, StreamName, StreamScore, Verdict
from avdetect.verdict import sign_of, verdict_of

Tone = Literal["fake", "undecided", "none", "plain", "void"]  # as the verdicts; said but neither; nothing said


@dataclass(frozen=True)
class Look:
    """A verdict for people."""

    title: str
    tag: str  # where there is room for two words
    tone: Tone


VERDICTS: dict[Verdict, Look] = {
    "fake": Look("Fake", "fake", "fake"),
    "undecided": Look("Undecided", "undecided", "undecided"),
    "no sign found": Look("No sign found", "no sign found", "none"),
    "abstain": Look("Abstain", "abstain", "void"),
}
# Rich's style on a terminal; colour on light paper and in a picture, and on dark paper.
TONES: dict[Tone, tuple[str, str, str]] = {
    "fake": ("bold red", "#a63c00", "#ff9a5c"),
    "undecided": ("bold yellow", "#7a5a0c", "#e6c46a"),
    "none": ("bold blue", "#00558c", "#7cc0f2"),
    "plain": ("bold", "#1a1e23", "#e8ebee"),
    "void": ("dim", "#56606b", "#a9b3bd"),
}
PART_NAMES: dict[StreamName, str] = {"visual": "face", "audio": "voice", "sync": "match"}
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


def tone_css() -> str:
    """A variable for each tone's colour, and a class `tone-<tone>` that takes it as `--tone`."""
    light, dark = ("".join(f"--{name}: {look[i]}; " for name, look in TONES.items()) for i in (1, 2))
    classes = "".join(f".tone-{name} {{ --tone: var(--{name}); }}\n" for name in TONES)
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n{classes}"


def digits_apart(probability: float | None, *thresholds: float | None) -> int:
    """Decimals with which a probability below a threshold still looks below it: 2, at most 4."""
    if probability is None:
        return 2
    missed = [t for t in thresholds if t is not None and probability < t]
    return next((d for d in (2, 3) if all(round(probability, d) < round(t, d) for t in missed)), 4)


def whole(detection: Detection) -> tuple[str, str]:
    """P(fake) and its two thresholds, in as many digits as tell them apart: ("0.64", "undecided from …, fake from …").

    An empty first text where there is no probability.
    """
    fake, lower, upper = map(finite, (detection.fake, detection.undecided_threshold, detection.fake_threshold))
    digits = digits_apart(fake, lower, upper)
    return "" if fake is None else number(
        fake, digits
    ), f"undecided from {number(lower, digits)}, fake from {number(upper, digits)}"


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


_REALS = {"fake": "files", "video_fake": "faces", "audio_fake": "voices", "mismatch": "pairs of lips and voice"}


def measured(detection: Detection, output: str) -> str:
    """How many real files reach this probability; "" where it was not measured."""
    rate = detection.rates.get(output)
    if rate is None:
        return ""
    many = "more than half" if rate.reals > 0.5 else f"{100 * rate.reals:.0f} in 100"
    return f"of real {_REALS[output]} of unseen sources, {many} reach this"


def sign(detection: Detection, output: str) -> tuple[str, Tone]:
    """What the probability of a cause says, in two words, and its colour."""
    probability = finite(getattr(detection, output))
    if probability is None:
        return "not judged", VERDICTS["abstain"].tone
    verdict = verdict_of(probability, detection.undecided_threshold, detection.fake_threshold)
    return sign_of(verdict), VERDICTS[verdict].tone


@dataclass(frozen=True)
class Heading:
    """The verdict in words."""

    title: str
    tone: Tone
    reason: str
    measured: str  # how many reach such a P(fake), a sentence
    limit: str  # the first sentence of the model's limits


def heading(detection: Detection) -> Heading:
    look = VERDICTS[detection.verdict]
    return Heading(look.title, look.tone, sentence(detection.reason), _rarity(detection), sentence(detection.limit))


def _rarity(detection: Detection) -> str:
    rate = detection.rates.get("fake")
    if detection.verdict == "abstain":
        return "There was nothing to judge. That is no sign of manipulation, and none of its absence."
    if finite(detection.fake) is None:
        return "The model gave no usable probability."
    if rate is None:
        return "How many real files reach this was not measured."
    said = measured(detection, "fake")
    if detection.verdict == "no sign found":
        return f"{sentence(said)[:-1]}; many fakes score no higher."
    return f"{sentence(said)[:-1]}; of fakes, {100 * rate.fakes:.0f} in 100."


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
    return (
        _cause(detection, "video_fake", "Face", "Was the face altered or generated?", _face(detection)),
        _cause(detection, "audio_fake", "Voice", "Was the voice synthesised or altered?", _voice(detection)),
        _match(detection),
    )


def _cause(detection: Detection, output: str, name: str, question: str, lines: tuple[str, ...]) -> Cause:
    headline, tone = sign(detection, output)
    return Cause(name, question, headline.capitalize(), tone, finite(getattr(detection, output)), lines)


def _face(detection: Detection) -> tuple[str, ...]:
    count, track = len(detection.tracks), track_words(detection, "video")
    seen = f"{count} face{'' if count == 1 else 's'} followed"
    if finite(detection.video_fake) is None or stream(detection, "visual") is None:
        return _said(detection.missing.get("visual", "no usable score"), seen if count else "", track)
    where = span(detection.tracks[0].start_seconds, detection.tracks[0].end_seconds) if count == 1 else ""
    seen += f", {where}" if count == 1 else "; the most suspicious one decides"
    several = people(detection) if detection.faces != FacesSeen(count, count) else ""
    return _said(measured(detection, "video_fake"), seen, several, "Judged by pictures of the face alone", track)


def _voice(detection: Detection) -> tuple[str, ...]:
    track = track_words(detection, "audio")
    if finite(detection.audio_fake) is None:
        return _said(detection.missing.get("audio", "no usable score"), track)
    heard = detection.media.speech_seconds if detection.media else 0.0
    long = f", {heard:.1f}{SPACE}s of speech" if heard else ""
    return _said(measured(detection, "audio_fake"), f"Judged by the sound alone{long}", track)


def _said(*texts: str) -> tuple[str, ...]:
    """Those that say something, as sentences."""
    return tuple(sentence(text) for text in texts if text)


def _match(detection: Detection) -> Cause:
    """Lips that speak another voice are a sign; a good match is none, so it has no tone of its own."""
    question, sync = "Do the lips and the voice belong together?", detection.sync
    probability = finite(detection.mismatch)
    offset, confidence = (finite(sync.offset_seconds), finite(sync.confidence)) if sync else (None, None)
    if probability is None or sync is None or offset is None or confidence is None:
        reason = _said(detection.missing.get("sync", "no usable measurement"))
        return replace(
            _cause(detection, "mismatch", "Match", question, reason), headline="Not judged", probability=None
        )
    headline, why = _offset_words(offset, confidence)
    said, tone = sign(detection, "mismatch")
    if tone == VERDICTS["no sign found"].tone:
        tone = "plain"
    else:
        headline = f"{said.capitalize()} of another voice"
        why = "Dubbing, a voice-over and an exchanged voice look like that; so do lips that are badly seen."
    how = f"Offset {number(offset, signed=True)} s, confidence {number(confidence)}; measured on track {sync.track_id}"
    return Cause("Match", question, headline, tone, probability, _said(measured(detection, "mismatch"), how, why))


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
