"""Faces: detectors behind one contract, tracking, and the crops that the streams see.

    detector = build_detector("mtcnn")
    tracker = FaceTracker(detector, FaceConfig())
    for frames in video:                     # VideoFrames, in order
        faces = tracker.push(frames)         # list of TrackedFace
    faces = tracker.flush()

Nothing here imports torch, and importing this package loads neither OpenCV nor ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.errors import ConfigError
from avdetect.faces.detector import CPU, FaceDetector, Faces

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


Builder = Callable[[Path | None, int, tuple[str, ...]], FaceDetector]


def _mtcnn(path: Path | None, threads: int, providers: tuple[str, ...]) -> FaceDetector:
    from avdetect.faces.mtcnn import MTCNN

    return MTCNN(path, threads=threads, providers=providers)


def _scrfd(path: Path | None, threads: int, providers: tuple[str, ...]) -> FaceDetector:
    from avdetect.faces.scrfd import SCRFD

    return SCRFD(path, threads=threads, providers=providers)


DETECTORS: dict[str, Builder] = {"mtcnn": _mtcnn, "scrfd": _scrfd}


def build_detector(
    name: str, *, path: str | Path | None = None, threads: int = 1, providers: tuple[str, ...] = CPU
) -> FaceDetector:
    """The detector called `name`: "mtcnn" (ships with the package) or "scrfd" (opt-in, research only).

    `path` is the folder of MTCNN's networks or SCRFD's ONNX file; None means where each is kept by default.
    Raises ConfigError for an unknown name, ModelError when the weights are missing or damaged, ToolError for scrfd
    without insightface (extra `scrfd`).
    """
    if name not in DETECTORS:
        raise ConfigError(f"unknown face detector {name!r}; known: {', '.join(DETECTORS)}")
    return DETECTORS[name](None if path is None else Path(path), threads, providers)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
