"""Playable files of forged frames or samples: one encoder for forgery and control, the other half copied.

The new half is piped into ffmpeg and the original file is its second input. Both stand on the clock of
`avdetect.media`, whose zero is the container's, so that their offset is kept.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from avdetect._media.commands import DISCONTINUOUS
from avdetect.datasets.encode import MATRICES, ONE_THREAD, opened, write_media
from avdetect.errors import MediaError
from avdetect.media import AudioStream, MediaInfo, VideoStream
from avdetect.types import FPS, SAMPLE_RATE, Float, VideoFrames

# Visually lossless: the forgery, not the codec, is to be seen. With several threads of x264 the same frames gave other
# bytes on a busy machine.
H264 = {"vcodec": "libx264", "crf": 17, "preset": "veryfast", "pix_fmt": "yuv420p", **ONE_THREAD}
AAC = {"acodec": "aac", "audio_bitrate": "128k"}
COPIED_AUDIO = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # what mp4 can hold as it is
COPIED_VIDEO = ("h264", "hevc", "av1", "vp9", "mpeg4")


def write_video(frames: Iterable[VideoFrames], info: MediaInfo, target: Path) -> None:
    """H.264 of `frames` (at 25 fps), with the audio of the file `info` describes: copied if mp4 can hold it, else AAC.

    Nothing is left at `target` if it fails. Raises MediaError (no frames, a file that cannot be written), ToolError.
    """
    import ffmpeg

    batches = iter(frames)
    first = next(batches, None)
    if first is None:
        raise MediaError(f"{info.path.name} gave no frames; check that it plays")
    size, rate = (first.width, first.height), {"framerate": FPS, "itsoffset": first.first_frame / FPS}
    pipe = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="yuv420p", video_size=size, **rate)
    colour = {"colorspace": MATRICES[first.color_matrix], "range": "full" if first.full_range else "limited"}
    audio: dict[str, Any] = {}
    if info.audio is not None:
        audio = {"acodec": "copy"} if info.audio.codec in COPIED_AUDIO else AAC
    data = _without_gaps(chain([first], batches))
    _write(pipe["0"].filter("setparams", **colour), info.video, info.audio, info, target, data, {**H264, **audio})


def write_sound(samples: Float, info: MediaInfo, target: Path) -> None:
    """AAC of `samples` (mono, 16 kHz, from the container's time zero), with the file's video: copied if mp4 can hold
    it, else H.264.

    Nothing is left at `target` if it fails. Raises MediaError (a file that cannot be written), ToolError.
    """
    import ffmpeg

    sound = ffmpeg.input("pipe:0", format="f32le", ar=SAMPLE_RATE, ac=1)["0"]
    video: dict[str, Any] = {}
    if info.video is not None:
        video = {"vcodec": "copy"} if info.video.codec in COPIED_VIDEO else H264
    data = (part.astype("<f4").tobytes() for part in np.array_split(samples, len(samples) // SAMPLE_RATE + 1))
    _write(sound, info.audio, info.video, info, target, data, {**AAC, **video})


def _write(
    new: Any,
    replaced: VideoStream | AudioStream | None,
    kept: VideoStream | AudioStream | None,
    info: MediaInfo,
    target: Path,
    data: Iterable[bytes],
    options: dict[str, Any],
) -> None:
    """`new` in the place of the stream that is replaced, beside the one that is kept."""
    streams, beside = [new], []
    if kept is not None:
        source = opened(info.path)
        streams.insert(0 if isinstance(kept, VideoStream) else 1, source[str(kept.index)])
        # In MPEG streams ffmpeg sets time zero from the streams in use: let it read the one that is replaced as well.
        if replaced is not None and info.container in DISCONTINUOUS:
            beside.append(source[str(replaced.index)].output("pipe:1", format="null", codec="copy"))
    container = {"format": "mp4", "movflags": "+faststart"}
    write_media(streams, target, f"write {target}", data, beside, **container, **options)


def _without_gaps(batches: Iterable[VideoFrames]) -> Iterator[bytes]:
    number = None
    for batch in batches:
        if number is not None and batch.first_frame != number:
            seconds = (batch.first_frame - number) / FPS
            raise MediaError(f"no pictures for {seconds:g} s after {number / FPS:g} s; forge a file without such a gap")
        number = batch.first_frame + len(batch)
        yield batch.i420.tobytes()
