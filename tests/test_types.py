"""The values that flow from file to verdict: they refuse wrong shapes and print themselves without their data."""

import dataclasses

import numpy as np
import pytest
from clips import make_track

from avdetect.types import Clip, VideoFrames, Waveform, exact_div


def test_video_frames_know_their_size_and_place() -> None:
    data = np.arange(2 * 6 * 6, dtype=np.uint8).reshape(2, 6, 6)
    video = VideoFrames(data, first_frame=50)
    assert (len(video), video.height, video.width, video.start_seconds) == (2, 4, 6, 2.0)
    assert repr(video) == "VideoFrames(2 x 4 x 6 from 2.00 s)"
    planes = video.planes(1)
    assert [plane.shape for plane in planes] == [(4, 6), (2, 3), (2, 3)]
    np.testing.assert_array_equal(np.concatenate([plane.ravel() for plane in planes]), video.i420[1].ravel())
    assert all(np.shares_memory(plane, video.i420) for plane in planes), "views"


def test_waveforms_face_tracks_and_clips_print_no_data() -> None:
    wave = Waveform(np.zeros(8000, np.float32), 1.5)
    assert (wave.duration_seconds, repr(wave)) == (0.5, "Waveform(0.50 s from 1.50 s)")
    track = make_track(np.zeros(50, int), first_frame=25, track_id=3)
    assert repr(track) == "FaceTrack(id=3, 1.00-3.00 s, 10 face crops 64 px)"
    assert "array" not in repr(Clip(0.0, 2.0, (track,), Waveform(np.zeros(32000, np.float32))))


def test_wrong_arrays_are_refused() -> None:
    # Of another type, without frames, without whole chroma planes, of an odd width, of another layout.
    for shape, kind in (((1, 6, 4), "f4"), ((6, 4), "u1"), ((1, 7, 4), "u1"), ((1, 6, 5), "u1"), ((1, 6, 4, 3), "u1")):
        with pytest.raises(ValueError, match=r"i420|even"):
            VideoFrames(np.zeros(shape, kind), 0)
    for bad in (np.zeros(8), np.zeros((2, 8), np.float32), np.zeros(8, np.int16)):
        with pytest.raises(ValueError, match="float32"):
            Waveform(bad)
    track = make_track(np.zeros(50, int))
    for name in ("boxes", "landmarks", "confidences", "face_crops", "face_frames"):
        with pytest.raises(ValueError, match="differ in length"):
            dataclasses.replace(track, **{name: getattr(track, name)[:-1]})
    with pytest.raises(ValueError, match="does not divide"):
        exact_div(12, 5)
    with pytest.raises(ValueError, match="bad crops"):
        dataclasses.replace(track, face_crops=track.face_crops[..., :2])
