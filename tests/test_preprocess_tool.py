"""tools/preprocess.py on real media: every file once, whatever ends the run, and the cache moves with the data."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
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
import pytest
from media_factory import RENDERER
from readme_media import FILTERS, SAMPLE, variant

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache.build import Options, Report, preprocess
from avdetect.datasets.cache.payload import encode_clip
from avdetect.datasets.cache.shards import read_clips, read_files
from avdetect.datasets.cache.worker import Setup, making, recipe_rng
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import validate, write_manifest
from avdetect.errors import AVDetectError, ConfigError, ManifestError
from avdetect.faces import build_detector
from avdetect.jobs.pool import BasePool
from avdetect.preprocess import Preprocessor, still_clips

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "preprocess.py"
VIDEOS = 4


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


NAMES = [*(f"v{i}.mp4" for i in range(VIDEOS)), "noise.mp4", "again.mp4", "still.png", "voice.wav", "gone.mp4"]


def table_of(folder: Path, names: list[str]) -> pd.DataFrame:
    paths = [str(folder / name) for name in names]
    groups = [name.replace("again", "v0") for name in names]  # equal bytes must be of one group
    rows = {"path": paths, "fake": 0, "video_fake": 0, "audio_fake": "", "group": groups, "split": "train"}
    return pd.DataFrame(rows | {"dataset": "d", "method": "", "original": "", "fake_segments": ""})


def manifest(folder: Path, names: list[str], target: Path) -> Path:
    write_manifest(table_of(folder, names), target)
    return target


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


def start(*arguments: object, limit_kb: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    if limit_kb is not None:  # no file may grow beyond it: what a full disk is to the writer
        command = ["bash", "-c", 'ulimit -f "$0"; exec "$@"', str(limit_kb), *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # A runner in the background hands down SIG_IGN, and Python would not hear of an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(cache: Path, folder: Path, names: list[str] | None = None, **options) -> Report:
    table = validate(table_of(folder, names or NAMES))
    return preprocess(table, cache, options.pop("config", PreprocessConfig()), Options(**options))


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a run that nothing disturbed, through the real entry point."""
    folder = tmp_path_factory.mktemp("straight")
    command = ["--manifest", manifest(data, NAMES, folder / "m.parquet"), "--cache", folder / "cache", "--workers", 2]
    process = start(*command)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == f"7 clips of 7 files in {folder / 'cache'}\n"
    summary, same, *failed = err.splitlines()
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
    assert [Path(p).name for p in archive.files["path"]] == [n for n in NAMES if n not in ("noise.mp4", "gone.mp4")]
    paths = archive.files["path"].tolist()
    for number in (0, 5, 6):
        path = paths[archive.clips["file"][number]]
        clips = still_clips(preprocessor, path) if path.endswith(".png") else preprocessor.clips(path)
        assert encode_clip(archive.load(number)) == encode_clip(clips[0]), path
    assert archive.clips["main_faces"].gt(0).tolist() == [True] * 6 + [False]
    assert (
        archive.files["sha256"][0]
        == archive.files["sha256"][4]
        == hashlib.sha256((data / "v0.mp4").read_bytes()).hexdigest()
    )
    assert {Path(r["path"]).name: r["error"] for r in archive.failures.to_dict("records")} == {
        "noise.mp4": "MediaError",
        "gone.mp4": "MediaError",
    }
    archive.check_sources()


