"""The ffmpeg commands of the two readers, as ffmpeg-python graphs: all frames, and the first, which dates them."""

from __future__ import annotations

import re
from typing import Any

from avdetect._media.ffmpeg import Decoder
from avdetect._media.info import AudioStream, MediaInfo, VideoStream
from avdetect.config import MediaConfig
from avdetect.types import FPS, SAMPLE_RATE

SEEKABLE = ("mov", "matroska")  # their index leads to a keyframe at or before the time asked for
# ffmpeg corrects their timestamps from the streams that it reads; unknown: only ffmpeg can make it out.
DISCONTINUOUS = ("mpegts", "mpeg", "unknown")
PASSED = ("yuv420p", "yuvj420p")  # piped as decoded; every other pixel format is converted
MAX_GAP_SECONDS = 0.03  # audio timestamps may jitter by this much before silence is inserted or samples are cut


def video_outputs(child: Decoder, info: MediaInfo, config: MediaConfig, origin: int) -> list[Any]:
    """The pipe of frames, and the first alone, whose timestamp (in frames) numbers them all."""
    video = info.video
    assert video is not None
    options: dict[str, Any] = {"ss": origin, "noaccurate_seek": None} if origin else {}
    fixed = not video.rotation_degrees and not video.mirrored and video.pix_fmt != "none"
    if fixed:
        # The graph stays as it is when the picture's size or format changes in mid-stream (ffmpeg would build a new
        # one, and the clock would slip): its first scaler, which otherwise passes frames on untouched, sees to that.
        # With rotation ffmpeg puts its own filters first, which could not stand it; nor can a format not known yet.
        options |= {"noautorotate": None, "reinit_filter": 0}
    source = child.input(**options, **_from_zero(info))
    stream = source[str(video.index)]
    if _without_zero(info):
        stream = stream.filter("setpts", "PTS-STARTPTS")
    if fixed:
        stream = stream.filter("scale", video.coded_width, video.coded_height).filter("format", video.pix_fmt)
    if video.interlaced:
        stream = stream.filter("bwdif", mode="send_frame", deint="interlaced")
    stream = stream.filter("fps", FPS).filter_multi_output("split")
    width, height = frame_size(video, config.max_side)
    pixels: dict[str, Any] = {}
    main, pix_fmt = stream[1], video.pix_fmt
    odd = video.width % 2 or video.height % 2
    if odd and sorted((width, height)) == sorted((video.coded_width // 2 * 2, video.coded_height // 2 * 2)):
        # Dropping an odd last row or column is free; scaling a pixel away is not.
        main = main.filter("crop", width, height, 0, 0)
    if pix_fmt not in PASSED:
        pix_fmt = "yuv420p"
        pixels = {"out_color_matrix": video.color_matrix, "out_range": "tv"}
        if not _is_rgb(video.pix_fmt):
            pixels |= {"in_color_matrix": video.color_matrix, "in_range": "pc" if video.full_range else "tv"}
    # Free when the size is right already.
    main = main.filter("scale", width, height, **pixels)
    piped = main.output("pipe:1", format="yuv4mpegpipe", pix_fmt=pix_fmt, fps_mode="passthrough")
    return [child.clock(stream[0].filter("trim", end_frame=1)), piped, *_other(source, info, info.audio)]


def audio_outputs(child: Decoder, info: MediaInfo, audio: AudioStream) -> list[Any]:
    source = child.input(**_from_zero(info))
    stream = source[str(audio.index)]
    if _without_zero(info):
        stream = stream.filter("asetpts", "PTS-STARTPTS")
    stream = stream.filter_multi_output("asplit")
    # rematrix_maxval: without it a float stereo pair is mixed down at 1.41 times its level.
    resample = {"async": 1, "first_pts": 0, "min_hard_comp": MAX_GAP_SECONDS, "rematrix_maxval": 1}
    main = stream[1].filter("aresample", SAMPLE_RATE, **resample)
    main = main.filter("aformat", sample_fmts="flt", channel_layouts="mono")
    return [
        child.clock(stream[0].filter("atrim", end_sample=1)),
        main.output("pipe:1", format="f32le"),
        *_other(source, info, info.video),
    ]


def _from_zero(info: MediaInfo) -> dict[str, Any]:
    """Matroska has no times before 0 but those of a codec's priming, to be dropped. ffmpeg 5 shows the priming and
    counts from it; this undoes its shift, so that the priming falls before zero. Newer ones drop it by themselves."""
    primed = info.container == "matroska" and -1 < (info.start_seconds or 0) < 0
    return {"itsoffset": info.start_seconds} if primed else {}


def _without_zero(info: MediaInfo) -> bool:
    """Whether only one half of an MPEG stream can be made out, and so ffmpeg finds no time zero: it begins at its own,
    else hours of nothing might stand before it."""
    return info.container in DISCONTINUOUS and info.start_seconds is None and not (info.video and info.audio)


def _other(source: Any, info: MediaInfo, other: VideoStream | AudioStream | None) -> list[Any]:
    """In MPEG streams ffmpeg sets time zero and mends jumps from the streams in use: let both readers use both."""
    if other is None or info.container not in DISCONTINUOUS:
        return []
    return [source[str(other.index)].output("pipe:1", format="null", codec="copy")]


def frame_size(video: VideoStream, max_side: int) -> tuple[int, int]:
    """(width, height), even, of the frames that the reader gives: as displayed, reduced to `max_side` if larger."""
    scale = min(1.0, max_side / max(video.width, video.height))
    if scale == 1:
        return max(2, video.width // 2 * 2), max(2, video.height // 2 * 2)
    return max(2, round(video.width * scale / 2) * 2), max(2, round(video.height * scale / 2) * 2)


def _is_rgb(pix_fmt: str) -> bool:
    return bool(re.match(r"[ax0]?(rgb|bgr|gbr)|x2|pal8", pix_fmt))
