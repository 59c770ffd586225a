"""Media -> Clips: the only road from a file to the model's input, for training and for inference alike.

It stops at uint8 crops and waveform. Log-mels and normalisation belong to `avdetect.scoring` and to the graphs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TypeVar

from avdetect.audio import MIN_AUDIO_SECONDS, SILENCE_RMS, rms
from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.errors import ConfigError, LimitError, MediaError
from avdetect.faces.detector import FaceDetector
from avdetect.faces.tracking import FaceTracker, TrackedFace, group_tracks
from avdetect.media import NOTHING, MediaReader
from avdetect.tracks import spoken_track
from avdetect.types import FPS, Clip, FacesSeen, VideoFrames, Waveform

T = TypeVar("T")
MAX_SECONDS = 1e6
MIN_DURATION_SECONDS = 1 / FPS
LONG_SECONDS, SAMPLED_CLIPS = 1200, 6  # of a longer file so many clips are scored, unless a number is given
EMPTY = "the file is damaged, or shorter than it says"  # why a stretch of a sample may hold nothing
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
        sample: int | None = 0,
    ) -> ClipStream:
        """Probe `path` and return its clips, not decoded yet. Raises ConfigError, MediaError or LimitError.

        `start_seconds` is rounded to the nearest frame, so that frames and samples of a window are those of the file.
        `on_frames` is shown every batch of whole frames before its faces are sought; what it keeps it must copy.
        Tracks count from 1; without `audio_track` the one with speech is read (`avdetect.tracks`).
        `sample`: at most so many clips, spread evenly; 0: all; None: all, or SAMPLED_CLIPS of a stretch longer than
        LONG_SECONDS. A file that does not state its length gives all of them.
        """
        for name, value, least in (("start", start_seconds, 0), ("duration", duration_seconds, MIN_DURATION_SECONDS)):
            if value is not None and not least <= value < MAX_SECONDS:
                raise ConfigError(f"{name} must be a number of seconds from {least:g} to {MAX_SECONDS:g}, got {value}")
        for name, track in (("video", video_track), ("audio", audio_track)):
            if track is not None and track < 1:
                raise ConfigError(f"{name} tracks are counted from 1, got {track}")
        if sample is not None and sample < 0:
            raise ConfigError(f"sample must be a number of clips, 0 for all of them, got {sample}")
        began = time.perf_counter()
        tracks = {"video_track": video_track, "audio_track": audio_track}
        reader = MediaReader(path, self.config.media, self.limits, self.threads, **tracks)
        start_seconds = round(start_seconds * FPS) / FPS
        if audio_track is None and (spoken := spoken_track(reader, start_seconds, duration_seconds)) is not None:
            reader.choose_audio(spoken)
        stream = ClipStream(self, reader, start_seconds, duration_seconds, on_frames, sample)
        stream.timing_seconds["probe"] = time.perf_counter() - began
        return stream

    def clips(self, path: str | os.PathLike[str]) -> list[Clip]:
        """All clips of a (short) file at once."""
        with self.open(path) as stream:
            return list(stream)


class ClipStream:
    """The clips of one file, in order; decoding goes on while they are consumed, so memory stays bounded.

    `missing`, `warnings`, `judged` and `timing_seconds` are complete once the stream is exhausted. Close it (or use
    `with`) to end the decoder of a stream that is abandoned.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        reader: MediaReader,
        start: float,
        duration: float | None,
        on_frames: Callable[[VideoFrames], None] | None,
        sample: int | None = 0,
    ) -> None:
        self.config = preprocessor.config
        self.start_seconds = start
        self._most_seconds = preprocessor.limits.max_file_seconds
        self._deadline = time.monotonic() + self._most_seconds
        self._reader, self.info = reader, reader.info
        self._duration, self._on_frames = duration, on_frames
        self._step = round(self.config.clip_seconds * FPS)
        self.sampled = self._sample(sample)  # first frames of the clips, where they are not all
        self._judged: list[tuple[int, int]] = []  # first frame of each clip that came, and the one after its last
        self._faults: list[str] = []  # of windows whose video cannot be decoded
        self._broken: dict[str, MediaError] = {}  # "video"/"audio" -> why it cannot be decoded
        video, zero = self.info.video, self.info.start_seconds or 0.0
        origin = round((video.start_seconds - zero) * FPS) if video else 0  # the first picture, as the file states it
        self._tracker = FaceTracker(preprocessor.detector, self.config.faces, origin)
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

    def _sample(self, clips: int | None) -> tuple[int, ...]:
        seconds = self.expected_seconds or 0.0
        clips = SAMPLED_CLIPS * (seconds > LONG_SECONDS) if clips is None else clips
        count = math.ceil(seconds / self.config.clip_seconds)
        if not 0 < clips < count:
            return ()
        first = round(self.start_seconds * FPS)
        return tuple(first + self._step * ((2 * k + 1) * count // (2 * clips)) for k in range(clips))

    @property
    def selected_seconds(self) -> float | None:
        """How much of that is to be decoded and scored."""
        return sum(length for _, length in self.windows) or self.expected_seconds

    @property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """What is read, where that is not all: start and length in seconds."""
        last = self.start_seconds + (self.expected_seconds or 0.0)
        starts = [begin / FPS for begin in self.sampled]
        return tuple((start, min(self.config.clip_seconds, last - start)) for start in starts)

    @property
    def judged(self) -> tuple[tuple[float, float], ...]:
        """Start and end, in seconds, of what the windows were found to hold; (): all is read."""
        return tuple((begin / FPS, end / FPS) for begin, end in self._judged) if self.sampled else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        found = list(dict.fromkeys(self._reader.warnings))
        read, expected = self._read_seconds, self.expected_seconds or 0.0
        if read is not None and self._reader.damaged and not self.sampled and expected - read > MIN_LOST_SECONDS:
            found.insert(0, f"only {read:.1f} of {expected:.1f} s could be read")
        empty = len(self.sampled) - len(self._judged)
        if self.sampled and read is not None and empty:
            found.insert(0, f"{empty} of {len(self.sampled)} stretches hold nothing: {EMPTY}")
        found += self._faults
        for kind, error in self._broken.items():
            found.append(str(error) if kind in self._reader.empty else f"the {kind} cannot be decoded: {error}")
        if self._unseen_frames >= MIN_GAP_FRAMES:
            unseen = self._unseen_frames / FPS
            found.append(f"there is no picture for {unseen:.1f} s in between; nothing is judged there")
        return tuple(found)

    @property
    def missing(self) -> dict[str, str]:
        """Why "video" or "audio" gives the streams nothing; empty when both do."""
        silent = "" if self._heard else "silent"
        if self._audio_seconds < MIN_AUDIO_SECONDS:
            silent = f"less than {MIN_AUDIO_SECONDS} s of audio"
        found = {"video": "" if self._saw_face else self._no_face(), "audio": silent}
        for kind, stream in (("video", self.info.video), ("audio", self.info.audio)):
            if kind in self._broken or kind in self.info.unusable:
                empty = kind in self._reader.empty
                found[kind] = f"the {kind} track {NOTHING[kind]}" if empty else f"the {kind} cannot be decoded"
            elif stream is None:
                found[kind] = f"no {kind} stream"
        return {kind: reason for kind, reason in found.items() if reason}

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
        first = read = round(self.start_seconds * FPS)
        sounds = self._sounds()
        for begin, faces, video_end in self._faces(self.sampled or itertools.count(first, self._step)):
            waveform = next(sounds, None)
            audio_end = begin if waveform is None else begin + round(waveform.duration_seconds * FPS)
            end = max(video_end, audio_end)
            if end > begin:
                self._judged.append((begin, end))
                yield self._clip(begin, end, faces, waveform)
                read = end
            elif not self.sampled:
                break
        self._read_seconds = (read - first) / FPS
        if self.sampled and not self._judged:
            raise MediaError(
                f"{str(self.info.path)!r} holds nothing where it was sampled: {EMPTY}; judge what is there (--sample 0)"
            )
        if first and read == first:
            raise MediaError(f"{str(self.info.path)!r} ends before {self.start_seconds:g} s; begin earlier")

    def _clip(self, begin: int, end: int, faces: list[TrackedFace], waveform: Waveform | None) -> Clip:
        tracks = group_tracks(faces, self.config.faces)
        self._saw_face |= bool(tracks)
        if waveform is not None:
            self._audio_seconds += waveform.duration_seconds
            self._heard |= rms(waveform.samples) >= SILENCE_RMS
        return Clip(begin / FPS, (end - begin) / FPS, tracks, waveform)

    def _sounds(self) -> Iterator[Waveform]:
        """The sound of each clip; it is decoded from the first to the last, since no codec can begin in between."""
        if self.info.audio is not None:
            start, length = self._stretch()
            sounds = self._reader.audio(self.config.clip_seconds, start_seconds=start, duration_seconds=length)
            for waveform in self._read("audio", sounds):
                if not self.sampled or round(waveform.start_seconds * FPS) in self.sampled:
                    yield waveform

    def _pictures(self) -> Iterator[VideoFrames]:
        """Where an index leads to each clip, only they are decoded."""
        if not self.windows or not self._reader.seeks:
            start, length = self._stretch()
            for batch in self._reader.video(start_seconds=start, duration_seconds=length):
                yield from self._within(batch) if self.windows else (batch,)
            return
        for start, length in self.windows:
            self._check_time()
            try:
                yield from self._reader.video(start_seconds=start, duration_seconds=length)
            except LimitError:
                raise
            except MediaError as error:  # what is damaged there need not be elsewhere
                self._faults.append(f"the video cannot be decoded from {start:g} to {start + length:g} s: {error}")
                if len(self._faults) == len(self.windows):
                    self._faults = []
                    raise

    def _within(self, frames: VideoFrames) -> Iterator[VideoFrames]:
        """What of them lies in the clips."""
        for begin in self.sampled:
            start = max(begin, frames.first_frame)
            part = slice(start - frames.first_frame, max(0, begin + self._step - frames.first_frame))
            if len(i420 := frames.i420[part]):
                yield dataclasses.replace(frames, i420=i420, first_frame=start)

    def _stretch(self) -> tuple[float, float | None]:
        """Start and length, in seconds, of what holds all clips."""
        if not self.windows:
            return self.start_seconds, self._duration
        (first, _), (last, length) = self.windows[0], self.windows[-1]
        return first, last + length - first

    def _faces(self, begins: Iterable[int]) -> Iterator[tuple[int, list[TrackedFace], int]]:
        """For each clip: its first frame, its tracked faces, and the number of the frame after its last one."""
        pending: list[TrackedFace] = []
        seen, ended, started = 0, self.info.video is None, False
        stops: dict[int, int] = {}  # of the clips of a sample: the frame after the last one that was seen
        batches: Iterator[VideoFrames] = iter(()) if ended else self._read("video", self._pictures())
        for begin in begins:
            end = begin + self._step
            while not ended and seen < end + self._tracker.lag:
                batch = next(batches, None)
                began = time.perf_counter()
                if batch is None:
                    pending += self._tracker.flush()
                    ended = True
                else:
                    if not started and not self.start_seconds and not self.sampled:
                        self._tracker.origin = batch.first_frame  # some containers state another one
                    if video := self.info.video:
                        self._reduced = max(1.0, max(video.width, video.height) / max(batch.width, batch.height))
                    self._unseen_frames += max(0, batch.first_frame - seen) if started and not self.sampled else 0
                    started = True
                    if self._on_frames:
                        self._on_frames(batch)
                    pending += self._tracker.push(batch)
                    seen = batch.first_frame + len(batch)
                    stops |= {n: seen for n in self.sampled if n <= batch.first_frame < n + self._step}
                self.timing_seconds["faces"] += time.perf_counter() - began
            video_end = stops.get(begin, begin) if self.sampled else min(seen, end)
            yield begin, [face for face in pending if face.frame < end], video_end
            pending = [face for face in pending if face.frame >= end]

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
            self._check_time()
            yield item

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:  # a file that grows as it is read, or is slow to look at
            raise LimitError(
                f"{str(self.info.path)!r} is refused: it took more than {self._most_seconds:g} s; "
                "raise limits.max_file_seconds if you trust the file"
            )
