"""Encoded pictures for a report, and the strip of whole frames: bounded in number and in bytes."""

import cv2
import numpy as np

from avdetect.faces.crops import reduced_rgb
from avdetect.report.evidence import Frame, Picture
from avdetect.types import FPS, UInt8, VideoFrames

MAX_FRAMES = 128
FRAME_SIDE = 480  # pixels of the longer side
FRAME_BYTES = 19_000  # of one frame: 2.4 MB for all of them, 3.2 MB in the base64 of a page


def jpeg(picture: UInt8, max_bytes: int) -> Picture:
    """RGB (H, W, 3) or grey (H, W) as JPEG of at most `max_bytes`: first the quality gives way, then the size."""
    bgr: np.ndarray = picture[..., ::-1] if picture.ndim == 3 else picture
    while True:
        height, width = bgr.shape[:2]
        for quality in (80, 65, 50, 35):
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(data) <= max_bytes or max(height, width) < 16:
                return Picture("image/jpeg", data, width, height)
        bgr = cv2.resize(bgr, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA)


def png(picture: UInt8) -> Picture:
    """RGB (H, W, 3) as PNG, without loss."""
    data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    return Picture("image/png", data, picture.shape[1], picture.shape[0])


class FrameStrip:
    """Whole frames of a file, evenly over what was seen of it, MAX_FRAMES at most and at least half of that."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._every = 3  # frames; doubled whenever there are too many: a minute has one every 12, two a second
        self._kept: dict[int, Picture] = {}  # by frame number, rising

    def add(self, frames: VideoFrames) -> None:
        """The next frames, in order; the ones that are kept are copied."""
        if self._first is None:
            self._first = frames.first_frame
        for index in range(len(frames)):
            number = frames.first_frame + index
            if self._is_due(number):
                self._kept[number] = jpeg(reduced_rgb(frames, index, FRAME_SIDE), FRAME_BYTES)
            if len(self._kept) > MAX_FRAMES:
                self._every *= 2
                self._kept = {n: picture for n, picture in self._kept.items() if self._is_due(n)}

    def _is_due(self, number: int) -> bool:
        return (number - (self._first or 0)) % self._every == 0

    def frames(self) -> tuple[Frame, ...]:
        return tuple(Frame(number / FPS, picture) for number, picture in self._kept.items())
