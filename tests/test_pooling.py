"""From frame outputs to features: the sign of the offset, valid pairs only, and pooling that a reviewer can predict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.pooling import (
    FEATURES,
    MIN_OFFSET_PAIRS,
    MIN_SPEAKING,
    MIN_STRETCH_WINDOWS,
    MIN_SYNC_WINDOWS,
    NEAR,
    NUM_VALUES,
    PART_OF,
    STREAM_OF_VALUE,
    STREAMS,
    SyncDistances,
    SyncReading,
    confident_mean,
    fusion_features,
    pool_tracks,
    read_sync,
    sync_distances,
    sync_over_time,
    track_logit,
)

MAX = 15
logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40).map(lambda v: np.array(v, np.float32))


def unit(rows: int, seed: int = 0, size: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def lagging(lag: int, windows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Mouth and voice embeddings where the sound of mouth t is heard `lag` frames later."""
    moments = unit(windows + 2 * MAX)
    mouth = moments[MAX : MAX + windows]
    voice = moments[MAX - lag : MAX - lag + windows]  # voice[t + lag] is the moment of mouth[t]
    return mouth, voice


def heard(voice: np.ndarray) -> np.ndarray:
    return np.ones(len(voice), bool)


# -- pooling of logits


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logits)
def test_confident_mean_lies_between_the_extremes(values: np.ndarray) -> None:
    mean = confident_mean(values)
    assert values.min() - 1e-4 <= mean <= values.max() + 1e-4


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logits)
def test_confident_mean_treats_both_classes_alike(values: np.ndarray) -> None:
    assert confident_mean(-values) == pytest.approx(-confident_mean(values), abs=1e-4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logits, st.randoms(use_true_random=False))
