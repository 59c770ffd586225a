"""The values that flow from file to verdict. Frozen; they check their shapes and print them, never the data.

Conventions (DESIGN): boxes XYXY in pixels; time in seconds on one clock that starts at the container's time zero (the
earliest timestamp of any stream); label 1 = fake and a higher score = more fake; `offset_seconds` > 0 means that the
audio lags the video.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def exact_div(a: int, b: int) -> int:
    """a / b where b must divide a."""
    if a % b:
        raise ValueError(f"{b} does not divide {a}")
    return a // b


FPS = 25  # video frames a second, after demuxing
SAMPLE_RATE = 16_000  # audio samples a second, after demuxing
HOP = 160  # audio samples a log-mel frame
SAMPLES_PER_FRAME = exact_div(SAMPLE_RATE, FPS)  # 640
MELS_PER_FRAME = exact_div(SAMPLES_PER_FRAME, HOP)  # 4 log-mel frames a video frame

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

# RGB = YUV_TO_RGB[matrix] @ (Y - 16, U - 128, V - 128), limited range, from the luma weights of ITU-R BT.601/709/2020.
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


def yuv_to_rgb_matrix(name: str, full_range: bool) -> Float:
    """(3, 4) affine map from 8-bit (Y, U, V, 1) to RGB in 0..255 for `name` in bt601, bt709, bt2020."""
    kr, kb = _LUMA[name]
    kg = 1 - kr - kb
    chroma = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    scale = np.array([1, 1, 1]) if full_range else np.array([255 / 219, 255 / 224, 255 / 224])
    linear = chroma * scale
    offset = -linear @ np.array([0 if full_range else 16, 128, 128])
    return np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32)


@dataclass(frozen=True, repr=False)
class VideoFrames:
    """T consecutive frames at 25 fps, kept as the decoder's planar YUV 4:2:0 (RGB is made of crops only: converting
    whole 1080p frames costs more CPU than everything that follows)."""

    i420: UInt8  # (T, H * 3 // 2, W): Y rows, then the U and V planes; H and W even
    first_frame: int  # frame i is shown at (first_frame + i) / 25 seconds
    color_matrix: str = "bt601"  # bt601, bt709 or bt2020
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.i420.dtype != np.uint8 or self.i420.ndim != 3:
            raise ValueError(f"i420 must be (T, H*3//2, W) uint8, got {self.i420.shape} {self.i420.dtype}")
        if self.i420.shape[1] % 3 or self.height % 2 or self.width % 2:
            raise ValueError(f"height and width must be even, got {self.height} x {self.width}")

    def __len__(self) -> int:
        return self.i420.shape[0]

    def __repr__(self) -> str:
        return f"VideoFrames({len(self)} x {self.height} x {self.width} from {self.start_seconds:.2f} s)"

    @property
    def height(self) -> int:
        return self.i420.shape[1] * 2 // 3

    @property
    def width(self) -> int:
        return self.i420.shape[2]

    @property
    def start_seconds(self) -> float:
        return self.first_frame / FPS

    def planes(self, index: int) -> tuple[UInt8, UInt8, UInt8]:
        """Views: Y (H, W), U and V (H/2, W/2)."""
        height, width, frame = self.height, self.width, self.i420[index]
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        return frame[:height], chroma[0], chroma[1]


@dataclass(frozen=True, repr=False)
class Waveform:
    """Mono audio at 16 kHz. Sample 0 stands at `start_seconds`."""

    samples: Float  # (num_samples,); full scale is [-1, 1], and float sound may exceed it: up to 16 (+24 dB)
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(f"samples must be (num_samples,) float32, got {self.samples.shape} {self.samples.dtype}")

    def __repr__(self) -> str:
        return f"Waveform({self.duration_seconds:.2f} s from {self.start_seconds:.2f} s)"

    @property
    def duration_seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, repr=False)
class FaceTrack:
    """One person's face through (part of) a shot. Mouth crops cover every frame; face crops a few a second."""

    track_id: int  # unique in a file; a track that spans two clips keeps its id
    first_frame: int  # mouth crop i is shown at (first_frame + i) / 25 seconds
    mouth_crops: UInt8  # (T, M, M) luma, aligned by the landmarks
    face_crops: UInt8  # (F, S, S, 3) RGB
    face_frames: NDArray[np.int64]  # (F,) frame number of each face crop, on the file's clock
    boxes: Float  # (F, 4) XYXY in pixels of the upright frame, the detected face before the margin
    landmarks: Float  # (F, 5, 2) eyes, nose, mouth corners, in pixels of the upright frame
    confidences: Float  # (F,) detector's confidence

    def __post_init__(self) -> None:
        count = len(self.face_frames)
        if self.mouth_crops.ndim != 3 or self.face_crops.ndim != 4 or self.face_crops.shape[-1] != 3:
            raise ValueError(f"bad crops: mouth {self.mouth_crops.shape}, face {self.face_crops.shape}")
        if not len(self.face_crops) == len(self.boxes) == len(self.landmarks) == len(self.confidences) == count:
            raise ValueError("face_crops, face_frames, boxes, landmarks and confidences differ in length")

    def __repr__(self) -> str:
        return (
            f"FaceTrack(id={self.track_id}, {self.start_seconds:.2f}-{self.end_seconds:.2f} s, "
            f"{len(self.face_crops)} face crops {self.face_crops.shape[1]} px)"
        )

    @property
    def start_seconds(self) -> float:
        return self.first_frame / FPS

    @property
    def end_seconds(self) -> float:
        return (self.first_frame + len(self.mouth_crops)) / FPS


