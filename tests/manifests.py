"""Manifests of files that need not exist: what a test does not state is the same in every row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from avdetect.datasets.manifest import validate


def manifest_of(paths: Iterable[object], **columns: Any) -> pd.DataFrame:
    """Real files, each a group of its own, of whose face and voice nobody says anything."""
    names = [str(path) for path in paths]
    stated = {"path": names, "fake": 0, "video_fake": None, "audio_fake": None, "group": names, "split": "train"}
    return validate(pd.DataFrame(stated | {"dataset": "made", "method": ""} | columns))
