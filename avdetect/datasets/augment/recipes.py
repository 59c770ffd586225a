"""What a platform makes of an upload: codec, quality, resolution and frame rate of the picture, codec and bit rate of
the sound; and the encoders' options that go with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from avdetect.datasets.augment.tool import ONE_THREAD
from avdetect.errors import ConfigError

VideoName = Literal["libx264", "libx265", "libvpx-vp9"]
AudioName = Literal["aac", "libopus", "libmp3lame"]

# Encoder -> its options. libx264's ultrafast would leave out the deblocking and CABAC that every real video has.
_VIDEO_OPTIONS: dict[str, dict[str, Any]] = {
    "libx264": {"preset": "superfast"},
    "libx265": {"preset": "superfast", "x265-params": "log-level=error:pools=none:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": 8, "lag-in-frames": 0, "video_bitrate": 0},
}
MAX_CRF = {"libx264": 51, "libx265": 51, "libvpx-vp9": 63}
# kbit/s. LAME has no less at 48 kHz, libopus no more for one channel.
BIT_RATES = {"aac": (16, 256), "libopus": (8, 256), "libmp3lame": (32, 320)}

CODEC_RATE = 48_000  # Hz; the sound of video files, and libopus's own
SMALLEST_SIDE = 32  # pixels; libx265 takes no less than one coding block


@dataclass(frozen=True)
class VideoCodec:
    """How a picture is encoded."""

    name: VideoName
    crf: int  # constant rate factor, higher = worse: libx264 and libx265 0..51, libvpx-vp9 0..63
    scale: float  # of both sides, 0..1
    fps: float

    def __post_init__(self) -> None:
        if self.name not in MAX_CRF:
            raise ConfigError(f"video codec {self.name!r} is unknown; use one of {', '.join(MAX_CRF)}")
        if not 0 <= self.crf <= MAX_CRF[self.name]:
            raise ConfigError(f"crf of {self.name} must be 0..{MAX_CRF[self.name]}, got {self.crf}")
        if not 0 < self.scale <= 1 or not 1 <= self.fps <= 120:
            raise ConfigError(f"scale must be in (0, 1] and fps in 1..120, got {self.scale} and {self.fps}")


@dataclass(frozen=True)
class AudioCodec:
    """How sound is encoded, at 48 kHz."""

    name: AudioName
    kbps: int  # of the whole stream

    def __post_init__(self) -> None:
        if self.name not in BIT_RATES:
            raise ConfigError(f"audio codec {self.name!r} is unknown; use one of {', '.join(BIT_RATES)}")
        low, high = BIT_RATES[self.name]
        if not low <= self.kbps <= high:
            raise ConfigError(f"kbps of {self.name} must be {low}..{high}, got {self.kbps}")


@dataclass(frozen=True)
class Recipe:
    """What a platform makes of an upload."""

    video: VideoCodec
    audio: AudioCodec

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Recipe:
        """Mostly H.264 with AAC, from hardly visible to plainly bad; always the same number of draws.

        H.264 and H.265 at CRF 18 to 40. VP9's scale is another (to 63, not 51): its 26 leaves of a face crop of 160 px
        what H.264's 18 leaves (41 dB, median of eight), its 56 what H.264's 34 does (34 dB); the worst are H.264's and
        H.265's 40 (31 and 29 dB). Half of the pictures keep their size, the others shrink, down to a quarter.
        """
        crf = {
            "libx264": int(rng.integers(18, 41)),
            "libx265": int(rng.integers(18, 41)),
            "libvpx-vp9": int(rng.integers(26, 57)),
        }
        kbps = {
            "aac": int(rng.choice([32, 48, 64, 96, 128])),
            "libopus": int(rng.choice([16, 24, 32, 48, 64, 96])),
            "libmp3lame": int(rng.choice([32, 48, 64, 96, 128])),
        }
        whole, scale = rng.random() < 0.5, round(float(rng.uniform(0.25, 1)), 2)
        fps = float(rng.choice([15, 20, 24, 25, 30], p=[0.1, 0.1, 0.15, 0.35, 0.3]))
        picture: VideoName = ("libx264", "libx265", "libvpx-vp9")[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
        sound: AudioName = ("aac", "libopus", "libmp3lame")[int(rng.choice(3, p=[0.6, 0.25, 0.15]))]
        return cls(VideoCodec(picture, crf[picture], 1.0 if whole else scale, fps), AudioCodec(sound, kbps[sound]))

    def digest(self) -> str:
        """16 hex digits that change when any field changes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def video_options(codec: VideoCodec) -> dict[str, Any]:
    """Output options of ffmpeg-python."""
    common = {"vcodec": codec.name, "crf": codec.crf, "pix_fmt": "yuv420p", "flags:v": "+bitexact"}
    return common | _VIDEO_OPTIONS[codec.name] | ONE_THREAD


def audio_options(codec: AudioCodec) -> dict[str, Any]:
    """Output options of ffmpeg-python."""
    return {"acodec": codec.name, "audio_bitrate": f"{codec.kbps}k", "flags:a": "+bitexact"} | ONE_THREAD
