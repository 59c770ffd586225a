"""Real codecs as augmentation: they degrade, give the same bytes again, and keep time and level; files re-encoded."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from clips import speech
from playback import clap_seconds, psnr

from avdetect.datasets import encode
from avdetect.datasets.augment.codecs import (
    AudioCodec,
    Recipe,
    VideoCodec,
    reencode,
    through_audio_codec,
    through_video_codec,
)
from avdetect.errors import AVDetectError, MediaError, ToolError
from avdetect.faces.crops import reduced_rgb
from avdetect.media import MediaReader, ffmpeg_path, probe
from avdetect.types import FPS

VIDEO = {"libx264": (20, 28, 36), "libx265": (20, 28, 36), "libvpx-vp9": (26, 44, 60)}
AUDIO = {"aac": (32, 64, 128), "libopus": (16, 32, 96), "libmp3lame": (32, 64, 128)}
SMALL = Recipe(VideoCodec("libx264", 28, 0.5, 25.0), AudioCodec("aac", 64))
WHOLE = Recipe(VideoCodec("libx264", 28, 1.0, 24.0), AudioCodec("libopus", 32))


def film(count: int, size: int = 96) -> np.ndarray:
    """(count, size, size, 3) of a coarse picture with some grain that moves right by 2 px a frame."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (16, 16, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (size + 2 * count,) * 2, interpolation=cv2.INTER_CUBIC)
    wide = np.clip(wide + rng.normal(0, 6, wide.shape), 0, 255).astype(np.uint8)
    return np.stack([wide[:size, 2 * (count - i) :][:, :size] for i in range(count)])


def test_recipes_fill_the_ranges_that_are_promised() -> None:
    drawn = [Recipe.draw(np.random.default_rng(seed)) for seed in range(1500)]
    asked = set()
    for seed in range(20):
        rng = Mock(wraps=np.random.default_rng(seed))
        assert Recipe.draw(rng) == drawn[seed]
        asked.add(str(rng.method_calls))
    assert len(asked) == 1, "always the same number of draws"
    for name, low, high in (("libx264", 18, 40), ("libx265", 18, 40), ("libvpx-vp9", 26, 56)):
        assert {r.video.crf for r in drawn if r.video.name == name} == set(range(low, high + 1)), name
    scales = [r.video.scale for r in drawn]
    assert 0.25 <= min(scales) < 0.27
    assert max(scales) == 1
    assert {r.video.fps for r in drawn} == {15, 20, 24, 25, 30}
    assert {r.audio.name for r in drawn} == set(AUDIO)
    assert len({r.digest() for r in drawn}) == len(set(drawn)) > 1200


def test_a_digest_changes_with_every_field() -> None:
    video, audio = SMALL.video, SMALL.audio
    assert SMALL.digest() == "3cba1bda8ffde513", "copies made before would be made again"
    videos = ({"name": "libx265"}, {"crf": 29}, {"scale": 0.6}, {"fps": 24.0})
    changed = [Recipe(dataclasses.replace(video, **change), audio) for change in videos]
    changed += [Recipe(video, dataclasses.replace(audio, **change)) for change in ({"name": "libopus"}, {"kbps": 65})]
    assert len({SMALL.digest(), *(recipe.digest() for recipe in changed)}) == 7


