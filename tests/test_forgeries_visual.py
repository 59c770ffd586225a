"""Visual forgeries: labels that are true on any face, and nothing changed outside the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from face_factory import PORTRAIT
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.blend import LEAST_CHANGE
from avdetect.datasets.forgeries.geometry import AVERAGE, CORNER, PARTS, REGIONS, credible, region_mask
from avdetect.datasets.forgeries.visual import NEEDS_MOMENT, VISUAL, ForgedFaces

SIZE = 96
NAMES = sorted(VISUAL)
MARKS = np.array([[145, 101], [187, 104], [165, 130], [143, 141], [185, 143]])  # of PORTRAIT, as MTCNN finds them


def portrait(size: int = SIZE, count: int = 1) -> FaceCrops:
    """The portrait as the tracker crops it, moving a little."""
    crops, marks = [], []
    for index in range(count):
        x0, y0 = 91 + index % 3, 43 - index % 2
        cut = np.ascontiguousarray(PORTRAIT[y0 : y0 + 149, x0 : x0 + 149])
        crops.append(cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA))
        marks.append((MARKS - [x0, y0]) / 149 * size)
    return FaceCrops(np.stack(crops), np.array(marks, np.float32))


def moment_of(faces: FaceCrops) -> FaceCrops:
    """Another "moment": the mouth squeezed, lit otherwise."""
    size = faces.crops.shape[1]
    moment = np.stack([cv2.resize(c[: size * 9 // 10], (size, size)) for c in faces.crops])
    moment = np.where(moment < 128, moment + 7, moment - 7)  # no picture is its own moment, a flat one neither
    return FaceCrops(cv2.convertScaleAbs(moment, alpha=0.97), faces.landmarks * np.float32([1, 1.1]))


def forge(name: str, faces: FaceCrops, seed: int) -> ForgedFaces:
    return VISUAL[name](faces, np.random.default_rng(seed), moment_of(faces))


PICTURES = {
    "portrait": lambda size, rng: portrait(size).crops[0],
    "black": lambda size, rng: np.zeros((size, size, 3), np.uint8),
    "flat": lambda size, rng: np.full((size, size, 3), rng.integers(256), np.uint8),
    "noise": lambda size, rng: rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
    "blocks": lambda size, rng: (
        rng.integers(0, 2, (8, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)[:size, :size] * np.uint8(255)
    ),
}
LANDMARKS = {
    "true": lambda size, rng: portrait(size).landmarks[0],
    "partly outside": lambda size, rng: portrait(size).landmarks[0] + rng.uniform(-0.6, 0.6, 2) * size,
    "far away": lambda size, rng: portrait(size).landmarks[0] * 50,
    "on one spot": lambda size, rng: np.tile(rng.uniform(0, size, 2), (5, 1)),
    "in a line": lambda size, rng: np.linspace(0.1, 0.9, 5)[:, None] * rng.uniform(-1, 1, 2) * size,
    "upside down": lambda size, rng: size - portrait(size).landmarks[0],
    "not a number": lambda size, rng: np.full((5, 2), np.nan),
    "anything": lambda size, rng: rng.uniform(-size, 2 * size, (5, 2)),
}


@st.composite
def wild_faces(draw) -> FaceCrops:
    size, count = draw(st.integers(32, 160)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    picture, marks = draw(st.sampled_from(sorted(PICTURES))), draw(st.sampled_from(sorted(LANDMARKS)))
    crops = np.stack([PICTURES[picture](size, rng) for _ in range(count)])
    return FaceCrops(crops, np.stack([LANDMARKS[marks](size, rng) for _ in range(count)]).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=12, derandomize=True)
@given(faces=wild_faces(), seed=st.integers(0, 10_000))
def test_a_forgery_of_anything_is_sound(name: str, faces: FaceCrops, seed: int) -> None:
    before, marks, moment = faces.crops.copy(), faces.landmarks.copy(), moment_of(faces)
    taken = moment.crops.copy()
    out = VISUAL[name](faces, np.random.default_rng(seed), moment)
    assert (out.crops.shape, out.crops.dtype) == (before.shape, np.uint8)
    assert (out.mask.shape, out.mask.dtype) == (before.shape[:3], np.float32)
    assert 0 <= out.mask.min() <= out.mask.max() <= 1
    np.testing.assert_array_equal(out.crops[out.mask == 0], before[out.mask == 0], err_msg="changed outside the mask")
    border = np.concatenate([out.mask[:, [0, -1]].ravel(), out.mask[:, :, [0, -1]].ravel()])
    assert not border.any(), "pasted back into its frame the crop would show as a square"
    for crop, original, mask in zip(out.crops, before, out.mask, strict=True):
        assert (mask > 0).sum() >= 9, "the mask is nearly empty"
        change = np.abs(crop.astype(int) - original)[mask > 0].mean()
        assert change >= 0.5, "a forgery that equals its original bears a wrong label"
    np.testing.assert_array_equal(faces.crops, before, err_msg="the input was changed")
    np.testing.assert_array_equal(faces.landmarks, marks)
    np.testing.assert_array_equal(moment.crops, taken)
    again = VISUAL[name](faces, np.random.default_rng(seed), moment)
    np.testing.assert_array_equal(out.crops, again.crops)
    np.testing.assert_array_equal(out.mask, again.mask)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turned", [False, True])
def test_masks_lie_on_the_face_and_every_seed_gives_another(name: str, turned: bool) -> None:
    faces = portrait(160)
    if turned:  # a quarter to the left: masks follow the head
        turned_marks = np.stack([faces.landmarks[..., 1], 159 - faces.landmarks[..., 0]], -1)
        faces = FaceCrops(np.rot90(faces.crops, axes=(1, 2)).copy(), turned_marks)
    outputs = [forge(name, faces, seed) for seed in range(12)]
    assert len({out.crops.tobytes() for out in outputs}) == 12
    masks = np.concatenate([out.mask for out in outputs])
    masks = np.rot90(masks, -1, axes=(1, 2)) if turned else masks
    assert (masks.mean((1, 2)) < 0.62).all()
    assert (masks[:, :10] < 0.5).all(), "what is deformed stays on the face"
    centre = np.array([np.argwhere(mask > 0.5 * mask.max()).mean(0) for mask in masks]) / 160
    assert ((centre > 0.25) & (centre < 0.9)).all()
    if name == "mouth_swap":
        assert (centre[:, 0] > 0.58).all(), "below the nose"
        assert (masks[:, :50] == 0).all(), "the eyes stay"


@pytest.mark.parametrize("name", NAMES)
def test_parameters_hold_over_time(name: str) -> None:
    """On a still face the forgery may move a little, but keeps its place, its colour and its strength."""
    one = portrait(128)
    still = FaceCrops(one.crops.repeat(8, 0), one.landmarks.repeat(8, 0))
    for seed in range(3):
        out = forge(name, still, seed)
        assert np.abs(out.mask - out.mask[0]).mean() < 0.02
        colour = [out.crops[i][out.mask[0] > 0.5].mean(0) for i in range(8)]
        assert np.ptp(colour, axis=0).max() < 4
        if name != "self_blend":
            np.testing.assert_array_equal(out.crops, out.crops[:1].repeat(8, 0))


def test_regions_cover_what_they_are_named_after() -> None:
    for region in REGIONS:
        masks = [region_mask(region, np.random.default_rng(seed)) for seed in range(6)]
        part = {"face": "nose", "whole": "eyes", "inner": "nose", "lower": "mouth"}.get(region, region)
        x, y = np.rint(PARTS[part].mean(0) - CORNER).astype(int)
        assert np.mean(masks, axis=0)[y, x] > 0.9


def test_a_mouth_comes_from_the_other_moment() -> None:
    """The swapped mouth resembles the donor's, the rest of the face stays."""
    faces = portrait(160)
    x, y = np.rint(faces.landmarks[0, 3:].mean(0)).astype(int)
    spot = (0, slice(y - 3, y + 4), slice(x - 6, x + 7))
    dyed = faces.crops.copy()
    dyed[spot] = 0  # an open mouth, say
    for seed in range(4):
        out = VISUAL["mouth_swap"](faces, np.random.default_rng(seed), FaceCrops(dyed, faces.landmarks))
        assert out.crops[spot].mean() < faces.crops[spot].mean() - 60
        np.testing.assert_array_equal(out.crops[0, :60], faces.crops[0, :60])


