"""Faces: detectors behind one contract, tracking, and the crops that the streams see.

    detector = build_detector("mtcnn")
    tracker = FaceTracker(detector, FaceConfig())    # avdetect.faces.tracking
    for frames in video:                             # VideoFrames, in order
        faces = tracker.push(frames)                 # list of TrackedFace
    faces = tracker.flush()

Nothing here imports torch, and importing this package loads neither OpenCV nor ONNX Runtime.
"""

from importlib import import_module
from pathlib import Path

from avdetect.errors import ConfigError
from avdetect.faces.detector import CPU, FaceDetector, Faces

__all__ = ["DETECTORS", "FaceDetector", "Faces", "build_detector"]

DETECTORS = {"mtcnn": "MTCNN", "scrfd": "SCRFD"}  # a module of this package -> its class


def build_detector(name: str, *, path: str | Path | None = None, providers: tuple[str, ...] = CPU) -> FaceDetector:
    """The detector called `name`: "mtcnn" (ships with the package) or "scrfd" (opt-in, research only).

    `path` is the folder of MTCNN's networks or SCRFD's ONNX file; None means where each is kept by default.
    Raises ConfigError for an unknown name, ModelError when the weights are missing or damaged, ToolError for scrfd
    without insightface (extra `scrfd`).
    """
    if name not in DETECTORS:
        raise ConfigError(f"unknown face detector {name!r}; known: {', '.join(DETECTORS)}")
    builder = getattr(import_module(f"{__name__}.{name}"), DETECTORS[name])
    detector: FaceDetector = builder(None if path is None else Path(path), providers=providers)
    return detector
