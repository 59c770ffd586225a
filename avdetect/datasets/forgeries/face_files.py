"""Faces forged inside a segment of a file, at the file's own resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.contact import face_row
from avdetect.datasets.forgeries.files import write_video
from avdetect.datasets.forgeries.geometry import fit
from avdetect.datasets.forgeries.inputs import Input, Unfit
from avdetect.datasets.forgeries.job import SHORTEST_SECONDS, TRIES, Job, segments_to_try
from avdetect.datasets.forgeries.pose import pose_gap
from avdetect.datasets.forgeries.squares import FaceSquares, cut_squares, forged_video, track_squares
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL, Donors, identical
from avdetect.errors import AVDetectError, MediaError
from avdetect.types import FPS

AROUND_SECONDS = 1.5  # of tracking before and after a segment, where a mouth may come from
DONOR_SECONDS = 4.0  # of another input, more than the segment lasts, in which a head may be turned alike
MOST_DONORS = 3  # inputs that are looked at for the head that is turned most alike


def face_forger(job: Job, index: int, count: int) -> Callable[[str], None]:
    """Find a face and a segment once; the function returned forges it by a method. Raises Unfit, LimitError."""
    source = job.inputs[index]
    rng = job.rng(index, count, 0)
    squares, first, stop = _face_segment(job, source, rng)
    part = squares.window(first, stop)
    numbers = np.arange(first, stop)
    original = cut_squares(source.reader, squares, numbers)
    moment_of = _another_moment(squares, numbers, rng)
    moment_once = cache(lambda: cut_squares(source.reader, squares, moment_of))

    def forge(method: str) -> None:
        moment = other = None
        if NEEDS.get(method) == "moment":
            if _stands_still(source, squares, numbers, moment_of):
                raise Unfit(f"{source.path.name}: the picture stands still from {first / FPS:.2f} s; name another part")
            moment = moment_once()
        elif NEEDS.get(method) == "other":
            donor, other = _other_face(job, index, count, original)
            job.shared.add((index, donor))
        forged = VISUAL[method](original, job.rng(index, count, method), Donors(moment, other))
        frames = forged_video(source.reader, part, original, forged)
        job.write(
            index,
            count,
            method,
            [(first / FPS, stop / FPS)],
            lambda target: write_video(frames, source.reader.info, target),
            partial(face_row, original=original, forged=forged),
        )

    return forge


def _face_segment(job: Job, source: Input, rng: np.random.Generator) -> tuple[FaceSquares, int, int]:
    """A face's run and the frames of it to forge. Raises Unfit without a face in the segment."""
    if source.reader.info.video is None:
        raise Unfit(f"{source.path.name} has no video")
    problem: AVDetectError = Unfit(f"{source.path.name}: no face was found in {TRIES} places")
    for start, end in segments_to_try(job, lambda: source.duration_seconds, rng):
        early = max(0.0, start - AROUND_SECONDS)
        try:
            squares = track_squares(source.reader, job.detector, job.faces, early, end - early + AROUND_SECONDS)
        except MediaError as error:
            problem = Unfit(str(error))
            continue
        first = max(round(start * FPS), squares.first_frame)
        stop = min(round(end * FPS), squares.first_frame + len(squares))
        if job.segment is None:
            stop = min(stop, first + squares.most_frames)
        if stop - first >= min(round(SHORTEST_SECONDS * FPS), round((end - start) * FPS)):
            return squares, first, stop
        problem = Unfit(f"{source.path.name}: no face stays for {SHORTEST_SECONDS:g} s of {start:.2f}-{end:.2f} s")
    raise problem


def _another_moment(squares: FaceSquares, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames of the face's own run, later or earlier; at an end of the run they go back the way they came.

    Of a few shifts the one is taken at which the head is turned most alike: a profile's mouth fits on no other face.
    """
    best, least = numbers, np.inf
    for _ in range(8):
        shift = int(rng.integers(min(5, len(squares) // 3), max(6, len(squares) // 2))) * int(rng.choice([-1, 1]))
        index = _bounced(numbers - squares.first_frame + shift, len(squares))
        here, there = (squares.landmarks[i].astype(np.float64) for i in (numbers - squares.first_frame, index))
        moved = np.einsum("tij,tnj->tni", fit(there, here)[:, :, :2], there - there.mean(1, keepdims=True))
        turned = float(np.abs(moved - (here - here.mean(1, keepdims=True))).mean())
        if turned < least:
            best, least = squares.first_frame + index, turned
    return best


def _stands_still(source: Input, squares: FaceSquares, numbers: np.ndarray, moment_of: np.ndarray) -> bool:
    """Are both moments the same picture? Looked at through a window that does not follow the face."""
    fixed = replace(squares, corners=np.broadcast_to(squares.corners[:1], squares.corners.shape))
    picked = np.linspace(0, len(numbers) - 1, 5).round().astype(int)
    return identical(*(cut_squares(source.reader, fixed, wanted[picked]) for wanted in (numbers, moment_of)))


def _other_face(job: Job, index: int, count: int, faces: FaceCrops) -> tuple[int, FaceCrops]:
    """The face of another input, as many frames of it, and which input: of up to MOST_DONORS the stretch whose head is
    turned most alike. A shorter run goes back the way it came. Raises Unfit."""
    found: list[tuple[float, int, FaceSquares, np.ndarray]] = []
    for other in job.others(index, job.rng(index, count, 1)):
        source = job.inputs[other]
        if source.reader.info.video is None:
            continue
        try:
            end = min(source.duration_seconds, len(faces) / FPS + DONOR_SECONDS)
            squares = track_squares(source.reader, job.detector, job.faces, 0.0, end)
        except MediaError:
            continue  # no face there; another input may have one
        for start in range(0, max(1, len(squares) - len(faces) + 1), 5):
            chosen = _bounced(np.arange(start, start + len(faces)), len(squares))
            found.append((_turned_apart(faces, squares, chosen), other, squares, squares.first_frame + chosen))
        if len({entry[1] for entry in found}) == MOST_DONORS:
            break
    if not found:
        raise Unfit("no other input shows a face; name a second INPUT with another person")
    _, other, squares, numbers = min(found, key=lambda entry: entry[0])
    return other, cut_squares(job.inputs[other].reader, squares, numbers, faces.crops.shape[1])


def _turned_apart(faces: FaceCrops, squares: FaceSquares, chosen: np.ndarray) -> float:
    """`pose_gap` of squares that are not cut yet: it looks at landmarks only."""
    blank = np.broadcast_to(np.uint8(0), (len(chosen), squares.side, squares.side, 3))
    return pose_gap(faces, FaceCrops(blank, squares.landmarks[chosen]))


def _bounced(index: np.ndarray, count: int) -> np.ndarray:
    """Indices 0..count - 1: beyond an end they run back."""
    period = max(2 * (count - 1), 1)
    place = index % period
    return np.where(place < count, place, period - place).astype(np.int64)
