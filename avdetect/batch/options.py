"""How files are scored: what a worker needs to begin, and what a journal is bound to."""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avdetect._version import __version__
from avdetect.config import MediaLimits
from avdetect.errors import AVDetectError, ConfigError
from avdetect.report.data import Failure, Result, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from avdetect.detector import Detector
    from avdetect.jobs.process import Work

    Scorer = Callable[[str], Result]  # a file's name -> what became of it


@dataclass(frozen=True)
class ScoringOptions:
    """The options of `avdetect score` that change a result."""

    bundle: Path | None = None  # None: the default one
    device: str = "auto"
    detector: str | None = None  # of faces; None: the bundle's
    face_model: Path | None = None
    limits: MediaLimits = field(default_factory=MediaLimits)
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    sample: int | None = None  # clips; 0: all; None: all but of a long file
    video_track: int | None = None  # from 1; None: the best one
    audio_track: int | None = None  # … the one with speech

    @property
    def part(self) -> dict[str, Any]:
        """What of a file is scored, as `Detector.score` takes it."""
        names = ("start_seconds", "duration_seconds", "sample", "video_track", "audio_track")
        return {name: getattr(self, name) for name in names}

    def load(self, threads: int | None = None) -> Detector:
        """The detector. Raises ModelError, ConfigError."""
        from avdetect.detector import load_detector

        return load_detector(
            self.bundle,
            device=self.device,
            face_detector=self.detector,
            face_model=self.face_model,
            limits=self.limits,
            threads=threads,
        )

    def scorer(self, threads: int) -> Scorer:
        """What scores one file after the other, in this process. Raises ModelError, ConfigError."""
        import cv2

        cv2.setNumThreads(1)  # its tasks are too small to be shared: threads would mostly wait
        detector = self.load(threads)
        return lambda path: attempt(path, lambda: detector.score(path, **self.part))

    def scorer_like(self, identity: dict[str, Any], threads: int) -> Scorer:
        """`scorer`, on another machine. Raises ConfigError where that machine would not score as `identity` says."""
        from avdetect.media import ffmpeg_path

        ffmpeg_path()  # without it every file would fail
        here = self.identity()
        differing = [f"{key}: {here[key]} there, {identity[key]} here" for key in here if here[key] != identity[key]]
        if differing:
            raise ConfigError(
                f"{socket.gethostname()} would score otherwise than this machine ({'; '.join(differing)}): give all "
                "machines one avdetect, and one place for what --bundle and --face-model name"
            )
        return self.scorer(threads)

    def identity(self) -> dict[str, Any]:
        """What two runs must share for their results to stand in one table. Raises ModelError, ConfigError. Names of
        files do not count, their content does."""
        from avdetect.bundle import Bundle, execution_providers
        from avdetect.faces import build_detector

        if self.face_model is not None and self.detector is None:
            raise ConfigError("a face model needs the detector that it is for: scrfd or mtcnn (--detector)")
        bundle, providers = Bundle.load(self.bundle), tuple(execution_providers(self.device))
        name = self.detector or bundle.info.preprocess.detector
        faces = build_detector(name, path=self.face_model, providers=providers)
        return {
            "avdetect": __version__,
            "bundle": bundle.digest,
            "faces": f"{faces.name} {faces.fingerprint}",
            "device": providers[0],
            "start": self.start_seconds,
            "duration": self.duration_seconds,
            "sample": self.sample,
            "video track": self.video_track,
            "audio track": self.audio_track,
            "limits": dataclasses.asdict(self.limits),
        }


def threads_of(workers: int) -> int:
    """How many threads each of so many workers of this machine gets: few, for the networks are small."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // workers))


def scoring(begin: Callable[[], Scorer]) -> Work:
    """A scorer as the task of a worker: names of files in, `report.data.to_dict` out."""
    score = begin()
    return lambda path, report: to_dict(score(path))


def attempt(path: str, score: Callable[[], Result]) -> Result:
    """What `score` gives for the file at `path`, or the Failure. Raises ConfigError: that is no file's fault."""
    try:
        return score()
    except (ConfigError, MemoryError):
        raise
    except AVDetectError as error:
        return Failure(path, type(error).__name__, str(error))
    except Exception as error:  # a bug of ours must not cost the files that were scored
        message = f"{type(error).__name__}: {error} (a bug in avdetect: please report it with this file)"
        return Failure(path, "InternalError", message)
