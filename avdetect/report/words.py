"""What every output says and how it looks: verdicts, signs, numbers and times in words, and the colours of both."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from avdetect.detector import CLEAR_SYNC, MISMATCH_SECONDS
from avdetect.pooling import PART_OF
from avdetect.types import Detection, FacesSeen, Segment, StreamName, StreamScore, SyncScore, Verdict
from avdetect.verdict import sign_of, verdict_of

Tone = Literal["fake", "undecided", "none", "plain", "void"]  # as the verdicts; said but neither; nothing said


TONE_OF: dict[Verdict, Tone] = {"fake": "fake", "undecided": "undecided", "no sign found": "none", "abstain": "void"}
# Rich's style on a terminal; colour on light paper, and on dark paper.
TONES: dict[Tone, tuple[str, str, str]] = {
    "fake": ("bold red", "#a63c00", "#ff9a5c"),
    "undecided": ("bold yellow", "#7a5a0c", "#e6c46a"),
    "none": ("bold blue", "#00558c", "#7cc0f2"),
    "plain": ("bold", "#1a1e23", "#e8ebee"),
    "void": ("dim", "#56606b", "#a9b3bd"),
}
PART_NAMES: dict[StreamName, str] = {"visual": "face", "audio": "voice", "sync": "match"}
SURPRISING = 0.1  # so far above its largest cause the whole needs a word
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


def digits_apart(probability: float | None, *thresholds: float) -> int:
    """Decimals with which a probability below a threshold still looks below it: 2, at most 4."""
    if probability is None:
        return 2
    missed = [t for t in thresholds if probability < t]
    return next((d for d in (2, 3) if all(round(probability, d) < round(t, d) for t in missed)), 4)


def whole(detection: Detection) -> tuple[str, str]:
    """P(fake), "" where there is none, and its thresholds: ("0.64", "undecided from …, fake from …")."""
    fake, thresholds = finite(detection.fake), (detection.undecided_threshold, detection.fake_threshold)
    digits = digits_apart(fake, *thresholds)
    lower, upper = (number(threshold, digits) for threshold in thresholds)
    return "" if fake is None else number(fake, digits), f"undecided from {lower}, fake from {upper}"


def clock(seconds: float) -> str:
    """3.4 s, 1:02.5 or 1:00:02: a time of the file's clock (page.js has the same)."""
    sign, hundredths = ("−" if seconds < -0.005 else ""), round(abs(seconds) * 100)
    if hundredths < 6000:
        return f"{sign}{hundredths / 100:.10g}{SPACE}s"
    minutes, tenths = divmod(round(hundredths / 10), 600)
    tail = f"{tenths // 10:02d}" + (f".{tenths % 10}" if tenths % 10 else "")
    if minutes < 60:
        return f"{sign}{minutes}:{tail}"
    return f"{sign}{minutes // 60}:{minutes % 60:02d}:{tail}"


def span(start: float, end: float) -> str:
    return f"{clock(start)} to {clock(end)}"


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ("", ".", "!", "?") else ".")


def is_clear(confidence: float | None) -> bool:
    """Whether an offset of this confidence can be read."""
    return (finite(confidence) or 0.0) >= CLEAR_SYNC


def match_words(offset_seconds: float | None, confidence: float | None) -> str:
    """What an offset means, if it is clear enough to mean anything."""
    offset = finite(offset_seconds)
    if offset is None or finite(confidence) is None:
        return "not measured"
    if not is_clear(confidence):
        return "unclear"
    if abs(offset) <= MISMATCH_SECONDS:
        return "in step"
    return f"sound {'late' if offset > 0 else 'early'} by {number(abs(offset))}{SPACE}s"


def stream(detection: Detection, name: StreamName) -> StreamScore | None:
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
    track = "" if segment.track_id is None else f", track {segment.track_id}"
    return f"{PART_NAMES[segment.stream]}{track}"


_REALS = {"fake": "files", "video_fake": "faces", "audio_fake": "voices", "mismatch": "pairs of lips and voice"}


def measured(detection: Detection, output: str) -> str:
    """How many real files reach this probability; "" where it was not measured."""
    rate = detection.rates.get(output)
    if rate is None:
        return ""
    return f"of real {_REALS[output]} of unseen sources, {_at_most(rate.reals)} reach this"


def _at_most(share: float) -> str:
    """A rate was measured at a probability that the file's is not below: no more files reach the file's own."""
    if share > 0.5:
        return "more than half"
    return f"at most {math.ceil(_percent(share))} in 100" if share >= 0.005 else "fewer than 1 in 100"


def _percent(share: float) -> float:
    return round(100 * share, 2)  # rates have four decimals: 7.000000000000001 is 7


def sign(detection: Detection, output: str) -> tuple[str, Tone]:
    """What the probability of a cause says, in two words, and its colour."""
    probability = finite(getattr(detection, output))
    if probability is None:
        return "not judged", "void"
    verdict = verdict_of(probability, detection.undecided_threshold, detection.fake_threshold)
    return sign_of(verdict), TONE_OF[verdict]


