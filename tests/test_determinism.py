"""One file, one bundle, one machine: one score, whatever the threads and the workers (to 1e-6), and the batches."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from media_factory import encode
from readme_media import SAMPLE

import avdetect
from avdetect.bundle import DEFAULT_BUNDLE, GRAPHS, Bundle
from avdetect.media import MediaReader
from avdetect.report.data import to_dict

TOLERANCE = 1e-6
LAST_DECIMAL = 1e-4  # of the curves, which are rounded: a millionth may tip one over


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two faces over more than one clip, at a frame rate that is converted; a damaged file."""
    folder = tmp_path_factory.mktemp("same")
    two, damaged = folder / "two.mp4", folder / "damaged.mkv"
    pair = "split[a][b];[a]hflip[c];[c][b]hstack,scale=480:240,fps=30000/1001"
    encode(two, "-i", str(SAMPLE), "-filter_complex", pair, "-t", "2.8", "-preset", "ultrafast")
    encode(damaged, "-i", str(SAMPLE), "-t", "2", "-c", "copy")
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(range(250)) * 2
    damaged.write_bytes(data)
    return [two, damaged]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default one, with clips of two seconds."""
    folder = shutil.copytree(DEFAULT_BUNDLE, tmp_path_factory.mktemp("bundle") / "short")
    config = replace(Bundle.load().info.preprocess, clip_seconds=2.0)
    changed = {"preprocess": asdict(config), "preprocess_digest": config.digest()}
    info = folder / "bundle.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | changed))
    return folder


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """All that was found, flat: `.streams.0.curves.0.values.3` -> its value. The time it took is no finding, and how
    often ffmpeg complained of damage is not known exactly: its threads talk into each other's lines."""
    assert result["status"] == "scored"
    return dict(_leaves({key: value for key, value in result.items() if key not in ("timing_seconds", "warnings")}, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{name}.{key}")
    else:
        yield name, value


def in_process(bundle: Path, files: list[Path], threads: int | None = None) -> list[dict[str, Any]]:
    detector = avdetect.load_detector(bundle, device="cpu", threads=threads)
    return [numbers(to_dict(detector.score(file))) for file in files]


@pytest.fixture(scope="module")
def expected(bundle: Path, files: list[Path]) -> list[dict[str, Any]]:
    found = in_process(bundle, files, threads=1)
    assert all(result[".fake"] is not None for result in found)
    assert any(".streams.0.curves.1.score" in result for result in found)  # two faces
    return found


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]], relative: float = 0.0) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            tolerance = TOLERANCE + (LAST_DECIMAL if ".values." in name else 0)
            tolerance += relative * abs(value) if isinstance(value, float) else 0
            same = abs(value - other[name]) <= tolerance if isinstance(value, float) else value == other[name]
            assert same, (name, value, other[name])


def test_threads_batches_and_what_went_before_change_nothing(bundle, files, expected, monkeypatch) -> None:
    """Threads alone change not even the last decimals. Neither the rows given to a network at once nor the frames read
    at once change more; but products of other sizes round otherwise, and the blocks of a transformer add that up."""
    assert_same(in_process(bundle, files[1:], threads=4), expected[1:])
    video: Callable[..., Any] = MediaReader.video
    for threads, rows, frames, order in ((4, 1, 7, [1, 0]), (2, 64, 1, [1])):
        batches = {"batch": frames}
        monkeypatch.setattr(MediaReader, "video", lambda self, by=batches, **window: video(self, **window | by))
        monkeypatch.setattr("avdetect.bundle._CPU_ROWS", dict.fromkeys(GRAPHS, rows))
        found = in_process(bundle, [files[i] for i in order], threads)
        assert_same(found, [expected[i] for i in order], relative=2e-5)


def test_workers_and_order_change_nothing_and_the_home_folder_stays_empty(
    bundle: Path, files: list[Path], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    """ONNX Runtime's wheels keep a number of the device and a queue of reports there unless they are told not to."""
    command = [sys.executable, "-m", "avdetect.cli", "score", str(files[1]), str(files[0]), "--json"]
    command += ["--bundle", str(bundle), "--device", "cpu", "--workers", "2"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    assert_same([numbers(json.loads(line)) for line in done.stdout.splitlines()], expected[::-1])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("codec", "flips", "seed"), [("libx264 -bf 2 -g 25", 6, 1), ("mpeg4", 200, 0)])
def test_a_damaged_file_shows_the_same_frames_each_time(codec: str, flips: int, seed: int, tmp_path: Path) -> None:
    """ffmpeg conceals what it cannot decode with what it finds in other frames: in which state must not be chance.

    Few flips in B-frames are concealed long before anything is called an error. MPEG-2 and Motion JPEG are not here:
    of them ffmpeg shows what its buffers held before, even with one thread.
    """
    file = tmp_path / "flipped.mkv"
    encode(file, "-i", str(SAMPLE), "-t", "4", "-an", "-bf", "0", "-g", "50", "-c:v", *codec.split())
    data, chance = bytearray(file.read_bytes()), random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data) // 3, len(data) * 9 // 10)] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    whole = {shown(file, threads, batch) for threads, batch in ((1, 5), (2, 1), (8, 5))}
    assert len(whole) == 1
    assert len({shown(file, threads, 5, start_seconds=1.6, duration_seconds=2.0) for threads in (1, 8)}) == 1


def shown(file: Path, threads: int, batch: int, **window: float) -> str:
    """Digest of the frames, after seeing that the damage was said."""
    digest = hashlib.sha256()
    with MediaReader(file, threads=threads) as reader:
        for frames in reader.video(batch=batch, **window):
            for index in range(len(frames)):
                for plane in frames.planes(index):
                    digest.update(plane.tobytes())
        assert any("damaged" in warning for warning in reader.warnings)
    return digest.hexdigest()
