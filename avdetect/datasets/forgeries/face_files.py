"""Faces forged inside a segment of a file, at the file's own resolution.

A square is a window of the frame, never scaled: what is not forged stays what the decoder gave. Its corner and side are
even, so that its chroma samples are whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from avdetect.config import PreprocessConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.files import write_video
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, TRIES, Input, Job, Unfit
from avdetect.datasets.forgeries.visual import NEEDS_MOMENT, VISUAL
from avdetect.errors import LimitError, MediaError
from avdetect.faces.detector import FaceDetector
from avdetect.faces.tracking import FaceTracker, TrackedFace
from avdetect.media import MediaReader
from avdetect.types import FPS, Float, UInt8, VideoFrames, yuv_to_rgb_matrix

AROUND_SECONDS = 1.5  # of tracking before and after a segment, where a mouth may come from
MAX_BYTES = 1_500_000_000  # of the squares of one segment, their forgery and the other moment
_BYTES_A_PIXEL = 25  # crops, forged crops, moment, warped moment, sources, a copy (RGB each) and the mask
_STEADY_FRAMES = 9  # corners are averaged over so many frames, or the window would tremble with the detector


@dataclass(frozen=True, repr=False)
class FaceRun:
    """One face, frame by frame without a gap."""

    first_frame: int  # on the file's clock
    corners: NDArray[np.int64]  # (T, 2) x, y of the squares' first pixel; may lie outside the picture
    side: int  # pixels of the frame
    landmarks: Float  # (T, 5, 2) in pixels of the squares

    def part(self, first: int, stop: int) -> FaceRun:
        """Frames `first` to `stop`, numbers on the file's clock."""
        place = slice(first - self.first_frame, stop - self.first_frame)
        return replace(self, first_frame=first, corners=self.corners[place], landmarks=self.landmarks[place])


def face_forger(job: Job, source: Input, count: int) -> Callable[[str], None]:
    """Find a face and a segment once; the function returned forges it by a method. Raises Unfit, LimitError."""
    rng = job.rng(source, count, "segment")
    run, first, stop = _face_segment(job, source, rng)
    faces, shown = cut_run(source.reader, run)
    place = np.arange(first, stop) - run.first_frame
    original = FaceCrops(faces.crops[place], faces.landmarks[place])

    def forge(method: str) -> None:
        moment = None
        if method in NEEDS_MOMENT:
            there = _another_moment(place, len(faces), rng)
            moment = FaceCrops(faces.crops[there], faces.landmarks[there])
            if np.array_equal(shown[place], shown[there]) or np.array_equal(original.crops, moment.crops):
                raise Unfit(f"{source.path.name}: the picture stands still from {first / FPS:.2f} s; name another part")
        forged = VISUAL[method](original, job.rng(source, count, method), moment)
        frames = forged_video(source.reader, run.part(first, stop), original.crops, forged.crops)
        segments = [(first / FPS, stop / FPS)]
        job.write(source, count, method, segments, lambda target: write_video(frames, source.reader.info, target))

    return forge


def _face_segment(job: Job, source: Input, rng: np.random.Generator) -> tuple[FaceRun, int, int]:
    """A face's run and the frames of it to forge. Raises Unfit without a face in the segment, LimitError."""
    if source.reader.info.video is None:
        raise Unfit(f"{source.path.name} has no video")
    problem = Unfit(f"{source.path.name}: no face was found in {TRIES} places")
    for start, end in job.segments_to_try(source, rng):
        run = follow(source.reader, job.detector, max(0.0, start - AROUND_SECONDS), end + AROUND_SECONDS)
        if run is None:
            problem = Unfit(f"{source.path.name}: no face from {start:.2f} to {end:.2f} s; name another segment")
            continue
        most = MAX_BYTES // (run.side**2 * _BYTES_A_PIXEL)
        first = max(round(start * FPS), run.first_frame)
        stop = min(round(end * FPS), run.first_frame + len(run.corners))
        if job.segment is not None and stop - first > most:
            raise LimitError(
                f"{source.path.name}: {(stop - first) / FPS:.1f} s of a face {run.side} pixels wide are too much "
                f"to forge at once; name a segment of at most {most / FPS:.1f} s"
            )
        if len(run.corners) > most:
            run, stop = run.part(first, first + most), min(stop, first + most)
        if stop - first >= min(round(SHORTEST_SECONDS * FPS), round((end - start) * FPS)):
            return run, first, stop
        problem = Unfit(f"{source.path.name}: no face stays for {SHORTEST_SECONDS:g} s of {start:.2f}-{end:.2f} s")
    raise problem


