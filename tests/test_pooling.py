"""From frame outputs to features: the sign of the offset, valid pairs only, and pooling that a reviewer can predict."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.pooling import (
    MIN_OFFSET_PAIRS,
    MIN_SPEAKING,
    MIN_STRETCH_WINDOWS,
    MIN_SYNC_WINDOWS,
    NEAR,
    NUM_VALUES,
    STREAM_OF_VALUE,
    SyncDistances,
    SyncReading,
    confident_mean,
    fusion_features,
    heard_per_second,
    read_sync,
    sync_distances,
    sync_over_time,
    track_logits,
)

MAX = 15
logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40).map(lambda v: np.array(v, np.float32))


def unit(rows: int, seed: int = 0, size: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def lagging(lag: int, windows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Mouth and voice embeddings where the sound of mouth t is heard `lag` frames later."""
    moments = unit(windows + 2 * MAX)
    return moments[MAX : MAX + windows], moments[MAX - lag : MAX - lag + windows]


def distances_of(
    mouth: np.ndarray, voice: np.ndarray, start: int = 0, valid: np.ndarray | None = None
) -> SyncDistances:
    """Of a voice that begins with the file, all of it speech unless `valid` says so."""
    return sync_distances(mouth, start, voice, 0, np.ones(len(voice), bool) if valid is None else valid, MAX)


def read(distances: SyncDistances) -> SyncReading:
    found = read_sync(distances)
    assert found is not None
    return found


# -- pooling of logits


@settings(max_examples=40, deadline=None, derandomize=True)
@given(logits)
def test_confident_mean_is_a_mean_that_treats_both_classes_and_every_order_alike(values: np.ndarray) -> None:
    mean = confident_mean(values)
    assert values.min() - 1e-4 <= mean <= values.max() + 1e-4
    assert confident_mean(-values) == pytest.approx(-mean, abs=1e-4)
    assert confident_mean(np.sort(values)) == pytest.approx(mean, abs=1e-4)
    same_sign = np.abs(values)
    padded = np.concatenate([same_sign, np.zeros(len(same_sign), np.float32)])
    assert confident_mean(padded) <= confident_mean(same_sign) + 1e-4
    assert confident_mean(padded) >= same_sign.mean() / 2 - 1e-4, "frames that say nothing pull less than those that do"


def test_a_track_of_few_crops_is_drawn_to_its_file() -> None:
    none = np.zeros(0, np.float32)
    # PRIOR_CROPS of them: half its own, half the file's (-1).
    assert track_logits({1: np.full(12, -2.0), 2: np.full(4, 2.0)}, "mean") == pytest.approx({1: -1.75, 2: 0.5})
    assert track_logits({1: np.full(3, -4.0), 2: none}) == pytest.approx({1: -4.0}), "alone it is drawn to nothing"
    assert track_logits({1: none}) == track_logits({}) == {}
    assert track_logits({1: np.array([4, 0.1, 0.1])}, "mean") == pytest.approx({1: 1.4})
    assert track_logits({1: np.array([4, 0.1, 0.1])})[1] > 2, "confident frames count more"
    # Many short noisy tracks of a cut video do not look forged.
    rng = np.random.default_rng(0)
    tracks = {i: rng.normal(-2, 1.5, 1 + i % 3).astype(np.float32) for i in range(300)}
    forged = np.full(30, 1.0, np.float32)  # one face that is followed for long
    assert max(map(confident_mean, tracks.values())) > 1.0, "some of many look more forged by chance"
    found = track_logits(tracks | {300: forged})
    assert max(track_logits(tracks).values()) < 0 < found[300] == max(found.values())


# -- windows of sound, by second


def test_a_stretch_counts_for_the_seconds_that_it_holds() -> None:
    assert heard_per_second([(0.0, 2.0, 0.0), (1.0, 3.0, 2.0)]) == pytest.approx({0: 0.0, 1: 1.0, 2: 2.0})
    assert heard_per_second([(0.0, 2.0, 0.0), (0.25, 2.25, 4.0)]) == pytest.approx({0: 4 * 0.75 / 1.75, 1: 2.0, 2: 4.0})
    assert heard_per_second([(0.0, 1.0 + 1e-9, 3.0)]) == {0: 3.0}, "a rounding error is no second"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 9), st.integers(1, 4), st.floats(0, 3))
def test_a_forged_stretch_stands_in_the_middle_of_its_curve(seconds: int, length: int, start: float) -> None:
    """Stretches of two seconds, one a second: nothing is moved to one side."""
    values = [4.0 if seconds <= i < seconds + length else -4.0 for i in range(2 * seconds + length)]
    heard = heard_per_second((start + i, start + i + 2, value) for i, value in enumerate(values))
    middle = sum(max(0.0, 4 + v) * (s + 0.5) for s, v in heard.items()) / sum(max(0.0, 4 + v) for v in heard.values())
    assert middle == pytest.approx(start + 1 + seconds + (length - 1) / 2, abs=0.3)


