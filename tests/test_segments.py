"""Segments of per-second curves: their laws, and what a file with a forged middle comes out as."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from clips import speech, write_wav
from hypothesis import given, settings
from hypothesis import strategies as st

import avdetect
from avdetect.bundle import OnnxNetworks
from avdetect.detector import Detector, _heard
from avdetect.report.data import SCHEMA_FILE, to_json
from avdetect.report.text import MAX_SEGMENTS, render
from avdetect.segments import HIGH, curve_segments, find_segments, runs
from avdetect.types import SAMPLE_RATE, Curve, Detection, Float, Segment, StreamScore

HEIGHT = 2.0


def curve(*values: float, start: int = 0, track: int | None = None) -> Curve:
    return Curve(tuple(start + i + 0.5 for i in range(len(values))), values, 0.0, track)


def spans(found: list[Segment]) -> list[tuple[float, float]]:
    return [(segment.start_seconds, segment.end_seconds) for segment in found]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Up to forty seconds, some of them unseen, with logits as streams give them."""
    seconds = sorted(draw(st.sets(st.integers(0, 60), max_size=40)))
    values = draw(st.lists(st.floats(-12, 12, width=32), min_size=len(seconds), max_size=len(seconds)))
    return Curve(tuple(second + 0.5 for second in seconds), tuple(values), 0.0)


def cells(one: Curve, segment: Segment) -> np.ndarray:
    """The values that a segment holds."""
    times = np.array(one.times_seconds)
    return np.array(one.values)[(times > segment.start_seconds) & (times < segment.end_seconds)]


def test_a_plateau_is_a_segment_down_to_half_of_its_peak() -> None:
    (found,) = curve_segments(curve(-1, 0.9, 2.0, 4.0, 2.5, 1.9, -1), "audio", HEIGHT)
    assert (found.start_seconds, found.end_seconds) == (2.0, 5.0)
    assert found.score == pytest.approx((2 + 4 + 2.5) / 3, abs=1e-4)
    assert (found.stream, found.track_id) == ("audio", None)


def test_a_whole_forgery_is_one_segment_and_a_real_file_none() -> None:
    assert spans(curve_segments(curve(3.0, 2.5, 3.5, 2.0), "audio", HEIGHT, 0.0, 3.7)) == [(0.0, 3.7)]
    assert curve_segments(curve(1.9, 1.9, -3, 0), "audio", HEIGHT) == []


def test_two_peaks_are_two_segments_of_which_each_has_its_own_height() -> None:
    found = curve_segments(curve(0, 8, 0, 2, 1.5, 0), "audio", HEIGHT)
    assert spans(found) == [(1.0, 2.0), (3.0, 5.0)]


def test_what_was_not_seen_is_in_no_segment() -> None:
    found = curve_segments(Curve((0.5, 3.5, 4.5), (3.0, 3.0, 3.0), 0.0), "visual", HEIGHT)
    assert spans(found) == [(0.0, 1.0), (3.0, 5.0)]


@settings(max_examples=200, deadline=None)
@given(curves(), st.floats(0.5, 6))
def test_segments_lie_in_the_curve_apart_and_in_order(one: Curve, high: float) -> None:
    found = curve_segments(one, "audio", high)
    edges = [edge for span in spans(found) for edge in span]
    assert edges == sorted(edges)
    assert all(segment.start_seconds < segment.end_seconds for segment in found)
    if found:
        assert one.times_seconds[0] - 0.5 <= edges[0]
        assert edges[-1] <= one.times_seconds[-1] + 0.5


