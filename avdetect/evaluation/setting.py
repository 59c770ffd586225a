"""What an evaluation measures, where its clips come from, and the folder that belongs to it."""

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.bundle import Bundle, OnnxNetworks
from avdetect.config import MediaLimits
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import SPLITS
from avdetect.detector import Detector
from avdetect.errors import ConfigError, ManifestError
from avdetect.evaluation.sources import CacheClips, ClipSource, FileClips
from avdetect.faces import build_detector
from avdetect.files import open_run_folder
from avdetect.preprocess import Preprocessor


@dataclass(frozen=True)
class Setting:
    table: pd.DataFrame
    bundle: Bundle
    out: Path
    archive: ClipArchive | None = None
    workers: int = 1
    rounds: int = 500
    out_of_fold: bool = False
    split: str | None = None
    command: str = ""  # stated in the report
    trained_on: tuple[str, ...] = ()  # splits of these files that the bundle was trained on
    known: Set[str] = frozenset()  # sources of the manifest that the bundle was trained on

    @property
    def progress(self) -> Path:
        return self.out / "progress"

    def source(self, rows: np.ndarray) -> ClipSource:
        """The clips of some rows of the table: from the cache, or from the files."""
        table = self.table[rows]
        if self.archive is not None:
            return CacheClips(self.archive, table)
        return FileClips(table, self.bundle.info.preprocess)

    @cached_property
    def detector(self) -> Detector:
        config = self.bundle.info.preprocess
        preprocessor = Preprocessor(config, build_detector(config.detector), MediaLimits())
        return Detector(self.bundle, preprocessor, OnnxNetworks(self.bundle))


def selected(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    if split is not None and split not in SPLITS:
        raise ConfigError(f"--split {split}: it must be one of {', '.join(SPLITS)}")
    kept = table if split is None else table[table["split"] == split]
    if not len(kept):
        raise ManifestError("the manifest has no files" + (f" of the split {split}" if split else ""))
    return kept.reset_index(drop=True)


def open_archive(cache: Path | None, bundle: Bundle) -> ClipArchive | None:
    if cache is None:
        return None
    archive = ClipArchive(cache)
    if archive.config.digest() != bundle.info.preprocess_digest:
        raise ConfigError(
            f"the clips of {cache} were made with preprocessing {archive.config.digest()}, the bundle expects "
            f"{bundle.info.preprocess_digest}: leave --cache out, or preprocess with the bundle's configuration"
        )
    return archive


def claim(out: Path, identity: dict[str, Any]) -> None:
    """Make the folder, or make sure that it belongs to this very evaluation. Raises ConfigError."""
    if out.exists() and not (out / "run.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and is no folder of an evaluation: name another --out")
    open_run_folder(out, identity, "name another --out, or delete the folder")
    (out / "progress").mkdir(exist_ok=True)
