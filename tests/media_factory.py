"""Test media, rendered by ffmpeg when a test first asks for it. Every fixture is the command that makes it.

`{name}` in a command stands for another fixture, `{out}` for the file to write. The motif of the timing fixtures is one
film clap: the picture flashes white and the sound clicks at second 1.0 of the source, both for 80 ms.
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg

# Always the binary of imageio-ffmpeg, while the tests read with the one that users get (`ffmpeg_path`): the commands
# need options of ffmpeg 6, and the same bytes come out whatever stands on PATH.
RENDERER = imageio_ffmpeg.get_ffmpeg_exe()


def encode(target: Path, *options: str) -> Path:
    """What ffmpeg makes of these options."""
    subprocess.run([RENDERER, "-v", "error", "-y", *options, str(target)], check=True)
    return target


SIZE = "64x48"
FLASH = "drawbox=enable='between(t,0.999,1.079)':color=white:thickness=fill"
CLICK = "aevalsrc='between(t,1,1.08)*0.9*sin(2*PI*1000*t)':sample_rate=48000:duration=2"
TONE = "sine=frequency=440:duration=2"


def clap(codecs: str, fps: str = "25", video: str = "", audio: str = "", more: str = "") -> str:
    """A command for 2 s of clap; `video` and `audio` are options before the inputs, `more` before the output."""
    return (
        f'{video} -f lavfi -i "color=black:size={SIZE}:rate={fps}:duration=2,{FLASH}" '
        f'{audio} -f lavfi -i "{CLICK}" {codecs} {more} {{out}}'
    )


H264 = "-c:v libx264 -g 12 -bf 3 -pix_fmt yuv420p"
MP4 = f"{H264} -c:a aac"


def solid(color: str, options: str, chain: str = "null", size: str = SIZE) -> str:
    return f'-f lavfi -i "color={color}:size={size}:rate=25:duration=0.4,{chain}" {options} {{out}}'


def colored(matrix: str, scale_range: str, pix_fmt: str, codec: str) -> str:
    """Solid RGB (200, 60, 120), converted and tagged."""
    spaces = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}
    tags = f"-colorspace {spaces[matrix]} -color_range {scale_range}"
    chain = f"format=gbrp,scale=out_color_matrix={matrix}:out_range={scale_range},format={pix_fmt}"
    return solid("0xC83C78", f"{codec} {tags}", chain)


X264 = "-c:v libx264 -qp 1 -preset ultrafast"
COMMANDS: dict[str, str] = {
    # one clock
    "clap.mp4": clap(MP4),
    "clap.mkv": clap(f"{H264} -c:a libopus"),
    "clap.webm": clap("-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
    "clap.ts": clap(MP4),
    "clap.avi": clap("-c:v mpeg4 -c:a pcm_s16le"),
    "clap_mp3.avi": clap("-c:v mpeg4 -c:a mp3"),
    "clap.mpg": clap("-c:v mpeg2video -bf 2 -c:a mp2"),
    "clap.flv": clap(MP4),
    **{f"audio_late.{ext}": clap(MP4, audio="-itsoffset 0.4") for ext in ("mp4", "mkv", "ts")},
    "audio_late_pcm.mov": clap(f"{H264} -c:a pcm_s16le", audio="-itsoffset 0.4"),
    **{f"video_late.{ext}": clap(MP4, video="-itsoffset 0.4") for ext in ("mp4", "mkv", "flv")},
    # both halves cut at 0.5 s without re-encoding: the edit list hides what the decoder needs from before
    "edited.mp4": "-ss 0.5 -i {clap.mp4} -c copy {out}",
    "shifted.ts": "-i {clap.mp4} -c copy -output_ts_offset 1000 {out}",
    "fragmented.mp4": clap(MP4, more="-movflags frag_keyframe+empty_moov"),
    **{f"fps{fps.replace('/', '_')}.mp4": clap(MP4, fps) for fps in ("10", "30000/1001")},
    # frames at irregular times; the flash begins exactly at 1.0 s, 0.5-0.9 s has no frame at all
    "vfr.mp4": clap(f"-vf \"select='not(between(t,0.5,0.95))*not(eq(mod(n,4),1))'\" -fps_mode vfr {MP4}", "30"),
    "vfr.mkv": clap(f"-vf \"select='not(between(t,0.5,0.95))*not(eq(mod(n,4),1))'\" -fps_mode vfr {MP4}", "30"),
    # the sound stops at 0.3 s and goes on at 0.8 s
    "gap.mkv": clap(f"-af \"aselect='not(between(t,0.3,0.8))'\" {H264} -c:a pcm_s16le"),
    "long.mp4": f'-f lavfi -i "testsrc2=size=320x180:rate=30:duration=6" -f lavfi -i "sine=300:duration=6,vibrato" '
    f"{H264} -preset ultrafast -g 50 -c:a aac {{out}}",
    "long.mkv": "-i {long.mp4} -c copy {out}",
    "faststart.mp4": "-i {long.mp4} -c copy -movflags faststart {out}",
    "long.ts": "-i {long.mp4} -c copy {out}",
    # geometry
    "quadrants.mp4": f'-f lavfi -i "color=black:size={SIZE}:rate=25:duration=0.4,'
    f'drawbox=w=32:h=24:color=white:thickness=fill" {X264} {{out}}',
    "rotated90.mp4": "-display_rotation 90 -i {quadrants.mp4} -c copy {out}",
    "anamorphic.mkv": solid("gray", "-c:v libx264 -pix_fmt yuv420p", "setsar=4/3"),
    "tall.mkv": solid("gray", "-c:v libx264 -pix_fmt yuv420p", "setsar=1/2"),
    "odd.mkv": solid("gray", "-c:v ffv1 -pix_fmt yuv420p", size="65x47"),
    "one_pixel.mkv": solid("gray", "-c:v ffv1 -pix_fmt yuv420p", size="1x1"),
    "wide.mkv": solid("gray", "-c:v libx264 -pix_fmt yuv420p", size="402x30"),
    "interlaced.mkv": f'-f lavfi -i "color=black:size={SIZE}:rate=50:duration=0.4,'
    f"geq=lum='255*between(X,mod(N*5,40),mod(N*5,40)+20)':cb=128:cr=128\" "
    f"-vf tinterlace=interleave_top -c:v libx264 -flags +ildct+ilme -pix_fmt yuv420p {{out}}",
    "small.ts": solid("red", f"{H264} -muxdelay 0", size="64x48"),
    "large.ts": solid("blue", f"{H264} -muxdelay 0 -output_ts_offset 0.48", size="96x80"),
    # colour
    "limited601.mp4": colored("bt601", "tv", "yuv420p", X264),
    "full709.mp4": colored("bt709", "pc", "yuv420p", X264),
    "full601.avi": solid("0xC83C78", "-c:v mjpeg -q:v 1"),
    "ten_bit2020.mkv": colored("bt2020", "tv", "yuv420p10le", X264),
    "full_444.mkv": colored("bt709", "pc", "yuv444p", X264),
    "rgb.mkv": solid("0xC83C78", "-c:v ffv1 -pix_fmt gbrp"),
    "gray.mkv": solid("0x787878", "-c:v ffv1 -pix_fmt gray"),
    # streams
    "silent_film.mp4": solid("gray", f"{X264} -pix_fmt yuv420p"),
    **{
        f"hollow.{ext}": f'-f lavfi -i "color=gray:size={SIZE}:rate=25:duration=1" -f lavfi -i "{TONE}" '
        f'-filter_complex "[1:a]atrim=end=0[none]" -map 0 -map "[none]" {H264} -c:a aac {more} {{out}}'
        for ext, more in (("mkv", ""), ("mp4", "-movflags empty_moov+frag_keyframe"))
    },
    "tone.wav": f'-f lavfi -i "{TONE}" {{out}}',
    "tone.mp3": f'-f lavfi -i "{TONE}" {{out}}',
    "tone.ogg": f'-f lavfi -i "{TONE}" -c:a libvorbis {{out}}',
    "tone.aac": f'-f lavfi -i "{TONE}" {{out}}',
    "cover.m4a": f'-f lavfi -i "{TONE}" -f lavfi -i "color=red:size=32x32" -map 0 -map 1 -frames:v 1 -c:v mjpeg '
    "-disposition:v attached_pic {out}",
    # 0.25 s of 1.5 s, and NaN: what no encoder should write
    "wild.wav": "-f lavfi -i \"aevalsrc='if(between(t,0.2,0.25),0/0,4*sin(2*PI*440*t))':duration=1\" "
    "-c:a pcm_f32le {out}",
    "many_streams.mkv": f'-f lavfi -i "color=gray:size=32x32:duration=0.2" '
    f'-f lavfi -i "color=gray:size={SIZE}:duration=0.2" -f lavfi -i "{TONE}" '
    "-map 0 -map 1 -map 2 -map 2 -c:v libx264 -c:a pcm_s16le -ac:a:1 2 "
    "-disposition:0 0 -disposition:1 0 -disposition:2 0 -disposition:3 0 {out}",
    "default_stream.mkv": f'-f lavfi -i "color=gray:size=32x32:duration=0.2" '
    f'-f lavfi -i "color=gray:size={SIZE}:duration=0.2" -map 0 -map 1 -c:v libx264 '
    "-disposition:v:0 default -disposition:v:1 0 {out}",
    "video.h264": f'-f lavfi -i "color=gray:size={SIZE}:rate=25:duration=2" {H264} {{out}}',
}


def _damaged(factory: MediaFactory) -> bytes:
    """Random bytes over a stretch in the middle."""
    data = bytearray(factory("clap.ts").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = random.Random(0).randbytes(3000)
    return bytes(data)


def _cut(name: str, factory: MediaFactory, part: float = 0.4) -> bytes:
    """The first 40 % of a file."""
    data = factory(name).read_bytes()
    return data[: int(len(data) * part)]


def _avi_without(factory: MediaFactory, chunk: bytes) -> bytes:
    """The payload of one stream's chunks is zeros."""
    data = bytearray(factory("clap_mp3.avi").read_bytes())
    at, end = data.index(b"movi") + 4, data.rindex(b"idx1")
    while at < end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == chunk:
            data[at + 8 : at + 8 + size] = bytes(size)
        at += 8 + size + size % 2
    return bytes(data)


