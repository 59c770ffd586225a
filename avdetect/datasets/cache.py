"""Preprocessed files on disk, for training: one .npz a file, holding its Clips exactly as the Detector sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from avdetect.config import PreprocessConfig
from avdetect.errors import AVDetectError, ManifestError, MediaError
from avdetect.faces import crops as face_crops
from avdetect.faces.tracking import FaceTracker
from avdetect.preprocess import Preprocessor, group_tracks
from avdetect.types import Clip, FaceTrack, Waveform

_TRACK_ARRAYS = ("mouth_crops", "face_crops", "face_frames", "boxes", "landmarks", "confidences")


def cache_path(root: str | Path, path: str, config: PreprocessConfig) -> Path:
    """Where `path`, preprocessed with `config`, lives: a change of either leads to another file."""
    stat = Path(path).stat()
    key = hashlib.sha256(f"{Path(path).name}:{stat.st_size}:{config.digest()}".encode()).hexdigest()[:24]
    return Path(root) / config.digest() / key[:2] / f"{key}.npz"


def save_clips(target: Path, clips: Sequence[Clip]) -> None:
    """Write `clips` to `target` in one step: a reader never sees half a file."""
    arrays: dict[str, np.ndarray] = {"num_clips": np.array(len(clips))}
    for i, clip in enumerate(clips):
        arrays[f"{i}.span"] = np.array([clip.start_seconds, clip.duration_seconds])
        arrays[f"{i}.tracks"] = np.array([[t.track_id, t.first_frame] for t in clip.tracks], np.int64).reshape(-1, 2)
        if clip.waveform is not None:
            arrays[f"{i}.samples"] = clip.waveform.samples
            arrays[f"{i}.samples_start"] = np.array(clip.waveform.start_seconds)
        for j, track in enumerate(clip.tracks):
            arrays |= {f"{i}.{j}.{name}": getattr(track, name) for name in _TRACK_ARRAYS}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    partial.replace(target)


def load_clips(source: Path) -> list[Clip]:
    """Read what `save_clips` wrote; nothing is unpickled."""
    with np.load(source, allow_pickle=False) as arrays:
        clips = []
        for i in range(int(arrays["num_clips"])):
            tracks = tuple(
                FaceTrack(int(track_id), int(first), **{name: arrays[f"{i}.{j}.{name}"] for name in _TRACK_ARRAYS})
                for j, (track_id, first) in enumerate(arrays[f"{i}.tracks"])
            )
            waveform = None
            if f"{i}.samples" in arrays:
                waveform = Waveform(arrays[f"{i}.samples"], float(arrays[f"{i}.samples_start"]))
            start, duration = arrays[f"{i}.span"]
            clips.append(Clip(float(start), float(duration), tracks, waveform))
    return clips


def still_clips(preprocessor: Preprocessor, path: str) -> list[Clip]:
    """A photograph as a Clip: its faces, cropped by the same tracker that crops video. Raises MediaError."""
    image = cv2.imread(path)
    if image is None:
        raise MediaError(f"{path} is not a readable picture")
    frames = face_crops.frames_from_rgb(face_crops.as_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    config = preprocessor.still_config()
    tracker = FaceTracker(preprocessor.detector, config)
    return [Clip(0.0, 0.04, group_tracks(tracker.push(frames) + tracker.flush(), config), None)]


def build_cache(paths: Sequence[str], root: str | Path, preprocessor: Preprocessor, progress) -> dict[str, str]:
    """Preprocess every path not cached yet. Returns path -> error message for those that failed.

    Raises ManifestError when two paths have one name and one size: they would be taken for the same file.
    """
    failures: dict[str, str] = {}
    taken: dict[Path, str] = {}
    for path in progress(paths):
        try:
            target = cache_path(root, path, preprocessor.config)
        except OSError as error:
            failures[path] = f"{error.strerror}: {path}"
            continue
        other = taken.setdefault(target, path)
        if other != path:
            raise ManifestError(f"{other} and {path} have the same name and size; rename one, the cache tells by these")
        if target.exists():
            continue
        try:
            still = Path(path).suffix.lower() in {".jpg", ".jpeg", ".png"}
            save_clips(target, still_clips(preprocessor, path) if still else list(preprocessor.clips(path)))
        except AVDetectError as error:
            failures[path] = str(error)
    return failures
