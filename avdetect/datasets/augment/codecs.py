"""Real codecs as augmentation: crops or sound there and back in memory, or a whole file, as platforms do.

Each codec runs on one thread with fast options, so that equal input gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avdetect._media.info import AudioStream, VideoStream
from avdetect._media.messages import quoted
from avdetect.datasets.augment.mouths import held_frames
from avdetect.datasets.encode import BIT_EXACT, MATRICES, ONE_THREAD, opened, run_ffmpeg, write_media
from avdetect.errors import MediaError
from avdetect.media import probe
from avdetect.types import FPS, SAMPLE_RATE, Float, UInt8

VideoName = Literal["libx264", "libx265", "libvpx-vp9"]
AudioName = Literal["aac", "libopus", "libmp3lame"]

# Encoder -> its options. libx264's ultrafast would leave out the deblocking and CABAC that every real video has.
_VIDEO_OPTIONS: dict[str, dict[str, Any]] = {
    "libx264": {"preset": "superfast"},
    "libx265": {"preset": "superfast", "x265-params": "log-level=error:pools=none:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": 8, "lag-in-frames": 0, "video_bitrate": 0},
}
# Encoder -> format for a pipe, how ffmpeg reads it, and the samples that its decoder gives before the first real one:
# one frame of AAC, LAME's and a decoder's delay; an Ogg file says its own, and ffmpeg drops them.
_STREAMS = {"aac": ("adts", "aac", 1024), "libmp3lame": ("mp3", "mp3", 1105), "libopus": ("ogg", "ogg", 0)}
_FLUSH_SECONDS = 0.2  # of silence, so that the last real samples leave the encoder
CODEC_RATE = 48_000  # Hz; the sound of video files, and libopus's own
SMALLEST_SIDE = 32  # pixels; libx265 takes no less than one coding block


@dataclass(frozen=True)
class VideoCodec:
    """How a picture is encoded."""

    name: VideoName
    crf: int  # constant rate factor, higher = worse: libx264 and libx265 0..51, libvpx-vp9 0..63
    scale: float  # of both sides, 0..1
    fps: float


@dataclass(frozen=True)
class AudioCodec:
    """How sound is encoded, at 48 kHz."""

    name: AudioName
    kbps: int  # of the whole stream


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


def through_video_codec(frames: UInt8, codec: VideoCodec, *, clock: float = FPS) -> UInt8:
    """(T, S, S, 3) RGB, encoded and decoded -> same shape.

    The frames are reduced by `codec.scale` first, but to no side below 32 px (smaller ones are enlarged to it), and are
    resized back after. `clock` says how many of them make a second: at a lower `codec.fps` some are left out, and the
    one before is held. The first frame is intra coded, the others are predicted. Raises ToolError, MediaError.
    """
    import ffmpeg  # 60 ms: not at import of this module

    if not frames.size:
        return frames.copy()
    shown = held_frames(len(frames), codec.fps, clock=clock)
    kept, position = np.unique(shown, return_inverse=True)
    size = frames.shape[1]
    even = size + size % 2  # 4:2:0 has no odd sides
    padded = np.pad(frames[kept], ((0, 0), (0, even - size), (0, even - size), (0, 0)), "edge")
    side = max(SMALLEST_SIDE, round(even * codec.scale / 2) * 2)

    raw = {"format": "rawvideo", "pix_fmt": "rgb24"}
    source = ffmpeg.input("pipe:0", s=f"{even}x{even}", r=codec.fps, **raw, **ONE_THREAD)
    picture = source.filter("scale", side, side, flags="area")
    encode = picture.output("pipe:1", format="nut", **_video_options(codec), **BIT_EXACT)
    stream = run_ffmpeg(encode, f"encode with {codec.name}", [padded.tobytes()])
    decoded = ffmpeg.input("pipe:0", format="nut", **ONE_THREAD).filter("scale", even, even, flags="bicubic")
    decode = decoded.output("pipe:1", fps_mode="passthrough", **raw, **ONE_THREAD)
    data = run_ffmpeg(decode, f"decode {codec.name}", [stream])
    if len(data) != padded.nbytes:
        raise MediaError(f"{codec.name} gave {len(data)} bytes for {padded.nbytes}; please report this ffmpeg")
    out = np.frombuffer(data, np.uint8).reshape(padded.shape)[:, :size, :size]
    return np.ascontiguousarray(out[position])


def through_audio_codec(samples: Float, codec: AudioCodec) -> Float:
    """(num_samples,) mono at 16 kHz in [-1, 1], encoded at 48 kHz and decoded -> same shape, range and level.

    The codec's delay is taken off: what comes out lies within 1/4 of a sample of what went in. (LAME takes 0.45 dB off
    the level, as in every MP3.) Raises ToolError, MediaError.
    """
    import ffmpeg

    if not len(samples):
        return samples.copy()
    muxer, demuxer, delay = _STREAMS[codec.name]
    raw = {"format": "f32le", "ac": 1}
    source = ffmpeg.input("pipe:0", ar=SAMPLE_RATE, **raw)
    sound = source.filter("aresample", CODEC_RATE).filter("apad", pad_dur=_FLUSH_SECONDS)
    # Without its index an MP3 stream says nothing of its delay, so that every ffmpeg gives all of it.
    headless = {"write_xing": 0} if codec.name == "libmp3lame" else {}
    encode = sound.output("pipe:1", format=muxer, **_audio_options(codec), **headless, **BIT_EXACT)
    stream = run_ffmpeg(encode, f"encode with {codec.name}", [samples.astype("<f4").tobytes()])
    decoded = ffmpeg.input("pipe:0", format=demuxer, **ONE_THREAD).filter("atrim", start_sample=delay)
    decoded = decoded.filter("asetpts", "PTS-STARTPTS").filter("aresample", SAMPLE_RATE)
    data = run_ffmpeg(decoded.output("pipe:1", **raw, **ONE_THREAD), f"decode {codec.name}", [stream])
    out = np.frombuffer(data, np.float32)
    if len(out) < len(samples):
        raise MediaError(f"{codec.name} gave {len(out)} samples for {len(samples)}; please report this ffmpeg")
    return np.clip(out[: len(samples)], -1, 1)


def reencode(source: Path, target: Path, recipe: Recipe) -> None:
    """Write `source` as the Matroska file `target`, encoded by `recipe`: the one container that holds all codecs.

    It holds the streams that `MediaReader` reads, and no others: the picture upright, of square pixels, deinterlaced;
    at most two channels of sound, at 48 kHz. Timestamps stay: a half that starts late starts late, missing frames are
    held, gaps of the sound become silence. Metadata goes.

    Raises MediaError if the source cannot be read or the target not be written, ToolError if ffmpeg cannot run or lacks
    an encoder.
    """
    info = probe(source)
    stream, parts = opened(source), []
    options: dict[str, Any] = {"format": "matroska", "map_chapters": -1, **BIT_EXACT}
    if info.video is not None:
        parts.append(_picture(stream, info.video, recipe))
        options |= _video_options(recipe.video)
    if info.audio is not None:
        parts.append(_sound(stream, info.audio))
        options |= _audio_options(recipe.audio)
    write_media(parts, target, f"re-encode {quoted(source)} as {quoted(target)}", **options)


def _video_options(codec: VideoCodec) -> dict[str, Any]:
    common = {"vcodec": codec.name, "crf": codec.crf, "pix_fmt": "yuv420p", "flags:v": "+bitexact"}
    return common | _VIDEO_OPTIONS[codec.name] | ONE_THREAD


def _audio_options(codec: AudioCodec) -> dict[str, Any]:
    return {"acodec": codec.name, "audio_bitrate": f"{codec.kbps}k", "flags:a": "+bitexact"} | ONE_THREAD


def _picture(stream: Any, video: VideoStream, recipe: Recipe) -> Any:
    """ffmpeg turns the picture upright before the first filter, and then the file says nothing of a rotation."""
    picture = stream[str(video.index)]
    if video.interlaced:
        picture = picture.filter("bwdif", mode="send_frame", deint="interlaced")
    sides = (max(SMALLEST_SIDE, round(side * recipe.video.scale / 2) * 2) for side in (video.width, video.height))
    # The matrix is stated: where it is not, readers guess it by the size, which changes here.
    ranges: dict[str, Any] = {"out_color_matrix": video.color_matrix, "out_range": "tv"}
    if not any(name in video.pix_fmt for name in ("rgb", "bgr", "gbr", "pal8")):
        ranges |= {"in_color_matrix": video.color_matrix, "in_range": "pc" if video.full_range else "tv"}
    picture = picture.filter("fps", recipe.video.fps).filter("scale", *sides, flags="bicubic", **ranges)
    picture = picture.filter("setsar", 1).filter("format", "yuv420p")
    return picture.filter("setparams", colorspace=MATRICES[video.color_matrix], range="tv")


def _sound(stream: Any, audio: AudioStream) -> Any:
    layout = "mono" if audio.channels == 1 else "stereo"
    # No first_pts: late sound stays late, and is not filled up. rematrix_maxval: mixing must not raise the level.
    sound = stream[str(audio.index)].filter("aresample", CODEC_RATE, **{"async": 1, "rematrix_maxval": 1})
    return sound.filter("aformat", channel_layouts=layout)