def _ts_without(factory: MediaFactory, program_id: int) -> bytes:
    """The payload of one stream's packets is zeros but for the PES headers; the others keep their late timestamps."""
    data = bytearray(factory("shifted.ts").read_bytes())
    for packet in range(0, len(data), 188):
        if int.from_bytes(data[packet + 1 : packet + 3], "big") & 0x1FFF != program_id:
            continue
        at = packet + 4 + (1 + data[packet + 4] if data[packet + 3] & 0x20 else 0)
        if data[packet + 1] & 0x40:
            at += 9 + data[at + 8]
        data[at : packet + 188] = bytes(packet + 188 - at)
    return bytes(data)


MADE: dict[str, Callable[[MediaFactory], bytes]] = {
    "size_change.ts": lambda factory: factory("small.ts").read_bytes() + factory("large.ts").read_bytes(),
    "damaged.ts": _damaged,
    "cut.mp4": lambda factory: _cut("faststart.mp4", factory),
    "cut.mkv": lambda factory: _cut("long.mkv", factory),
    "blind.avi": lambda factory: _avi_without(factory, b"00dc"),
    "deaf.avi": lambda factory: _avi_without(factory, b"01wb"),
    "blind.ts": lambda factory: _ts_without(factory, 0x100),
    "deaf.ts": lambda factory: _ts_without(factory, 0x101),
    "truncated.mkv": lambda factory: _cut("long.mkv", factory, 0.5),
    "truncated.ts": lambda factory: _cut("long.ts", factory, 0.5),
    "headless.mp4": lambda factory: _cut("long.mp4", factory, 0.5),  # moov was at the end
    "truncated.mp4": lambda factory: _cut("faststart.mp4", factory, 0.5),
    "empty.mp4": lambda factory: b"",
    "text.mp4": lambda factory: b"This is not a film.\n" * 50,
}


class MediaFactory:
    """`factory("clap.mp4")` is the path of that fixture, rendered once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        path = self.folder / name
        if path.exists():
            return path
        if name in MADE:
            path.write_bytes(MADE[name](self))
            return path
        command = re.sub(r"\{([\w.]+)\}", lambda m: str(path if m[1] == "out" else self(m[1])), COMMANDS[name])
        common = [RENDERER, "-hide_banner", "-nostdin", "-v", "error", "-y"]
        # Fixed threads and no version strings: the same bytes on every machine with the same ffmpeg.
        output = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
        arguments = shlex.split(command)
        if "+ildct+ilme" in arguments:
            output = output[:4]
        done = subprocess.run([*common, *arguments[:-1], *output, arguments[-1]], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}\n{command}")
        return path
