"""Photographs: for training and evaluation, which learn from faces in them too."""

import dataclasses

from avdetect.errors import MediaError
from avdetect.faces.crops import as_uint8, frames_from_rgb
from avdetect.faces.tracking import FaceTracker, group_tracks
from avdetect.preprocess import Preprocessor
from avdetect.types import FPS, Clip

STILLS = frozenset({".jpg", ".jpeg", ".png"})  # photographs, which `still_clips` reads


def still_clips(preprocessor: Preprocessor, path: str) -> list[Clip]:
    """A photograph as a Clip of one frame: its faces, cropped by the tracker that crops video. Raises MediaError."""
    import cv2

    image = cv2.imread(path)
    if image is None:
        raise MediaError(f"{path} is not a readable picture")
    frames = frames_from_rgb(as_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    config = dataclasses.replace(preprocessor.config.faces, min_track=1)  # one frame is a whole track
    tracker = FaceTracker(preprocessor.detector, config)
    return [Clip(0.0, 1 / FPS, group_tracks(tracker.push(frames) + tracker.flush(), config), None)]
