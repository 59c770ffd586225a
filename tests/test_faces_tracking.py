"""Faces followed through rendered video: people who move, hide, leave, talk together and are cut away from."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import pytest
from face_factory import HEIGHT, PORTRAIT, WIDTH, background, part, paste, video

from avdetect.config import FaceConfig
from avdetect.faces import FaceDetector, Faces, FaceTracker, TrackedFace, build_detector
from avdetect.faces.crops import TEMPLATE
from avdetect.faces.shots import ShotDetector
from avdetect.faces.tracking import associate, jumps
from avdetect.types import VideoFrames

CONFIG = FaceConfig(crop_size=64, mouth_size=32)
MIRRORED = PORTRAIT[:, ::-1]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return build_detector("mtcnn")


def follow(
    detector: FaceDetector, frames: VideoFrames, batch: int = 10, config: FaceConfig = CONFIG, origin: int = 0
) -> list[TrackedFace]:
    tracker = FaceTracker(detector, config, origin)
    faces = []
    for start in range(0, len(frames), batch):
        faces += tracker.push(part(frames, start, start + batch))
    return faces + tracker.flush()


def by_track(faces: list[TrackedFace]) -> dict[int, list[TrackedFace]]:
    tracks = defaultdict(list)
    for face in faces:
        tracks[face.track_id].append(face)
    return dict(tracks)


def centre(face: TrackedFace) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2


def moving(count: int, speed: float, first_frame: int = 0, side: int = 240) -> tuple[VideoFrames, list[float]]:
    """One person who sways from side to side, `speed` pixels a frame at most."""
    xs = [WIDTH / 2 + 120 * np.sin((first_frame + t) * speed / 120) for t in range(count)]
    return video([paste(background(), side, x, 180) for x in xs], first_frame), xs


def test_the_same_pictures_give_the_same_crops_wherever_they_begin(detector: FaceDetector) -> None:
    frames, _ = moving(42, 4.0)
    expected = follow(detector, frames)
    for origin in (1, 2, 8):
        late = VideoFrames(frames.i420, origin, frames.color_matrix, frames.full_range)
        found = follow(detector, late, origin=origin)
        assert [face.frame - origin for face in found] == [face.frame for face in expected]
        for face, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(face.box, other.box)
            assert (face.face_crop is None) == (other.face_crop is None)
            assert face.face_crop is None or np.array_equal(face.face_crop, other.face_crop)


def test_one_person_is_followed_on_every_frame(detector: FaceDetector) -> None:
    frames, xs = moving(42, 4.0)
    faces = follow(detector, frames)
    assert [face.frame for face in faces] == list(range(42))
    assert {face.track_id for face in faces} == {0}
    errors = [centre(face)[0] - x for face, x in zip(faces, xs, strict=True)]
    assert np.abs(errors).max() < 10
    assert all(face.mouth_crop.shape == (32, 32) and face.mouth_crop.dtype == np.uint8 for face in faces)
    assert [face.frame for face in faces if face.face_crop is not None] == list(range(0, 42, 5))
    crops = [face.face_crop for face in faces if face.face_crop is not None]
    assert all(crop.shape == (64, 64, 3) and crop.dtype == np.uint8 for crop in crops)
    assert faces[3].box.dtype == faces[3].landmarks.dtype == np.float32


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_result_does_not_depend_on_the_batches(detector: FaceDetector, batch: int) -> None:
    frames, _ = moving(44, 5.0, first_frame=3)
    for one, other in zip(follow(detector, frames, 10), follow(detector, frames, batch), strict=True):
        assert (one.track_id, one.frame, one.confidence) == (other.track_id, other.frame, other.confidence)
        np.testing.assert_array_equal(one.box, other.box)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)
        np.testing.assert_array_equal(one.mouth_crop, other.mouth_crop)
        assert (one.face_crop is None) == (other.face_crop is None)
        if one.face_crop is not None and other.face_crop is not None:
            np.testing.assert_array_equal(one.face_crop, other.face_crop)


def test_result_does_not_depend_on_the_start_after_a_second(detector: FaceDetector) -> None:
    frames, _ = moving(70, 4.0)
    whole = {face.frame: face for face in follow(detector, frames)}
    for start in (3, 25):
        late = {face.frame: face for face in follow(detector, part(frames, start, 70))}
        warm = -(-start // CONFIG.redetect_every) * CONFIG.redetect_every + CONFIG.smooth_frames // 2
        for number in range(warm, 70):
            np.testing.assert_array_equal(late[number].box, whole[number].box)
            np.testing.assert_array_equal(late[number].mouth_crop, whole[number].mouth_crop)


def test_output_is_timely_and_memory_bounded(detector: FaceDetector) -> None:
    frames, _ = moving(60, 3.0)
    tracker, seen = FaceTracker(detector, CONFIG), -1
    for number in range(60):
        for face in tracker.push(part(frames, number, number + 1)):
            seen = face.frame
        assert number - seen <= tracker.lag
        assert len(tracker._frames) <= tracker.lag + 1


class Flickering:
    """A detector that finds up to two faces, or not, as `seen` says of the frame number painted into the picture."""

    name, min_confidence = "flickering", 0.5

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        chance = random.uniform(0.2, 0.9)
        self.seen = random.random((200, 2)) < chance

    def detect(self, rgb: np.ndarray, *, min_face: float = 20.0) -> Faces:
        number = round(float(rgb[:, :, 1].mean())) - 20
        places = np.flatnonzero(self.seen[number])
        boxes = np.array([[10 + 100 * place, 20, 70 + 100 * place, 80] for place in places], np.float32).reshape(-1, 4)
        landmarks = np.stack([TEMPLATE * 0.5 + box[:2] for box in boxes]) if len(boxes) else np.zeros((0, 5, 2))
        return Faces.sorted(boxes, np.full(len(boxes), 0.9), landmarks)

    def refine(self, rgb: np.ndarray, boxes: np.ndarray) -> None:
        return None


@pytest.mark.parametrize("seed", range(12))
def test_flickering_detections(seed: int) -> None:
    """Whatever the detector misses: no hole in a track, nothing later than `lag`, the same in any batches."""
    random = np.random.default_rng(seed)
    config = FaceConfig(
        detect_every=int(random.integers(1, 7)),
        max_gap=int(random.integers(1, 14)),
        min_track=int(random.integers(1, 16)),
        smooth_frames=int(random.integers(1, 10)),
        shot_change=1.0,
        crop_size=16,
        mouth_size=16,
    )
    first, count = int(random.integers(0, 40)), 90
    pictures = [np.full((100, 200, 3), 20 + first + t, np.uint8) for t in range(count)]
    frames = video(pictures, first)
    tracker, single = FaceTracker(Flickering(seed), config), []
    for index in range(count):
        for face in tracker.push(part(frames, index, index + 1)):
            assert first + index - face.frame <= tracker.lag
            single.append(face)
        assert len(tracker._frames) <= tracker.lag + 1
    single += tracker.flush()
    tracks = by_track(single)
    for track in tracks.values():
        numbers = [face.frame for face in track]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) >= config.min_track
    whole = follow(Flickering(seed), frames, batch=int(random.integers(2, 90)), config=config)
    assert [(face.track_id, face.frame) for face in whole] == [(face.track_id, face.frame) for face in single]


def test_a_track_reaches_the_last_frame_of_its_shot() -> None:
    """Also with a detector that cannot refine, and where no detection is due."""
    detector = Flickering(0)
    detector.seen[:] = [True, False]
    frames = video([np.full((100, 200, 3), 20 + t, np.uint8) for t in range(33)])
    faces = follow(detector, frames, config=FaceConfig(crop_size=16, mouth_size=16, shot_change=1.0))
    assert [face.frame for face in faces] == list(range(33))


def test_no_face_gives_nothing_and_keeps_nothing(detector: FaceDetector) -> None:
    tracker = FaceTracker(detector, CONFIG)
    frames = video([background()] * 12)
    assert tracker.push(frames) == []
    assert len(tracker._frames) == 1
    assert tracker.flush() == []
    assert FaceTracker(detector, CONFIG).flush() == []


def test_tiny_faces_are_not_tracked(detector: FaceDetector) -> None:
    picture = paste(background(), 60, 300, 180)  # a face of 22 pixels; 32 are asked for
    assert follow(detector, video([picture] * 16)) == []


def test_a_still_shorter_than_a_track_is_dropped(detector: FaceDetector) -> None:
    assert follow(detector, video([paste(background(), 240, 300, 180)] * 6)) == []
    assert len(follow(detector, video([paste(background(), 240, 300, 180)] * 10))) == 10


def test_two_speakers(detector: FaceDetector) -> None:
    pictures = []
    for t in range(30):
        picture = paste(background(), 200, 160 + 2 * t, 170)
        pictures.append(paste(picture, 240, 480 - 2 * t, 190, MIRRORED))
    tracks = by_track(follow(detector, video(pictures)))
    assert len(tracks) == 2
    assert all(len(track) == 30 for track in tracks.values())
    for track in tracks.values():  # nobody swapped: each moves in one direction
        steps = np.diff([centre(face)[0] for face in track[::5]])
        assert (steps > 0).all() or (steps < 0).all()


def test_only_the_largest_faces(detector: FaceDetector) -> None:
    picture = paste(paste(background(), 160, 150, 150), 260, 460, 180, MIRRORED)
    config = FaceConfig(crop_size=64, mouth_size=32, max_faces=1)
    faces = follow(detector, video([picture] * 15), config=config)
    assert {round(float(centre(face)[0]), -2) for face in faces} == {500.0}


def test_shot_change_separates_tracks(detector: FaceDetector) -> None:
    """A face in the same place on both sides of a cut, on a frame where nothing would be detected otherwise."""
    first = paste(background(0), 240, 300, 180)
    second = paste(background(7), 240, 300, 180, MIRRORED)
    tracks = by_track(follow(detector, video([first] * 22 + [second] * 21)))
    assert [[face.frame for face in track] for track in tracks.values()] == [list(range(22)), list(range(22, 43))]


def test_a_jump_in_time_or_size_is_a_cut(detector: FaceDetector) -> None:
    picture = paste(background(), 240, 300, 180)
    tracker = FaceTracker(detector, CONFIG)
    faces = tracker.push(video([picture] * 12))
    faces += tracker.push(video([picture] * 12, first_frame=40))
    faces += tracker.push(video([picture[:, 40:600]] * 12, first_frame=52))
    faces += tracker.flush()
    spans = {track_id: (track[0].frame, track[-1].frame) for track_id, track in by_track(faces).items()}
    assert spans == {0: (0, 11), 1: (40, 51), 2: (52, 63)}


def cover(picture: np.ndarray, grey: int = 120) -> np.ndarray:
    """A board in front of the lower picture, chin to brow."""
    picture = picture.copy()
    picture[60:300, 180:420] = grey
    return picture


def test_a_short_occlusion_is_bridged_and_a_long_one_ends_the_track(detector: FaceDetector) -> None:
    seen = paste(background(), 240, 300, 180)
    short = video([seen] * 21 + [cover(seen)] * 5 + [seen] * 19)
    faces = follow(detector, short, config=FaceConfig(crop_size=64, mouth_size=32, shot_change=1.0))
    assert [face.frame for face in faces] == list(range(45))
    assert len({face.track_id for face in faces}) == 1
    long = video([seen] * 21 + [cover(seen)] * 22 + [seen] * 17)
    tracks = by_track(follow(detector, long, config=FaceConfig(crop_size=64, mouth_size=32, shot_change=1.0)))
    assert [(track[0].frame, track[-1].frame) for track in tracks.values()] == [(0, 20), (45, 59)]


def test_a_hand_over_the_mouth_keeps_the_track(detector: FaceDetector) -> None:
    seen = paste(background(), 240, 300, 180)
    hidden = cv2.ellipse(seen.copy(), (300, 215), (34, 14), 0, 0, 360, (196, 150, 130), -1)
    faces = follow(detector, video([seen] * 15 + [hidden] * 15 + [seen] * 10))
    assert len(by_track(faces)) == 1
    assert len(faces) == 40


def test_fast_motion_is_followed(detector: FaceDetector) -> None:
    """13 pixels a frame: two thirds of a face width between detections."""
    frames, xs = moving(50, 13.0)
    faces = follow(detector, frames)
    found = {face.frame: face for face in faces}
    assert len(found) >= 45
    assert len(by_track(faces)) <= 2
    assert np.median([abs(centre(face)[0] - xs[number]) for number, face in found.items()]) < 8


def test_a_head_that_turns_away_and_back(detector: FaceDetector) -> None:
    """Turning is drawn as squeezing the portrait to a fifth; the track may have a hole, never a wild crop."""
    pictures = []
    for t in range(50):
        width = int(240 * (1 - 0.8 * np.sin(np.pi * t / 49) ** 2))
        portrait = cv2.resize(PORTRAIT, (width, 240), interpolation=cv2.INTER_AREA)
        picture = background()
        picture[60:300, 300 - width // 2 : 300 - width // 2 + width] = portrait
        pictures.append(picture)
    faces = follow(detector, video(pictures))
    numbers = {face.frame for face in faces}
    assert {0, 8, 41, 49} <= numbers
    for face in faces:
        assert 230 < centre(face)[0] < 370
        assert (face.landmarks > 0).all()
        assert (face.landmarks < [WIDTH, HEIGHT]).all()


def test_a_person_who_walks_in_is_found_within_a_second(detector: FaceDetector) -> None:
    seated = paste(background(), 200, 140, 180)
    both = paste(seated, 220, 470, 180, MIRRORED)
    tracks = by_track(follow(detector, video([seated] * 27 + [both] * 40), config=FaceConfig(crop_size=64)))
    assert len(tracks) == 2
    assert 27 <= tracks[1][0].frame <= 50
    assert tracks[1][-1].frame == 66


def test_landmarks_are_smooth(detector: FaceDetector) -> None:
    frames, _ = moving(50, 3.0)
    landmarks = np.stack([face.landmarks for face in follow(detector, frames)])
    assert np.abs(np.diff(landmarks, 2, axis=0)).mean() < 0.35  # pixels a frame^2, of a face 88 pixels high


def cuts(pictures: list[np.ndarray]) -> list[int]:
    frames, shots = video(pictures), ShotDetector(CONFIG.shot_change)
    return [index for index in range(len(frames)) if shots.push(frames, index)]


def test_shots() -> None:
    person = paste(background(), 240, 300, 180)
    assert cuts([background(0)] * 3 + [background(5)] * 3) == [0, 3]
    assert cuts([person] * 3 + [np.ascontiguousarray(person[:, ::-1])] * 3) == [0, 3]  # the same colours, mirrored
    assert cuts([np.full_like(person, 16)] * 2 + [person] * 3) == [0, 2]
    assert cuts([person] * 2 + [np.clip(person * 0.9 + 5, 0, 255).astype(np.uint8)] * 2) == [0]  # exposure
    flat = [
        cv2.rectangle(np.full_like(person, level), (250, 100), (400, 359), (90, 60, 60), -1) for level in (126, 131)
    ]
    assert cuts(flat * 2) == [0]  # flicker of a plain background
    sway = [paste(background(), 240, 300 + 15 * t, 180) for t in range(6)]
    assert cuts(sway) == [0]
    wide = background(2, HEIGHT, 2 * WIDTH)
    assert cuts([np.ascontiguousarray(wide[:, 12 * t : 12 * t + WIDTH]) for t in range(8)]) == [0]  # a pan
    fade = [(person * (1 - t / 25)).astype(np.uint8) for t in range(21)]
    assert cuts(fade) == [0]


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 600), (64, 20), (1080, 1920), (350, 1000)])
def test_shots_of_any_size(height: int, width: int) -> None:
    dark, bright = (np.full((height, width, 3), value, np.uint8) for value in (20, 200))
    assert cuts([dark, dark, bright]) == [0, 2]


def test_associate_takes_the_best_pairs_first() -> None:
    tracks = [np.array([0, 0, 10, 10], np.float32), np.array([4, 0, 14, 10], np.float32)]
    boxes = np.array([[3, 0, 13, 10], [100, 100, 110, 110]], np.float32)
    assert associate(tracks, boxes, 0.3) == {1: 0}
    assert associate([], boxes, 0.3) == {}
    assert associate(tracks, boxes[:0], 0.3) == {}


def test_jumps_only_when_nobody_else_could_be_meant() -> None:
    last = np.array([0, 0, 10, 10], np.float32)
    near, far, large = (np.array(box, np.float32) for box in ([8, 0, 18, 10], [40, 0, 50, 10], [4, 0, 24, 20]))
    assert jumps({3: last}, np.stack([near, far, large]), set()) == {3: 0}
    assert jumps({3: last}, np.stack([near, near - 1]), set()) == {}
    assert jumps({3: last}, np.stack([near, near - 1]), {0}) == {3: 1}
    assert jumps({3: last, 4: last + 2}, near[None], set()) == {}
