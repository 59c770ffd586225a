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
from avdetect.datasets.forgeries.geometry import (
    AVERAGE,
    CANVAS,
    CORNER,
    PARTS,
    REGIONS,
    credible,
    elastic,
    face_maps,
    fit,
    lay,
    region_mask,
)
from avdetect.datasets.forgeries.merge import laid_on
from avdetect.datasets.forgeries.pose import face_hulls, head_pose, mirrored, pose_gap, turned_alike
from avdetect.datasets.forgeries.style import draw_style, match_colour
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL, Donors, ForgedFaces, identical
from avdetect.faces.crops import TEMPLATE

SIZE = 96
NAMES = sorted(VISUAL)
MARKS = np.array([[145, 101], [187, 104], [165, 130], [143, 141], [185, 143]])  # of PORTRAIT, as MTCNN finds them


def portrait(size: int = SIZE, count: int = 1, mirrored: bool = False) -> FaceCrops:
    """The portrait as the tracker crops it, moving a little; mirrored it serves as somebody else."""
    crops, marks = [], []
    for index in range(count):
        shift = np.array([index % 3, -(index % 2)])
        x0, y0 = np.array([91, 43]) + shift
        cut = PORTRAIT[y0 : y0 + 149, x0 : x0 + 149]
        points = (MARKS - [x0, y0]) / 149 * size
        if mirrored:
            cut, points = cut[:, ::-1], (points * [-1, 1] + [size, 0])[[1, 0, 2, 4, 3]]
        crops.append(cv2.resize(np.ascontiguousarray(cut), (size, size), interpolation=cv2.INTER_AREA))
        marks.append(points)
    return FaceCrops(np.stack(crops), np.array(marks, np.float32))


