"""What probabilities amount to: the verdict and the strength of its signs by two thresholds, and the sentence."""

from dataclasses import replace
from itertools import product

import pytest
from evidence_samples import detection

from avdetect.bundle import Bundle, Calibration
from avdetect.report.words import TONE_OF, sign
from avdetect.types import Rate, Segment
from avdetect.verdict import NO_LIMITS, first_limit, judge, reached_rates, verdict_of

RATES = tuple(Rate(p, reals, 0.5) for p, reals in ((0.3, 0.5), (0.5, 0.3), (0.65, 0.1), (0.8, 0.05), (0.9, 0.02)))
CALIBRATION = Calibration(
    (1.0,) * 4, (0.0,) * 4, 0.01, 0.7, 0.45, dict.fromkeys(("fake", "video_fake", "audio_fake", "mismatch"), RATES)
)
NO_SIGN = "nothing stands out from real files, which proves nothing"
MISMATCH = "signs of a mismatch (a dub, voice-over, another voice, lips badly seen)"
MANIPULATION = "signs of manipulation"
ENOUGH = "enough to call the file fake"
NOT_ENOUGH = "not enough to call the file fake"
TOGETHER = "no cause alone shows a sign, together they do"
JUST_SHORT = "alone falls just short of a sign, and the rest adds to it"


def probabilities(*values: float | None) -> dict[str, float | None]:
    return dict(zip(("fake", "video_fake", "audio_fake", "mismatch"), values, strict=True))


@pytest.mark.parametrize(
    ("values", "verdict", "sentence"),
    [
        ((0.2, 0.1, 0.1, 0.1), "no sign found", NO_SIGN),
        ((0.2, 0.1, None, None), "no sign found", f"{NO_SIGN}; the voice could not be judged"),
        ((0.2, None, None, 0.1), "no sign found", f"{NO_SIGN}; the face and the voice could not be judged"),
        ((0.2, 0.1, 0.1, None), "no sign found", f"{NO_SIGN}; the match could not be judged"),
        ((0.4499, 0.44, 0.1, 0.1), "no sign found", NO_SIGN),
        ((0.45, 0.45, 0.1, 0.1), "undecided", f"the face shows moderate signs of manipulation, {NOT_ENOUGH}"),
        ((0.69, 0.1, 0.66, 0.1), "undecided", f"the voice shows moderate signs of manipulation, {NOT_ENOUGH}"),
        ((0.6, 0.4, 0.4, None), "undecided", f"{TOGETHER}, {NOT_ENOUGH}; the match could not be judged"),
        ((0.5, 0.44, 0.1, 0.05), "undecided", f"the face {JUST_SHORT}, {NOT_ENOUGH}"),
        ((0.55, 0.1, 0.2, 0.4), "undecided", f"the match {JUST_SHORT}, {NOT_ENOUGH}"),
        ((0.6, 0.3, 0.3, 0.2), "undecided", f"{TOGETHER}, {NOT_ENOUGH}"),
        ((0.7, 0.66, 0.1, 0.1), "fake", f"the face shows moderate {MANIPULATION}, with the other causes {ENOUGH}"),
        ((0.9, 0.1, 0.1, 0.9), "fake", f"the lips and the voice show strong {MISMATCH}"),
        (
            (0.95, 0.8, 0.5, 0.1),
            "fake",
            f"the face shows strong {MANIPULATION} and the voice shows moderate {MANIPULATION}",
        ),
        ((0.7, 0.4, 0.4, 0.4), "fake", TOGETHER),
        ((None, None, None, None), "abstain", "nothing to judge: no face; silent"),
    ],
)
def test_the_sentence_fits_the_numbers(values: tuple[float | None, ...], verdict: str, sentence: str) -> None:
    missing = {"visual": "no face", "audio": "silent", "sync": "silent"}
    assert judge(probabilities(*values), CALIBRATION, missing) == (verdict, sentence)


def test_a_stretch_that_stands_out_makes_a_file_undecided_and_the_sentence_names_it() -> None:
    found = [
        Segment(12.0, 16.04, "audio", 6.0),
        Segment(20.0, 24.0, "visual", 3.0, 1),
        Segment(30.0, 31.0, "audio", 6.0),
    ]
    stretch = "the voice stands out from 12.0 to 16.0 s"
    for count, more in ((1, ""), (2, " (1 more stretch marked)"), (3, " (2 more stretches marked)")):
        verdict, reason = judge(probabilities(0.3, None, 0.3, None), CALIBRATION, {}, found[:count], 80.0)
        said = f"{stretch}{more}, though the file as a whole does not; the face could not be judged"
        assert (verdict, reason) == ("undecided", said)
    long = judge(probabilities(0.3, 0.1, 0.1, 0.1), CALIBRATION, {}, found, 120.0)  # 5 s are less than a twentieth
    assert long == ("no sign found", f"{stretch} (2 more stretches marked), though the file as a whole does not")
    assert judge(probabilities(0.9, 0.1, 0.9, None), CALIBRATION, {}, found)[1].startswith(
        "the voice shows strong signs"
    )


def test_what_was_not_measured_has_no_rate_and_the_first_limit_is_one_sentence() -> None:
    assert reached_rates(probabilities(0.9, 0.8, None, 0.1), replace(CALIBRATION, rates={})) == {}
    assert [first_limit(said) for said in (("It errs. Often.", "B."), (" ", "It errs"))] == ["It errs.", "It errs"]
    assert first_limit(()) == NO_LIMITS.partition(" That")[0]


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


@pytest.mark.parametrize(
    ("probability", "said", "verdict"),
    [
        (0.6, "strong signs", "fake"),
        (0.5, "moderate signs", "undecided"),
        (0.44, "no sign found", "no sign found"),
        (None, "not judged", "abstain"),
    ],
)
def test_a_cause_wears_the_colour_of_what_it_alone_would_make(probability: float, said: str, verdict: str) -> None:
    found = replace(detection(), video_fake=probability)
    assert sign(found, "video_fake") == (said, TONE_OF[verdict])  # type: ignore[index]
    assert len(set(TONE_OF.values())) == len(TONE_OF), "no two verdicts look alike"