# -- sync


@pytest.mark.parametrize("lag", [-MAX, -3, 0, 3, 4, MAX])
def test_audio_that_lags_by_k_frames_reads_as_plus_k(lag: int) -> None:
    found = read(distances_of(*lagging(lag)))
    assert found.offset_seconds == lag / 25
    assert found.min_distance == pytest.approx(0, abs=0.05)  # but for what a window is nearer on average
    assert found.confidence > 1.0  # random unit vectors are about sqrt(2) apart
    assert found.at_zero > 1.2 if lag else found.at_zero == found.min_distance
    # A shift of a few frames is a match, a larger one is none.
    assert found.match == found.confidence if abs(lag) <= NEAR else -0.2 < found.match < 0.2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 30), st.integers(-20, 20), st.integers(0, 30), st.integers(0, 6), st.integers(0, 99))
def test_distances_are_those_of_the_pairs_that_exist(w: int, start: int, v: int, largest: int, seed: int) -> None:
    mouth, voice = unit(w, seed, 4), unit(v, seed + 1, 4)
    valid = np.random.default_rng(seed).random(v) < 0.7
    distances = sync_distances(mouth, start, voice, 0, valid, largest)
    np.testing.assert_array_equal(distances.offsets, np.arange(-largest, largest + 1))
    every = np.linalg.norm(mouth[:, None].astype(float) - voice[None], axis=2)  # (w, v)
    if w and valid.any():
        mean = every[:, valid].mean()
        every = every - (every[:, valid].mean(1, keepdims=True) - mean) - (every.mean(0, keepdims=True) - mean)
    for column, offset in enumerate(distances.offsets):
        known = [(i, j) for i in range(w) if 0 <= (j := start + i + offset) < v and valid[j]]
        assert distances.total[:, column].sum() == pytest.approx(sum(every[i, j] for i, j in known), abs=2e-3)
        for second, count in zip(distances.seconds, distances.count[:, column], strict=True):
            assert count == sum((start + i) // 25 == second for i, _ in known)


def test_moments_that_are_near_to_all_draw_no_offset_to_themselves() -> None:
    """Late offsets have fewer pairs, so that a stretch at the end, near to every mouth, is more of their mean."""
    mouth, voice = lagging(-4)
    common = np.full(mouth.shape[1], 1 / np.sqrt(mouth.shape[1]), np.float32)
    mouth = mouth + 6 * unit(len(mouth), 7) + 8 * common
    voice = voice.copy()
    voice[44:] = 0.2 * voice[44:] + 3 * common
    mouth, voice = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (mouth, voice))
    assert read(distances_of(mouth, voice)).offset_seconds == -4 / 25


def test_edges_favour_no_offset_when_every_pair_is_equally_far() -> None:
    """Zero padding would make the edges nearer or farther; pairs that do not exist must not count at all."""
    mouth = np.tile(np.eye(4, dtype=np.float32)[:2], (30, 1))  # it moves, to and fro
    distances = distances_of(mouth, np.tile(np.eye(4, dtype=np.float32)[2:3], (60, 1)))
    np.testing.assert_allclose(distances.total.sum(0) / distances.count.sum(0), np.sqrt(2), rtol=1e-6)
    found = read(distances)
    assert found.confidence == pytest.approx(0, abs=1e-5)
    assert found.offset_seconds == 0, "where nothing is better, nothing is out of step"


def test_silent_voices_do_not_count() -> None:
    mouth, voice = lagging(3, 80)
    silent = (np.arange(80) >= 20) & (np.arange(80) < 40)
    voice = np.where(silent[:, None], mouth, voice)  # would say "in step" if it counted
    distances = distances_of(mouth, voice, valid=~silent)
    found = read(distances)
    assert found.offset_seconds == 3 / 25
    assert distances.count[:, MAX].sum() == distances.spoken.sum() == 60
    assert max(distance for _, distance in found.curve) < 0.1  # nothing silent is in the curve


def test_clips_of_a_file_add_up() -> None:
    mouth, voice = lagging(2, 80)
    whole = distances_of(mouth, voice)
    parts = [sync_distances(mouth[i : i + 40], i, voice[i : i + 40], i, np.ones(40, bool), MAX) for i in (0, 40)]
    assert read_sync(parts[0]) is None, "too short on its own"
    joined = SyncDistances.join(parts)
    assert read(joined).offset_seconds == read(whole).offset_seconds == 2 / 25
    np.testing.assert_array_equal(joined.count.sum(0), 2 * parts[0].count.sum(0))
    assert joined.speaking() == pytest.approx(whole.speaking(), abs=1e-6)
    assert [second for second, _ in read(joined).curve] == [0.5, 1.5, 1.5, 2.5, 3.5]  # the cut stands inside second 1
    cut = whole.within(whole.seconds == 1)
    assert cut.speaking() == pytest.approx(1 - np.linalg.norm(mouth[25:50].mean(0)), abs=1e-6)


