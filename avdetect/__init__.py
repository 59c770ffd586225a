"""avdetect: was a video manipulated, and was it the face, the voice, or the match between them.

    import avdetect
    detector = avdetect.load_detector()
    detection = detector.score("clip.mp4")
    print(detection.verdict, detection.fake, detection.video_fake, detection.audio_fake)
"""

from typing import TYPE_CHECKING, Any

from avdetect._version import __version__
from avdetect.types import Detection

if TYPE_CHECKING:
    from avdetect.detector import Detector, load_detector

__all__ = ["Detection", "Detector", "__version__", "load_detector"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `avdetect --help` and `import avdetect` do not wait for OpenCV and ONNX Runtime.
    if name in ("Detector", "load_detector"):
        from avdetect import detector

        return getattr(detector, name)
    raise AttributeError(f"module 'avdetect' has no attribute {name!r}")