@settings(max_examples=200, deadline=None)
@given(curves(), st.floats(0.5, 6))
def test_the_law_of_hysteresis(one: Curve, high: float) -> None:
    """Each segment reaches the high level and nowhere falls below half of its peak; the curve's peak is in one."""
    found = curve_segments(one, "audio", high)
    for segment in found:
        inside = cells(one, segment)
        assert len(inside) == round(segment.end_seconds - segment.start_seconds), "no second of it was unseen"
        assert inside.max() >= high
        assert inside.min() >= inside.max() / 2
        assert segment.score == pytest.approx(inside.mean(), abs=1e-3)
    assert bool(found) == (max(one.values, default=-math.inf) >= high)
    if found:
        assert max(cells(one, segment).max() for segment in found) == max(one.values)


@settings(max_examples=50, deadline=None)
@given(curves(), st.integers(0, 1000))
def test_a_later_curve_has_later_segments(one: Curve, shift: int) -> None:
    later = Curve(tuple(t + shift for t in one.times_seconds), one.values, 0.0)
    moved = [(start + shift, end + shift) for start, end in spans(curve_segments(one, "audio", HEIGHT))]
    assert spans(curve_segments(later, "audio", HEIGHT)) == moved


@given(st.floats(-20, 1.99), st.integers(0, 30))
def test_a_low_flat_curve_has_none(level: float, count: int) -> None:
    assert curve_segments(curve(*[level] * count), "audio", HEIGHT) == []


@given(curves(), st.floats(0, 30), st.floats(0, 30))
def test_segments_lie_in_what_was_scored(one: Curve, start: float, length: float) -> None:
    for begin, end in spans(curve_segments(one, "audio", HEIGHT, start, start + length)):
        assert round(start, 3) <= begin <= end <= round(start + length, 3)


def test_all_streams_with_a_level_in_the_order_of_their_start() -> None:
    face, voice = HIGH["visual"] + 1, HIGH["audio"] + 1
    streams = (
        StreamScore("visual", 0.0, (curve(-9, -9, face, track=0), curve(face, -9, -9, track=1))),
        StreamScore("audio", 0.0, (curve(-9, voice, -9),)),
        StreamScore("sync", 0.0, (curve(99, 99, 99, track=0),)),
    )
    found = find_segments(streams, 0.0, 2.5)
    assert spans(list(found)) == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    assert [(segment.stream, segment.track_id) for segment in found] == [("visual", 1), ("audio", None), ("visual", 0)]


def test_runs_of_another_step() -> None:
    above, times = np.array([True, True, False, True]), np.array([0.1, 0.3, 0.5, 0.7])
    assert runs(above, times, 0.2) == [(0, 1), (3, 3)]
    assert runs(np.ones(0, bool), np.ones(0)) == []


# -- the voice's curve


def test_a_window_counts_for_the_seconds_that_it_hears() -> None:
    heard = _heard([(1.0, 0.0), (2.0, 2.0)], 2.0, 0.0, 3.0)
    assert heard == pytest.approx({0: 0.0, 1: 1.0, 2: 2.0})


def test_the_last_window_counts_by_how_much_of_a_second_it_hears() -> None:
    heard = _heard([(1.0, 0.0), (1.25, 4.0)], 2.0, 0.0, 2.25)  # the last one ends with the sound: 0.25 to 2.25 s
    assert heard == pytest.approx({0: 4 * 0.75 / 1.75, 1: 2.0, 2: 4.0})


def test_a_sound_shorter_than_a_window_is_heard_to_its_end() -> None:
    assert _heard([(0.6, 3.0)], 2.0, 0.0, 1.2) == pytest.approx({0: 3.0, 1: 3.0})
    assert _heard([(1.0, 3.0)], 2.0, 0.0, 1.0 + 1e-9) == {0: 3.0}, "a rounding error is no second"


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 9), st.integers(1, 4), st.floats(0, 3))
def test_a_forged_stretch_stands_in_the_middle_of_its_segment(seconds: int, length: int, start: float) -> None:
    """Windows as `scoring.audio_windows` lays them: nothing is moved to one side."""
    centres = [start + 1 + i for i in range(2 * seconds + length)]
    heard = _heard([(c, 4.0 if seconds <= i < seconds + length else -4.0) for i, c in enumerate(centres)], 2.0, 0, 99)
    middle = sum(max(0.0, 4 + v) * (s + 0.5) for s, v in heard.items()) / sum(max(0.0, 4 + v) for v in heard.values())
    assert middle == pytest.approx(start + 1 + seconds + (length - 1) / 2, abs=0.3)


