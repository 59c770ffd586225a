"""Another camera, another codec: what makes a forged region look different from the picture around it.

Parameters are drawn once and applied to every frame alike: a manipulation keeps its look through a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.types import Float, UInt8

# Generators paint faces of 100 to 250 pixels. A loss that is measured in the pixels of a larger crop would not be seen
# in the small one that a detector looks at.
WORKING_SIDE = 192
_LUMA = np.array([0.299, 0.587, 0.114])
_METHODS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Style:
    """Colour, sharpness and compression of a source."""

    colour: NDArray[np.float64]  # (3, 4) affine map of RGB
    shrink: float  # down and up again by this factor, of at most WORKING_SIDE; 1: not
    method: int  # OpenCV's interpolation on the way down
    sharpen: float  # weight of unsharp masking; 0: none
    quality: int  # of JPEG; 100: none

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
            out = jpeg(out, self.quality)
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
    return Style(
        colour=_colour_map(shift, gain, bias, turn, saturation),
        shrink=shrink if lose else 1.0,
        method=method,
        sharpen=0.0 if lose else sharpen,
        quality=quality if compress else 100,
    )


def _colour_map(
    shift: NDArray[np.float64], gain: float, bias: float, turn: float, saturation: float
) -> NDArray[np.float64]:
    """(3, 4): chroma turned about the grey axis and scaled, then contrast about mid-grey, brightness and tint."""
    grey = np.tile(_LUMA, (3, 1))
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotate = np.eye(3) * np.cos(turn) + np.sin(turn) * cross + (1 - np.cos(turn)) * np.outer(axis, axis)
    linear = gain * (grey + saturation * rotate @ (np.eye(3) - grey))
    offset = 128 * (1 - gain) + bias + shift
    return np.concatenate([linear, offset[:, None]], axis=1)


def jpeg(picture: UInt8, quality: int) -> UInt8:
    """(S, S, 3) RGB through JPEG of `quality` 0..100."""
    encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1]


def match_colour(sources: UInt8, targets: UInt8, weights: Float) -> NDArray[np.float64]:
    """The (3, 4) map that gives `sources` the mean and spread of `targets` by `weights` (T, S, S), over all frames.

    Reinhard's colour transfer (2001), in RGB; the spread changes little and alike in all channels: teeth stay white.
    """
    step = max(1, sources.shape[1] // 64)  # statistics need no more pixels
    weight = weights[:, ::step, ::step].reshape(-1).astype(np.float32)
    weight /= max(float(weight.sum()), 1e-9)

    def moments(pictures: UInt8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pixels = pictures[:, ::step, ::step].reshape(-1, 3).astype(np.float32)
        mean = weight @ pixels
        spread = np.sqrt(np.maximum(weight @ (pixels - mean) ** 2, 1))
        return mean.astype(np.float64), spread.astype(np.float64)

    (source_mean, source_spread), (target_mean, target_spread) = moments(sources), moments(targets)
    gain = float(np.clip((target_spread / source_spread).mean(), 0.85, 1.18))
    return np.concatenate([gain * np.eye(3), (target_mean - gain * source_mean)[:, None]], axis=1)