def test_confident_mean_knows_no_order(values: np.ndarray, random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert confident_mean(np.array(shuffled, np.float32)) == pytest.approx(confident_mean(values), abs=1e-4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logits.filter(lambda v: abs(v).max() > 0.1))
def test_frames_that_say_nothing_pull_less_than_frames_that_do(values: np.ndarray) -> None:
    same_sign = np.abs(values)
    padded = np.concatenate([same_sign, np.zeros(len(same_sign), np.float32)])
    assert same_sign.mean() / 2 < confident_mean(padded) <= confident_mean(same_sign) + 1e-4
    assert confident_mean(same_sign) >= same_sign.mean() - 1e-4


def test_confident_mean_of_equal_and_of_undecided_frames() -> None:
    assert confident_mean(np.full(5, 3.0, np.float32)) == pytest.approx(3.0)
    assert confident_mean(np.zeros(5, np.float32)) == 0.0
    sure, unsure = 4.0, 0.1
    assert confident_mean(np.array([sure] + [unsure] * 4, np.float32)) > 2.5


def test_the_most_suspicious_track_speaks_for_the_file() -> None:
    real, fake = np.full(10, -4.0, np.float32), np.full(5, 2.0, np.float32)
    assert pool_tracks({1: real, 2: fake}) == pool_tracks({2: fake, 1: real}) == track_logit(fake) > 0
    assert pool_tracks({1: real}) == track_logit(real) < 0
    assert pool_tracks({1: real, 2: np.zeros(0, np.float32)}) == track_logit(real)
    assert pool_tracks({1: np.zeros(0, np.float32)}) is None
    assert pool_tracks({}) is None


def test_a_glimpse_of_a_face_says_little() -> None:
    assert track_logit(np.full(2, 3.0, np.float32)) == pytest.approx(1.5)  # PRIOR_CROPS of them: half
    assert track_logit(np.full(500, 3.0, np.float32)) == pytest.approx(3.0, rel=0.02)


def test_many_short_noisy_tracks_of_a_cut_video_do_not_look_forged() -> None:
    rng = np.random.default_rng(0)
    tracks = {i: rng.normal(-2, 1.5, 1 + i % 3).astype(np.float32) for i in range(300)}
    forged = track_logit(np.full(30, 1.0, np.float32))  # one face that is followed for long
    assert max(map(confident_mean, tracks.values())) > forged, "some of many look more forged by chance"
    assert pool_tracks(tracks) < forged


# -- sync


@pytest.mark.parametrize("lag", range(-MAX, MAX + 1))
def test_audio_that_lags_by_k_frames_reads_as_plus_k(lag: int) -> None:
    mouth, voice = lagging(lag)
    reading = read_sync(sync_distances(mouth, 0, voice, 0, heard(voice), MAX))
    assert reading is not None
    assert reading.offset_seconds == lag / 25
    assert reading.min_distance == pytest.approx(0, abs=0.05)  # but for what a window is nearer on average
    assert reading.confidence > 1.0  # random unit vectors are about sqrt(2) apart
    if lag:
        assert reading.at_zero > 1.2
    else:
        assert reading.at_zero == reading.min_distance


@pytest.mark.parametrize("mouth_start", [-7, 0, 12])
def test_a_face_that_appears_later_is_not_an_offset(mouth_start: int) -> None:
    moments = unit(100)
    voice = moments[10:80]  # voice j is moment 10 + j
    mouth = moments[10 + mouth_start :][:60]
    reading = read_sync(sync_distances(mouth, mouth_start, voice, 0, heard(voice), MAX))
    assert reading is not None
    assert reading.offset_seconds == 0
    assert reading.min_distance == pytest.approx(0, abs=0.05)  # but for what a window is nearer on average


@settings(max_examples=40, deadline=None, derandomize=True)
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
        pairs = [(i, start + i + offset) for i in range(w)]
        known = [(i, j) for i, j in pairs if 0 <= j < v and valid[j]]
        expected = [every[i, j] for i, j in known]
        assert distances.count[:, column].sum() == len(known)
        assert distances.total[:, column].sum() == pytest.approx(sum(expected), abs=2e-3)
        for second, count in zip(distances.seconds, distances.count[:, column], strict=True):
            assert count == sum((start + i) // 25 == second for i, _ in known)


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_moments_that_are_near_to_all_draw_no_offset_to_themselves(seed: int) -> None:
    """Late offsets have fewer pairs, so that a stretch at the end, near to every mouth, is more of their mean."""
    mouth, voice = lagging(-4)
    common = np.full(mouth.shape[1], 1 / np.sqrt(mouth.shape[1]), np.float32)
    mouth = mouth + 6 * unit(len(mouth), seed) + 8 * common
    voice = voice.copy()
    voice[44:] = 0.2 * voice[44:] + 3 * common
    mouth, voice = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (mouth, voice))
    reading = read_sync(sync_distances(mouth, 0, voice, 0, heard(voice), MAX))
    assert reading is not None
    assert reading.offset_seconds == -4 / 25


def test_edges_favour_no_offset_when_every_pair_is_equally_far() -> None:
    """Zero padding would make the edges nearer or farther; pairs that do not exist must not count at all."""
    mouth = np.tile(np.eye(4, dtype=np.float32)[:2], (30, 1))  # it moves, to and fro
    voice = np.tile(np.eye(4, dtype=np.float32)[2:3], (60, 1))
    distances = sync_distances(mouth, 0, voice, 0, heard(voice), MAX)
    np.testing.assert_allclose(distances.total.sum(0) / distances.count.sum(0), np.sqrt(2), rtol=1e-6)
    reading = read_sync(distances)
    assert reading is not None
    assert reading.confidence == pytest.approx(0, abs=1e-5)
    assert reading.offset_seconds == 0, "where nothing is better, nothing is out of step"


def test_random_embeddings_are_not_drawn_to_the_edges() -> None:
    """The outermost third of the offsets has fewer pairs, hence noisier means, but must not win most of the time."""
    found = []
    for seed in range(300):
        reading = read_sync(sync_distances(unit(60, seed, 128), 0, v := unit(60, seed + 999, 128), 0, heard(v), MAX))
        assert reading is not None
        found.append(abs(round(reading.offset_seconds * 25)))
    outer = np.mean(np.array(found) > 10)
    assert outer < 0.5, f"{outer:.0%} of random clips read as more than 0.4 s out of step (10 of 31 offsets)"


def test_silent_voices_do_not_count() -> None:
    mouth, voice = lagging(3, 80)
    valid = heard(voice)
    valid[20:40] = False
    voice = voice.copy()
    voice[20:40] = mouth[20:40]  # would say "in step" if it counted
    distances = sync_distances(mouth, 0, voice, 0, valid, MAX)
    reading = read_sync(distances)
    assert reading is not None
    assert reading.offset_seconds == 3 / 25
    assert distances.count[:, MAX].sum() == distances.spoken.sum() == 60
    assert max(distance for _, distance in reading.curve) < 0.1  # nothing silent is in the curve


def test_clips_of_a_file_add_up() -> None:
    mouth, voice = lagging(2, 80)
    whole = read_sync(sync_distances(mouth, 0, voice, 0, heard(voice), MAX))
    parts = [sync_distances(mouth[i : i + 40], i, v := voice[i : i + 40], i, heard(v), MAX) for i in (0, 40)]
    joined = SyncDistances.join(parts)
    reading = read_sync(joined)
    assert whole is not None
    assert reading is not None
    assert reading.offset_seconds == whole.offset_seconds == 2 / 25
    np.testing.assert_array_equal(joined.count.sum(0), 2 * parts[0].count.sum(0))
    np.testing.assert_allclose(joined.total.sum(0), parts[0].total.sum(0) + parts[1].total.sum(0), rtol=1e-5)
    assert [second for second, _ in reading.curve] == [0.5, 1.5, 1.5, 2.5, 3.5]  # the cut stands inside second 1


def test_clips_too_short_on_their_own_are_enough_together() -> None:
    mouth, voice = lagging(0, MIN_SYNC_WINDOWS - 20)
    part = sync_distances(mouth, 0, voice, 0, heard(voice), MAX)
    assert read_sync(part) is None
    reading = read_sync(SyncDistances.join([part, part]))
    assert reading is not None
    assert reading.offset_seconds == 0


@pytest.mark.parametrize(
    ("windows", "stretch", "file"), [(0, 0, 0), (1, 0, 0), (19, 0, 0), (20, 1, 0), (49, 1, 0), (50, 1, 1)]
)
def test_too_few_frames_say_nothing(windows: int, stretch: bool, file: bool) -> None:
    mouth, voice = lagging(0, windows)
    distances = sync_distances(mouth, 0, voice, 0, heard(voice), MAX)
    assert (read_sync(distances, MIN_STRETCH_WINDOWS) is not None) == stretch
    assert (read_sync(distances) is not None) == file


# -- the match, and who speaks


@pytest.mark.parametrize("lag", range(-6, 7))
def test_a_shift_of_a_few_frames_is_a_match_and_a_larger_one_is_none(lag: int) -> None:
    mouth, voice = lagging(lag)
    found = read_sync(sync_distances(mouth, 0, voice, 0, heard(voice), MAX))
    assert found is not None
    assert found.confidence > 1
    if abs(lag) <= NEAR:
        assert found.match == found.confidence
    else:
        assert -0.2 < found.match < 0.2


def test_the_match_is_between_the_best_near_offset_and_the_median() -> None:
    offsets = np.arange(-MAX, MAX + 1)
    mean = np.full(len(offsets), 1.3)
    mean[MAX + 2], mean[MAX + 9] = 1.0, 0.8
    count = np.full((1, len(offsets)), 60)
    distances = SyncDistances(offsets, np.array([0]), mean[None] * 60, count, np.zeros((1, 4)), np.array([60]))
    found = read_sync(distances)
    assert found is not None
    assert found.match == pytest.approx(0.3)
    assert found.confidence == pytest.approx(0.5)
    assert found.offset_seconds == 9 / 25


def test_no_pair_near_offset_0_is_no_match() -> None:
    """A voice that begins when the face is gone: what the lips said is not there."""
    mouth, voice = unit(60), unit(60, 1)
    distances = sync_distances(mouth, 0, voice, 60, heard(voice), 100)
    assert distances.count.sum(0).max() >= MIN_SYNC_WINDOWS
    assert read_sync(distances) is None


def test_a_mouth_that_stands_still_does_not_speak() -> None:
    rng = np.random.default_rng(0)
    voice = unit(100, 1)
    still = unit(1) + 0.01 * rng.standard_normal((100, 32)).astype(np.float32)
    still /= np.linalg.norm(still, axis=1, keepdims=True)
    distances = sync_distances(still, 0, voice, 0, heard(voice), MAX)
    assert 0 < distances.speaking() < MIN_SPEAKING
    assert distances.stands_still()
    assert read_sync(distances) is None
    moving = sync_distances(unit(100), 0, voice, 0, heard(voice), MAX)
    assert not moving.stands_still()
    found = read_sync(moving)
    assert found is not None
    assert moving.speaking() > 0.5


def test_only_frames_with_speech_show_who_speaks() -> None:
    """The mouth rests while the voice speaks and moves in its pauses: it answers somebody."""
    voice, valid = unit(120, 1), np.arange(120) < 60
    mouth = np.where(valid[:, None], unit(1), unit(120))
    assert sync_distances(mouth, 0, voice, 0, valid, MAX).speaking() == pytest.approx(0, abs=1e-5)
    assert sync_distances(mouth, 0, voice, 0, ~valid, MAX).speaking() > 0.5


def test_how_much_a_mouth_moves_adds_up_over_clips() -> None:
    mouth, voice = unit(100), unit(100, 1)
    whole = sync_distances(mouth, 0, voice, 0, heard(voice), MAX)
    parts = [sync_distances(mouth[i : i + 50], i, v := voice[i : i + 50], i, heard(v), MAX) for i in (0, 50)]
    assert SyncDistances.join(parts).speaking() == pytest.approx(whole.speaking(), abs=1e-6)
    cut = whole.within(whole.seconds == 2)
    assert cut.speaking() == pytest.approx(1 - np.linalg.norm(mouth[50:75].mean(0)), abs=1e-6)


def test_no_voice_and_only_silence_say_nothing() -> None:
    mouth, voice = lagging(0)
    assert read_sync(sync_distances(mouth, 0, voice[:0], 0, np.zeros(0, bool), MAX)) is None
    assert read_sync(sync_distances(mouth, 0, voice, 0, np.zeros(60, bool), MAX)) is None
    assert read_sync(sync_distances(mouth, 500, voice, 0, heard(voice), MAX)) is None


def test_an_offset_backed_by_few_pairs_is_not_read() -> None:
    mouth, voice = unit(60), unit(60, 1)
    distances = sync_distances(mouth, 0, voice, 0, heard(voice), 55)
    rare = distances.count.sum(0) < MIN_OFFSET_PAIRS
    assert rare.any()
    tempting = np.where(rare, 0.0, distances.total)
    reading = read_sync(dataclasses.replace(distances, total=tempting))
    assert reading is not None
    assert abs(reading.offset_seconds * 25) <= 50
    assert reading.min_distance > 1


@pytest.mark.parametrize("lag", [-9, 0, 4, 15])
def test_the_curve_over_time_shows_the_delay_and_its_sign_everywhere(lag: int) -> None:
    mouth, voice = lagging(lag, 250)
    parts = [sync_distances(mouth[i:j], i, v := voice[i:j], i, heard(v), MAX) for i, j in ((0, 140), (140, 250))]
    curve = sync_over_time(SyncDistances.join(parts), 3)
    assert [seconds for seconds, _ in curve] == [i + 0.5 for i in range(10)]  # second 5 once, though the cut divides it
    for _, reading in curve:
        assert reading is not None
        assert reading.offset_seconds == lag / 25
        assert reading.confidence > 1


def test_the_curve_over_time_finds_where_the_voice_slips() -> None:
    mouth, early = lagging(-5, 250)
    voice = np.concatenate([early[:125], lagging(10, 250)[1][125:]])
    points = sync_over_time(sync_distances(mouth, 0, voice, 0, heard(voice), MAX), 3)
    offsets = {seconds: reading.offset_seconds for seconds, reading in points if reading is not None}
    assert [offsets[t] for t in (0.5, 2.5, 7.5, 9.5)] == [-0.2, -0.2, 0.4, 0.4]


def test_the_curve_over_time_is_silent_where_the_voice_is() -> None:
    mouth, voice = lagging(2, 250)
    valid = heard(voice)
    valid[100:] = False
    points = dict(sync_over_time(sync_distances(mouth, 0, voice, 0, valid, MAX), 3))
    assert points[1.5] is not None
    assert points[8.5] is None
    with pytest.raises(ValueError, match="odd"):
        sync_over_time(sync_distances(mouth, 0, voice, 0, valid, MAX), 2)


# -- features


def reading(offset: float = -0.2) -> SyncReading:
    return SyncReading(offset, 0.5, 0.7, 0.9, 0.3, ((0.5, 0.7),))


def test_features_carry_values_and_the_mask() -> None:
    vector = dict(zip(FEATURES, fusion_features(1.5, -2.0, reading()).tolist(), strict=True))
    assert vector == pytest.approx(
        {
            "visual_logit": 1.5,
            "audio_logit": -2.0,
            "sync_confidence": 0.5,
            "sync_min_distance": 0.7,
            "sync_match": 0.3,
            "sync_abs_offset": 0.2,
            "has_visual": 1,
            "has_audio": 1,
            "has_sync": 1,
        }
    )


@pytest.mark.parametrize("present", [(v, a, s) for v in (0, 1) for a in (0, 1) for s in (0, 1)])
def test_what_is_missing_is_zero_and_masked(present: tuple[int, int, int]) -> None:
    visual, audio, sync = present
    vector = fusion_features(1.5 if visual else None, 2.5 if audio else None, reading() if sync else None)
    assert vector.dtype == np.float32
    assert len(vector) == len(FEATURES) == NUM_VALUES + 3
    np.testing.assert_array_equal(vector[NUM_VALUES:], present)
    for value, stream in zip(vector[:NUM_VALUES], STREAM_OF_VALUE, strict=True):
        assert (value != 0) == bool(present[stream])


def test_a_logit_of_zero_is_not_a_missing_stream() -> None:
    np.testing.assert_array_equal(fusion_features(0.0, None, None)[NUM_VALUES:], [1, 0, 0])


def test_the_mask_follows_the_names() -> None:
    assert [FEATURES[NUM_VALUES + s] for s in STREAM_OF_VALUE] == ["has_visual", "has_audio", *["has_sync"] * 4]
    assert FEATURES[NUM_VALUES:] == tuple(f"has_{name}" for name in STREAMS)
    assert PART_OF == {"visual": "video_fake", "audio": "audio_fake", "sync": "mismatch"}
