"""Descriptions of files that nobody made: as the child that reads a header writes them."""

import json
from pathlib import Path
from typing import Any

from avdetect._media.facts import info_of, parsed
from avdetect.config import MediaLimits
from avdetect.media import MediaInfo, VideoStream

VIDEO: dict[str, Any] = {
    **{"kind": "video", "default": True, "cover": False, "start": [0, 1], "tags": {}, "codec": "h264"},
    **{"bit_rate": 17_000_000, "width": 1920, "height": 1080, "pix_fmt": "yuv420p", "rate": [30, 1]},
    **{"sample_aspect": [1, 1], "color_space": 2, "color_range": 0, "field_order": 1, "decodes": True},
}
AUDIO: dict[str, Any] = {
    **{"kind": "audio", "default": True, "cover": False, "start": [0, 1], "tags": {}, "codec": "aac"},
    **{"bit_rate": 128_000, "sample_rate": 48_000, "channels": 2, "channel_layout": "stereo", "decodes": True},
}


def described(*streams: dict[str, Any], limits: MediaLimits | None = None, **facts: Any) -> MediaInfo:
    """What follows of a file of these streams. Raises MediaError, LimitError."""
    document = {"container": "mov,mp4", "streams": streams, "streams_found": len(streams)} | facts
    found = parsed(json.dumps(document).encode())
    assert found is not None
    return info_of(Path("x"), limits or MediaLimits(), found)


def video_facts(**changes: Any) -> VideoStream:
    video = described(VIDEO | changes).video
    assert video is not None
    return video
