"""Augmentation of mouth crops, for lip-sync: one treatment for all frames of a clip, and a camera of fewer frames.

Jitter between frames would look like speech, so nothing here moves, brightens or blurs one frame unlike the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avdetect.datasets.augment.faces import Treatment, through_jpeg
from avdetect.types import FPS, UInt8


@dataclass(frozen=True)
class MouthTreatment(Treatment):
    """What is done to the mouth crops of a clip."""

    fps: float | None  # of the camera
    phase: float  # of its first frame, 0..1 of its frame period

    @classmethod
    def draw(cls, rng: np.random.Generator) -> MouthTreatment:
        """Always the same number of draws, whatever is used of them."""
        resize, blur, jpeg, slow = (rng.random(4) < (0.4, 0.3, 0.4, 0.3)).tolist()
        resolution, sigma = rng.uniform(0.25, 1), rng.uniform(0.3, 1.2)
        quality, fps = int(rng.integers(30, 96)), rng.uniform(15, 30)
        return cls(
            angle_degrees=rng.uniform(-8, 8),
            scale=rng.uniform(0.9, 1.12),
            shift=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
            flip=bool(rng.random() < 0.5),
            contrast=rng.uniform(0.7, 1.3),
            brightness=rng.uniform(-25, 25),
            resolution=resolution if resize else None,
            blur_sigma=sigma if blur else None,
            jpeg_quality=quality if jpeg else None,
            fps=fps if slow else None,
            phase=rng.random(),
        )


def augment_mouths(crops: UInt8, rng: np.random.Generator) -> UInt8:
    """(T, M, M) luma of one clip at 25 fps -> same shape, under one treatment."""
    return treat_mouths(crops, MouthTreatment.draw(rng))


def treat_mouths(crops: UInt8, treatment: MouthTreatment) -> UInt8:
    """(T, M, M) luma under a given treatment."""
    matrix = treatment.matrix(crops.shape[1])
    shown, position = np.unique(held_frames(len(crops), treatment.fps or FPS, treatment.phase), return_inverse=True)
    done = [_treated(crops[index], matrix, treatment) for index in shown]
    return np.stack(done)[position] if done else crops.copy()


def held_frames(count: int, fps: float, phase: float = 0.0, clock: float = FPS) -> np.ndarray:
    """(count,) which of `count` frames at `clock` a second is seen at each of them, when the camera took `fps`.

    Each picture is held until the next one, as a player does: what is seen is never newer than the moment, and less
    than clock / fps + 1 frames older. At `clock` or more every frame is new. `phase` (0..1) is where in its period the
    camera stood.
    """
    if fps >= clock:
        return np.arange(count)
    step = clock / fps
    taken = np.floor((np.arange(-1, int(count / step) + 2) + phase) * step + 0.5).astype(np.int64)
    return np.maximum(taken[np.searchsorted(taken, np.arange(count), side="right") - 1], 0)


def _treated(crop: UInt8, matrix: np.ndarray, treatment: MouthTreatment) -> UInt8:
    size = crop.shape[0]
    warped = cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pixels: np.ndarray = warped.astype(np.float32)
    if treatment.resolution is not None:
        side = max(1, round(size * treatment.resolution))
        small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    if treatment.blur_sigma is not None:
        pixels = cv2.GaussianBlur(pixels, (0, 0), treatment.blur_sigma)
    pixels = (pixels - 128) * np.float32(treatment.contrast) + np.float32(128 + treatment.brightness)
    picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return picture if treatment.jpeg_quality is None else through_jpeg(picture, treatment.jpeg_quality)
