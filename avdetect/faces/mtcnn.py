"""MTCNN on ONNX Runtime, the detector that ships with the package.

Zhang, Zhang, Li, Qiao: "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE SPL
2016 (arXiv 1604.02878): P-Net proposes 12 x 12 windows over an image pyramid, R-Net (24 x 24) rejects most of them,
O-Net (48 x 48) decides and places five landmarks. Thresholds, pyramid factor and rounding follow facenet-pytorch 2.5.3,
whose weights these are (weights/mtcnn), so that both find the same faces (tests/test_faces_mtcnn.py).
"""

from pathlib import Path

import cv2
import numpy as np

from avdetect._onnx import shipped_network
from avdetect.faces.crops import as_uint8, halve
from avdetect.faces.detector import CPU, Faces, fingerprint_of
from avdetect.types import Float, UInt8

WEIGHTS = Path(__file__).parents[1] / "weights" / "mtcnn"
CELL, STRIDE = 12, 2  # P-Net's window and step, in pixels of its pyramid level
FACTOR = 0.709  # between pyramid levels: half the area
THRESHOLDS = (0.6, 0.7, 0.7)  # face probability that passes P-Net, R-Net, O-Net
MAX_BYTES = 64 * 1024**2  # of one network's file
MAX_PROPOSALS = 300  # a level; bounds the work that a picture full of face-like texture can cause


class MTCNN:
    """The cascade; `folder` holds its networks."""

    name = "mtcnn"
    min_confidence = 0.9

    def __init__(self, folder: Path | None = None, *, providers: tuple[str, ...] = CPU) -> None:
        files = [(folder or WEIGHTS) / f"{name}.onnx" for name in ("pnet", "rnet", "onet")]
        loaded = [shipped_network(file, MAX_BYTES, "MTCNN's", providers) for file in files]
        self._pnet, self._rnet, self._onet = (session for session, _ in loaded)
        self.fingerprint = fingerprint_of(*(content for _, content in loaded))

    def detect(self, rgb: UInt8, *, min_face: float = 20.0) -> Faces:
        """All faces of `rgb` (H, W, 3) at least about `min_face` pixels high."""
        return self._decide(rgb, self._reject(rgb, self._propose(rgb, min_face)))

    def refine(self, rgb: UInt8, boxes: Float) -> Faces:
        """R-Net and O-Net only, started from `boxes` (N, 4): a tenth of the cost of the pyramid."""
        # R-Net moves the boxes but rejects none: a face that is already known deserves O-Net's opinion.
        return self._decide(rgb, self._reject(rgb, _square(np.asarray(boxes, np.float32)), threshold=0.0))

    def _propose(self, rgb: UInt8, min_face: float) -> Float:
        """P-Net over the pyramid: square candidate boxes (N, 4)."""
        height, width = rgb.shape[:2]
        scale = CELL / max(min_face, CELL)
        levels, base = [], rgb
        while min(height, width) * scale >= CELL:
            size = (int(width * scale + 1), int(height * scale + 1))
            base = halve(base, size)  # reducing the full picture for each level cost more than P-Net itself
            offsets, scores = self._pnet.run(None, {"image": _normalise(_level(base, size)[None])})
            levels.append(_windows(offsets[0], scores[0, 1], scale))
            scale *= FACTOR
        if not levels:
            return np.zeros((0, 4), np.float32)
        found = np.concatenate(levels)  # (N, 9): box, score, offsets
        found = found[nms(found[:, :4], found[:, 4], 0.7)]
        sides = found[:, [2, 3, 2, 3]] - found[:, [0, 1, 0, 1]]
        return _square(found[:, :4] + found[:, 5:9] * sides)

    def _reject(self, rgb: UInt8, boxes: Float, threshold: float = THRESHOLDS[1]) -> Float:
        """R-Net: the candidates (N, 4) that pass, moved and made square."""
        crops, boxes = _crops(rgb, boxes, 24)
        if not len(boxes):
            return boxes
        offsets, scores = self._rnet.run(None, {"image": crops})
        keep = scores[:, 1] > threshold
        boxes, offsets, scores = boxes[keep], offsets[keep], scores[keep, 1]
        keep = nms(boxes, scores, 0.7)
        return _square(_move(boxes[keep], offsets[keep]))

    def _decide(self, rgb: UInt8, boxes: Float) -> Faces:
        """O-Net: the faces among the candidates (N, 4)."""
        crops, boxes = _crops(rgb, boxes, 48)
        if not len(boxes):
            return Faces.none()
        offsets, points, scores = self._onet.run(None, {"image": crops})
        keep = scores[:, 1] > THRESHOLDS[2]
        boxes, offsets, points, scores = boxes[keep], offsets[keep], points[keep], scores[keep, 1]
        sides = boxes[:, 2:4] - boxes[:, 0:2] + 1
        # (N, 10) = five x, five y in units of the box -> (N, 5, 2) pixels
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _move(boxes, offsets)
        keep = nms(boxes, scores, 0.7, smaller=True)
        return Faces.sorted(boxes[keep], scores[keep], landmarks[keep])


