"""The few metadata tags of a file that say who wrote it, from the header that ffmpeg prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Names in lower case. Everything else (titles, comments, places) is the file's own affair.
KEPT = frozenset(
    (
        *("major_brand", "creation_time", "encoder", "encoded_by", "handler_name", "software", "make", "model"),
        *("com.apple.quicktime.software", "com.apple.quicktime.make", "com.apple.quicktime.model"),
        *("com.android.version", "com.android.manufacturer", "com.android.model"),
    )
)
MAX_TAGS = 64
MAX_LENGTH = 100  # characters of a value
_TAG = re.compile(r" {4,16}([\w.]{1,40}) *: (\S.*)")


@dataclass(frozen=True)
class Tag:
    """What a file says of itself, in its own words: anything may stand there, so show it escaped."""

    stream: int | None  # index of the stream that it belongs to; None: the container
    name: str  # one of KEPT
    value: str  # at most MAX_LENGTH characters


def read_tags(lines: list[str]) -> tuple[Tag, ...]:
    """The tags in the lines that ffmpeg prints of its input, the first of each name and place.

    Container tags come first, down to the line of the duration; a stream's follow its line. What stands between
    (programs, chapters) is of neither.
    """
    found: dict[tuple[int | None, str], Tag] = {}
    stream, inside = None, True
    for line in lines:
        if line.startswith(("Output #", "Stream mapping")) or len(found) == MAX_TAGS:
            break
        if match := re.match(r"  Stream #0:(\d{1,9})\b", line):
            stream, inside = int(match[1]), True
        elif re.match(r"  (Duration|Chapters|Program)\b", line):
            inside = False
        elif inside and (match := _TAG.match(line)) and (name := match[1].lower()) in KEPT:
            found.setdefault((stream, name), Tag(stream, name, match[2].strip()[:MAX_LENGTH]))
    return tuple(found.values())
