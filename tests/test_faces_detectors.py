"""The contract of face detectors: every one of them passes the same tests."""

import hashlib
import re
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from face_factory import FACE_CENTRE, PORTRAIT, background, paste

from avdetect.errors import ConfigError, ModelError
from avdetect.extras import how_to_install
from avdetect.faces import FaceDetector, Faces, build_detector
from avdetect.faces import scrfd as scrfd_module
from avdetect.faces.detector import fingerprint_of

SCRFD = Path(__file__).parents[2] / "shared/models/scrfd_500m_kps.onnx"
needs_insightface = pytest.mark.skipif(find_spec("insightface") is None, reason=how_to_install("scrfd"))


def scrfd_weights() -> Path:
    if find_spec("insightface") is None:
        pytest.skip(how_to_install("scrfd"))
    if not SCRFD.exists():
        pytest.skip("no SCRFD weights (research only, never shipped): ../shared/models/scrfd_500m_kps.onnx")
    return SCRFD


@pytest.fixture(scope="module", params=["mtcnn", "scrfd"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    return build_detector(request.param, path=scrfd_weights() if request.param == "scrfd" else None)


def test_finds_the_face_and_orders_its_landmarks(detector: FaceDetector) -> None:
    picture = paste(background(), 240, 300, 180)
    faces = detector.detect(picture)
    assert len(faces) == 1
    assert faces.confidences[0] >= detector.min_confidence
    box = faces.boxes[0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, [300, 180], atol=8)
    assert 60 < box[3] - box[1] < 120
    left_eye, right_eye, nose, mouth_left, mouth_right = faces.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert mouth_left[0] < nose[0] < mouth_right[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    corner = np.array([300, 180]) - FACE_CENTRE * 240
    np.testing.assert_allclose((left_eye + right_eye) / 2, corner + np.array([165, 95]) / 300 * 240, atol=8)


def test_faces_are_sorted_by_confidence_the_same_each_time_and_the_input_is_left_alone(detector: FaceDetector) -> None:
    picture = paste(paste(background(), 150, 150, 120), 260, 450, 190, PORTRAIT[:, ::-1])
    before = picture.copy()
    picture.setflags(write=False)
    first, second = detector.detect(picture), detector.detect(picture)
    assert len(first) == 2
    assert (np.diff(first.confidences) <= 0).all()
    assert first.boxes.dtype == first.confidences.dtype == first.landmarks.dtype == np.float32
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)
    strided = detector.detect(np.repeat(before, 2, axis=1)[:, ::2])  # a view, not contiguous
    np.testing.assert_array_equal(first.boxes, strided.boxes)


def test_pictures_and_faces_of_any_size(detector: FaceDetector) -> None:
    for shape in ((0, 0), (1, 1), (1, 50), (600, 2), (37, 53)):
        faces = detector.detect(np.full((*shape, 3), 90, np.uint8))
        assert (len(faces), faces.boxes.shape, faces.landmarks.shape) == (0, (0, 4), (0, 5, 2))
    assert len(detector.detect(paste(background(height=271, width=333), 220, 60, 100))) == 1
    picture = paste(background(), 100, 300, 180)  # a face of 37 pixels
    assert len(detector.detect(picture, min_face=20)) == 1
    assert len(detector.detect(picture, min_face=100)) == 0


def test_refine_agrees_with_a_full_search(detector: FaceDetector) -> None:
    picture = paste(background(), 240, 300, 180)
    full = detector.detect(picture)
    moved = full.boxes + np.array([6, -4, 6, -4], np.float32)
    near = detector.refine(picture, moved)
    if near is None:
        return  # allowed: no cheaper way
    np.testing.assert_allclose(near.boxes, full.boxes, atol=6)
    np.testing.assert_allclose(near.landmarks, full.landmarks, atol=3)
    assert len(detector.refine(background(), moved)) == 0
    wild = np.array([[-1e9, 0, 1e9, 5], [np.nan] * 4, [5, 5, 5, 5], [9, 9, 2, 2]], np.float32)
    detector.refine(picture, wild)  # never raises


def test_the_fingerprint_tells_weights_apart(detector: FaceDetector) -> None:
    assert re.fullmatch("[0-9a-f]{16}", detector.fingerprint)
    one, other = b"weights", b"Weights"
    assert len({fingerprint_of(*w) for w in ((one,), (other,), (one, other), (other, one))}) == 4


def test_scrfd_loads_what_it_has_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "det.onnx"
    path.write_bytes(scrfd_weights().read_bytes())
    check = scrfd_module.check_graph

    def check_and_swap(content: bytes, name: str) -> None:
        check(content, name)
        path.write_bytes(b"another graph")

    monkeypatch.setattr(scrfd_module, "check_graph", check_and_swap)
    assert build_detector("scrfd", path=path).fingerprint == fingerprint_of(SCRFD.read_bytes())


def test_an_unknown_detector_and_missing_weights_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mtcnn, scrfd"):
        build_detector("haar")
    with pytest.raises(ModelError, match="reinstall"):
        build_detector("mtcnn", path=tmp_path)
    (tmp_path / "pnet.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="cannot be loaded"):
        build_detector("mtcnn", path=tmp_path)


def test_scrfd_says_how_to_get_it_and_under_which_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrfd_module, "require", lambda extra, purpose: None)
    monkeypatch.setattr(Path, "expanduser", lambda self: tmp_path)
    for path in (None, tmp_path / "det.onnx"):
        with pytest.raises(ModelError, match=r"avdetect models fetch.*non-commercial"):
            build_detector("scrfd", path=path)
    (tmp_path / "det.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"det\.onnx"):
        build_detector("scrfd", path=tmp_path / "det.onnx")


@needs_insightface
def test_fetch_unpacks_once(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr("insightface.utils.storage.download", fail)
        with pytest.raises(ModelError, match=r"no route to host.*by hand"):
            scrfd_module.fetch_scrfd(tmp_path)

    def download_file(url: str, path: str, overwrite: bool) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as pack:
            for name in ("det_500m.onnx", "w600k_mbf.onnx"):
                pack.writestr(name, b"graph")

    monkeypatch.setattr("insightface.utils.storage.download_file", download_file)
    with pytest.raises(ModelError, match=r"is not the detector that insightface published, and was deleted"):
        scrfd_module.fetch_scrfd(tmp_path)
    assert not list(tmp_path.rglob("det_*"))
    monkeypatch.setattr(scrfd_module, "SHA256", hashlib.sha256(b"graph").hexdigest())
    path = scrfd_module.fetch_scrfd(tmp_path)
    assert path == tmp_path / "models/buffalo_s/det_500m.onnx"
    assert capsys.readouterr().out == ""
    monkeypatch.delattr("insightface.utils.storage.download_file")
    assert scrfd_module.fetch_scrfd(tmp_path) == path


def test_faces_check_their_shapes() -> None:
    with pytest.raises(ValueError, match="boxes"):
        Faces(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros((1, 5, 2), np.float32))
    assert repr(Faces.none()) == "Faces(0)"
