"""Crops of faces and mouths, cut from the decoder's YUV planes before any colour conversion.

Converting a whole 1080p frame to RGB costs more than all the crops of its faces, so crops are cut from the planes, made
small, and only then converted. Pixel centres are at integer coordinates, as OpenCV's warps have it.
"""

import math
from typing import Any, cast

import cv2
import numpy as np

from avdetect.types import Float, UInt8, VideoFrames, yuv_to_rgb_matrix

# Where the five landmarks of an upright frontal face lie: ArcFace's 112 px template (Deng et al., 2019; insightface's
# code, MIT). Only its proportions matter here.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
EYE_DISTANCE = 35.2  # between the eyes, in the template
EYE_MOUTH_DISTANCE = 40.7  # from the eyes' middle to the mouth's middle
MOUTH_SIDE = 66.0  # side of the mouth crop: nose tip (20 above the mouth) to chin (about 30 below), and both cheeks


def frames_from_rgb(rgb: UInt8, first_frame: int = 0) -> VideoFrames:
    """Stills as video: (H, W, 3) or (T, H, W, 3) RGB to I420 (BT.601, limited range). Odd sides lose a line."""
    pictures = rgb[None] if rgb.ndim == 3 else rgb
    height, width = (side // 2 * 2 for side in pictures.shape[1:3])
    if not height or not width:
        raise ValueError(f"a picture must be at least 2 x 2 pixels, got {pictures.shape[1:3]}")
    even = [np.ascontiguousarray(picture[:height, :width]) for picture in pictures]
    return VideoFrames(np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420) for picture in even]), first_frame)


def reduced_rgb(frames: VideoFrames, index: int, side: int) -> UInt8:
    """Frame `index` as RGB (h, w, 3), its longer side at most `side` pixels."""
    scale = min(1.0, side / max(frames.height, frames.width))
    size = max(round(frames.width * scale), 1), max(round(frames.height * scale), 1)
    # After halving, less than a factor of two is left, where a detector needs no INTER_AREA (8 times the cost).
    planes = (cv2.resize(halve(plane, size), size, interpolation=cv2.INTER_LINEAR) for plane in frames.planes(index))
    return _to_rgb([as_uint8(plane) for plane in planes], frames)


def face_crop(frames: VideoFrames, index: int, box: Float, margin: float, size: int) -> UInt8:
    """The square of side `margin` x the longer side of `box` (XYXY) around its centre, as RGB (size, size, 3). What
    lies outside the picture repeats the nearest edge pixel."""
    box = np.asarray(box, np.float64)
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    # Even luma coordinates, so that luma and chroma are cut at the same place. A wild box is bounded.
    limit = 2 * max(frames.width, frames.height)
    half = max(round(min(margin * max(box[2] - box[0], box[3] - box[1]), limit) / 4), 1)  # in chroma pixels
    x0, y0 = round(centre_x / 2) - half, round(centre_y / 2) - half
    luma, *chroma = frames.planes(index)
    windows = [_window(luma, 2 * x0, 2 * y0, 4 * half), *(_window(plane, x0, y0, 2 * half) for plane in chroma)]
    return _to_rgb([_resize(window, (size, size)) for window in windows], frames)


