"""Ordinary files of ordinary people: wrapping, tags, tracks, channels and containers' crops change nothing else."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases_factory import with_clap, with_unknown_codec
from media_factory import RENDERER
from typer.testing import CliRunner

from avdetect._media import probe as probing
from avdetect._media import tool
from avdetect._media.channels import Mix
from avdetect.cli import app
from avdetect.config import MediaLimits
from avdetect.errors import LimitError, MediaError, ToolError
from avdetect.media import MediaReader, check_ffmpeg, ffmpeg_path, probe
from avdetect.types import SAMPLE_RATE, VideoFrames

LIMITS = MediaLimits(stall_seconds=20)
VOICE = "aevalsrc='0.5*sin(2*PI*440*t)*(0.6+0.4*sin(2*PI*3*t))':sample_rate=48000:duration=2"
BARS = "testsrc2=size=96x64:rate=25:duration=2"
H264 = "-c:v libx264 -pix_fmt yuv420p -g 12"


def render(target: Path, command: str) -> Path:
    """`command` is split at spaces; what must not be stands in the filters above."""
    parts = [VOICE if part == "VOICE" else BARS if part == "BARS" else part for part in command.split()]
    done = subprocess.run([RENDERER, "-v", "error", "-y", *parts, str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds of pictures and a tone that swells."""
    target = tmp_path_factory.mktemp("cases") / "clip.mp4"
    return render(target, f"-f lavfi -i BARS -f lavfi -i VOICE {H264} -c:a aac -b:a 128k -movflags faststart")


def frames_of(path: Path, **options) -> list[VideoFrames]:
    with MediaReader(path, limits=LIMITS) as reader:
        return list(reader.video(**options))


def pixels_of(path: Path) -> np.ndarray:
    return np.concatenate([batch.i420 for batch in frames_of(path)])


def samples_of(path: Path, chunk_seconds: float = 0.7, track: int | None = None, **options) -> np.ndarray:
    with MediaReader(path, limits=LIMITS, **options) as reader:
        return np.concatenate([chunk.samples for chunk in reader.audio(chunk_seconds, track=track)])


# ---- wrapping, tags, order


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("timecode.mp4", "-c copy -timecode 01:00:00:00"),
        ("timecode.mov", "-c copy -timecode 01:00:00:00"),
        *((f"{tag}.{ext}", f"-c copy -metadata:s:v language={tag} -metadata:s:a language={tag}")
          for tag in ("en-US", "zh-Hans", "sr-Latn-RS", "x", "(eng)", "[0x1]:") for ext in ("mkv", "mp4")),
        ("words.mkv", "-c copy -metadata title=Stream#0:0:Video:none -metadata:s:a title=Duration:00:00:99.0"),
        ("sound_first.mp4", "-map 0:a -map 0:v -c copy"),
        ("sound_first.mkv", "-map 0:a -map 0:v -c copy -disposition:a 0 -disposition:v 0"),
        ("chapters.mov", "-c copy -movflags +use_metadata_tags"),
    ],
)  # fmt: skip
def test_wrapping_and_tags_change_nothing(clip, tmp_path, name, command):
    path = render(tmp_path / name, f"-i {clip} {command}")
    info, original = probe(path), probe(clip)
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 96, 64)
    assert (info.video.fps, info.video.color_matrix, info.audio.codec) == (25, original.video.color_matrix, "aac")
    assert (len(info.videos), len(info.audios), info.unusable) == (1, 1, {})
    np.testing.assert_array_equal(pixels_of(path), pixels_of(clip))
    heard, before = samples_of(path), samples_of(clip)
    assert abs(len(heard) - len(before)) < 0.03 * SAMPLE_RATE
    assert np.corrcoef(heard[4000:28000], before[4000:28000])[0, 1] > 0.99


# ---- tracks


