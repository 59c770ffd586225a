"""Segments out of score curves, and their average precision against hand-made cases and its own laws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.manifest import validate
from avdetect.errors import MediaError
from avdetect.evaluation.localisation import (
    NMS_IOU,
    Detects,
    average_precision,
    joined_curve,
    measure_localisation,
    overlap,
    proposals,
)
from avdetect.types import Curve, Segment, StreamScore

# -- proposals


def test_a_plateau_is_the_best_segment() -> None:
    times = np.arange(8) + 0.5
    values = [-2, -2, -2, 3, 3, -2, -2, -2]
    (start, end, score), *others = proposals(times, values)
    assert (start, end) == (3.0, 5.0)
    assert score == pytest.approx(5)
    assert all(other[2] < score for other in others)


def test_two_plateaus_are_two_segments_and_one() -> None:
    found = proposals(np.arange(10) + 0.5, [0, 4, 4, 0, 0, 0, 0, 2, 2, 0])
    assert [(start, end) for start, end, _ in found[:2]] == [(1.0, 3.0), (7.0, 9.0)]


def test_a_gap_ends_a_segment() -> None:
    """Nothing was seen between 1 and 5 s: nobody says that it was fake."""
    found = proposals([0.5, 5.5, 6.5], [1, 1, 0])
    assert {(start, end) for start, end, _ in found} >= {(0.0, 1.0), (5.0, 6.0)}
    assert not any(start < 3 < end for start, end, _ in found)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_curves(count: int) -> None:
    found = proposals(np.arange(count) + 0.5, np.ones(count))
    assert found == ([(0.0, float(count), 0.0)] if count else []), "flat: one segment that stands out from nothing"


def test_cells_of_another_length() -> None:
    assert proposals([0.1, 0.3, 0.5], [0, 1, 0], step=0.2)[0][:2] == pytest.approx((0.2, 0.4))


@pytest.mark.parametrize(("times", "values"), [([1, 0], [1, 1]), ([0, 1], [1]), ([0, 0], [1, 2])])
def test_what_is_no_curve_is_refused(times: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="times must rise"):
        proposals(times, values)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=120), st.data())
def test_proposals_lie_in_the_curve_apart_and_in_order(values: list[float], data: st.DataObject) -> None:
    seconds = data.draw(st.lists(st.integers(0, 300), min_size=len(values), max_size=len(values), unique=True))
    times = np.sort(seconds) + 0.5
    found = proposals(times, values)
    assert found, "the whole curve, at the least"
    scores = [score for *_, score in found]
    assert scores == sorted(scores, reverse=True)
    for i, (start, end, _) in enumerate(found):
        assert times[0] - 0.5 <= start < end <= times[-1] + 0.5
        assert all(overlap((start, end), other[:2]) <= NMS_IOU for other in found[:i])


def test_long_curves_do_not_take_long() -> None:
    values = np.random.default_rng(0).standard_normal(1800)
    assert 0 < len(proposals(np.arange(1800) + 0.5, values)) < 20_000


def test_the_score_is_the_contrast_not_the_level() -> None:
    low, high = ([v + level for v in (0, 0, 1, 0)] for level in (-5, 5))
    times = np.arange(4) + 0.5
    for one, other in zip(proposals(times, low), proposals(times, high), strict=True):
        assert one == pytest.approx(other)


# -- average precision


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((0, 1), (0, 1), 1), ((0, 2), (1, 3), 1 / 3), ((0, 1), (1, 2), 0), ((0, 4), (1, 2), 0.25), ((0, 1), (5, 6), 0)],
)
def test_overlap(one: tuple[float, float], other: tuple[float, float], expected: float) -> None:
    assert overlap(one, other) == overlap(other, one) == pytest.approx(expected)


def test_everything_found_first_is_one() -> None:
    predicted = {"a": [(0.0, 1.0, 0.9), (5.0, 6.0, 0.1)], "b": [(2.0, 3.0, 0.8)]}
    assert average_precision(predicted, {"a": [(0.0, 1.0)], "b": [(2.0, 3.0)]}, 0.95) == 1


def test_a_hand_made_case() -> None:
    """By score: right, wrong, right, wrong; three are true. Precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3."""
    predicted = {
        "a": [(0.0, 1.0, 0.9), (8.0, 9.0, 0.8)],
        "b": [(0.0, 2.0, 0.7)],
        "real": [(0.0, 9.0, 0.6)],
    }
    truth = {"a": [(0.0, 1.0), (4.0, 5.0)], "b": [(0.0, 2.0)]}
    assert average_precision(predicted, truth, 0.5) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)


def test_a_true_segment_is_found_once() -> None:
    """The second that fits it is wrong; precision after it does not count, for no recall is won."""
    twice = {"a": [(0.0, 1.0, 0.9), (0.0, 1.0, 0.8), (3.0, 4.0, 0.7)]}
    assert average_precision(twice, {"a": [(0.0, 1.0), (3.0, 4.0)]}, 0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_precision_is_interpolated() -> None:
    """A wrong one before a right one costs no more than the best precision at a higher recall."""
    predicted = {"a": [(9.0, 10.0, 0.9), (0.0, 1.0, 0.8), (2.0, 3.0, 0.7)]}
    assert average_precision(predicted, {"a": [(0.0, 1.0), (2.0, 3.0)]}, 0.5) == pytest.approx(2 / 3)


def test_the_best_fit_is_taken() -> None:
    """(0, 10) fits both; it takes (0, 10) and leaves (0, 8) to the next."""
    predicted = {"a": [(0.0, 10.0, 0.9), (0.0, 8.0, 0.8)]}
    assert average_precision(predicted, {"a": [(0.0, 8.0), (0.0, 10.0)]}, 0.75) == 1


def test_the_overlap_decides() -> None:
    predicted = {"a": [(0.0, 6.0, 1.0)]}
    assert [average_precision(predicted, {"a": [(0.0, 10.0)]}, iou) for iou in (0.5, 0.6, 0.61)] == [1, 1, 0]


def test_nothing_true_and_nothing_found() -> None:
    assert np.isnan(average_precision({"a": [(0.0, 1.0, 1.0)]}, {"a": []}, 0.5))
    assert average_precision({}, {"a": [(0.0, 1.0)]}, 0.5) == 0
    with pytest.raises(ValueError, match="iou must be"):
        average_precision({}, {}, 0)


SEGMENT = st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda s: (float(s[0]), float(s[0] + s[1])))
TRUTH = st.dictionaries(st.sampled_from("abc"), st.lists(SEGMENT, max_size=4), max_size=3)
FOUND = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.tuples(SEGMENT, st.floats(0, 1)).map(lambda s: (*s[0], s[1])), max_size=6)
)


@settings(max_examples=200, deadline=None)
@given(FOUND, TRUTH, st.floats(0.05, 1))
def test_laws_of_average_precision(
    predicted: dict[str, list[tuple[float, float, float]]], truth: dict[str, list[tuple[float, float]]], iou: float
) -> None:
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


@dataclass
class Found:
    streams: tuple[StreamScore, ...]
    segments: tuple[Segment, ...] = ()
    duration_seconds: float = 6.0


def curve(*values: float) -> Curve:
    return Curve(tuple(i + 0.5 for i in range(len(values))), values, 0.0)


class Fixed:
    """Detects what it is told; a path that it does not know is damaged."""

    def __init__(self, found: dict[str, Found]) -> None:
        self.found, self.asked = found, list[str]()

    def score(self, path: str) -> Found:
        self.asked.append(path)
        if path not in self.found:
            raise MediaError("damaged; copy it again")
        return self.found[path]


def table(**columns: list[object]) -> pd.DataFrame:
    rows = {
        "path": ["/whole", "/part", "/real", "/elsewhere", "/gone"],
        "fake": [1, 1, 0, 0, 1],
        "dataset": ["a", "a", "a", "b", "a"],
        "fake_segments": [(), ((2.0, 4.0),), (), (), ((0.0, 1.0),)],
    }
    shared = {"group": rows["path"], "video_fake": None, "audio_fake": None, "method": "", "split": "dev"}
    return validate(pd.DataFrame(rows | shared | columns))


def proposed(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["method"] == "proposals"].set_index("score")


def test_a_manifest_is_measured_on_its_partial_forgeries_and_their_reals() -> None:
    seen = StreamScore("visual", 0.0, (curve(0, 0, 9, 9, 0, 0), curve(0, 0, 1, 1, 0, 0)))
    calm = StreamScore("visual", 0.0, (curve(0, 0, 0, 0),))
    heard = StreamScore("audio", 0.0, (curve(9, 0, 0, 0, 0, 0),))
    known = {"/part": Found((seen, heard)), "/real": Found((calm,)), "/whole": Found((heard,))}
    detector: Detects = Fixed(known)  # type: ignore[assignment]
    found = proposed(measure_localisation(table(), detector))
    assert detector.asked == ["/whole", "/part", "/real", "/gone"]  # type: ignore[attr-defined]
    assert found["failed"].eq(1).all()
    assert found["files"].eq(3).all(), "neither what is fake from end to end nor another dataset"
    assert found["segments"].eq(2).all()
    assert found.loc["visual", "ap_95"] == 0.5, "of the file that cannot be read the segment is missed"
    assert found.loc["visual", "ap_mean"] == 0.5
    assert found.loc["audio", "ap_50"] == 0
    assert found.loc["sync", "ap_mean"] == 0
    assert found.loc["visual and audio", "ap_50"] == 0.5


def test_the_segments_of_a_result_are_measured_beside() -> None:
    face = [Segment(2.0, 4.0, "visual", 3.0, 0), Segment(0.0, 2.0, "visual", 1.0, 1)]
    voice = [Segment(0.0, 3.0, "audio", 4.0), Segment(4.0, 5.5, "audio", 2.0)]
    known = {"/part": Found((), tuple(face)), "/real": Found((), (voice[0],)), "/whole": Found((), tuple(voice))}
    detector: Detects = Fixed(known)  # type: ignore[assignment]
    given = table(video_fake=[0, 1, 0, 0, 1], audio_fake=[1, 0, 0, 0, 0])
    found = measure_localisation(given, detector)
    own = found[found["method"] == "segments"].set_index("score")
    assert list(own.index) == ["visual", "audio", "visual and audio"], "sync has no segments"
    assert own["ap_95"].tolist() == [0.5, 0, 0.25], "a real file's segment is the better one of two"
    assert own["real"].eq(1).all()
    assert own["false_alarms"].tolist() == [0, 1, 1]
    assert own["whole"].tolist() == [0, 1, 1]
    assert own["covered"].isna().tolist() == [True, False, False]
    assert own.loc["audio", "covered"] == 0.75
    assert found[found["method"] == "proposals"][["real", "false_alarms", "covered"]].isna().all(axis=None)


def test_what_segments_cover_is_counted_once() -> None:
    twice = (Segment(0.0, 3.0, "visual", 3.0, 0), Segment(1.0, 2.0, "visual", 3.0, 1), Segment(2.0, 4.0, "audio", 3.0))
    known = {"/part": Found(()), "/real": Found(()), "/whole": Found((), twice)}
    detector: Detects = Fixed(known)  # type: ignore[assignment]
    found = measure_localisation(table(video_fake=[1, 1, 0, 0, 1]), detector)
    own = found[found["method"] == "segments"].set_index("score")["covered"]
    assert (own["visual"], own["visual and audio"]) == pytest.approx((3 / 6, 4 / 6))


def test_a_stream_is_held_against_its_own_part() -> None:
    segments = {"video_fake_segments": [(), ((2.0, 4.0),), (), (), ()], "audio_fake_segments": [()] * 5}
    given = table(**segments, video_fake=[None, 1, 0, 0, None])
    seen = StreamScore("visual", 0.0, (curve(0, 0, 9, 9, 0, 0),))
    detector: Detects = Fixed({"/part": Found((seen,)), "/real": Found(())})  # type: ignore[assignment]
    found = proposed(measure_localisation(given, detector))
    assert found.loc["visual", ["segments", "ap_95"]].tolist() == [1, 1]
    assert "audio" not in found.index, "no segment of a voice: nothing to measure"


def test_without_partial_forgeries_there_is_nothing_to_measure() -> None:
    detector: Detects = Fixed({})  # type: ignore[assignment]
    assert measure_localisation(table(fake_segments=[()] * 5), detector).empty
    assert measure_localisation(table().drop(columns="fake_segments"), detector).empty
    assert detector.asked == []  # type: ignore[attr-defined]


def test_curves_are_joined_by_the_second() -> None:
    faces = [curve(1, 5), Curve((1.5, 2.5), (2.0, 3.0), 0.0)]
    times, values = joined_curve([faces, [curve(3)]])
    assert times.tolist() == [0.5, 1.5, 2.5]
    assert values.tolist() == [2, 5, 3]
    assert proposals(*joined_curve([])) == []
