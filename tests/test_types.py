"""The values that flow from file to verdict: they refuse wrong shapes and print themselves without their data."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from clips import make_track

from avdetect.types import (
    FPS,
    HOP,
    MELS_PER_FRAME,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Clip,
    VideoFrames,
    Waveform,
    exact_div,
    yuv_to_rgb_matrix,
)


def frames(count: int = 2, height: int = 4, width: int = 6) -> VideoFrames:
    data = np.arange(count * height * 3 // 2 * width, dtype=np.uint8).reshape(count, height * 3 // 2, width)
    return VideoFrames(data, first_frame=50)


def test_rates_divide() -> None:
    assert SAMPLES_PER_FRAME * FPS == SAMPLE_RATE
    assert MELS_PER_FRAME == 4
    assert MELS_PER_FRAME * HOP == SAMPLES_PER_FRAME
    assert exact_div(12, 4) == 3
    with pytest.raises(ValueError, match="does not divide"):
        exact_div(12, 5)


def test_video_frames_know_their_size_and_place() -> None:
    video = frames()
    assert (len(video), video.height, video.width, video.start_seconds) == (2, 4, 6, 2.0)
    assert repr(video) == "VideoFrames(2 x 4 x 6 from 2.00 s)"


def test_planes_are_views_of_one_frame() -> None:
    video = frames()
    y, u, v = video.planes(1)
    assert (y.shape, u.shape, v.shape) == ((4, 6), (2, 3), (2, 3))
    flat = video.i420[1].reshape(-1)
    np.testing.assert_array_equal(np.concatenate([y.ravel(), u.ravel(), v.ravel()]), flat)
    assert all(np.shares_memory(plane, video.i420) for plane in (y, u, v))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 6, 4), np.float32),
        np.zeros((6, 4), np.uint8),
        np.zeros((1, 7, 4), np.uint8),  # no whole chroma planes
        np.zeros((1, 6, 5), np.uint8),  # odd width
        np.zeros((1, 6, 4, 3), np.uint8),
    ],
)
def test_video_frames_refuse_wrong_arrays(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"i420|even"):
        VideoFrames(array, 0)


@pytest.mark.parametrize("name", ["bt601", "bt709", "bt2020"])
def test_yuv_matrix_maps_black_white_and_grey(name: str) -> None:
    for full, black, white in ((False, 16, 235), (True, 0, 255)):
        matrix = yuv_to_rgb_matrix(name, full)
        assert (matrix.shape, matrix.dtype) == ((3, 4), np.float32)
        np.testing.assert_allclose(matrix @ [black, 128, 128, 1], [0, 0, 0], atol=0.01)
        np.testing.assert_allclose(matrix @ [white, 128, 128, 1], [255, 255, 255], atol=0.01)


def test_yuv_matrix_agrees_with_opencv() -> None:
    rng = np.random.default_rng(0)
    y, u, v = rng.integers(60, 180, 50), rng.integers(90, 166, 50), rng.integers(90, 166, 50)
    ours = np.stack([y, u, v, np.ones(50)], 1) @ yuv_to_rgb_matrix("bt601", False).T
    # OpenCV's I420 conversion is BT.601, limited range.
    for row, (a, b, c) in zip(ours, zip(y, u, v, strict=True), strict=True):
        i420 = np.concatenate([np.full(4, a), [b], [c]]).astype(np.uint8).reshape(3, 2)
        theirs = cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420)[0, 0]
        np.testing.assert_allclose(np.clip(row, 0, 255), theirs, atol=1.5)


def test_yuv_matrices_differ_by_standard() -> None:
    red = [100, 100, 200, 1]
    values = [(yuv_to_rgb_matrix(name, False) @ red)[1] for name in ("bt601", "bt709", "bt2020")]
    assert np.ptp(values) > 5


def test_waveform_states_duration_and_refuses_other_arrays() -> None:
    wave = Waveform(np.zeros(8000, np.float32), 1.5)
    assert wave.duration_seconds == 0.5
    assert repr(wave) == "Waveform(0.50 s from 1.50 s)"
    for bad in (np.zeros(8), np.zeros((2, 8), np.float32), np.zeros(8, np.int16)):
        with pytest.raises(ValueError, match="float32"):
            Waveform(bad)


def test_face_track_states_its_span() -> None:
    track = make_track(np.zeros(50, int), first_frame=25, track_id=3)
    assert (track.start_seconds, track.end_seconds) == (1.0, 3.0)
    assert repr(track) == "FaceTrack(id=3, 1.00-3.00 s, 10 face crops 64 px)"


@pytest.mark.parametrize("name", ["boxes", "landmarks", "confidences", "face_crops", "face_frames"])
def test_face_track_refuses_arrays_of_other_lengths(name: str) -> None:
    track = make_track(np.zeros(50, int))
    with pytest.raises(ValueError, match="differ in length"):
        dataclasses.replace(track, **{name: getattr(track, name)[:-1]})


def test_face_track_refuses_wrong_crops() -> None:
    track = make_track(np.zeros(50, int))
    for bad in ({"mouth_crops": track.mouth_crops[0]}, {"face_crops": track.face_crops[..., :2]}):
        with pytest.raises(ValueError, match="bad crops"):
            dataclasses.replace(track, **bad)


def test_clip_prints_no_data() -> None:
    track = make_track(np.zeros(50, int))
    text = repr(Clip(0.0, 2.0, (track,), Waveform(np.zeros(32000, np.float32))))
    assert len(text) < 200
    assert "array" not in text
