"""Frames and samples: on one clock, upright, in the stated colours. All media are rendered: media_factory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avdetect._media.commands import frame_size
from avdetect.config import MediaConfig
from avdetect.errors import MediaError
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.types import FPS, SAMPLE_RATE, VideoFrames, yuv_to_rgb_matrix

FRAME = 1 / FPS


def frames_of(path: Path, config: MediaConfig | None = None, **window) -> list[VideoFrames]:
    with MediaReader(path, config) as reader:
        return list(reader.video(**window))


def pixels_of(path: Path, **window) -> tuple[int, np.ndarray]:
    """(number of the first frame, all frames)."""
    batches = frames_of(path, **window)
    numbers = [batch.first_frame for batch in batches]
    ends = [batch.first_frame + len(batch) for batch in batches]
    assert numbers[1:] == ends[:-1], "batches are consecutive"
    return numbers[0], np.concatenate([batch.i420 for batch in batches])


def samples_of(path: Path, chunk_seconds: float = 0.5, **window) -> np.ndarray:
    with MediaReader(path) as reader:
        chunks = list(reader.audio(chunk_seconds, **window))
    for before, after in itertools.pairwise(chunks):
        assert len(before.samples) == round(chunk_seconds * SAMPLE_RATE)
        assert after.start_seconds == pytest.approx(before.start_seconds + before.duration_seconds)
    return np.concatenate([chunk.samples for chunk in chunks])


def flash_seconds(path: Path) -> float:
    first, i420 = pixels_of(path)
    height = i420.shape[1] * 2 // 3
    return (first + int(np.argmax(i420[:, :height].mean(axis=(1, 2)) > 128))) / FPS


def click_seconds(path: Path) -> float:
    return int(np.argmax(np.abs(samples_of(path)) > 0.3)) / SAMPLE_RATE


# ---- one clock


@pytest.mark.parametrize(
    ("name", "flash", "click"),
    [
        *((f"clap.{ext}", 1.0, 1.0) for ext in ("mp4", "mov", "mkv", "webm", "ts", "avi", "mpg", "flv")),
        *((f"audio_late.{ext}", 1.0, 1.4) for ext in ("mp4", "mov", "mkv", "ts", "flv")),
        ("audio_late_pcm.mov", 1.0, 1.4),
        *((f"video_late.{ext}", 1.4, 1.0) for ext in ("mp4", "mov", "mkv", "ts", "flv")),
        *((f"fps{fps}.mp4", 1.0, 1.0) for fps in ("10", "24", "30", "50", "60", "30000_1001")),
        ("edited.mp4", 0.5, 0.5),
        ("shifted.ts", 1.0, 1.0),
        ("fragmented.mp4", 1.08, 1.08),  # its muxer writes no edit list for the B-frames: both halves are 80 ms later
        ("vfr.mp4", 1.0, 1.0),
        ("vfr.mkv", 1.0, 1.0),
        ("gap.mkv", 1.0, 1.0),
    ],
)
def test_flash_and_click_stand_where_they_were_put(media, name, flash, click):
    path = media(name)
    flash_error, click_error = flash_seconds(path) - flash, click_seconds(path) - click
    # MPEG streams, FLV and B-frames may begin their clock with the codec's priming or reordering: both halves alike.
    assert flash_error == pytest.approx(0, abs=FRAME + 1e-6)
    assert click_error == pytest.approx(0, abs=0.01 if path.suffix not in (".ts", ".mpg", ".flv") else FRAME)
    assert flash_error - click_error == pytest.approx(0, abs=FRAME + 0.01)


def test_late_audio_is_zero_filled_and_says_where_it_starts(media):
    with MediaReader(media("audio_late_pcm.mov")) as reader:
        samples = np.concatenate([chunk.samples for chunk in reader.audio(1.0)])
        assert reader.audio_start_seconds == pytest.approx(0.4, abs=1e-3)
    assert not samples[: int(0.39 * SAMPLE_RATE)].any()


@pytest.mark.parametrize("name", ["video_late.mp4", "video_late.mkv", "video_late.mov"])
def test_no_frame_stands_before_the_first_real_one(media, name):
    with MediaReader(media(name)) as reader:
        batches = list(reader.video())
        assert reader.video_start_seconds == pytest.approx(0.4, abs=FRAME)
    assert batches[0].start_seconds == reader.video_start_seconds
    assert batches[0].first_frame in (9, 10, 11)


def test_a_gap_in_the_sound_stays_a_gap(media):
    samples = samples_of(media("gap.mkv"))
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=0.03 * SAMPLE_RATE)


def test_frames_missing_from_a_variable_rate_are_held(media):
    first, i420 = pixels_of(media("vfr.mp4"))
    assert first == 0
    assert len(i420) == pytest.approx(50, abs=1)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
@pytest.mark.parametrize(("start", "duration"), [(0.0, 1.0), (3.48, 0.2), (7.0, 1.28), (11.6, 5.0)])
def test_a_window_gives_what_the_whole_gives(media, whole_reads, name, start, duration):
    (first, frames), samples = whole_reads(name)
    number, window = pixels_of(media(name), start_seconds=start, duration_seconds=duration)
    low = max(0, round(start * FPS) - first)
    assert number == first + low
    np.testing.assert_array_equal(window, frames[low : round((start + duration) * FPS) - first])
    heard = samples_of(media(name), start_seconds=start, duration_seconds=duration)
    np.testing.assert_array_equal(heard, samples[round(start * SAMPLE_RATE) :][: round(duration * SAMPLE_RATE)])


@pytest.fixture(scope="module")
def whole_reads(media):
    read: dict[str, tuple] = {}

    def get(name):
        if name not in read:
            read[name] = (pixels_of(media(name)), samples_of(media(name)))
        return read[name]

    return get


def test_a_window_past_the_end_is_empty(media):
    assert frames_of(media("clap.mp4"), start_seconds=5.0) == []
    with MediaReader(media("clap.mp4")) as reader:
        assert list(reader.audio(1.0, start_seconds=5.0)) == []


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_any_batch_size_gives_the_same_frames(media, batch):
    first, frames = pixels_of(media("clap.mp4"), batch=batch)
    expected_first, expected = pixels_of(media("clap.mp4"))
    assert first == expected_first
    np.testing.assert_array_equal(frames, expected)


# ---- geometry


def white_quadrant(path: Path) -> tuple[str, tuple[int, int]]:
    frames = frames_of(path)[0]
    y = frames.planes(0)[0]
    top, left = (y[: frames.height // 2], y[:, : frames.width // 2])
    where = ("top" if top.mean() > 100 else "bottom") + (" left" if left.mean() > 100 else " right")
    return where, (frames.width, frames.height)


@pytest.mark.parametrize(
    ("name", "where", "size", "clockwise"),
    [
        ("quadrants.mp4", "top left", (64, 48), 0),
        ("rotated90.mp4", "bottom left", (48, 64), 270),
        ("rotated180.mp4", "bottom right", (64, 48), 180),
        ("rotated270.mp4", "top right", (48, 64), 90),
    ],
)
def test_rotated_pictures_are_shown_upright(media, name, where, size, clockwise):
    assert white_quadrant(media(name)) == (where, size)
    video = probe(media(name)).video
    assert (video.width, video.height, video.rotation_degrees) == (*size, clockwise)


@pytest.mark.parametrize(
    ("name", "max_side", "size"),
    [
        ("anamorphic.mkv", 1920, (84, 48)),  # 64 * 4 / 3 = 85.3, made even; pixels become square, no side shrinks
        ("tall.mkv", 1920, (64, 96)),
        ("odd.mkv", 1920, (64, 46)),
        ("odd444.mkv", 1920, (32, 30)),
        ("one_pixel.mkv", 1920, (2, 2)),
        ("wide.mkv", 200, (200, 14)),
        ("clap.mp4", 32, (32, 24)),
        ("rotated90.mp4", 32, (24, 32)),
        ("clap.mp4", 640, (64, 48)),  # never enlarged
    ],
)
def test_size(media, name, max_side, size):
    frames = frames_of(media(name), MediaConfig(max_side=max_side))
    assert {(batch.width, batch.height) for batch in frames} == {size}
    assert frame_size(probe(media(name)).video, max_side) == size


def test_a_change_of_size_in_mid_stream_keeps_framing_and_clock(media):
    first, frames = pixels_of(media("size_change.ts"))
    assert frames.shape[1:] == (72, 64)
    assert (first, len(frames)) == (0, 20)
    luma = frames[:, :48].mean(axis=(1, 2))
    assert np.all(np.abs(luma[:9] - luma[0]) < 2)  # red
    assert np.all(np.abs(luma[11:] - luma[-1]) < 2)  # blue
    assert luma[0] - luma[-1] > 20


def test_interlaced_video_is_deinterlaced(media):
    info = probe(media("interlaced.mkv"))
    assert info.video.interlaced
    # Combing shows as rows that differ from both neighbours: it is strong in the source, not in what we read.
    y = frames_of(media("interlaced.mkv"))[0].i420[:, :48].astype(float)
    raw = subprocess.run(
        [ffmpeg_path(), "-v", "error", "-i", media("interlaced.mkv"), "-f", "rawvideo", "-pix_fmt", "gray", "-"],
        capture_output=True,
    ).stdout
    source = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64).astype(float)
    assert _combing(y) < 0.3 * _combing(source)


def _combing(y: np.ndarray) -> float:
    return float(np.abs(2 * y[:, 1:-1] - y[:, :-2] - y[:, 2:]).mean())


# ---- colour


@pytest.mark.parametrize(
    ("name", "matrix", "full"),
    [
        ("limited601.mp4", "bt601", False),
        ("limited709.mp4", "bt709", False),
        ("full709.mp4", "bt709", True),
        ("full601.avi", "bt601", True),
        ("full709.webm", "bt709", True),
        ("ten_bit709.mkv", "bt709", False),
        ("ten_bit2020.mkv", "bt2020", False),
        ("full_444.mkv", "bt709", False),  # converted, so limited
        ("rgb.mkv", "bt601", False),
        ("bgra.mkv", "bt601", False),
    ],
)
def test_colour_comes_out_as_it_went_in(media, name, matrix, full):
    batch = frames_of(media(name))[-1]
    assert (batch.color_matrix, batch.full_range) == (matrix, full)
    y, u, v = (float(np.median(plane)) for plane in batch.planes(0))
    rgb = yuv_to_rgb_matrix(batch.color_matrix, batch.full_range) @ np.array([y, u, v, 1])
    np.testing.assert_allclose(rgb, [200, 60, 120], atol=4)


def test_palette(media):
    assert frames_of(media("gif.gif"))[0].full_range is False


def test_gray_comes_out_as_it_went_in(media):
    batch = frames_of(media("gray.mkv"))[0]
    y, u, v = (float(np.median(plane)) for plane in batch.planes(0))
    rgb = yuv_to_rgb_matrix(batch.color_matrix, batch.full_range) @ np.array([y, u, v, 1])
    np.testing.assert_allclose(rgb, [120, 120, 120], atol=3)


# ---- streams


@pytest.mark.parametrize("ext", ["wav", "mp3", "m4a", "flac", "ogg", "aac"])
def test_audio_alone(media, ext):
    with MediaReader(media(f"tone.{ext}")) as reader:
        assert reader.info.video is None
        samples = np.concatenate([chunk.samples for chunk in reader.audio(12.0)])
        with pytest.raises(MediaError, match="no video stream"):
            reader.video()
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=0.06 * SAMPLE_RATE)
    middle = samples[SAMPLE_RATE // 2 : SAMPLE_RATE * 3 // 2]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("ext", ["mp3", "m4a"])
def test_cover_art_is_no_video(media, ext):
    info = probe(media(f"cover.{ext}"))
    assert info.video is None
    assert info.audio is not None
    assert info.num_streams == 2


def test_video_alone(media):
    with MediaReader(media("silent_film.mp4")) as reader:
        assert reader.info.audio is None
        with pytest.raises(MediaError, match="no audio stream"):
            reader.audio(1.0)


def test_one_frame(media):
    first, frames = pixels_of(media("one_frame.mp4"))
    assert (first, len(frames)) == (0, 1)


def test_the_largest_picture_and_the_most_channels_are_chosen(media):
    info = probe(media("many_streams.mkv"))
    assert (info.video.index, info.video.width, info.audio.index, info.audio.channels) == (1, 64, 3, 2)


def test_the_default_stream_is_chosen_before_the_largest(media):
    assert probe(media("default_stream.mkv")).video.index == 0


def test_mixing_down_keeps_the_level(media):
    assert np.abs(samples_of(media("stereo.wav"))).max() == pytest.approx(0.8, abs=0.02)
    assert probe(media("surround.mkv")).audio.channels == 6
    assert 0.02 < np.abs(samples_of(media("surround.mkv"))).max() <= 1


def test_wild_samples_are_tamed(media):
    samples = samples_of(media("wild.wav"))
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() == pytest.approx(4, abs=0.1)  # float sound above full scale stays as it is
    assert samples.dtype == np.float32


def test_what_a_header_says(media):
    info = probe(media("clap.mp4"))
    assert (info.container, info.num_streams) == ("mov", 2)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.05)
    assert (info.video.codec, info.video.fps, info.audio.codec, info.audio.sample_rate) == ("h264", 25, "aac", 48000)


def test_importing_media_is_light():
    heavy = ("ffmpeg", "imageio_ffmpeg", "torch", "cv2", "yaml", "urllib.request")
    code = f"import sys, avdetect.media; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
