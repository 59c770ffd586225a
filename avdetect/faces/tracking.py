"""Faces over time: detect a few times a second, follow in between, cut at shot changes, crop.

Everything is decided by frame numbers, never by how the frames were batched. Faces are detected every detect_every
frames, and on the first and the last frame of each shot; in between, boxes and landmarks are interpolated. Most
detections only look again where the known faces were (FaceDetector.refine); the whole picture is searched at a shot's
first frame, every redetect_every frames, and whenever a face is lost or none is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avdetect.config import FaceConfig
from avdetect.faces.crops import face_crop, mouth_crop, reduced_rgb
from avdetect.faces.detector import FaceDetector, Faces
from avdetect.faces.shots import ShotDetector
from avdetect.faces.track import Track
from avdetect.types import FaceTrack, Float, UInt8, VideoFrames

KEEP = 0.75  # a known face may be this much less certain than a new one (hysteresis)
JUMP = 0.9  # a face may jump this many of its sides between two detections if nobody else could be meant
JUMP_SIZE = 1.4  # and change its size by this factor
MIN_DETECTOR_FACE = 12.0  # pixels of the reduced frame; below this no detector works
# Where nobody is found: so many times `detect_side` are searched, for faces this large.
CLOSER, MIN_CLOSER_FACE = 2, 20.0


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
    Output lags input by at most `lag` frames. That many are kept, by reference: do not overwrite the arrays pushed."""

    def __init__(self, detector: FaceDetector, config: FaceConfig, origin: int = 0) -> None:
        """origin: number of the file's first picture, from which all that happens every so many frames is counted."""
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
        return [face for index in range(len(frames)) for face in self._step(frames, index)]

    def flush(self) -> list[TrackedFace]:
        """End of the stream: the faces still held back. The tracker can then be used for another stretch."""
        out = self._end_shot()
        self._frames, self._last, self._detected = {}, None, None
        self._shots = ShotDetector(self._config.shot_change)
        return out

    def _step(self, frames: VideoFrames, index: int) -> list[TrackedFace]:
        number = frames.first_frame + index
        out: list[TrackedFace] = []
        if self._last is not None:
            before = self._frames[self._last][0]
            if number != self._last + 1 or (before.height, before.width) != (frames.height, frames.width):
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
        rgb, scale = self._reduced(frames, index, self._config.detect_side)
        self._detected = number
        if self._tracks and not everywhere:
            hints = (np.stack([track.box for track in self._tracks]) / np.tile(scale, 2)).astype(np.float32)
            known = self._detector.refine(rgb, hints)
            if known and self._join(number, self._believed(known, scale, rgb), only_if_all=True) is not None:
                return
        needed = max(self._config.min_face_side * min(frames.height, frames.width), self._config.min_face_pixels)
        smallest = max(needed / float(scale.max()), MIN_DETECTOR_FACE)
        faces = self._believed(self._detector.detect(rgb, min_face=smallest), scale, rgb)
        taken = self._join(number, faces)
        for track in self._tracks:
            track.ended |= number - track.last >= self._config.max_gap
        if begin and taken is not None:
            self._begin(number, faces, taken, needed)
        self._note_unfollowed(faces, needed)
        if not self._next_id and self._is_due(number, self._config.redetect_every):
            # Nobody has been found so far: once a second, are there faces too small to be followed?
            rgb, scale = self._reduced(frames, index, CLOSER * self._config.detect_side)
            closer = self._detector.detect(rgb, min_face=MIN_CLOSER_FACE)
            self._note_small(self._believed(closer, scale, rgb), needed)

    @staticmethod
    def _reduced(frames: VideoFrames, index: int, side: int) -> tuple[UInt8, Float]:
        """The picture at `side`, and (2,) full-frame pixels per its pixel: rounding makes x and y differ a little."""
        rgb = reduced_rgb(frames, index, side)
        return rgb, np.array([frames.width / rgb.shape[1], frames.height / rgb.shape[0]], np.float32)

    def _note_unfollowed(self, faces: Faces, needed: float) -> None:
        """Faces for whom there is no room, and faces that are too small."""
        tracks = sum(not track.ended for track in self._tracks)
        known = int(((_sides(faces.boxes) >= needed) & (faces.confidences >= self._believe)).sum())
        self._beyond = max(known - tracks, 0) if tracks >= self._config.max_faces else 0
        self._note_small(faces, needed)

    def _note_people(self) -> None:
        """Who is followed for long enough now, if nobody was in more company so far."""
        ids = tuple(track.track_id for track in self._tracks if track.length >= self._config.min_track)
        if len(ids) == self._config.max_faces and self._beyond > self.seen.beyond:
            self.seen.followed, self.seen.beyond = ids, self._beyond
        elif len(ids) > len(self.seen.followed):
            self.seen.followed = ids

    def _note_small(self, faces: Faces, needed: float) -> None:
        sides = _sides(faces.boxes)
        small = float(sides[(sides < needed) & (faces.confidences >= self._believe)].max(initial=0.0))
        if small > self.seen.small_side:
            self.seen.small_side, self.seen.needed_side = small, needed

    def _believed(self, faces: Faces, scale: Float, rgb: UInt8) -> Faces:
        """The faces worth following, in full-frame pixels."""
        centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        inside = ((centres >= 0) & (centres <= [rgb.shape[1], rgb.shape[0]])).all(axis=1)
        faces = faces.select(inside & (faces.confidences >= KEEP * self._believe))
        return Faces(faces.boxes * np.tile(scale, 2), faces.confidences, faces.landmarks * scale)

    def _join(self, number: int, faces: Faces, only_if_all: bool = False) -> set[int] | None:
        """Join faces to tracks; the faces that belong to one. None, and nothing done: asked to, a track lacks one."""
        pairs = associate([track.predict(number) for track in self._tracks], faces.boxes, self._config.min_iou)
        if only_if_all and len(pairs) < len(self._tracks):
            return None
        # Not after a gap: whoever then appears nearby may be somebody else.
        recent = [i for i, track in enumerate(self._tracks) if number - track.last <= self._config.detect_every]
        pairs |= jumps({i: self._tracks[i].box for i in recent if i not in pairs}, faces.boxes, set(pairs.values()))
        for track, face in pairs.items():
            self._tracks[track].add(number, faces.boxes[face], faces.landmarks[face], float(faces.confidences[face]))
        return set(pairs.values())

    def _begin(self, number: int, faces: Faces, taken: set[int], smallest: float) -> None:
        """New tracks for the largest faces that belong to none, while there is room."""
        sides = _sides(faces.boxes)
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
        self._note_people()
        long = [track for track in self._tracks if track.length >= self._config.min_track]
        out = [self._face(track, number) for track in long for number in track.ready()]
        self._tracks = [track for track in self._tracks if not track.ended]
        if self._last is not None:
            needed = min([self._last, *(track.next for track in self._tracks)])
            self._frames = {number: frame for number, frame in self._frames.items() if number >= needed}
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


