"""Faces that are not judged: too small, too many, or with a hidden mouth; it is said, and they raise nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from clips import ToneNetworks, make_track, speech
from face_factory import HEIGHT, PORTRAIT, WIDTH, background, paste, video
from media_factory import encode
from readme_media import SAMPLE

from avdetect import Detection, Detector
from avdetect.config import FaceConfig, ModelConfig
from avdetect.faces import FaceDetector, build_detector
from avdetect.faces.crops import face_crop, frames_from_rgb
from avdetect.faces.mouth import hidden_mouths
from avdetect.faces.tracking import MIN_CLOSER_FACE, FaceTracker
from avdetect.media import MediaReader
from avdetect.report.data import SCHEMA_FILE, to_json
from avdetect.report.text import render
from avdetect.report.words import causes
from avdetect.scoring import HIDDEN, StreamScorer
from avdetect.types import FPS, Clip, FacesSeen, VideoFrames, Waveform

COVERS = {
    "white": "drawbox=x=130:y=225:w=220:h=130:color=white:t=fill",
    "microphone": "drawbox=x=180:y=240:w=120:h=110:color=0x404048:t=fill,noise=c0s=12:allf=t",
}


@pytest.fixture(scope="module")
def finder() -> FaceDetector:
    return build_detector("mtcnn")


def make(target: Path, *options: str) -> Path:
    """The sample, changed."""
    return encode(target, "-i", str(SAMPLE), "-preset", "ultrafast", *options)


# -- too small, too many


def test_a_face_that_is_too_small_is_not_called_none(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    chain = "scale=96:96,pad=1280:720:iw:ih:gray"
    found = detector.score(make(tmp_path / "small.mp4", "-t", "1", "-vf", chain, "-c:a", "copy"))
    small = found.faces.too_small_pixels
    left, top, right, bottom = sample.tracks[0].box
    assert small == pytest.approx(max(right - left, bottom - top) * 96 / 480, rel=0.25)
    reason = f"face too small to judge ({small} px; needs 58)"
    assert (found.missing["visual"], found.missing["sync"]) == (reason, reason)
    assert reason in render(found).plain
    assert reason[1:] in causes(found)[0].lines[0]


def test_sizes_are_those_of_the_file_where_the_picture_was_reduced(detector: Detector, tmp_path: Path) -> None:
    chain = "scale=200:200,pad=3840:2160:1800:1000:gray"
    found = detector.score(make(tmp_path / "4k.mp4", "-t", "0.2", "-vf", chain, "-an"))
    assert (found.faces.seen, found.faces.needed_pixels) == (0, 173)
    assert found.faces.too_small_pixels == pytest.approx(100, abs=20)


def test_looking_closer_changes_no_track_and_ends_with_the_first_face(finder: FaceDetector, monkeypatch) -> None:
    looks: list[float] = []
    detect = finder.detect

    def counted(rgb: np.ndarray, *, min_face: float) -> object:
        looks.append(min_face)
        return detect(rgb, min_face=min_face)

    monkeypatch.setattr(finder, "detect", counted)
    empty, face = background(), paste(background(), 240, WIDTH / 2, HEIGHT / 2)
    tracker = FaceTracker(finder, FaceConfig())
    tracker.push(video([empty] * 60 + [face] * 30))
    tracker.flush()
    assert looks.count(MIN_CLOSER_FACE) == 3, "at 0, 1 and 2 s"
    assert (tracker.seen.beyond, tracker.seen.followed, tracker.seen.small_side) == (0, (0,), 0)


def test_people_who_are_not_judged_are_said_everywhere(detector: Detector, tmp_path: Path) -> None:
    chain = "[0:v]scale=240:240,split=6[a][b][c][d][e][f];[a][b][c]hstack=3[x];[d][e][f]hstack=3[y];[x][y]vstack"
    path = make(tmp_path / "six.mp4", "-t", "0.8", "-filter_complex", chain, "-map", "0:a", "-c:a", "copy")
    found = detector.score(path)
    assert found.faces == FacesSeen(6, 4)
    assert "4 of 6 faces judged" in render(found).plain
    assert "6 faces were seen at once, 4 of them judged" in found.warnings
    assert "4 of 6 faces judged." in causes(found)[0].lines
    document = json.loads(to_json([found]))
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert document["results"][0]["faces"]["judged"] == 4
    # Who is seen for a moment only is not counted: such a face is most often none.
    chain = "[0:v]scale=320:320,split[a][b];[b]drawbox=t=fill:enable='gt(t,0.1)'[c];[a][c]hstack"
    path = make(tmp_path / "two.mp4", "-t", "0.8", "-filter_complex", chain, "-map", "0:a", "-c:a", "copy")
    assert detector.score(path).faces == FacesSeen(1, 1)


# -- hidden mouths


@pytest.mark.parametrize("cover", COVERS)
def test_a_hidden_mouth_raises_nothing_and_is_said(detector, sample, cover, tmp_path):
    assert sample.faces == FacesSeen(1, 1)
    options = ("-t", "4", "-vf", COVERS[cover], "-crf", "23", "-c:a", "copy")
    found = detector.score(make(tmp_path / "covered.mp4", *options))
    assert found.fake <= found.audio_fake + 0.02
    assert (found.video_fake, found.missing["visual"], found.missing["sync"]) == (None, HIDDEN, HIDDEN)
    assert found.faces == FacesSeen(1, 0)
    assert any(warning.startswith(HIDDEN) for warning in found.warnings)
    assert HIDDEN in render(found).plain
    assert len(found.tracks) == 1  # followed all the same


def test_the_rest_of_a_face_is_judged(detector: Detector, sample: Detection, tmp_path: Path) -> None:
    cover = COVERS["white"] + ":enable='between(t,2,4)'"
    found = detector.score(make(tmp_path / "partly.mp4", "-vf", cover, "-crf", "18", "-c:a", "copy"))
    assert found.video_fake == pytest.approx(sample.video_fake, abs=0.1)
    (curve,) = next(score.curves for score in found.streams if score.name == "visual")
    assert not {2.5, 3.5} & set(curve.times_seconds)
    (warning,) = (warning for warning in found.warnings if warning.startswith(HIDDEN))
    assert "these were not judged" in warning


def crops_of(
    finder: FaceDetector, picture: np.ndarray, margin: float = 1.3, size: int = 160
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One crop as `hidden_mouths` takes it, with the places of the uncovered portrait."""
    faces = finder.detect(PORTRAIT, min_face=40)
    crop = face_crop(frames_from_rgb(picture), 0, faces.boxes[0], margin, size)
    return crop[None], faces.boxes[:1], faces.landmarks[:1]


