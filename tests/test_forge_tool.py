"""Forged files: playable, forged where they say and nowhere else, and their manifest can be trained on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_wav
from media_factory import RENDERER, MediaFactory
from playback import clap_seconds, luma, psnr, sound
from readme_media import SAMPLE

from avdetect.cli import run_script
from avdetect.datasets.forgeries import face_files, job
from avdetect.datasets.forgeries import run as forgeries
from avdetect.datasets.forgeries.face_files import cut, paste
from avdetect.datasets.forgeries.files import write_sound, write_video
from avdetect.datasets.manifest import read_manifest
from avdetect.errors import MediaError
from avdetect.media import MediaReader
from avdetect.types import FPS, SAMPLE_RATE, VideoFrames

SEGMENT = (0.4, 1.4)
WANTED = {"self_blend": (1, 1, 0), "mouth_swap": (1, 1, 0), "world": (1, 0, 1), "other_voice": (1, 0, 0)}  # the labels
FACES, VOICES = ("self_blend", "mouth_swap"), ("world", "other_voice")
SMALL = ("-vf", "scale=240:240")


def run(*words: object) -> int:
    """`avdetect forge`, with the exit codes of `tools/forge.py`."""
    return run_script("forge", [str(word) for word in words])


def cut_of_sample(path: Path, start: float) -> Path:
    """A second and a half of the sample, small."""
    window = ["-ss", str(start), "-t", "1.6", "-i", str(SAMPLE)]
    subprocess.run([RENDERER, "-v", "error", *window, *SMALL, "-preset", "ultrafast", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_of_sample(tmp_path_factory.mktemp("short") / "short.mp4", 1)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_of_sample(tmp_path_factory.mktemp("subject") / "short.mp4", 0)


@pytest.fixture(scope="module")
def out(subject: Path, short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything forged once; the other person's file has the same name."""
    folder = tmp_path_factory.mktemp("forge") / "out"
    words = ("--method", *FACES, "--method", *VOICES, "world", "--segment", *SEGMENT, "--split", "dev")
    assert run(subject, short, "--out", folder, *words) == 0
    return folder


@pytest.mark.parametrize("method", FACES)
def test_a_forged_face_stays_in_its_segment(subject: Path, out: Path, method: str) -> None:
    forged, control = luma(out / f"short.{method}.0.mp4"), luma(out / "short.control-video.mp4")
    assert psnr(control, luma(subject)) > 40, "the control is the original to the eye"
    first, stop = (round(seconds * FPS) for seconds in SEGMENT)
    assert forged.shape == control.shape == luma(subject).shape, "playable, at the source's size and length"
    outside = np.r_[0:first, stop : len(forged)]
    assert psnr(forged[outside], control[outside]) > 45
    change = cv2.absdiff(forged[first:stop], control[first:stop])
    assert change.max(axis=(1, 2)).min() > 12, "every frame of the segment is forged"
    assert (change.mean(0) < 1).mean() > 0.6, "away from the face nothing is"
    np.testing.assert_array_equal(sound(out / f"short.{method}.0.mp4"), sound(subject))


@pytest.mark.parametrize("method", VOICES)
def test_a_forged_voice_stays_in_its_segment(subject: Path, out: Path, method: str) -> None:
    path = out / f"short.{method}.0.mp4"
    assert np.array_equal(luma(path), luma(subject)), "the video is copied"
    forged, control = sound(path), sound(out / "short.control-sound.mp4")
    assert len(forged) == len(control)
    count = min(len(control), len(sound(subject)))
    assert np.corrcoef(control[:count], sound(subject)[:count])[0, 1] > 0.99, "in step with the original"
    margin = 3000  # AAC windows overlap
    first, stop = (round(seconds * SAMPLE_RATE) for seconds in SEGMENT)
    outside = np.r_[0 : first - margin, stop + margin : len(forged)]
    inside = slice(first, stop)
    assert psnr(forged[outside], control[outside], 1.0) > 40
    assert psnr(forged[outside], control[outside], 1.0) > psnr(forged[inside], control[inside], 1.0) + 12


