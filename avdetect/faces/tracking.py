"""Faces over time: detect a few times a second, follow in between, cut at shot changes, crop.

Everything is decided by frame numbers, never by how the frames were batched. Faces are detected every detect_every
frames, and on the first and the last frame of each shot; in between, boxes and landmarks are interpolated. Most
detections only look again where the known faces were (FaceDetector.refine); the whole picture is searched at a shot's
first frame, every redetect_every frames, and whenever a face is lost or none is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avdetect.config import FaceConfig
from avdetect.faces.crops import face_crop, mouth_crop, reduced_rgb
from avdetect.faces.detector import FaceDetector, Faces
from avdetect.faces.shots import ShotDetector
from avdetect.faces.track import Track
from avdetect.types import Float, UInt8, VideoFrames

KEEP = 0.75  # a known face may be this much less certain than a new one (hysteresis)
JUMP = 0.9  # a face may jump this many of its sides between two detections if nobody else could be meant
JUMP_SIZE = 1.4  # and change its size by this factor
MIN_DETECTOR_FACE = 12.0  # pixels of the reduced frame; below this no detector works
CLOSER, MIN_CLOSER_FACE = (
    2,
    20.0,
)  # where nobody is found: so many times `detect_side` are searched, for faces this large


@dataclass(frozen=True, repr=False)
class TrackedFace:
    """One person's face in one frame."""

    track_id: int  # unique in a file; differs on the two sides of a cut
    frame: int  # on the file's clock: shown at frame / 25 seconds
    box: Float  # (4,) XYXY in pixels of the upright frame
    landmarks: Float  # (5, 2) smoothed, same pixels
    confidence: float  # the detector's, interpolated
    mouth_crop: UInt8  # (M, M) luma
    face_crop: UInt8 | None  # (S, S, 3) RGB on every frame number origin + n * crop_every, else None

    def __repr__(self) -> str:
        return f"TrackedFace(id={self.track_id}, frame={self.frame}, box={np.round(self.box).tolist()})"


@dataclass
class Seen:
    """Who was seen at once where most people were, and which faces were too small for us."""

    followed: tuple[int, ...] = ()  # track ids
    beyond: int = 0  # more faces, as large, for whom there was no room
    small_side: float = 0.0  # pixels: of the largest face that was too small to be followed
    needed_side: float = 0.0  # and what it would have needed, in the same picture


