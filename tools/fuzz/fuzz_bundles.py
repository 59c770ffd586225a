"""Fuzz targets: bundles, from whoever made them, and configuration files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from avdetect import config
from avdetect._onnx import check_graph
from avdetect.bundle import DEFAULT_BUNDLE, GRAPHS, OUT_OF_FOLD, Bundle, BundleInfo, _read_info
from avdetect.config import to_dict
from avdetect.evaluation.held_out import held_out_table

CLASSES = (config.MediaLimits, config.TrainConfig, config.PreprocessConfig, config.ModelConfig, config.PairLoopConfig)


def _description() -> bytes:
    values = json.loads((DEFAULT_BUNDLE / "bundle.json").read_bytes())
    values["files"] = dict.fromkeys(
        (*(f"{graph}.onnx" for graph in GRAPHS), "golden.npz"), hashlib.sha256().hexdigest()
    )
    values["training"], values["versions"] = {"seed": 1}, {}
    return json.dumps(values).encode()


def bundle_json(data: bytes, folder: Path) -> None:
    """What a bundle says of itself."""
    (folder / "bundle.json").write_bytes(data)
    info, _ = _read_info(folder / "bundle.json")
    assert np.isfinite(info.calibration.probabilities(np.zeros((1, 4), np.float32))).all()
    assert str(to_dict(config.from_dict(BundleInfo, to_dict(info)))) == str(to_dict(info))  # NaN is not equal to itself


def onnx_graph(data: bytes, folder: Path) -> None:
    """A graph: what is accepted is, as protobuf itself reads it, what it was taken for."""
    check_graph(data, "x.onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    assert not model.functions
    assert not model.training_info
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    pending = [model.graph]
    while pending:
        message = pending.pop()
        pending += [
            item
            for field, value in message.ListFields()
            if field.message_type
            for item in (value if isinstance(value, Iterable) else [value])
        ]
        if isinstance(message, onnx.TensorProto):
            assert not message.external_data
            assert message.data_location == onnx.TensorProto.DEFAULT
            assert math.prod(message.dims) <= len(data)
        elif isinstance(message, onnx.NodeProto):
            assert message.domain in ("", "ai.onnx")
            assert message.op_type not in ("Loop", "Scan", "SequenceMap")
        else:
            assert not isinstance(message, onnx.SparseTensorProto)


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
    assert str(to_dict(config.from_dict(cls, to_dict(read)))) == str(to_dict(read))  # NaN is not equal to itself


def _npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _table() -> bytes:
    lines = gzip.decompress((DEFAULT_BUNDLE / OUT_OF_FOLD).read_bytes()).splitlines(keepends=True)
    return b"".join(lines[:3])


YAMLS = (
    b"max_pixels: 1000\nstall_seconds: 1.5e+1\nmax_memory_bytes: 0x10\n",
    b"seed: 3\nmodel:\n  streams: [visual]\n"
    b"  visual: {views: [{mean: [1, 2.0, 3]}], levels: [a], encoder_kwargs: {a: [1, {b: c}]}}\n"
    b"audio: {steps: 0}\nsync: {steps: 0}\nvisual:\n  forgeries: {blend: .5, swap: 1.0}\n  precision: bf16-mixed\n",
    b"detector: scrfd\nclip_seconds: 1_0.5\nfaces: {min_confidence: ~, crop_size: 0777}\n",
    b"- &a [x, y]\n- *a\n- !!binary aGk=\n- 2001-12-14t21:59:43.10-05:00\n- <<: {a: b}\n  ? [c]\n  : d\n",
    b"items: !!map x\nlr: 190:20:30\nsteps: !!int ''\n",
)


def _field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _graph() -> bytes:
    """A tensor of each way to write it, a branch, and lists of numbers in both encodings."""
    raw = _field(1, 2) + _field(2, 1) + _field(9, bytes(8))
    packed = _field(1, b"\x02\x01") + _field(2, 7) + _field(7, b"\x05\x06")
    constant = _field(4, b"Constant") + _field(5, _field(1, b"value") + _field(5, packed) + _field(20, 4))
    branch = _field(4, b"If") + _field(5, _field(6, _field(1, constant)) + _field(20, 5))
    pads = _field(4, b"Pad") + _field(7, b"ai.onnx") + _field(5, _field(8, 3) + _field(8, b"\x01\x02") + _field(20, 7))
    return _field(1, 8) + _field(7, _field(5, raw) + _field(1, pads) + _field(1, branch)) + _field(8, _field(2, 17))


TARGETS = {
    "onnx_graph": (onnx_graph, ((DEFAULT_BUNDLE / "fusion.onnx").read_bytes(), _graph())),
    "bundle_json": (bundle_json, (_description(), b'{"format": [1, 0], "files": {}}')),
    "golden": (golden, (_npz(a=np.arange(3, dtype=np.float32), b=np.zeros((2, 2), np.uint8)), _npz())),
    "out_of_fold": (out_of_fold, (b"\0" + _table(), b"\x80" + gzip.compress(_table(), mtime=0))),
    "yaml_config": (yaml_config, tuple(bytes([i % 5]) + text for i, text in enumerate(YAMLS))),
}
