"""Whether the mouth of a face crop can be seen, or something hides it: a mask, a microphone, a hand.

Nothing is learned here. The face is laid on `crops.TEMPLATE`, and a mouth is looked for by its two marks:

    line    between the lips runs a line that is darker than what is around it, measured by the contrast of the eyes
    colour  lips are redder than skin, so redness varies around a mouth as it does over the rest of the face

A mouth is called hidden where there is no line at all, or a weak one and no colour. Measured on crops of real people,
fakes and photographs, and on covers that were drawn over them (avdetect/weights/README.md). Skin over a mouth (a hand)
is often missed, and so are covers with a drawing of a mouth's colours. Below MIN_CONTRAST nothing can be said.
"""

import cv2
import numpy as np

from avdetect.faces.crops import TEMPLATE, as_uint8, turn_of, warp
from avdetect.types import Float, UInt8

MIN_CONTRAST = 15.0  # grey levels between the eyes' darkest and lightest parts
NO_LINE, WEAK_LINE = 0.05, 0.2  # of the contrast
NO_COLOUR = 0.4  # of the spread of redness over the middle of the face
NEIGHBOURS = 5  # crops: a second
BOX_SIDE = 123  # pixels of a face box in the crops that the limits above were measured on; larger ones are reduced
_NOISE = 0.2  # of redness: in a picture without colour both spreads are this
# Rows and columns of TEMPLATE: what is looked at, and parts of that.
_TOP, _BOTTOM, _LEFT, _RIGHT = 40, 108, 30, 82
_EYES, _MIDDLE = (slice(4, 18), slice(0, 52)), (slice(4, 40), slice(4, 48))
_MOUTH, _LIPS = (slice(44, 62), slice(10, 42)), (slice(42, 64), slice(14, 38))
# sRGB -> linear, and that -> X and Y of CIE 1931, of white 1.
_LINEAR = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], np.float32
)
_TO_XY = np.array([[0.43395, 0.37622, 0.18983], [0.21267, 0.71516, 0.07217]], np.float32)


def hidden_mouths(crops: UInt8, boxes: Float, landmarks: Float, margin: float) -> np.ndarray:
    """(N,) True where the mouth seems hidden, in a picture or in most of the NEIGHBOURS around it.

    crops (N, S, S, 3) RGB of one face in the order of time, cut by `crops.face_crop` with `margin` around boxes (N, 4);
    landmarks (N, 5, 2) and boxes in pixels of the picture.
    """
    faces = zip(crops, boxes.astype(np.float64), landmarks.astype(np.float64), strict=True)
    hidden = np.array([_is_hidden(_upright(crop, box, points, margin)) for crop, box, points in faces], bool)
    if not hidden.any():
        return hidden
    ones = np.ones(NEIGHBOURS)
    around, there = (np.convolve(values, ones)[NEIGHBOURS // 2 :][: len(hidden)] for values in (hidden, hidden * 0 + 1))
    return hidden | (2 * around > there)


def _upright(crop: UInt8, box: np.ndarray, landmarks: np.ndarray, margin: float) -> UInt8:
    """Eyes to chin (68, 52, 3), the landmarks where TEMPLATE has them as nearly as turning and scaling can."""
    side = margin * max(box[2] - box[0], box[3] - box[1])
    factor = round(crop.shape[0] / (margin * BOX_SIDE))
    if factor > 1:
        reduced = crop.shape[1] // factor, crop.shape[0] // factor
        crop = as_uint8(cv2.resize(crop, reduced, interpolation=cv2.INTER_AREA))
    points = (landmarks - (box[:2] + box[2:]) / 2 + side / 2) * (crop.shape[0] / side)
    cosine, sine = turn_of(points)
    centre = TEMPLATE.mean(axis=0)
    turn = np.array([[cosine, -sine], [sine, cosine]]) / float(((TEMPLATE - centre) ** 2).sum())  # template -> crop
    matrix = np.column_stack([turn, points.mean(axis=0) + turn @ ([_LEFT, _TOP] - centre)])
    return warp(crop, matrix, (_RIGHT - _LEFT, _BOTTOM - _TOP))


def _is_hidden(face: UInt8) -> bool:
    light, red = _light_and_red(face)
    eyes = np.sort(light[_EYES], axis=None)
    contrast = float(eyes[len(eyes) * 19 // 20]) - float(eyes[len(eyes) // 20])
    if contrast < MIN_CONTRAST:
        return False
    rows = np.sort(light[_LIPS].mean(axis=1))
    line = float(rows[len(rows) // 2] - rows[0]) / contrast
    if not NO_LINE <= line < WEAK_LINE:
        return line < NO_LINE
    soft = cv2.GaussianBlur(red, (0, 0), 1.5)
    return bool((soft[_MOUTH].std() + _NOISE) / (soft[_MIDDLE].std() + _NOISE) < NO_COLOUR)


def _light_and_red(face: UInt8) -> tuple[Float, Float]:
    """L (from 0 to 255) and a of CIELAB, in whole numbers, as `cv2.cvtColor` gives them: it would first make tables for
    70 ms of CPU, a pass of this takes 0.06 ms."""
    x, y = np.moveaxis(_LINEAR[face] @ _TO_XY.T, -1, 0)
    root_x, root_y = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y))
    return np.rint(255 * (1.16 * root_y - 0.16)), np.rint(500 * (root_x - root_y) + 128)
