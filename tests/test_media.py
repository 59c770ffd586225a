"""Frames and samples: on one clock, upright, in the stated colours. All media are rendered: media_factory."""

import subprocess

import numpy as np
import pytest
from media_reading import frames_of, numbered, pixels_of, samples_of

from avdetect._media.commands import frame_size
from avdetect.config import MediaConfig
from avdetect.errors import MediaError
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.types import FPS, SAMPLE_RATE, yuv_to_rgb_matrix

FRAME = 1 / FPS


# ---- one clock


@pytest.mark.parametrize(
    ("name", "flash", "click"),
    [
        *((f"clap.{ext}", 1.0, 1.0) for ext in ("mp4", "mkv", "webm", "ts", "avi", "mpg", "flv")),
        *((name, 1.0, 1.4) for name in ("audio_late.mp4", "audio_late.ts", "audio_late_pcm.mov")),
        *((f"video_late.{ext}", 1.4, 1.0) for ext in ("mkv", "flv")),
        *((f"fps{fps}.mp4", 1.0, 1.0) for fps in ("10", "30000_1001")),
        ("edited.mp4", 0.5, 0.5),
        ("shifted.ts", 1.0, 1.0),
        ("fragmented.mp4", 1.08, 1.08),  # its muxer writes no edit list for the B-frames: both halves are 80 ms later
        ("vfr.mp4", 1.0, 1.0),
        ("gap.mkv", 1.0, 1.0),
    ],
)
def test_flash_and_click_stand_where_they_were_put(media, name, flash, click):
    path = media(name)
    with MediaReader(path) as reader:
        batches = list(reader.video())
        (heard,) = reader.audio(60.0)
    light = np.concatenate([batch.i420[:, : batch.height].mean(axis=(1, 2)) for batch in batches])
    flash_error = (batches[0].first_frame + int(np.argmax(light > 128))) / FPS - flash
    click_error = int(np.argmax(np.abs(heard.samples) > 0.3)) / SAMPLE_RATE - click
    if name in ("vfr.mp4", "gap.mkv"):  # frames that are missing and gaps of sound are filled
        assert (batches[0].first_frame, len(light)) == (0, pytest.approx(50, abs=1))
        assert len(heard.samples) == pytest.approx(2 * SAMPLE_RATE, abs=0.03 * SAMPLE_RATE)
    # MPEG streams, FLV and B-frames may begin their clock with the codec's priming or reordering: both halves alike.
    assert flash_error == pytest.approx(0, abs=FRAME + 1e-6)
    assert click_error == pytest.approx(0, abs=0.01 if path.suffix not in (".ts", ".mpg", ".flv") else FRAME)
    assert flash_error - click_error == pytest.approx(0, abs=FRAME + 0.01)


@pytest.mark.parametrize("name", ["long.mp4", "long.ts"])
def test_a_window_gives_what_the_whole_gives(media, name):
    with MediaReader(media(name)) as reader:
        frames, (sound,) = numbered(reader.video()), reader.audio(60.0)
        for start, duration in ((0.0, 1.0), (3.48, 0.2), (5.6, 5.0)):
            window = {"start_seconds": start, "duration_seconds": duration}
            inside = range(round(start * FPS), round((start + duration) * FPS))
            assert numbered(reader.video(**window)) == {n: frame for n, frame in frames.items() if n in inside}
            (heard,) = reader.audio(60.0, **window)
            expected = sound.samples[round(start * SAMPLE_RATE) :][: round(duration * SAMPLE_RATE)]
            np.testing.assert_array_equal(heard.samples, expected)


def test_any_batch_size_gives_the_same_frames_and_a_window_past_the_end_none(media):
    with MediaReader(media("clap.mp4")) as reader:
        one, seven, all_of_them = (list(reader.video(batch=size)) for size in (1, 7, 1000))
        assert [len(batch) for batch in seven] == [7] * 7 + [1]
        for batches in (one, seven):
            assert batches[0].first_frame == all_of_them[0].first_frame
            np.testing.assert_array_equal(np.concatenate([b.i420 for b in batches]), all_of_them[0].i420)
        assert list(reader.audio(1.0, start_seconds=5.0)) == list(reader.video(start_seconds=5.0)) == []


# ---- geometry


@pytest.mark.parametrize(
    ("name", "max_side", "size"),
    [
        ("anamorphic.mkv", 1920, (84, 48)),  # 64 * 4 / 3 = 85.3, made even; pixels become square, no side shrinks
        ("tall.mkv", 1920, (64, 96)),
        ("odd.mkv", 1920, (64, 46)),
        ("one_pixel.mkv", 1920, (2, 2)),
        ("wide.mkv", 200, (200, 14)),
        ("rotated90.mp4", 32, (24, 32)),
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
        ("full709.mp4", "bt709", True),
        ("full601.avi", "bt601", True),
        ("ten_bit2020.mkv", "bt2020", False),
        ("full_444.mkv", "bt709", False),  # converted, so limited
        ("rgb.mkv", "bt601", False),
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


@pytest.mark.parametrize("ext", ["wav", "mp3", "ogg", "aac"])
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
    info = probe(media("cover.m4a"))
    assert (info.video, info.num_streams, info.audio is None) == (None, 2, False)
    assert probe(media("default_stream.mkv")).video.index == 0
    info = probe(media("many_streams.mkv"))
    assert (info.video.index, info.video.width, info.audio.index, info.audio.channels) == (1, 64, 3, 2)
    with MediaReader(media("silent_film.mp4")) as reader, pytest.raises(MediaError, match="no audio stream"):
        reader.audio(1.0)


def test_what_a_header_says(media):
    info = probe(media("clap.mp4"))
    assert (info.container, info.num_streams) == ("mov", 2)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.05)
    assert (info.video.codec, info.video.fps, info.audio.codec, info.audio.sample_rate) == ("h264", 25, "aac", 48000)


def test_wild_samples_are_tamed(media):
    samples = samples_of(media("wild.wav"))
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() == pytest.approx(4, abs=0.1)  # float sound above full scale stays as it is
    assert samples.dtype == np.float32
