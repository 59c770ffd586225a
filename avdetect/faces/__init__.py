"""Faces: detectors behind one contract, tracking, and the crops that the streams see.

    detector = build_detector("mtcnn")
    tracker = FaceTracker(detector, FaceConfig())
    for frames in video:                     # VideoFrames, in order
        faces = tracker.push(frames)         # list of TrackedFace
    faces = tracker.flush()

Nothing here imports torch, and importing this package loads neither OpenCV nor ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avdetect.faces.detector import DETECTORS, FaceDetector, Faces, build_detector

if TYPE_CHECKING:
    from avdetect.faces.crops import face_crop, frames_from_rgb, mouth_crop
    from avdetect.faces.tracking import FaceTracker, TrackedFace

__all__ = [
    "DETECTORS",
    "FaceDetector",
    "FaceTracker",
    "Faces",
    "TrackedFace",
    "build_detector",
    "face_crop",
    "frames_from_rgb",
    "mouth_crop",
]

_LAZY = {
    "FaceTracker": "tracking",
    "TrackedFace": "tracking",
    "face_crop": "crops",
    "frames_from_rgb": "crops",
    "mouth_crop": "crops",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