def covered(finder: FaceDetector, picture: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """With an ellipse over the portrait's mouth."""
    landmarks = finder.detect(PORTRAIT, min_face=40).landmarks[0]
    nose, mouth = landmarks[2], landmarks[3:].mean(axis=0)
    centre = (mouth + (mouth - nose) * 0.3).astype(int).tolist()
    return cv2.ellipse(picture.copy(), centre, (45, 32), 0, 0, 360, colour, -1)


TINTS = {
    "colour": lambda picture: picture,
    "grey": lambda picture: cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "dim": lambda picture: picture // 4,
    "soft": lambda picture: cv2.GaussianBlur(picture, (0, 0), 3),
    "flat": lambda picture: np.full_like(picture, 90),  # nothing can be said of it
}


def test_a_mouth_that_is_there_is_seen(finder: FaceDetector) -> None:
    for tint, change in TINTS.items():
        assert not hidden_mouths(*crops_of(finder, change(PORTRAIT)), 1.3).any(), tint


def test_crops_may_be_larger_and_wider(finder: FaceDetector) -> None:
    margin, size, grain = 1.95, 480, np.random.default_rng(0).normal(0, 12, PORTRAIT.shape)
    noisy = np.clip(PORTRAIT + grain, 0, 255).astype(np.uint8)
    for picture, hidden in ((PORTRAIT, False), (noisy, False), (covered(finder, noisy, (240, 240, 240)), True)):
        assert hidden_mouths(*crops_of(finder, picture, margin, size), margin).all() == hidden


@pytest.mark.parametrize(
    ("colour", "roll"), [((240, 240, 240), -30), ((150, 190, 215), 25), ((25, 25, 30), -30), ((25, 25, 30), 25)]
)
def test_a_cover_is_seen_however_the_head_is_held(finder: FaceDetector, colour: tuple[int, ...], roll: int) -> None:
    faces = finder.detect(PORTRAIT, min_face=40)
    turn = cv2.getRotationMatrix2D(tuple(map(float, faces.landmarks[0, 2])), roll, 1.0)
    points = faces.landmarks[0] @ turn[:, :2].T + turn[:, 2]
    picture = covered(finder, PORTRAIT, colour)
    turned = cv2.warpAffine(picture, turn, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    crop = face_crop(frames_from_rgb(turned), 0, faces.boxes[0], 1.3, 160)
    assert hidden_mouths(crop[None], faces.boxes[:1], points[None].astype(np.float32), 1.3).all()


def test_neighbours_decide_for_a_picture_in_which_nothing_is_recognised(finder: FaceDetector) -> None:
    shown, boxes, marks = crops_of(finder, PORTRAIT)
    hidden = shown.copy()
    hidden[:, 90:] = 220
    pattern = [0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0]
    crops = np.concatenate([hidden if there else shown for there in pattern])
    found = hidden_mouths(crops, boxes.repeat(len(pattern), 0), marks.repeat(len(pattern), 0), 1.3)
    assert found.astype(int).tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0]


def test_a_face_that_is_mostly_hidden_leaves_the_others() -> None:
    """Nothing of it is judged, neither by pictures nor by lip-sync; who is beside it is."""
    codes = np.arange(75) % 24
    hidden, seen = make_track(codes, track_id=0), make_track(codes, track_id=1)
    hidden.face_crops[:12, 36:] = 255
    scorer = StreamScorer(ToneNetworks(), ModelConfig())
    outputs = scorer.start()
    scorer.add(outputs, Clip(0.0, 3.0, (hidden, seen), Waveform(speech(3.0))))
    scorer.finish(outputs, {})
    assert (set(outputs.visual), set(outputs.boxes)) == ({1}, {0, 1})
    assert 0 not in outputs.readings
    assert outputs.missing.get("visual") is None


def test_a_gap_is_no_evidence(detector: Detector, sample: Detection, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three seconds comes no picture for a while, and then the rest."""
    video_of, cut, gap = MediaReader.video, 75, 200

    def with_a_gap(self: MediaReader, **window: Any) -> Iterator[VideoFrames]:
        for batch in video_of(self, **window):
            later = gap * FPS if batch.first_frame >= cut else 0
            yield VideoFrames(batch.i420, batch.first_frame + later, batch.color_matrix, batch.full_range)

    monkeypatch.setattr(MediaReader, "video", with_a_gap)
    found = detector.score(SAMPLE)
    assert "there is no picture for 200.0 s in between; nothing is judged there" in found.warnings
    first, second = sorted(found.tracks, key=lambda track: track.start_seconds)
    assert first.start_seconds == 0
    assert first.end_seconds < 3
    assert second.start_seconds == pytest.approx(3 + gap, abs=0.4)  # the time between two crops
    curves = [curve for score in found.streams if score.name != "audio" for curve in score.curves]
    assert not [time for curve in curves for time in curve.times_seconds if 3 < time < 3 + gap]
    for segment in found.segments:
        assert segment.stream == "audio" or segment.end_seconds <= 3 or segment.start_seconds >= 3 + gap
    assert found.video_fake == pytest.approx(sample.video_fake, abs=0.1)
