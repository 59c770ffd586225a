"""Where one shot ends and the next begins, from thumbnails of the luma plane."""

import cv2
import numpy as np

from avdetect.types import Float, VideoFrames

THUMBNAIL = (64, 36)  # width, height
BLUR = 12.0  # grey levels, standard deviation: how far the histograms are blurred before they are compared
NOISE = 4.0  # grey levels: what differs by less (black frames, fades to flat colour) is no change of composition


class ShotDetector:
    """Says of each frame, in order, whether a new shot begins with it.

    The change between two frames is the larger of (a) half the sum of absolute differences of their luma histograms and
    (b) 1 - the correlation of their thumbnails. (a) sees a change of scene, (b) a cut between two pictures of one set
    that share their colours. Both lie in 0..1. Within 70 talking-head clips it stayed below 0.22, but for one in which
    a light goes out; of some 4,700 cuts between clips of different sources, 0.4 % stayed below 0.25.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._last: tuple[Float, Float] | None = None

    def push(self, frames: VideoFrames, index: int) -> bool:
        """True if frame `index` begins a shot; so does the first frame of all."""
        current = _signature(frames, index)
        last, self._last = self._last, current
        return last is None or _change(last, current) > self.threshold


def _change(first: tuple[Float, Float], second: tuple[Float, Float]) -> float:
    histogram = 0.5 * float(np.abs(first[0] - second[0]).sum())
    (a, b), noise = (first[1], second[1]), NOISE * NOISE
    # `noise` on both sides: two flat pictures correlate fully.
    covariance, deviation = float((a * b).mean()) + noise, np.sqrt(((a * a).mean() + noise) * ((b * b).mean() + noise))
    return max(histogram, min(1.0 - covariance / float(deviation), 1.0))


def _signature(frames: VideoFrames, index: int) -> tuple[Float, Float]:
    """Blurred luma histogram (256,) that sums to 1, and the zero-mean thumbnail (36, 64)."""
    luma = frames.planes(index)[0]
    # Whole numbers of pixels a thumbnail pixel, and about three of its lines: fifteen times faster than any fraction.
    width, height = THUMBNAIL
    columns, rows = luma.shape[1] // width * width, luma.shape[0] // height
    step = max(rows // 3, 1)
    luma = luma[: height * (rows // step) * step : step, :columns] if columns and rows else luma
    thumbnail = cv2.resize(luma, THUMBNAIL, interpolation=cv2.INTER_AREA)
    histogram = np.bincount(thumbnail.ravel(), minlength=256).astype(np.float32)[None] / thumbnail.size
    # Blurred, so that a large flat area which gets a little brighter stays where it is.
    smooth = cv2.GaussianBlur(histogram, (0, 0), sigmaX=BLUR, sigmaY=0.1, borderType=cv2.BORDER_REFLECT)[0]
    grey = cv2.GaussianBlur(thumbnail.astype(np.float32), (0, 0), 1.0)  # what moves a little still overlaps itself
    return smooth, grey - grey.mean()
