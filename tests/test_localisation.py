"""The average precision of segments, by hand and by its own laws, and of a manifest's partial forgeries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import manifest_of

from avdetect.errors import MediaError
from avdetect.evaluation.localisation import average_precision, measure_localisation
from avdetect.types import Segment

Found = dict[str, list[tuple[float, float, float]]]
True_ = dict[str, list[tuple[float, float]]]


@pytest.mark.parametrize(
    ("predicted", "truth", "iou", "expected"),
    [
        # By score: right, wrong, right, wrong; three are true. Precision 1, 1/2, 2/3, 1/2.
        (
            {"a": [(0, 1, 0.9), (8, 9, 0.8)], "b": [(0, 2, 0.7)], "real": [(0, 9, 0.6)]},
            {"a": [(0, 1), (4, 5)], "b": [(0, 2)]},
            0.5,
            1 / 3 * 1 + 1 / 3 * 2 / 3,
        ),
        # A true segment is found once: the second that fits it is wrong.
        ({"a": [(0, 1, 0.9), (0, 1, 0.8), (3, 4, 0.7)]}, {"a": [(0, 1), (3, 4)]}, 0.5, 0.5 + 0.5 * 2 / 3),
        # A wrong one before a right one costs no more than the best precision at a higher recall.
        ({"a": [(9, 10, 0.9), (0, 1, 0.8), (2, 3, 0.7)]}, {"a": [(0, 1), (2, 3)]}, 0.5, 2 / 3),
        # (0, 10) fits both; it takes (0, 10) and leaves (0, 8) to the next.
        ({"a": [(0, 10, 0.9), (0, 8, 0.8)]}, {"a": [(0, 8), (0, 10)]}, 0.75, 1),
        ({"a": [(0, 6, 1)]}, {"a": [(0, 10)]}, 0.6, 1),
        ({"a": [(0, 6, 1)]}, {"a": [(0, 10)]}, 0.61, 0),
        ({}, {"a": [(0, 1)]}, 0.5, 0),
    ],
)
def test_hand_made_cases(predicted: Found, truth: True_, iou: float, expected: float) -> None:
    assert average_precision(predicted, truth, iou) == pytest.approx(expected)


SEGMENT = st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda s: (float(s[0]), float(s[0] + s[1])))
TRUTH = st.dictionaries(st.sampled_from("abc"), st.lists(SEGMENT, max_size=4), max_size=3)
FOUND = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.tuples(SEGMENT, st.floats(0, 1)).map(lambda s: (*s[0], s[1])), max_size=6)
)


@settings(max_examples=40, deadline=None)
@given(FOUND, TRUTH, st.floats(0.05, 1))
def test_laws_of_average_precision(predicted: Found, truth: True_, iou: float) -> None:
    total = sum(map(len, truth.values()))
    found = average_precision(predicted, truth, iou)
    if not total:
        assert np.isnan(found)
        return
    count = sum(map(len, predicted.values()))
    assert 0 <= found <= min(1, count / total) + 1e-12
    perfect = {file: [(*segment, 2.0) for segment in segments] for file, segments in truth.items()}
    assert average_precision(perfect, truth, iou) == pytest.approx(1)
    worse = predicted | {"nothing here": [(0.0, 1.0, 3.0)]}
    assert average_precision(worse, truth, iou) <= found + 1e-12, "a wrong segment before all others never helps"
    last = predicted | {"nothing here": [(0.0, 1.0, -1.0)]}
    assert average_precision(last, truth, iou) == pytest.approx(found), "one after all others never hurts"


# -- a manifest


class Fixed:
    """Detects these segments in six seconds; a path that it does not know is damaged."""

    def __init__(self, **found: tuple[Segment, ...]) -> None:
        self.found, self.asked = found, list[str]()

    def score(self, path: str) -> Any:
        self.asked.append(path)
        if path not in self.found:
            raise MediaError("damaged; copy it again")
        return SimpleNamespace(segments=self.found[path], duration_seconds=6.0)


def measured(detector: Any, **columns: list[object]) -> pd.DataFrame:
    """What is fake from end to end, in part, not at all, of another dataset, and a file that is gone."""
    segments = [(), ((2.0, 4.0),), (), (), ((0.0, 1.0),)]
    stated = {"fake": [1, 1, 0, 0, 1], "dataset": [*"aaaba"], "fake_segments": segments} | columns
    table = manifest_of(["whole", "part", "real", "elsewhere", "gone"], **stated)
    return measure_localisation(table, detector).set_index("score")


def test_the_segments_of_a_result_are_measured() -> None:
    face = (Segment(2.0, 4.0, "visual", 3.0, 0), Segment(0.0, 2.0, "visual", 1.0, 1))
    voice = (Segment(0.0, 3.0, "audio", 4.0), Segment(4.0, 5.5, "audio", 2.0))
    detector = Fixed(part=face, real=voice[:1], whole=voice)
    own = measured(detector, video_fake=[0, 1, 0, 0, 1], audio_fake=[1, 0, 0, 0, 0])
    assert detector.asked == ["whole", "part", "real", "gone"], "nothing of another dataset"
    assert list(own.index) == ["visual", "audio", "visual and audio"]
    counts = own[["failed", "files", "segments", "real"]]
    assert counts.eq([1, 3, 2, 1]).all(axis=None), "not what is fake from end to end"
    assert own["ap_95"].tolist() == [0.5, 0, 0.25], "a lost file's segment is missed; a real file's is the better one"
    assert own[["false_alarms", "whole"]].to_numpy().T.tolist() == [[0, 1, 1], [0, 1, 1]]
    assert own["covered"].isna().tolist() == [True, False, False]
    assert own.loc["audio", "covered"] == 0.75


def test_what_segments_cover_is_counted_once() -> None:
    twice = (Segment(0.0, 3.0, "visual", 3.0, 0), Segment(1.0, 2.0, "visual", 3.0, 1), Segment(2.0, 4.0, "audio", 3.0))
    own = measured(Fixed(part=(), real=(), whole=twice), video_fake=[1, 1, 0, 0, 1])["covered"]
    assert (own["visual"], own["visual and audio"]) == pytest.approx((3 / 6, 4 / 6))


def test_a_stream_is_held_against_its_own_modality() -> None:
    segments = {"video_fake_segments": [(), ((2.0, 4.0),), (), (), ()], "audio_fake_segments": [()] * 5}
    seen = (Segment(2.0, 4.0, "visual", 3.0, 0),)
    own = measured(Fixed(part=seen, real=()), **segments, video_fake=[None, 1, 0, 0, None])
    assert own.loc["visual", ["segments", "ap_95"]].tolist() == [1, 1]
    assert "audio" not in own.index, "no segment of a voice: nothing to measure"
