"""A bundle of small networks, and changes to a copy of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import talking_clip

from avdetect.audio import N_MELS
from avdetect.bundle import Bundle, Calibration, OnnxNetworks
from avdetect.config import AudioConfig, FusionConfig, ModelConfig, PreprocessConfig, SyncConfig, VisualConfig
from avdetect.export import export_bundle
from avdetect.model import Model
from avdetect.pooling import FEATURES

CONFIG = ModelConfig(
    visual=VisualConfig(encoder="test_efficientnet", pretrained="/home/someone/encoder.safetensors"),
    audio=AudioConfig(channels=(4, 8, 8), embedding=8),
    sync=SyncConfig(embedding=8, channels=(4, 4, 8, 8)),
    fusion=FusionConfig(parts=False),
)
TABLE = gzip.compress(b"path,fake,p_fake,fold\na.mp4,1,0.93,0\nb.mp4,0,0.08,1\n", mtime=0)
CALIBRATION = Calibration((1.0, 2.0, 0.5, 1.5), (0.0, -1.0, 0.3, 0.9), 0.01, 0.6, 0.5)
Edit = Callable[[dict[str, Any]], None]


def build_model(config: ModelConfig = CONFIG) -> Model:
    """With random batch statistics, as after training: the identity would hide a lost normalisation."""
    torch.manual_seed(0)
    model = Model(config, load_pretrained=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    model.fusion.fit_scale(torch.randn(20, len(FEATURES)).abs())
    return model.eval()


def export(model: Model, folder: Path) -> Bundle:
    return export_bundle(
        model,
        folder,
        name="tiny",
        licence="MIT",
        preprocess=PreprocessConfig(),
        calibration=CALIBRATION,
        training={"manifest_digest": "0" * 16},
        sample=[talking_clip(80, mouth=PreprocessConfig().faces.mouth_size)],
        out_of_fold=TABLE,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model()


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(model, tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def networks(exported: Bundle) -> OnnxNetworks:
    return OnnxNetworks(exported, "cpu", threads=1)


@pytest.fixture
def copy(exported: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(exported.folder, tmp_path / "copy")


def edit(folder: Path, change: Edit) -> None:
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its hash: what somebody who builds a malicious bundle would do."""
    (folder / name).write_bytes(content)
    edit(folder, lambda v: v["files"].update({name: hashlib.sha256(content).hexdigest()}))


def random_input(graph: str, rows: int, rng: np.random.Generator, time: int = 200) -> np.ndarray:
    mels = (rng.normal(-5, 3, (rows, time, N_MELS)) * rng.uniform(0.2, 2, (rows, 1, 1))).astype(np.float32)
    return {
        "visual": lambda: rng.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2),
        "speech": lambda: mels,
        "audio": lambda: mels[:, :, None],
        "mouth": lambda: rng.integers(0, 256, (rows, time // 10, 8, 8), dtype=np.uint8).repeat(8, 2).repeat(8, 3),
        "voice": lambda: mels[:, :, None],
        "fusion": lambda: rng.normal(0, 2, (rows, len(FEATURES))).astype(np.float32),
    }[graph]()
