"""Augmentation of face crops: geometry, colour, resolution, blur, noise, JPEG and a covered part of the face.

One treatment is drawn for all crops of an item. Covering the parts that landmarks name makes the detector look at the
whole face; the DFDC winner did so (Seferbekov, 2020, "face cut-out"). The boxes here are written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.datasets.crops import FaceCrops
from avdetect.faces.crops import as_uint8
from avdetect.types import Float, UInt8

# What may be covered: half width and half height, in the unit of `_cover_corners`, of a box along the line of the eyes.
PARTS = {"eyes": (0.95, 0.32), "nose": (0.36, 0.42), "mouth": (0.6, 0.34)}
_SHRINKS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_NEAREST)
_GROWS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_SMALLEST_SIDE = 16  # pixels; less is no face


@dataclass(frozen=True)
class Treatment:
    """What is done to a crop. None: the operation is left out."""

    angle_degrees: float
    scale: float
    shift: tuple[float, float]  # x, y, in sides of the crop
    flip: bool
    contrast: float
    brightness: float  # of 0..255
    resolution: float | None  # of the side, before it is enlarged again
    blur_sigma: float | None  # pixels
    jpeg_quality: int | None

    def matrix(self, size: int) -> NDArray[np.float64]:
        """(2, 3) map from a crop of side `size` to the moved crop, in pixels."""
        middle = (size - 1) / 2
        matrix = np.asarray(cv2.getRotationMatrix2D((middle, middle), self.angle_degrees, self.scale), np.float64)
        matrix[:, 2] += np.array(self.shift) * size
        if self.flip:
            matrix[0] = -matrix[0]
            matrix[0, 2] += size - 1
        return matrix


@dataclass(frozen=True)
class FaceTreatment(Treatment):
    """What is done to a face crop."""

    tint: tuple[float, float, float]  # of 0..255
    saturation: float  # 0: gray
    shrink: int  # OpenCV's interpolations for the two steps of `resolution`
    grow: int
    noise_level: float | None  # standard deviation, of 0..255
    noise_seed: int
    cover: str | None  # a key of PARTS, or "box"
    box: tuple[float, float, float, float]  # of the cover "box": x0, y0, width, height, in sides of the crop
    cover_level: int  # 0..255

    @classmethod
    def draw(cls, rng: np.random.Generator) -> FaceTreatment:
        """Always the same number of draws, whatever is used of them."""
        gray, resize, blur, noise, jpeg, cover = (rng.random(6) < (0.06, 0.5, 0.2, 0.3, 0.6, 0.3)).tolist()
        saturation, resolution = rng.uniform(0.5, 1.5), rng.uniform(0.25, 1)
        sigma, level, quality = rng.uniform(0.4, 1.8), rng.uniform(1, 9), int(rng.integers(30, 96))
        part = (*PARTS, "box")[int(rng.integers(len(PARTS) + 1))]
        return cls(
            angle_degrees=rng.uniform(-10, 10),
            scale=rng.uniform(0.8, 1.15),
            shift=(rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)),
            flip=bool(rng.random() < 0.5),
            contrast=rng.uniform(0.75, 1.25),
            brightness=rng.uniform(-20, 20),
            tint=tuple(rng.uniform(-10, 10, 3).tolist()),
            saturation=0.0 if gray else saturation,
            resolution=resolution if resize else None,
            shrink=_SHRINKS[int(rng.integers(len(_SHRINKS)))],
            grow=_GROWS[int(rng.integers(len(_GROWS)))],
            blur_sigma=sigma if blur else None,
            noise_level=level if noise else None,
            noise_seed=int(rng.integers(2**32)),
            jpeg_quality=quality if jpeg else None,
            cover=part if cover else None,
            box=(*rng.uniform(0, 0.7, 2).tolist(), *rng.uniform(0.1, 0.35, 2).tolist()),
            cover_level=int(rng.integers(256)),
        )

    def lighter(self, rng: np.random.Generator) -> FaceTreatment:
        """Half the geometry and colour, nothing blurred or covered, and what wears texture away seldom and mildly.

        For encoders that are not trained: they need not learn to bear it, and it hides what gives a forgery away.
        """
        small, grain, jpeg = (rng.random(3) < (0.3, 0.3, 0.5)).tolist()
        return replace(
            self,
            angle_degrees=self.angle_degrees / 2,
            scale=1 + (self.scale - 1) / 2,
            contrast=1 + (self.contrast - 1) / 2,
            brightness=self.brightness / 2,
            tint=(self.tint[0] / 2, self.tint[1] / 2, self.tint[2] / 2),
            saturation=1 + (self.saturation - 1) / 2 if self.saturation else 1.0,
            resolution=self.resolution if small and (self.resolution or 0) > 0.5 else None,
            blur_sigma=None,
            noise_level=self.noise_level if grain else None,
            jpeg_quality=max(60, self.jpeg_quality) if jpeg and self.jpeg_quality else None,
            cover=None,
        )


def augment_faces(faces: FaceCrops, rng: np.random.Generator, light: bool = False) -> UInt8:
    """(T, S, S, 3) RGB: all crops of the item under one treatment. The landmarks no longer fit what comes out."""
    treatment = FaceTreatment.draw(rng)
    return treat_faces(faces, treatment.lighter(rng) if light else treatment)


def treat_faces(faces: FaceCrops, treatment: FaceTreatment) -> UInt8:
    """(T, S, S, 3) RGB under a given treatment."""
    size = faces.crops.shape[1]
    matrix = treatment.matrix(size).astype(np.float32)
    grain = np.random.default_rng(treatment.noise_seed)  # goes on from frame to frame, as a sensor's noise does
    out = np.empty_like(faces.crops)
    for index, (crop, landmarks) in enumerate(zip(faces.crops, faces.landmarks, strict=True)):
        # Repeated edges are also what a face crop shows beyond the picture: seen in both classes, they mean nothing.
        moved = cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture = _degraded(_coloured(as_uint8(moved), treatment), treatment, grain)
        if treatment.cover is not None:
            corners = _cover_corners(landmarks @ matrix[:, :2].T + matrix[:, 2], treatment, treatment.cover, size)
            cv2.fillConvexPoly(picture, corners, (treatment.cover_level,) * 3)
        out[index] = picture
    return out


def through_jpeg(picture: UInt8, quality: int) -> UInt8:
    """(H, W, 3) RGB or (H, W) luma, encoded as JPEG of `quality` (0..100) and decoded."""
    stored = np.ascontiguousarray(picture[..., ::-1]) if picture.ndim == 3 else picture
    encoded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = as_uint8(cv2.imdecode(encoded, cv2.IMREAD_COLOR if picture.ndim == 3 else cv2.IMREAD_GRAYSCALE))
    return np.ascontiguousarray(decoded[..., ::-1]) if picture.ndim == 3 else decoded


def _coloured(picture: UInt8, treatment: FaceTreatment) -> Float:
    pixels = picture.astype(np.float32)
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    pixels = luma[..., None] + (pixels - luma[..., None]) * np.float32(treatment.saturation)
    # A gray picture stays gray: it came from a gray film, not from a tinted one.
    tint = np.array(treatment.tint if treatment.saturation else (0, 0, 0), np.float32)
    return (pixels - 128) * np.float32(treatment.contrast) + np.float32(128 + treatment.brightness) + tint


def _degraded(pixels: Float, treatment: FaceTreatment, grain: np.random.Generator) -> UInt8:
    """Resolution, blur, noise and JPEG, in the order in which a picture meets them."""
    size = pixels.shape[0]
    if treatment.resolution is not None:
        side = max(min(_SMALLEST_SIDE, size), round(size * treatment.resolution))
        small = cv2.resize(pixels, (side, side), interpolation=treatment.shrink)
        pixels = np.asarray(cv2.resize(small, (size, size), interpolation=treatment.grow), np.float32)
    if treatment.blur_sigma is not None:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), treatment.blur_sigma), np.float32)
    if treatment.noise_level is not None:
        pixels = pixels + grain.standard_normal(pixels.shape, np.float32) * np.float32(treatment.noise_level)
    picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return picture if treatment.jpeg_quality is None else through_jpeg(picture, treatment.jpeg_quality)


def _cover_corners(landmarks: Float, treatment: FaceTreatment, cover: str, size: int) -> NDArray[np.int32]:
    """(4, 2) corners of what is covered, in pixels of the moved crop.

    A part's box is turned with the eyes. Its unit is the longer of eye and eye-to-mouth distance: a turned head
    shortens the one, a nod the other.
    """
    if cover == "box":
        x, y, width, height = (value * size for value in treatment.box)
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    else:
        eyes, mouth, across = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0), landmarks[1] - landmarks[0]
        unit = max(float(np.hypot(*across)), float(np.hypot(*(mouth - eyes))))
        right = across / max(float(np.hypot(*across)), 1e-6)
        down = np.array([-right[1], right[0]])
        centre = {"eyes": eyes, "nose": landmarks[2], "mouth": mouth}[cover]
        half_width, half_height = (value * unit for value in PARTS[cover])
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        corners = np.array([centre + sx * half_width * right + sy * half_height * down for sx, sy in signs])
    # Wild landmarks cover nothing or all; they must not overflow OpenCV's fixed-point coordinates.
    return np.rint(np.clip(np.nan_to_num(corners), -2 * size, 3 * size)).astype(np.int32)
