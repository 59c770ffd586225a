"""The process of one job: scores the upload, writes result and report into the job's folder, says how far it is.

It works inside that folder and knows the upload by a name of ours, so that no message can hold a path of the server.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect.batch.options import ScoringOptions
from avdetect.errors import AVDetectError, MediaError, ServerError
from avdetect.files import sync_folder, write_whole
from avdetect.jobs.pool import Item
from avdetect.jobs.process import Report, Work
from avdetect.report.data import to_json
from avdetect.serve.store import Job

if TYPE_CHECKING:
    from avdetect.detector import Observer
    from avdetect.media import MediaInfo
    from avdetect.scoring import StreamOutputs
    from avdetect.types import Clip, Detection, VideoFrames

UPLOAD, RESULT, REPORT = "upload", "detection.json", "report.html"  # the files of a job
BUG = "InternalError"  # the class of an error that is none of ours
BUG_MESSAGE = "a bug in avdetect stopped it; the server's log says more. Please report it with this file"
_SAY_SECONDS = 0.1  # between messages of progress
NICENESS = 10  # of a worker
_SUMMARY = (
    *("verdict", "reason", "fake", "video_fake", "audio_fake", "mismatch", "fake_threshold", "undecided_threshold"),
    *("duration_seconds", "limit"),
)
_log = logging.getLogger("avdetect.serve")

Say = Callable[[str, float], None]  # a stage, and how much of it is done (0..1)


@dataclass(frozen=True)
class Task:
    """What a worker is to do."""

    folder: Path  # holds UPLOAD
    name: str  # of the file, as its owner knows it
    options: ScoringOptions  # with the window
    threads: int


Score = Callable[[Task, Say], "tuple[Detection, str]"]  # the detection, and the report's HTML


def score_upload(task: Task, say: Say) -> tuple[Detection, str]:
    """Score `UPLOAD` in the current folder, and draw its report. Raises AVDetectError."""
    import cv2

    from avdetect.report.page import render_page
    from avdetect.report.recorder import Recorder

    cv2.setNumThreads(1)  # its tasks are too small to be shared: threads would mostly wait
    options, detector = task.options, task.options.load(task.threads)
    say("reading", 0.0)
    recorder = Recorder(options.duration_seconds, options.sample)
    watched = Watched(recorder, say, options.start_seconds, options.duration_seconds)
    detection = named(detector.score(UPLOAD, **options.part, observer=watched), task.name)
    say("explaining", 0.0)
    return detection, render_page(recorder.evidence(detector, detection))


class Watched:
    """An observer that says how much of the file has been seen, and passes all on to `inner`."""

    def __init__(self, inner: Observer, say: Say, start_seconds: float, duration_seconds: float | None) -> None:
        self._inner, self._say = inner, say
        self._start, self._total = start_seconds, duration_seconds
        self._said = 0.0

    def opened(self, info: MediaInfo) -> None:
        if info.duration_seconds is not None:
            left = max(0.0, info.duration_seconds - self._start)
            self._total = left if self._total is None else min(left, self._total)
        self._say("scoring", 0.0)
        self._inner.opened(info)

    def frames(self, frames: VideoFrames) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_SECONDS:
            self._said = now
            self._seen(frames.start_seconds)
        self._inner.frames(frames)

    def scored(self, clip: Clip, outputs: StreamOutputs) -> None:
        self._seen(clip.start_seconds + clip.duration_seconds)
        self._inner.scored(clip, outputs)

    def _seen(self, until: float) -> None:
        if self._total:
            self._say("scoring", min(1.0, max(0.0, (until - self._start) / self._total)))


def named(detection: Detection, name: str) -> Detection:
    """The detection of `UPLOAD` as one of the file that its owner knows as `name`."""
    warnings = tuple(_renamed(warning, name) for warning in detection.warnings)
    return dataclasses.replace(detection, path=name, warnings=warnings)


def job_item(folder: Path, job: Job) -> Item:
    """The job for the pool, whose tasks are `scoring`."""
    window = {"start_seconds": job.start_seconds, "duration_seconds": job.duration_seconds}
    return Item(job.id, {"folder": str(folder), "name": job.name, "window": window})


def scoring(score: Score, options: ScoringOptions, threads: int) -> Work:
    """The task of a worker. Its answer is {"done": summary} or {"failed": class, "message": …, "detail": …}; its
    progress {"stage": …, "progress": share}. It steps back behind the server, which answers while files are scored.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), NICENESS))

    def work(value: Any, report: Report) -> dict[str, Any]:
        said: tuple[str, float] = ("", 0.0)

        def say(stage: str, share: float) -> None:
            nonlocal said  # progress never runs backwards: frames are decoded ahead of the clip that is scored
            said = (stage, max(share, said[1]) if stage == said[0] else share)
            report({"stage": stage, "progress": said[1]})

        task = Task(Path(value["folder"]), value["name"], dataclasses.replace(options, **value["window"]), threads)
        try:
            os.chdir(task.folder)
            say("starting", 0.0)
            detection, page = score(task, say)
            for name, text in ((RESULT, to_json([detection])), (REPORT, page)):
                write_whole(Path(name), text.encode(), sync=True)
            sync_folder(Path())
            return {"done": {name: getattr(detection, name) for name in _SUMMARY}}
        except MemoryError:
            raise  # the job is tried in another process
        except Exception as error:
            kind, message = _said_of(error, task.name)
            return {"failed": kind, "message": message, "detail": f"{type(error).__name__}: {error}"}

    return work


def _said_of(error: Exception, name: str) -> tuple[str, str]:
    """Class and message for the client, who may learn about the file only."""
    if isinstance(error, MediaError):
        return type(error).__name__, _renamed(str(error), name)
    if isinstance(error, AVDetectError):
        return type(error).__name__, "the server is not set up to score: its owner finds the reason in its log"
    if isinstance(error, OSError):
        return ServerError.__name__, f"the server cannot keep the result ({error.strerror})"
    _log.error("a bug in avdetect", exc_info=error)
    return BUG, BUG_MESSAGE


def _renamed(text: str, name: str) -> str:
    return text.replace(repr(UPLOAD), repr(name))
