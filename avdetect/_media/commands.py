"""The ffmpeg commands of the two readers, as ffmpeg-python graphs: what is piped, and what dates it."""

from __future__ import annotations

import re
from typing import Any

from avdetect._media.channels import layout, pan
from avdetect._media.ffmpeg import Decoder
from avdetect._media.info import AudioStream, MediaInfo, VideoStream
from avdetect._media.timeline import SHORTENED, TICKS
from avdetect.config import MediaConfig
from avdetect.types import FPS, SAMPLE_RATE

SEEKABLE = ("mov", "matroska")  # their index leads to a keyframe at or before the time asked for
# ffmpeg corrects their timestamps from the streams that it reads; unknown: only ffmpeg can make it out.
DISCONTINUOUS = ("mpegts", "mpeg", "unknown")
PASSED = ("yuv420p", "yuvj420p")  # piped as decoded; every other pixel format is converted
# (degrees clockwise, mirrored) -> what ffmpeg's own -autorotate does
_TURNS: dict[tuple[int, bool], tuple[tuple[str, dict[str, Any]], ...]] = {
    (0, False): (),
    (90, False): (("transpose", {"dir": "clock"}),),
    (180, False): (("hflip", {}), ("vflip", {})),
    (270, False): (("transpose", {"dir": "cclock"}),),
    (0, True): (("vflip", {}),),
    (90, True): (("transpose", {"dir": "cclock_flip"}),),
    (180, True): (("hflip", {}),),
    (270, True): (("transpose", {"dir": "clock_flip"}),),
}
MAX_GAP_SECONDS = 0.03  # audio timestamps may jitter by this much before silence is inserted or samples are cut


def video_outputs(child: Decoder, info: MediaInfo, config: MediaConfig, origin: int) -> list[Any]:
    """The pipe of frames, and the times that number them (`timeline.Timeline`)."""
    video = info.video
    assert video is not None
    # What turns and crops the picture stands below, so that the graph stays as it is when the picture's size or format
    # changes in mid-stream (ffmpeg would build a new one, and the clock would slip): the first scaler, which otherwise
    # passes frames on untouched, sees to that. It cannot for a format not known yet.
    options: dict[str, Any] = {"noautorotate": None}
    options |= {"apply_cropping": "codec"} if any(video.crop) else {}  # ffmpeg 7.1 crops for the container by itself
    options |= {"ss": origin, "noaccurate_seek": None} if origin else {}
    fixed = video.pix_fmt != "none"
    source = child.input(**options, **({"reinit_filter": 0} if fixed else {}), **_from_zero(info))
    stream = source[str(video.index)]
    if _without_zero(info):
        stream = stream.filter("setpts", "PTS-STARTPTS")
    if fixed:
        stream = stream.filter("scale", video.coded_width, video.coded_height).filter("format", video.pix_fmt)
    if video.interlaced:
        stream = stream.filter("bwdif", mode="send_frame", deint="interlaced")
    stream = stream.filter("settb", f"1/{TICKS}").filter_multi_output("split")
    main = _upright(stream[1].filter("setpts", SHORTENED).filter("fps", FPS), video)
    width, height = frame_size(video, config.max_side)
    main = _sized(main, video, width, height)
    pix_fmt = video.pix_fmt if video.pix_fmt in PASSED else "yuv420p"
    piped = main.output("pipe:1", format="yuv4mpegpipe", pix_fmt=pix_fmt, fps_mode="passthrough")
    return [child.clock(stream[0]), piped, *_other(source, info, info.audio)]


def _upright(stream: Any, video: VideoStream) -> Any:
    """As a player shows it: without what the container crops, turned, and not as in a mirror."""
    left, top, right, bottom = video.crop
    if any(video.crop):
        size = video.coded_width - left - right, video.coded_height - top - bottom
        stream = stream.filter("crop", *size, left, top)
    for name, options in _TURNS[video.rotation_degrees, video.mirrored]:
        stream = stream.filter(name, **options)
    return stream


def _sized(stream: Any, video: VideoStream, width: int, height: int) -> Any:
    stored = (video.coded_width - sum(video.crop[::2]), video.coded_height - sum(video.crop[1::2]))
    odd = video.width % 2 or video.height % 2
    if odd and sorted((width, height)) == sorted(side // 2 * 2 for side in stored):
        # Dropping an odd last row or column is free; scaling a pixel away is not.
        stream = stream.filter("crop", width, height, 0, 0)
    pixels: dict[str, Any] = {}
    if video.pix_fmt not in PASSED:
        pixels = {"out_color_matrix": video.color_matrix, "out_range": "tv"}
        if not _is_rgb(video.pix_fmt):
            pixels |= {"in_color_matrix": video.color_matrix, "in_range": "pc" if video.full_range else "tv"}
    return stream.filter("scale", width, height, **pixels)  # free when the size is right already


def audio_outputs(child: Decoder, info: MediaInfo, audio: AudioStream) -> list[Any]:
    source = child.input(**_from_zero(info))
    stream = source[str(audio.index)]
    if _without_zero(info):
        stream = stream.filter("asetpts", "PTS-STARTPTS")
    stream = stream.filter_multi_output("asplit")
    main = stream[1]
    if mixed := pan(audio):
        main = main.filter("aformat", sample_fmts="fltp").filter("pan", mixed)
    main = main.filter(
        "aresample", SAMPLE_RATE, **{"async": 1, "first_pts": 0, "min_hard_comp": MAX_GAP_SECONDS, "rematrix_maxval": 1}
    ).filter("aformat", sample_fmts="flt", channel_layouts=layout(audio))
    return [
        child.clock(stream[0].filter("atrim", end_sample=1).filter("asettb", f"1/{TICKS}")),
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