def _level(rgb: UInt8, size: tuple[int, int]) -> UInt8:
    """One level of the pyramid: `rgb` reduced by less than two to (width, height) `size`."""
    return as_uint8(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR))


def _sample(rgb: UInt8, size: tuple[int, int]) -> UInt8:
    """A candidate's pixels as R-Net's or O-Net's (width, height) `size`."""
    return as_uint8(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))


def _normalise(images: UInt8) -> Float:
    """(N, H, W, 3) uint8 to the networks' (N, 3, H, W) float32."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    planes -= 127.5
    planes *= 1 / 128
    return planes


def _windows(offsets: Float, scores: Float, scale: float) -> Float:
    """P-Net's maps (4, h, w), (h, w) of one level to its best windows (N, 9): box in picture pixels, score, offsets."""
    rows, columns = np.nonzero(scores >= THRESHOLDS[0])
    score = scores[rows, columns]
    if len(score) > MAX_PROPOSALS:
        best = np.sort(np.argsort(-score, kind="stable")[:MAX_PROPOSALS])
        rows, columns, score = rows[best], columns[best], score[best]
    # In float32, as the reference: the quotients are often whole numbers, where double precision floors differently.
    corner = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE
    boxes = np.floor(np.concatenate([corner + 1, corner + CELL], axis=1) / np.float32(scale))
    windows = np.concatenate([boxes, score[:, None], offsets[:, rows, columns].T], axis=1).astype(np.float32)
    return windows[nms(windows[:, :4], windows[:, 4], 0.5)]


def _square(boxes: Float) -> Float:
    """(N, 4) boxes grown to squares around their centres."""
    sides = boxes[:, 2:4] - boxes[:, 0:2]
    longest = sides.max(axis=1, keepdims=True)
    corner = boxes[:, 0:2] + sides * 0.5 - longest * 0.5
    return np.concatenate([corner, corner + longest], axis=1)


def _move(boxes: Float, offsets: Float) -> Float:
    """Apply a network's box regression; the + 1 is the authors' MATLAB convention of inclusive corners."""
    return boxes + offsets * (boxes[:, [2, 3, 2, 3]] - boxes[:, [0, 1, 0, 1]] + 1)


def _crops(rgb: UInt8, boxes: Float, size: int) -> tuple[Float, Float]:
    """Network input (M, 3, size, size) for the M boxes that meet the picture, and those boxes (M, 4)."""
    height, width = rgb.shape[:2]
    # One-based inclusive corners, cut at the picture's edge (not padded), as facenet-pytorch has it.
    corners = np.nan_to_num(boxes, nan=0.0, posinf=0.0, neginf=0.0).astype(np.int64)
    first, last = np.maximum(corners[:, :2], 1) - 1, np.minimum(corners[:, 2:], [width, height])
    inside = np.flatnonzero((last > first).all(axis=1))
    squares = zip(first[inside], last[inside], strict=True)
    images = [_sample(rgb[y0:y1, x0:x1], (size, size)) for (x0, y0), (x1, y1) in squares]
    return _normalise(np.array(images, ndmin=4).reshape(-1, size, size, 3)), boxes[inside]


def nms(boxes: Float, scores: Float, threshold: float, smaller: bool = False) -> np.ndarray:
    """Greedy non-maximum suppression: indices (K,) of the boxes (N, 4) to keep, best first.

    A box goes when its intersection with a better one exceeds `threshold` of their union, or with `smaller` of the
    smaller box (and inclusive corners), which also removes faces inside faces.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, extra = boxes[order].astype(np.float32), 1.0 if smaller else 0.0
    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0 + extra) * (y1 - y0 + extra)
    overlap_w = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0) + extra
    overlap_h = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0) + extra
    shared = np.maximum(overlap_w, 0) * np.maximum(overlap_h, 0)
    whole = np.minimum(area[:, None], area) if smaller else area[:, None] + area - shared
    clash = shared > threshold * whole  # (N, N)
    alive, keep = np.ones(len(order), bool), []
    for index in range(len(order)):
        if alive[index]:
            keep.append(index)
            alive &= ~clash[index]
    return order[keep]