@pytest.mark.parametrize(("windows", "stretch", "file"), [(0, 0, 0), (19, 0, 0), (20, 1, 0), (49, 1, 0), (50, 1, 1)])
def test_too_few_frames_say_nothing(windows: int, stretch: bool, file: bool) -> None:
    distances = distances_of(*lagging(0, windows))
    assert (read_sync(distances, MIN_STRETCH_WINDOWS) is not None) == stretch
    assert (read_sync(distances) is not None) == file


# -- the match, and who speaks


def test_the_match_is_between_the_best_near_offset_and_the_median() -> None:
    offsets = np.arange(-MAX, MAX + 1)
    mean = np.full(len(offsets), 1.3)
    mean[MAX + 2], mean[MAX + 9] = 1.0, 0.8
    count = np.full((1, len(offsets)), 60)
    found = read(SyncDistances(offsets, np.array([0]), mean[None] * 60, count, np.zeros((1, 4)), np.array([60])))
    assert (found.match, found.confidence) == (pytest.approx(0.3), pytest.approx(0.5))
    assert found.offset_seconds == 9 / 25


def test_no_pair_near_offset_0_is_no_match_and_an_offset_backed_by_few_pairs_is_not_read() -> None:
    # A voice that begins when the face is gone: what the lips said is not there.
    gone = sync_distances(unit(60), 0, unit(60, 1), 60, np.ones(60, bool), 100)
    assert gone.count.sum(0).max() >= MIN_SYNC_WINDOWS
    assert read_sync(gone) is None
    distances = sync_distances(unit(60), 0, unit(60, 1), 0, np.ones(60, bool), 55)
    rare = distances.count.sum(0) < MIN_OFFSET_PAIRS
    assert rare.any()
    found = read(dataclasses.replace(distances, total=np.where(rare, 0.0, distances.total)))
    assert abs(found.offset_seconds * 25) <= 50
    assert found.min_distance > 1


def test_a_mouth_that_stands_still_does_not_speak() -> None:
    still = unit(1) + 0.01 * np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    still /= np.linalg.norm(still, axis=1, keepdims=True)
    distances = distances_of(still, unit(100, 1))
    assert 0 < distances.speaking() < MIN_SPEAKING
    assert distances.stands_still()
    assert read_sync(distances) is None
    assert not distances_of(unit(100), unit(100, 1)).stands_still()
    # It rests while the voice speaks and moves in its pauses: it answers somebody.
    voice, valid = unit(120, 1), np.arange(120) < 60
    mouth = np.where(valid[:, None], unit(1), unit(120))
    assert distances_of(mouth, voice, valid=valid).speaking() == pytest.approx(0, abs=1e-5)
    assert distances_of(mouth, voice, valid=~valid).speaking() > 0.5


def test_the_curve_over_time_shows_where_the_voice_slips_or_is_silent() -> None:
    mouth, early = lagging(-5, 250)
    voice, valid = np.concatenate([early[:125], lagging(10, 250)[1][125:]]), np.arange(250) < 225
    parts = [sync_distances(mouth[i:j], i, voice, 0, valid, MAX) for i, j in ((0, 140), (140, 250))]
    points = sync_over_time(SyncDistances.join(parts), 3)
    assert [seconds for seconds, _ in points] == [i + 0.5 for i in range(10)]  # a cut divides second 5
    offsets = {seconds: reading.offset_seconds for seconds, reading in points if reading is not None}
    assert [offsets[t] for t in (0.5, 2.5, 7.5)] == [-0.2, -0.2, 0.4]
    silent = sync_over_time(distances_of(mouth, voice, valid=np.arange(250) < 100), 3)
    assert dict(silent)[8.5] is None


# -- features


@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_features_carry_values_and_the_mask(present: tuple[int, int, int]) -> None:
    reading = SyncReading(-0.2, 0.5, 0.7, 0.9, 0.3, ((0.5, 0.7),))
    values = (1.5, -2.0, 0.5, 0.7, 0.3, 0.2)
    vector = fusion_features(*(x if there else None for x, there in zip((1.5, -2.0, reading), present, strict=True)))
    assert vector.dtype == np.float32
    expected = [value * present[stream] for value, stream in zip(values, STREAM_OF_VALUE, strict=True)]
    np.testing.assert_allclose(vector, [*expected, *present])
    # A logit of zero is not a missing stream.
    np.testing.assert_array_equal(fusion_features(0.0, None, None)[NUM_VALUES:], [1, 0, 0])
