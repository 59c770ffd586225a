"""Real codecs as augmentation: they degrade, give the same bytes again, and keep time and level; files re-encoded."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.augment import tool
from avdetect.datasets.augment.codecs import (
    AudioCodec,
    Recipe,
    VideoCodec,
    reencode,
    through_audio_codec,
    through_video_codec,
)
from avdetect.datasets.augment.recipes import BIT_RATES, MAX_CRF
from avdetect.errors import AVDetectError, ConfigError, MediaError, ToolError
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.types import FPS, SAMPLE_RATE

VIDEO = {"libx264": (20, 28, 36), "libx265": (20, 28, 36), "libvpx-vp9": (26, 44, 60)}
AUDIO = {"aac": (32, 64, 128), "libopus": (16, 32, 96), "libmp3lame": (32, 64, 128)}


def film(count: int, size: int = 96) -> np.ndarray:
    """(count, size, size, 3) of a coarse picture with some grain that moves right by 2 px a frame."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (16, 16, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (size + 2 * count,) * 2, interpolation=cv2.INTER_CUBIC)
    wide = np.clip(wide + rng.normal(0, 6, wide.shape), 0, 255).astype(np.uint8)
    return np.stack([wide[:size, 2 * (count - i) :][:, :size] for i in range(count)])


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2)))


# -- recipes


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_a_recipe_is_a_function_of_the_generator(seed: int) -> None:
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    assert Recipe.draw(one) == Recipe.draw(two)
    assert one.random() == two.random()


def test_recipes_differ_and_name_every_codec() -> None:
    drawn = [Recipe.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert {r.video.name for r in drawn} == set(VIDEO)
    assert {r.audio.name for r in drawn} == set(AUDIO)
    assert len({r.digest() for r in drawn}) == len(set(drawn)) > 190
    for codec in (c for r in drawn for c in (r.video, r.audio)):
        json.dumps(dataclasses.asdict(codec))  # a manifest or log can hold it


def test_recipes_fill_the_ranges_that_are_promised() -> None:
    drawn = [Recipe.draw(np.random.default_rng(seed)).video for seed in range(2000)]
    for name, low, high in (("libx264", 18, 40), ("libx265", 18, 40), ("libvpx-vp9", 26, 56)):
        factors = {codec.crf for codec in drawn if codec.name == name}
        assert factors == set(range(low, high + 1)), name
    scales = [codec.scale for codec in drawn]
    assert 0.25 <= min(scales) < 0.27
    assert max(scales) == 1
    assert {codec.fps for codec in drawn} == {15, 20, 24, 25, 30}


def test_a_digest_changes_with_every_field_and_with_nothing_else() -> None:
    recipe = Recipe(VideoCodec("libx264", 28, 0.5, 25.0), AudioCodec("aac", 64))
    assert recipe.digest() == "3cba1bda8ffde513", "copies made before would be made again"
    video, audio = recipe.video, recipe.audio
    changed = [
        *(dataclasses.replace(recipe, video=dataclasses.replace(video, **{k: v})) for k, v in
          {"name": "libx265", "crf": 29, "scale": 0.6, "fps": 24.0}.items()),
        *(dataclasses.replace(recipe, audio=dataclasses.replace(audio, **{k: v})) for k, v in
          {"name": "libopus", "kbps": 65}.items()),
    ]  # fmt: skip
    assert len({recipe.digest(), *(r.digest() for r in changed)}) == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: VideoCodec("h264", 20, 1.0, 25.0),  # type: ignore[arg-type]
        lambda: VideoCodec("libx264", 52, 1.0, 25.0),
        lambda: VideoCodec("libx264", -1, 1.0, 25.0),
        lambda: VideoCodec("libx264", 20, 1.1, 25.0),
        lambda: VideoCodec("libx264", 20, 0.0, 25.0),
        lambda: VideoCodec("libx264", 20, float("nan"), 25.0),
        lambda: VideoCodec("libx264", 20, 1.0, 0.0),
        lambda: AudioCodec("opus", 64),  # type: ignore[arg-type]
        lambda: AudioCodec("libmp3lame", 16),
        lambda: AudioCodec("aac", 1000),
    ],
)
def test_values_that_no_encoder_takes_are_refused(make) -> None:
    with pytest.raises(ConfigError):
        make()


# -- pictures


