"""An archive whose files state their row by luma and tone, for the tests of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from archive_factory import make_archive
from clips import make_track, tones
from manifests import manifest_of

from avdetect.config import FaceConfig, ModelConfig, PairLoopConfig, PreprocessConfig, StreamLoopConfig
from avdetect.training.sampling import Draws, Subset
from avdetect.types import Clip, Waveform

CONFIG = PreprocessConfig(faces=FaceConfig(crop_size=32))
PAIRS = PairLoopConfig(batch_size=16, codec=0.0)
SYNC = StreamLoopConfig(batch_size=4, codec=0.0)
MODEL = ModelConfig()
ROWS = [  # (kind, fake, video_fake, audio_fake, dataset, original): luma and tone of a file state its row
    ("clip", 0, 0, 0, "news", ""),
    ("clip", 0, 0, "", "news", ""),
    ("clip", 1, 1, 0, "swaps", "/0"),
    ("clip", 1, "", 1, "dubs", "/0"),
    ("clip", 1, 0, 0, "mismatch", ""),
    ("clip", "", "", "", "unlabelled", ""),
    ("speech", 1, "", 1, "tts", "/7"),
    ("speech", 0, "", 0, "people", ""),
    ("still", 0, 0, "", "photos", ""),
    ("still", 1, 1, "", "gan", ""),
    ("clip", 1, "", "", "contest", "/0"),
]


def luma(row: int) -> int:
    return 20 + 20 * row


def media(row: int, kind: str) -> list[Clip]:
    """All crops of a row have its luma, its tone stands above the voice."""
    track = make_track(np.zeros(60, int), size=32)
    level = np.full_like(track.face_crops, luma(row))
    level[:, :4, :4] = np.arange(len(level), dtype=np.uint8)[:, None, None, None]  # no two moments are alike
    track = dataclasses.replace(track, face_crops=level, mouth_crops=np.full_like(track.mouth_crops, luma(row)))
    wave = Waveform(tones(np.full(63, row))[:40_000])
    return [Clip(0, 2.4, () if kind == "speech" else (track,), None if kind == "still" else wave)]


def table_of(rows=ROWS) -> pd.DataFrame:
    columns = ("kind", "fake", "video_fake", "audio_fake", "dataset", "original")
    stated = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return manifest_of([f"/{i}" for i in range(len(rows))], **stated, fake_segments="")


def part_of(root: Path, clips: list[list[Clip]], table: pd.DataFrame | None = None) -> Subset:
    archive = make_archive(root, table_of() if table is None else table, clips, CONFIG)
    return Subset(archive, np.arange(len(archive.files)))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Subset:
    clips = [media(i, row[0]) for i, row in enumerate(ROWS)]
    return part_of(tmp_path_factory.mktemp("archive"), clips)


def spy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the archive's clips, as they are drawn."""
    rows: list[int] = []
    draw = Draws.draw

    def noted(self: Draws, rng: np.random.Generator) -> int:
        rows.append(draw(self, rng))
        return rows[-1]

    monkeypatch.setattr(Draws, "draw", noted)
    return rows


def assert_pure(make: Callable[[int], Callable]) -> None:
    """make(seed) -> batches."""
    batches, fresh = make(0), make(0)
    one = batches(7)
    batches(3)
    for key, value in one.items():
        assert value.equal(batches(7)[key]), "nothing depends on what was drawn before"
        assert value.equal(fresh(7)[key])
        for parts in (2, 4):
            joined = torch.cat([batches(7, p, parts)[key] for p in range(parts)])
            assert value.equal(joined), "the parts of a step are its joint batch"
    assert any(not v.equal(batches(8)[k]) for k, v in one.items()), "the step counts"
    assert any(not v.equal(make(1)(7)[k]) for k, v in one.items()), "the seed counts"
