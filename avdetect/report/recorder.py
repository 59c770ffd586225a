"""Keeps, while a file is scored, what its report will show: some ten megabytes, however long the file is.

recorder = Recorder()
detection = detector.score(path, observer=recorder)
evidence = recorder.evidence(detector, detection)
"""

from functools import partial

from avdetect.detector import Detector
from avdetect.media import MediaInfo
from avdetect.report.evidence import Evidence
from avdetect.report.facts import media_facts
from avdetect.report.match import MouthKeeper, sync_curves
from avdetect.report.moments import MomentKeeper
from avdetect.report.pictures import FrameStrip
from avdetect.report.sound import SoundStrip
from avdetect.scoring import StreamOutputs
from avdetect.segments import HIGH
from avdetect.types import FPS, Clip, Detection, VideoFrames

_LIMITS, _LIMIT_LENGTH = 12, 500  # shown of what a bundle says of itself: it may come from anybody


class Recorder:
    """An `avdetect.detector.Observer`, for one file: at the second one it raises ValueError."""

    def __init__(self, duration_seconds: float | None = None, sample: int | None = None) -> None:
        """What `Detector.score` is given, for the command that the report names."""
        self._asked_seconds, self._asked_sample = duration_seconds, sample
        self._info: MediaInfo | None = None
        self._outputs = StreamOutputs()
        self._frames, self._sound = FrameStrip(), SoundStrip()
        self._moments, self._mouths = MomentKeeper(), MouthKeeper()

    def opened(self, info: MediaInfo) -> None:
        if self._info is not None:
            raise ValueError("a Recorder is for one file: make another for the next")
        self._info = info

    def frames(self, frames: VideoFrames) -> None:
        self._frames.add(frames)

    def scored(self, clip: Clip, outputs: StreamOutputs) -> None:
        self._outputs = outputs
        self._moments.add(clip, outputs)
        self._mouths.add(clip, outputs)
        if clip.waveform is not None:
            self._sound.add(clip.waveform)

    def evidence(self, detector: Detector, detection: Detection) -> Evidence:
        """What a report shows of the file; `detection` is what `detector.score` returned for it. Raises ValueError
        before a file."""
        if self._info is None:
            raise ValueError("nothing was scored: pass this recorder to Detector.score as its observer")
        outputs = self._outputs
        return Evidence(
            detection=detection,
            facts=media_facts(self._info),
            frames=self._frames.frames(),
            moments=self._moments.moments(outputs, partial(detector.cause_probabilities, "visual")),
            sound=self._sound.sound(),
            sync=sync_curves(outputs),
            mouths=self._mouths.strip(outputs),
            limits=tuple(limit[:_LIMIT_LENGTH] for limit in detector.bundle.info.limits[:_LIMITS]),
            levels={name: detector.cause_probabilities(name, [level])[0] for name, level in HIGH.items()},
            crop_seconds=detector.bundle.info.preprocess.faces.crop_every / FPS,
            asked_seconds=self._asked_seconds,
            asked_sample=self._asked_sample,
        )
