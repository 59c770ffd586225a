"""Forgeries of the face: pseudo-fakes made from real crops, reproducible from a random generator.

Every method draws its parameters once a call and keeps them over all frames, as a manipulation does in a clip; only
what flickers in a real one (position) is drawn for each frame. Each returns the mask of what it touched: where it is 0
the crop is bit for bit its original, so that nothing but the forgery tells the two apart. OpenCV only, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.blend import LEAST_CHANGE, least_change, made_visible, mix, warp
from avdetect.datasets.forgeries.geometry import Affine, border, chain, credible, face_maps, fit, lay, region_mask
from avdetect.datasets.forgeries.merge import half, laid_on, seen
from avdetect.datasets.forgeries.pose import turned_alike
from avdetect.datasets.forgeries.style import Style, draw_style, match_colour
from avdetect.types import Float, UInt8

BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # of the source, in SBI


@dataclass(frozen=True, repr=False)
class ForgedFaces:
    """What a forgery gives back."""

    crops: UInt8  # (T, S, S, 3) RGB
    mask: Float  # (T, S, S) in 0..1: the share of the forged picture before the blend ratio; where 0: untouched

    def __post_init__(self) -> None:
        if self.crops.shape != (*self.mask.shape, 3) or self.crops.dtype != np.uint8:
            raise ValueError(f"crops {self.crops.shape} {self.crops.dtype}, mask {self.mask.shape}")

    def __repr__(self) -> str:
        return f"ForgedFaces({len(self.crops)} of {self.crops.shape[1]} px, mask {self.mask.mean():.3f})"


@dataclass(frozen=True)
class Donors:
    """Other pictures that a forgery may take from, as many frames as the target has."""

    moment: FaceCrops | None = None  # the same person at another moment of the same clip; never the target itself
    other: FaceCrops | None = None  # another person: the caller sees to that


VisualForgery = Callable[[FaceCrops, np.random.Generator, Donors], ForgedFaces]


def identical(faces: FaceCrops, moment: FaceCrops) -> bool:
    """Is the moment the target itself, pixel for pixel (a still, a frozen picture)? Then nothing can come from it."""
    return np.array_equal(faces.crops, moment.crops)


def self_blend(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """A face blended onto itself: only the seam and the restyling of a manipulation, no second picture.

    After Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022), which differs in two points.
    SBI restyles the source or, as often, the target; a restyled target differs from its original everywhere, also
    outside the mask, and the look of the whole picture would then be a label. Here only the source is restyled, both
    ways (see `style.draw_style`), and its JPEG stays within the mask. SBI's masks are hulls of 68 or 81 tracked points;
    ours are hulls of an average face laid on five, in more variants (see `geometry`).
    """
    region = str(rng.choice(["face", "face", "whole", "inner", "inner", "lower", "mouth", "eyes"]))
    return _self_blend(faces, rng, region)


def self_blend_mouth(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """A self-blend of the mouth or the lower face only, where a lip-sync model paints."""
    return _self_blend(faces, rng, str(rng.choice(["mouth", "mouth", "lower"])))


def mouth_swap(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """The mouth of `donors.moment`, moved into place by the landmarks and blended in: words that were not said.

    Raises ValueError without a moment, or with one that is the target itself.
    """
    return _swap(faces, rng, _needed(donors.moment, faces, "mouth_swap", "moment"), "mouth")


def lower_face_swap(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """The lower face, from the nose to the chin, of `donors.moment`. Raises ValueError like `mouth_swap`."""
    return _swap(faces, rng, _needed(donors.moment, faces, "lower_face_swap", "moment"), "lower")


def rand_merge(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """A half of another person's face (left, right, upper or lower), laid on by the landmarks.

    After the merged faces with which DFDC contestants augmented their data. A donor that looks the other way is
    mirrored, and only what lies within both faces is blended: no hair, no background of the donor. The more alike the
    heads are turned, the better it looks (`pose.pose_gap`). Where the half would not be seen, the whole face is taken.
    """
    other = turned_alike(faces, _needed(donors.other, faces, "rand_merge", "other"))
    region, side = region_mask("face", rng), half(rng)
    style = draw_style(rng)
    maps = face_maps(credible(faces.landmarks, _side(faces)))
    warped, common = laid_on(faces, other, rng)
    masks = lay(region * side, maps, _side(faces)) * common
    for more in (lay(region, maps, _side(faces)) * common, common, lay(region, maps, _side(faces))):
        masks = masks if seen(masks) else more
    masks[masks < 1 / 128] = 0
    colour = match_colour(warped, faces.crops, masks)
    styled = Style(colour, style.shrink, style.method, 0.0, style.quality)
    return _blended(faces, [styled(picture) for picture in warped], masks, 1.0)


def recompress(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """The face through a smaller size and JPEG, often sharpened again: the soft, ringing skin of a generator."""
    region = str(rng.choice(["face", "whole", "inner", "lower"]))
    maps = face_maps(credible(faces.landmarks, _side(faces)))
    masks = lay(region_mask(region, rng), maps, _side(faces))
    factor, quality = rng.uniform(1.5, 3.5), int(rng.integers(30, 80))
    sharpen = rng.uniform(0.3, 1.0) * (rng.random() < 0.5)
    return _degraded(faces, masks, factor, int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR])), sharpen, quality)


def crappify(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """The rectangle around the face made small and large again, not its background.

    After the "crappified" faces of a DFDC solution; a generator's patch is a square of low resolution too.
    """
    size = _side(faces)
    maps = face_maps(credible(faces.landmarks, size))
    masks = _boxes(maps, size, rng.uniform(-0.06, 0.06, 4), float(rng.uniform(0, 0.03)))
    method = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST]))
    quality = int(rng.integers(30, 95)) if rng.random() < 0.3 else 100
    return _degraded(faces, masks, float(rng.uniform(1.6, 4.0)), method, 0.0, quality)


def given_back(faces: FaceCrops, drawn: UInt8, rng: np.random.Generator) -> ForgedFaces:
    """The face as a generator drew it: `drawn` (T, S, S, 3), the same frames through an autoencoder.

    The whole crop, as in a talking head made of a picture, or a region of it, as in a swap or a lip-sync.
    """
    size = _side(faces)
    region = str(rng.choice(["all", "all", "whole", "face", "face", "lower", "mouth"]))
    if region == "all":
        return _blended(faces, list(drawn), np.ones((len(faces), size, size), np.float32), 1.0)
    maps = face_maps(credible(faces.landmarks, size))
    return _blended(faces, list(drawn), lay(region_mask(region, rng), maps, size), 1.0)


def temporal_jitter(faces: FaceCrops, rng: np.random.Generator, donors: Donors) -> ForgedFaces:
    """A region that does not move with its head.

    In several frames each is shifted by up to 1.5 % of the side or taken from one of the two frames before or after it.
    A single frame has no neighbours: there the region comes from `donors.moment`, shifted, in the place that the
    landmarks give it. Raises ValueError for a single frame without another moment.
    """
    count, size = len(faces), _side(faces)
    region = str(rng.choice(["face", "inner", "lower", "mouth"]))
    mask = region_mask(region, rng)
    angle, reach = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.005, 0.015, count) * size
    step = rng.integers(-2, 3, count) * (rng.random(count) < 0.5)
    index = np.clip(np.arange(count) + step, 0, count - 1)
    alone = count < 2
    donor = _needed(donors.moment, faces, "temporal_jitter", "moment") if alone else faces
    points = credible(faces.landmarks, size)
    maps = fit(credible(donor.landmarks, _side(donor))[index], points)
    maps[:, :, 2] += (np.stack([np.cos(angle), np.sin(angle)]) * np.maximum(reach, 0.4)).T
    sources = [warp(donor.crops[i], matrix, size) for i, matrix in zip(index, maps, strict=True)]
    return _blended(faces, sources, lay(mask, face_maps(points), size), 1.0)


VISUAL: dict[str, VisualForgery] = {
    "self_blend": self_blend,
    "self_blend_mouth": self_blend_mouth,
    "mouth_swap": mouth_swap,
    "lower_face_swap": lower_face_swap,
    "recompress": recompress,
    "temporal_jitter": temporal_jitter,
    "rand_merge": rand_merge,
    "crappify": crappify,
}
# What a method takes from Donors; `temporal_jitter` needs it for a single frame only.
NEEDS: dict[str, str] = {
    "mouth_swap": "moment",
    "lower_face_swap": "moment",
    "temporal_jitter": "moment",
    "rand_merge": "other",
}

_SAME = np.eye(3, 4)
_NEAR_MOUTH = np.array([1.0, 1.0, 2.0, 3.0, 3.0])  # weights of the five landmarks


def _self_blend(faces: FaceCrops, rng: np.random.Generator, region: str) -> ForgedFaces:
    size = _side(faces)
    mask, style, ratio = region_mask(region, rng), draw_style(rng), float(rng.choice(BLEND_RATIOS))
    moves = _misplacements(len(faces), size, rng)
    maps = chain(moves, face_maps(credible(faces.landmarks, size)))  # SBI moves the mask along with its source
    sources = [warp(style(crop), move, size) for crop, move in zip(faces.crops, moves, strict=True)]
    return _blended(faces, sources, lay(mask, maps, size), ratio)


def _misplacements(count: int, size: int, rng: np.random.Generator) -> Affine:
    """(count, 2, 3): up to 3 % of the width, 1.5 % of the height and 5 % in scale, with a wobble of up to 0.3 %."""
    scale = rng.uniform(0.95, 1 / 0.95)
    shift = np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.015, 0.015)])
    wobble = rng.uniform(0, 0.003) * rng.standard_normal((count, 2))
    offset = (1 - scale) / 2 + shift + wobble
    linear = np.broadcast_to(np.eye(2) * scale, (count, 2, 2))
    return np.concatenate([linear, (offset * size)[..., None]], axis=2)


def _swap(faces: FaceCrops, rng: np.random.Generator, donor: FaceCrops, region: str) -> ForgedFaces:
    """A region of the donor, matched in colour along its rim: what lies inside (teeth, tongue) may differ."""
    size = _side(faces)
    style = draw_style(rng)
    lossy = rng.random() < 0.5  # a mouth from a generator is softer and compressed; one from an editor is not
    plain = Style(_SAME, min(style.shrink, 2.0) if lossy else 1.0, cv2.INTER_AREA, 0.0, style.quality if lossy else 100)
    points = credible(faces.landmarks, size)
    masks = lay(region_mask(region, rng), face_maps(points), size)
    maps = fit(credible(donor.landmarks, _side(donor)), points, _NEAR_MOUTH)
    maps[:, :, 2] += rng.uniform(-0.006, 0.006, 2) * size  # no tracker is exact
    warped = np.stack([warp(crop, matrix, size) for crop, matrix in zip(donor.crops, maps, strict=True)])
    colour = match_colour(warped, faces.crops, masks * (1 - masks))
    styled = Style(colour, plain.shrink, plain.method, plain.sharpen, plain.quality)
    return _blended(faces, [styled(picture) for picture in warped], masks, 1.0)


def _degraded(faces: FaceCrops, masks: Float, factor: float, method: int, sharpen: float, quality: int) -> ForgedFaces:
    """Frames through `factor` times fewer pixels and JPEG; more of it where the pictures were no better before."""
    for _ in range(4):
        style = Style(_SAME, factor, method, sharpen, quality)
        forged = mix(faces.crops, [style(crop) for crop in faces.crops], masks, 1.0)
        if least_change(faces.crops, forged, masks) >= LEAST_CHANGE:
            break
        factor, quality = factor * 1.5, max(10, min(quality, 60) - 15)
    return ForgedFaces(made_visible(faces.crops, forged, masks), masks)


def _blended(faces: FaceCrops, sources: Sequence[UInt8], masks: Float, ratio: float) -> ForgedFaces:
    """Sources over the faces by masks; at full strength where `ratio` of it would not show."""
    forged = mix(faces.crops, sources, masks, ratio)
    if ratio < 1 and least_change(faces.crops, forged, masks) < LEAST_CHANGE:
        forged = mix(faces.crops, sources, masks, 1.0)
    return ForgedFaces(made_visible(faces.crops, forged, masks), masks)


def _boxes(maps: Affine, size: int, jitter: Affine, feather: float) -> Float:
    """(T, S, S): the upright boxes around the faces, their four sides moved and their edges softened (of the side)."""
    corners = np.array([[18, 14, 1], [94, 14, 1], [18, 115, 1], [94, 115, 1]])
    masks = np.zeros((len(maps), size, size), np.float32)
    for mask, matrix in zip(masks, maps, strict=True):
        points = corners @ matrix.T
        x0, y0, x1, y1 = np.clip(np.concatenate([points.min(0), points.max(0)]) + jitter * size, 0, size)
        mask[round(y0) : max(round(y1), round(y0) + 2), round(x0) : max(round(x1), round(x0) + 2)] = 1
        if feather * size > 0.5:
            cv2.GaussianBlur(mask, (0, 0), feather * size, dst=mask)
    masks = np.minimum(masks, 1) * border(size)
    masks[masks < 1 / 128] = 0
    return masks


def _side(faces: FaceCrops) -> int:
    return faces.crops.shape[1]


def _needed(donor: FaceCrops | None, faces: FaceCrops, method: str, name: str) -> FaceCrops:
    if donor is None or len(donor) != len(faces):
        found = "none" if donor is None else f"{len(donor)} frames for {len(faces)}"
        raise ValueError(f"{method} needs donors.{name} with as many frames as the face, got {found}")
    if name == "moment" and identical(faces, donor):
        raise ValueError(f"{method} needs another donors.{name}: this one is the face itself, pixel for pixel")
    return donor
