"""The ffmpeg commands of the two readers: what is piped, and what dates it."""

import re
from collections.abc import Iterator

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
_TURNS = {
    (0, False): (),
    (90, False): ("transpose=clock",),
    (180, False): ("hflip", "vflip"),
    (270, False): ("transpose=cclock",),
    (0, True): ("vflip",),
    (90, True): ("transpose=cclock_flip",),
    (180, True): ("hflip",),
    (270, True): ("transpose=clock_flip",),
}
_RGB = re.compile(r"[ax0]?(rgb|bgr|gbr)|x2|pal8")
MAX_GAP_SECONDS = 0.03  # audio timestamps may jitter by this much before silence is inserted or samples are cut


def start_video(
    child: Decoder, info: MediaInfo, video: VideoStream, config: MediaConfig, origin: int
) -> tuple[int, int]:
    """Start the pipe of frames, and the times that number them (`timeline.Timeline`); their width and height."""
    # What turns and crops the picture stands below, so that the graph stays as it is when the picture's size or format
    # changes in mid-stream (ffmpeg would build a new one, and the clock would slip): the first scaler, which otherwise
    # passes frames on untouched, sees to that. It cannot for a format not known yet.
    fixed = video.pix_fmt != "none"
    options = [*_from_zero(info), "-noautorotate", *(("-reinit_filter", "0") if fixed else ())]
    if any(video.crop):
        options += ["-apply_cropping", "codec"]  # ffmpeg 7.1 crops for the container by itself
    if origin:
        options += ["-ss", str(origin), "-noaccurate_seek"]
    first = ["setpts=PTS-STARTPTS"] if _without_zero(info) else []
    if fixed:
        first += [f"scale={video.coded_width}:{video.coded_height}", f"format={video.pix_fmt}"]
    if video.interlaced:
        first.append("bwdif=mode=send_frame:deint=interlaced")
    first += [f"settb=1/{TICKS}", "split"]
    width, height = frame_size(video, config.max_side)
    main = [f"setpts='{SHORTENED}'", f"fps={FPS}", *_upright(video), *_sized(video, width, height)]
    graph = f"[0:{video.index}]{','.join(first)}[times][frames];[frames]{','.join(main)}[piped]"
    # A wrapped frame has no pixels, so its checksum costs nothing.
    times = ["-map", "[times]", "-c", "wrapped_avframe", "-fps_mode", "passthrough", "-enc_time_base", f"1/{TICKS}"]
    times += ["-f", "framecrc", "-flush_packets", "1", f"pipe:{child.pipe(child.timeline.receive)}"]
    pix_fmt = video.pix_fmt if video.pix_fmt in PASSED else "yuv420p"
    piped = ["-map", "[piped]", "-fps_mode", "passthrough", "-pix_fmt", pix_fmt, "-f", "rawvideo", "pipe:1"]
    child.start(options, graph, [*times, *piped, *_other(info, info.audio)])
    return width, height


def _upright(video: VideoStream) -> Iterator[str]:
    """As a player shows it: without what the container crops, turned, and not as in a mirror."""
    left, top, right, bottom = video.crop
    if any(video.crop):
        yield f"crop={video.coded_width - left - right}:{video.coded_height - top - bottom}:{left}:{top}"
    yield from _TURNS[video.rotation_degrees, video.mirrored]


def _sized(video: VideoStream, width: int, height: int) -> Iterator[str]:
    stored = (video.coded_width - sum(video.crop[::2]), video.coded_height - sum(video.crop[1::2]))
    odd = video.width % 2 or video.height % 2
    if odd and sorted((width, height)) == sorted(side // 2 * 2 for side in stored):
        yield f"crop={width}:{height}:0:0"  # dropping an odd last row or column is free; scaling a pixel away is not
    pixels = ""
    if video.pix_fmt not in PASSED:
        pixels = f":out_color_matrix={video.color_matrix}:out_range=tv"
        if not _RGB.match(video.pix_fmt):
            pixels += f":in_color_matrix={video.color_matrix}:in_range={'pc' if video.full_range else 'tv'}"
    yield f"scale={width}:{height}{pixels}"  # free when the size is right already


def start_audio(child: Decoder, info: MediaInfo, audio: AudioStream) -> None:
    """Start the pipe of samples, `channels.piped_channels` of them at a time."""
    filters = ["asetpts=PTS-STARTPTS"] if _without_zero(info) else []
    if mixed := pan(audio):
        filters += ["aformat=sample_fmts=fltp", f"pan='{mixed}'"]
    filters += [
        f"aresample={SAMPLE_RATE}:async=1:first_pts=0:min_hard_comp={MAX_GAP_SECONDS}:rematrix_maxval=1",
        f"aformat=sample_fmts=flt:channel_layouts={layout(audio)}",
    ]
    graph = f"[0:{audio.index}]{','.join(filters)}[piped]"
    piped = ["-map", "[piped]", "-f", "f32le", "pipe:1"]
    child.start(_from_zero(info), graph, [*piped, *_other(info, info.video)])


def _from_zero(info: MediaInfo) -> list[str]:
    """Matroska has no times before 0 but those of a codec's priming, to be dropped. ffmpeg 5 shows the priming and
    counts from it; this undoes its shift, so that the priming falls before zero. Newer ones drop it by themselves."""
    primed = info.container == "matroska" and -1 < (info.start_seconds or 0) < 0
    return ["-itsoffset", f"{info.start_seconds:.6f}"] if primed else []


def _without_zero(info: MediaInfo) -> bool:
    """Whether only one half of an MPEG stream can be made out, and so ffmpeg finds no time zero: it begins at its own,
    else hours of nothing might stand before it."""
    return info.container in DISCONTINUOUS and info.start_seconds is None and not (info.video and info.audio)


def _other(info: MediaInfo, other: VideoStream | AudioStream | None) -> list[str]:
    """In MPEG streams ffmpeg sets time zero and mends jumps from the streams in use: let both readers use both."""
    if other is None or info.container not in DISCONTINUOUS:
        return []
    return ["-map", f"0:{other.index}", "-c", "copy", "-f", "null", "pipe:1"]


def frame_size(video: VideoStream, max_side: int) -> tuple[int, int]:
    """(width, height), even, of the frames that the reader gives: as displayed, reduced to `max_side` if larger."""
    scale = min(1.0, max_side / max(video.width, video.height))
    if scale == 1:
        return max(2, video.width // 2 * 2), max(2, video.height // 2 * 2)
    return max(2, round(video.width * scale / 2) * 2), max(2, round(video.height * scale / 2) * 2)
