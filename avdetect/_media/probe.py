"""What a file holds: PyAV, in a confined child (`describe.py`), finds the facts."""

import importlib
import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path

from avdetect._media.child import Child
from avdetect._media.facts import Facts, StreamFacts, info_of, parsed, too_many
from avdetect._media.ffmpeg import Decoder
from avdetect._media.info import MediaInfo
from avdetect._media.messages import no_memory, quoted, telling, unreadable
from avdetect.config import MediaLimits
from avdetect.errors import MediaError, ToolError

_SCRIPT = Path(__file__).with_name("describe.py")
_MAX_BYTES = 4_000_000  # of a description
_CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6, "5.1(side)": 6}
_OUTLINE = re.compile(rb"#(\w{1,40}) (\d{1,4}): (.{1,100})")


class _Describer(Child):
    name = "the description of the file"
    remedy = "check the Python installation"

    @property
    def readable(self) -> tuple[str, ...]:
        """The script, and PyAV with its libraries, wherever they are installed."""
        package = Path(_pyav()).parent
        return str(_SCRIPT), str(package), str(package.with_name("av.libs"))

    def facts(self) -> bytes:
        options = {name: str(value) for name, value in self.options.items()}
        options["max_streams"] = str(self.limits.max_streams + 1)  # one more than may be, so that it shows
        self.run([sys.executable, "-I", "-S", "-B", str(_SCRIPT), _pyav(), self.url, json.dumps(options)])
        text = self.output(_MAX_BYTES)
        if len(text) < _MAX_BYTES:
            self.finish()
        return text


@cache
def _pyav() -> str:
    """The package's __init__.py."""
    found = importlib.util.find_spec("av")
    if found is None or not found.origin:
        raise ToolError("PyAV is missing, which reads what is in a file: run `pip install av`")
    return found.origin


def read_info(
    path: Path, limits: MediaLimits, video_track: int | None = None, audio_track: int | None = None
) -> MediaInfo:
    """What the file at `path` holds, and which of its tracks (from 1) are read. Raises MediaError, LimitError,
    ToolError."""
    with _Describer(path, limits) as child:
        facts = parsed(child.facts())
        status = child.status
    if facts is None:  # it ended early
        _check_pyav()
        raise no_memory(path, limits, _Describer.name, status)
    if facts.error is not None and facts.streams_found > limits.max_streams:
        raise too_many(path, limits, facts.streams_found)
    if facts.error == "InvalidDataError":
        facts = _outline(path, limits) or facts
    if facts.error is not None:
        raise _failure(path, limits, facts)
    return info_of(path, limits, facts, video_track, audio_track)


def _outline(path: Path, limits: MediaLimits) -> Facts | None:
    """The streams of a file at which PyAV gives up, since one of them is damaged from its beginning; None if ffmpeg, as
    the demuxer, gives up too. They have fewer facts, and no container's name."""
    with Decoder(path, limits, "audio or video") as child:
        child.start([], None, ["-map", "0", "-c", "copy", "-copy_unknown", "-t", "0", "-f", "framecrc", "pipe:1"])
        text = child.output(_MAX_BYTES)
    streams: dict[int, dict[str, str]] = {}
    for line in text.split(b"\n"):
        if match := _OUTLINE.fullmatch(line):
            streams.setdefault(int(match[2]), {})[match[1].decode()] = match[3].decode("ascii", "replace")
    found = tuple(_outlined(streams[index]) for index in sorted(streams))
    return Facts(streams=found, streams_found=len(found)) if found else None


def _outlined(stream: dict[str, str]) -> StreamFacts:
    def pair(name: str) -> tuple[int, int]:
        first, second, *_ = [*map(int, re.findall(r"\d{1,9}", stream.get(name, ""))), 0, 0]
        return first, second

    width, height = pair("dimensions")
    layout = stream.get("channel_layout_name", "")
    return StreamFacts(
        kind=stream.get("media_type", ""),
        codec=stream.get("codec_id"),
        width=width,
        height=height,
        sample_aspect=pair("sar"),
        sample_rate=pair("sample_rate")[0],
        channel_layout=layout,
        channels=_CHANNELS.get(layout, 1),
    )


def _check_pyav() -> None:
    """Without a file and without limits, so neither is to blame."""
    try:
        importlib.import_module("av")
    except ImportError as error:
        raise ToolError(f"PyAV cannot be imported ({error}): run `pip install --force-reinstall av`") from error


def _failure(path: Path, limits: MediaLimits, facts: Facts) -> MediaError:
    if facts.error in ("ImportError", "ModuleNotFoundError", "MemoryError"):
        _check_pyav()
        return no_memory(path, limits, _Describer.name, None)
    if facts.error == "ArgumentError":  # libavformat's for a format that is not on the list, before it reads any more
        return MediaError(
            f"{quoted(path)} is a picture, or in a format that is not read: pictures are not judged; convert video and "
            "sound to mp4, mkv, wav ... first"
        )
    return unreadable(path, "audio or video", telling(facts.log) if facts.log else facts.error or "")
