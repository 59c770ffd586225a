"""avdetect preprocess on real media: every file once, whatever ends the run, and the cache moves with the data."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from cache_factory import kill_workers, samples
from conftest import PoolHere
from manifests import manifest_of
from media_factory import encode
from readme_media import FILTERS, SAMPLE, variant

from avdetect.cli import run_script
from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache import build, store
from avdetect.datasets.cache.build import Report
from avdetect.datasets.cache.payload import encode_clip
from avdetect.datasets.cache.shards import read_files
from avdetect.datasets.cache.worker import Setup, making
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import write_manifest
from avdetect.errors import AVDetectError, ConfigError
from avdetect.faces import build_detector
from avdetect.jobs.pool import Failed, Item, Pool
from avdetect.preprocess import Preprocessor
from avdetect.stills import still_clips

ROOT = Path(__file__).parents[1]
# A worker in this process leaves its shard open, as one that was killed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
VIDEOS = 4
NAMES = [*(f"v{i}.mp4" for i in range(VIDEOS)), "noise.mp4", "again.mp4", "still.png", "voice.wav", "gone.mp4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, a copy of the first, a photograph, a voice, a file of noise, and one that is missing."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(VIDEOS):
        variant(folder / f"v{i}.mp4", i * 0.8, FILTERS[i], seconds=1)
    shutil.copy(folder / "v0.mp4", folder / "again.mp4")
    frame = cv2.VideoCapture(str(SAMPLE)).read()[1]
    cv2.imwrite(str(folder / "still.png"), frame)
    encode(folder / "voice.wav", "-t", "1", "-i", str(SAMPLE), "-vn")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder


def table_of(folder: Path, names: list[str], **columns: list) -> pd.DataFrame:
    groups = [name.replace("again", "v0") for name in names]  # equal bytes must be of one group
    return manifest_of([folder / name for name in names], group=groups, **{"video_fake": 0, "original": ""} | columns)


def preprocess_here(table: pd.DataFrame, cache: Path, pool: type[Pool] = PoolHere, **options) -> Report:
    """In this process, unless another pool is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "Pool", pool)
        return build.preprocess(table, cache, PreprocessConfig(), build.Options(**options))


def run(cache: Path, folder: Path, names: list[str] | None = None, **options) -> Report:
    return preprocess_here(table_of(folder, names or NAMES), cache, **options)


def words(data: Path, folder: Path, names: list[str]) -> list[str]:
    """Of the command line, for a cache in `folder`."""
    write_manifest(table_of(data, names), folder / "m.parquet")
    return ["--manifest", str(folder / "m.parquet"), "--cache", str(folder / "cache")]


