"""Real codecs as augmentation: crops or sound there and back in memory, or a whole file re-encoded, through ffmpeg.

Each codec runs on one thread with fast options, so that equal input gives equal bytes.
"""

from __future__ import annotations

import numpy as np

from avdetect.datasets.augment.mouths import held_frames
from avdetect.datasets.augment.recipes import (
    CODEC_RATE,
    SMALLEST_SIDE,
    AudioCodec,
    Recipe,
    VideoCodec,
    audio_options,
    video_options,
)
from avdetect.datasets.augment.reencode import reencode
from avdetect.datasets.augment.tool import BIT_EXACT, ONE_THREAD, run_ffmpeg
from avdetect.errors import MediaError
from avdetect.types import FPS, SAMPLE_RATE, Float, UInt8

__all__ = ["AudioCodec", "Recipe", "VideoCodec", "reencode", "through_audio_codec", "through_video_codec"]

# Encoder -> format for a pipe, how ffmpeg reads it, and the samples that its decoder gives before the first real one:
# one frame of AAC, LAME's and a decoder's delay; an Ogg file says its own, and ffmpeg drops them.
_STREAMS = {"aac": ("adts", "aac", 1024), "libmp3lame": ("mp3", "mp3", 1105), "libopus": ("ogg", "ogg", 0)}
_FLUSH_SECONDS = 0.2  # of silence, so that the last real samples leave the encoder


def through_video_codec(frames: UInt8, codec: VideoCodec, *, clock: float = FPS) -> UInt8:
    """(T, S, S, 3) RGB, encoded and decoded -> same shape.

    The frames are reduced by `codec.scale` first, but to no side below 32 px (smaller ones are enlarged to it), and are
    resized back after. `clock` says how many of them make a second: at a lower `codec.fps` some are left out, and the
    one before is held. The first frame is intra coded, the others are predicted. Raises ToolError, MediaError.
    """
    import ffmpeg  # 60 ms: not at import of this module

    if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (T, S, S, 3) uint8, got {frames.shape} {frames.dtype}")
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
    encode = picture.output("pipe:1", format="nut", **video_options(codec), **BIT_EXACT)
    stream = run_ffmpeg(encode, f"encode with {codec.name}", padded.tobytes())
    decoded = ffmpeg.input("pipe:0", format="nut", **ONE_THREAD).filter("scale", even, even, flags="bicubic")
    decode = decoded.output("pipe:1", fps_mode="passthrough", **raw, **ONE_THREAD)
    data = run_ffmpeg(decode, f"decode {codec.name}", stream)
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

    if samples.ndim != 1 or samples.dtype != np.float32:
        raise ValueError(f"samples must be (num_samples,) float32, got {samples.shape} {samples.dtype}")
    if not len(samples):
        return samples.copy()
    muxer, demuxer, delay = _STREAMS[codec.name]
    raw = {"format": "f32le", "ac": 1}
    source = ffmpeg.input("pipe:0", ar=SAMPLE_RATE, **raw)
    sound = source.filter("aresample", CODEC_RATE).filter("apad", pad_dur=_FLUSH_SECONDS)
    # Without its index an MP3 stream says nothing of its delay, so that every ffmpeg gives all of it.
    headless = {"write_xing": 0} if codec.name == "libmp3lame" else {}
    encode = sound.output("pipe:1", format=muxer, **audio_options(codec), **headless, **BIT_EXACT)
    stream = run_ffmpeg(encode, f"encode with {codec.name}", samples.tobytes())
    decoded = ffmpeg.input("pipe:0", format=demuxer, **ONE_THREAD).filter("atrim", start_sample=delay)
    decoded = decoded.filter("asetpts", "PTS-STARTPTS").filter("aresample", SAMPLE_RATE)
    data = run_ffmpeg(decoded.output("pipe:1", **raw, **ONE_THREAD), f"decode {codec.name}", stream)
    out = np.frombuffer(data, np.float32)
    if len(out) < len(samples):
        raise MediaError(f"{codec.name} gave {len(out)} samples for {len(samples)}; please report this ffmpeg")
    return np.clip(out[: len(samples)], -1, 1)
