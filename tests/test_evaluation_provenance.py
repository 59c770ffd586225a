"""A bundle's own training files are named, whatever manifest, split or path they come by."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from manifests import manifest_of

from avdetect.bundle import OUT_OF_FOLD
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.manifest import digest
from avdetect.evaluation.ledger import OUTPUTS
from avdetect.evaluation.provenance import trained_on, warnings_of
from avdetect.evaluation.setting import Setting
from avdetect.pooling import FEATURES


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    paths = [tmp_path / f"{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 10)
    return manifest_of(paths, fake=[0, 1] * 3, split=["train", "dev", "test"] * 2)


def bundle(known: list[str], stated: str = "") -> Any:
    table = pd.DataFrame({"sha256": known, "fold": 0} | dict.fromkeys((*FEATURES, *OUTPUTS), 0.5))
    files = {OUT_OF_FOLD: gzip.compress(table.to_csv(index=False).encode())} if known else {}
    return SimpleNamespace(files=files, folder=Path("b"), info=SimpleNamespace(training={"manifest_digest": stated}))


def said(table: pd.DataFrame, one: Any, **options: Any) -> list[str]:
    return warnings_of(Setting(table, one, Path("out"), **options), table.assign(error=""))


def test_files_and_sources_that_were_trained_on_are_told(table: pd.DataFrame) -> None:
    dev = table[table["split"] == "dev"]
    one = bundle([file_sha256(path) for path in table["path"][:4]])
    assert said(table, one)[0].startswith("4 of 6 files were used to train this bundle")
    assert said(table, one, out_of_fold=True) == said(table[4:], one) == []
    assert said(dev, bundle([]), known={"made"})[0].startswith("2 of 2 files were not trained on, but are of sources")
    assert said(dev, bundle([]), known={"other"}) == said(dev, bundle([]), known={"made"}, out_of_fold=True) == []


def test_without_a_table_of_files_the_manifest_tells(table: pd.DataFrame) -> None:
    for splits in (["train"], ["train", "dev"]):
        one = bundle([], digest(table[table["split"].isin(splits)]))
        assert trained_on(table, one) == splits
        assert "trained on the files of split train" in said(table, one, trained_on=tuple(splits))[0]
        assert trained_on(table[:3], one) == []