@pytest.fixture
def two_tracks(clip, tmp_path) -> Path:
    """A small picture and a large one; silence and the tone. The first of each is marked default."""
    return render(
        tmp_path / "two.mov",
        f"-f lavfi -i color=gray:size=32x32:rate=25:duration=2 -f lavfi -i anullsrc=duration=2 -i {clip} "
        f"-map 0 -map 2:v -map 1 -map 2:a {H264} -c:a aac -disposition:v:0 default -disposition:v:1 0 "
        "-disposition:a:0 default -disposition:a:1 0 -movflags faststart",
    )


def test_every_track_is_known_and_can_be_chosen(two_tracks):
    info = probe(two_tracks)
    assert [(video.track, video.width, video.is_default) for video in info.videos] == [(1, 32, True), (2, 96, False)]
    assert [(audio.track, audio.is_default) for audio in info.audios] == [(1, True), (2, False)]
    assert (info.video.track, info.audio.track) == (1, 1)
    with MediaReader(two_tracks, limits=LIMITS, video_track=2, audio_track=2) as reader:
        assert (reader.info.video.width, reader.info.audio.index, reader.warnings) == (96, 3, [])
        assert next(reader.video()).width == 96
    assert np.abs(samples_of(two_tracks)).max() < 0.001
    for heard in (samples_of(two_tracks, audio_track=2), samples_of(two_tracks, track=2)):
        assert np.abs(heard).max() > 0.3


def test_a_track_that_is_not_there_is_said(two_tracks, clip):
    for number in (0, 3, -1):
        with pytest.raises(MediaError, match=f"no audio track {number}: the file has 2 tracks"):
            MediaReader(two_tracks, audio_track=number)
    with pytest.raises(MediaError, match="no video track 2: the file has one track"):
        MediaReader(clip, video_track=2)
    with MediaReader(clip) as reader, pytest.raises(MediaError, match="no audio track 2"):
        reader.audio(1.0, track=2)


@pytest.mark.parametrize(("kind", "name", "used"), [("audio", b"mp4a", 2), ("video", b"avc1", 2)])
def test_a_track_that_nothing_decodes_is_passed_over_with_a_warning(two_tracks, tmp_path, kind, name, used):
    path = tmp_path / "unknown.mov"
    path.write_bytes(with_unknown_codec(two_tracks.read_bytes(), name))
    with MediaReader(path, limits=LIMITS) as reader:
        streams = {"audio": reader.info.audios, "video": reader.info.videos}[kind]
        chosen = {"audio": reader.info.audio, "video": reader.info.video}[kind]
        assert (chosen.track, streams[0].problem) == (used, "there is no decoder for it")
        assert reader.warnings == [f"{kind}: track 1 is passed over (there is no decoder for it); track {used} is read"]
        assert len(list(reader.video())) > 5
        assert len(list(reader.audio(1.0))) == 2
    with pytest.raises(MediaError, match=f"{kind} track 1 cannot be decoded"):
        MediaReader(path, **{f"{kind}_track": 1})


def test_what_was_passed_over_is_said_of_the_sound_that_is_read_in_the_end(two_tracks, tmp_path):
    path = render(tmp_path / "three.mov", f"-i {two_tracks} -map 0 -map 0:a:1 -c copy -disposition:a:1 default")
    path.write_bytes(with_unknown_codec(with_unknown_codec(path.read_bytes(), b"avc1"), b"mp4a"))
    with MediaReader(path, limits=LIMITS) as reader:
        assert reader.info.audio.track == 2
        reader.hear(3)
        assert reader.warnings == [
            f"{kind}: track 1 is passed over (there is no decoder for it); track {used} is read"
            for kind, used in (("video", 2), ("audio", 3))
        ]


def test_a_half_that_nothing_decodes_is_said_as_such(clip, tmp_path):
    path = tmp_path / "half.mp4"
    path.write_bytes(with_unknown_codec(clip.read_bytes(), b"mp4a"))
    with MediaReader(path, limits=LIMITS) as reader:
        assert (reader.info.audio, reader.info.unusable) == (None, {"audio": "there is no decoder for it"})
        with pytest.raises(MediaError, match="the audio cannot be decoded: there is no decoder"):
            reader.audio(1.0)
    path.write_bytes(with_unknown_codec(path.read_bytes(), b"avc1"))
    with pytest.raises(MediaError, match="cannot be decoded"):
        probe(path)


