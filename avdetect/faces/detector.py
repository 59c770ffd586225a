"""The contract of every face detector; tests/test_faces_detectors.py holds each of them to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from avdetect.types import Float, UInt8

CPU = ("CPUExecutionProvider",)


@dataclass(frozen=True, repr=False)
class Faces:
    """The faces of one picture, most confident first (equal confidence: largest first)."""

    boxes: Float  # (N, 4) XYXY pixels; may reach a little beyond the picture
    confidences: Float  # (N,) in 0..1
    landmarks: Float  # (N, 5, 2) pixels: eyes, nose, mouth corners; of each pair the picture's left one first

    def __post_init__(self) -> None:
        count = len(self.confidences)
        if self.boxes.shape != (count, 4) or self.landmarks.shape != (count, 5, 2):
            raise ValueError(f"boxes {self.boxes.shape}, landmarks {self.landmarks.shape}, confidences {count}")

    def __len__(self) -> int:
        return len(self.confidences)

    def __repr__(self) -> str:
        return f"Faces({len(self)})"

    def select(self, index: np.ndarray) -> Faces:
        """The faces at `index` (integers or a mask), in that order."""
        return Faces(self.boxes[index], self.confidences[index], self.landmarks[index])

    @staticmethod
    def none() -> Faces:
        return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))

    @staticmethod
    def sorted(boxes: np.ndarray, confidences: np.ndarray, landmarks: np.ndarray) -> Faces:
        """Faces as float32 in the promised order, degenerate boxes left out."""
        sides = boxes[:, 2:4] - boxes[:, 0:2]
        good = np.flatnonzero((sides > 0).all(axis=1) & np.isfinite(landmarks).all(axis=(1, 2)))
        order = good[np.lexsort((-sides[good].prod(axis=1), -confidences[good]))]
        return Faces(*(values[order].astype(np.float32) for values in (boxes, confidences, landmarks)))


class FaceDetector(Protocol):
    """Finds faces in one picture. Deterministic; never changes its input; never raises for a picture of any size."""

    name: str
    fingerprint: str  # of the weights (`fingerprint_of`): other weights find other faces
    min_confidence: float  # what a face needs to be believed, on this detector's own scale

    def detect(self, rgb: UInt8, *, min_face: float = 20.0) -> Faces:
        """All faces of `rgb` (H, W, 3) whose box is at least about `min_face` pixels high."""
        ...

    def refine(self, rgb: UInt8, boxes: Float) -> Faces | None:
        """Look only near `boxes` (N, 4), where faces were a moment ago; None: this detector has no cheaper way."""
        ...


def fingerprint_of(*contents: bytes) -> str:
    """16 hex digits of weight files, in the order given; names and places do not count."""
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]
