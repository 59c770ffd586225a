"""A bundle's own training files are named, whatever manifest, split or path they come by."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from avdetect.bundle import OUT_OF_FOLD
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.manifest import digest, validate
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.provenance import files_trained_on, trained_on, warnings_of
from avdetect.pooling import FEATURES


def manifest(folder: Path, count: int = 6) -> pd.DataFrame:
    rows = []
    for i in range(count):
        (folder / f"{i}.mp4").write_bytes(bytes([i]) * 10)
        split = ("train", "dev", "test")[i % 3]
        rows.append({"path": str(folder / f"{i}.mp4"), "fake": i % 2, "group": f"g{i}", "split": split})
    return validate(pd.DataFrame(rows).assign(video_fake=None, audio_fake=None, dataset="made", method=""))


def bundle(known: list[str], stated: str = "") -> Any:
    table = pd.DataFrame({"sha256": known, "fold": 0} | dict.fromkeys((*FEATURES, *OUTPUTS), 0.5))
    content = gzip.compress(table.to_csv(index=False).encode())
    files = {OUT_OF_FOLD: content} if known else {}
    return SimpleNamespace(files=files, folder=Path("b"), info=SimpleNamespace(training={"manifest_digest": stated}))


def said(
    table: pd.DataFrame, one: Any, seen: tuple[str, ...] = (), out_of_fold: bool = False, known: Any = ()
) -> list[str]:
    setting: Any = SimpleNamespace(table=table, bundle=one, archive=None, trained_on=seen)
    return warnings_of(setting, table.assign(error=""), out_of_fold, set(known))


def test_files_of_a_source_that_was_trained_on_are_told(tmp_path: Path) -> None:
    table = manifest(tmp_path)
    dev = table[table["split"] == "dev"]
    assert said(dev, bundle([]), known=["made"])[0].startswith("2 of 2 files were not trained on, but are of sources")
    assert said(dev, bundle([]), known=["other"]) == []
    assert said(table, bundle([]), ("train",), known=["made"])[1].startswith("4 of 6 files")
    assert said(dev, bundle([]), known=["made"], out_of_fold=True) == []


def test_training_files_are_known_by_their_bytes(tmp_path: Path) -> None:
    table = manifest(tmp_path)
    one = bundle([file_sha256(path) for path in table["path"][:4]])
    assert files_trained_on(table, one, None) == 4
    assert files_trained_on(table[4:], one, None) == 0
    assert said(table, one)[0].startswith("4 of 6 files were used to train this bundle")
    assert said(table, one, out_of_fold=True) == []
    assert said(table[4:], one) == []


@pytest.mark.parametrize(("splits", "expected"), [(["train"], ["train"]), (["train", "dev"], ["train", "dev"])])
def test_without_such_a_table_the_manifest_tells(tmp_path: Path, splits: list[str], expected: list[str]) -> None:
    table = manifest(tmp_path)
    one = bundle([], digest(table[table["split"].isin(splits)]))
    assert trained_on(table, one) == expected
    assert "trained on the files of split train" in said(table, one, tuple(expected))[0]
    assert trained_on(manifest(tmp_path, 3), one) == []
