"""Self-blended images: a face crop blended onto itself, so that only the seam of a manipulation is there to be learned.

After Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022), reduced to five landmarks: the
mask is an ellipse over the whole face, its lower half, or the mouth, instead of the hull of 68 points.
"""

from __future__ import annotations

import cv2
import numpy as np

from avdetect.types import Float, UInt8

# (centre along the line from eyes to mouth, half width in eye distances, half height in eye-mouth distances)
_REGIONS = {"face": (0.55, 1.0, 1.2), "lower": (0.95, 0.8, 0.65), "mouth": (1.0, 0.55, 0.4)}
_BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)


def self_blend(crop: UInt8, landmarks: Float, rng: np.random.Generator) -> UInt8:
    """crop (S, S, 3) RGB, landmarks (5, 2) in its pixels -> the pseudo-fake, same shape."""
    source, target = crop.copy(), crop.copy()
    if rng.random() < 0.5:
        source = _restyle(source, rng)
    else:
        target = _restyle(target, rng)
    mask = _mask(crop.shape[0], landmarks, rng)
    source, mask = _affine(source, mask, rng)
    alpha = (mask * rng.choice(_BLEND_RATIOS))[..., None]
    return np.clip(source * alpha + target * (1 - alpha) + 0.5, 0, 255).astype(np.uint8)


def _restyle(image: UInt8, rng: np.random.Generator) -> UInt8:
    """Colour, brightness and sharpness of another camera."""
    out: np.ndarray = image.astype(np.float32) + rng.uniform(-20, 20, 3).astype(np.float32)
    out = (out - 128) * rng.uniform(0.9, 1.1) + 128 + rng.uniform(-12, 12)
    hsv = cv2.cvtColor(np.clip(out, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv *= np.array([1, rng.uniform(0.7, 1.3), 1], np.float32)
    out = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    if rng.random() < 0.5:
        size, small = image.shape[0], int(image.shape[0] / rng.uniform(1.5, 4))
        method = int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST]))
        return np.asarray(cv2.resize(cv2.resize(out, (small, small), interpolation=method), (size, size)), np.uint8)
    blurred = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.8, 2))
    return np.asarray(cv2.addWeighted(out, 1.6, blurred, -0.6, 0), np.uint8)


def _mask(size: int, landmarks: Float, rng: np.random.Generator) -> Float:
    """(S, S) in 0..1: a jittered ellipse, bent elastically and blurred."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    along, half_width, half_height = _REGIONS[str(rng.choice(["face", "face", "lower", "mouth"]))]
    centre = eyes + (mouth - eyes) * along
    width = np.linalg.norm(landmarks[1] - landmarks[0]) * half_width * rng.uniform(0.85, 1.2)
    height = np.linalg.norm(mouth - eyes) * half_height * rng.uniform(0.85, 1.2)
    tilt = np.degrees(np.arctan2(*(landmarks[1] - landmarks[0])[::-1]))
    mask: np.ndarray = np.zeros((size, size), np.float32)
    axes = (max(2, int(width)), max(2, int(height)))
    cv2.ellipse(mask, (int(centre[0]), int(centre[1])), axes, float(tilt), 0, 360, 1.0, -1)
    noise = rng.uniform(-1, 1, (size, size, 2)).astype(np.float32)
    bend = np.asarray(cv2.GaussianBlur(noise, (0, 0), size * 0.06), np.float32)
    bend *= size * rng.uniform(0.02, 0.08) / max(1e-6, float(np.abs(bend).max()))
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float32) + bend
    mask = cv2.remap(mask, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size * rng.uniform(0.01, 0.06)), np.float32)


def _affine(image: UInt8, mask: Float, rng: np.random.Generator) -> tuple[UInt8, Float]:
    """Misplace the source by up to 3 % of the width, 1.5 % of the height, 5 % in scale."""
    size = image.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), 0, rng.uniform(0.95, 1 / 0.95))
    matrix[:, 2] += size * np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.015, 0.015)])
    warp = [cv2.warpAffine(x, matrix, (size, size), borderMode=cv2.BORDER_REFLECT) for x in (image, mask)]
    return np.asarray(warp[0], np.uint8), np.asarray(warp[1], np.float32)