@dataclass(frozen=True, repr=False)
class Clip:
    """A window of one file, ready for the model: uint8 crops and waveform on one clock."""

    start_seconds: float
    duration_seconds: float
    tracks: tuple[FaceTrack, ...]
    waveform: Waveform | None

    def __repr__(self) -> str:
        return f"Clip({self.start_seconds:.2f} s + {self.duration_seconds:.2f} s, {self.tracks}, {self.waveform})"


StreamName = Literal["visual", "audio", "sync"]
Verdict = Literal["fake", "undecided", "no sign found", "abstain"]


@dataclass(frozen=True)
class Rate:
    """How many files of sources that training left out reach a probability. Every source weighs alike."""

    probability: float
    reals: float  # at most this share of the real files (of real faces, of real voices ...)
    fakes: float  # this share of the fakes


@dataclass(frozen=True)
class Curve:
    """A score over time: `values[i]` is the mean over the second whose middle is `times_seconds[i]`."""

    times_seconds: tuple[float, ...]
    values: tuple[float, ...]
    score: float  # of the whole curve, on the scale of its stream
    track_id: int | None = None  # None for audio
    # Visual and audio: P(video_fake) or P(audio_fake), if a long file were all like that second; sync: empty.
    probabilities: tuple[float, ...] = ()
    probability: float | None = None  # the same of the whole curve


@dataclass(frozen=True)
class StreamScore:
    """What one stream says of a file."""

    name: StreamName
    score: float  # visual and audio: pooled logit, higher = more fake; sync: mean distance at offset 0 (0..2)
    curves: tuple[Curve, ...]  # per second, one a face track; for audio one curve


@dataclass(frozen=True)
class SyncScore:
    """Lip-sync of the best-measured track (SyncNet's quantities; Chung & Zisserman, 2016)."""

    offset_seconds: float  # > 0: the audio lags the video
    confidence: float  # median minus minimum of the mean distance over offsets
    min_distance: float  # the mean distance at the best offset (avdetect.pooling.sync_distances)
    track_id: int


@dataclass(frozen=True)
class TrackSummary:
    """Who `track_id` is: where and when a face was followed."""

    track_id: int
    start_seconds: float
    end_seconds: float
    box: tuple[float, float, float, float]  # XYXY in pixels of the upright frame, median over the track


@dataclass(frozen=True)
class FacesSeen:
    """How many faces there were, and how many of them were judged."""

    seen: int  # the most in one picture, of those that are large enough
    judged: int  # of them: the largest, at most `FaceConfig.max_faces`, and not those whose mouth is hidden
    too_small_pixels: int | None = None  # side of the largest face that is too small to judge, in the file's pixels
    needed_pixels: int | None = None  # the side that it would need


@dataclass(frozen=True)
class MediaTracks:
    """Which of the file's tracks were judged, counted from 1 as players do."""

    video: int | None  # None: none is read
    videos: int  # how many the file has
    audio: int | None
    audios: int
    speech_seconds: float  # in the sound that was judged


@dataclass(frozen=True)
class Segment:
    """A stretch of the file that looks manipulated, from a stream's per-second curve."""

    start_seconds: float
    end_seconds: float
    stream: StreamName
    score: float  # mean of the curve inside, on the scale of its stream
    track_id: int | None = None  # None for audio


@dataclass(frozen=True)
class Detection:
    """The verdict on one file."""

    path: str
    verdict: Verdict
    reason: str  # one sentence
    fake: float | None  # calibrated probability that anything was manipulated; None when abstaining
    video_fake: float | None  # … that the face was; None when no visual evidence exists
    audio_fake: float | None  # … that the voice was; None when no audio evidence exists
    mismatch: float | None  # … that these lips do not speak this voice; None when no match could be judged
    fake_threshold: float  # `fake` at or above it: the verdict is "fake"
    undecided_threshold: float  # `fake` at or above it, and below the other: "undecided"
    start_seconds: float  # what was scored: from here …
    duration_seconds: float  # … for so long
    sync: SyncScore | None
    streams: tuple[StreamScore, ...]
    tracks: tuple[TrackSummary, ...]
    segments: tuple[Segment, ...]  # in the order of their start; see verdict.judge
    missing: Mapping[str, str]  # stream -> why it says nothing
    warnings: tuple[str, ...]
    model: Mapping[str, str]  # bundle and its digest, avdetect's version, preprocessing hash, face detector, provider
    timing_seconds: Mapping[str, float]  # wall seconds by stage; stages run beside each other, `networks` in two halves
    faces: FacesSeen | None = None  # None: no picture was looked at
    media: MediaTracks | None = None  # None: the result is of an older version
    # Of each probability that was judged, the rarest measured rate that it reaches; without those not measured.
    rates: Mapping[str, Rate] = field(default_factory=dict)
    windows: tuple[tuple[float, float], ...] = ()  # start and end of what was scored, in seconds; (): all of it
    limit: str = ""  # the first sentence of the model's limits, to be shown beside every verdict
