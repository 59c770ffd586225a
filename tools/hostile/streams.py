"""Extremes that ffmpeg can make: sizes, rates, formats, lengths, numbers of streams and of other things."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.case import Case, Place, run_ffmpeg

# Drawn at one size, since testsrc2 itself draws no picture of one pixel.
_VIDEO = '-f lavfi -i "testsrc2=size=64x64:rate={rate}:duration={seconds},scale={size}"'
_TONE = '-f lavfi -i "sine=440:duration={seconds}:sample_rate={rate}"'
_BLACK = '-f lavfi -i "color=black:size={size}:rate={rate}:duration={seconds}"'


def _video(size: str, rate: str = "25", seconds: float = 0.4) -> str:
    return _VIDEO.format(size=size, rate=rate, seconds=seconds)


def _tone(rate: int = 16000, seconds: float = 1) -> str:
    return _TONE.format(rate=rate, seconds=seconds)


_SIZES = {
    **{f"ffv1 {size}": f"{_video(size)} -c:v ffv1 |mkv" for size in ("1x1", "1x2", "3x1", "33x31")},
    **{f"png {size}": f"{_video(size)} -c:v png |mov" for size in ("1x1", "16000x1", "1x16000", "5x3")},
    **{f"mjpeg {size}": f"{_video(size)} -c:v mjpeg |avi" for size in ("1x1", "17x1", "8192x8", "8x8192")},
    **{f"raw {size}": f"{_video(size)} -c:v rawvideo -pix_fmt yuv420p |nut" for size in ("1x1", "7x5", "16384x2")},
    **{f"gif {size}": f"{_video(size)} |gif" for size in ("1x1", "9000x1", "1x9000")},
    **{f"vp8 {size}": f"{_video(size)} -c:v libvpx |webm" for size in ("1x1", "16x2", "2000x2")},
    **{f"h264 {size}": f"{_video(size)} -c:v libx264 -pix_fmt yuv444p |mp4" for size in ("1x1", "2x2", "4096x16")},
    **{f"h264 of {side} px": f"{_BLACK.format(size=f'{side}x{side}', rate=25, seconds=0.08)} -c:v libx264 "
       "-preset ultrafast -pix_fmt yuv420p |mp4" for side in (2000, 4096)},
    "hevc 2048x2048": f"{_BLACK.format(size='2048x2048', rate=25, seconds=0.04)} -c:v libx265 -preset ultrafast "
    "-x265-params log-level=none:pools=1:frame-threads=1 |mp4",
    "vp9 2048x2048": f"{_BLACK.format(size='2048x2048', rate=25, seconds=0.04)} -c:v libvpx-vp9 -cpu-used 8 "
    "-deadline realtime |webm",
    "av1 1024x1024": f"{_BLACK.format(size='1024x1024', rate=25, seconds=0.04)} -c:v libaom-av1 -cpu-used 8 "
    "-usage realtime |mkv",
    **{f"aspect {sar}": f"{_video('64x48')} -vf setsar={sar} -c:v ffv1 |mkv" for sar in (
        "1000/1", "1/1000", "65535/1", "1/65535", "2147483647/1", "1/2147483647", "4097/4096")},
}  # fmt: skip
_FORMATS = {
    f"pixels {name}": f"{_video('32x24')} -c:v {codec} -pix_fmt {name} |nut"
    for codec, names in {
        "rawvideo": "rgb48be gray16le ya8 pal8 monob monow uyvy422 nv12 yuv410p rgb444le bgr8 xyz12le gbrpf32le "
        "yuva420p16le p010le ya16be yuv440p rgba64le gbrap16le grayf32le x2rgb10le nv24 yuv411p",
        "ffv1": "yuva444p16le gbrap12le gray10le bgr0",
    }.items()
    for name in names.split()
}
_RATES = {
    **{f"{rate} fps": f"{_video('32x24', rate, seconds)} -c:v ffv1 |mkv" for rate, seconds in {
        "1/1000": 3000, "1/20": 60, "1": 10, "239.76": 1, "1000": 1, "100000": 0.01, "90000/7": 0.1}.items()},
    **{f"avi of {rate} fps": f"{_video('32x24', rate, 1)} -c:v mpeg4 -q:v 9 |avi"
       for rate in ("1", "500", "30000/1001")},
    "one frame": f"{_video('32x24')} -frames:v 1 -c:v ffv1 |mkv",
    "one frame and half a minute of sound": f"{_video('32x24', '1', 1)} {_tone(8000, 29)} -c:v ffv1 -c:a flac |mkv",
    "one sample": f"{_tone()} -af atrim=end_sample=1 |wav",
    "29 s of one frame": f"{_BLACK.format(size='64x48', rate='1/29', seconds=29)} -c:v libx264 |mp4",
    **{f"sound of {rate} Hz": f"{_tone(rate)} -c:a {codec} |{suffix}" for rate, codec, suffix in (
        (4000, "pcm_s16le", "wav"), (768000, "pcm_s16le", "wav"), (192000, "flac", "flac"), (655350, "flac", "flac"),
        (384000, "pcm_f32le", "caf"), (7350, "aac", "mp4"), (96000, "aac", "mp4"), (48000, "libopus", "mkv"))},
    **{f"{n} channels": f'-f lavfi -i "anullsrc=channel_layout={n}c:sample_rate=16000:duration=1" -c:a pcm_s16le |{s}'
       for n, s in ((3, "wav"), (16, "mov"), (16, "mkv"))},
    "5.1 and 7.1": f"{_tone()} -filter_complex [0]asplit[a][b] -map [a] -ac:0 6 -map [b] -ac:1 8 -c:a flac |mkv",
    "the picture changes its size": f"{_video('32x24')} -vf \"scale='32+2*n:24+2*n':eval=frame\" -c:v mjpeg |avi",
    "the picture grows": f"{_video('64x48')} -vf \"scale='64*pow(2,floor(n/2)):48*pow(2,floor(n/2))':eval=frame\" "
    "-frames:v 9 -c:v mjpeg |nut",
}  # fmt: skip
_LONG = {
    "hours of black": f"{_BLACK.format(size='64x48', rate='1', seconds=36000)} -c:v libx264 -preset ultrafast "
    "-g 9999 |mp4",
    "hours of black, no duration": f"{_BLACK.format(size='64x48', rate='1', seconds=9000)} -c:v libx264 "
    "-preset ultrafast -g 9999 -f matroska -live 1 |mkv",
    "hours of silence": '-f lavfi -i "anullsrc=sample_rate=8000:channel_layout=mono:duration=5000" |flac',
    "hours of silence, no length": '-f lavfi -i "anullsrc=sample_rate=8000:channel_layout=mono:duration=400" -f ogg '
    "-c:a libopus -b:a 6k |ogg",
    "an hour in mp3": '-f lavfi -i "anullsrc=sample_rate=8000:channel_layout=mono:duration=3000" -b:a 8k '
    "-write_xing 0 |mp3",
    "25 s of noise": '-f lavfi -i "testsrc2=size=160x120:rate=50:duration=25" -f lavfi -i "anoisesrc=d=25:r=16000" '
    "-c:v mpeg4 -q:v 20 -c:a aac -b:a 24k |mp4",
    "a gif of many frames": f"{_BLACK.format(size='320x240', rate='50', seconds=20)} |gif",
    "2000 keyframes": f"{_BLACK.format(size='16x16', rate='200', seconds=10)} -c:v mpeg4 -g 1 -q:v 31 |avi",
}


def streams() -> Iterator[Case]:
    """Odd sizes, formats, rates and lengths."""
    for family, commands in (("sizes and formats", _SIZES | _FORMATS), ("rates and lengths", _RATES), ("long", _LONG)):
        for name, command in commands.items():
            yield Case(family, name, partial(_rendered, command), only_bytes=True)
    yield from timestamps()


def _rendered(command: str, place: Place) -> Path:
    options, _, suffix = command.rpartition("|")
    return run_ffmpeg(shlex.split(options), place.folder / f"case.{suffix}")


# What the bitstream filter `setts` makes of a packet's times: N is its number, PTS and DTS are what it has.
_TIMES = {
    "forward {}": "if(gte(N,15),{key}+{}/TB,{key})",
    "back {}": "if(gte(N,15),{key}-{}/TB,{key})",
    "late {}": "{key}+{}/TB",
    "early {}": "{key}-{}/TB",
}
_SHAPES = {
    "all at zero": "0",
    "all at one": "1/TB",
    "none": "NOPTS",
    "none later": "if(gte(N,10),NOPTS,{key})",
    "backwards": "(40-N)*0.04/TB",
    "to and fro": "{key}+mod(N,2)*10/TB",
    "doubling": "pow(2,N)",
    "random": "random(1)*20/TB",
    "close together": "N",
    "sawtooth": "mod({key},0.2/TB)",
    "far and near": "if(mod(N,7),{key},4e9)",
    "negative": "-{key}",
    "top": "9.2e18",
    "bottom": "-9.2e18",
}


def timestamps() -> Iterator[Case]:
    """Times that jump, go back, stand still, overflow or are missing; of the video, of the sound, of both."""
    shapes = dict(_SHAPES)
    for name, shape in _TIMES.items():
        for seconds in ("1", "20", "3600", "95000", "1e9", "1e13"):
            shapes[name.format(seconds)] = shape.replace("{}", seconds)
    for source in ("seed.mp4", "seed.mkv", "seed.ts", "seed.avi", "seed.nut", "seed.flv", "seed.ogv"):
        for number, (name, shape) in enumerate(shapes.items()):
            which = ("v", "a", "va")[number % 3]
            label = f"{source} {which} {name}"
            yield Case("timestamps", label, partial(_retimed, source, which, shape), only_bytes=True)


def _retimed(source: str, which: str, shape: str, place: Place) -> Path:
    options = ["-copyts", "-i", place.seeds / source, "-c", "copy"]
    for kind in which:
        expressions = (f"{part}={shape.replace('{key}', key)}" for part, key in (("pts", "PTS"), ("dts", "DTS")))
        options += [f"-bsf:{kind}", "setts=" + ":".join(e.replace(",", r"\,") for e in expressions)]
    out = place.folder / f"case.{source.rpartition('.')[2]}"
    try:
        return run_ffmpeg([*options, "-max_interleave_delta", "0", "-avoid_negative_ts", "disabled"], out)
    except RuntimeError:  # the muxer stopped: what it had written is a case too
        if not out.exists():
            out.write_bytes(place.seed(source)[:1000])
        return out
