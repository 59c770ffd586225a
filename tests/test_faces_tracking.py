"""Faces followed through rendered video: people who move, hide, leave, talk together and are cut away from."""

from collections import defaultdict

import cv2
import numpy as np
import pytest
from face_factory import HEIGHT, PORTRAIT, WIDTH, background, part, paste, video

from avdetect.config import FaceConfig
from avdetect.faces import FaceDetector, Faces, build_detector
from avdetect.faces.crops import TEMPLATE
from avdetect.faces.shots import ShotDetector
from avdetect.faces.tracking import FaceTracker, TrackedFace, jumps
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


def spans(faces: list[TrackedFace]) -> list[tuple[int, int]]:
    """(first frame, last frame) of each track, in which no frame is missing."""
    tracks = by_track(faces).values()
    assert all(track[-1].frame - track[0].frame == len(track) - 1 for track in tracks)
    return [(track[0].frame, track[-1].frame) for track in tracks]


def centre(face: TrackedFace) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2


def moving(count: int, speed: float, first_frame: int = 0) -> tuple[VideoFrames, list[float]]:
    """One person who sways from side to side, `speed` pixels a frame at most."""
    xs = [WIDTH / 2 + 120 * np.sin((first_frame + t) * speed / 120) for t in range(count)]
    return video([paste(background(), 240, x, 180) for x in xs], first_frame), xs