def _sides(boxes: Float) -> Float:
    """(N, 4) -> (N,) the longer side."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def associate(predicted: list[Float], boxes: Float, min_iou: float) -> dict[int, int]:
    """Pairs (track index -> box index), the greatest IoU first, each used once."""
    if not predicted or not len(boxes):
        return {}
    overlap = iou(np.stack(predicted), boxes)
    pairs: dict[int, int] = {}
    while overlap.max() >= min_iou:
        row, column = (int(value) for value in np.unravel_index(int(overlap.argmax()), overlap.shape))
        pairs[row] = column
        overlap[row], overlap[:, column] = -1, -1
    return pairs


def jumps(lost: dict[int, Float], boxes: Float, taken: set[int]) -> dict[int, int]:
    """Pairs (track index -> box index) for fast motion, where `lost` tracks' last boxes no longer meet their faces.
    Only when a track has one free box within reach and that box has no other track: two people are never exchanged."""
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


def group_tracks(faces: Sequence[TrackedFace], config: FaceConfig) -> tuple[FaceTrack, ...]:
    """Tracked faces of one clip, by track id; the longest track first."""
    by_id: dict[int, list[TrackedFace]] = {}
    for face in faces:
        by_id.setdefault(face.track_id, []).append(face)
    tracks = [_face_track(track_id, members, config) for track_id, members in by_id.items()]
    return tuple(sorted(tracks, key=lambda track: (-len(track.mouth_crops), track.track_id)))


def _face_track(track_id: int, faces: list[TrackedFace], config: FaceConfig) -> FaceTrack:
    faces = sorted(faces, key=lambda face: face.frame)
    shown = [face for face in faces if face.face_crop is not None]
    size = config.crop_size
    return FaceTrack(
        track_id=track_id,
        first_frame=faces[0].frame,
        mouth_crops=np.stack([face.mouth_crop for face in faces]),
        face_crops=np.array([face.face_crop for face in shown], np.uint8).reshape(-1, size, size, 3),
        face_frames=np.array([face.frame for face in shown], np.int64),
        boxes=np.array([face.box for face in shown], np.float32).reshape(-1, 4),
        landmarks=np.array([face.landmarks for face in shown], np.float32).reshape(-1, 5, 2),
        confidences=np.array([face.confidence for face in shown], np.float32),
    )
