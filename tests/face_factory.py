"""Rendered people for the face tests: scikit-image's public-domain portrait of the astronaut Eileen Collins."""

import cv2
import numpy as np
import skimage.data

from avdetect.faces.crops import frames_from_rgb
from avdetect.types import VideoFrames

HEIGHT, WIDTH = 360, 640
PORTRAIT = skimage.data.astronaut()[0:300, 60:360]  # (300, 300, 3): head and shoulders
FACE_HEIGHT = 110 / 300  # of the portrait's side, as MTCNN measures it
FACE_CENTRE = np.array([164 / 300, 117 / 300])  # x, y in portrait sides


def background(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) smooth coloured clouds, in which no detector sees a face."""
    clouds = np.random.default_rng(seed).integers(60, 200, (5, 8, 3), dtype=np.uint8)
    return cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)


def paste(picture: np.ndarray, side: int, x: float, y: float, portrait: np.ndarray = PORTRAIT) -> np.ndarray:
    """`picture` with the portrait, `side` pixels wide, its face centred at (x, y); a part may lie outside."""
    mirrored = portrait is not PORTRAIT and np.array_equal(portrait, PORTRAIT[:, ::-1])
    centre = np.array([1 - FACE_CENTRE[0] if mirrored else FACE_CENTRE[0], FACE_CENTRE[1]])
    scale = side / portrait.shape[0]
    shift = np.array([x, y]) - centre * side
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    small = cv2.GaussianBlur(portrait, (0, 0), 0.4 / scale) if scale < 1 else portrait
    size = picture.shape[1], picture.shape[0]
    return cv2.warpAffine(small, matrix, size, dst=picture.copy(), borderMode=cv2.BORDER_TRANSPARENT)


def video(pictures: list[np.ndarray], first_frame: int = 0) -> VideoFrames:
    return frames_from_rgb(np.stack(pictures), first_frame)


def part(frames: VideoFrames, start: int, stop: int) -> VideoFrames:
    """Frames start..stop of `frames`, on the same clock."""
    return VideoFrames(
        frames.i420[start:stop], frames.first_frame + start, frames.color_matrix, full_range=frames.full_range
    )