@pytest.mark.parametrize("name", VIDEO)
def test_a_picture_comes_back_worse_the_higher_the_rate_factor(name: str) -> None:
    frames = film(3)
    before = frames.copy()
    back = [through_video_codec(frames, VideoCodec(name, crf, 1.0, 25.0)) for crf in VIDEO[name]]  # type: ignore
    for out in back:
        assert out.shape == frames.shape
        assert out.dtype == np.uint8
    quality = [psnr(out, frames) for out in back]
    assert 45 > quality[0] > quality[1] + 1 > quality[2] + 2 > 18
    np.testing.assert_array_equal(frames, before)
    again = through_video_codec(frames, VideoCodec(name, VIDEO[name][1], 1.0, 25.0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(again, back[1])


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize(("count", "size", "scale"), [(1, 33, 1.0), (2, 20, 0.25), (4, 97, 0.4)])
def test_any_number_and_size_of_frames_comes_back_whole(name: str, count: int, size: int, scale: float) -> None:
    frames = film(count, size)
    out = through_video_codec(frames, VideoCodec(name, MAX_CRF[name] // 2, scale, 30.0))  # type: ignore[arg-type]
    assert out.shape == frames.shape
    for mine, other in zip(out, frames, strict=True):
        assert np.abs(mine.mean((0, 1)) - other.mean((0, 1))).max() < 6, "the colours stay"
        # The borders would tell of a shift or a mirrored picture.
        correlation = np.corrcoef(mine.mean(2).ravel(), other.mean(2).ravel())[0, 1]
        assert correlation > 0.85


def test_frames_stay_in_order_and_slow_cameras_hold_them() -> None:
    levels = np.array([40, 100, 160, 220], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (4, 64, 64, 3)).copy()

    def seen(fps: float, **clock: float) -> list[int]:
        out = through_video_codec(frames, VideoCodec("libx264", 20, 1.0, fps), **clock)
        return [int(np.abs(levels.astype(int) - frame.mean()).argmin()) for frame in out]

    assert seen(25.0) == [0, 1, 2, 3]
    assert seen(15.0) == [0, 0, 2, 3]
    assert seen(15.0, clock=5) == [0, 1, 2, 3], "crops that are five a second are all seen"


def test_wrong_arrays_are_refused_and_empty_ones_pass() -> None:
    codec, sound = VideoCodec("libx264", 28, 1.0, 25.0), AudioCodec("aac", 64)
    for wrong in (film(1)[0], film(1)[..., :2], film(1).astype(np.float32), film(1)[:, :50]):
        with pytest.raises(ValueError, match="frames must be"):
            through_video_codec(wrong, codec)
    with pytest.raises(ValueError, match="samples must be"):
        through_audio_codec(np.zeros(100), sound)  # type: ignore[arg-type]
    assert through_video_codec(np.zeros((0, 8, 8, 3), np.uint8), codec).shape == (0, 8, 8, 3)
    assert through_audio_codec(np.zeros(0, np.float32), sound).shape == (0,)


# -- sound


def lag_samples(one: np.ndarray, two: np.ndarray, finer: int = 16) -> float:
    """How much later `two` is, from the peak of the cross-correlation, to 1/16 of a sample."""
    size = 1 << 16
    spectrum = np.conj(np.fft.rfft(one, size)) * np.fft.rfft(two, size)
    peak = int(np.fft.irfft(spectrum, size * finer).argmax())
    return (peak - size * finer if peak > size * finer // 2 else peak) / finer


@pytest.mark.parametrize("name", AUDIO)
def test_sound_comes_back_in_its_place_at_its_level_and_worse_the_fewer_the_bits(name: str) -> None:
    samples = np.convolve(speech(1.5), np.hanning(9) / 4, "same").astype(np.float32)  # little above 4 kHz, as in speech
    before = samples.copy()
    back = [through_audio_codec(samples, AudioCodec(name, kbps)) for kbps in AUDIO[name]]  # type: ignore[arg-type]
    for out in back:
        assert out.shape == samples.shape
        assert out.dtype == np.float32
        assert np.abs(out).max() <= 1
        assert abs(lag_samples(samples, out)) <= 0.25
    assert 20 * np.log10(back[-1].std() / samples.std()) == pytest.approx(0, abs=0.5)
    losses = [float(np.mean((out - samples) ** 2) / np.mean(samples**2)) for out in back]
    assert losses[0] > losses[1] > losses[2] > 1e-6
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_array_equal(back[0], through_audio_codec(samples, AudioCodec(name, AUDIO[name][0])))  # type: ignore


@pytest.mark.parametrize("name", AUDIO)
def test_the_ends_of_a_sound_are_kept(name: str) -> None:
    for count in (1, 777):
        assert through_audio_codec(speech(0.1)[:count], AudioCodec(name, 64)).shape == (count,)  # type: ignore[arg-type]
    samples = np.zeros(4000, np.float32)
    samples[:400] = samples[-400:] = 0.5 * np.sin(np.arange(400) * 0.3)
    out = through_audio_codec(samples, AudioCodec(name, BIT_RATES[name][1] // 2))  # type: ignore[arg-type]
    for part in (slice(0, 400), slice(-400, None)):
        assert np.corrcoef(out[part], samples[part])[0, 1] > 0.9


# -- whole files

RECIPES = {
    "a.mp4": Recipe(VideoCodec("libx264", 28, 1.0, 25.0), AudioCodec("aac", 64)),
    "b.mp4": Recipe(VideoCodec("libx265", 28, 1.0, 30.0), AudioCodec("libopus", 32)),
    "c.mp4": Recipe(VideoCodec("libvpx-vp9", 36, 1.0, 25.0), AudioCodec("libmp3lame", 64)),
    "d.mkv": Recipe(VideoCodec("libx264", 28, 1.0, 24.0), AudioCodec("libopus", 32)),
    "e.mkv": Recipe(VideoCodec("libx265", 28, 1.0, 15.0), AudioCodec("libmp3lame", 64)),
    "f.webm": Recipe(VideoCodec("libvpx-vp9", 36, 1.0, 25.0), AudioCodec("libopus", 32)),
}
SMALL = Recipe(VideoCodec("libx264", 28, 0.5, 25.0), AudioCodec("aac", 64))


def clap_seconds(path: Path) -> tuple[float, float, float, float]:
    """When the picture flashes and the sound clicks, and how long either half lasts on the clock."""
    with MediaReader(path) as reader:
        batches, samples = list(reader.video()), np.concatenate([chunk.samples for chunk in reader.audio(1.0)])
        assert not reader.warnings
    luma = np.concatenate([batch.i420[:, : batch.height].mean(axis=(1, 2)) for batch in batches])
    flash = batches[0].first_frame + int(np.argmax(luma > 128))
    click = int(np.argmax(np.abs(samples) > 0.3))
    end = batches[0].first_frame + len(luma)
    return flash / FPS, click / SAMPLE_RATE, end / FPS, len(samples) / SAMPLE_RATE


@pytest.fixture(scope="module")
def source_times(media):
    known: dict[str, tuple[float, float, float, float]] = {}
    return lambda name: known.get(name) or known.setdefault(name, clap_seconds(media(name)))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("audio_late.mkv", target) for target in RECIPES),
        *(("video_late.mp4", target) for target in ("a.mp4", "d.mkv", "f.webm")),
        *(("clap.mp4", target) for target in ("c.mp4", "e.mkv")),
    ],
)
def test_a_copy_keeps_duration_and_offset(media, source_times, tmp_path: Path, source: str, target: str) -> None:
    reencode(media(source), tmp_path / target, RECIPES[target])
    before, after = source_times(source), clap_seconds(tmp_path / target)
    assert after[0] == pytest.approx(before[0], abs=1 / FPS + 1e-6)
    assert after[1] == pytest.approx(before[1], abs=0.003), "the codec's delay is no lag"
    assert after[2] == pytest.approx(before[2], abs=2 / FPS)
    assert after[3] == pytest.approx(before[3], abs=0.1)
    assert [path.name for path in tmp_path.iterdir()] == [target]


def test_late_sound_begins_late_and_is_not_filled_up(media, tmp_path: Path) -> None:
    reencode(media("audio_late_pcm.mov"), tmp_path / "copy.mp4", SMALL)
    with MediaReader(tmp_path / "copy.mp4") as reader:
        next(iter(reader.audio(1.0)))
        assert reader.audio_start_seconds == pytest.approx(0.4, abs=0.03)  # one AAC frame of priming


@pytest.mark.parametrize("name", ["rotated90.mp4", "rotated180.mp4", "anamorphic.mkv"])
def test_the_picture_is_turned_and_squared_once(media, tmp_path: Path, name: str) -> None:
    reencode(media(name), tmp_path / "copy.mp4", RECIPES["a.mp4"])
    with MediaReader(media(name)) as one, MediaReader(tmp_path / "copy.mp4") as two:
        assert two.info.video is not None
        assert two.info.video.rotation_degrees == 0
        assert two.info.video.width == two.info.video.coded_width
        old, new = next(iter(one.video())), next(iter(two.video()))
        assert (old.width, old.height) == (new.width, new.height)
        assert np.abs(new.planes(0)[0].astype(int) - old.planes(0)[0]).mean() < 3


@pytest.mark.parametrize("name", ["full709.mp4", "ten_bit2020.mkv", "rgb.mkv", "limited601.mp4"])
def test_colours_stay(media, tmp_path: Path, name: str) -> None:
    from avdetect.faces.crops import face_crop

    reencode(media(name), tmp_path / "copy.mp4", RECIPES["a.mp4"])
    colours = []
    for path in (media(name), tmp_path / "copy.mp4"):
        with MediaReader(path) as reader:
            frames = next(iter(reader.video()))
            colours.append(face_crop(frames, 0, np.array([0, 0, 64, 48], np.float32), 1.0, 32)[8:24, 8:24].mean((0, 1)))
    np.testing.assert_allclose(colours[1], colours[0], atol=4)


def test_scale_rate_and_bits_are_those_of_the_recipe(media, tmp_path: Path) -> None:
    sizes = []
    for crf in (20, 40):
        recipe = Recipe(VideoCodec("libx264", crf, 0.5, 15.0), AudioCodec("aac", 32))
        reencode(media("clap.mp4"), tmp_path / f"{crf}.mp4", recipe)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    info = probe(tmp_path / "20.mp4")
    assert info.video is not None
    assert info.audio is not None
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 32, 32)  # no side below 32
    assert info.video.fps == pytest.approx(15)
    assert (info.audio.codec, info.audio.sample_rate) == ("aac", 48_000)
    assert sizes[1] < sizes[0]


def test_one_half_alone_and_the_same_bytes_again(media, tmp_path: Path) -> None:
    for name, has_video in (("silent_film.mp4", True), ("tone.wav", False)):
        one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
        reencode(media(name), one, RECIPES["d.mkv"])
        reencode(media(name), two, RECIPES["d.mkv"])
        info = probe(one)
        assert (info.video is not None, info.audio is not None) == (has_video, not has_video)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        ("clap.mp4", "copy.avi", ConfigError, r"unknown suffix; use one of \.mp4"),
        ("clap.mp4", "copy.webm", ConfigError, "webm holds libvpx-vp9 and libopus only"),
        ("clap.mp4", "none/copy.mp4", MediaError, "folder does not exist"),
        ("text.mp4", "copy.mp4", MediaError, "cannot be read"),
        ("blind.avi", "copy.mp4", MediaError, "could not re-encode"),
    ],
)
def test_what_cannot_be_copied_is_refused(media, tmp_path, source, target, error, words) -> None:
    with pytest.raises(error, match=words):
        reencode(media(source), tmp_path / target, SMALL)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_copy_does_not_replace_its_source(media, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(media("silent_film.mp4").read_bytes())
    with pytest.raises(ConfigError, match="the source itself"):
        reencode(path, path, SMALL)
    with pytest.raises(AVDetectError):
        reencode(tmp_path / "absent.mp4", tmp_path / "copy.mp4", SMALL)
    assert path.read_bytes() == media("silent_film.mp4").read_bytes()


def test_file_names_are_names_only(media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path("-y %d:'clap.mp4")
    odd.write_bytes(media("silent_film.mp4").read_bytes())
    reencode(odd, Path("-i copy %d.mp4"), SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["-i copy %d.mp4", odd.name]


def test_damage_that_ffmpeg_survives_is_said(media, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reencode(media("damaged.ts"), tmp_path / "copy.mp4", SMALL)
    assert "damaged.ts" in caplog.text


# -- the tool


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(tool, "ffmpeg_path", lambda: str(path))


def test_a_missing_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ffmpeg without the encoder says what this one says of a name that no ffmpeg knows.
    script = f'for a; do [ "$a" = libx265 ] && a=lib_none; set -- "$@" "$a"; shift; done; exec "{ffmpeg_path()}" "$@"'
    fake_ffmpeg(tmp_path, monkeypatch, script)
    with pytest.raises(ToolError, match=r"(?s)libx265.*Unknown encoder.*pip install imageio-ffmpeg"):
        through_video_codec(film(1), VideoCodec("libx265", 28, 1.0, 25.0))
    assert through_video_codec(film(1), VideoCodec("libx264", 28, 1.0, 25.0)).shape == (1, 96, 96, 3)


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (
            "echo '[mp3 @ 0x1] the real reason' >&2; echo 'Conversion failed!' >&2; exit 1",
            MediaError,
            "the real reason",
        ),
        ("exit 3", MediaError, "status 3"),
        ("exit 0", MediaError, "gave 0 samples"),
    ],
)
def test_failures_carry_the_reason(tmp_path, monkeypatch, script, error, words) -> None:
    fake_ffmpeg(tmp_path, monkeypatch, script)
    with pytest.raises(error, match=words):
        through_audio_codec(speech(0.1), AudioCodec("libmp3lame", 64))


def test_an_ffmpeg_that_hangs_or_is_none_is_a_tool_error(tmp_path, monkeypatch) -> None:
    import ffmpeg

    output = ffmpeg.input("pipe:0", format="f32le").output("pipe:1", format="f32le")
    fake_ffmpeg(tmp_path, monkeypatch, "exec sleep 30")
    with pytest.raises(ToolError, match=r"within 0\.2 s"):
        tool.run_ffmpeg(output, "do it", seconds=0.2)
    monkeypatch.setattr(tool, "ffmpeg_path", lambda: str(tmp_path / "absent"))
    with pytest.raises(ToolError, match="cannot run"):
        tool.run_ffmpeg(output, "do it")
