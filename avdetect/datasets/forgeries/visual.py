"""Forgeries of the face: pseudo-fakes made from real crops, reproducible from a random generator.

Every method draws its parameters once a call and keeps them over all frames, as a manipulation does in a clip; only
what flickers in a real one (position) is drawn for each frame. Each returns the mask of what it touched: where it is 0
the crop is bit for bit its original, so that nothing but the forgery tells the two apart. OpenCV only, no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.blend import PLAIN, Style, blended, draw_style, match_colour
from avdetect.datasets.forgeries.geometry import Affine, chain, credible, face_maps, fit, lay, region_mask
from avdetect.types import Float, UInt8

BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # of the source, in SBI
_NEAR_MOUTH = np.array([1.0, 1.0, 2.0, 3.0, 3.0])  # weights of the five landmarks


@dataclass(frozen=True, repr=False)
class ForgedFaces:
    """What a forgery gives back."""

    crops: UInt8  # (T, S, S, 3) RGB
    mask: Float  # (T, S, S) in 0..1: the share of the forged picture before the blend ratio; where 0: untouched


# Faces, random numbers, and (NEEDS_MOMENT) as many crops of that size of the person at another moment of the clip.
VisualForgery = Callable[[FaceCrops, np.random.Generator, FaceCrops | None], ForgedFaces]


def self_blend(faces: FaceCrops, rng: np.random.Generator, moment: FaceCrops | None = None) -> ForgedFaces:
    """A face, or a part of it, blended onto itself: only the seam and the restyling of a manipulation.

    After Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022), which differs in two points.
    SBI restyles the source or, as often, the target; a restyled target differs from its original everywhere, also
    outside the mask, and the look of the whole picture would then be a label. Here only the source is restyled, both
    ways (see `blend.draw_style`), and its JPEG stays within the mask. SBI's masks are hulls of 68 or 81 tracked points;
    ours are hulls of an average face laid on five, in more variants (see `geometry`).
    """
    size = _side(faces)
    region = str(rng.choice(["face", "face", "whole", "inner", "inner", "lower", "mouth", "eyes"]))
    mask, style, ratio = region_mask(region, rng), draw_style(rng), float(rng.choice(BLEND_RATIOS))
    moves = _misplacements(len(faces), size, rng)
    maps = chain(moves, face_maps(credible(faces.landmarks, size)))  # SBI moves the mask along with its source
    sources = [_warp(style(crop), move, size) for crop, move in zip(faces.crops, moves, strict=True)]
    masks = lay(mask, maps, size)
    return ForgedFaces(blended(faces.crops, sources, masks, ratio), masks)


def mouth_swap(faces: FaceCrops, rng: np.random.Generator, moment: FaceCrops | None = None) -> ForgedFaces:
    """The mouth, or all from the nose to the chin, of another moment: words that were not said.

    It is moved into place by the landmarks and matched in colour along the rim: what lies inside (teeth, tongue) may
    differ. Raises ValueError without a moment, or with one that is the face itself.
    """
    if moment is None or moment.crops.shape != faces.crops.shape:
        raise ValueError(f"mouth_swap needs another moment like {faces}, got {moment}")
    if np.array_equal(faces.crops, moment.crops):
        raise ValueError("mouth_swap needs another moment: this one is the face itself, pixel for pixel")
    size = _side(faces)
    masks = _laid(region_mask(str(rng.choice(["mouth", "lower"])), rng), faces)
    maps = fit(credible(moment.landmarks, size), credible(faces.landmarks, size), _NEAR_MOUTH)
    maps[:, :, 2] += rng.uniform(-0.006, 0.006, 2) * size  # no tracker is exact
    warped = np.stack([_warp(crop, matrix, size) for crop, matrix in zip(moment.crops, maps, strict=True)])
    style = replace(draw_style(rng), colour=match_colour(warped, faces.crops, masks * (1 - masks)), sharpen=0.0)
    if rng.random() < 0.5:  # a mouth from a generator is softer and compressed; one from an editor is not
        style = Style(style.colour)
    return ForgedFaces(blended(faces.crops, [style(picture) for picture in warped], masks), masks)


def recompress(faces: FaceCrops, rng: np.random.Generator, moment: FaceCrops | None = None) -> ForgedFaces:
    """The face through a smaller size and JPEG, often sharpened again: the soft, ringing skin of a generator."""
    masks = _laid(region_mask(str(rng.choice(["face", "whole", "inner", "lower"])), rng), faces)
    factor, quality = rng.uniform(1.5, 3.5), int(rng.integers(30, 80))
    sharpen = rng.uniform(0.3, 1.0) * (rng.random() < 0.5)
    style = Style(PLAIN, factor, int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR])), sharpen, quality)
    return ForgedFaces(blended(faces.crops, [style(crop) for crop in faces.crops], masks), masks)


VISUAL: dict[str, VisualForgery] = {"self_blend": self_blend, "mouth_swap": mouth_swap, "recompress": recompress}
NEEDS_MOMENT = frozenset({"mouth_swap"})


def _misplacements(count: int, size: int, rng: np.random.Generator) -> Affine:
    """(count, 2, 3): up to 3 % of the width, 1.5 % of the height and 5 % in scale, with a wobble of up to 0.3 %."""
    scale = rng.uniform(0.95, 1 / 0.95)
    shift = np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.015, 0.015)])
    wobble = rng.uniform(0, 0.003) * rng.standard_normal((count, 2))
    offset = (1 - scale) / 2 + shift + wobble
    linear = np.broadcast_to(np.eye(2) * scale, (count, 2, 2))
    return np.concatenate([linear, (offset * size)[..., None]], axis=2)


def _warp(picture: UInt8, matrix: Affine, size: int) -> UInt8:
    """`picture` moved by `matrix` (2, 3) into a square of side `size`; beyond its edges it is mirrored."""
    return np.asarray(cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _laid(mask: Float, faces: FaceCrops) -> Float:
    size = _side(faces)
    return lay(mask, face_maps(credible(faces.landmarks, size)), size)


def _side(faces: FaceCrops) -> int:
    return faces.crops.shape[1]
