"""Forged files: playable, forged where they say and nowhere else, and their manifest can be trained on."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import wave
from functools import cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from media_factory import RENDERER, MediaFactory

from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries import face_files, inputs, job
from avdetect.datasets.forgeries import run as forgeries
from avdetect.datasets.forgeries.files import write_sound, write_video
from avdetect.datasets.forgeries.inputs import joined
from avdetect.datasets.forgeries.squares import cut, paste
from avdetect.datasets.manifest import read_manifest
from avdetect.errors import MediaError
from avdetect.media import MediaReader
from avdetect.types import FPS, SAMPLE_RATE, VideoFrames

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"
SEGMENT = (0.4, 1.4)
FACE, VOICE, MATCH = ("self_blend_mouth", "mouth_swap", "rand_merge"), ("lpc",), ("offset",)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return importlib.import_module("forge")


def run(tool: ModuleType, *words: object) -> int:
    return int(tool.main([str(word) for word in words]))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half of the sample, small."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    options = ["-ss", "1", "-t", "1.6", "-i", str(SAMPLE), "-vf", "scale=240:240", "-preset", "ultrafast"]
    subprocess.run([RENDERER, "-v", "error", *options, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def out(tool: ModuleType, short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything forged once: the sample, and a part of it that serves as the other person."""
    folder = tmp_path_factory.mktemp("forge")
    other = folder / "other place" / "sample.mp4"
    other.parent.mkdir()
    shutil.copy(short, other)
    names = (*FACE, *VOICE, *MATCH)
    words = (SAMPLE, other, "--out", folder / "out", "--method", *names, "--segment", *SEGMENT)
    assert run(tool, *words, "--split", "dev") == 0
    return folder / "out"


@cache
def luma(path: Path) -> np.ndarray:
    """(T, H, W) uint8."""
    with MediaReader(path) as reader:
        return np.concatenate([batch.i420[:, : batch.height] for batch in reader.video()])


@cache
def sound(path: Path) -> np.ndarray:
    with MediaReader(path) as reader:
        return np.concatenate([chunk.samples for chunk in reader.audio(60.0)])


def psnr(one: np.ndarray, two: np.ndarray, peak: float = 255.0) -> float:
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(one, two, strict=True)])
    return float(10 * np.log10(peak**2 / max(float(error), 1e-12)))


@pytest.mark.parametrize("method", FACE)
def test_a_forged_face_stays_in_its_segment(out: Path, method: str) -> None:
    forged, control = luma(out / f"sample.{method}.0.mp4"), luma(out / "sample.control-video.mp4")
    first, stop = (round(seconds * FPS) for seconds in SEGMENT)
    assert forged.shape == control.shape == luma(SAMPLE).shape, "playable, at the source's size and length"
    outside = np.r_[0:first, stop : len(forged)]
    assert psnr(forged[outside], control[outside]) > 45
    change = cv2.absdiff(forged[first:stop], control[first:stop])
    assert change.max(axis=(1, 2)).min() > 12, "every frame of the segment is forged"
    assert (change.mean(0) < 1).mean() > 0.6, "away from the face nothing is"


def test_a_forged_face_keeps_its_sound_bit_for_bit(out: Path) -> None:
    np.testing.assert_array_equal(sound(out / "sample.mouth_swap.0.mp4"), sound(SAMPLE))
    np.testing.assert_array_equal(sound(out / "sample.control-video.mp4"), sound(SAMPLE))


def test_the_control_is_the_original_to_the_eye(out: Path) -> None:
    assert psnr(luma(out / "sample.control-video.mp4"), luma(SAMPLE)) > 40
    before, after = sound(SAMPLE), sound(out / "sample.control-sound.mp4")[: len(sound(SAMPLE))]
    assert np.corrcoef(before[: len(after)], after)[0, 1] > 0.99, "in step with the original"


@pytest.mark.parametrize("method", [*VOICE, *MATCH])
def test_a_forged_voice_stays_in_its_segment(out: Path, method: str) -> None:
    path = out / f"sample.{method}.0.mp4"
    assert np.array_equal(luma(path), luma(SAMPLE)), "the video is copied"
    forged, control = sound(path), sound(out / "sample.control-sound.mp4")
    assert len(forged) == len(control)
    margin = 3000  # AAC windows overlap
    first, stop = (round(seconds * SAMPLE_RATE) for seconds in SEGMENT)
    outside = np.r_[0 : first - margin, stop + margin : len(forged)]
    inside = slice(first, stop)
    assert psnr(forged[outside], control[outside], 1.0) > 40
    assert psnr(forged[outside], control[outside], 1.0) > psnr(forged[inside], control[inside], 1.0) + 12