def donors(faces: FaceCrops) -> Donors:
    """Another "moment" (mouth squeezed, lit otherwise) and another "person"."""
    count, size = len(faces), faces.crops.shape[1]
    moment = np.stack([cv2.resize(c[: size * 9 // 10], (size, size)) for c in faces.crops])
    other = portrait(size, count, mirrored=True)
    moment = np.where(moment < 128, moment + 7, moment - 7)  # no picture is its own moment, a flat one neither
    return Donors(FaceCrops(cv2.convertScaleAbs(moment, alpha=0.97), faces.landmarks * np.float32([1, 1.1])), other)


def forge(name: str, faces: FaceCrops, seed: int) -> ForgedFaces:
    return VISUAL[name](faces, np.random.default_rng(seed), donors(faces))


PICTURES = {
    "portrait": lambda size, rng: portrait(size).crops[0],
    "black": lambda size, rng: np.zeros((size, size, 3), np.uint8),
    "white": lambda size, rng: np.full((size, size, 3), 255, np.uint8),
    "flat": lambda size, rng: np.full((size, size, 3), rng.integers(256), np.uint8),
    "noise": lambda size, rng: rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
    "blocks": lambda size, rng: np.kron(
        rng.integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255, np.ones((size // 4 + 1, size // 4 + 1, 1), np.uint8)
    )[:size, :size],
}
LANDMARKS = {
    "true": lambda size, rng: portrait(size).landmarks[0],
    "shaken": lambda size, rng: portrait(size).landmarks[0] + rng.normal(0, 0.06 * size, (5, 2)),
    "partly outside": lambda size, rng: portrait(size).landmarks[0] + rng.uniform(-0.6, 0.6, 2) * size,
    "far away": lambda size, rng: portrait(size).landmarks[0] * 50,
    "on one spot": lambda size, rng: np.tile(rng.uniform(0, size, 2), (5, 1)),
    "in a line": lambda size, rng: np.linspace(0.1, 0.9, 5)[:, None] * rng.uniform(-1, 1, 2) * size,
    "tiny": lambda size, rng: portrait(size).landmarks[0] * 0.05 + size / 2,
    "huge": lambda size, rng: (portrait(size).landmarks[0] - size / 2) * 4 + size / 2,
    "upside down": lambda size, rng: size - portrait(size).landmarks[0],
    "not a number": lambda size, rng: np.full((5, 2), np.nan),
    "anything": lambda size, rng: rng.uniform(-size, 2 * size, (5, 2)),
}


@st.composite
def wild_faces(draw) -> FaceCrops:
    size, count = draw(st.integers(32, 200)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    picture, marks = draw(st.sampled_from(sorted(PICTURES))), draw(st.sampled_from(sorted(LANDMARKS)))
    crops = np.stack([PICTURES[picture](size, rng) for _ in range(count)])
    return FaceCrops(crops, np.stack([LANDMARKS[marks](size, rng) for _ in range(count)]).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(faces=wild_faces(), seed=st.integers(0, 10_000))
def test_a_forgery_of_anything_is_sound(name: str, faces: FaceCrops, seed: int) -> None:
    before, marks = faces.crops.copy(), faces.landmarks.copy()
    given_donors = donors(faces)
    assert not identical(faces, given_donors.moment)
    taken = [d.crops.copy() for d in (given_donors.moment, given_donors.other)]
    out = VISUAL[name](faces, np.random.default_rng(seed), given_donors)
    assert out.crops.shape == before.shape
    assert out.crops.dtype == np.uint8
    assert out.mask.shape == before.shape[:3]
    assert out.mask.dtype == np.float32
    assert np.isfinite(out.mask).all()
    assert out.mask.min() >= 0
    assert out.mask.max() <= 1
    np.testing.assert_array_equal(out.crops[out.mask == 0], before[out.mask == 0], err_msg="changed outside the mask")
    for crop, original, mask in zip(out.crops, before, out.mask, strict=True):
        assert (mask > 0).sum() >= 9, "the mask is nearly empty"
        change = np.abs(crop.astype(int) - original)[mask > 0].mean()
        assert change >= 0.5, "a forgery that equals its original bears a wrong label"
    np.testing.assert_array_equal(faces.crops, before, err_msg="the input was changed")
    np.testing.assert_array_equal(faces.landmarks, marks)
    for donor, copy in zip((given_donors.moment, given_donors.other), taken, strict=True):
        np.testing.assert_array_equal(donor.crops, copy)
    again = VISUAL[name](faces, np.random.default_rng(seed), given_donors)
    np.testing.assert_array_equal(out.crops, again.crops)
    np.testing.assert_array_equal(out.mask, again.mask)
    assert not np.shares_memory(out.crops, faces.crops)


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_gives_another_forgery(name: str) -> None:
    outputs = {forge(name, portrait(), seed).crops.tobytes() for seed in range(20)}
    assert len(outputs) == 20


@pytest.mark.parametrize("name", NAMES)
def test_masks_lie_on_the_face_and_spare_the_border(name: str) -> None:
    masks = np.concatenate([forge(name, portrait(160), seed).mask for seed in range(24)])
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()
    assert (masks.mean((1, 2)) < 0.62).all()
    centre = np.array([np.argwhere(mask > 0.5 * mask.max()).mean(0) for mask in masks]) / 160
    assert ((centre > 0.25) & (centre < 0.9)).all()
    if "mouth" in name or name == "lower_face_swap":
        assert (centre[:, 0] > 0.58).all(), "below the nose"
        assert (masks[:, :50] == 0).all(), "the eyes stay"


@pytest.mark.parametrize("name", NAMES)
def test_a_face_as_large_as_the_crop_leaves_its_border_alone(name: str) -> None:
    """Else a crop pasted back into its frame would show as a square."""
    faces = portrait(96)
    large = FaceCrops(faces.crops, (faces.landmarks - 48) * np.float32(1.5) + 48)
    for seed in range(8):
        mask = forge(name, large, seed).mask[0]
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_hold_over_time(name: str) -> None:
    """On a still face the forgery may move a little, but keeps its place, its colour and its strength."""
    one = portrait(128)
    still = FaceCrops(one.crops.repeat(8, 0), one.landmarks.repeat(8, 0))
    for seed in range(6):
        out = forge(name, still, seed)
        assert np.abs(out.mask - out.mask[0]).mean() < 0.02
        colour = [out.crops[i][out.mask[0] > 0.5].mean(0) for i in range(8)]
        assert np.ptp(colour, axis=0).max() < (8 if name == "temporal_jitter" else 4)
        if name not in ("temporal_jitter", "self_blend", "self_blend_mouth"):
            np.testing.assert_array_equal(out.crops, out.crops[:1].repeat(8, 0) if name not in NEEDS else out.crops)


def test_jitter_moves_from_frame_to_frame() -> None:
    one = portrait(128)
    still = FaceCrops(one.crops.repeat(6, 0), one.landmarks.repeat(6, 0))
    out = forge("temporal_jitter", still, 3)
    assert len({crop.tobytes() for crop in out.crops}) == 6


def test_masks_follow_the_head() -> None:
    """Shifted and turned landmarks shift and turn the mask."""
    marks = portrait(160).landmarks.astype(np.float64)
    mask = region_mask("mouth", np.random.default_rng(0))
    turn = np.array([[0.94, -0.34], [0.34, 0.94]])
    moved = (marks - 80) @ turn.T + 80 + [6, -9]
    for points in (marks, moved):
        laid = lay(mask, face_maps(points), 160)[0]
        centre = np.argwhere(laid > 0.5).mean(0)[::-1]
        assert np.linalg.norm(centre - points[0, 3:].mean(0)) < 7, "on the mouth"


def test_regions_cover_what_they_are_named_after() -> None:
    rng = np.random.default_rng(1)
    for region in REGIONS:
        mask = np.mean([region_mask(region, rng) for _ in range(12)], axis=0)
        assert mask.shape == (CANVAS, CANVAS)
        part = {"face": "nose", "whole": "eyes", "inner": "nose", "lower": "mouth"}.get(region, region)
        x, y = np.rint(PARTS[part].mean(0) - CORNER).astype(int)
        assert mask[y, x] > 0.9, region
    assert sum(len(points) for points in PARTS.values()) == 67


def test_a_mouth_comes_from_the_other_moment() -> None:
    """The swapped mouth resembles the donor's, the rest of the face stays."""
    faces = portrait(160)
    x, y = np.rint(faces.landmarks[0, 3:].mean(0)).astype(int)
    spot = (0, slice(y - 3, y + 4), slice(x - 6, x + 7))
    dyed = faces.crops.copy()
    dyed[spot] = 0  # an open mouth, say
    moment = FaceCrops(dyed, faces.landmarks)
    for name in ("mouth_swap", "lower_face_swap"):
        for seed in range(8):
            out = VISUAL[name](faces, np.random.default_rng(seed), Donors(moment, None))
            assert out.crops[spot].mean() < faces.crops[spot].mean() - 60
            np.testing.assert_array_equal(out.crops[0, :60], faces.crops[0, :60])


def test_merging_takes_half_of_the_other_face() -> None:
    faces = portrait(160)
    for seed in range(8):
        mask = VISUAL["rand_merge"](faces, np.random.default_rng(seed), donors(faces)).mask[0]
        rows, columns = (np.flatnonzero((mask > 0.5).any(axis)) for axis in (1, 0))
        whole = lay(region_mask("face", np.random.default_rng(seed)), face_maps(faces.landmarks.astype(float)), 160)[0]
        assert 0.1 < (mask > 0.5).sum() / (whole > 0.5).sum() < 0.9
        assert rows.size
        assert columns.size


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_missing_donor_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=f"donors.{NEEDS[name]}"):
        VISUAL[name](portrait(), np.random.default_rng(0), Donors())
    two = portrait(SIZE, 2)
    with pytest.raises(ValueError, match="as many frames"):
        VISUAL[name](portrait(), np.random.default_rng(0), Donors(two, two))


@pytest.mark.parametrize("name", sorted(set(VISUAL) - set(NEEDS)))
def test_the_others_need_no_donor(name: str) -> None:
    out = VISUAL[name](portrait(), np.random.default_rng(0), Donors())
    assert (out.mask > 0).any()


def test_a_donor_may_be_of_another_size() -> None:
    faces = portrait(96)
    big = portrait(224)
    for name in sorted(NEEDS):
        assert VISUAL[name](faces, np.random.default_rng(0), Donors(big, big)).crops.shape == faces.crops.shape


def test_a_self_blend_keeps_the_ratio_of_SBI() -> None:
    """Most are blended in full, one in two at less; the seam is nowhere but at the mask's rim."""
    faces = portrait(160)
    strength = []
    for seed in range(60):
        out = forge("self_blend", faces, seed)
        core = out.mask[0] > 0.95
        strength.append(np.abs(out.crops[0].astype(float) - faces.crops[0])[core].mean())
    assert np.percentile(strength, 10) >= LEAST_CHANGE
    assert np.percentile(strength, 90) < 45, "no caricatures"
    assert np.percentile(strength, 90) > 2.5 * np.percentile(strength, 10)


def test_styles_keep_grey_bearable_and_vary() -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    shown = np.array([draw_style(np.random.default_rng(seed))(grey)[16, 16] for seed in range(100)], float)
    assert np.abs(shown - 128).max() < 45
    assert shown.std(0).min() > 4


def test_colours_are_matched() -> None:
    faces = portrait(96)
    darker = cv2.convertScaleAbs(faces.crops[0], alpha=0.95, beta=-30)[None]
    weights = np.ones((1, 96, 96), np.float32)
    matrix = match_colour(darker, faces.crops, weights)
    matched = cv2.transform(darker[0], matrix)
    assert np.abs(matched.mean((0, 1)) - faces.crops[0].mean((0, 1))).max() < 2


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.2, 5), st.floats(-3, 3), st.floats(-200, 200))
def test_fits_recover_a_similarity(seed: int, scale: float, turn: float, shift: float) -> None:
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    target = (TEMPLATE @ matrix.T + shift)[None].astype(np.float64)
    found = fit(TEMPLATE[None].astype(np.float64), target)[0]
    np.testing.assert_allclose(found[:, :2], matrix, atol=1e-4)
    np.testing.assert_allclose(found[:, 2], shift, atol=1e-2)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(wild_faces())
def test_credible_landmarks_always_make_a_face_in_the_crop(faces: FaceCrops) -> None:
    size = faces.crops.shape[1]
    points = credible(faces.landmarks, size)
    assert np.isfinite(points).all()
    maps = face_maps(points)
    assert (np.linalg.det(maps[:, :, :2]) > 0).all()
    eyes = points[:, :2].mean(1)
    assert ((eyes > -0.1 * size) & (eyes < 1.1 * size)).all()


def test_good_landmarks_are_taken_as_they_are() -> None:
    marks = portrait(160).landmarks
    np.testing.assert_array_equal(credible(marks, 160), marks)
    np.testing.assert_array_equal(credible(marks * 9, 160)[0], AVERAGE * 160)


MOMENTS = sorted(name for name, need in NEEDS.items() if need == "moment")


@pytest.mark.parametrize("name", MOMENTS)
@pytest.mark.parametrize("size", [96, 160])
def test_a_face_is_not_its_own_moment(name: str, size: int) -> None:
    """A mouth pasted onto itself is genuine and would be labelled fake."""
    faces = portrait(size)
    with pytest.raises(ValueError, match="pixel for pixel"):
        VISUAL[name](faces, np.random.default_rng(0), Donors(moment=FaceCrops(faces.crops.copy(), faces.landmarks)))


def test_a_single_frame_jitters_to_another_moment() -> None:
    """The region is the moment's, not the frame's own."""
    faces = portrait(160)
    dark = FaceCrops(faces.crops // 4, faces.landmarks)
    for seed in range(8):
        out = VISUAL["temporal_jitter"](faces, np.random.default_rng(seed), Donors(moment=dark))
        core = out.mask[0] > 0.95
        assert core.any()
        assert out.crops[0][core].mean() < 0.4 * faces.crops[0][core].mean()


def test_several_frames_jitter_by_themselves() -> None:
    assert (VISUAL["temporal_jitter"](portrait(96, 2), np.random.default_rng(0), Donors()).mask > 0).any()


def turned(turn: float, size: int = 160) -> np.ndarray:
    """(1, 5, 2) landmarks of a head turned by a sine; positive: to the picture's right."""
    points = np.array([[-17.6, 0, 0], [17.6, 0, 0], [0, 20.1, 16], [-14.6, 40.7, 3], [14.6, 40.7, 3]])
    x = points[:, 0] * np.sqrt(1 - turn**2) + points[:, 2] * turn
    return (np.stack([x, points[:, 1]], -1) * size / 144 + [size / 2, 0.4 * size])[None]


@pytest.mark.parametrize("turn", [-0.7, -0.3, 0.0, 0.4, 0.8])
def test_the_turn_of_a_head_is_seen(turn: float) -> None:
    (found, nod), (level, _) = head_pose(turned(turn))[0], head_pose(turned(0))[0]
    assert found == pytest.approx(turn, abs=0.05)
    assert abs(level) < 0.01
    assert 0.4 < nod < 0.6
    roll = np.array([[0.9, -0.4], [0.4, 0.9]]) / np.hypot(0.9, 0.4)
    assert head_pose(turned(turn) @ roll.T * 3 + 7)[0] == pytest.approx([found, nod], abs=1e-6)


def test_a_turned_face_ends_at_its_far_eye() -> None:
    """What an affine fit of a frontal outline takes for a cheek is background there."""
    marks = turned(0.8)
    hull = face_hulls(marks, 160)[0] > 0.5
    eyes = hull[int(marks[0, 0, 1]) + 8]
    right = np.flatnonzero(eyes).max()
    assert 0 < right - marks[0, 1, 0] < 12
    assert marks[0, 0, 0] - np.flatnonzero(eyes).min() > 15, "the near cheek is wide"


def test_a_donor_that_looks_the_other_way_is_mirrored() -> None:
    crops = portrait(160).crops
    faces, away, along = (FaceCrops(crops, turned(turn).astype(np.float32)) for turn in (0.5, -0.5, 0.4))
    assert turned_alike(faces, along) is along
    flipped = turned_alike(faces, away)
    np.testing.assert_array_equal(flipped.crops, away.crops[:, :, ::-1])
    assert head_pose(flipped.landmarks.astype(float))[0, 0] == pytest.approx(0.5, abs=0.05)
    assert pose_gap(faces, away) < 0.02 < pose_gap(faces, along) < 0.2
    np.testing.assert_array_equal(mirrored(flipped).crops, away.crops)
    np.testing.assert_allclose(mirrored(flipped).landmarks, away.landmarks, atol=1e-3)


@pytest.mark.parametrize("turn", [-0.8, -0.4, 0.0, 0.4, 0.8])
def test_nothing_but_the_donors_face_is_merged(turn: float) -> None:
    """The donor is green where it shows no face: none of it may come onto the target, at any two turns."""
    marks = turned(turn).astype(np.float32)
    green = np.zeros((1, 160, 160, 3), np.uint8)
    skin = face_hulls(marks.astype(float), 160)[0] > 0
    green[0] = [0, 255, 0]
    green[0][skin] = 128
    donor = FaceCrops(green, marks)
    faces = FaceCrops(np.full((1, 160, 160, 3), 140, np.uint8), portrait(160).landmarks)
    warped, masks = laid_on(faces, turned_alike(faces, donor), np.random.default_rng(0))
    assert masks[0].mean() > 0.03
    assert np.average(np.ptp(warped[0].astype(int), axis=2), weights=masks[0]) < 2
    for seed in range(6):
        out = VISUAL["rand_merge"](faces, np.random.default_rng(seed), Donors(other=donor))
        assert not (out.mask[0][face_hulls(faces.landmarks.astype(float), 160)[0] == 0] > 0).any(), "on the face"


@pytest.mark.parametrize("turn", [-0.7, 0.0, 0.5])
def test_eyes_come_to_lie_on_eyes(turn: float) -> None:
    marks = turned(turn).astype(np.float32)
    dots = np.zeros((1, 160, 160, 3), np.uint8)
    for x, y in marks[0]:
        cv2.circle(dots[0], (round(float(x)), round(float(y))), 3, (255, 255, 255), -1)
    faces = FaceCrops(np.zeros_like(dots), portrait(160).landmarks)
    warped, _ = laid_on(faces, FaceCrops(dots, marks), np.random.default_rng(0))
    for x, y in faces.landmarks[0]:
        spot = warped[0, round(float(y)) - 9 : round(float(y)) + 10, round(float(x)) - 9 : round(float(x)) + 10, 0]
        place = np.argwhere(spot > 100).mean(0) - 9
        assert np.abs(place).max() < 3.5


def test_masks_are_deformed_elastically() -> None:
    """By a displacement that differs from place to place: both ways, smooth, and of SBI's size."""
    stripes = np.zeros((CANVAS, CANVAS), np.float32)
    stripes[:, CANVAS // 2 :] = 1
    edges = [(elastic(stripes, np.random.default_rng(seed)) > 0.5).argmax(1) - CANVAS // 2 for seed in range(24)]
    inner = np.array(edges)[:, 12:-12]
    assert 0.4 < inner.std() < 3
    assert np.abs(np.diff(inner, axis=1)).max() <= 3, "smooth"
    assert np.mean(inner.max(1) > inner.min(1)) > 0.9, "no mere shift"
    assert np.abs(inner).max() <= 7


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_deformed_masks_stay_on_the_face(region: str) -> None:
    head = np.zeros((CANVAS, CANVAS), np.uint8)
    outline = np.concatenate([PARTS["jaw"], PARTS["forehead"]])
    middle = (outline.min(0) + outline.max(0)) / 2
    hull = cv2.convexHull(((outline - middle) * 1.15 + middle - CORNER).astype(np.float32))
    cv2.fillConvexPoly(head, np.rint(hull).astype(np.int32), 1)
    for seed in range(30):
        mask = region_mask(region, np.random.default_rng(seed))
        assert mask.max() == pytest.approx(1)
        assert not (mask[head == 0] > 0.5).any()