def assert_same(found: list[TrackedFace], expected: list[TrackedFace], later: int = 0) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.track_id, one.frame - later, one.confidence) == (other.track_id, other.frame, other.confidence)
        for name in ("box", "landmarks", "mouth_crop", "face_crop"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_one_person_is_followed_on_every_frame(detector: FaceDetector) -> None:
    frames, xs = moving(42, 4.0)
    faces = follow(detector, frames)
    assert spans(faces) == [(0, 41)]
    assert np.abs([centre(face)[0] - x for face, x in zip(faces, xs, strict=True)]).max() < 10
    assert all(face.mouth_crop.shape == (32, 32) and face.mouth_crop.dtype == np.uint8 for face in faces)
    assert [face.frame for face in faces if face.face_crop is not None] == list(range(0, 42, 5))
    assert faces[0].face_crop.shape == (64, 64, 3)
    # The same pictures give the same crops wherever they begin, in any batches.
    late = VideoFrames(frames.i420, 8, frames.color_matrix, frames.full_range)
    assert_same(follow(detector, late, batch=7, origin=8), faces, later=8)


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


@pytest.mark.parametrize("seed", range(5))
def test_flickering_detections(seed: int) -> None:
    """Whatever the detector misses: no hole in a track, nothing later than `lag`, the same in any batches, and no more
    frames kept than are needed."""
    random = np.random.default_rng(seed)
    most = {"detect_every": 7, "max_gap": 14, "min_track": 16, "smooth_frames": 10}
    chosen = {name: int(random.integers(1, high)) for name, high in most.items()}
    config = FaceConfig(**chosen, shot_change=1.0, crop_size=16, mouth_size=16)
    first, count = int(random.integers(0, 40)), 90
    frames = video([np.full((100, 200, 3), 20 + first + t, np.uint8) for t in range(count)], first)
    tracker, single = FaceTracker(Flickering(seed), config), []
    for index in range(count):
        for face in tracker.push(part(frames, index, index + 1)):
            assert first + index - face.frame <= tracker.lag
            single.append(face)
        assert len(tracker._frames) <= tracker.lag + 1
    single += tracker.flush()
    assert all(last - begin + 1 >= config.min_track for begin, last in spans(single))
    assert_same(follow(Flickering(seed), frames, batch=int(random.integers(2, 90)), config=config), single)


def test_a_track_reaches_the_last_frame_of_its_shot() -> None:
    """Also with a detector that cannot refine, and where no detection is due."""
    detector = Flickering(0)
    detector.seen[:] = [True, False]
    frames = video([np.full((100, 200, 3), 20 + t, np.uint8) for t in range(33)])
    assert spans(follow(detector, frames, config=FaceConfig(crop_size=16, mouth_size=16, shot_change=1.0))) == [(0, 32)]


def test_tiny_faces_and_glimpses_are_not_tracked(detector: FaceDetector) -> None:
    for side, frames in ((60, 16), (240, 6)):
        assert follow(detector, video([paste(background(), side, 300, 180)] * frames)) == []


def test_two_speakers_of_whom_one_walks_in(detector: FaceDetector) -> None:
    pictures = []
    for t in range(60):
        picture = paste(background(), 200, 140 + t, 170)
        pictures.append(paste(picture, 240, 500 - t, 190, MIRRORED) if t >= 27 else picture)
    frames = video(pictures)
    config = FaceConfig(crop_size=64, mouth_size=32, shot_change=1.0)  # nobody walks in within one frame
    first, second = by_track(follow(detector, frames, config=config)).values()
    assert (len(first), second[-1].frame) == (60, 59)
    assert 27 <= second[0].frame <= 50, "within a second"
    for track, sign in ((first, 1), (second, -1)):  # nobody swapped: each moves in one direction
        assert (sign * np.diff([centre(face)[0] for face in track[::5]]) > 0).all()
    alone = follow(detector, part(frames, 30, 45), config=FaceConfig(crop_size=64, mouth_size=32, max_faces=1))
    assert min(centre(face)[0] for face in alone) > 400, "the larger one"


def test_a_cut_and_a_jump_in_time_or_size_separate_tracks(detector: FaceDetector) -> None:
    # A face in the same place on both sides of a cut, on a frame where nothing would be detected otherwise.
    first, second = paste(background(0), 240, 300, 180), paste(background(7), 240, 300, 180, MIRRORED)
    assert spans(follow(detector, video([first] * 22 + [second] * 21))) == [(0, 21), (22, 42)]
    picture = paste(background(), 240, 300, 180)
    tracker = FaceTracker(detector, CONFIG)
    faces = tracker.push(video([picture] * 12))
    faces += tracker.push(video([picture] * 12, first_frame=40))
    faces += tracker.push(video([picture[:, 40:600]] * 12, first_frame=52))
    assert spans(faces + tracker.flush()) == [(0, 11), (40, 51), (52, 63)]


def test_a_short_occlusion_is_bridged_and_a_long_one_ends_the_track(detector: FaceDetector) -> None:
    seen = paste(background(), 240, 300, 180)
    hidden = seen.copy()
    hidden[60:300, 180:420] = 120  # a board in front of the lower picture, chin to brow
    config = FaceConfig(crop_size=64, mouth_size=32, shot_change=1.0)
    assert spans(follow(detector, video([seen] * 21 + [hidden] * 5 + [seen] * 19), config=config)) == [(0, 44)]
    long = video([seen] * 21 + [hidden] * 22 + [seen] * 17)
    assert spans(follow(detector, long, config=config)) == [(0, 20), (45, 59)]


def test_fast_motion_is_followed(detector: FaceDetector) -> None:
    """13 pixels a frame: two thirds of a face width between detections."""
    frames, xs = moving(50, 13.0)
    faces = follow(detector, frames)
    found = {face.frame: face for face in faces}
    assert len(found) >= 45
    assert len(by_track(faces)) <= 2
    assert np.median([abs(centre(face)[0] - xs[number]) for number, face in found.items()]) < 8


def test_jumps_only_when_nobody_else_could_be_meant() -> None:
    last = np.array([0, 0, 10, 10], np.float32)
    near, far, large = (np.array(box, np.float32) for box in ([8, 0, 18, 10], [40, 0, 50, 10], [4, 0, 24, 20]))
    assert jumps({3: last}, np.stack([near, far, large]), set()) == {3: 0}
    assert jumps({3: last}, np.stack([near, near - 1]), set()) == {}
    assert jumps({3: last}, np.stack([near, near - 1]), {0}) == {3: 1}
    assert jumps({3: last, 4: last + 2}, near[None], set()) == {}


def cuts(pictures: list[np.ndarray]) -> list[int]:
    frames, shots = video(pictures), ShotDetector(CONFIG.shot_change)
    return [index for index in range(len(frames)) if shots.push(frames, index)]


def test_shots() -> None:
    person = paste(background(), 240, 300, 180)
    assert cuts([background(0)] * 3 + [background(5)] * 3) == [0, 3]
    assert cuts([person] * 3 + [np.ascontiguousarray(person[:, ::-1])] * 3) == [0, 3]  # the same colours, mirrored
    assert cuts([np.full_like(person, 16)] * 2 + [person] * 3) == [0, 2]
    assert cuts([person] * 2 + [np.clip(person * 0.9 + 5, 0, 255).astype(np.uint8)] * 2) == [0]  # exposure
    walls = (np.full_like(person, level) for level in (126, 131))
    flat = [cv2.rectangle(wall, (250, 100), (400, 359), (90, 60, 60), -1) for wall in walls]
    assert cuts(flat * 2) == [0]  # flicker of a plain background
    assert cuts([paste(background(), 240, 300 + 15 * t, 180) for t in range(6)]) == [0]
    wide = background(2, HEIGHT, 2 * WIDTH)
    assert cuts([np.ascontiguousarray(wide[:, 12 * t : 12 * t + WIDTH]) for t in range(8)]) == [0]  # a pan
    assert cuts([(person * (1 - t / 25)).astype(np.uint8) for t in range(21)]) == [0]  # a fade
    for size in ((2, 2), (2, 600), (64, 20), (350, 1000)):
        dark, bright = (np.full((*size, 3), value, np.uint8) for value in (20, 200))
        assert cuts([dark, dark, bright]) == [0, 2]
