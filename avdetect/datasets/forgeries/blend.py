"""A source into its target: its look (another camera, another codec), its mask, and whether it shows at all.

A look is drawn once and applied to every frame alike: a manipulation keeps it through a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.datasets.augment.faces import through_jpeg
from avdetect.types import Float, UInt8

LEAST_CHANGE = 1.0  # grey levels, mean within the mask of each frame; a weaker forgery is a wrong label
# Generators paint faces of 100 to 250 pixels. A loss that is measured in the pixels of a larger crop would not be seen
# in the small one that a detector looks at.
WORKING_SIDE = 192
PLAIN = np.eye(3, 4)  # the colour map that changes nothing
_LUMA = np.array([0.299, 0.587, 0.114])
_METHODS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Style:
    """Colour, sharpness and compression of a source."""

    colour: NDArray[np.float64]  # (3, 4) affine map of RGB
    shrink: float = 1.0  # down and up again by this factor, of at most WORKING_SIDE; 1: not
    method: int = cv2.INTER_AREA  # OpenCV's interpolation on the way down
    sharpen: float = 0.0  # weight of unsharp masking; 0: none
    quality: int = 100  # of JPEG; 100: none

    def __call__(self, picture: UInt8) -> UInt8:
        """(S, S, 3) RGB in, same shape out."""
        out = np.asarray(cv2.transform(picture, self.colour), np.uint8)
        size = picture.shape[0]
        large = max(1.0, size / WORKING_SIDE)
        if self.shrink > 1:
            side = max(4, round(size / (self.shrink * large)))
            out = np.asarray(cv2.resize(out, (side, side), interpolation=self.method), np.uint8)
        if self.sharpen:
            blurred = cv2.GaussianBlur(out, (0, 0), 1.2 * len(out) / size * large)
            out = np.asarray(cv2.addWeighted(out, 1 + self.sharpen, blurred, -self.sharpen, 0), np.uint8)
        if self.quality < 100:
            out = through_jpeg(out, self.quality)
        if len(out) < size:
            out = np.asarray(cv2.resize(out, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
        return out


def draw_style(rng: np.random.Generator) -> Style:
    """SBI's jitter of a source: RGB shift up to 20, hue, saturation and value, brightness and contrast, and either a
    loss of resolution or sharpening; JPEG of quality 40 to 100 in half of the cases.

    SBI jitters either the source or the target. A forgery must leave the picture around the face as it is, so here the
    source takes both roles: it may come out duller or sharper, darker or brighter than its surroundings.
    """
    shift = rng.uniform(-20, 20, 3) * (rng.random() < 0.3)
    gain, bias = rng.uniform(0.88, 1.12), rng.uniform(-16, 16)
    turn, saturation = np.radians(rng.uniform(-4, 4)), rng.uniform(0.8, 1.25)
    lose, shrink, method = rng.random() < 0.5, rng.uniform(1.5, 4), int(rng.choice(_METHODS))
    sharpen = rng.uniform(0.3, 1.0)
    compress, quality = rng.random() < 0.5, int(rng.integers(40, 100))
    # Chroma is turned about the grey axis and scaled, then come contrast about mid-grey, brightness and tint.
    grey, axis = np.tile(_LUMA, (3, 1)), np.full((3, 1), turn / np.sqrt(3))
    linear = gain * (grey + saturation * cv2.Rodrigues(axis)[0] @ (np.eye(3) - grey))
    return Style(
        colour=np.column_stack([linear, 128 * (1 - gain) + bias + shift]),
        shrink=shrink if lose else 1.0,
        method=method,
        sharpen=0.0 if lose else sharpen,
        quality=quality if compress else 100,
    )


def match_colour(sources: UInt8, targets: UInt8, weights: Float) -> NDArray[np.float64]:
    """The (3, 4) map that gives `sources` the mean and spread of `targets` by `weights` (T, S, S), over all frames.

    Reinhard's colour transfer (2001), in RGB; the spread changes little and alike in all channels: teeth stay white.
    """
    step = max(1, sources.shape[1] // 64)  # statistics need no more pixels
    weight = weights[:, ::step, ::step].reshape(-1).astype(np.float64)
    weight /= max(weight.sum(), 1e-9)

    def moments(pictures: UInt8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pixels = pictures[:, ::step, ::step].reshape(-1, 3).astype(np.float64)
        mean = weight @ pixels
        return mean, np.sqrt(np.maximum(weight @ (pixels - mean) ** 2, 1))

    (source_mean, source_spread), (target_mean, target_spread) = moments(sources), moments(targets)
    gain = float(np.clip((target_spread / source_spread).mean(), 0.85, 1.18))
    return np.column_stack([gain * np.eye(3), target_mean - gain * source_mean])


def blended(targets: UInt8, sources: Sequence[UInt8], masks: Float, ratio: float = 1.0) -> UInt8:
    """`ratio` of the sources over the targets (T, S, S, 3) by masks (T, S, S) in 0..1; bit for bit the target at 0.

    Where that would not show it is blended in full. Where that does not show either, as in a flat or black picture, all
    frames are lightened or darkened alike within the masks.
    """
    forged = _mixed(targets, sources, masks, ratio)
    if ratio < 1 and _least_change(targets, forged, masks) < LEAST_CHANGE:
        forged = _mixed(targets, sources, masks, 1.0)
    tint = 4
    while _least_change(targets, forged, masks) < LEAST_CHANGE and tint < 256:
        step = tint if targets[masks > 0.5 * masks.max()].mean() < 128 else -tint
        tinted = [np.clip(picture.astype(np.int16) + step, 0, 255).astype(np.uint8) for picture in forged]
        forged = _mixed(forged, tinted, masks, 1.0)
        tint *= 2
    return forged


def _mixed(targets: UInt8, sources: Sequence[UInt8], masks: Float, ratio: float) -> UInt8:
    out = np.empty_like(targets)
    for index, (target, source, mask) in enumerate(zip(targets, sources, masks, strict=True)):
        mixed = target + (source.astype(np.float32) - target) * (mask[..., None] * np.float32(ratio))
        out[index] = np.rint(np.clip(mixed, 0, 255))
    return out


def _least_change(originals: UInt8, forged: UInt8, masks: Float) -> float:
    """Mean absolute difference within the mask in grey levels, of the frame where it is least."""
    frames = zip(originals, forged, masks, strict=True)
    return min(float(np.mean(cv2.mean(cv2.absdiff(a, b), (mask > 0).astype(np.uint8))[:3])) for a, b, mask in frames)
