"""What a report shows beside the Detection: pictures, curves and facts, kept while the file was scored.

`recorder.Recorder` gathers it, `page` draws it. Pictures are encoded already, and all of it together stays
within a few megabytes however long the file is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from avdetect.types import Detection, StreamName

Peaks = tuple[tuple[float, float], ...]  # (lowest, highest) sample of each of so many equal stretches, in [-1, 1]


@dataclass(frozen=True)
class Picture:
    """An encoded picture."""

    mime: str  # image/jpeg or image/png
    data: bytes = field(repr=False)
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """The whole upright picture at a time, reduced."""

    seconds: float
    picture: Picture


@dataclass(frozen=True)
class Moment:
    """A face crop that its stream found most, or least, suspicious in its track."""

    track_id: int
    kind: Literal["most", "least"]
    seconds: float
    probability: float  # P(video_fake), if all of the file were like this crop
    crop: Picture


@dataclass(frozen=True)
class Sound:
    """The whole soundtrack that was scored."""

    start_seconds: float
    duration_seconds: float
    mel: Picture  # log-mel spectrogram: time to the right over exactly this duration, low frequencies at the bottom
    peaks: Peaks


@dataclass(frozen=True)
class SyncPoint:
    """Lip-sync around one second; there is none where there are too few pairs."""

    seconds: float  # the middle
    offset_seconds: float  # > 0: the audio lags the video
    confidence: float  # median minus minimum of the mean distance over offsets


@dataclass(frozen=True)
class SyncCurve:
    track_id: int
    points: tuple[SyncPoint, ...]


@dataclass(frozen=True)
class MouthStrip:
    """Mouths beside each other, and the sound under them, where the match was worst."""

    track_id: int
    start_seconds: float
    duration_seconds: float
    picture: Picture  # `count` mouths from left to right, evenly over the duration
    count: int
    peaks: Peaks  # of the sound in the same stretch
    offset_seconds: float  # of this stretch
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """All that a report is made of."""

    detection: Detection
    facts: Mapping[str, str]  # what the file says of itself: "frame rate" -> "25 a second"
    frames: tuple[Frame, ...]  # evenly over what was scored
    moments: tuple[Moment, ...]  # two or fewer a kind and track, tracks in the order of their suspicion
    sound: Sound | None
    sync: tuple[SyncCurve, ...]
    mouths: MouthStrip | None
    limits: tuple[str, ...]  # of the model, a sentence each, from its card
    levels: Mapping[StreamName, float]  # of the curve's probability from which on a stretch is marked
    crop_seconds: float  # from one picture of a face to the next
    asked_seconds: float | None = None  # how much of the file was asked for; None: to its end
    asked_sample: int | None = None  # how many clips of it; None: as its length says
