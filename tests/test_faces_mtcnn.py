"""MTCNN on ONNX Runtime against facenet-pytorch, whose weights it runs."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from face_factory import PORTRAIT, background, paste

from avdetect.faces import mtcnn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for each other on more."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: train)")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def reference(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    facenet = pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed (extra: dev)")
    found = facenet.MTCNN(keep_all=True, min_face_size=MIN_FACE, device="cpu").detect(PICTURES[name], landmarks=True)
    if found[0] is None:
        return np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
    return tuple(np.asarray(values, np.float64) for values in found)  # type: ignore[return-value]


MIN_FACE = 20
PICTURES = {
    "portrait": cv2.resize(skimage.data.astronaut(), (320, 320), interpolation=cv2.INTER_AREA),
    "two": paste(paste(background(), 150, 150, 120), 260, 450, 190, PORTRAIT[:, ::-1]),
    "small": paste(background(3, 271, 333), 120, 250, 60),
    "none": background(4, 180, 320),
}


def match(name: str) -> tuple[float, float]:
    """Greatest difference of any box side and landmark, in pixels; asserts that the same faces were found."""
    boxes, confidences, landmarks = reference(name)
    faces = mtcnn.MTCNN().detect(PICTURES[name], min_face=MIN_FACE)
    assert len(faces) == len(boxes)
    if not len(boxes):
        return 0.0, 0.0
    order = [int(np.abs(faces.boxes - box).sum(axis=1).argmin()) for box in boxes]
    assert sorted(order) == list(range(len(boxes)))
    np.testing.assert_allclose(faces.confidences[order], confidences, atol=0.02)
    return float(np.abs(faces.boxes[order] - boxes).max()), float(np.abs(faces.landmarks[order] - landmarks).max())


@pytest.mark.parametrize("name", PICTURES)
def test_identical_to_facenet_pytorch_with_its_resampling(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def area(picture: np.ndarray, size: tuple[int, int]) -> Any:
        planes = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(planes, size=size[::-1], mode="area")[0].permute(1, 2, 0).numpy()

    monkeypatch.setattr(mtcnn, "halve", lambda picture, size: picture)
    monkeypatch.setattr(mtcnn, "_level", area)
    monkeypatch.setattr(mtcnn, "_sample", area)
    assert max(match(name)) < 0.05


def test_the_faster_resampling_moves_faces_by_a_pixel_or_two() -> None:
    box, landmark = match("two")
    assert box < 3.5  # of faces 40 to 115 pixels high
    assert landmark < 2.0


def test_work_is_bounded_on_a_picture_full_of_faces() -> None:
    tile = paste(background(1, 40, 40), 90, 20, 20)
    crowd = np.tile(tile, (9, 14, 1))
    assert len(mtcnn.MTCNN().detect(crowd, min_face=14)) <= mtcnn.MAX_PROPOSALS * 12