@pytest.mark.parametrize("name", VIDEO)
def test_a_picture_comes_back_worse_the_higher_the_rate_factor(name: str) -> None:
    frames = film(3)
    before = frames.copy()
    back = [through_video_codec(frames, VideoCodec(name, crf, 1.0, 25.0)) for crf in VIDEO[name]]  # type: ignore
    quality = [psnr(out, frames) for out in back]
    assert 45 > quality[0] > quality[1] + 1 > quality[2] + 2 > 18
    np.testing.assert_array_equal(frames, before)
    again = through_video_codec(frames, VideoCodec(name, VIDEO[name][1], 1.0, 25.0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(again, back[1])
    for count, size, scale in ((1, 33, 1.0), (2, 20, 0.25)):
        frames = film(count, size)
        out = through_video_codec(frames, VideoCodec(name, 28, scale, 30.0))  # type: ignore[arg-type]
        assert (out.shape, out.dtype) == (frames.shape, np.uint8)
        assert np.abs(out.mean((1, 2)) - frames.mean((1, 2))).max() < 6, "the colours stay"
        # The borders would tell of a shift or a mirrored picture.
        assert np.corrcoef(out.mean(3).ravel(), frames.mean(3).ravel())[0, 1] > 0.85


def test_frames_stay_in_order_and_slow_cameras_hold_them() -> None:
    levels = np.array([40, 100, 160, 220], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (4, 64, 64, 3)).copy()

    def seen(fps: float, **clock: float) -> list[int]:
        out = through_video_codec(frames, VideoCodec("libx264", 20, 1.0, fps), **clock)
        return [int(np.abs(levels.astype(int) - frame.mean()).argmin()) for frame in out]

    assert seen(25.0) == [0, 1, 2, 3]
    assert seen(15.0) == [0, 0, 2, 3]
    assert seen(15.0, clock=5) == [0, 1, 2, 3], "crops that are five a second are all seen"
    assert through_video_codec(frames[:0], SMALL.video).shape == (0, 64, 64, 3)


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
        assert (out.shape, out.dtype) == (samples.shape, np.float32)
        assert np.abs(out).max() <= 1
        assert abs(lag_samples(samples, out)) <= 0.25
    assert 20 * np.log10(back[-1].std() / samples.std()) == pytest.approx(0, abs=0.5)
    losses = [float(np.mean((out - samples) ** 2) / np.mean(samples**2)) for out in back]
    assert losses[0] > losses[1] > losses[2] > 1e-6
    np.testing.assert_array_equal(samples, before)
    codec = AudioCodec(name, AUDIO[name][0])  # type: ignore[arg-type]
    np.testing.assert_array_equal(back[0], through_audio_codec(samples, codec))
    for count in (0, 1, 777):
        assert through_audio_codec(samples[:count], codec).shape == (count,)
    ends = np.zeros(4000, np.float32)
    ends[:400] = ends[-400:] = 0.5 * np.sin(np.arange(400) * 0.3)
    out = through_audio_codec(ends, AudioCodec(name, 128))  # type: ignore[arg-type]
    for part in (slice(0, 400), slice(-400, None)):
        assert np.corrcoef(out[part], ends[part])[0, 1] > 0.9, "the ends are kept"


@pytest.mark.parametrize(
    ("source", "video", "audio"),
    [
        ("video_late.mp4", "libx264", "aac"),
        ("audio_late.mkv", "libx265", "libopus"),
        ("audio_late.mkv", "libvpx-vp9", "libmp3lame"),
    ],
)
def test_a_copy_keeps_duration_and_offset(media, tmp_path: Path, source: str, video: str, audio: str) -> None:
    recipe = Recipe(VideoCodec(video, 30, 1.0, 25.0), AudioCodec(audio, 64))  # type: ignore[arg-type]
    reencode(media(source), tmp_path / "copy.mkv", recipe)
    moved = np.abs(clap_seconds(tmp_path / "copy.mkv") - clap_seconds(media(source)))
    assert (moved <= [1 / FPS + 1e-6, 0.003, 2 / FPS, 0.1]).all(), "the codec's delay is no lag"
    assert [path.name for path in tmp_path.iterdir()] == ["copy.mkv"]


@pytest.mark.parametrize("name", ["rotated90.mp4", "anamorphic.mkv", "full709.mp4", "ten_bit2020.mkv", "rgb.mkv"])
def test_the_picture_is_turned_and_squared_once_and_its_colours_stay(media, tmp_path: Path, name: str) -> None:
    reencode(media(name), tmp_path / "copy.mkv", WHOLE)
    with MediaReader(media(name)) as one, MediaReader(tmp_path / "copy.mkv") as two:
        assert two.info.video.rotation_degrees == 0
        assert two.info.video.width == two.info.video.coded_width
        old, new = (reduced_rgb(next(iter(reader.video())), 0, 640).astype(int) for reader in (one, two))
    assert new.shape == old.shape
    assert np.abs(new - old).mean() < 4


def test_scale_rate_and_bits_are_those_of_the_recipe(media, tmp_path: Path) -> None:
    low = Recipe(VideoCodec("libx264", 40, 0.5, 15.0), AudioCodec("aac", 32))
    source = media("audio_late_pcm.mov")
    for name, recipe in {"high": SMALL, "low": low, "again": low}.items():
        reencode(source, tmp_path / name, recipe)
    info = probe(tmp_path / "low")
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 32, 32)  # no side below 32
    assert info.video.fps == pytest.approx(15)
    assert (info.audio.codec, info.audio.sample_rate) == ("aac", 48_000)
    assert info.audio.start_seconds == pytest.approx(0.4, abs=0.05), "late sound is not filled up"
    assert (tmp_path / "low").stat().st_size < (tmp_path / "high").stat().st_size
    assert (tmp_path / "low").read_bytes() == (tmp_path / "again").read_bytes()
    reencode(media("tone.wav"), tmp_path / "tone", WHOLE)
    assert probe(tmp_path / "tone").video is None


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("clap.mp4", "none/copy.mkv", "cannot write"),
        ("text.mp4", "copy.mkv", "cannot be read"),
        ("blind.avi", "copy.mkv", "could not re-encode"),
    ],
)
def test_what_cannot_be_copied_is_refused(media, tmp_path: Path, source: str, target: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        reencode(media(source), tmp_path / target, SMALL)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_file_names_are_names_only(media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path("-y %d:'clap.mp4")
    odd.write_bytes(media("silent_film.mp4").read_bytes())
    reencode(odd, Path("-i copy %d.mkv"), SMALL)
    assert probe(Path("-i copy %d.mkv")).audio is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["-i copy %d.mkv", odd.name]


def test_damage_that_ffmpeg_survives_is_said(media, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reencode(media("damaged.ts"), tmp_path / "copy.mkv", SMALL)
    assert "damaged.ts" in caplog.text


def use_ffmpeg(path: Path, script: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode with this script; None: with what is not there."""
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setattr(encode, "ffmpeg_path", lambda: str(path))


# An ffmpeg without an encoder says what this one says of a name that no ffmpeg knows.
WITHOUT_AAC = f'for a; do [ "$a" = aac ] && a=lib_none; set -- "$@" "$a"; shift; done; exec "{ffmpeg_path()}" "$@"'


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (WITHOUT_AAC, ToolError, r"(?s)with aac.*Unknown encoder.*pip install imageio-ffmpeg"),
        ("echo '[mp3 @ 0x1] the reason' >&2; echo 'Conversion failed!' >&2; exit 1", MediaError, r"\(the reason\)"),
        ("exit 3", MediaError, "status 3"),
        ("exit 0", MediaError, "gave 0 samples"),
        (None, ToolError, "cannot run"),
    ],
)
def test_failures_carry_the_reason(tmp_path: Path, monkeypatch, script, error: type[AVDetectError], words: str) -> None:
    use_ffmpeg(tmp_path / "ffmpeg", script, monkeypatch)
    with pytest.raises(error, match=words):
        through_audio_codec(speech(0.1), AudioCodec("aac", 64))


def test_an_ffmpeg_that_hangs_is_a_tool_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it is fed more than a pipe holds."""
    import ffmpeg

    use_ffmpeg(tmp_path / "ffmpeg", "exec sleep 30", monkeypatch)
    output = ffmpeg.input("pipe:0", format="f32le").output("pipe:1", format="f32le")
    for data in ([], [bytes(1 << 20)]):
        with pytest.raises(ToolError, match=r"within 0\.1 s"):
            encode.run_ffmpeg(output, "do it", data, seconds=0.1)
