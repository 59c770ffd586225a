"""Media files in, frames and samples out, on one clock: the only way in. Hostile input stops here.

One other place runs ffmpeg, and to write: `datasets.encode` (forged files, codecs, re-encoded copies). It gives it our
own frames and samples, or a file that was probed here, by the same closed formats.

The clock. Time 0 is the container's time zero: the earliest start of the streams, as ffmpeg shifts it by default; what
an encoder put before it (the priming of AAC or Opus) is dropped. Frame n is shown at n / 25 s and sample n at
n / 16000 s, whatever the frame rate, the edit lists or the start of either stream.

The children. PyAV describes a file in a process of its own, which may lie (`_media.facts` checks it). Each iterator
runs one ffmpeg at a time: an argument list, no shell, its own session, bounded memory and CPU seconds. Both read
/proc/self/fd/N, a regular file that this process opened and checked, so that no name can be taken for an option, an
address or a pattern; by the file protocol and formats that name no other file. They die when the iterator is closed; if
this process is killed outright, by a broken pipe or their CPU limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.channels import Mix, piped_channels
from avdetect._media.commands import PASSED, SEEKABLE, start_audio, start_video
from avdetect._media.ffmpeg import Decoder, decoder_threads
from avdetect._media.info import AudioStream, MediaInfo, VideoStream, chosen, passed_over, ranked
from avdetect._media.messages import quoted
from avdetect._media.probe import read_info
from avdetect._media.sandbox import sandbox
from avdetect._media.tool import check_ffmpeg, ffmpeg_path
from avdetect.config import MediaConfig, MediaLimits
from avdetect.errors import MediaError
from avdetect.types import FPS, SAMPLE_RATE, VideoFrames, Waveform

__all__ = [
    "AudioStream",
    "MediaInfo",
    "MediaReader",
    "VideoStream",
    "check_ffmpeg",
    "ffmpeg_path",
    "probe",
    "ranked",
    "sandbox",
]

NOTHING = {"video": "gives no picture", "audio": "gives no sound"}  # a track that decodes to nothing
# One slash: a Path leaves no more of them.
_ADDRESS = re.compile(r"(https?|ftps?|sftp|scp|rts?ps?|rtmp[a-z]*|mmsh?|udp|tcp|srt|rist|s3|gs|az|hdfs|magnet):/", re.I)


def probe(path: str | os.PathLike[str], limits: MediaLimits | None = None) -> MediaInfo:
    """What a file holds, without decoding more than its first pictures and samples.

    Raises MediaError if it is not a readable regular file, is empty, encrypted, in a refused format, or holds neither
    audio nor video; LimitError if it exceeds `limits`; ToolError if PyAV cannot run.
    """
    return read_info(_local(path), limits or MediaLimits())


def _local(path: str | os.PathLike[str]) -> Path:
    text = os.fsdecode(path)
    if text.lower().startswith("file:/"):
        raise MediaError(f"{text!r} is an address; addresses are not opened: give the path alone")
    if _ADDRESS.match(text):
        raise MediaError(f"{text!r} is an address; addresses are not opened: download it first")
    return Path(text)


class MediaReader:
    """Frames and samples of one file, on one clock, decoded as they are asked for.

    The constructor probes the file (errors as `probe`). `video_track` and `audio_track` choose among several, counted
    from 1 as players do (MediaError for one that is not there); without them the best that can be decoded is read.

    Use it as a context manager, or call `close`: that ends ffmpeg. `warnings` grows with what is survived: a sentence
    for each track that was passed over, and for the damage in each half of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: MediaConfig | None = None,
        limits: MediaLimits | None = None,
        threads: int | None = None,
        *,
        video_track: int | None = None,
        audio_track: int | None = None,
    ) -> None:
        self.config, self.limits = config or MediaConfig(), limits or MediaLimits()
        self._threads = decoder_threads(threads)
        self.info = read_info(_local(path), self.limits, video_track, audio_track)
        self.warnings = [f"{name}: it cannot be decoded: {problem}" for name, problem in self.info.unusable.items()]
        if self.info.video and video_track is None:
            self.warnings += passed_over("video", self.info.videos, self.info.video)
        if self.info.audio and audio_track is None:
            self.warnings += passed_over("audio", self.info.audios, self.info.audio)
        self.empty: set[str] = set()  # "video"/"audio": its track was decoded without a complaint and gave nothing
        self.damaged = False  # whether one of the warnings is of damage
        self._iterators: list[Generator[Any]] = []

    @property
    def seeks(self) -> bool:
        """Whether a window of the video is decoded from near its start: there is an index that leads there."""
        return self.info.container in SEEKABLE

    def choose_audio(self, track: int) -> None:
        """Read audio track `track` (from 1) instead of the one that was chosen. Raises MediaError."""
        before, audio = self.info.audio, chosen(self.info.audios, track, "audio")
        if before is None or audio is None or audio is before:
            return
        outdated = passed_over("audio", self.info.audios, before)
        self.warnings = [warning for warning in self.warnings if warning not in outdated]
        self.warnings += passed_over("audio", self.info.audios, audio)
        self.info = replace(self.info, audio=audio)

    def __enter__(self) -> MediaReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End ffmpeg. Safe to call twice."""
        while self._iterators:
            self._iterators.pop().close()

    def video(
        self, *, start_seconds: float = 0.0, duration_seconds: float | None = None, batch: int = 5
    ) -> Iterator[VideoFrames]:
        """Frames at 25 fps, `batch` at a time (the first and last may be fewer): upright, deinterlaced, of square
        pixels, with even sides of at most `config.max_side`. HDR is not tone-mapped.

        A window gives exactly the frames that a whole read gives there; none stands before the first real frame.
        Damage gives fewer frames and a warning. Raises MediaError if there is no video; while iterating MediaError if
        none of it can be decoded, LimitError, and ToolError if ffmpeg cannot run.
        """
        self._check("video", self.info.video, "audio")
        assert self.info.video is not None
        first = round(start_seconds * FPS)
        stop = None if duration_seconds is None else first + round(duration_seconds * FPS)
        self._iterators.append(self._video(self.info.video, first, stop, batch))
        return self._iterators[-1]

    def audio(
        self,
        chunk_seconds: float,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
        track: int | None = None,
    ) -> Generator[Waveform]:
        """Mono 16 kHz audio in consecutive chunks of `chunk_seconds` (the last may be shorter), of the chosen track or
        of audio track `track` (from 1). `_media.channels` makes one of several channels.

        The first chunk stands at `start_seconds`: audio that starts later, and gaps, are zeros. A window gives exactly
        the samples that a whole read gives there: audio is always decoded from the start (a CPU second for ten
        minutes), since codecs carry state. Damage gives fewer samples and a warning. Raises as `video`.
        """
        audio = self.info.audio if track is None else chosen(self.info.audios, track, "audio")
        self._check("audio", audio, "video")
        assert audio is not None
        first, chunk = round(start_seconds * SAMPLE_RATE), round(chunk_seconds * SAMPLE_RATE)
        stop = None if duration_seconds is None else first + round(duration_seconds * SAMPLE_RATE)
        self._iterators.append(self._audio(audio, first, stop, chunk))
        return self._iterators[-1]

    def _check(self, name: str, stream: VideoStream | AudioStream | None, other: str) -> None:
        problem = self.info.unusable.get(name) if stream is None else stream.problem
        if problem:
            raise MediaError(f"{quoted(self.info.path)}: the {name} cannot be decoded: {problem}")
        if stream is None:
            raise MediaError(f"{quoted(self.info.path)} has no {name} stream; use its {other} alone")

    def _video(self, video: VideoStream, first: int, stop: int | None, batch: int) -> Generator[VideoFrames]:
        # One second early for reordered frames; whole seconds are exact in any time base, so a window rounds alike.
        origin = max(0, first // FPS - 1) if self.seeks else 0
        threads, position, waited = self._threads, first, 0.0
        while True:
            with Decoder(self.info.path, self.limits, "video", threads, waited) as child:
                position, fault = yield from self._frames(child, video, origin, position, stop, batch)
                waited = child.waited
            if fault is None:
                return
            origin, threads = (0, threads) if fault == "late" else (origin, 1)

    def _frames(
        self, child: Decoder, video: VideoStream, origin: int, first: int, stop: int | None, batch: int
    ) -> Generator[VideoFrames, None, tuple[int, str | None]]:
        """The frames from `first` on, as `child` decodes them; the number of the next one, and why they must be had in
        another way: "late", the index led past `first`; "damage", which several threads conceal as chance has it, with
        what they find half decoded. ffmpeg complains before it shows what it made of the damage. So a damaged file is
        decoded a second time up to that place, and from there on by one thread."""
        size = start_video(child, self.info, video, self.config, origin)
        full_range = video.full_range and video.pix_fmt in PASSED
        begun = False
        for number, frames in child.pictures(*size, batch):
            number += origin * FPS
            if not begun and origin and number > first:
                return first, "late"
            begun = True
            if child.threads > 1 and child.complains():
                return first, "damage"
            child.check_duration(number / FPS)
            window = frames[max(first - number, 0) : None if stop is None else max(stop - number, 0)]
            if len(window):
                first = max(first, number)
                yield VideoFrames(window, first, video.color_matrix, full_range)
                first += len(window)
            if stop is not None and number + len(frames) >= stop:
                break
        if not begun and origin:
            return first, "late"  # the index led to nothing: read from the start
        if child.exhausted:
            child.finish()
        if child.threads > 1 and child.complains():
            return first, "damage"
        if not begun:
            raise self._nothing("video", child)
        if child.exhausted or child.complains():  # of what came until the window's end
            self._note("video", child)
        return first, None

    def _audio(self, audio: AudioStream, first: int, stop: int | None, chunk: int) -> Generator[Waveform]:
        position = 0
        with Decoder(self.info.path, self.limits, "audio") as child:
            start_audio(child, self.info, audio)
            mix = Mix(child.fill, piped_channels(audio))
            while stop is None or position < stop:
                # What lies before the window is read and dropped, so that the stall clock sees the progress.
                end = position + chunk if position >= first else min(first, position + chunk)
                samples = np.empty((end if stop is None else min(end, stop)) - position, np.float32)
                count = mix.read(samples)
                if count and position >= first:
                    yield Waveform(samples[:count], position / SAMPLE_RATE)
                position += count
                child.check_duration(position / SAMPLE_RATE)
                if count < len(samples):
                    child.finish()
                    if not position:
                        raise self._nothing("audio", child)
                    self._note("audio", child)
                    return

    def _nothing(self, name: str, child: Decoder) -> MediaError:
        """Why there is none of it. Raises ToolError if the fault is ffmpeg's own."""
        error = child.failure()
        if child.status != 0 or child.log.errors:
            return error
        self.empty.add(name)
        why = f"the {name} track {NOTHING[name]}: it is empty, or holds no {name}"
        return MediaError(f"{quoted(self.info.path)}: {why}")

    def _note(self, name: str, child: Decoder) -> None:
        if damage := child.log.damage(child.status):
            self.damaged = True
            self.warnings.append(f"{name}: {damage}")
