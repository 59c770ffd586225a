"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import one_thread  # noqa: F401  first of all
import pytest
from media_factory import MediaFactory
from readme_media import SAMPLE

from avdetect import Detection, Detector, cli, load_detector
from avdetect._media import tool
from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.extras import how_to_install
from avdetect.jobs import ray
from avdetect.jobs.pool import Done, Item, Pool

# The files that take longest come first: a worker that begins one last keeps the others waiting.
SLOW = """
    jobs_pool preprocess_tool evaluation_scores report_browser run hostile_cases serve_page evaluate_tool
    evaluation_tables forge_tool detector faces_seen fit_fusion media_hostile batch_cli augment_codecs insert_tool
    evaluation_report report_recorder determinism packs batches serve_restart media speech measuring_tools sampled
    golden_networks media_cases tracks serve_api
""".split()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # of pytest-xdist: by the number of tests in a file
        config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The libraries make most of a million objects, all of them to stay: looking for garbage among them was a quarter
    of the time that collection took."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed may name files that are no UTF-8, but pytest-xdist's workers send reports as such."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """No test pulls the plug: what is killed has written all the same, and a thousand small files need not wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaFactory:
    """`media("clap.mp4")` is the path of that rendered file (see media_factory)."""
    return MediaFactory(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The default bundle, on one thread of the CPU."""
    return load_detector(device="cpu", threads=1)


@pytest.fixture(scope="session")
def sample(detector: Detector) -> Detection:
    """What it says of the sample clip."""
    return detector.score(SAMPLE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of avdetect.serve that scores by the text of the upload (serve_scorers), for one test file."""
    from serve_running import running
    from serve_scorers import by_text

    with running(tmp_path_factory.mktemp("serve") / "data", by_text, max_upload_bytes=100_000, queue=1000) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, for one test file."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason=how_to_install("dev"))
    with playwright.sync_playwright() as driver:
        # Without its sandbox, which needs rights that CI and containers lack; it opens our own pages only.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class PoolHere(Pool):
    """Works in this process: for tests of what stands around the workers."""

    def run(self, items: Iterable[Item | None]) -> Generator[Done]:
        work = self._task()
        for item in items:
            if item is not None:
                yield Done(item, json.loads(json.dumps(work(item.value, lambda news: None))))


Here = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(detector: Detector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """here("score", "a.mp4", cwd=folder, code=0): the command line, without a process for it and its workers. code:
    what it must end with. given: standard input."""
    load = ScoringOptions.load

    def known(options: ScoringOptions, threads: int | None = None) -> Detector:
        plain = options.bundle is None and options.detector is None and options.limits == MediaLimits()
        return detector if plain else load(options, threads)

    monkeypatch.setattr(ScoringOptions, "load", known)
    monkeypatch.setattr("avdetect.jobs.pool.Pool", PoolHere)

    def run(*arguments: Any, code: int, cwd: Path | None = None, given: str | None = None) -> Any:
        words = list(map(str, arguments))
        capsys.readouterr()
        with monkeypatch.context() as patch, open("/dev/null" if given is None else _file_of(given)) as stdin:
            patch.setattr("sys.stdin", stdin)
            patch.setenv("COLUMNS", "100")
            if cwd is not None:
                patch.chdir(cwd)
            found = cli.run(words)
        out, err = capsys.readouterr()
        assert found == code, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def _file_of(text: str) -> int:
    """A file in memory with that text."""
    descriptor = os.memfd_create("given")
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Makes a program called ffmpeg that does what these lines of shell say; the environment names it."""
    tool._checked.cache_clear()

    def make(lines: str) -> Path:
        script = tmp_path / "ffmpeg"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setenv(tool.VARIABLE, str(script))
        return script

    yield make
    tool._checked.cache_clear()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[str]:
    """The address of a real Ray on this machine with room for two workers, for one test file.

    This process is connected to it: pools in it find that, and leave it running.
    """
    if importlib.util.find_spec("ray") is None:
        pytest.skip(how_to_install("ray"))
    with pytest.MonkeyPatch.context() as patch:
        # The scorers of the tests are imported on the other side too.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with ray.connect("local", 2):
            yield ray.ray().get_runtime_context().gcs_address
