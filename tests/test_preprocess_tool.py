"""avdetect preprocess on real media: every file once, whatever ends the run, and the cache moves with the data."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import preprocess as tool
import pytest
from manifests import manifest_of
from media_factory import RENDERER
from readme_media import FILTERS, SAMPLE, variant

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache import store
from avdetect.datasets.cache.build import Options, Report, preprocess
from avdetect.datasets.cache.payload import encode_clip
from avdetect.datasets.cache.shards import read_clips, read_files
from avdetect.datasets.cache.worker import Setup, making
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import write_manifest
from avdetect.errors import AVDetectError, ConfigError
from avdetect.faces import build_detector
from avdetect.jobs.pool import BasePool
from avdetect.jobs.process import Process
from avdetect.preprocess import Preprocessor
from avdetect.stills import still_clips

ROOT = Path(__file__).parents[1]
VIDEOS = 4
NAMES = [*(f"v{i}.mp4" for i in range(VIDEOS)), "noise.mp4", "again.mp4", "still.png", "voice.wav", "gone.mp4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, a copy of the first, a photograph, a voice, a file of noise, and one that is missing."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(VIDEOS):
        variant(folder / f"v{i}.mp4", i * 0.8, FILTERS[i])
    shutil.copy(folder / "v0.mp4", folder / "again.mp4")
    frame = cv2.VideoCapture(str(SAMPLE)).read()[1]
    cv2.imwrite(str(folder / "still.png"), frame)
    command = ["-v", "error", "-t", "1", "-i", str(SAMPLE), "-vn", str(folder / "voice.wav")]
    subprocess.run([RENDERER, *command], check=True)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder


def table_of(folder: Path, names: list[str], **columns: list) -> pd.DataFrame:
    groups = [name.replace("again", "v0") for name in names]  # equal bytes must be of one group
    return manifest_of([folder / name for name in names], group=groups, **{"video_fake": 0, "original": ""} | columns)


def run(cache: Path, folder: Path, names: list[str] | None = None, **options) -> Report:
    return preprocess(table_of(folder, names or NAMES), cache, PreprocessConfig(), Options(**options))


def samples(cache: Path) -> dict[tuple[str, int], str]:
    """Every stored clip: (key, clip) -> digest of its bytes. No two may have one key."""
    found: dict[tuple[str, int], str] = {}
    for tar in sorted((cache / "shards").glob("*.tar")):
        content = tar.read_bytes()
        for row in read_clips(tar).to_dict("records"):
            assert (row["key"], row["clip"]) not in found, "stored twice"
            part = content[row["offset"] : row["offset"] + row["size"]]
            found[row["key"], row["clip"]] = hashlib.sha256(part).hexdigest()
    return found


def assert_same_cache(one: Path, other: Path) -> None:
    assert samples(one) == samples(other)
    pd.testing.assert_frame_equal(ClipArchive(one).clips, ClipArchive(other).clips)
    pd.testing.assert_frame_equal(ClipArchive(one).files, ClipArchive(other).files)


def start(data: Path, folder: Path, names: list[str], workers: int, limit_kb: int | None = None) -> subprocess.Popen:
    """The command, on a cache in `folder`."""
    write_manifest(table_of(data, names), folder / "m.parquet")
    command = [sys.executable, str(ROOT / "tools" / "preprocess.py"), "--manifest", str(folder / "m.parquet")]
    command += ["--cache", str(folder / "cache"), "--workers", str(workers)]
    if limit_kb is not None:  # no file may grow beyond it: what a full disk is to the writer
        command = ["bash", "-c", 'ulimit -f "$0"; exec "$@"', str(limit_kb), *command]
    return subprocess.Popen(
        command,
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
    """The cache of a run that nothing disturbed, through the real entry point."""
    folder = tmp_path_factory.mktemp("straight")
    process = start(data, folder, NAMES, 2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out == f"7 clips of 7 files in {folder / 'cache'}\n"
    summary, same, *failed = said(err)
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
    report = run(straight, data)
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
    variant(moved / "v0.mp4", 1.3, "vflip")  # unknown ones
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
    assert_same_cache(cache, straight)


def test_an_interrupt_is_one_line_and_no_loss(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path, NAMES, 1)
    err = end_when_busy(process, tmp_path / "cache", 1, signal.SIGINT)
    assert process.returncode == 130
    assert said(err) == ["preprocess: interrupted; what is done is kept, run again to go on"]
    assert run(tmp_path / "cache", data, NAMES[:1]).preprocessed == 0


def test_a_full_disk_stops_the_run(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path, NAMES[:1], 1, limit_kb=100)
    (line,) = said(process.communicate(timeout=120)[1])
    assert process.returncode == 1
    assert "File too large" in line
    assert "run again" in line
    assert not list(tmp_path.glob("cache/shards/*.tar"))


def meddle(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], times: float, harm) -> list[str]:
    """Do `harm` to the worker of every file of that name, once it has it; the list grows."""
    submit, victims, kept = BasePool._submit, [], []

    def submit_and_harm(self) -> None:
        submit(self)
        for worker in self._workers:
            if worker.item is None or worker in kept or len(victims) >= times:
                continue
            path = worker.item.value["records"][0]["source"]
            if path.endswith(names):
                kept.append(worker)
                victims.append(path)
                harm(worker)

    monkeypatch.setattr(BasePool, "_submit", submit_and_harm)
    return victims


def kill(worker) -> None:
    if isinstance(worker, Process):
        os.kill(worker.pid, signal.SIGKILL)
    else:
        worker.kill()


def test_a_file_that_kills_its_worker_costs_itself_only(
    data: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = meddle(monkeypatch, ("v1.mp4",), math.inf, kill)
    names, cache = ["v1.mp4", "v0.mp4"], tmp_path / "cache"
    report = run(cache, data, names)  # tried twice, then recorded as failed, and no run stops at it again
    assert report.failures[["path", "error"]].to_numpy().tolist() == [[str(data / "v1.mp4"), "WorkerError"]]
    assert "ended 2 times, the last time by SIGKILL" in report.failures["message"][0]
    assert "--retry-failed" in report.failures["message"][0]
    assert len(victims) == 2
    (cache / "sources.jsonl").rename(tmp_path / "aside")  # all is hashed anew
    assert report.clips == run(cache, data, names).clips == 1
    assert len(victims) == 2
    monkeypatch.undo()
    report = run(cache, data, names, retry_failed=True)
    assert (report.preprocessed, report.clips, len(report.failures)) == (1, 2, 0)
    assert Counter(samples(cache).values()) <= Counter(samples(straight).values())


def test_where_every_file_kills_its_worker_the_machine_is_to_blame(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddle(monkeypatch, ("mp4",), math.inf, kill)
    with pytest.raises(AVDetectError, match="the third file in a row: run again with fewer --workers"):
        run(tmp_path / "cache", data, workers=2)


@pytest.mark.parametrize("engine", ["process", "ray"])
def test_a_worker_that_is_killed_costs_a_second_try(
    data: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, request, engine: str
) -> None:
    """And the cache is as if nothing had happened, whoever fills it."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    victims = meddle(monkeypatch, ("",), 1, kill)
    report = run(tmp_path / "cache", data, workers=2, engine=engine)
    assert len(victims) == 1
    assert report.preprocessed == VIDEOS + 3
    assert_same_cache(tmp_path / "cache", straight)
    assert run(tmp_path / "cache", data, engine=engine).preprocessed == 0


def test_copies_hang_on_the_originals_bytes_and_move_with_the_data(straight: Path, data: Path, tmp_path: Path) -> None:
    """The recipe hangs on the original's bytes, or else on the file's own: not on where they lie."""
    cache, moved = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(straight, cache)
    names = ["v1.mp4", "v0.mp4", "v2.mp4", "voice.wav"]  # the fake first; one whose original is elsewhere; a voice

    def fill(folder: Path, copies: int) -> Report:
        original = [str(folder / "v0.mp4"), "", str(folder / "absent.mp4"), ""]
        table = table_of(folder, names, fake=[1, 0, 1, 0], video_fake=[1, 0, 1, ""], original=original)
        return preprocess(table, cache, PreprocessConfig(), Options(workers=2, copies=copies))

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
    assert tool.main([*command, "--config", str(tmp_path / "other.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "preprocess.clip_seconds: 12.0 there, 6.0 now" in line
