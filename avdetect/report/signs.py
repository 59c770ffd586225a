"""Signs that a file was re-encoded or edited after the recording. None is proof, and their absence proves nothing:
nearly everything that was ever sent or uploaded was re-encoded, and who forges can write what he likes into a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avdetect.media import MediaInfo
from avdetect.report.facts import bits, tag

# Rates of cameras and of broadcasting.
_USUAL_RATES = (12, 15, 23.976, 24, 25, 29.97, 30, 47.952, 48, 50, 59.94, 60, 90, 100, 119.88, 120, 239.76, 240)
_USUAL_SAMPLE_RATES = (32_000, 44_100, 48_000, 88_200, 96_000, 192_000)
_APART_SECONDS = 0.1  # of stated starts; people notice about that much (ITU-R BT.1359)
_UNLIKE_SECONDS = 0.5  # of ends: encoders fill their last block, and containers round
# Bits a pixel and frame below which a camera does not record; newer codecs do with half.
_LOW_BITS = {"h264": 0.04, "mpeg4": 0.04, "hevc": 0.02, "vp9": 0.02, "av1": 0.02}
# What a tag begins with or holds -> what wrote it. Matched against encoder and handler tags.
_SOFTWARE = (
    (r"Lavf\d*", "the muxer of ffmpeg and of most online services: hardly a camera's own file"),
    (r"Lavc\d*", "an encoder run by ffmpeg: it was encoded by software, not by a camera"),
    (r"HandBrake", "a program that re-encodes videos"),
    (r".?Mainconcept|AVC Coding|Adobe", "as Adobe's editing programs write: exported, perhaps edited"),
    (r"DaVinci|Blackmagic Design DaVinci", "an editing program: exported, perhaps edited"),
    (r"ISO Media file produced by Google", "as YouTube writes: re-encoded there"),
    (r"Twitter-vork", "as Twitter/X writes: re-encoded there"),
    (r"GPAC", "a program that repacks files"),
)


def editing_signs(info: MediaInfo, video_end: float | None, audio_end: float | None) -> tuple[str, ...]:
    """A sentence for each sign.

    video_end, audio_end: seconds at which pictures and sound were found to end; None where there are none, or where
    they were not read to the end.
    """
    return (*_of_writers(info), *_of_times(info, video_end, audio_end), *_of_streams(info))


def _of_writers(info: MediaInfo) -> Iterator[str]:
    places: list[tuple[str, int | None]] = [("The file", None)]
    places += [(name, s.index) for name, s in (("The video", info.video), ("The audio", info.audio)) if s]
    said: set[str] = set()
    for place, stream in places:
        for name in ("encoder", "encoded_by", "software", "handler_name"):
            value = tag(info, name, stream)
            what = next((what for pattern, what in _SOFTWARE if value and re.match(pattern, value)), None)
            if what and what not in said:
                said.add(what)
                yield f'{place} is marked "{value}", {what}.'


def _of_times(info: MediaInfo, video_end: float | None, audio_end: float | None) -> Iterator[str]:
    late = info.audio.start_seconds - info.video.start_seconds if info.audio and info.video else 0.0
    if abs(late) > _APART_SECONDS:
        which = "after" if late > 0 else "before"
        yield (
            f"By the container's clock the sound starts about {abs(late):.2f} s {which} the picture: cut or joined "
            "without re-encoding, or a recorder that starts its halves one after the other."
        )
    if video_end is not None and audio_end is not None and abs(video_end - audio_end) > _UNLIKE_SECONDS:
        yield (
            f"The picture ends at {video_end:.2f} s and the sound at {audio_end:.2f} s: one of them may have been cut "
            "or exchanged."
        )


def _of_streams(info: MediaInfo) -> Iterator[str]:
    video, audio = info.video, info.audio
    if video and video.fps:
        # Containers state means, and two decimals.
        if not any(abs(video.fps - usual) <= 0.011 * usual for usual in _USUAL_RATES):
            yield (
                f"{video.fps:g} pictures a second is no usual rate: a converted file, a screen recording, or a phone "
                "whose rate varies."
            )
        spent = (video.bit_rate or 0) / (video.coded_width * video.coded_height * video.fps)
        if 0 < spent < _LOW_BITS.get(video.codec, 0):
            yield (
                f"{bits(video.bit_rate or 0)} is little for {video.width} × {video.height} pixels ({spent:.3f} bits a "
                "pixel): compressed harder than cameras do, which also wipes out traces of manipulation."
            )
    if video and audio and audio.sample_rate not in _USUAL_SAMPLE_RATES:
        yield (
            f"The sound is stored at {audio.sample_rate} Hz, which cameras do not use: resampled, from a telephone, or "
            "from speech software."
        )
