"""Playable files of forged frames or samples: one encoder for forgery and control, the other half copied.

The new half is piped into ffmpeg and the original file is its second input. Both stand on the clock of
`avdetect.media`, whose zero is the container's, so that their offset is kept.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avdetect._media.child import FORMATS
from avdetect._media.commands import DISCONTINUOUS
from avdetect.errors import MediaError, ToolError
from avdetect.files import replacing
from avdetect.media import AudioStream, MediaInfo, VideoStream, ffmpeg_path
from avdetect.types import FPS, SAMPLE_RATE, Float, VideoFrames

Stream = VideoStream | AudioStream
CRF = 17  # visually lossless: the forgery, not the codec, is to be seen
AUDIO_KBPS = 128
THREADS = 1  # of x264: with several, the same frames gave other bytes on a busy machine
COPIED_AUDIO = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # what mp4 can hold as it is
COPIED_VIDEO = ("h264", "hevc", "av1", "vp9", "mpeg4")
_SPACES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}


def write_video(frames: Iterable[VideoFrames], info: MediaInfo, target: Path) -> None:
    """H.264 of `frames` (at 25 fps), with the audio of the file `info` describes: copied if mp4 can hold it, else AAC.

    Nothing is left at `target` if it fails. Raises MediaError (no frames, a file that cannot be written), ToolError.
    """
    import ffmpeg

    batches = iter(frames)
    first = next(batches, None)
    if first is None:
        raise MediaError(f"{info.path.name} gave no frames; check that it plays")
    pipe = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pix_fmt="yuv420p",
        video_size=(first.width, first.height),
        framerate=FPS,
        itsoffset=first.first_frame / FPS,
    )
    picture = pipe["0"].filter(
        "setparams", colorspace=_SPACES[first.color_matrix], range="full" if first.full_range else "limited"
    )
    options: dict[str, Any] = {
        "vcodec": "libx264",
        "crf": CRF,
        "preset": "veryfast",
        "threads": THREADS,
        "pix_fmt": "yuv420p",
    }
    streams, source = [picture], _source(info)
    if info.audio is not None:
        streams.append(source[str(info.audio.index)])
        options["acodec"] = "copy" if info.audio.codec in COPIED_AUDIO else "aac"
        if options["acodec"] == "aac":
            options["audio_bitrate"] = f"{AUDIO_KBPS}k"
    _encode(streams, options, _other(source, info, info.video, info.audio), _bytes_of(first, batches), target)


def write_sound(samples: Float, info: MediaInfo, target: Path) -> None:
    """AAC of `samples` (mono, 16 kHz, from the container's time zero), with the file's video: copied if mp4 can hold
    it, else H.264.

    Nothing is left at `target` if it fails. Raises MediaError (a file that cannot be written), ToolError.
    """
    import ffmpeg

    sound = ffmpeg.input("pipe:0", format="f32le", ar=SAMPLE_RATE, ac=1)["0"]
    options: dict[str, Any] = {"acodec": "aac", "audio_bitrate": f"{AUDIO_KBPS}k"}
    streams, source = [sound], _source(info)
    if info.video is not None:
        streams.insert(0, source[str(info.video.index)])
        options["vcodec"] = "copy" if info.video.codec in COPIED_VIDEO else "libx264"
        if options["vcodec"] == "libx264":
            options |= {"crf": CRF, "preset": "veryfast", "pix_fmt": "yuv420p"}
    step = SAMPLE_RATE * 4
    parts = (samples[i : i + step].astype("<f4").tobytes() for i in range(0, len(samples), step))
    _encode(streams, options, _other(source, info, info.audio, info.video), parts, target)


def _source(info: MediaInfo) -> Any:
    """The original as an input that can name no other file."""
    import ffmpeg

    return ffmpeg.input(f"file:{info.path.resolve()}", protocol_whitelist="file", format_whitelist=FORMATS)


def _other(source: Any, info: MediaInfo, replaced: Stream | None, kept: Stream | None) -> list[Any]:
    """In MPEG streams ffmpeg sets time zero from the streams in use: let it read the one that is replaced as well."""
    if replaced is None or kept is None or info.container not in DISCONTINUOUS:
        return []
    return [source[str(replaced.index)].output("pipe:1", format="null", codec="copy")]


def _bytes_of(first: VideoFrames, rest: Iterator[VideoFrames]) -> Iterator[bytes]:
    yield first.i420.tobytes()
    number, shape = first.first_frame + len(first), first.i420.shape[1:]
    for batch in rest:
        if batch.first_frame != number:
            seconds = (batch.first_frame - number) / FPS
            raise MediaError(f"no pictures for {seconds:g} s after {number / FPS:g} s; forge a file without such a gap")
        if batch.i420.shape[1:] != shape:
            raise MediaError("the frames to be written change their size; please report this")
        number += len(batch)
        yield batch.i420.tobytes()


def _encode(streams: list[Any], options: dict[str, Any], more: list[Any], data: Iterator[bytes], target: Path) -> None:
    """Feed `data` to ffmpeg's standard input; `target` appears when all is written. `more`: outputs beside it."""
    import ffmpeg

    try:
        with replacing(target.absolute()) as file, tempfile.TemporaryFile() as log:
            output = ffmpeg.output(
                *streams, f"file:{file.name}", format="mp4", movflags="+faststart", map_metadata=-1, **options
            )
            flags = ("-hide_banner", "-nostats", "-v", "error", "-y")
            command = ffmpeg.merge_outputs(output, *more).global_args(*flags).compile(cmd=ffmpeg_path())
            process = _start(command, log)
            try:
                _feed(process, data)
                status = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if status:
                log.seek(0)
                raise _failure(log.read().decode("utf-8", "replace"), status, target)
    except OSError as error:
        raise MediaError(f"cannot write {target}: {error.strerror}; check the folder and the disk") from error


def _start(command: list[str], log: Any) -> subprocess.Popen[bytes]:
    # A clean environment: FFREPORT would write a log file. Its own session: Ctrl-C is ours to handle.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": log}
    try:
        return subprocess.Popen(command, env=environment | {"LC_ALL": "C"}, start_new_session=True, **pipes)
    except OSError as error:
        raise ToolError(f"cannot run {command[0]}: {error.strerror}; install ffmpeg or imageio-ffmpeg") from error


def _feed(process: subprocess.Popen[bytes], data: Iterator[bytes]) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            for part in data:
                pipe.write(part)
    except BrokenPipeError:
        pass  # ffmpeg has ended, and its log says why


def _failure(log: str, status: int, target: Path) -> MediaError | ToolError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any("Unknown encoder" in line for line in lines):
        return ToolError(f"this ffmpeg lacks an encoder ({lines[-1]}); `pip install imageio-ffmpeg` brings one")
    return MediaError(f"cannot write {target}: {lines[0] if lines else f'ffmpeg ended with status {status}'}")