def test_the_manifest_says_what_was_forged(out: Path) -> None:
    table = read_manifest(out / "forged.csv")
    assert len(table) == 2 * (2 + 5)
    assert table["group"].nunique() == 1, "the one's face is merged into the other's: never on two sides of a split"
    assert table["path"].nunique() == len(table), "equal stems do not collide"
    assert set(table["split"]) == {"dev"}
    assert all(Path(path).is_file() for path in table["path"])
    wanted = dict.fromkeys(FACE, (1, 1, 0)) | dict.fromkeys(VOICE, (1, 0, 1)) | dict.fromkeys(MATCH, (1, 0, 0))
    for _, row in table.iterrows():
        parts = (row["fake"], row["video_fake"], row["audio_fake"])
        assert parts == wanted.get(row["method"], (0, 0, 0))
        if row["fake"]:
            assert row["fake_segments"] == (SEGMENT,)
            assert "control" in Path(row["original"]).name
            assert Path(row["original"]).is_file()
            assert Path(row["original"]).name.split(".")[0] == Path(row["path"]).name.split(".")[0]
            kind = "video" if row["method"] in FACE else "sound"
            assert Path(row["original"]).name.endswith(f".control-{kind}.mp4"), "through the same encoder"
            assert row["original"] in set(table["path"][table["fake"] == 0]), "the control is a row to train on"


def test_the_contact_sheet_shows_every_forgery(out: Path) -> None:
    sheet = cv2.imread(str(out / "contact.png"))
    assert sheet.shape[0] > 10 * 128
    panel = sheet[22 + 22 : 22 + 22 + 128]  # the first row: original, forged, difference
    third = panel.shape[1] // 3
    assert panel[:, 2 * third + 10 :].max() > 30
    assert np.abs(panel[:, :500].astype(int) - panel[:, third + 4 : third + 504]).max() > 10


def test_the_same_seed_gives_the_same_forgery(tool: ModuleType, short: Path, tmp_path: Path) -> None:
    frames, rows = [], []
    for index, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(index)
        words = (short, "--out", folder, "--method", "self_blend", "--seed", seed, "--no-control")
        assert run(tool, *words) == 0
        frames.append(luma(folder / "short.self_blend.0.mp4"))
        rows.append(read_manifest(folder / "forged.csv").iloc[0])
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])
    assert rows[0]["fake_segments"] == rows[1]["fake_segments"]
    (start, end), *others = rows[0]["fake_segments"]
    assert not others
    assert 0 <= start < end <= 1.64
    assert Path(rows[0]["original"]) == short.resolve(), "without a control it is the input"


CLOCKS = ["clap.mp4", "clap.mkv", "audio_late.ts", "video_late.mkv", "vfr.mkv"]


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("kind", ["video", "sound"])
def test_both_halves_keep_their_clock(media: MediaFactory, tmp_path: Path, name: str, kind: str) -> None:
    """A flash and a click stay where they are, whatever starts late."""
    source, target = media(name), tmp_path / "out.mp4"
    with MediaReader(source) as reader:
        if kind == "video":
            write_video(reader.video(), reader.info, target)
        else:
            write_sound(sound(source), reader.info, target)
    for path in (source, target):
        with MediaReader(path) as reader:
            first = next(iter(reader.video())).first_frame
        flash = (first + int(luma(path).mean((1, 2)).argmax())) / FPS
        heard = np.abs(sound(path))
        click = int((heard > heard.max() / 2).argmax()) / SAMPLE_RATE
        if path == source:
            was = flash, click
    assert flash == was[0]
    assert abs(click - was[1]) < 0.002


def test_a_file_that_cannot_be_written_is_said(media: MediaFactory, tmp_path: Path) -> None:
    with MediaReader(media("clap.mp4")) as reader, pytest.raises(MediaError, match="cannot write"):
        write_video(reader.video(), reader.info, tmp_path / "no such folder" / "out.mp4")
    with MediaReader(media("clap.mp4")) as reader:
        with pytest.raises(MediaError, match="gave no frames"):
            write_video(iter(()), reader.info, tmp_path / "out.mp4")
        batches = list(reader.video())
        with pytest.raises(MediaError, match="no pictures for"):
            write_video(iter([batches[0], batches[2]]), reader.info, tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir()), "no half of a file is left"


