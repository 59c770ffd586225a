"""Face and mouth crops, cut from YUV planes."""

import cv2
import numpy as np
import pytest
from face_factory import PORTRAIT

from avdetect.faces import build_detector
from avdetect.faces.crops import TEMPLATE, face_crop, frames_from_rgb, mouth_crop, reduced_rgb
from avdetect.types import VideoFrames, yuv_to_rgb_matrix

LANDMARKS = TEMPLATE * 2 + 100  # an upright face, twice the template's size


def ramp(height: int = 400, width: int = 400) -> VideoFrames:
    """Luma 16 + x / 2 and no colour, so that a crop's values tell where it was cut."""
    luma = np.tile((16 + np.arange(width) / 2).astype(np.uint8), (height, 1))
    return VideoFrames(np.concatenate([luma, np.full((height // 2, width), 128, np.uint8)])[None], 0)


def test_a_still_survives_the_way_through_yuv() -> None:
    frames = frames_from_rgb(cv2.GaussianBlur(PORTRAIT, (0, 0), 2))
    assert (len(frames), frames.height, frames.width) == (1, 300, 300)
    back = reduced_rgb(frames, 0, 300)
    assert np.abs(back.astype(int) - cv2.GaussianBlur(PORTRAIT, (0, 0), 2)).mean() < 2
    odd = frames_from_rgb(np.zeros((3, 7, 5, 3), np.uint8), first_frame=9)
    assert (len(odd), odd.height, odd.width, odd.first_frame) == (3, 6, 4, 9)
    with pytest.raises(ValueError, match="2 x 2"):
        frames_from_rgb(np.zeros((1, 5, 3), np.uint8))


@pytest.mark.parametrize(("matrix", "full_range"), [("bt601", False), ("bt709", True), ("bt2020", False)])
def test_colours_follow_the_frames_matrix(matrix: str, full_range: bool) -> None:
    affine = yuv_to_rgb_matrix(matrix, full_range).astype(np.float64)
    rgb = np.array([200.0, 90.0, 40.0])
    y, u, v = np.round(np.linalg.solve(affine[:, :3], rgb - affine[:, 3])).astype(np.uint8)
    i420 = np.concatenate([np.full(40 * 40, y), np.full(400, u), np.full(400, v)]).reshape(1, 60, 40)
    frames = VideoFrames(i420.astype(np.uint8), 0, matrix, full_range)
    crop = face_crop(frames, 0, np.array([10, 10, 30, 30]), 1.3, 16)
    assert np.abs(crop.reshape(-1, 3).mean(axis=0) - rgb).max() <= 3


def test_face_crop_is_the_square_around_the_box() -> None:
    crop = face_crop(ramp(), 0, np.array([150, 100, 210, 200]), 1.3, 64)  # centre x 180, side 130
    assert (crop.shape, crop.dtype) == ((64, 64, 3), np.uint8)
    values = (16 + np.array([115 + 1, 245 - 1]) / 2 - 16) * 255 / 219  # first and last pixel, limited range to full
    assert np.abs(crop[32, [0, -1], 0] - values).max() < 4
    assert np.ptp(crop[:, 10]) == 0  # no row differs


def test_edges_are_replicated() -> None:
    frames = ramp()
    for box in ([-50, -60, 40, 30], [380, 390, 460, 470], [0, 0, 1e6, 1e6], [-900, -900, -800, -800]):
        crop = face_crop(frames, 0, np.array(box), 1.3, 32)
        assert crop.shape == (32, 32, 3)
    assert np.ptp(crop) == 0  # the first column, everywhere
    for landmarks in (LANDMARKS - 250, np.full((5, 2), 50.0), np.full((5, 2), -5000.0)):
        assert mouth_crop(frames, 0, landmarks, 32).shape == (32, 32)
    assert mouth_crop(ramp(2, 2), 0, LANDMARKS, 32).shape == (32, 32)


@pytest.mark.parametrize(("side", "degrees"), [(200, -25), (900, 170)])
def test_the_same_mouth_at_any_size_and_roll(side: int, degrees: float) -> None:
    """A face, scaled and turned by known amounts, gives nearly the same crop."""
    detector = build_detector("mtcnn")
    portrait = frames_from_rgb(PORTRAIT)
    landmarks = detector.detect(PORTRAIT).landmarks[0]
    reference = mouth_crop(portrait, 0, landmarks, 64).astype(float)
    scale, centre = side / 300, (side / 2, side / 2)
    matrix = cv2.getRotationMatrix2D((150, 150), -degrees, scale)
    matrix[:, 2] += np.array(centre) - 150
    small = cv2.GaussianBlur(PORTRAIT, (0, 0), 0.4 / scale) if scale < 1 else PORTRAIT
    picture = cv2.warpAffine(small, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    moved = landmarks @ matrix[:, :2].T + matrix[:, 2]
    crop = mouth_crop(frames_from_rgb(picture), 0, moved, 64).astype(float)
    assert np.corrcoef(crop.ravel(), reference.ravel())[0, 1] > 0.97


def test_shrinking_does_not_alias() -> None:
    """A one-pixel checkerboard, five times too fine for the crop, comes out as flat grey."""
    luma = (np.indices((800, 800)).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)
    frames = VideoFrames(np.concatenate([luma, np.full((400, 800), 128, np.uint8)])[None], 0)
    mouth = mouth_crop(frames, 0, TEMPLATE * 5 + 100 + np.arange(5)[:, None] * 3, 64)  # askew
    face = face_crop(frames, 0, np.array([103, 111, 601, 613]), 1.3, 96)
    assert np.std(mouth) < 4
    assert np.std(face) < 4