def start(data: Path, folder: Path, names: list[str], workers: int, before: str = "true") -> subprocess.Popen:
    """before: a command of the shell that becomes the process."""
    command = [sys.executable, str(ROOT / "tools" / "preprocess.py"), *words(data, folder, names)]
    return subprocess.Popen(
        ["bash", "-c", f'{before}; exec "$@"', "-", *command, "--workers", str(workers)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True},
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A runner in the background hands down SIG_IGN, and Python would not hear of an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def said(err: str) -> list[str]:
    """The lines of a run, without those of its progress."""
    return [line for line in err.splitlines() if "min left" not in line]


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a run that nothing disturbed, by the command."""
    folder, out, err = tmp_path_factory.mktemp("straight"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(build, "Pool", PoolHere)
        assert run_script("preprocess", words(data, folder, NAMES)) == 0
    assert out.getvalue() == f"7 clips of 7 files in {folder / 'cache'}\n"
    summary, same, *failed = said(err.getvalue())
    assert summary.startswith("9 files: 7 tried now, 0 taken")
    assert summary.endswith("1 with the bytes of another, 2 failed (2 MediaError)")
    assert same == f"same bytes: {data / 'again.mp4'} = {data / 'v0.mp4'}"
    assert [line.split(":")[1] for line in failed] == [f" {data / 'noise.mp4'}", f" {data / 'gone.mp4'}"]
    return folder / "cache"


def test_the_clips_are_the_preprocessors(straight: Path, data: Path) -> None:
    archive = ClipArchive(straight)
    detector = build_detector("mtcnn")
    assert (archive.detector, archive.fingerprint) == ("mtcnn", detector.fingerprint)
    preprocessor = Preprocessor(archive.config, detector, MediaLimits())
    paths = archive.files["path"].tolist()
    assert [Path(path).name for path in paths] == [n for n in NAMES if n not in ("noise.mp4", "gone.mp4")]
    for number in (0, 5, 6):
        path = paths[archive.clips["file"][number]]
        clips = still_clips(preprocessor, path) if path.endswith(".png") else preprocessor.clips(path)
        assert encode_clip(archive.load(number)) == encode_clip(clips[0]), path
    assert archive.clips["main_faces"].gt(0).tolist() == [True] * 6 + [False]
    hashes = archive.files["sha256"]
    assert hashes[0] == hashes[4] == hashlib.sha256((data / "v0.mp4").read_bytes()).hexdigest()
    failures = {Path(row.path).name: row.error for row in archive.failures.itertuples()}
    assert failures == {"noise.mp4": "MediaError", "gone.mp4": "MediaError"}
    archive.check_sources()


def test_a_second_run_has_nothing_to_do(straight: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.jobs.pool.ProcessWorker", None)  # not one worker is started
    hashed: list[Path] = []
    real = store.file_sha256
    monkeypatch.setattr(store, "file_sha256", lambda path: hashed.append(path) or real(path))
    before = samples(straight)
    report = run(straight, data, pool=Pool)
    assert (report.preprocessed, report.salvaged, report.clips) == (0, 0, 7)
    assert [Path(path).name for pair in report.duplicates for path in pair] == ["again.mp4", "v0.mp4"]
    assert samples(straight) == before
    assert hashed == [straight / "manifest.parquet"]  # no file is read again


def test_cache_and_data_move_and_change(straight: Path, data: Path, tmp_path: Path) -> None:
    cache, moved = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(straight, cache)
    shutil.copytree(data, moved)
    (moved / "v1.mp4").rename(moved / "renamed.mp4")
    shutil.copy(moved / "v3.mp4", moved / "v2.mp4")  # other bytes under an old name, but known ones
    variant(moved / "v0.mp4", 1.3, "vflip", seconds=1)  # unknown ones
    os.mkfifo(moved / "pipe.mp4")
    names = ["renamed.mp4", "v0.mp4", "v2.mp4", "again.mp4"]
    report = run(cache, moved, [*names, "noise.mp4", "pipe.mp4"], retry_failed=True)
    assert report.preprocessed == 2  # the new bytes, and what failed before, which it does again
    assert report.failures["path"].tolist() == [str(moved / "noise.mp4"), str(moved / "pipe.mp4")]
    archive, before = ClipArchive(cache), ClipArchive(straight)
    assert [Path(path).name for path in archive.files["path"]] == names
    old = dict(zip((Path(p).name for p in before.files["path"]), range(9), strict=False))
    for number, name in ((0, "v1.mp4"), (2, "v3.mp4"), (3, "v0.mp4")):
        assert encode_clip(archive.load(number)) == encode_clip(before.load(old[name]))
    assert encode_clip(archive.load(1)) != encode_clip(before.load(0))
    assert len(samples(cache)) == len(samples(straight)) + 1


# -- runs that end early


def end_when_busy(process: subprocess.Popen[str], cache: Path, files: int, number: int) -> str:
    """Send a signal to the parent alone once `files` files are whole in some shard; what it said."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 120:
        partials = [path.read_bytes() for path in cache.glob("shards/*.partial")]
        if sum(content.count(b'"warnings": [') for content in partials) >= files:
            break
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def test_a_killed_run_loses_and_repeats_nothing(straight: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(data, tmp_path, NAMES, 2)
    end_when_busy(process, cache, 2, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed: the test shows nothing"
    report = run(cache, data)
    assert report.salvaged >= 2
    assert report.preprocessed == VIDEOS + 3 - report.salvaged
    assert not list(cache.glob("shards/*.partial"))
    assert samples(cache) == samples(straight)
    for name in ("clips", "files"):
        pd.testing.assert_frame_equal(getattr(ClipArchive(cache), name), getattr(ClipArchive(straight), name))


def test_an_interrupt_is_one_line_and_no_loss(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path, NAMES, 1)
    err = end_when_busy(process, tmp_path / "cache", 1, signal.SIGINT)
    assert process.returncode == 130
    assert said(err) == ["preprocess: interrupted; what is done is kept, run again to go on"]
    assert run(tmp_path / "cache", data, NAMES[:1]).preprocessed == 0


def test_a_full_disk_stops_the_run(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path, NAMES[:1], 1, before="ulimit -f 20")  # kB
    (line,) = said(process.communicate(timeout=120)[1])
    assert process.returncode == 1
    assert "File too large" in line
    assert "run again" in line
    assert not list(tmp_path.glob("cache/shards/*.tar"))


def test_a_file_that_kills_its_worker_costs_itself_only(data, tmp_path, straight, monkeypatch):
    victims = kill_workers(monkeypatch, "v1.mp4")
    names, cache = ["v1.mp4", "v0.mp4"], tmp_path / "cache"
    report = run(cache, data, names, pool=Pool)  # tried twice, then recorded as failed, and no run stops at it again
    assert report.failures[["path", "error"]].to_numpy().tolist() == [[str(data / "v1.mp4"), "WorkerError"]]
    assert "ended 2 times, the last time by SIGKILL" in report.failures["message"][0]
    assert "--retry-failed" in report.failures["message"][0]
    assert len(victims) == 2
    (cache / "sources.jsonl").rename(tmp_path / "aside")  # all is hashed anew
    assert report.clips == run(cache, data, names, pool=Pool).clips == 1
    assert len(victims) == 2
    monkeypatch.undo()
    report = run(cache, data, names, retry_failed=True)
    assert (report.preprocessed, report.clips, len(report.failures)) == (1, 2, 0)
    assert Counter(samples(cache).values()) <= Counter(samples(straight).values())


def test_where_every_file_kills_its_worker_the_machine_is_to_blame(data: Path, tmp_path: Path) -> None:
    class Doomed(PoolHere):
        def run(self, items: Iterable[Item | None]) -> Generator[Failed]:
            yield from (Failed(item, "WorkerError", "its worker ended") for item in items if item)

    with pytest.raises(AVDetectError, match="the third file in a row: run again with fewer --workers"):
        run(tmp_path / "cache", data, pool=Doomed)


def test_copies_hang_on_the_originals_bytes_and_move_with_the_data(straight: Path, data: Path, tmp_path: Path) -> None:
    """The recipe hangs on the original's bytes, or else on the file's own: not on where they lie."""
    cache, moved = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(straight, cache)
    names = ["v1.mp4", "v0.mp4", "v2.mp4", "voice.wav"]  # the fake first; one whose original is elsewhere; a voice

    def fill(folder: Path, copies: int) -> Report:
        original = [str(folder / "v0.mp4"), "", str(folder / "absent.mp4"), ""]
        table = table_of(folder, names, fake=[1, 0, 1, 0], video_fake=[1, 0, 1, ""], original=original)
        return preprocess_here(table, cache, copies=copies)

    assert fill(data, 1).preprocessed == 3
    tables = pd.concat([read_files(tar) for tar in sorted((cache / "shards").glob("*.tar"))]).query("copy == 1")
    recipes = tables.set_index("sha256")["recipe"]
    assert not recipes.index.duplicated().any(), "a copy was made twice"
    fake, real, other = (recipes[hashlib.sha256((data / name).read_bytes()).hexdigest()] for name in names[:3])
    assert fake == real != other
    archive = ClipArchive(cache)
    rows = archive.clips[["file", "copy", "clip"]].to_numpy().tolist()
    assert rows == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [2, 0, 0], [2, 1, 0], [3, 0, 0]]
    one, other = archive.load(0), archive.load(1)
    assert abs(one.duration_seconds - other.duration_seconds) < 0.2
    assert encode_clip(one) != encode_clip(other)
    before = samples(cache)
    shutil.copytree(data, moved)
    report = fill(moved, 1)
    assert (report.preprocessed, report.clips) == (0, 7)
    assert fill(moved, 0).clips == 4  # without copies they are left out, not lost
    assert samples(cache) == before


# -- refusals


def test_a_machine_with_another_detector_preprocesses_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preprocess otherwise"):
        making(Setup(tmp_path, PreprocessConfig(), MediaLimits(), None, "{}"))


def test_a_refusal_is_one_clear_line(straight: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "other.yaml").write_text("preprocess: {clip_seconds: 6}\n")
    command = ["--manifest", str(straight.parent / "m.parquet"), "--cache", str(straight)]
    assert run_script("preprocess", [*command, "--config", str(tmp_path / "other.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "preprocess.clip_seconds: 12.0 there, 6.0 now" in line
