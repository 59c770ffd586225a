"""Which part of a face crop its logit rests on: occlusion sensitivity.

Zeiler & Fergus (2014) slide a grey square over the picture and watch the output. A grey square has edges of its own,
and our encoder sees the picture high-passed, where such edges are the strongest thing in it. So a patch is blurred
instead, with a soft rim: the grain and the seams in it go, colour and coarse shape stay, and nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from avdetect.report.evidence import Picture
from avdetect.report.pictures import png
from avdetect.types import Float, UInt8

# Patches a side. Their centres are an eighth of the crop apart, and each is a quarter wide at half its height: an eye,
# a mouth, half a cheek. Twice as fine costs four times the network, and smaller patches hardly move the logit.
GRID = 7
# Drop of the logit that has full colour, in every crop of every report, so that what is small stays pale. With the
# default bundle the largest drop of a crop is 0.6 to 1.6, in crops that look real too.
FULL_DROP = 2.0
_BLUR = 1 / 16  # of the crop's side, standard deviation
_MAX_ALPHA = 200  # of 255: the face stays visible under it


def drops(network: Callable[[UInt8], Float], crop: UInt8) -> Float:
    """(S, S, 3) RGB -> (GRID, GRID): how far the logit falls when the patch there is blurred; negative where it rises.

    network: crops (N, S, S, 3) -> logits (N,), as `scoring.Networks.visual`; it sees 1 + GRID² crops.
    """
    blurred = cv2.GaussianBlur(crop, (0, 0), crop.shape[0] * _BLUR).astype(np.float32)
    masks = _masks(crop.shape[0])[..., None]
    mixed = crop + masks * (blurred - crop)
    logits = network(np.concatenate([crop[None], np.round(mixed).astype(np.uint8)]))
    return (logits[0] - logits[1:]).reshape(GRID, GRID)


@cache
def _masks(size: int) -> Float:
    """(GRID², size, size) in 0..1: soft squares (Hann windows), row by row."""
    centres = (np.arange(GRID) + 1) / (GRID + 1) * size
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / (size / 4)  # in half widths
    bumps = np.where(distance < 1, np.cos(np.pi / 2 * distance) ** 2, 0).astype(np.float32)  # (GRID, size)
    return np.einsum("iy,jx->ijyx", bumps, bumps).reshape(GRID * GRID, size, size)


def overlay(drops: Float, size: int) -> Picture:
    """(GRID, GRID) -> RGBA of `size` pixels: plasma, and the less transparent the larger the drop; rises are clear.

    A drop of FULL_DROP or more has the full colour.
    """
    step = size / (GRID + 1)
    # Between the centres of the patches values are interpolated, outside the outermost they go on.
    at = ((np.arange(size) + 0.5) / step - 1).clip(0, GRID - 1).astype(np.float32)
    across, down = np.meshgrid(at, at)
    values = cv2.remap(drops.astype(np.float32), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    strength = np.clip(values / FULL_DROP, 0, 1)
    levels = np.round(strength * 32) * (255 / 32)  # few levels: a smaller file that looks the same
    colours = cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_PLASMA)[..., ::-1]
    alpha = np.round(levels / 255 * _MAX_ALPHA).astype(np.uint8)[..., None]
    return png(np.concatenate([colours * (alpha > 0), alpha], axis=-1))
