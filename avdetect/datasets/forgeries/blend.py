"""Sources into targets through masks, and the check that the result can be told from the original at all."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from avdetect.datasets.forgeries.geometry import Affine
from avdetect.types import Float, UInt8

LEAST_CHANGE = 1.0  # grey levels, mean within the mask of each frame; a weaker forgery is a wrong label


def mix(targets: UInt8, sources: Sequence[UInt8], masks: Float, ratio: float) -> UInt8:
    """`ratio` of the sources over the targets (T, S, S, 3) by masks (T, S, S) in 0..1; bit for bit the target at 0."""
    out = targets.copy()
    for index, (source, mask) in enumerate(zip(sources, masks, strict=True)):
        rows, columns = extent(mask)
        target = targets[index, rows, columns].astype(np.float32)
        alpha = mask[rows, columns, None] * np.float32(ratio)
        mixed = target + (source[rows, columns].astype(np.float32) - target) * alpha
        out[index, rows, columns] = np.rint(np.clip(mixed, 0, 255))
    return out


def made_visible(originals: UInt8, forged: UInt8, masks: Float) -> UInt8:
    """The forgery, lightened or darkened within its mask until it shows.

    A flat or black picture has nothing that a shift or a codec could change. All frames are tinted alike, no flicker.
    """
    tint = 4
    while least_change(originals, forged, masks) < LEAST_CHANGE and tint < 256:
        inside = masks > 0.5 * masks.max()
        step = tint if originals[inside].mean() < 128 else -tint
        tinted = [np.clip(picture.astype(np.int16) + step, 0, 255).astype(np.uint8) for picture in forged]
        forged = mix(forged, tinted, masks, 1.0)
        tint *= 2
    return forged


def least_change(originals: UInt8, forged: UInt8, masks: Float) -> float:
    """Mean absolute difference within the mask in grey levels, of the frame where it is least."""
    least = np.inf
    for original, picture, mask in zip(originals, forged, masks, strict=True):
        rows, columns = extent(mask)
        difference = cv2.absdiff(original[rows, columns], picture[rows, columns])
        inside = (mask[rows, columns] > 0).astype(np.uint8)
        least = min(least, float(np.mean(cv2.mean(difference, inside)[:3])))
    return least


def extent(mask: Float) -> tuple[slice, slice]:
    """Rows and columns that hold all of `mask` above 0."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def warp(picture: UInt8, matrix: Affine, size: int) -> UInt8:
    """`picture` moved by `matrix` (2, 3) into a square of side `size`; beyond its edges it is mirrored."""
    flags = cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(picture, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101))
