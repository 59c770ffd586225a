"""Another person's face laid onto this one, landmark on landmark, and only where both of them show skin."""

from __future__ import annotations

import cv2
import numpy as np

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.geometry import CANVAS, CORNER, Affine, border, credible, fit
from avdetect.datasets.forgeries.pose import face_hulls
from avdetect.types import Float, UInt8

REACH = 0.13  # of the side: how far around a landmark its own correction is felt
LARGEST_CORRECTION = 0.08  # of the side
LEAST_AREA = 0.01  # of the crop, that a mask must cover to be seen


def laid_on(faces: FaceCrops, donor: FaceCrops, rng: np.random.Generator) -> tuple[UInt8, Float]:
    """The donor's frames (T, S, S, 3) warped onto the landmarks of `faces`, and where both show a face (T, S, S).

    The affine map of `geometry.fit`, and near each landmark what it leaves: eyes lie on eyes and the mouth on the
    mouth even where the heads are turned differently. The mask ends within the silhouettes of both heads.
    """
    size, donor_size = faces.crops.shape[1], donor.crops.shape[1]
    points, donor_points = credible(faces.landmarks, size), credible(donor.landmarks, donor_size)
    slip = rng.uniform(-0.004, 0.004, 2) * size  # no tracker is exact
    grids = _grids(points + slip, donor_points, size, donor_size)
    theirs = face_hulls(donor_points, donor_size) * border(donor_size)
    ours = face_hulls(points, size) * border(size)
    warped = np.empty((len(points), size, size, 3), np.uint8)
    masks = np.empty((len(points), size, size), np.float32)
    for index, (x, y) in enumerate(grids):
        warped[index] = cv2.remap(donor.crops[index], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        masks[index] = np.minimum(ours[index], cv2.remap(theirs[index], x, y, cv2.INTER_LINEAR))
    return warped, masks


def half(rng: np.random.Generator) -> Float:
    """(CANVAS, CANVAS): 1 on one side of a soft line through the middle of the canonical face."""
    upright, side = rng.random() < 0.5, rng.choice([-1.0, 1.0])
    units = np.arange(CANVAS) + CORNER
    middle = 56.1 if upright else rng.uniform(60, 74)
    share = 1 / (1 + np.exp(np.clip(-side * (units - middle - rng.normal(0, 2)) / rng.uniform(0.7, 3), -30, 30)))
    shape = (1, CANVAS) if upright else (CANVAS, 1)
    return np.broadcast_to(share.reshape(shape), (CANVAS, CANVAS)).astype(np.float32)


def seen(masks: Float) -> bool:
    """Does every mask (T, S, S) cover enough to be seen?"""
    return bool(((masks > 0.5).mean((1, 2)) >= LEAST_AREA).all())


def _grids(points: Affine, donor: Affine, size: int, donor_size: int) -> list[tuple[Float, Float]]:
    """For each frame the donor's x and y (S, S) of every pixel: `remap` takes them."""
    back = fit(points, donor)
    left = donor - (np.einsum("tij,tnj->tni", back[:, :, :2], points) + back[:, None, :, 2])
    length = np.linalg.norm(left, axis=2, keepdims=True)
    left *= np.minimum(1, LARGEST_CORRECTION * donor_size / np.maximum(length, 1e-9))
    spread = 2 * (REACH * size) ** 2
    apart = ((points[:, :, None] - points[:, None]) ** 2).sum(-1)
    # Held a little from interpolation, so that landmarks on one spot do not pull in two directions.
    weights = np.linalg.solve(np.exp(-apart / spread) + 0.02 * np.eye(5), left)
    axis = np.arange(size)
    bumps = np.exp(-((axis - points[..., None]) ** 2) / spread)  # (T, 5, 2, S)
    grids = []
    for matrix, weight, bump in zip(back, weights, bumps, strict=True):
        across, down = bump[:, 0], bump[:, 1]
        x, y = (
            matrix[i, 0] * axis[None] + matrix[i, 1] * axis[:, None] + matrix[i, 2] + (down.T * weight[:, i]) @ across
            for i in (0, 1)
        )
        grids.append((x.astype(np.float32), y.astype(np.float32)))
    return grids
