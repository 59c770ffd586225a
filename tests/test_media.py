"""Frames and samples: on one clock, upright, in the stated colours. All media are rendered: media_factory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from media_reading import frames_of, pixels_of, samples_of

from avdetect._media.commands import frame_size
from avdetect.config import MediaConfig
from avdetect.errors import MediaError
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.types import FPS, SAMPLE_RATE, yuv_to_rgb_matrix

FRAME = 1 / FPS


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
        *((f"clap.{ext}", 1.0, 1.0) for ext in ("mp4", "mkv", "webm", "ts", "avi", "mpg", "flv")),
        *((f"audio_late.{ext}", 1.0, 1.4) for ext in ("mp4", "mkv", "ts")),
        ("audio_late_pcm.mov", 1.0, 1.4),
        *((f"video_late.{ext}", 1.4, 1.0) for ext in ("mp4", "mkv", "flv")),
        *((f"fps{fps}.mp4", 1.0, 1.0) for fps in ("10", "60", "30000_1001")),
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


def test_gaps_of_sound_and_frames_missing_from_a_variable_rate_are_filled(media):
    assert len(samples_of(media("gap.mkv"))) == pytest.approx(2 * SAMPLE_RATE, abs=0.03 * SAMPLE_RATE)
    first, i420 = pixels_of(media("vfr.mp4"))
    assert first == 0
    assert len(i420) == pytest.approx(50, abs=1)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_a_window_gives_what_the_whole_gives(media, name):
    (first, frames), samples = pixels_of(media(name)), samples_of(media(name))
    for start, duration in ((0.0, 1.0), (3.48, 0.2), (11.6, 5.0)):
        number, window = pixels_of(media(name), start_seconds=start, duration_seconds=duration)
        low = max(0, round(start * FPS) - first)
        assert number == first + low
        np.testing.assert_array_equal(window, frames[low : round((start + duration) * FPS) - first])
        heard = samples_of(media(name), start_seconds=start, duration_seconds=duration)
        np.testing.assert_array_equal(heard, samples[round(start * SAMPLE_RATE) :][: round(duration * SAMPLE_RATE)])


def test_any_batch_size_gives_the_same_frames_and_a_window_past_the_end_none(media):
    expected_first, expected = pixels_of(media("clap.mp4"))
    for batch in (1, 7, 1000):
        first, frames = pixels_of(media("clap.mp4"), batch=batch)
        assert first == expected_first
        np.testing.assert_array_equal(frames, expected)
    with MediaReader(media("clap.mp4")) as reader:
        assert list(reader.audio(1.0, start_seconds=5.0)) == list(reader.video(start_seconds=5.0)) == []


# ---- geometry


@pytest.mark.parametrize(
    ("name", "max_side", "size"),
    [
        ("anamorphic.mkv", 1920, (84, 48)),  # 64 * 4 / 3 = 85.3, made even; pixels become square, no side shrinks
        ("tall.mkv", 1920, (64, 96)),
        ("odd.mkv", 1920, (64, 46)),
        ("odd444.mkv", 1920, (32, 30)),
        ("one_pixel.mkv", 1920, (2, 2)),
        ("wide.mkv", 200, (200, 14)),
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
    path = media("interlaced.mkv")
    assert probe(path).video.interlaced
    command = [ffmpeg_path(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    source = np.frombuffer(subprocess.run(command, capture_output=True).stdout, np.uint8).reshape(-1, 48, 64)
    # Combing shows as rows that differ from both neighbours.
    ours, theirs = (
        np.abs(2 * y[:, 1:-1] - y[:, :-2] - y[:, 2:]).mean()
        for y in (frames_of(path)[0].i420[:, :48].astype(float), source.astype(float))
    )
    assert ours < 0.3 * theirs


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
        ("gray.mkv", "bt601", False),
    ],
)
def test_colour_comes_out_as_it_went_in(media, name, matrix, full):
    batch = frames_of(media(name))[-1]
    assert (batch.color_matrix, batch.full_range) == (matrix, full)
    y, u, v = (float(np.median(plane)) for plane in batch.planes(0))
    rgb = yuv_to_rgb_matrix(batch.color_matrix, batch.full_range) @ np.array([y, u, v, 1])
    np.testing.assert_allclose(rgb, [120, 120, 120] if name == "gray.mkv" else [200, 60, 120], atol=4)


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


def test_which_streams_are_chosen(media):
    """The default one, then the largest picture and the most channels; cover art is no video."""
    for name in ("cover.mp3", "cover.m4a"):
        info = probe(media(name))
        assert (info.video, info.num_streams, info.audio is None) == (None, 2, False)
    assert probe(media("default_stream.mkv")).video.index == 0
    info = probe(media("many_streams.mkv"))
    assert (info.video.index, info.video.width, info.audio.index, info.audio.channels) == (1, 64, 3, 2)
    with MediaReader(media("silent_film.mp4")) as reader, pytest.raises(MediaError, match="no audio stream"):
        reader.audio(1.0)


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