def rarity(detection: Detection) -> str:
    """How many files reach such a P(fake), a sentence."""
    if detection.verdict == "abstain":
        return "There was nothing to judge. That is no sign of manipulation, and none of its absence."
    fake = finite(detection.fake)
    if fake is None:
        return "The model gave no usable probability."
    if "fake" not in detection.rates:
        return "How many real files reach this was not measured."
    reached = detection.rates["fake"].fakes
    fakes = f"; of fakes, at most {math.ceil(_percent(reached))} in 100"
    if fake < detection.undecided_threshold:  # nearly all fakes reach a low score: how many do not says more
        lower = math.floor(_percent(1 - reached))
        fakes = f"; of fakes, at least {lower} in 100 score lower" if lower else ""
    return sentence(measured(detection, "fake") + fakes)


def summed(detection: Detection) -> str:
    """Why P(fake) is above each cause, where that would surprise; "" elsewhere, and of a fusion that is no noisy-or."""
    fake = finite(detection.fake)
    judged = [p for output in PART_OF.values() if (p := finite(getattr(detection, output))) is not None]
    if fake is None or not judged or fake - max(judged) < SURPRISING:
        return ""
    adds = abs(1 - math.prod(1 - p for p in judged) - fake) < 0.01  # the bounds of probabilities shift it by less
    return "P(fake) adds the causes up (noisy-or), so it is above each of them" if adds else ""


@dataclass(frozen=True)
class Cause:
    """One of the three cards."""

    name: str
    question: str
    headline: str
    tone: Tone
    probability: float | None
    lines: tuple[str, ...]  # what it rests on, or why it was not judged; sentences


def causes(detection: Detection) -> tuple[Cause, Cause, Cause]:
    """Face, voice and match."""
    return _face(detection), _voice(detection), _match(detection)


def _face(detection: Detection) -> Cause:
    count = len(detection.tracks)
    followed = f"{count} face{'' if count == 1 else 's'} followed" if count else ""
    texts = [followed]
    if finite(detection.video_fake) is not None:
        if count == 1:
            texts = [f"{followed}, {span(detection.tracks[0].start_seconds, detection.tracks[0].end_seconds)}"]
        else:
            texts = [f"{followed}; the most suspicious one decides"]
        if detection.faces != FacesSeen(count, count):
            texts.append(people(detection))
        texts.append("judged by pictures of the face alone")
    return _cause(detection, "visual", "Was the face altered or generated?", *texts, track_words(detection, "video"))


def _voice(detection: Detection) -> Cause:
    texts = []
    if finite(detection.audio_fake) is not None:
        heard = detection.media.speech_seconds if detection.media else 0.0
        texts = ["judged by the sound alone" + (f", {heard:.1f}{SPACE}s of speech" if heard else "")]
    return _cause(detection, "audio", "Was the voice synthesised or altered?", *texts, track_words(detection, "audio"))


def _match(detection: Detection) -> Cause:
    """Lips that speak another voice are a sign; a good match is none, so it has no tone of its own."""
    sync, (said, tone) = detection.sync, sign(detection, "mismatch")
    texts, headline = [], said
    if sync is not None and tone != "void":
        offset = f"{number(sync.offset_seconds, signed=True)} s" if is_clear(sync.confidence) else "unclear"
        texts = [f"Offset {offset}, confidence {number(sync.confidence)}; measured on track {sync.track_id}"]
        if tone != "none":
            headline = f"{said} of a mismatch"
            texts.append("dubbing, a voice-over and an exchanged voice look like that; so do lips that are badly seen")
        elif (finite(detection.mismatch) or 0.0) < 0.5:  # at more, it may be what makes the file suspicious
            tone, headline = "plain", match_words(sync.offset_seconds, sync.confidence)
            texts.append(_disclaimer(sync))
    cause = _cause(detection, "sync", "Do the lips and the voice belong together?", *texts)
    return replace(cause, headline=headline[:1].upper() + headline[1:], tone=tone)


def _disclaimer(sync: SyncScore) -> str:
    if not is_clear(sync.confidence):
        return f"below a confidence of {CLEAR_SYNC} the offset is not worth reading"
    if abs(sync.offset_seconds) <= MISMATCH_SECONDS:
        return "that excludes nothing: heads that are generated to a voice keep its time"
    return "dubbing and exchanged voices do that, and so do bad transmission and careless cutting"


def _cause(detection: Detection, stream: StreamName, question: str, *texts: str) -> Cause:
    output = PART_OF[stream]
    probability, (headline, tone) = finite(getattr(detection, output)), sign(detection, output)
    first = detection.missing.get(stream, "no usable score") if probability is None else measured(detection, output)
    lines = tuple(sentence(text) for text in (first, *texts) if text)
    return Cause(PART_NAMES[stream].capitalize(), question, headline.capitalize(), tone, probability, lines)