def test_sound_alone_can_be_forged(tool: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    """Voices are forged, faces are left out and named; what an explicit name asks for is an error."""
    path = tmp_path / "voice.wav"
    samples = (sound(SAMPLE)[: 2 * SAMPLE_RATE] * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    assert run(tool, path, "--out", tmp_path / "out", "--method", "self_blend") == 1
    assert "has no video" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.mp4")), "no control without a forgery"
    monkeypatch.setattr(forgeries, "METHODS", ("self_blend", "crappify", "lpc", "splice", "offset", "other_voice"))
    assert run(tool, path, "--out", tmp_path / "out", "--segment", 0.5, 1.2) == 0
    left_out = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2, "all of the faces, and the voice of somebody else"
    table = read_manifest(tmp_path / "out" / "forged.csv")
    assert list(table["method"]) == ["", "lpc", "splice", "offset"]
    assert list(table["fake"]) == [0, 1, 1, 1]
    assert set(table["original"][1:]) == {table["path"][0]}
    assert {Path(name).suffix for name in table["path"]} == {".m4a"}
    assert table["video_fake"].isna().all()
    assert len(sound(Path(table["path"][0]))) >= len(samples)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "face_off"], "there is no method 'face_off'; known: all, self_blend"),
        (["--segment", "3", "2"], "--segment must last"),
        (["--segment", "soon"], "takes START END"),
        (["--segment", "1", "nan"], "--segment must last"),
        (["--segment", "100", "102", "--method", "self_blend"], "no face"),
        (["--segment", "100", "102", "--method", "lpc"], "no voice"),
        (["--method", "rand_merge"], "name a second INPUT"),
        (["--method", "other_voice"], "name a second INPUT"),
        (["--count", "0"], "--count"),
        (["missing.mp4"], "cannot open"),
        ([str(SAMPLE)], "named twice"),
    ],
)
def test_mistakes_are_one_clear_line(tool: ModuleType, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    assert run(tool, SAMPLE, *words, "--out", tmp_path / "out") == 1
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_results_are_not_written_over(tool: ModuleType, out: Path, capsys) -> None:
    assert run(tool, SAMPLE, "--out", out) == 1
    assert "holds a forged.csv already" in capsys.readouterr().err


def test_an_interruption_leaves_what_is_finished(tool: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    calls = []

    def write(frames, info, target) -> None:
        calls.append(target)
        if len(calls) == 3:
            next(iter(frames))
            raise KeyboardInterrupt
        target.write_bytes(b"whole")

    monkeypatch.setattr(job, "write_video", write)
    monkeypatch.setattr(face_files, "write_video", write)
    words = (SAMPLE, "--out", tmp_path, "--method", "self_blend", "recompress", "--segment", 1, 2)
    assert run(tool, *words) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(read_manifest(tmp_path / "forged.csv")["method"]) == ["", "self_blend"], "the control comes first"


def test_the_list_names_every_method(tool: ModuleType, capsys) -> None:
    assert tool.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(forgeries.METHODS)
    assert all(len(line.split()) > 4 for line in lines)


def streams(path: Path) -> list[str]:
    """What ffmpeg says of a file's streams: codecs, sample rate, channels."""
    log = subprocess.run(
        [RENDERER, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False
    ).stderr
    lines = [line.split(": ", 1)[1] for line in log.splitlines() if "Stream #" in line]
    return [re.sub(r"\d+ (kb/s|tb[rn])", "", line) for line in lines]


@pytest.mark.parametrize("method", [*FACE, *VOICE, *MATCH])
def test_no_property_of_a_file_is_a_label(out: Path, method: str) -> None:
    """Codec, pixel format, sample rate and channels of the forged file and its original are the same."""
    table = read_manifest(out / "forged.csv")
    for _, row in table[table["method"] == method].iterrows():
        assert streams(Path(row["path"])) == streams(Path(row["original"]))
        assert any("Audio" in line for line in streams(Path(row["path"])))


def test_methods_add_up_over_repeated_options(tool: ModuleType, short: Path, tmp_path: Path) -> None:
    words = ("--method", "recompress", "--method", "lpc", "offset", "--method", "lpc", "--segment", 0.2, 1.2)
    assert run(tool, short, "--out", tmp_path, *words) == 0
    table = read_manifest(tmp_path / "forged.csv")
    assert list(table["method"][table["fake"] == 1]) == ["recompress", "lpc", "offset"]
    assert len(table[table["fake"] == 0]) == 2, "one control for the picture, one for the sound"


def test_controls_can_be_left_out(tool: ModuleType, short: Path, tmp_path: Path) -> None:
    words = ("--method", "recompress", "lpc", "--no-control", "--segment", 0.2, 1.2)
    assert run(tool, short, "--out", tmp_path, *words) == 0
    assert list(read_manifest(tmp_path / "forged.csv")["fake"]) == [1, 1]


def test_inputs_that_lend_nothing_keep_their_own_groups(tool: ModuleType, short: Path, tmp_path: Path) -> None:
    """Equal stems do not join them either, in this run or in another."""
    twin = tmp_path / "elsewhere" / "short.mp4"
    twin.parent.mkdir()
    options = ["-ss", "0", "-t", "1.6", "-i", str(SAMPLE), "-vf", "scale=240:240", "-preset", "ultrafast"]
    subprocess.run([RENDERER, "-v", "error", *options, str(twin)], check=True)
    words = ("--method", "lpc", "--segment", 0.2, 1.2)
    assert run(tool, short, twin, "--out", tmp_path / "both", *words) == 0
    table = read_manifest(tmp_path / "both" / "forged.csv")
    assert sorted(table["group"].value_counts()) == [2, 2]
    assert table["path"].nunique() == 4
    assert run(tool, twin, "--out", tmp_path / "one", *words) == 0
    alone = read_manifest(tmp_path / "one" / "forged.csv")
    assert set(alone["group"]) == set(table["group"][table["path"].str.contains("short-2")])


def test_a_borrowed_voice_joins_the_groups(tool: ModuleType, short: Path, tmp_path: Path) -> None:
    words = ("--method", "other_voice", "--segment", 0.2, 1.2)
    assert run(tool, short, SAMPLE, "--out", tmp_path, *words) == 0
    table = read_manifest(tmp_path / "forged.csv")
    assert len(table) == 4
    assert table["group"].nunique() == 1


def test_groups_join_along_chains() -> None:
    groups = ["d", "b", "c", "a", "e"]
    assert joined(groups, []) == groups
    assert joined(groups, [(0, 1), (1, 2)]) == ["b", "b", "b", "a", "e"]
    assert joined(groups, [(0, 1), (2, 3), (3, 0)]) == ["a", "a", "a", "a", "e"]


def test_a_copy_is_no_other_person(tool: ModuleType, short: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "renamed.mp4"
    shutil.copy(short, copy)
    assert run(tool, short, copy, "--out", tmp_path / "out", "--method", "other_voice") == 1
    assert "hold the same bytes" in capsys.readouterr().err


def test_too_much_sound_is_refused_and_not_cut(
    tool: ModuleType, short: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(inputs, "MAX_AUDIO_SECONDS", 1.0)
    assert run(tool, short, "--out", tmp_path, "--method", "lpc", "--segment", 0.1, 0.9) == 1
    shown = capsys.readouterr().err
    assert "LimitError" in shown
    assert "cut a part out of it" in shown
    assert not list(tmp_path.glob("*.mp4"))


def test_a_frozen_picture_has_no_other_moment(tool: ModuleType, tmp_path: Path, capsys) -> None:
    """A mouth swapped with itself would be a genuine face that is labelled fake."""
    frozen = tmp_path / "frozen.mp4"
    grab = ["-ss", "1", "-i", str(SAMPLE), "-frames:v", "1", str(tmp_path / "still.png")]
    loop = ["-loop", "1", "-t", "2", "-r", "25", "-i", str(tmp_path / "still.png"), "-qp", "0", "-preset", "ultrafast"]
    for options in (grab, [*loop, "-pix_fmt", "yuv420p", str(frozen)]):
        subprocess.run([RENDERER, "-v", "error", *options], check=True)
    assert run(tool, frozen, "--out", tmp_path / "out", "--method", "mouth_swap", "--segment", 0.2, 1.2) == 1
    assert "stands still" in capsys.readouterr().err


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("corner", [(20, 10), (-14, -8), (70, 50)])
def test_a_pasted_square_changes_no_other_sample(matrix: str, corner: tuple[int, int]) -> None:
    """Samples under the unforged part keep their value; the forged ones come back as they were painted."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (1, 120, 96), dtype=np.uint8)[0], (0, 0), 4)[None]
    frames = VideoFrames(np.ascontiguousarray(smooth // 2 + 60), 0, matrix, full_range=False)
    place = np.array(corner)
    before = frames.i420.copy()
    crop = cut(frames, 0, place, 48)
    assert FaceCrops(crop[None], np.zeros((1, 5, 2), np.float32)).crops.shape == (1, 48, 48, 3)
    paste(frames, 0, place, crop, crop)
    np.testing.assert_array_equal(frames.i420, before)
    forged = crop.copy()
    forged[12:36, 12:36] = np.clip(forged[12:36, 12:36] + np.array([25, -10, 12]), 0, 255)
    paste(frames, 0, place, crop, forged)
    inside = np.zeros((80, 96), bool)
    y, x = max(0, corner[1] + 12), max(0, corner[0] + 12)
    inside[y : max(0, corner[1] + 36), x : max(0, corner[0] + 36)] = True
    np.testing.assert_array_equal(frames.i420[0, :80][~inside], before[0, :80][~inside])
    chroma = (frames.i420[0, 80:] != before[0, 80:]).reshape(2, 40, 48)
    assert not (chroma & ~inside[::2, ::2]).any()
    again = cut(frames, 0, place, 48)
    rows = slice(max(16, -corner[1]), min(32, 80 - corner[1]))
    columns = slice(max(16, -corner[0]), min(32, 96 - corner[0]))
    assert np.abs(again[rows, columns].astype(int) - forged[rows, columns]).max() <= 3
