"""avdetect: was a video manipulated, and was it the face, the voice, or the match between them.

import avdetect
detector = avdetect.load_detector()
detection = detector.score("clip.mp4")
print(detection.verdict, detection.fake, detection.video_fake, detection.audio_fake, detection.mismatch)
"""

import os
from typing import TYPE_CHECKING, Any

from avdetect._version import __version__

if TYPE_CHECKING:
    from avdetect.detector import Detector, load_detector
    from avdetect.types import Detection

# ONNX Runtime's wheels report to their maker, and leave a number of the device in the home folder, unless this is set
# before they are imported, which every way of scoring does later. What is scored may be nobody else's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Detection", "Detector", "__version__", "load_detector"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `avdetect --help` and `import avdetect` do not wait for NumPy and ONNX Runtime.
    if name in __all__:
        from avdetect import detector

        return getattr(detector, name)
    raise AttributeError(f"module 'avdetect' has no attribute {name!r}")
