"""What the probabilities of a file amount to: the verdict, how strong each sign is, and one sentence.

"Real" is nothing that can be known, so no verdict says it. The two thresholds were measured: by how many real files of
sources that training left out reach them, and how many fakes.
"""

from collections.abc import Mapping, Sequence

from avdetect.bundle import Calibration
from avdetect.pooling import PART_OF
from avdetect.types import Rate, Segment, Verdict

# Of a sign, by what its cause alone would make of the file: so no sign is stronger than the verdict.
_STRENGTH: Mapping[Verdict, str] = {"fake": "strong ", "undecided": "moderate "}
_CAUSES = {"video_fake": "the face", "audio_fake": "the voice", "mismatch": "the match"}
_SIGNS = {
    "video_fake": "the face shows {}signs of manipulation",
    "audio_fake": "the voice shows {}signs of manipulation",
    "mismatch": "the lips and the voice show {}signs of a mismatch (a dub, voice-over, another voice, lips badly seen)",
}
STAND_OUT = 0.05  # of a file in stretches that stand out, for it to be undecided
NEAR = 0.1  # so little below the threshold of a sign, a cause is said to be near it
NO_LIMITS = "This bundle states no limits. That does not mean that it has none."


def verdict_of(probability: float, undecided_threshold: float, fake_threshold: float) -> Verdict:
    """On a whole file; and on a cause, what it alone would make of the file. The whole is never below its causes, so a
    cause shows no sign where the whole shows none."""
    if probability >= fake_threshold:
        return "fake"
    return "undecided" if probability >= undecided_threshold else "no sign found"


def sign_of(verdict: Verdict) -> str:
    """What a cause shows that alone would make this of the file."""
    return f"{_STRENGTH[verdict]}signs" if verdict in _STRENGTH else verdict


def reached_rates(probabilities: Mapping[str, float | None], calibration: Calibration) -> dict[str, Rate]:
    """Output -> the rate that its probability reaches; of the outputs that were judged and measured."""
    found = {name: calibration.rate(name, p) for name, p in probabilities.items() if p is not None}
    return {name: rate for name, rate in found.items() if rate}


def judge(
    probabilities: Mapping[str, float | None],
    calibration: Calibration,
    missing: Mapping[str, str],
    segments: Sequence[Segment] = (),
    judged_seconds: float = 0.0,
) -> tuple[Verdict, str]:
    """The verdict, and one sentence that says what it rests on and what could not be judged.

    probabilities: of `fake` and of each cause, None where not judged. missing: stream -> why it says nothing. segments:
    where those of a stream are STAND_OUT of the judged seconds, the file is undecided at least, for a few forged
    seconds hardly move the whole. A long real file has some short ones by chance.
    """
    fake = probabilities["fake"]
    if fake is None:
        return "abstain", f"nothing to judge: {'; '.join(dict.fromkeys(missing.values()))}"
    unseen = [_CAUSES[name] for name in _CAUSES if probabilities[name] is None]
    unseen = [name for name in unseen if name != "the match"] or unseen  # without face or voice there is none
    but = f"; {' and '.join(unseen)} could not be judged" if unseen else ""
    thresholds = calibration.undecided_threshold, calibration.fake_threshold
    alone = {name: verdict_of(p, *thresholds) for name in _SIGNS if (p := probabilities[name]) is not None}
    signs = " and ".join(_SIGNS[name].format(_STRENGTH[v]) for name, v in alone.items() if v in _STRENGTH)
    verdict = verdict_of(fake, *thresholds)
    if verdict in _STRENGTH:
        weight = ", not enough to call the file fake" if verdict == "undecided" else ""
        if verdict == "fake" and signs and "fake" not in alone.values():
            weight = ", with the other causes enough to call the file fake"
        return verdict, f"{signs or _together(probabilities, calibration.undecided_threshold)}{weight}{but}"
    if segments:
        seconds = dict.fromkeys((segment.stream for segment in segments), 0.0)
        for segment in segments:
            seconds[segment.stream] += segment.end_seconds - segment.start_seconds
        if max(seconds.values()) >= STAND_OUT * judged_seconds:
            verdict = "undecided"
        return verdict, f"{_stretches(segments)}, though the file as a whole does not{but}"
    return verdict, f"nothing stands out from real files, which proves nothing{but}"


def _stretches(segments: Sequence[Segment]) -> str:
    """Which cause stands out, and when."""
    first, more = segments[0], len(segments) - 1
    others = f" ({more} more stretch{'es' if more > 1 else ''} marked)" if more else ""
    cause = _CAUSES[PART_OF[first.stream]]
    return f"{cause} stands out from {first.start_seconds:.1f} to {first.end_seconds:.1f} s{others}"


def _together(probabilities: Mapping[str, float | None], threshold: float) -> str:
    """Why the whole shows a sign where no cause alone does."""
    judged = {name: p for name in _CAUSES if (p := probabilities[name]) is not None}
    near = [name for name, p in judged.items() if p >= threshold - NEAR]
    if len(near) == 1 < len(judged):
        return f"{_CAUSES[near[0]]} alone falls just short of a sign, and the rest adds to it"
    return "no cause alone shows a sign, together they do"


def first_limit(limits: tuple[str, ...]) -> str:
    """The first sentence of what a bundle says of its limits: it stands under every verdict."""
    first = next((limit.strip() for limit in limits if limit.strip()), NO_LIMITS)
    sentence, stop, _ = first.partition(". ")
    return sentence + stop.strip()
