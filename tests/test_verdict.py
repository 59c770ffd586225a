"""What probabilities amount to: the verdict and the strength of its signs by two thresholds, and the sentence."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from avdetect.bundle import Bundle, Calibration
from avdetect.report.words import VERDICTS, sign
from avdetect.types import Rate
from avdetect.verdict import NO_LIMITS, first_limit, judge, reached_rates, sign_of, verdict_of

RATES = tuple(Rate(p, reals, 0.5) for p, reals in ((0.3, 0.5), (0.5, 0.3), (0.65, 0.1), (0.8, 0.05), (0.9, 0.02)))
CALIBRATION = Calibration(
    (1.0,) * 4, (0.0,) * 4, 0.01, 0.7, 0.45, dict.fromkeys(("fake", "video_fake", "audio_fake", "mismatch"), RATES)
)
NO_SIGN = "nothing stands out from real files, which proves nothing"
NO_MATCH = "signs that the lips do not speak this voice (perhaps dubbed, a voice-over, or exchanged)"
NOT_ENOUGH = "not enough to call the file fake"


def probabilities(*values: float | None) -> dict[str, float | None]:
    return dict(zip(("fake", "video_fake", "audio_fake", "mismatch"), values, strict=True))


@pytest.mark.parametrize(
    ("values", "verdict", "sentence"),
    [
        ((0.2, 0.1, 0.1, 0.1), "no sign found", NO_SIGN),
        ((0.2, 0.1, None, None), "no sign found", f"{NO_SIGN}; the voice could not be judged"),
        ((0.2, None, 0.1, None), "no sign found", f"{NO_SIGN}; the face could not be judged"),
        ((0.2, None, None, 0.1), "no sign found", f"{NO_SIGN}; the face and the voice could not be judged"),
        ((0.2, 0.1, 0.1, None), "no sign found", f"{NO_SIGN}; the match could not be judged"),
        ((0.4499, 0.44, 0.1, 0.1), "no sign found", NO_SIGN),
        ((0.45, 0.45, 0.1, 0.1), "undecided", f"the face shows moderate signs of manipulation, {NOT_ENOUGH}"),
        ((0.69, 0.1, 0.66, 0.1), "undecided", f"the voice shows moderate signs of manipulation, {NOT_ENOUGH}"),
        (
            (0.6, 0.4, 0.4, None),
            "undecided",
            f"no part alone shows signs of manipulation, together they do, {NOT_ENOUGH}; the match could not be judged",
        ),
        ((0.7, 0.66, 0.1, 0.1), "fake", "the face shows moderate signs of manipulation"),
        ((0.9, 0.1, 0.1, 0.9), "fake", f"there are strong {NO_MATCH}"),
        (
            (0.95, 0.8, 0.5, 0.1),
            "fake",
            "the face shows strong signs of manipulation and the voice shows moderate signs of manipulation",
        ),
        ((0.7, 0.4, 0.4, 0.4), "fake", "the evidence as a whole points to a manipulation"),
    ],
)
def test_the_sentence_fits_the_numbers(values: tuple[float | None, ...], verdict: str, sentence: str) -> None:
    assert judge(probabilities(*values), CALIBRATION, {}) == (verdict, sentence)


def test_what_was_not_measured_has_no_rate() -> None:
    unmeasured = replace(CALIBRATION, rates={})
    assert reached_rates(probabilities(0.9, 0.8, None, 0.1), unmeasured) == {}


def test_no_stream_is_an_abstention_with_its_reasons() -> None:
    missing = {"visual": "no face", "audio": "silent", "sync": "silent"}
    found = judge(probabilities(None, None, None, None), CALIBRATION, missing)
    assert found == ("abstain", "nothing to judge: no face; silent")


def test_a_sign_is_as_strong_as_the_verdict_that_it_would_make_alone() -> None:
    words = {verdict: sign_of(verdict) for verdict in ("fake", "undecided", "no sign found")}
    assert words == {"fake": "strong signs", "undecided": "moderate signs", "no sign found": "no sign found"}


def test_no_cause_shows_a_sign_where_the_whole_shows_none() -> None:
    """By the shipped bundle: the whole is never below its causes, and both are held against the same thresholds."""
    calibration = Bundle.load().info.calibration
    thresholds = calibration.undecided_threshold, calibration.fake_threshold
    order = ["no sign found", "undecided", "fake"]
    for face, voice in product((0.1, 0.4, 0.6, thresholds[0], 0.8, thresholds[1], 0.95), repeat=2):
        whole = 1 - (1 - face) * (1 - voice)
        verdict, reason = judge(probabilities(whole, face, voice, None), calibration, {})
        for name, p in (("the face", face), ("the voice", voice)):
            assert order.index(verdict_of(p, *thresholds)) <= order.index(verdict)
            assert (f"{name} shows" in reason) == (p >= thresholds[0])


def test_a_cause_wears_the_colour_of_what_it_alone_would_make() -> None:
    from evidence_samples import detection

    found = replace(detection(), video_fake=0.5, audio_fake=0.6, mismatch=None)
    assert sign(found, "video_fake") == ("moderate signs", VERDICTS["undecided"].tone)
    assert sign(found, "audio_fake") == ("strong signs", VERDICTS["fake"].tone)
    assert sign(replace(found, video_fake=0.44), "video_fake") == ("no sign found", VERDICTS["no sign found"].tone)
    assert sign(found, "mismatch") == ("not judged", VERDICTS["abstain"].tone)
    assert len({look.tone for look in VERDICTS.values()}) == len(VERDICTS), "no two verdicts look alike"


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (("It errs. Often.", "Other."), "It errs."),
        (("It errs",), "It errs"),
        ((" ", "It errs."), "It errs."),
        ((), "This bundle states no limits."),
    ],
)
def test_the_first_limit_is_one_sentence(limits: tuple[str, ...], sentence: str) -> None:
    assert first_limit(limits) == sentence
    assert first_limit((NO_LIMITS,)) in NO_LIMITS