def test_a_second_run_has_nothing_to_do(straight: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.jobs.pool.Process", None)  # not one worker is started
    before = samples(straight)
    report = run(straight, data)
    assert (report.preprocessed, report.salvaged, report.clips) == (0, 0, 7)
    assert [Path(path).name for pair in report.duplicates for path in pair] == ["again.mp4", "v0.mp4"]
    assert samples(straight) == before


def test_cache_and_data_move_and_change(straight: Path, data: Path, tmp_path: Path) -> None:
    cache, moved = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(straight, cache)
    shutil.copytree(data, moved)
    (moved / "v1.mp4").rename(moved / "renamed.mp4")
    shutil.copy(moved / "v3.mp4", moved / "v2.mp4")  # other bytes under an old name, but known ones
    variant(moved / "v0.mp4", 1.3, "vflip")  # unknown ones
    names = ["renamed.mp4", "v0.mp4", "v2.mp4", "again.mp4"]
    report = run(cache, moved, [*names, "noise.mp4"], retry_failed=True)
    assert report.preprocessed == 2  # the new bytes, and what failed before, which it does again
    assert report.failures["path"].tolist() == [str(moved / "noise.mp4")]
    archive = ClipArchive(cache)
    assert [Path(path).name for path in archive.files["path"]] == names
    old = dict(zip((Path(p).name for p in ClipArchive(straight).files["path"]), range(9), strict=False))
    for number, name in ((0, "v1.mp4"), (2, "v3.mp4"), (3, "v0.mp4")):
        assert encode_clip(archive.load(number)) == encode_clip(ClipArchive(straight).load(old[name]))
    assert encode_clip(archive.load(1)) != encode_clip(ClipArchive(straight).load(0))
    assert len(samples(cache)) == len(samples(straight)) + 1


def test_equal_bytes_that_contradict_each_other_are_not_published(straight: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(straight, cache)
    before = (cache / "manifest.parquet").read_bytes()
    table = table_of(data, ["v0.mp4", "again.mp4", "v1.mp4"]).assign(group=["a", "b", "c"])
    table["split"] = ["train", "dev", "train"]
    table["fake"] = table["video_fake"] = [0, 1, 0]
    with pytest.raises(ManifestError, match=r"again\.mp4 has the bytes of .*v0\.mp4, but not its fake \(1 against 0\)"):
        preprocess(validate(table), cache, PreprocessConfig(), Options())
    assert (cache / "manifest.parquet").read_bytes() == before
    assert run(cache, data).preprocessed == 0


# -- runs that end early


def end_when_busy(process: subprocess.Popen[str], cache: Path, files: int, number: int) -> tuple[str, str]:
    """Send a signal to the parent alone once `files` files are whole in some shard."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 60:
        partials = [path.read_bytes() for path in cache.glob("shards/*.partial")]
        if sum(content.count(b'"warnings": [') for content in partials) >= files:
            break
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=60)


def test_a_killed_run_loses_and_repeats_nothing(straight: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ["--manifest", manifest(data, NAMES, tmp_path / "m.csv"), "--cache", cache, "--workers", 2]
    process = start(*command)
    end_when_busy(process, cache, 2, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed: the test shows nothing"
    report = run(cache, data)
    assert report.salvaged >= 2
    assert report.preprocessed == VIDEOS + 3 - report.salvaged
    assert samples(cache) == samples(straight)
    assert not list(cache.glob("shards/*.partial"))
    pd.testing.assert_frame_equal(ClipArchive(cache).clips, ClipArchive(straight).clips)
    pd.testing.assert_frame_equal(ClipArchive(cache).files, ClipArchive(straight).files)


def test_an_interrupt_is_one_line_and_no_loss(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start("--manifest", manifest(data, NAMES, tmp_path / "m.csv"), "--cache", cache, "--workers", 1)
    _, err = end_when_busy(process, cache, 1, signal.SIGINT)
    assert process.returncode == 130
    assert err.splitlines() == ["preprocess: interrupted; what is done is kept, run again to go on"]
    assert run(cache, data, NAMES[:1]).preprocessed == 0


def test_a_full_disk_stops_the_run(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ["--manifest", manifest(data, NAMES[:1], tmp_path / "m.csv"), "--cache", cache, "--workers", 1]
    process = start(*command, limit_kb=100)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1
    assert "File too large" in err
    assert "run again" in err
    assert not list(cache.glob("shards/*.tar"))


def test_two_runs_on_one_cache_are_refused(straight: Path, data: Path, tmp_path: Path) -> None:
    with (straight / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AVDetectError, match="another run is writing"):
            run(straight, data)


def murderous(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], times: float) -> list[str]:
    """Kill the worker of every file of that name, once it was told to preprocess it, so often; the list grows."""
    submit, victims = BasePool._submit, []

    def kill(self) -> None:
        submit(self)
        for worker in self._workers:
            if worker.item is None or not worker.item.value["sha256"] or id(worker) in seen:
                continue
            path = worker.item.value["path"]
            if path.endswith(names) and len(victims) < times:
                seen.append(id(worker))
                kept.append(worker)  # so that no other one gets its id
                victims.append(path)
                if hasattr(worker, "process"):
                    os.kill(worker.process.pid, signal.SIGKILL)
                else:
                    worker.kill()

    seen, kept = list[int](), []
    monkeypatch.setattr(BasePool, "_submit", kill)
    return victims


def test_a_file_that_kills_its_worker_costs_itself_only(
    data: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victims = murderous(monkeypatch, ("v1.mp4",), math.inf)
    names, cache = ["v1.mp4", "v0.mp4"], tmp_path / "cache"
    report = run(cache, data, names)  # tried twice, then recorded as failed, and no run stops at it again
    assert report.failures[["path", "error"]].to_numpy().tolist() == [[str(data / "v1.mp4"), "WorkerError"]]
    assert "ended 2 times, the last time by SIGKILL" in report.failures["message"][0]
    assert "--retry-failed" in report.failures["message"][0]
    assert len(victims) == 2
    assert report.clips == 1
    assert run(cache, data, names).clips == 1
    (cache / "sources.jsonl").rename(tmp_path / "aside")  # all is hashed anew
    assert run(cache, data, names).clips == 1
    assert len(victims) == 2
    monkeypatch.undo()
    report = run(cache, data, names, retry_failed=True)
    assert (report.preprocessed, report.clips, len(report.failures)) == (1, 2, 0)
    assert Counter(samples(tmp_path / "cache").values()) <= Counter(samples(straight).values())


def test_where_every_file_kills_its_worker_the_machine_is_to_blame(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    murderous(monkeypatch, ("mp4",), math.inf)
    with pytest.raises(AVDetectError, match="the third file in a row: run again with fewer --workers"):
        run(tmp_path / "cache", data, workers=2)


@pytest.mark.parametrize("engine", ["process", "ray"])
def test_a_worker_that_is_killed_costs_a_second_try(
    data: Path,
    tmp_path: Path,
    straight: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    engine: str,
) -> None:
    """And the cache is as if nothing had happened, whoever fills it."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    victims = murderous(monkeypatch, ("",), 1)
    report = run(tmp_path / "cache", data, workers=2, engine=engine)
    assert len(victims) == 1
    assert report.preprocessed == VIDEOS + 3
    assert samples(tmp_path / "cache") == samples(straight)
    pd.testing.assert_frame_equal(ClipArchive(tmp_path / "cache").clips, ClipArchive(straight).clips)
    pd.testing.assert_frame_equal(ClipArchive(tmp_path / "cache").files, ClipArchive(straight).files)
    assert run(tmp_path / "cache", data, engine=engine).preprocessed == 0


def test_a_file_that_never_ends_is_recorded_as_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = BasePool._submit

    def stop(self) -> None:
        stopped(self)
        for worker in self._workers:
            if worker.item is not None and worker.item.value["sha256"] and worker.item.value["path"].endswith("v1.mp4"):
                os.kill(worker.process.pid, signal.SIGSTOP)
                worker.deadline = 0.0

    monkeypatch.setattr(BasePool, "_submit", stop)
    report = run(tmp_path / "cache", data, ["v1.mp4", "v0.mp4"], workers=1)
    assert report.failures[["path", "error"]].to_numpy().tolist() == [[str(data / "v1.mp4"), "LimitError"]]
    assert report.clips == 1


def test_a_machine_with_another_detector_preprocesses_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preprocess otherwise"):
        making(Setup(tmp_path, PreprocessConfig(), MediaLimits(), None, "{}"))


# -- re-encoded copies


def test_a_fake_and_its_original_share_recipes() -> None:
    def draws(*arguments) -> list[float]:
        return recipe_rng(*arguments).random(3).tolist()

    assert draws(0, 1, "a" * 64) == draws(0, 1, "a" * 64)
    others = [draws(1, 1, "a" * 64), draws(0, 2, "a" * 64), draws(0, 1, "b" * 64)]
    assert draws(0, 1, "a" * 64) not in others


def test_copies_stand_beside_the_file(straight: Path, data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(straight, cache)
    names = ["v0.mp4", "voice.wav", "noise.mp4"]
    assert run(cache, data, names, copies=1).preprocessed == 1
    archive = ClipArchive(cache)
    assert archive.clips[["file", "copy", "clip"]].to_numpy().tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    one, other = archive.load(0), archive.load(1)
    assert abs(one.duration_seconds - other.duration_seconds) < 0.2
    assert encode_clip(one) != encode_clip(other)
    assert len(samples(cache)) == len(samples(straight)) + 1
    assert run(cache, data, names, copies=1).preprocessed == 0
    assert run(cache, data, names).clips == 2  # without copies they are left out, not lost


def copy_recipes(cache: Path) -> dict[str, str]:
    """sha256 -> digest of the recipe of its first copy."""
    tables = [read_files(tar) for tar in sorted((cache / "shards").glob("*.tar"))]
    rows = pd.concat(tables).query("copy == 1")
    assert not rows["sha256"].duplicated().any(), "a copy was made twice"
    return dict(zip(rows["sha256"], rows["recipe"], strict=True))


def test_copies_move_with_the_data(straight: Path, data: Path, tmp_path: Path) -> None:
    """The recipe hangs on the original's bytes, or else on the file's own: not on where they lie."""
    cache, moved = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(straight, cache)
    names = ["v1.mp4", "v0.mp4", "v2.mp4"]  # the fake before its original; one whose original is elsewhere

    def table(folder: Path) -> pd.DataFrame:
        rows = table_of(folder, names).assign(fake=[1, 0, 1], video_fake=[1, 0, 1])
        return validate(rows.assign(original=[str(folder / "v0.mp4"), "", str(folder / "absent.mp4")]))

    assert preprocess(table(data), cache, PreprocessConfig(), Options(workers=2, copies=1)).preprocessed == 3
    recipes = copy_recipes(cache)
    fake, real, other = (recipes[hashlib.sha256((data / name).read_bytes()).hexdigest()] for name in names)
    assert fake == real != other
    before = samples(cache)
    shutil.copytree(data, moved)
    report = preprocess(table(moved), cache, PreprocessConfig(), Options(copies=1))
    assert (report.preprocessed, report.clips) == (0, 6)
    assert samples(cache) == before


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "other.yaml"], "preprocess.clip_seconds: 12.0 there, 6.0 now"),
        (["--detector-model", "nowhere"], "weights are missing"),
        (["--manifest", "gone.csv"], "cannot read"),
    ],
)
def test_a_refusal_is_one_clear_line(
    straight: Path,
    data: Path,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    tool = importlib.import_module("preprocess")
    (tmp_path / "other.yaml").write_text("preprocess: {clip_seconds: 6}\n")
    monkeypatch.chdir(tmp_path)
    target = manifest(data, NAMES, tmp_path / "m.csv")
    assert tool.main(["--manifest", str(target), "--cache", str(straight), *arguments]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert message in err