# ---- channels


@pytest.mark.parametrize(
    ("name", "command", "level"),
    [
        ("mono.wav", "-af pan=mono|c0=c0", 1.0),
        ("stereo.wav", "-af pan=stereo|c0=c0|c1=c0", 1.0),
        ("left.wav", "-af pan=stereo|c0=c0|c1=0*c0", 0.5),
        ("phase.wav", "-af pan=stereo|c0=c0|c1=-1*c0", 1.0),
        ("nearly.mkv", "-af pan=stereo|c0=c0|c1=-0.9*c0 -c:a flac", 1.0),
        ("surround_phase.mkv", "-af pan=5.1|FL=c0|FR=-1*c0 -c:a ac3", 1.0),
        ("ambisonic.mkv", "-af pan=4C|c0=c0|c1=-1*c0|c2=0*c0|c3=0*c0 -c:a libopus -mapping_family 2 -b:a 256k", 1.0),
        ("second_order.mkv", "-af pan=9C|c0=c0|c3=c0 -c:a libopus -mapping_family 2 -b:a 512k", 1.0),
        ("nine.wav", "-af pan=9C|c7=c0", 1.0),
        ("many.wav", "-af pan=32C|c30=c0", 1.0),
        ("discrete.mkv", "-af pan=4C|c0=c0|c1=-1*c0|c2=c0|c3=-1*c0 -c:a pcm_s16le", 1.0),
    ],
)
def test_the_voice_is_heard_whatever_the_channels(clip, tmp_path, name, command, level):
    heard = samples_of(render(tmp_path / name, f"-i {clip} -vn {command}"))
    reference = samples_of(clip)
    middle = slice(SAMPLE_RATE, SAMPLE_RATE * 3 // 2)  # behind the half second in which it was noticed
    assert heard[middle].std() == pytest.approx(level * reference[middle].std(), rel=0.06)
    assert heard[: SAMPLE_RATE // 2].std() > 0.3 * level * reference[: SAMPLE_RATE // 2].std()


def test_rumble_is_no_part_of_the_mean(tmp_path):
    path = render(tmp_path / "lfe.mkv", "-f lavfi -i VOICE -af pan=5.1|LFE=c0|FL=0.01*c0 -c:a flac")
    assert np.abs(samples_of(path)).max() < 0.02


def piped(signal: np.ndarray) -> Mix:
    """(n, channels) as ffmpeg pipes it."""
    data = memoryview(np.column_stack([signal.mean(axis=1), signal]).astype(np.float32).tobytes())
    at = 0

    def fill(buffer: np.ndarray) -> int:
        nonlocal at
        view = memoryview(buffer).cast("B")
        part = data[at : at + len(view)]
        view[: len(part)] = part
        at += len(part)
        return len(part)

    return Mix(fill, signal.shape[1] + 1)


def mixed(signal: np.ndarray, chunk: int) -> np.ndarray:
    mix, chunks = piped(signal), []
    while True:
        samples = np.empty(chunk, np.float32)
        count = mix.read(samples)
        chunks.append(samples[:count])
        if count < chunk:
            return np.concatenate(chunks)


def test_a_mean_that_cancels_later_gives_way_once_and_without_a_click():
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.5 * np.sin(2 * np.pi * 200 * time)
    other = np.where(time < 2, tone, -0.8 * tone)  # the second channel turns round; then it is whole again
    other[3 * SAMPLE_RATE :] = tone[3 * SAMPLE_RATE :]
    heard = mixed(np.column_stack([tone, other]), 12_345)
    np.testing.assert_allclose(heard[: 2 * SAMPLE_RATE], tone[: 2 * SAMPLE_RATE], atol=1e-6)
    np.testing.assert_allclose(heard[SAMPLE_RATE * 5 // 2 :], tone[SAMPLE_RATE * 5 // 2 :], atol=1e-6)
    # No step is larger than the tone's own and the turn of the channel itself (which the mean has too).
    assert np.abs(np.diff(heard)).max() < 2 * np.abs(np.diff(tone)).max()


@pytest.mark.parametrize("chunk", [1, 7_999, 8_000, 8_001, 64_000])
def test_chunks_do_not_change_the_mix(chunk):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(20_000 if chunk > 1 else 9_000, 3)).astype(np.float32)
    signal[:, 1] = -signal[:, 0] - signal[:, 2]
    np.testing.assert_array_equal(mixed(signal, chunk), mixed(signal, 5_000))


def test_silence_and_noise_that_nobody_hears_stay_the_mean():
    quiet = 1e-4 * np.random.default_rng(0).normal(size=20_000)
    assert not mixed(np.column_stack([quiet, -quiet]), 20_001).any()


# ---- pictures


def shown_by_ffmpeg(path: Path) -> np.ndarray:
    """(T, H * 3 // 2, W): as ffmpeg shows it by default, turned and cropped."""
    size = subprocess.run(
        [RENDERER, "-v", "error", "-i", path, "-map", "0:v", "-frames:v", "1", "-f", "framecrc", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    width, height = map(int, size.split("#dimensions 0: ")[1].split()[0].split("x"))
    command = [RENDERER, "-v", "error", "-i", path, "-map", "0:v", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height * 3 // 2, width)


@pytest.mark.parametrize("mirror", ["", "-display_hflip", "-display_vflip", "-display_hflip -display_vflip"])
@pytest.mark.parametrize("turn", ["0", "90", "180", "270"])
def test_turned_and_mirrored_pictures_are_those_of_a_player(clip, tmp_path, turn, mirror):
    path = render(tmp_path / "turned.mp4", f"-display_rotation {turn} {mirror} -i {clip} -map 0:v -c copy")
    video, expected = probe(path).video, shown_by_ffmpeg(path)
    assert (video.height * 3 // 2, video.width) == expected.shape[1:]
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.parametrize(
    ("width", "height", "right", "down"), [(64, 48, 0, 0), (64, 48, -8, 4), (90, 64, 0, 0), (32, 64, 20, 0)]
)
@pytest.mark.parametrize("ext", ["mp4", "mkv"])
def test_a_picture_that_the_container_crops_is_that_of_a_player(clip, tmp_path, ext, width, height, right, down):
    path = tmp_path / "clap.mp4"
    path.write_bytes(with_clap(clip.read_bytes(), width, height, right, down))
    if ext == "mkv":  # its muxer writes PixelCrop
        path = render(tmp_path / "crop.mkv", f"-i {path} -c copy")
    video = probe(path).video
    assert (video.width, video.height, video.coded_width, video.coded_height) == (width, height, 96, 64)
    expected = shown_by_ffmpeg(path)
    assert expected.shape[1:] == (height * 3 // 2, width)
    np.testing.assert_array_equal(pixels_of(path), expected)


def test_a_cropped_picture_is_turned_after_it_was_cropped(clip, tmp_path):
    flat = tmp_path / "flat.mp4"
    flat.write_bytes(with_clap(clip.read_bytes(), 64, 48, 8, 4))
    path = render(tmp_path / "turned.mkv", f"-display_rotation 90 -i {flat} -map 0:v -c copy")
    video = probe(path).video
    assert (video.width, video.height, video.rotation_degrees) == (48, 64, 270)
    upright = pixels_of(flat)[0, :48]
    np.testing.assert_array_equal(pixels_of(path)[0, :64], np.rot90(upright))


# ---- gaps


def gap(tmp_path: Path, seconds: float, ext: str) -> Path:
    later = f"setpts='if(gte(N,20),PTS+{seconds}/TB,PTS)'"
    target = tmp_path / f"gap.{ext}"
    lossless = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-g", "12"]  # the same pixels whatever the times
    command = ["-f", "lavfi", "-i", BARS, "-vf", later, "-fps_mode", "passthrough", *lossless]
    subprocess.run([RENDERER, "-v", "error", "-y", *command, str(target)], check=True, capture_output=True)
    return target


def stretches(batches: list[VideoFrames]) -> list[tuple[int, int]]:
    """(first frame, how many) of consecutive ones."""
    found: list[tuple[int, int]] = []
    for batch in batches:
        if found and sum(found[-1]) == batch.first_frame:
            found[-1] = found[-1][0], found[-1][1] + len(batch)
        else:
            found.append((batch.first_frame, len(batch)))
    return found


@pytest.mark.parametrize("ext", ["mp4", "mkv"])
@pytest.mark.parametrize("seconds", [0.5, 1, 2, 200, 10_000])
def test_a_picture_is_held_for_a_second_and_not_for_the_whole_gap(tmp_path, seconds, ext):
    path = gap(tmp_path, seconds, ext)
    missing, batches = round(seconds * 25), frames_of(path)
    if seconds <= 1:
        assert stretches(batches) == [(0, 50 + missing)]
    else:
        assert stretches(batches) == [(0, 44), (20 + missing, 30)]
    pixels = np.concatenate([batch.i420 for batch in batches])
    real = [*range(20), *range(len(pixels) - 30, len(pixels))]
    np.testing.assert_array_equal(pixels[real], pixels_of(gap(tmp_path, 0, ext)))


@pytest.mark.parametrize("ext", ["mp4", "mkv"])
@pytest.mark.parametrize(("start", "length"), [(0.4, 2), (1.2, 9), (3, 2), (7.5, 3), (8.8, 0.4), (9, 0.8), (9.96, 9)])
def test_a_window_gives_what_a_whole_read_gives_around_a_gap(tmp_path, ext, start, length):
    path = gap(tmp_path, 8, ext)
    first, stop = round(start * 25), round(start * 25) + round(length * 25)

    def numbered(batches: list[VideoFrames]) -> dict[int, bytes]:
        return {batch.first_frame + i: frame.tobytes() for batch in batches for i, frame in enumerate(batch.i420)}

    whole = {number: frame for number, frame in numbered(frames_of(path)).items() if first <= number < stop}
    assert numbered(frames_of(path, start_seconds=start, duration_seconds=length)) == whole


def test_a_last_picture_that_is_said_to_last_for_hours_is_held_for_a_second(tmp_path):
    path = render(tmp_path / "slides.mp4", f"-f lavfi -i testsrc2=size=64x48:rate=0.001:duration=3000 {H264}")
    assert stretches(frames_of(path)) == [(0, 25), (25_000, 25), (50_000, 25)]


@pytest.mark.parametrize("rate", [0.001, 0.4, 0.9, 1, 1.04, 2, 7.52, 24])
def test_large_pictures_do_not_block_the_times_that_number_them(tmp_path, rate):
    """One is more than a pipe holds: who waits for the next picture's time must read on."""
    path = render(tmp_path / "large.mp4", f"-f lavfi -i testsrc2=size=1280x720:rate={rate} -frames:v 4 {H264}")
    batches = frames_of(path)
    gaps = [round(1 / rate * 25 * i) for i in range(1, 4)]
    if rate < 0.95:
        first, count = stretches(batches)[-1]
        assert first == gaps[-1]
        assert count in (25, 26)
    else:
        ((first, count),) = stretches(batches)
        assert first == 0
        assert count == pytest.approx(4 / rate * 25, abs=1)


# ---- what cannot be read


def test_an_encrypted_file_is_said_to_be_encrypted(clip, tmp_path):
    key = "-encryption_scheme cenc-aes-ctr -encryption_key 00112233445566778899aabbccddeeff"
    path = render(tmp_path / "locked.mp4", f"-i {clip} -c copy {key} -encryption_kid 112233445566778899aabbccddeeff00")
    with pytest.raises(MediaError, match="is encrypted; give a copy without protection"):
        probe(path)


@pytest.mark.parametrize("address", ["http://x.org/a.mp4", "https:/x.org/a.mp4", "RTSP://10.0.0.1/live", "s3://b/k"])
def test_addresses_are_not_opened(monkeypatch, address):
    monkeypatch.setattr(probing.Child, "__init__", lambda *_: pytest.fail("it was opened"))
    for read in (probe, MediaReader):
        with pytest.raises(MediaError, match="addresses are not opened: download it first"):
            read(address)


# ---- a child that lies


@pytest.mark.parametrize(
    "says",
    [
        "print('{}')",
        "print('nonsense')",
        "print('[' * 100_000)",
        "print('{\"streams\": ' + '1' * 100_000 + '}')",
        'print(\'{"streams": [{"kind": "video", "codec": "h264", "width": -5, "height": 1e9}]}\')',
        'print(\'{"streams": [{"kind": 5}]}\')',
        "print('{\"duration\": NaN}')",
        "print('x' * 9_000_000)",
        "import sys; sys.exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import time; time.sleep(60)",
        "while True: print('x' * 10_000)",
        "import sys\nwhile True: print('x' * 10_000, file=sys.stderr)",
        "x = [bytearray(1 << 28) for _ in range(100)]",
    ],
)
def test_a_child_that_was_taken_over_gives_typed_errors(clip, tmp_path, monkeypatch, says):
    script = tmp_path / "describe.py"
    script.write_text(says)
    monkeypatch.setattr(probing, "_SCRIPT", script)
    with pytest.raises((MediaError, LimitError)) as caught:
        probe(clip, MediaLimits(stall_seconds=2, max_wall_seconds=3, max_memory_bytes=1 << 30))
    assert str(clip) in str(caught.value)
    assert len(str(caught.value)) < 1000


# ---- which ffmpeg


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A program called ffmpeg that does what it is told; the environment names it."""
    tool._checked.cache_clear()

    def make(lines: str) -> Path:
        script = tmp_path / "ffmpeg"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setenv(tool.VARIABLE, str(script))
        return script

    yield make
    tool._checked.cache_clear()


def test_the_carried_ffmpeg_comes_before_one_on_the_path(fake, monkeypatch):
    script = fake("exit 1")
    monkeypatch.delenv(tool.VARIABLE)
    monkeypatch.setenv("PATH", str(script.parent))
    tool._found.cache_clear()
    assert ffmpeg_path() == RENDERER
    tool._found.cache_clear()


def test_the_environment_chooses(clip, fake):
    script = fake(f'exec {RENDERER} "$@"')
    assert ffmpeg_path() == str(script)
    assert len(pixels_of(clip)) == 50
    assert check_ffmpeg().startswith("ffmpeg version")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("exit 1", "status 1"),
        ("echo 'error while loading shared libraries: libx264.so' >&2; exit 127", "libx264.so"),
        ("kill -SEGV $$", "status -11"),
        ("exit 0", "decodes nothing"),
        ("echo ffmpeg version 3.4", "decodes nothing"),
        # as ffmpeg 4 ends
        (f"for a; do [ $a = -fps_mode ] && echo 'Unrecognized option fps_mode.' >&2 && exit 1; done; {RENDERER} $@",
         "Unrecognized option fps_mode"),
    ],
)  # fmt: skip
def test_a_broken_or_old_ffmpeg_is_named(clip, fake, lines, says):
    script = fake(lines)
    with MediaReader(clip, limits=LIMITS) as reader, pytest.raises(ToolError, match=says) as caught:
        list(itertools.islice(reader.video(), 1))
    assert str(script) in str(caught.value)
    assert "max_memory_bytes" not in str(caught.value)


def test_an_ffmpeg_that_is_not_there_is_named(clip, monkeypatch):
    monkeypatch.setenv(tool.VARIABLE, "/nowhere/ffmpeg")
    with MediaReader(clip) as reader, pytest.raises(ToolError, match=r"/nowhere/ffmpeg is no program.*install"):
        next(reader.audio(1.0))


def test_the_option_chooses_for_all_that_is_started(clip, monkeypatch):
    monkeypatch.delenv(tool.VARIABLE, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the option writes into it
    done = CliRunner().invoke(app, ["score", "--ffmpeg", "/nowhere/ffmpeg", str(clip)])
    assert os.environ[tool.VARIABLE] == "/nowhere/ffmpeg"
    assert isinstance(done.exception, ToolError) or "/nowhere/ffmpeg is no program" in done.output