def _another_moment(place: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Frames of a run of `count`, later or earlier than `place`; at an end of the run they go back as they came."""
    shift = int(rng.integers(min(5, count // 3), max(6, count // 2))) * int(rng.choice([-1, 1]))
    period = max(2 * (count - 1), 1)
    there = (place + shift) % period
    return np.where(there < count, there, period - there)


def follow(reader: MediaReader, detector: FaceDetector, start_seconds: float, end_seconds: float) -> FaceRun | None:
    """Of the faces of a window the one that is seen longest (of equals, the largest); None without a track."""
    config = PreprocessConfig().faces
    tracker = FaceTracker(detector, config)
    tracks: dict[int, list[TrackedFace]] = {}
    batches = reader.video(start_seconds=start_seconds, duration_seconds=end_seconds - start_seconds)
    for found in [*map(tracker.push, batches), tracker.flush()]:
        for face in found:
            tracks.setdefault(face.track_id, []).append(face)
    if not tracks:
        return None
    track = max(tracks.values(), key=lambda faces: (len(faces), float(np.ptp(faces[0].box[::2]))))
    track.sort(key=lambda face: face.frame)
    boxes = np.stack([face.box for face in track]).astype(np.float64)
    side = 2 * int(np.ceil(float((boxes[:, 2:] - boxes[:, :2]).max()) * config.crop_margin / 2))
    reach = _STEADY_FRAMES // 2
    padded = np.pad((boxes[:, :2] + boxes[:, 2:]) / 2, ((reach, reach), (0, 0)), mode="edge")
    centres = np.lib.stride_tricks.sliding_window_view(padded, _STEADY_FRAMES, axis=0).mean(axis=-1)
    corners = 2 * np.rint((centres - side / 2) / 2).astype(np.int64)
    landmarks = np.stack([face.landmarks for face in track]) - corners[:, None]
    return FaceRun(track[0].frame, corners, side, landmarks.astype(np.float32))


def cut_run(reader: MediaReader, run: FaceRun) -> tuple[FaceCrops, NDArray[np.int64]]:
    """The squares of a run as RGB crops, and (T,) numbers that are equal where the picture is: seen through a window
    that does not follow the face. Raises MediaError if the file lacks some of its pictures."""
    crops: list[UInt8] = []
    shown: list[int] = []
    duration = len(run.corners) / FPS
    for batch in reader.video(start_seconds=run.first_frame / FPS, duration_seconds=duration):
        for index, corner in zip(range(len(batch)), run.corners[batch.first_frame - run.first_frame :], strict=False):
            crops.append(cut(batch, index, corner, run.side))
            shown.append(zlib.crc32(cut(batch, index, run.corners[0], run.side).tobytes()))
    if len(crops) != len(run.corners):
        raise MediaError(
            f"{reader.info.path.name} lacks pictures after {run.first_frame / FPS:.2f} s; name another part"
        )
    return FaceCrops(np.stack(crops), run.landmarks), np.array(shown)


def cut(frames: VideoFrames, index: int, corner: NDArray[np.int64], side: int) -> UInt8:
    """(side, side, 3) RGB of the window at `corner` (x, y), both even; beyond the picture its edge is repeated."""
    planes = []
    for plane, scale in zip(frames.planes(index), (1, 2, 2), strict=True):
        x, y = (corner // scale).tolist()
        rows = np.clip(np.arange(y, y + side // scale), 0, plane.shape[0] - 1)
        columns = np.clip(np.arange(x, x + side // scale), 0, plane.shape[1] - 1)
        planes.append(cv2.resize(plane[rows][:, columns], (side, side), interpolation=cv2.INTER_LINEAR))
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


def forged_video(reader: MediaReader, run: FaceRun, original: UInt8, forged: UInt8) -> Iterator[VideoFrames]:
    """All frames of the file, those of `run` with the forged squares (T, S, S, 3) in place of the original ones."""
    for batch in reader.video():
        place = batch.first_frame - run.first_frame + np.arange(len(batch))
        inside = np.flatnonzero((place >= 0) & (place < len(forged)))
        if len(inside):
            batch = replace(batch, i420=batch.i420.copy())
        for index in inside.tolist():
            number = int(place[index])
            paste(batch, index, run.corners[number], original[number], forged[number])
        yield batch
