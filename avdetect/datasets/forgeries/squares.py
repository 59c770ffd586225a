"""One face in a video, at the video's own resolution: where it is, cut out as squares, and put back forged.

A square is a window of the frame, never scaled: what is not forged stays what the decoder gave. Its corner and side are
even, so that its chroma samples are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.config import FaceConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.visual import ForgedFaces
from avdetect.errors import LimitError, MediaError
from avdetect.faces.detector import FaceDetector
from avdetect.faces.tracking import FaceTracker, TrackedFace
from avdetect.media import MediaReader
from avdetect.types import FPS, Float, UInt8, VideoFrames, yuv_to_rgb_matrix

MAX_BYTES = 1_500_000_000  # of the squares of one segment with their forgery and donors
_BYTES_A_PIXEL = 25  # crops, forged crops, donor, warped donor, sources, a copy (RGB each) and the mask
_AREA = cv2.INTER_AREA
_STEADY_FRAMES = 9  # corners are averaged over so many frames, or the window would tremble with the detector


@dataclass(frozen=True, repr=False)
class FaceSquares:
    """Where one face is, frame by frame without a gap."""

    first_frame: int  # on the file's clock
    corners: NDArray[np.int64]  # (T, 2) x, y of the squares' first pixel; may lie outside the picture
    side: int  # pixels of the frame
    landmarks: Float  # (T, 5, 2) in pixels of the squares

    def __len__(self) -> int:
        return len(self.corners)

    def __repr__(self) -> str:
        return f"FaceSquares({len(self)} of {self.side} px from {self.first_frame / FPS:.2f} s)"

    @property
    def most_frames(self) -> int:
        """How many squares may be cut at once."""
        return MAX_BYTES // (self.side**2 * _BYTES_A_PIXEL)

    def window(self, first: int, stop: int) -> FaceSquares:
        """Frames `first` to `stop` (numbers on the file's clock)."""
        part = slice(first - self.first_frame, stop - self.first_frame)
        return FaceSquares(first, self.corners[part], self.side, self.landmarks[part])


def track_squares(
    reader: MediaReader, detector: FaceDetector, faces: FaceConfig, start_seconds: float, duration_seconds: float
) -> FaceSquares:
    """Follow the faces of a window and return the one that is seen longest (of equals, the largest).

    Raises MediaError if no face is followed for `faces.min_track` frames.
    """
    tracker = FaceTracker(detector, faces)
    found: list[TrackedFace] = []
    for batch in reader.video(start_seconds=start_seconds, duration_seconds=duration_seconds):
        found += tracker.push(batch)
    found += tracker.flush()
    tracks: dict[int, list[TrackedFace]] = {}
    for face in found:
        tracks.setdefault(face.track_id, []).append(face)
    if not tracks:
        end = start_seconds + duration_seconds
        raise MediaError(
            f"{reader.info.path.name}: no face from {start_seconds:.2f} to {end:.2f} s; name another segment"
        )
    track = max(tracks.values(), key=lambda faces: (len(faces), float(np.ptp(faces[0].box[::2]))))
    return _squares(sorted(track, key=lambda face: face.frame), faces.crop_margin)


def _squares(track: list[TrackedFace], margin: float) -> FaceSquares:
    boxes = np.stack([face.box for face in track]).astype(np.float64)
    side = 2 * int(np.ceil(float((boxes[:, 2:] - boxes[:, :2]).max()) * margin / 2))
    centres = _steadied((boxes[:, :2] + boxes[:, 2:]) / 2)
    corners = 2 * np.rint((centres - side / 2) / 2).astype(np.int64)
    landmarks = np.stack([face.landmarks for face in track]) - corners[:, None]
    return FaceSquares(track[0].frame, corners, side, landmarks.astype(np.float32))


def _steadied(values: NDArray[np.float64]) -> NDArray[np.float64]:
    reach = _STEADY_FRAMES // 2
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    kernel = np.ones(_STEADY_FRAMES) / _STEADY_FRAMES
    return np.stack([np.convolve(column, kernel, "valid") for column in padded.T], -1)


def cut_squares(
    reader: MediaReader, squares: FaceSquares, wanted: NDArray[np.int64], most_side: int | None = None
) -> FaceCrops:
    """The squares of frames `wanted` (numbers, any order, repeats allowed) as RGB crops, reduced to `most_side`.

    Raises LimitError if they would not fit into MAX_BYTES, MediaError if the file ends before them.
    """
    side = min(squares.side, most_side or squares.side)
    if len(wanted) * side**2 * _BYTES_A_PIXEL > MAX_BYTES:
        seconds = MAX_BYTES / (side**2 * _BYTES_A_PIXEL * FPS)
        raise LimitError(
            f"{reader.info.path.name}: {len(wanted) / FPS:.1f} s of a face {side} pixels wide are too much "
            f"to forge at once; name a segment of at most {seconds:.1f} s"
        )
    places: dict[int, list[int]] = {}
    for place, number in enumerate(wanted.tolist()):
        places.setdefault(number, []).append(place)
    first, last = int(wanted.min()), int(wanted.max())
    crops = np.empty((len(wanted), side, side, 3), np.uint8)
    for batch in reader.video(start_seconds=first / FPS, duration_seconds=(last + 1 - first) / FPS):
        for index in range(len(batch)):
            number = batch.first_frame + index
            if number in places:
                square = cut(batch, index, squares.corners[number - squares.first_frame], squares.side)
                reduced = square if side == squares.side else cv2.resize(square, (side, side), interpolation=_AREA)
                crops[places.pop(number)] = reduced
    if places:
        raise MediaError(f"{reader.info.path.name} ends before {last / FPS:.2f} s; name an earlier segment")
    scale = np.float32(side / squares.side)
    return FaceCrops(crops, squares.landmarks[wanted - squares.first_frame] * scale)


def cut(frames: VideoFrames, index: int, corner: NDArray[np.int64], side: int) -> UInt8:
    """(side, side, 3) RGB of the window at `corner` (x, y), both even; beyond the picture its edge is repeated."""
    planes = []
    for plane, scale in zip(frames.planes(index), (1, 2, 2), strict=True):
        x, y = (corner // scale).tolist()
        rows = np.clip(np.arange(y, y + side // scale), 0, plane.shape[0] - 1)
        columns = np.clip(np.arange(x, x + side // scale), 0, plane.shape[1] - 1)
        window = plane[rows][:, columns]
        planes.append(window if scale == 1 else cv2.resize(window, (side, side), interpolation=cv2.INTER_LINEAR))
    matrix = yuv_to_rgb_matrix(frames.color_matrix, frames.full_range)
    return np.asarray(cv2.transform(cv2.merge(planes), matrix), np.uint8)


def paste(frames: VideoFrames, index: int, corner: NDArray[np.int64], original: UInt8, forged: UInt8) -> None:
    """Put a forged square into frame `index`, in place. The planes get the difference to `original` only.

    Y, U and V samples under which nothing was forged keep their value; so do all samples outside the picture's part.
    """
    linear = yuv_to_rgb_matrix(frames.color_matrix, frames.full_range)[:, :3].astype(np.float64)
    difference = cv2.transform(forged.astype(np.float32) - original, np.linalg.inv(linear))
    side = len(original)
    half = cv2.resize(difference, (side // 2, side // 2), interpolation=cv2.INTER_AREA)  # 2 x 2 means
    for channel, plane in enumerate(frames.planes(index)):
        change = (difference if channel == 0 else half)[..., channel]
        x, y = (corner // (1 if channel == 0 else 2)).tolist()
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + change.shape[1], plane.shape[1]), min(y + change.shape[0], plane.shape[0])
        if right <= left or bottom <= top:
            continue
        target = plane[top:bottom, left:right]
        step = np.rint(change[top - y : bottom - y, left - x : right - x])
        target[...] = np.where(step == 0, target, np.clip(target + step, 0, 255))


def forged_video(
    reader: MediaReader, squares: FaceSquares, original: FaceCrops, forged: ForgedFaces
) -> Iterator[VideoFrames]:
    """All frames of the file, those of `squares` (as many as crops) with the forged squares in place."""
    for batch in reader.video():
        numbers = np.arange(batch.first_frame, batch.first_frame + len(batch))
        inside = np.flatnonzero((numbers >= squares.first_frame) & (numbers < squares.first_frame + len(squares)))
        if len(inside):
            batch = VideoFrames(batch.i420.copy(), batch.first_frame, batch.color_matrix, batch.full_range)
        for index in inside.tolist():
            place = int(numbers[index]) - squares.first_frame
            paste(batch, index, squares.corners[place], original.crops[place], forged.crops[place])
        yield batch
