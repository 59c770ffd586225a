"""What a file says of itself, as a person reads it. Whatever a file wrote itself is escaped."""

from __future__ import annotations

from collections.abc import Iterator

from avdetect.media import AudioStream, MediaInfo, VideoStream
from avdetect.report.data import printable
from avdetect.report.evidence import Fact

_CONTAINERS = {"mov": "MP4 / QuickTime", "matroska": "Matroska / WebM", "mpegts": "MPEG transport stream"}


def media_facts(info: MediaInfo) -> tuple[Fact, ...]:
    """What the header of a file states, and nothing that was measured."""
    return tuple(Fact(name, value) for name, value in _facts(info))


def tag(info: MediaInfo, name: str, stream: int | None = None) -> str | None:
    """A tag of the container, or of a stream, printable."""
    return next((printable(t.value) for t in info.tags if t.name == name and t.stream == stream), None)


def _facts(info: MediaInfo) -> Iterator[tuple[str, str]]:
    brand = tag(info, "major_brand")
    container = _CONTAINERS.get(info.container, printable(info.container))
    yield "container", f"{container} (brand {brand.strip()})" if brand else container
    yield "duration", "not stated" if info.duration_seconds is None else f"{info.duration_seconds:.2f} s"
    if info.bit_rate:
        yield "bit rate", bits(info.bit_rate)
    for kind, streams, used_one in (("video", info.videos, info.video), ("audio", info.audios, info.audio)):
        if used_one and len(streams) > 1:
            yield f"{kind} tracks", f"{len(streams)}, of which track {used_one.track} is judged"
    if info.video:
        yield from _video(info.video)
    if info.audio:
        yield from _audio(info.audio)
    used = (info.video is not None) + (info.audio is not None)
    if info.num_streams > used:
        yield "streams", f"{info.num_streams}, of which {used} {'is' if used == 1 else 'are'} read"
    yield from _writers(info)


def _video(video: VideoStream) -> Iterator[tuple[str, str]]:
    size = f"{video.width} × {video.height}"
    stored = f"{video.coded_width} × {video.coded_height}"
    yield "video", f"{printable(video.codec)}, {size} pixels" + ("" if stored == size else f" (stored as {stored})")
    yield "frame rate", f"{video.fps:g} a second" if video.fps else "not stated"
    turned = f"{video.rotation_degrees}° clockwise, to be shown upright" if video.rotation_degrees else "none"
    yield "rotation", turned
    yield "scan", "interlaced" if video.interlaced else "progressive, or not stated"
    levels = "full range" if video.full_range else "limited range"
    yield "pixel format", f"{printable(video.pix_fmt)}, read as {video.color_matrix}, {levels}"
    if video.bit_rate:
        yield "video bit rate", bits(video.bit_rate)
    if video.start_seconds:
        yield "video starts at", f"{video.start_seconds:.3f} s"


def _audio(audio: AudioStream) -> Iterator[tuple[str, str]]:
    channels = "1 channel" if audio.channels == 1 else f"{audio.channels} channels"
    yield "audio", f"{printable(audio.codec)}, {channels} ({printable(audio.channel_layout)[:40]})"
    yield "sample rate", f"{audio.sample_rate} Hz"
    if audio.bit_rate:
        yield "audio bit rate", bits(audio.bit_rate)
    if audio.start_seconds:
        yield "audio starts at", f"{audio.start_seconds:.3f} s"


def _writers(info: MediaInfo) -> Iterator[tuple[str, str]]:
    """Who wrote the file, as far as it says."""
    labels = {"encoder": "written by", "encoded_by": "encoded by", "creation_time": "created, it says"}
    for name, label in labels.items():
        if value := tag(info, name):
            yield label, value
    device = [value for value in _device(info) if value]
    if device:
        yield "device, it says", " ".join(device)
    for stream, kind in ((info.video, "video"), (info.audio, "audio")):
        if stream and (encoder := tag(info, "encoder", stream.index)):
            yield f"{kind} encoder", encoder
        if stream and (handler := tag(info, "handler_name", stream.index)):
            yield f"{kind} handler", handler


def _device(info: MediaInfo) -> Iterator[str | None]:
    for names in (
        ("make", "com.apple.quicktime.make", "com.android.manufacturer"),
        ("model", "com.apple.quicktime.model", "com.android.model"),
        ("software", "com.apple.quicktime.software", "com.android.version"),
    ):
        yield next((value for name in names if (value := tag(info, name))), None)


def bits(rate: int) -> str:
    """A bit rate as people write it."""
    return f"{rate / 1e6:.1f} Mbit/s" if rate >= 1_000_000 else f"{rate / 1000:.0f} kbit/s"
