"""Media -> Clips: the only road from a file to the model's input, for training and for inference alike.

It stops at uint8 crops and waveform. Log-mels and normalisation belong to `avdetect.scoring` and to the graphs.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TypeVar

import numpy as np

from avdetect.audio import MIN_AUDIO_SECONDS, SILENCE_RMS, rms
from avdetect.config import FaceConfig, MediaLimits, PreprocessConfig
from avdetect.errors import ConfigError, LimitError, MediaError
from avdetect.faces.crops import as_uint8, frames_from_rgb
from avdetect.faces.detector import FaceDetector
from avdetect.faces.tracking import FaceTracker, TrackedFace
from avdetect.media import NOTHING, MediaInfo, MediaReader
from avdetect.tracks import spoken_track
from avdetect.types import FPS, Clip, FacesSeen, FaceTrack, VideoFrames, Waveform

T = TypeVar("T")
STILLS = frozenset({".jpg", ".jpeg", ".png"})  # photographs, which `still_clips` reads
MAX_SECONDS = 1e6
MIN_LOST_SECONDS = 1.0  # at the end of a damaged file: less is not worth a warning
MIN_GAP_FRAMES = FPS  # without a picture, all together: less is not worth a warning
# To be raised by whoever changes what comes out for the same file, configuration and detector: crops, tracks, sound.
# A preprocessing cache notes it and is not mixed with clips of another version.
PREPROCESS_VERSION = 2


class Preprocessor:
    """Holds the configuration and the face detector; every file is opened anew."""

    def __init__(
        self, config: PreprocessConfig, detector: FaceDetector, limits: MediaLimits, threads: int | None = None
    ) -> None:
        """threads: the most that decode one video; None takes the cores there are, eight at most."""
        self.config, self.detector, self.limits, self.threads = config, detector, limits, threads

    def open(
        self,
        path: str | os.PathLike[str],
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        on_frames: Callable[[VideoFrames], None] | None = None,
        video_track: int | None = None,
        audio_track: int | None = None,
    ) -> ClipStream:
        """Probe `path` and return its clips, not decoded yet. Raises ConfigError, MediaError or LimitError.

        `start_seconds` is rounded to the nearest frame, so that frames and samples of a window are those of the file.
        `on_frames` is shown every batch of whole frames before its faces are sought; what it keeps it must copy.
        Tracks count from 1; without `audio_track` the one with speech is read (`avdetect.tracks`).
        """
        for name, value in (("start", start_seconds), ("duration", duration_seconds)):
            if value is not None and not 0 <= value < MAX_SECONDS:
                raise ConfigError(f"{name} must be a number of seconds from 0 to {MAX_SECONDS:g}, got {value}")
        for name, track in (("video", video_track), ("audio", audio_track)):
            if track is not None and track < 1:
                raise ConfigError(f"{name} tracks are counted from 1, got {track}")
        limits, threads = self.limits, self.threads
        began = time.perf_counter()
        reader = MediaReader(path, self.config.media, limits, threads, video_track=video_track, audio_track=audio_track)
        start_seconds = round(start_seconds * FPS) / FPS
        if audio_track is None and (spoken := spoken_track(reader, start_seconds, duration_seconds)) is not None:
            reader.hear(spoken)
        stream = ClipStream(self, reader, start_seconds, duration_seconds, on_frames)
        stream.timing_seconds["probe"] = time.perf_counter() - began
        return stream

    def clips(self, path: str | os.PathLike[str]) -> list[Clip]:
        """All clips of a (short) file at once."""
        with self.open(path) as stream:
            return list(stream)

    def still_config(self) -> FaceConfig:
        """The face configuration for a photograph: one frame is a whole track."""
        return dataclasses.replace(self.config.faces, min_track=1)


class ClipStream:
    """The clips of one file, in order; decoding goes on while they are consumed, so memory stays bounded.

    `missing`, `warnings` and `timing_seconds` are complete once the stream is exhausted. Close it (or use `with`) to
    end the decoder of a stream that is abandoned.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        reader: MediaReader,
        start: float,
        duration: float | None,
        on_frames: Callable[[VideoFrames], None] | None = None,
    ) -> None:
        self.config = preprocessor.config
        self.start_seconds = start
        self._most_seconds = preprocessor.limits.max_file_seconds
        self._deadline = time.monotonic() + self._most_seconds
        self._reader, self.info = reader, reader.info
        self._duration, self._on_frames = duration, on_frames
        self._broken: dict[str, MediaError] = {}  # "video"/"audio" -> why it cannot be decoded
        self._tracker = FaceTracker(preprocessor.detector, self.config.faces, _stated_origin(self.info))
        self._reduced = 1.0  # pixels of the file's picture to one of the frames
        self._unseen_frames = 0  # between two pictures, where there was none
        self._saw_face = self._heard = False
        self._audio_seconds = 0.0
        self._read_seconds: float | None = None  # of the longer half; known at the end
        self.timing_seconds = {"probe": 0.0, "decode": 0.0, "faces": 0.0}

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoders. Safe to call twice."""
        self._reader.close()

    @property
    def expected_seconds(self) -> float | None:
        """How much there is to read, when the container says so."""
        stated, limit = self.info.duration_seconds, self._duration
        left = None if stated is None else max(0.0, stated - self.start_seconds)
        return left if limit is None else limit if left is None else min(left, limit)

    @property
    def warnings(self) -> tuple[str, ...]:
        broken = (
            str(error) if kind in self._reader.empty else f"the {kind} cannot be decoded: {error}"
            for kind, error in self._broken.items()
        )
        gaps = f"there is no picture for {self._unseen_frames / FPS:.1f} s in between; nothing is judged there"
        gap = [gaps] if self._unseen_frames >= MIN_GAP_FRAMES else []
        return (*self._lost(), *self._reader.warnings, *broken, *gap)

    def _lost(self) -> Iterator[str]:
        """How much of a damaged file could be read, where its container states how much there should be."""
        read, expected = self._read_seconds, self.expected_seconds
        if self._reader.damaged and read is not None and expected and expected - read > MIN_LOST_SECONDS:
            yield f"only {read:.1f} of {expected:.1f} s could be read"

    @property
    def missing(self) -> dict[str, str]:
        """Why "video" or "audio" gives the streams nothing; empty when both do."""
        missing = {}
        if "video" in self._broken or "video" in self.info.unusable:
            missing["video"] = self._undecoded("video")
        elif self.info.video is None:
            missing["video"] = "no video stream"
        elif not self._saw_face:
            missing["video"] = self._no_face()
        if "audio" in self._broken or "audio" in self.info.unusable:
            missing["audio"] = self._undecoded("audio")
        elif self.info.audio is None:
            missing["audio"] = "no audio stream"
        elif self._audio_seconds < MIN_AUDIO_SECONDS:
            missing["audio"] = f"less than {MIN_AUDIO_SECONDS} s of audio"
        elif not self._heard:
            missing["audio"] = "silent"
        return missing

    def _undecoded(self, kind: str) -> str:
        return f"the {kind} track {NOTHING[kind]}" if kind in self._reader.empty else f"the {kind} cannot be decoded"

    def faces_seen(self, judged: Container[int]) -> FacesSeen:
        """How many faces there were at once, so far; `judged` holds the ids of the tracks that were."""
        seen, small = self._tracker.seen, self._too_small() or (None, None)
        return FacesSeen(len(seen.followed) + seen.beyond, sum(track in judged for track in seen.followed), *small)

    def _too_small(self) -> tuple[int, int] | None:
        """Side of the largest face that is too small, and the side it would need, in pixels of the file's picture."""
        seen = self._tracker.seen
        if not seen.small_side:
            return None
        return math.floor(seen.small_side * self._reduced), math.ceil(seen.needed_side * self._reduced)

    def _no_face(self) -> str:
        if too_small := self._too_small():
            return "face too small to judge ({} px; needs {})".format(*too_small)
        return f"no face (followed for {self.config.faces.min_track / FPS:.1f} s or more)"

    def __iter__(self) -> Iterator[Clip]:
        step = round(self.config.clip_seconds * FPS)
        begin = last = round(self.start_seconds * FPS)
        sounds = self._sounds()
        for faces, video_end in self._faces(begin, step):
            waveform = next(sounds, None)
            audio_end = begin if waveform is None else begin + round(waveform.duration_seconds * FPS)
            end = max(video_end, audio_end)
            if end <= begin:
                self._read_seconds = last / FPS - self.start_seconds
                if begin and begin == round(self.start_seconds * FPS):
                    raise MediaError(f"{str(self.info.path)!r} ends before {self.start_seconds:g} s; begin earlier")
                return
            yield self._clip(begin, end, faces, waveform)
            begin, last = begin + step, end

    def _clip(self, begin: int, end: int, faces: list[TrackedFace], waveform: Waveform | None) -> Clip:
        tracks = group_tracks(faces, self.config.faces)
        self._saw_face |= bool(tracks)
        if waveform is not None:
            self._audio_seconds += waveform.duration_seconds
            self._heard |= rms(waveform.samples) >= SILENCE_RMS
        return Clip(begin / FPS, (end - begin) / FPS, tracks, waveform)

    def _sounds(self) -> Iterator[Waveform]:
        if self.info.audio is not None:
            yield from self._read(
                "audio",
                self._reader.audio(
                    self.config.clip_seconds, start_seconds=self.start_seconds, duration_seconds=self._duration
                ),
            )

    def _faces(self, begin: int, step: int) -> Iterator[tuple[list[TrackedFace], int]]:
        """For each clip, without end: its tracked faces and the number of the frame after its last one."""
        pending: list[TrackedFace] = []
        seen, ended, started = begin, self.info.video is None, False
        batches: Iterator[VideoFrames] = iter(())
        if not ended:
            batches = self._read(
                "video", self._reader.video(start_seconds=self.start_seconds, duration_seconds=self._duration)
            )
        while True:
            end = begin + step
            while not ended and seen < end + self._tracker.lag:
                batch = next(batches, None)
                began = time.perf_counter()
                if batch is None:
                    pending += self._tracker.flush()
                    ended = True
                else:
                    if not started and not self.start_seconds:
                        self._tracker.origin = batch.first_frame  # some containers state another one
                    self._reduced = self._reduction(batch)
                    self._unseen_frames += max(0, batch.first_frame - seen) if started else 0
                    started = True
                    if self._on_frames:
                        self._on_frames(batch)
                    pending += self._tracker.push(batch)
                    seen = batch.first_frame + len(batch)
                self.timing_seconds["faces"] += time.perf_counter() - began
            yield [face for face in pending if face.frame < end], min(seen, end)
            pending = [face for face in pending if face.frame >= end]
            begin = end

    def _reduction(self, frames: VideoFrames) -> float:
        video = self.info.video
        return max(1.0, max(video.width, video.height) / max(frames.width, frames.height)) if video else 1.0

    def _read(self, kind: str, reader: Iterator[T]) -> Iterator[T]:
        """What `reader` gives, timed. A stream that cannot be decoded is missing, unless it is all the file has."""
        other = self.info.audio if kind == "video" else self.info.video
        while True:
            began = time.perf_counter()
            try:
                item = next(reader, None)
            except LimitError:
                raise
            except MediaError as error:
                self._broken[kind] = error
                if other is None or len(self._broken) == 2:
                    raise
                return
            finally:
                self.timing_seconds["decode"] += time.perf_counter() - began
            if item is None:
                return
            if time.monotonic() > self._deadline:  # a file that grows as it is read, or is slow to look at
                what = f"it took more than {self._most_seconds:g} s"
                raise LimitError(
                    f"{str(self.info.path)!r} is refused: {what}; raise limits.max_file_seconds if you trust the file"
                )
            yield item


def _stated_origin(info: MediaInfo) -> int:
    """Number of the file's first picture, as its container states it."""
    return round((info.video.start_seconds - (info.start_seconds or 0.0)) * FPS) if info.video else 0


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


def still_clips(preprocessor: Preprocessor, path: str) -> list[Clip]:
    """A photograph as a Clip of one frame: its faces, cropped by the tracker that crops video. Raises MediaError."""
    import cv2

    image = cv2.imread(path)
    if image is None:
        raise MediaError(f"{path} is not a readable picture")
    frames = frames_from_rgb(as_uint8(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    config = preprocessor.still_config()
    tracker = FaceTracker(preprocessor.detector, config)
    return [Clip(0.0, 1 / FPS, group_tracks(tracker.push(frames) + tracker.flush(), config), None)]