# -- from a file to its report


FORGED = HIGH["audio"] + 1


class HearsTheTone:
    """The bundle's networks, but for the voice one that takes a high tone for the forgery."""

    def __init__(self, networks: OnnxNetworks) -> None:
        self._networks = networks

    def __getattr__(self, name: str) -> object:
        return getattr(self._networks, name)

    def speech(self, mels: Float) -> Float:
        self._mels = mels
        return self._networks.speech(mels)

    def audio(self, frames: Float) -> Float:
        mels = self._mels  # of these frames
        share = (mels[:, :, 60:].max(2) > mels.mean(2) + 5).mean(1)
        return np.where(share > 0.3, FORGED, -2).astype(np.float32)


@pytest.fixture(scope="module")
def spliced(tmp_path_factory: pytest.TempPathFactory) -> Detection:
    """Ten seconds of a voice with a high tone from 3 to 7 s, from a file without a picture."""
    target = tmp_path_factory.mktemp("spliced") / "spliced.wav"
    samples, time = speech(10.0), np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    samples += 0.1 * np.where((time >= 3) & (time < 7), np.sin(2 * np.pi * 5000 * time), 0).astype(np.float32)
    write_wav(target, samples)
    whole = avdetect.load_detector(device="cpu", threads=1)
    info = whole.bundle.info
    audio = dataclasses.replace(info.model.audio, window_seconds=2.0, stride_seconds=1.0)  # fine enough for the tone
    info = dataclasses.replace(info, model=dataclasses.replace(info.model, audio=audio))
    networks: OnnxNetworks = HearsTheTone(whole.networks)  # type: ignore[assignment]
    return Detector(dataclasses.replace(whole.bundle, info=info), whole.preprocessor, networks).score(target)


def test_a_forged_middle_is_found_where_it_is(spliced: Detection) -> None:
    (found,) = spliced.segments
    assert (found.start_seconds, found.end_seconds, found.stream) == (3.0, 7.0, "audio")
    assert found.score == pytest.approx(FORGED, abs=0.01)
    (voice,) = spliced.streams
    assert voice.curves[0].times_seconds == tuple(second + 0.5 for second in range(10))


def test_the_json_holds_segments_and_needs_them(spliced: Detection) -> None:
    schema, document = json.loads(SCHEMA_FILE.read_text()), json.loads(to_json([spliced]))
    jsonschema.validate(document, schema)
    assert document["results"][0]["segments"][0]["stream"] == "audio"
    del document["results"][0]["segments"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_the_report_says_when_and_what(spliced: Detection) -> None:
    assert "\n  from 3.0 to 7.0 s  the voice\n" in render(spliced).plain
    many = tuple(Segment(i, i + 0.5, "visual", 3.0, 1) for i in range(MAX_SEGMENTS + 2))
    text = render(dataclasses.replace(spliced, segments=many)).plain
    assert text.count("the face\n") == MAX_SEGMENTS
    assert "  and 2 more stretches: see --json\n" in text
    assert " s  the voice" not in render(dataclasses.replace(spliced, segments=())).plain


def test_the_sample_is_forged_from_end_to_end() -> None:
    sample = Path(avdetect.__file__).parent / "weights" / "sample" / "sample.mp4"
    found = avdetect.load_detector(device="cpu", threads=1).score(sample)
    voice = [segment for segment in found.segments if segment.stream == "audio"]
    assert (voice[0].start_seconds, voice[-1].end_seconds) == (0.0, found.duration_seconds)
    assert sum(segment.end_seconds - segment.start_seconds for segment in voice) > 5