class FaceTracker:
    """Streams frames in, tracked faces out, in an order and with values that do not depend on the batches' sizes.

    Output lags input by at most `lag` frames. That many are kept, by reference: do not overwrite the arrays pushed.
    """

    def __init__(self, detector: FaceDetector, config: FaceConfig, origin: int = 0) -> None:
        """origin: number of the file's first picture. What happens every so many frames is counted from there, so that
        a container that puts the sound some frames ahead of the picture leads to the same crops."""
        self._detector, self._config, self.origin = detector, config, origin
        self._believe = detector.min_confidence if config.min_confidence is None else config.min_confidence
        self.seen = Seen()
        self._shots = ShotDetector(config.shot_change)
        self._frames: dict[int, tuple[VideoFrames, int]] = {}  # frame number -> batch, index
        self._tracks: list[Track] = []
        self._next_id = 0
        self._beyond = 0  # faces for whom there was no room when all of the picture was last searched
        self._last: int | None = None  # number of the last frame pushed
        self._detected: int | None = None  # number of the last frame on which faces were detected

    @property
    def lag(self) -> int:
        """Faces of frame n are out once frame n + lag has been pushed."""
        config = self._config
        # A track says nothing until it is long enough and its average has all frames. Its next detection is then at
        # most max_gap away, rounded up to the next frame on which faces are detected.
        waits = max(config.min_track - 2, config.smooth_frames // 2 - 1, 0)
        return waits + config.max_gap + config.detect_every - 1

    def push(self, frames: VideoFrames) -> list[TrackedFace]:
        """Take the next frames; return the faces that are certain by now. A jump in numbers or size is a cut."""
        out: list[TrackedFace] = []
        for index in range(len(frames)):
            out += self._step(frames, index, frames.first_frame + index)
        return out

    def flush(self) -> list[TrackedFace]:
        """End of the stream: the faces still held back. The tracker can then be used for another stretch."""
        out = self._end_shot()
        self._frames, self._last, self._detected = {}, None, None
        self._shots = ShotDetector(self._config.shot_change)
        return out

    def _step(self, frames: VideoFrames, index: int, number: int) -> list[TrackedFace]:
        out: list[TrackedFace] = []
        if self._last is not None and self._jumps(frames, number):
            out += self.flush()
        begins = self._shots.push(frames, index)
        if begins:
            out += self._end_shot()
        self._frames[number], self._last = (frames, index), number
        if begins or self._is_due(number, self._config.detect_every):
            self._detect(number, everywhere=begins or self._is_due(number, self._config.redetect_every))
        return out + self._emit()

    def _is_due(self, number: int, every: int) -> bool:
        return (number - self.origin) % every == 0

    def _jumps(self, frames: VideoFrames, number: int) -> bool:
        assert self._last is not None
        before = self._frames[self._last][0]
        return number != self._last + 1 or (before.height, before.width) != (frames.height, frames.width)

    def _end_shot(self) -> list[TrackedFace]:
        """Cut every track after the last frame, which is looked at once more so that no track ends early."""
        if self._tracks and self._last is not None and self._last != self._detected:
            self._detect(self._last, everywhere=False, begin=False)
        for track in self._tracks:
            track.ended = True
        out, self._beyond = self._emit(), 0
        return out

    def _detect(self, number: int, *, everywhere: bool, begin: bool = True) -> None:
        """Find faces on frame `number`, join them to tracks, begin new tracks, end lost ones."""
        frames, index = self._frames[number]
        rgb = reduced_rgb(frames, index, self._config.detect_side)
        # (2,) full-frame pixels per reduced pixel: rounding makes x and y differ a little
        scale = np.array([frames.width / rgb.shape[1], frames.height / rgb.shape[0]], np.float32)
        self._detected = number
        if self._tracks and not everywhere:
            hints = (np.stack([track.box for track in self._tracks]) / np.tile(scale, 2)).astype(np.float32)
            known = self._detector.refine(rgb, hints)
            if known is not None and self._update(number, self._believed(known, scale, rgb), False, last_look=False):
                return
        smallest = max(self._smallest_face(frames) / float(scale.max()), MIN_DETECTOR_FACE)
        faces = self._believed(self._detector.detect(rgb, min_face=smallest), scale, rgb)
        self._update(number, faces, begin, True)
        self._note_unfollowed(number, faces)
        if not self._next_id and self._is_due(number, self._config.redetect_every):
            self._look_closer(frames, index)

    def _note_unfollowed(self, number: int, faces: Faces) -> None:
        """Faces for whom there is no room, and faces that are too small."""
        needed, tracks = self._smallest_face(self._frames[number][0]), sum(not track.ended for track in self._tracks)
        large = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0) >= needed
        known = int((large & (faces.confidences >= self._believe)).sum())
        self._beyond = max(known - tracks, 0) if tracks >= self._config.max_faces else 0
        self._note_small(faces, needed)

    def _note_people(self) -> None:
        """Who is followed for long enough now, if nobody was in more company so far."""
        config = self._config
        ids = tuple(track.track_id for track in self._tracks if track.last - track.first + 1 >= config.min_track)
        if len(ids) == config.max_faces and self._beyond > self.seen.beyond:
            self.seen.followed, self.seen.beyond = ids, self._beyond
        elif len(ids) > len(self.seen.followed):
            self.seen.followed = ids

    def _note_small(self, faces: Faces, needed: float) -> None:
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
        small = sides[(sides < needed) & (faces.confidences >= self._believe)]
        if len(small) and small.max() > self.seen.small_side:
            self.seen.small_side, self.seen.needed_side = float(small.max()), needed

    def _look_closer(self, frames: VideoFrames, index: int) -> None:
        """Nobody has been found so far: look, once a second, whether there are faces too small to be followed."""
        rgb = reduced_rgb(frames, index, CLOSER * self._config.detect_side)
        scale = np.array([frames.width / rgb.shape[1], frames.height / rgb.shape[0]], np.float32)
        faces = self._believed(self._detector.detect(rgb, min_face=MIN_CLOSER_FACE), scale, rgb)
        self._note_small(faces, self._smallest_face(frames))

    def _smallest_face(self, frames: VideoFrames) -> float:
        config = self._config
        return max(config.min_face_side * min(frames.height, frames.width), config.min_face_pixels)

    def _believed(self, faces: Faces, scale: Float, rgb: UInt8) -> Faces:
        """The faces worth following, in full-frame pixels."""
        centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        inside = ((centres >= 0) & (centres <= [rgb.shape[1], rgb.shape[0]])).all(axis=1)
        faces = faces.select(inside & (faces.confidences >= KEEP * self._believe))
        return Faces(faces.boxes * np.tile(scale, 2), faces.confidences, faces.landmarks * scale)

    def _update(self, number: int, faces: Faces, begin: bool, last_look: bool) -> bool:
        """Join faces to tracks. With `last_look` also begin and end tracks; without, only if every track was found."""
        pairs = associate([track.predict(number) for track in self._tracks], faces.boxes, self._config.min_iou)
        if len(pairs) < len(self._tracks) and not last_look:
            return False
        # Not after a gap: whoever then appears nearby may be somebody else.
        recent = [i for i, track in enumerate(self._tracks) if number - track.last <= self._config.detect_every]
        pairs |= jumps({i: self._tracks[i].box for i in recent if i not in pairs}, faces.boxes, set(pairs.values()))
        for track_index, face_index in pairs.items():
            self._tracks[track_index].add(
                number, faces.boxes[face_index], faces.landmarks[face_index], float(faces.confidences[face_index])
            )
        for track_index, track in enumerate(self._tracks):
            if track_index not in pairs and number - track.last >= self._config.max_gap:
                track.ended = True
        if begin:
            self._begin(number, faces, set(pairs.values()))
        return True

    def _begin(self, number: int, faces: Faces, taken: set[int]) -> None:
        """New tracks for the largest faces that belong to none, while there is room."""
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
        smallest = self._smallest_face(self._frames[number][0])
        room = self._config.max_faces - sum(not track.ended for track in self._tracks)
        for face in np.argsort(-sides, kind="stable"):
            if room <= 0:
                break
            if face in taken or faces.confidences[face] < self._believe or sides[face] < smallest:
                continue
            track = Track(self._next_id, self._config.smooth_frames // 2)
            track.add(number, faces.boxes[face], faces.landmarks[face], float(faces.confidences[face]))
            self._tracks.append(track)
            self._next_id, room = self._next_id + 1, room - 1

    def _emit(self) -> list[TrackedFace]:
        """Faces that later frames cannot change any more; then forget what nobody needs."""
        out: list[TrackedFace] = []
        self._note_people()
        for track in self._tracks:
            if track.last - track.first + 1 >= self._config.min_track:
                while (number := track.ready()) is not None:
                    out.append(self._face(track, number))
        self._tracks = [track for track in self._tracks if not track.ended]
        needed = min([track.next for track in self._tracks], default=self._last)
        if needed is not None and self._last is not None:
            needed = min(needed, self._last)
            for number in [number for number in self._frames if number < needed]:
                del self._frames[number]
        return out

    def _face(self, track: Track, number: int) -> TrackedFace:
        frames, index = self._frames[number]
        config = self._config
        box, landmarks, confidence = track.at(number)
        crop = None
        if self._is_due(number, config.crop_every):
            crop = face_crop(frames, index, box, config.crop_margin, config.crop_size)
        mouth = mouth_crop(frames, index, landmarks, config.mouth_size)
        return TrackedFace(track.track_id, number, box, landmarks, confidence, mouth, crop)


def associate(predicted: list[Float], boxes: Float, min_iou: float) -> dict[int, int]:
    """Pairs (track index -> box index), the greatest IoU first, each used once."""
    if not predicted or not len(boxes):
        return {}
    overlap = iou(np.stack(predicted), boxes)
    pairs: dict[int, int] = {}
    while overlap.size and overlap.max() >= min_iou:
        row, column = (int(value) for value in np.unravel_index(int(overlap.argmax()), overlap.shape))
        pairs[row] = column
        overlap[row], overlap[:, column] = -1, -1
    return pairs


def jumps(lost: dict[int, Float], boxes: Float, taken: set[int]) -> dict[int, int]:
    """Pairs (track index -> box index) for fast motion, where `lost` tracks' last boxes no longer meet their faces.

    Only when a track has one free box within reach and that box has no other track: two people are never exchanged.
    """
    near: dict[int, list[int]] = {}
    for track, last in lost.items():
        side = float((last[2:] - last[:2]).max())
        for index in set(range(len(boxes))) - taken:
            box = boxes[index]
            distance = float(np.hypot(*(box[:2] + box[2:] - last[:2] - last[2:]))) / 2
            growth = float((box[2:] - box[:2]).max()) / side
            if distance <= JUMP * side and 1 / JUMP_SIZE <= growth <= JUMP_SIZE:
                near.setdefault(track, []).append(index)
    wanted = [index for indices in near.values() for index in indices]
    return {track: found[0] for track, found in near.items() if len(found) == 1 and wanted.count(found[0]) == 1}


def iou(first: Float, second: Float) -> Float:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-6)
