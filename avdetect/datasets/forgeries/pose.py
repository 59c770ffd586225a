"""How a head is turned, from five landmarks, and which part of a picture its face then covers.

A turned face is no affine copy of a frontal one: the nose leaves the middle and the far cheek disappears. A rough head
of template units with depths gives both: the turn from how far the nose lies off the middle, and the silhouette of the
turned face, beyond which there is hair or background.
"""

from __future__ import annotations

import cv2
import numpy as np

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.geometry import PARTS, Affine, credible
from avdetect.faces.crops import EYE_MOUTH_DISTANCE
from avdetect.types import Float, UInt8

NOSE_DEPTH = 14.5  # units by which the tip stands out from the plane of eyes and mouth (about 27 mm)
MOST_TURN = 0.9  # sine of a turn: beyond, MTCNN finds no face
EARS_DEPTH = 32.0  # units from the chin back to where the cheek ends before the ear
FEATHER = 0.02  # of the crop's side, Gaussian
_MIDDLE_X, _EYES_Y, _UP = 56.1, 51.6, 0.5  # weight of nods against turns in `pose_gap`


def _outline() -> Affine:
    """(N, 3) points of the head whose hull is the face, about the middle between the eyes; z towards the viewer."""
    jaw, brows = PARTS["jaw"], PARTS["brows"]
    inner = np.concatenate([PARTS["eyes"], PARTS["mouth"]])
    x, low = (jaw[:, 0] - _MIDDLE_X) / 38, 0.94  # within the outline: hair hangs into it
    cheeks = np.stack([38 * low * x, (jaw[:, 1] - _EYES_Y) * low, 2 - EARS_DEPTH * x**2], -1)
    brow_x = brows[:, 0] - _MIDDLE_X
    above = np.stack([brow_x, brows[:, 1] - _EYES_Y, 4 - 20 * (brow_x / 33) ** 2], -1)
    within = np.stack([inner[:, 0] - _MIDDLE_X, inner[:, 1] - _EYES_Y, np.zeros(len(inner))], -1)
    return np.concatenate([cheeks, above, within])


def head_pose(points: Affine) -> Affine:
    """(T, 2) of landmarks (T, 5, 2): the sine of the turn (positive: the nose to the picture's right) and how far down
    from the eyes to the mouth the nose is (about a half on a level head)."""
    origin, along, across, scale = _frame(points)
    nose = points[:, 2] - origin
    turn = (nose * across).sum(1) / scale / NOSE_DEPTH
    return np.stack([np.clip(turn, -MOST_TURN, MOST_TURN), (nose * along).sum(1) / scale / EYE_MOUTH_DISTANCE], -1)


def pose_gap(one: FaceCrops, two: FaceCrops) -> float:
    """How differently two faces are turned, mean over as many frames: 0 alike, 0.5 a turn of 30 degrees apart.

    The better of `two` and its mirror image, of which `rand_merge` takes the better too.
    """
    return min(_gaps(one, two))


def turned_alike(faces: FaceCrops, donor: FaceCrops) -> FaceCrops:
    """`donor` or its mirror image, whichever is turned more like `faces`."""
    plain, flipped = _gaps(faces, donor)
    return mirrored(donor) if flipped < plain else donor


def mirrored(faces: FaceCrops) -> FaceCrops:
    """Left and right exchanged, in the crops and among the landmarks."""
    size = faces.crops.shape[1]
    marks = faces.landmarks[:, [1, 0, 2, 4, 3]] * np.array([-1, 1]) + np.array([size - 1, 0])
    return FaceCrops(np.ascontiguousarray(faces.crops[:, :, ::-1]), marks.astype(np.float32))


def face_hulls(points: Affine, size: int) -> Float:
    """(T, S, S) in 0..1: the visible face of landmarks (T, 5, 2) from the brows down, feathered inwards only."""
    origin, along, across, scale = _frame(points)
    turn = head_pose(points)[:, :1]
    head = _outline()
    level = head[:, 0] * np.sqrt(1 - turn**2) + head[:, 2] * turn  # (T, N) across the picture
    places = origin[:, None] + scale[:, None, None] * (
        level[..., None] * across[:, None] + head[None, :, 1:2] * along[:, None]
    )
    masks = np.zeros((len(points), size, size), np.float32)
    for mask, place in zip(masks, np.clip(places, -4.0 * size, 5.0 * size), strict=True):
        hull = cv2.convexHull(np.rint(place * 16).astype(np.int32))
        drawn: UInt8 = np.zeros((size, size), np.uint8)
        cv2.fillConvexPoly(drawn, hull, 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), max(FEATHER * size, 0.8))
        np.clip(2 * soft - 1, 0, 1, out=mask)  # a blur is a half on the outline: from there inwards
    return masks


def _gaps(one: FaceCrops, two: FaceCrops) -> tuple[float, float]:
    """To `two`, and to its mirror image."""
    here, there = (head_pose(credible(faces.landmarks, faces.crops.shape[1])) for faces in (one, two))
    plain, flipped = (float((np.abs(here - there * [side, 1]) * [1, _UP]).sum(1).mean()) for side in (1, -1))
    return plain, flipped


def _frame(points: Affine) -> tuple[Affine, Affine, Affine, Affine]:
    """The middle between the eyes, unit vectors down and across the face, and pixels a unit; (T, 2) and (T,)."""
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    down = mouth - eyes
    length = np.maximum(np.linalg.norm(down, axis=1), 1e-6)
    along = down / length[:, None]
    return eyes, along, np.stack([along[:, 1], -along[:, 0]], -1), length / EYE_MOUTH_DISTANCE