def turn_of(landmarks: np.ndarray) -> tuple[float, float]:
    """(cosine, sine), times one factor, of the rotation from TEMPLATE to landmarks (5, 2) that fits best (Umeyama,
    1991): in the plane, the angle of the summed products of the points as complex numbers."""
    target, source = landmarks - landmarks.mean(axis=0), TEMPLATE - TEMPLATE.mean(axis=0)
    sine = float((source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum())
    return float((source * target).sum()), sine


def mouth_square(landmarks: Float) -> tuple[float, float, float, float]:
    """Centre x, centre y, side (pixels) and roll (radians) of the mouth crop for five landmarks (5, 2).

    The centre is the middle of the mouth corners. side = MOUTH_SIDE x max(eye distance / 35.2, eye-to-mouth distance /
    40.7): a turned head shortens the first and a nod the second, so the larger of the two is the face's true scale.
    """
    points = np.asarray(landmarks, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    scale = max(math.dist(points[0], points[1]) / EYE_DISTANCE, math.dist(eyes, mouth) / EYE_MOUTH_DISTANCE)
    cosine, sine = turn_of(points)
    return float(mouth[0]), float(mouth[1]), max(MOUTH_SIDE * scale, 2.0), math.atan2(sine, cosine)


def mouth_crop(frames: VideoFrames, index: int, landmarks: Float, size: int) -> UInt8:
    """The mouth as luma (size, size): level, centred, nose tip to chin (see `mouth_square`); edges replicated."""
    luma = frames.planes(index)[0]
    x, y, side, roll = mouth_square(landmarks)
    side = min(side, 2.0 * max(luma.shape))
    # Cut the upright square that holds the turned one, reduce it with anti-aliasing, then turn what is left.
    reach = side / 2 * (abs(math.cos(roll)) + abs(math.sin(roll))) + 2
    x0, y0 = (max(math.floor(value - reach), 0) for value in (x, y))
    x1, y1 = min(math.ceil(x + reach) + 1, luma.shape[1]), min(math.ceil(y + reach) + 1, luma.shape[0])
    x0, y0, x1, y1 = x0 // 4 * 4, y0 // 4 * 4, -(-x1 // 4) * 4, -(-y1 // 4) * 4  # sides that can be halved
    x1, y1 = min(x1, luma.shape[1]), min(y1, luma.shape[0])
    if x1 <= x0 or y1 <= y0:  # the landmarks are outside the picture
        return np.zeros((size, size), np.uint8)
    window = luma[y0:y1, x0:x1]
    # Reduce to 1.25 x the crop's resolution: the bilinear turn that follows is then neither aliased nor blurred.
    shrink = min(1.25 * size / side, 1.0)
    width, height = max(round((x1 - x0) * shrink), 1), max(round((y1 - y0) * shrink), 1)
    if shrink < 1:
        window = _resize(window, (width, height))
    # From crop pixels to window pixels: crop -> picture (rotation and scale about the mouth) -> window (shrink).
    cosine, sine, step, middle = math.cos(roll), math.sin(roll), side / size, (size - 1) / 2
    turn = np.array([[cosine, -sine], [sine, cosine]]) * step
    offset = np.array([x, y]) - turn @ np.array([middle, middle])
    ratio = np.array([width / (x1 - x0), height / (y1 - y0)])
    matrix = np.concatenate([turn * ratio[:, None], ((offset - [x0, y0] + 0.5) * ratio - 0.5)[:, None]], axis=1)
    return warp(window, matrix, (size, size))


def warp(picture: UInt8, matrix: np.ndarray, size: tuple[int, int]) -> UInt8:
    """`picture` at (width, height) `size`; `matrix` (2, 3) leads from there to it. Edges are replicated."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return as_uint8(cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _window(plane: UInt8, x0: int, y0: int, side: int) -> UInt8:
    """The square of `plane` at (x0, y0), edge pixels repeated outside."""
    height, width = plane.shape
    if x0 >= 0 and y0 >= 0 and x0 + side <= width and y0 + side <= height:
        return plane[y0 : y0 + side, x0 : x0 + side]
    rows = np.clip(np.arange(y0, y0 + side), 0, height - 1)
    columns = np.clip(np.arange(x0, x0 + side), 0, width - 1)
    return plane[rows][:, columns]


def halve(picture: UInt8, size: tuple[int, int]) -> UInt8:
    """`picture` averaged 2 x 2 while it stays at least (width, height) `size`: OpenCV's one fast reduction."""
    while picture.shape[1] >= 2 * size[0] and picture.shape[0] >= 2 * size[1]:
        if picture.shape[0] % 2 or picture.shape[1] % 2:
            break
        half = (picture.shape[1] // 2, picture.shape[0] // 2)
        picture = as_uint8(cv2.resize(picture, half, interpolation=cv2.INTER_AREA))
    return picture


def _resize(plane: UInt8, size: tuple[int, int]) -> UInt8:
    """`plane` at (width, height) `size`: averaged when shrinking, interpolated when growing."""
    plane = halve(plane, size)
    if plane.shape[::-1] == size:
        return plane
    shrinks = size[0] < plane.shape[1] and size[1] < plane.shape[0]
    return as_uint8(cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _to_rgb(planes: list[UInt8], frames: VideoFrames) -> UInt8:
    matrix = yuv_to_rgb_matrix(frames.color_matrix, frames.full_range)
    return as_uint8(cv2.transform(cv2.merge(planes), matrix))


def as_uint8(picture: Any) -> UInt8:
    """OpenCV's stubs promise any number type; uint8 in is uint8 out."""
    return cast(UInt8, picture)
