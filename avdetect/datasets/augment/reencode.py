"""A whole file through a recipe: what a platform makes of an upload, for copies of a dataset beside its originals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avdetect._media.child import FORMATS
from avdetect._media.info import AudioStream, VideoStream
from avdetect._media.messages import quoted
from avdetect.config import MediaLimits
from avdetect.datasets.augment.recipes import CODEC_RATE, SMALLEST_SIDE, Recipe, audio_options, video_options
from avdetect.datasets.augment.tool import BIT_EXACT, ONE_THREAD, run_ffmpeg
from avdetect.errors import ConfigError, MediaError
from avdetect.files import replacing
from avdetect.media import probe

_MUXERS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm"}
_WEBM = ("libvpx-vp9", "libopus")
_MATRICES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}  # ours -> ffmpeg's


def reencode(source: Path, target: Path, recipe: Recipe) -> None:
    """Write `source` as `target` (.mp4, .mkv or .webm), encoded by `recipe`; the folder must exist.

    It holds the streams that `MediaReader` reads, and no others: the picture upright, of square pixels, deinterlaced;
    at most two channels of sound, at 48 kHz. Timestamps stay: a half that starts late starts late, missing frames are
    held, gaps of the sound become silence. Metadata goes. `target` appears when it is whole, and replaces an older one.

    Raises ConfigError for a suffix that is unknown or cannot hold the codecs, MediaError if the source cannot be read
    or the target not be written, ToolError if ffmpeg cannot run or lacks an encoder.
    """
    muxer = _muxer(source, target, recipe)
    info = probe(source)
    import ffmpeg  # 60 ms: not at import of this module

    # As `file:` and absolute: no file name may be taken for an option or an address.
    stream = ffmpeg.input(
        f"file:{source.absolute()}", protocol_whitelist="file", format_whitelist=FORMATS, **ONE_THREAD
    )
    parts: list[Any] = []
    options: dict[str, Any] = {}
    if info.video is not None:
        parts.append(_picture(stream, info.video, recipe))
        options |= video_options(recipe.video)
    if info.audio is not None:
        parts.append(_sound(stream, info.audio))
        options |= audio_options(recipe.audio)
    try:
        with replacing(target.absolute()) as file:
            written = ffmpeg.output(
                *parts, f"file:{file.name}", format=muxer, map_metadata=-1, map_chapters=-1, **options, **BIT_EXACT
            )
            run_ffmpeg(
                written.overwrite_output(),
                f"re-encode {quoted(source)} as {quoted(target)}",
                seconds=MediaLimits().max_wall_seconds,
            )
    except OSError as error:
        raise MediaError(f"cannot write {quoted(target)}: {error.strerror}; check the folder") from error


def _muxer(source: Path, target: Path, recipe: Recipe) -> str:
    if target.suffix.lower() not in _MUXERS:
        raise ConfigError(f"{quoted(target)}: unknown suffix; use one of {', '.join(_MUXERS)}")
    if target.suffix.lower() == ".webm" and (recipe.video.name, recipe.audio.name) != _WEBM:
        raise ConfigError(f"{quoted(target)}: .webm holds {' and '.join(_WEBM)} only; write .mp4 or .mkv")
    if not target.parent.is_dir():
        raise MediaError(f"cannot write {quoted(target)}: its folder does not exist; make it first")
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{quoted(target)} is the source itself; give the copy another name")
    return _MUXERS[target.suffix.lower()]


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
    return picture.filter("setparams", colorspace=_MATRICES[video.color_matrix], range="tv")


def _sound(stream: Any, audio: AudioStream) -> Any:
    layout = "mono" if audio.channels == 1 else "stereo"
    # No first_pts: late sound stays late, and is not filled up. rematrix_maxval: mixing must not raise the level.
    sound = stream[str(audio.index)].filter("aresample", CODEC_RATE, **{"async": 1, "rematrix_maxval": 1})
    return sound.filter("aformat", channel_layouts=layout)
