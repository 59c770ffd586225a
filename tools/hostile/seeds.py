"""The good files that bad ones are made of: 1.2 seconds of the sample clip in every format that avdetect takes."""

from __future__ import annotations

import shlex
from pathlib import Path

from hostile.case import run_ffmpeg

SAMPLE = Path(__file__).parents[2] / "avdetect" / "weights" / "sample" / "sample.mp4"
SECONDS = 1.2  # long enough for a face track
_X264 = "-c:v libx264 -preset veryfast -crf 32 -g 12 -bf 2 -pix_fmt yuv420p"
_H264 = f"{_X264} -c:a aac -b:a 32k"
_SMALL = "-vf scale=176:144"  # for codecs whose files are large, or that take few sizes

FILES: dict[str, str] = {
    "seed.mp4": _H264,
    "fast.mp4": f"{_H264} -movflags faststart",
    "fragments.mp4": f"{_H264} -movflags frag_keyframe+empty_moov+default_base_moof",
    "dash.mp4": f"{_H264} -movflags dash -frag_duration 300000",
    "seed.mov": f"{_SMALL} -c:v mjpeg -q:v 12 -c:a pcm_s16le",
    "seed.mkv": f"{_X264} -c:a libopus -b:a 24k -cluster_time_limit 400",
    "seed.webm": "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 150k -c:a libvorbis",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 150k -c:a libopus -b:a 24k",
    "seed.avi": f"{_SMALL} -c:v mpeg4 -q:v 8 -c:a pcm_s16le",
    "mp3.avi": f"{_SMALL} -c:v mpeg4 -q:v 8 -c:a libmp3lame -b:a 32k",
    "seed.ts": _H264,
    "seed.mpg": f"{_SMALL} -c:v mpeg2video -q:v 8 -c:a mp2",
    "seed.flv": f"{_H264} -ar 22050",
    "seed.ogv": f"{_SMALL} -c:v libtheora -q:v 4 -c:a libvorbis",
    "seed.asf": f"{_SMALL} -c:v wmv2 -b:v 150k -c:a wmav2",
    "seed.mxf": f"{_SMALL} -c:v mpeg2video -b:v 200k -c:a pcm_s16le -ar 48000",
    "seed.nut": f"{_SMALL} -c:v mpeg4 -q:v 8 -c:a libmp3lame -b:a 32k",
    "seed.m4v": f"{_SMALL} -an -c:v mpeg4 -q:v 8",
    "seed.h264": f"{_X264} -an",
    "seed.hevc": "-an -c:v libx265 -preset ultrafast -crf 34 -x265-params log-level=none:pools=1:frame-threads=1",
    "seed.obu": "-an -c:v libaom-av1 -cpu-used 8 -usage realtime -b:v 100k -f obu",
    "seed.ivf": "-an -c:v libvpx -deadline realtime -cpu-used 8 -b:v 100k",
    "seed.gif": "-an -vf fps=5,scale=96:96",
    "seed.wav": "-vn -ar 16000 -ac 1",
    "seed.w64": "-vn -ar 16000 -ac 1",
    "seed.aiff": "-vn -ar 16000 -ac 1",
    "seed.caf": "-vn -ar 16000 -ac 1",
    "seed.au": "-vn -ar 16000 -ac 1",
    "seed.mp3": "-vn -b:a 32k",
    "seed.aac": "-vn -b:a 32k",
    "seed.flac": "-vn -ar 16000 -ac 1",
    "seed.ogg": "-vn -c:a libvorbis",
    "seed.opus": "-vn -c:a libopus -b:a 24k -f ogg",
    "seed.m4a": "-vn -c:a alac -ar 16000 -ac 1",
    "seed.ac3": "-vn -b:a 64k",
    "seed.eac3": "-vn -b:a 64k",
    "seed.amr": "-vn -ar 8000 -ac 1 -c:a libopencore_amrnb",
}


def render(folder: Path) -> Path:
    """Make the seeds that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in FILES.items():
        if not (folder / name).exists():
            run_ffmpeg(["-t", str(SECONDS), "-i", SAMPLE, *shlex.split(options)], folder / name)
    return folder
