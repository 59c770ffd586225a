"""Fuzz targets: bundles, from whoever made them, and configuration files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from avdetect import config
from avdetect.bundle import DEFAULT_BUNDLE, GRAPHS, OUT_OF_FOLD, Bundle
from avdetect.evaluation.held_out import held_out_table

CLASSES = (config.MediaLimits, config.TrainConfig, config.PreprocessConfig, config.ModelConfig, config.PairLoopConfig)


def _description() -> bytes:
    """A bundle.json whose other files are all empty."""
    values = json.loads((DEFAULT_BUNDLE / "bundle.json").read_bytes())
    values["files"] = dict.fromkeys((*(f"{graph}.onnx" for graph in GRAPHS), "golden.npz"), hashlib.sha256().hexdigest())
    values["training"], values["versions"] = {"seed": 1}, {}
    return json.dumps(values).encode()


def bundle_json(data: bytes, folder: Path) -> None:
    """bundle.json beside the files that it should list."""
    for name in (*(f"{graph}.onnx" for graph in GRAPHS), "golden.npz"):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"")
    (folder / "bundle.json").write_bytes(data)
    bundle = Bundle.load(folder)
    assert np.isfinite(bundle.info.calibration.probabilities(np.zeros((1, 3), np.float32))).all()


@cache
def _bundle() -> Bundle:
    return Bundle.load()


def golden(data: bytes, folder: Path) -> None:
    """golden.npz."""
    arrays = replace(_bundle(), files={"golden.npz": data}).golden()
    assert all(array.dtype != object for array in arrays.values())


def out_of_fold(data: bytes, folder: Path) -> None:
    """The table out_of_fold.csv.gz; half of the time as it lies on disk, else before it is compressed."""
    content = data[1:] if data[:1] >= b"\x80" else gzip.compress(data[1:], 1, mtime=0)
    held_out_table(replace(_bundle(), files={OUT_OF_FOLD: content}))


def yaml_config(data: bytes, folder: Path) -> None:
    """A configuration of the class that the first byte names; what is accepted survives being written and read."""
    path = folder / "config.yaml"
    path.write_bytes(data[1:])
    cls = CLASSES[data[0] % len(CLASSES)] if data else CLASSES[0]
    read = config.load_yaml(cls, path)
    assert config.from_dict(cls, config.to_dict(read)) == read


def _npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _table() -> bytes:
    lines = gzip.decompress((DEFAULT_BUNDLE / OUT_OF_FOLD).read_bytes()).splitlines(keepends=True)
    return b"".join(lines[:3])


YAMLS = (
    b"max_pixels: 1000\nstall_seconds: 1e-3\nmax_memory_bytes: 0x10\n",
    b"seed: 3\nmodel: {streams: [visual], visual: {mean: [1, 2.0, 3], levels: [a.b], encoder_kwargs: {a: [1, {b: c}]}}}\n"
    b"audio: {steps: 0}\nsync: {steps: 0}\nvisual:\n  forgeries: {blend: .5, swap: 1.0}\n  precision: bf16-mixed\n",
    b"detector: scrfd\nclip_seconds: 1_0.5\nfaces: {min_confidence: ~, crop_size: 0o777}\n",
    b"- &a [x, y]\n- *a\n- !!binary aGk=\n- 2001-12-14t21:59:43.10-05:00\n- <<: {a: b}\n  ? [c]\n  : d\n",
    b"items: !!map x\nlr: 190:20:30\nsteps: !!int ''\n",
)
TARGETS = {
    "bundle_json": (bundle_json, (_description(), b'{"format": [1, 0], "files": {}}')),
    "golden": (golden, (_npz(a=np.arange(3, dtype=np.float32), b=np.zeros((2, 2), np.uint8)), _npz())),
    "out_of_fold": (out_of_fold, (b"\0" + _table(), b"\x80" + gzip.compress(_table(), mtime=0))),
    "yaml_config": (yaml_config, tuple(bytes([i % 5]) + text for i, text in enumerate(YAMLS))),
}
