"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
from media_factory import MediaFactory


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaFactory:
    """`media("clap.mp4")` is the path of that rendered file (see media_factory)."""
    return MediaFactory(tmp_path_factory.mktemp("media"))