def test_a_missing_moment_is_said() -> None:
    rng, faces = np.random.default_rng(0), portrait()
    for name in NAMES:
        if name not in NEEDS_MOMENT:
            assert (VISUAL[name](faces, rng, None).mask > 0).any()
            continue
        for wrong in (None, portrait(SIZE, 2), portrait(2 * SIZE)):
            with pytest.raises(ValueError, match="another moment like"):
                VISUAL[name](faces, rng, wrong)
        with pytest.raises(ValueError, match="pixel for pixel"):  # genuine, it would be labelled fake
            VISUAL[name](faces, rng, FaceCrops(faces.crops.copy(), faces.landmarks))


def test_a_self_blend_keeps_the_ratio_of_SBI() -> None:
    """Most are blended in full, one in two at less."""
    faces = portrait(160)
    strength = []
    for seed in range(40):
        out = forge("self_blend", faces, seed)
        core = out.mask[0] > 0.95
        strength.append(np.abs(out.crops[0].astype(float) - faces.crops[0])[core].mean())
    low, high = np.percentile(strength, [10, 90])
    assert low >= LEAST_CHANGE
    assert 2.5 * low < high < 45, "no caricatures"


def test_landmarks_that_no_face_can_have_give_way_to_average_ones() -> None:
    """Else next to nothing is forged, or beside the face, and yet called fake. Good ones stay as they are."""
    good = portrait(160).landmarks.astype(np.float64)
    mirrored = np.stack([160 - good[..., 0], good[..., 1]], -1)  # but with the left eye still named first
    outside, spot = good + np.array([0, 90]), 80 + (good - 80) * 0.1
    found = credible(np.concatenate([good, mirrored, outside, spot, good * np.nan]), 160)
    np.testing.assert_array_equal(found[0], good[0])
    np.testing.assert_array_equal(found[1:], np.stack([AVERAGE * 160] * 4))
