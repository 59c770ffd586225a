"""What a file says of itself, as a person reads it. Whatever a file wrote itself is escaped."""

from avdetect.media import AudioStream, MediaInfo, VideoStream
from avdetect.report.data import printable

_CONTAINERS = {"mov": "MP4 / QuickTime", "matroska": "Matroska / WebM", "mpegts": "MPEG transport stream"}
_DEVICE = (
    ("make", "com.apple.quicktime.make", "com.android.manufacturer"),
    ("model", "com.apple.quicktime.model", "com.android.model"),
    ("software", "com.apple.quicktime.software", "com.android.version"),
)


def media_facts(info: MediaInfo) -> dict[str, str]:
    """Name -> value: what the header of a file states, and nothing that was measured."""
    brand = _tag(info, "major_brand")
    container = _CONTAINERS.get(info.container, printable(info.container))
    facts = {
        "container": f"{container} (brand {brand.strip()})" if brand else container,
        "duration": "not stated" if info.duration_seconds is None else f"{info.duration_seconds:.2f} s",
    }
    if info.bit_rate:
        facts["bit rate"] = _bits(info.bit_rate)
    for kind, streams, used in (("video", info.videos, info.video), ("audio", info.audios, info.audio)):
        if used and len(streams) > 1:
            facts[f"{kind} tracks"] = f"{len(streams)}, of which track {used.track} is judged"
    if info.video:
        facts |= _video(info.video)
    if info.audio:
        facts |= _audio(info.audio)
    read = (info.video is not None) + (info.audio is not None)
    if info.num_streams > read:
        facts["streams"] = f"{info.num_streams}, of which {read} {'is' if read == 1 else 'are'} read"
    return facts | _writers(info)


def _tag(info: MediaInfo, name: str, stream: int | None = None) -> str | None:
    return next((printable(t.value) for t in info.tags if t.name == name and t.stream == stream), None)


def _bits(rate: int) -> str:
    return f"{rate / 1e6:.1f} Mbit/s" if rate >= 1_000_000 else f"{rate / 1000:.0f} kbit/s"


def _video(video: VideoStream) -> dict[str, str]:
    size, stored = f"{video.width} × {video.height}", f"{video.coded_width} × {video.coded_height}"
    levels = "full range" if video.full_range else "limited range"
    facts = {
        "video": f"{printable(video.codec)}, {size} pixels{'' if stored == size else f' (stored as {stored})'}",
        "frame rate": f"{video.fps:g} a second" if video.fps else "not stated",
        "rotation": f"{video.rotation_degrees}° clockwise, to be shown upright" if video.rotation_degrees else "none",
        "scan": "interlaced" if video.interlaced else "progressive, or not stated",
        "pixel format": f"{printable(video.pix_fmt)}, read as {video.color_matrix}, {levels}",
    }
    return facts | _rate_and_start("video", video)


def _audio(audio: AudioStream) -> dict[str, str]:
    channels = "1 channel" if audio.channels == 1 else f"{audio.channels} channels"
    facts = {
        "audio": f"{printable(audio.codec)}, {channels} ({printable(audio.channel_layout)[:40]})",
        "sample rate": f"{audio.sample_rate} Hz",
    }
    return facts | _rate_and_start("audio", audio)


def _rate_and_start(kind: str, stream: VideoStream | AudioStream) -> dict[str, str]:
    rate = {f"{kind} bit rate": _bits(stream.bit_rate)} if stream.bit_rate else {}
    return rate | ({f"{kind} starts at": f"{stream.start_seconds:.3f} s"} if stream.start_seconds else {})


def _writers(info: MediaInfo) -> dict[str, str]:
    parts = ([value for name in names if (value := _tag(info, name))] for names in _DEVICE)
    found = {
        "written by": _tag(info, "encoder"),
        "encoded by": _tag(info, "encoded_by"),
        "created, it says": _tag(info, "creation_time"),
        "device, it says": " ".join(values[0] for values in parts if values),
    }
    for kind, stream in (("video", info.video), ("audio", info.audio)):
        if stream:
            found[f"{kind} encoder"] = _tag(info, "encoder", stream.index)
            found[f"{kind} handler"] = _tag(info, "handler_name", stream.index)
    return {name: value for name, value in found.items() if value}
