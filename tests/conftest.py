"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from media_factory import MediaFactory

from avdetect.extras import how_to_install
from avdetect.jobs import ray


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed may name files that are no UTF-8, but pytest-xdist's workers send reports as such."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaFactory:
    """`media("clap.mp4")` is the path of that rendered file (see media_factory)."""
    return MediaFactory(tmp_path_factory.mktemp("media"))


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
