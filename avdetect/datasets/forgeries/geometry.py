"""Where a face's parts lie in a crop: an average face, fitted to five landmarks, and masks drawn on it.

Self-blended images take their masks from the hull of 68 tracked points. We track five, so the other points come from
an average face in the coordinates of `faces.crops.TEMPLATE` (eyes 35 units apart). Its outline follows common
proportions of adult faces: 2.15 eye distances wide, the chin 1.8 and the hairline 1.1 eye distances from the eyes.
Masks are drawn once on a canvas of template units and laid over each frame by its own fit: they move with the face.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.faces.crops import TEMPLATE
from avdetect.types import Float

Affine = NDArray[np.float64]  # (..., 2, 3): maps (x, y, 1)

CANVAS = 144  # units; the average crop is as wide
CORNER = -16.0  # of the canvas in template coordinates
STIFFNESS = 0.1  # of the fit, against shear and unequal scales: 0 is a free affine map, infinity a similarity
# Where the five points lie in an average crop of margin 1.3, in sides of the crop (14 people, MTCNN's boxes).
AVERAGE = np.array([[0.375, 0.41], [0.625, 0.41], [0.5, 0.555], [0.4, 0.705], [0.6, 0.705]])
HEAD_GROWTH = 1.1  # of the average head's outline: no mask goes further
_MIDDLE = 56.1  # x of the template's axis of symmetry


def _arc(start: float, stop: float, count: int, centre_y: float, half_width: float, half_height: float) -> Affine:
    """Points of an ellipse about the axis; angles in degrees, 0 to the right, 90 down."""
    angle = np.radians(np.linspace(start, stop, count))
    return np.stack([_MIDDLE + half_width * np.cos(angle), centre_y + half_height * np.sin(angle)], -1)


def _both(*left: tuple[float, float]) -> Affine:
    """Points of the left half and their mirror images."""
    points = np.array(left)
    return np.concatenate([points, np.array([2 * _MIDDLE, 0]) + points * [-1, 1]])


# The average face, 67 points.
PARTS: dict[str, Affine] = {
    "jaw": _arc(180, 0, 17, 52, 38, 63),
    "forehead": _arc(200, 340, 7, 46, 37, 32),
    "brows": _both((24, 43), (29, 38.5), (36, 36.5), (43, 37.5), (49, 40)),
    "eyes": _both((31, 51.8), (35, 48.8), (41, 48.8), (45.5, 52), (41, 54.5), (35, 54.5)),
    "nose": np.concatenate(
        [_arc(90, 90, 4, 50, 0, 0) + [[0, y] for y in (0, 7, 14, 21.7)], _arc(160, 20, 5, 76, 9, 5)]
    ),
    "mouth": _arc(0, 330, 12, 92.3, 14.6, 6.5),
}
# region -> the points whose hull it is, and how much larger than the hull it is, across and along the face
REGIONS: dict[str, tuple[Affine, tuple[float, float]]] = {
    "face": (np.concatenate([PARTS["jaw"], PARTS["brows"]]), (1.0, 1.0)),
    "whole": (np.concatenate([PARTS["jaw"], PARTS["forehead"]]), (1.0, 1.0)),
    "inner": (np.concatenate([PARTS["brows"], PARTS["eyes"], PARTS["nose"], PARTS["mouth"]]), (1.1, 1.1)),
    "lower": (np.concatenate([PARTS["nose"][4:], PARTS["mouth"], PARTS["jaw"][3:14]]), (1.0, 1.0)),
    "eyes": (np.concatenate([PARTS["brows"], PARTS["eyes"]]), (1.05, 1.5)),
    "mouth": (PARTS["mouth"], (1.35, 2.2)),
}


def fit(source: Affine, target: Affine, weights: Affine | None = None) -> Affine:
    """The affine maps (T, 2, 3) that take points `source` to `target`, (T, N, 2) each, by weighted least squares.

    A similarity is fitted first (Umeyama, 1991) and the affine map held near it (STIFFNESS), so that points on a line
    give a map that can be inverted; five equal points give one that cannot.
    """
    share = np.ones(source.shape[1]) if weights is None else weights
    share = (share / share.sum())[:, None]
    source_mean, target_mean = ((points * share).sum(1, keepdims=True) for points in (source, target))
    x, y = source - source_mean, target - target_mean
    spread = np.maximum((share * x * x).sum((1, 2)), 1e-12)
    cosine = (share * x * y).sum((1, 2)) / spread
    sine = (share[:, 0] * (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0])).sum(1) / spread
    similar = np.stack([cosine, -sine, sine, cosine], -1).reshape(-1, 2, 2)
    hold = (STIFFNESS * spread / 2)[:, None, None]
    cross = np.einsum("tni,tnj->tij", y * share, x) + hold * similar
    linear = cross @ np.linalg.inv(np.einsum("tni,tnj->tij", x * share, x) + hold * np.eye(2))
    offset = target_mean[:, 0] - np.einsum("tij,tj->ti", linear, source_mean[:, 0])
    return np.concatenate([linear, offset[..., None]], axis=2)


def credible(landmarks: Float, size: int) -> Affine:
    """Landmarks (T, 5, 2) of crops of side `size`; where they can be no face that fills the crop, the average ones.

    A crop is cut around a face, so landmarks that lie outside it, on one spot or in a line are the tracker's mistake.
    A forgery on them would change next to nothing and yet bear the label fake.
    """
    average = AVERAGE * size
    points = landmarks.astype(np.float64)
    points = np.where(np.isfinite(points).all((1, 2), keepdims=True) & (np.abs(points) < 1e6), points, average)
    maps = face_maps(points)
    usual = np.linalg.norm(average[1] - average[0]) / np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])
    stretch = np.linalg.svd(maps[:, :, :2], compute_uv=False) / usual
    good = (stretch[:, 0] < 2) & (stretch[:, 1] > 0.35) & (stretch[:, 1] > 0.3 * stretch[:, 0])
    good &= np.linalg.det(maps[:, :, :2]) > 0
    for y in (72, 92.3, 51.6):  # nose, mouth and eyes lie inside the crop
        place = maps @ np.array([_MIDDLE, y, 1]) / size
        good &= ((place > 0.08) & (place < 0.92)).all(1)
    return np.where(good[:, None, None], points, average)


def face_maps(landmarks: Affine) -> Affine:
    """(T, 2, 3) from template coordinates to the pixels of landmarks (T, 5, 2)."""
    return fit(np.broadcast_to(TEMPLATE.astype(np.float64), landmarks.shape), landmarks)


def chain(second: Affine, first: Affine) -> Affine:
    """The map that is `first`, then `second`."""
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return np.concatenate([second[..., :2] @ first[..., :2], offset], axis=-1)


def region_mask(region: str, rng: np.random.Generator) -> Float:
    """(CANVAS, CANVAS) in 0..1: a random variant of a region of REGIONS on the canvas of template units.

    As SBI does it: the hull of jittered points, deformed elastically, eroded or grown by a first blur with a threshold
    and softened by a second.
    """
    points, growth = REGIONS[region]
    centre = (points.min(0) + points.max(0)) / 2
    jittered = (points - centre) * growth * rng.uniform(0.92, 1.12, 2) + centre + rng.normal(0, 1.2, points.shape)
    soft = elastic(_hull(jittered), rng)
    first, second = (2 * int(rng.integers(1, 9)) + 1 for _ in range(2))  # SBI's 5 to 25 px of 192 to 256, in units
    level = float(rng.choice([0.95, 0.95, 0.5, 0.1]))  # erodes, erodes, rounds or grows
    soft = np.asarray(cv2.GaussianBlur(soft, (first, first), 0), np.float32)
    if (soft > level).any():  # a small region may not survive its erosion
        soft = (soft > level).astype(np.float32) * _head()
    soft = np.asarray(cv2.GaussianBlur(soft, (second, second), float(rng.uniform(2, 15))), np.float32)
    return soft / soft.max()


def _hull(points: Affine) -> Float:
    """(CANVAS, CANVAS): 1 inside the hull of template points (N, 2)."""
    hull = cv2.convexHull((points - CORNER).astype(np.float32))
    mask: np.ndarray = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / np.float32(255)


@cache
def _head() -> Float:
    """1 on the head, a little beyond its outline; what grows and bends does not leave it."""
    outline = REGIONS["whole"][0]
    middle = (outline.min(0) + outline.max(0)) / 2
    return _hull((outline - middle) * HEAD_GROWTH + middle)


def elastic(mask: Float, rng: np.random.Generator) -> Float:
    """A mask (CANVAS, CANVAS) with every pixel displaced by random noise that a Gaussian has smoothed.

    Simard, Steinkraus & Platt (2003), as SBI has it: there a Gaussian of 7 px and displacements of 1.2 px (standard
    deviation) in crops of 200 to 400 px. Here both are drawn, since one strength would be one more thing to recognise.
    """
    sigma, size = rng.uniform(4, 9), rng.uniform(0.5, 2.5)
    noise = rng.random((2, CANVAS, CANVAS), np.float32) * 2 - 1
    # Smoothing divides the deviation of white noise (1 / sqrt 3) by 2 sqrt(pi) sigma.
    gain = size * np.sqrt(3) * 2 * np.sqrt(np.pi) * sigma
    x, y = (np.clip(cv2.GaussianBlur(field, (0, 0), sigma) * gain, -6, 6) for field in noise)
    axis = np.arange(CANVAS, dtype=np.float32)
    moved = cv2.remap(mask, (axis + x).astype(np.float32), (axis[:, None] + y).astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(moved, np.float32)


def lay(mask: Float, maps: Affine, size: int) -> Float:
    """A canvas mask on crops of side `size` by `maps` (T, 2, 3) from template coordinates: (T, size, size) in 0..1.

    It fades out towards the crop's border (4 % of the side), so that a crop pasted back into its frame shows no square.
    """
    from_canvas = chain(maps, np.array([[1, 0, CORNER], [0, 1, CORNER]]))
    distance = np.minimum(np.arange(size), np.arange(size)[::-1])
    ramp = np.minimum(distance / max(2.0, 0.04 * size), 1)
    fade = np.minimum.outer(ramp, ramp).astype(np.float32)
    laid = np.stack([cv2.warpAffine(mask, matrix, (size, size)) for matrix in from_canvas]) * fade
    laid[laid < 1 / 128] = 0  # less would not change a pixel, and leaves the picture alone
    return np.clip(laid, 0, 1, out=laid)