def streams(path: Path) -> list[str]:
    """What ffmpeg says of a file's streams: codecs, sample rate, channels."""
    log = subprocess.run([RENDERER, "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr
    lines = [line.split(": ", 1)[1] for line in log.splitlines() if "Stream #" in line]
    return [re.sub(r"\d+ (kb/s|tb[rn])", "", line) for line in lines]


def test_the_manifest_says_what_was_forged(subject: Path, out: Path, capsys) -> None:
    assert run(subject, "--out", out) == 1, "results are not written over"
    assert "holds a forged.csv already" in capsys.readouterr().err
    table = read_manifest(out / "forged.csv")
    assert len(table) == 2 * (2 + len(WANTED)), "repeated options add up, each method once"
    assert table["group"].nunique() == 1, "the one's voice is heard in the other: never on two sides of a split"
    assert table["path"].nunique() == len(table), "equal stems do not collide"
    assert set(table["split"]) == {"dev"}
    reals = set(table["path"][table["fake"] == 0])
    for _, row in table.iterrows():
        path = Path(row["path"])
        assert any("Audio" in line for line in streams(path))
        assert (row["fake"], row["video_fake"], row["audio_fake"]) == WANTED.get(row["method"], (0, 0, 0))
        if row["fake"]:
            original = Path(row["original"])
            assert row["fake_segments"] == (SEGMENT,)
            assert original.name.split(".")[0] == path.name.split(".")[0]
            assert original.name.endswith(f".control-{'video' if row['method'] in FACES else 'sound'}.mp4")
            assert row["original"] in reals, "the control is a row to train on"
            assert streams(path) == streams(original), "no property of a file is a label"


def test_the_same_seed_gives_the_same_forgery(short: Path, tmp_path: Path) -> None:
    frames, segments = [], []
    for index, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(index)
        assert run(short, "--out", folder, "--method", "self_blend", "--seed", seed, "--no-control") == 0
        frames.append(luma(folder / "short.self_blend.0.mp4"))
        row = read_manifest(folder / "forged.csv").iloc[0]
        segments.append(row["fake_segments"])
        assert Path(row["original"]) == short.resolve(), "without a control it is the input"
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
    assert segments[0] == segments[1]
    ((start, end),) = segments[0]
    assert 0 <= start < end <= 1.64


@pytest.mark.parametrize("name", ["audio_late.ts", "video_late.mkv"])
def test_both_halves_keep_their_clock(media: MediaFactory, tmp_path: Path, name: str) -> None:
    """A flash and a click stay where they are, whatever starts late, and whichever half is written anew."""
    source, targets = media(name), (tmp_path / "video.mp4", tmp_path / "sound.mp4")
    with MediaReader(source) as reader:
        write_video(reader.video(), reader.info, targets[0])
        write_sound(sound(source), reader.info, targets[1])
    before = clap_seconds(source)
    for target in targets:
        moved = np.abs(clap_seconds(target) - before)
        assert moved[0] == 0, target.name
        assert moved[1] < 0.002, target.name


def test_a_file_that_cannot_be_written_is_said(media: MediaFactory, tmp_path: Path) -> None:
    with MediaReader(media("clap.mp4")) as reader:
        batches, info = list(reader.video()), reader.info
    for frames, target, message in [
        (batches, tmp_path / "none" / "out.mp4", "cannot write"),
        ([], tmp_path / "out.mp4", "gave no frames"),
        ([batches[0], batches[2]], tmp_path / "out.mp4", "no pictures for"),
    ]:
        with pytest.raises(MediaError, match=message):
            write_video(frames, info, target)
    assert not list(tmp_path.iterdir()), "no half of a file is left"


def test_sound_alone_can_be_forged(tmp_path: Path, monkeypatch, capsys) -> None:
    """Voices are forged, faces are left out and named; what an explicit name asks for is an error."""
    samples = sound(SAMPLE)[: round(1.5 * SAMPLE_RATE)]
    path = write_wav(tmp_path / "voice.wav", samples)
    assert run(path, "--out", tmp_path / "out", "--method", "self_blend") == 1
    assert "has no video" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.mp4")), "no control without a forgery"
    monkeypatch.setattr(forgeries, "METHODS", ("self_blend", "recompress", "world", "splice", "offset", "other_voice"))
    assert run(path, "--out", tmp_path / "out", "--segment", 0.5, 1.2) == 0
    left_out = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2, "all of the faces, and the voice of somebody else"
    table = read_manifest(tmp_path / "out" / "forged.csv")
    assert list(table["method"]) == ["", "world", "splice", "offset"]
    assert set(table["original"][1:]) == {table["path"][0]}
    assert {Path(name).suffix for name in table["path"]} == {".m4a"}
    assert table["video_fake"].isna().all()
    assert len(sound(Path(table["path"][0]))) >= len(samples)


MISTAKES = {
    "--method face_off": "there is no method 'face_off'; known: all, self_blend",
    "--segment soon": "takes START END",
    "--segment 1 nan": "--segment must last",
    "--segment 100 102 --method self_blend": "no face",
    "--segment 100 102 --method world": "no voice",
    "--method other_voice": "name a second INPUT",
    "--count 0": "--count",
    "missing.mp4": "cannot open",
    "AGAIN": "hold the same bytes",
}


def test_mistakes_are_one_clear_line(short: Path, tmp_path: Path, capsys) -> None:
    for words, message in MISTAKES.items():
        more = [short if word == "AGAIN" else word for word in words.split()]
        assert run(short, *more, "--out", tmp_path / "out") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not list((tmp_path / "out").glob("*.mp4"))


def test_an_interruption_leaves_what_is_finished(short: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    calls = []

    def write(frames, info, target) -> None:
        calls.append(target)
        if len(calls) == 3:
            next(iter(frames))
            raise KeyboardInterrupt
        target.write_bytes(b"whole")

    monkeypatch.setattr(job, "write_video", write)
    monkeypatch.setattr(face_files, "write_video", write)
    words = (short, "--out", tmp_path, "--method", "self_blend", "recompress", "--segment", 0.2, 1.2)
    assert run(*words) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(read_manifest(tmp_path / "forged.csv")["method"]) == ["", "self_blend"], "the control comes first"


def test_the_list_names_every_method(capsys) -> None:
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(forgeries.METHODS)
    assert all(len(line.split()) > 4 for line in lines)


def test_inputs_that_lend_nothing_keep_their_own_groups(short: Path, tmp_path: Path) -> None:
    """Equal stems do not join them either, in this run or in another."""
    (tmp_path / "elsewhere").mkdir()
    twin = write_wav(tmp_path / "elsewhere" / "short.wav", sound(short))
    words = ("--method", "world", "--segment", 0.2, 1.2)
    assert run(short, twin, "--out", tmp_path / "both", *words) == 0
    table = read_manifest(tmp_path / "both" / "forged.csv")
    assert sorted(table["group"].value_counts()) == [2, 2]
    assert run(twin, "--out", tmp_path / "one", *words) == 0
    alone = read_manifest(tmp_path / "one" / "forged.csv")
    assert set(alone["group"]) < set(table["group"])


def test_too_much_sound_is_refused_and_not_cut(short: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(job, "MAX_AUDIO_SECONDS", 1.0)
    assert run(short, "--out", tmp_path, "--method", "world", "--segment", 0.1, 0.9) == 1
    assert "too much to forge at once" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.mp4"))


def test_a_frozen_picture_has_no_other_moment(tmp_path: Path, capsys) -> None:
    """A mouth swapped with itself would be a genuine face that is labelled fake."""
    frozen = tmp_path / "frozen.mp4"
    grab = ["-ss", "1", "-i", str(SAMPLE), *SMALL, "-frames:v", "1", str(tmp_path / "still.png")]
    loop = ["-loop", "1", "-t", "2", "-r", "25", "-i", str(tmp_path / "still.png"), "-qp", "0", "-preset", "ultrafast"]
    for options in (grab, [*loop, "-pix_fmt", "yuv420p", str(frozen)]):
        subprocess.run([RENDERER, "-v", "error", *options], check=True)
    assert run(frozen, "--out", tmp_path / "out", "--method", "mouth_swap", "--segment", 0.2, 1.2) == 1
    assert "stands still" in capsys.readouterr().err


@pytest.mark.parametrize("corner", [(20, 10), (-14, -8), (70, 50)])
def test_a_pasted_square_changes_no_other_sample(corner: tuple[int, int]) -> None:
    """Samples under the unforged part keep their value; the forged ones come back as they were painted."""
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (120, 96), dtype=np.uint8), (0, 0), 4)
    frames = VideoFrames(smooth[None] // 2 + 60, 0, "bt709", full_range=False)
    place, before = np.array(corner), frames.i420.copy()
    crop = cut(frames, 0, place, 48)
    paste(frames, 0, place, crop, crop)
    np.testing.assert_array_equal(frames.i420, before)
    forged = crop.copy()
    forged[12:36, 12:36] = np.clip(forged[12:36, 12:36] + np.array([25, -10, 12]), 0, 255)
    paste(frames, 0, place, crop, forged)
    inside = np.zeros((80, 96), bool)
    inside[max(0, corner[1] + 12) : corner[1] + 36, max(0, corner[0] + 12) : corner[0] + 36] = True
    changed = frames.i420[0] != before[0]
    assert not (changed[:80] & ~inside).any()
    assert not (changed[80:].reshape(2, 40, 48) & ~inside[::2, ::2]).any()
    rows = slice(max(16, -corner[1]), min(32, 80 - corner[1]))
    columns = slice(max(16, -corner[0]), min(32, 96 - corner[0]))
    again = cut(frames, 0, place, 48)
    assert np.abs(again[rows, columns].astype(int) - forged[rows, columns]).max() <= 3
