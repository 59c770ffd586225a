"""Augmentation and self-blends: pure functions of the generator, alike for a real and its forgery."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from clips import make_track, speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.augment import augment_face, augment_mouths, augment_voice
from avdetect.datasets.forgeries import selfblend
from avdetect.datasets.forgeries.selfblend import self_blend

SIZE = 96
MARKS = np.array([[34, 40], [62, 40], [48, 54], [36, 68], [60, 68]], np.float32)


def face(seed: int = 0, size: int = SIZE) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(50, 206, (size // 8, size // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def mouths() -> np.ndarray:
    return np.stack([face(i, 64)[..., 0] for i in range(6)])


CASES = {
    "face": (augment_face, face()),
    "voice": (augment_voice, speech(1.0)),
    "mouths": (augment_mouths, mouths()),
    "self_blend": (lambda x, rng: self_blend(x, MARKS, rng), face()),
}


@pytest.mark.parametrize("name", CASES)
def test_pure_functions_of_input_and_generator(name: str) -> None:
    function, given_array = CASES[name]
    before = given_array.copy()
    outputs = []
    for seed in range(40):
        out = function(given_array, np.random.default_rng(seed))
        assert out.shape == given_array.shape
        assert out.dtype == given_array.dtype
        np.testing.assert_array_equal(out, function(given_array.copy(), np.random.default_rng(seed)))
        np.testing.assert_array_equal(given_array, before, err_msg="the input was changed")
        assert not np.shares_memory(out, given_array)
        outputs.append(out)
    assert len({o.tobytes() for o in outputs}) == 40, "every generator gives another picture"


@pytest.mark.parametrize("seed", range(30))
def test_two_pictures_go_through_equal_operations(seed: int) -> None:
    """The number of random numbers drawn may not depend on the picture, or real and forgery would part."""
    a, b = np.random.default_rng(seed), np.random.default_rng(seed)
    original = face(1)
    forged = original.copy()
    forged[80:, 80:] = 0  # far from the rest
    one, two = augment_face(original, a), augment_face(forged, b)
    assert a.random() == b.random()
    if np.array_equal(one, two):  # the forged corner was turned or shifted out of the picture
        return
    assert (np.abs(one.astype(int) - two) > 24).any(2).mean() < 0.25, "only the forged part may differ"


@pytest.mark.parametrize("function", [augment_voice])
def test_the_voice_draws_alike_for_two_recordings(function) -> None:
    for seed in range(20):
        a, b = np.random.default_rng(seed), np.random.default_rng(seed)
        function(speech(0.5, 1), a)
        function(speech(0.5, 2), b)
        assert a.random() == b.random()


def test_faces_stay_faces() -> None:
    """No augmentation wipes the picture out: the face remains the most of what is seen."""
    original = face(2)
    for seed in range(60):
        out = augment_face(original, np.random.default_rng(seed)).astype(float)
        assert out.std() > 8
        assert 20 < out.mean() < 235


def test_every_face_operation_occurs() -> None:
    original = np.zeros((SIZE, SIZE, 3), np.uint8) + np.array([90, 120, 150], np.uint8)
    flat = [augment_face(original, np.random.default_rng(s)).astype(int) for s in range(200)]
    grey = np.mean([np.ptp(o, axis=2).max() < 6 for o in flat])
    noisy = np.mean([o[..., 1].std() > 1.5 for o in flat])
    covered = np.mean([(o == 127).all(2).mean() > 0.005 for o in flat])
    assert 0.005 < grey < 0.15
    assert 0.15 < noisy < 0.6
    assert 0.05 < covered < 0.3
    halves = face(3)
    halves[:, : SIZE // 2] //= 3
    right = [
        o[:, : SIZE // 2].mean() > o[:, SIZE // 2 :].mean()
        for o in (augment_face(halves, np.random.default_rng(s)) for s in range(60))
    ]
    assert 0.3 < np.mean(right) < 0.7, "half of the pictures are mirrored"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 4000), st.integers(0, 10_000))
def test_a_voice_of_any_length_stays_in_range(count: int, seed: int) -> None:
    out = augment_voice(speech(0.3)[:count], np.random.default_rng(seed))
    assert out.shape == (min(count, 4800),)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1


def test_silence_stays_silent() -> None:
    for seed in range(20):
        assert np.abs(augment_voice(np.zeros(8000, np.float32), np.random.default_rng(seed))).max() < 1e-6


def test_a_voice_keeps_its_place_in_time() -> None:
    """Sync is trained on augmented sound: an augmentation that delays it would teach a wrong offset."""
    samples = np.zeros(16_000, np.float32)
    samples[8000:8200] = 0.9 * np.sin(np.arange(200) * 0.6)
    for seed in range(40):
        out = augment_voice(samples, np.random.default_rng(seed))
        energy = np.convolve(out**2, np.ones(200), "same")
        assert abs(int(energy.argmax()) - 8100) < 160, "less than a log-mel frame"


def test_the_mouths_of_a_clip_move_as_one() -> None:
    still = np.repeat(face(4, 64)[None, ..., 0], 6, axis=0)
    for seed in range(20):
        out = augment_mouths(still, np.random.default_rng(seed))
        assert (out == out[0]).all(), "jitter between frames would look like speech"


# -- self-blends


def blended_mask(seed: int) -> np.ndarray:
    """Where `self_blend` with this generator blends, read from the function that makes the mask."""
    masks = []
    original = selfblend._affine
    try:
        selfblend._affine = lambda image, mask, rng: masks.append(r := original(image, mask, rng)) or r  # type: ignore
        self_blend(face(), MARKS, np.random.default_rng(seed))
    finally:
        selfblend._affine = original
    return masks[0][1]


@pytest.mark.parametrize("seed", range(24))
def test_a_self_blend_joins_two_versions_along_the_mask(seed: int) -> None:
    original = face(5).astype(int)
    out = self_blend(face(5), MARKS, np.random.default_rng(seed)).astype(int)
    mask = blended_mask(seed)
    outside = mask < 1e-3
    assert outside.mean() > 0.2, "some of the picture is not blended"
    difference = np.abs(out - original).max(2)
    assert difference.max() > 2, "a forgery that equals its original teaches the wrong thing"
    source_changed = np.random.default_rng(seed).random() < 0.5
    if source_changed:  # the restyled copy was pasted into the untouched original
        assert difference[outside].max() == 0
        assert difference[~outside].mean() > 0.5
    else:  # the untouched copy was pasted into the restyled original
        assert difference[outside].mean() > 0.5


def test_masks_lie_on_the_face() -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([selfblend._mask(SIZE, MARKS, rng) for _ in range(40)])
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    y, x = np.mgrid[:SIZE, :SIZE]
    for mask in masks:
        assert 0.005 < mask.mean() < 0.7
        centre = (mask * x).sum() / mask.sum(), (mask * y).sum() / mask.sum()
        assert abs(centre[0] - 48) < 8
        assert 45 < centre[1] < 78
    assert masks.mean(0)[60, 48] > 0.6, "between nose and mouth nearly every mask covers"
    sizes = masks.mean((1, 2))
    assert sizes.max() > 3 * sizes.min(), "the whole face, its lower half, or the mouth"


def test_masks_follow_the_face() -> None:
    """Landmarks elsewhere in the crop move the mask along; a tilted head tilts it."""
    shifted = MARKS + np.array([-15, 12])
    for seed in range(6):
        a, b = (selfblend._mask(SIZE, m.astype(np.float32), np.random.default_rng(seed)) for m in (MARKS, shifted))
        centre = [np.array(np.nonzero(m > 0.5)).mean(1) for m in (a, b)]
        assert np.abs(centre[1] - centre[0] - [12, -15]).max() < 6


def test_degenerate_landmarks_do_no_harm() -> None:
    for marks in (np.zeros((5, 2)), np.full((5, 2), 48.0), MARKS * 10 - 400):
        out = self_blend(face(), marks.astype(np.float32), np.random.default_rng(0))
        assert out.shape == (SIZE, SIZE, 3)


def test_landmarks_of_a_crop_are_in_its_pixels() -> None:
    from avdetect.config import FaceConfig
    from avdetect.faces.crops import face_crop, frames_from_rgb
    from avdetect.training.batches import crop_landmarks

    track = make_track(np.zeros(10, int))
    picture = np.zeros((300, 300, 3), np.uint8)
    for x, y in track.landmarks[0]:
        cv2.circle(picture, (int(x), int(y)), 2, (255, 255, 255), -1)
    config = FaceConfig()
    crop = face_crop(frames_from_rgb(picture), 0, track.boxes[0], config.crop_margin, config.crop_size)
    for x, y in crop_landmarks(track, 0, config):
        x0, y0 = int(x) - 6, int(y) - 6
        spot = crop[y0 : y0 + 13, x0 : x0 + 13].mean(2)
        rows, columns = np.nonzero(spot > 128)
        assert abs(rows.mean() + y0 - y) < 2.5
        assert abs(columns.mean() + x0 - x) < 2.5
