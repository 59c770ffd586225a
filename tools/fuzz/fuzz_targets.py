"""Every fuzz target: its name, what runs, and the inputs that fuzzing begins with (the rest of them: seeds.toml)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import fuzz_checks
import numpy as np
import pandas as pd
from fuzz_checks import FAILED, SCORED, SEEDS, TREES, member

from avdetect.bundle import DEFAULT_BUNDLE, GRAPHS, OUT_OF_FOLD
from avdetect.config import PreprocessConfig
from avdetect.datasets.cache.records import CLIP_COLUMNS, Record
from avdetect.datasets.cache.store import Identity
from avdetect.errors import AVDetectError
from avdetect.evaluation.ledger import RESULTS


@dataclass(frozen=True)
class Target:
    """`run` takes the bytes, and a folder of its own for what it must write."""

    run: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes, folder: Path) -> bool:
        """Whether `data` is accepted. Whatever `run` raises besides AVDetectError is a finding."""
        try:
            self.run(data, folder)
        except AVDetectError as error:
            if str(error):
                return False
            raise  # an error says what happened and what to do
        return True


def _description() -> bytes:
    values = json.loads((DEFAULT_BUNDLE / "bundle.json").read_bytes())
    names = (*(f"{graph}.onnx" for graph in GRAPHS), "golden.npz")
    values |= {"files": dict.fromkeys(names, hashlib.sha256().hexdigest()), "training": {"seed": 1}, "versions": {}}
    return json.dumps(values).encode()


def _npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _parquet() -> bytes:
    target = io.BytesIO()
    pd.read_csv(io.BytesIO(SEEDS["manifest"][0]), keep_default_na=False, dtype=str).to_parquet(target, index=False)
    return target.getvalue()


# A graph with one Constant: an int64 tensor in packed numbers, as no exporter of ours writes it.
_CONSTANT = b'\x08\x08:$\n""\x08Constant*\x16\n\x05value*\n\n\x02\x02\x01\x10\x07:\x02\x05\x06\xa0\x01\x04B\x02\x10\x11'
_TABLE = b"".join(gzip.decompress((DEFAULT_BUNDLE / OUT_OF_FOLD).read_bytes()).splitlines(keepends=True)[:3])
_RECORD = json.dumps(asdict(Record("k", "0" * 64, "a.mp4", 1, 2))).encode()
_ONE = [dict.fromkeys(CLIP_COLUMNS, 0) | {"crc32": 3421780262}]
_CLIP = json.dumps(asdict(Record("k", "0" * 64, "a", 1, 2, clips=_ONE))).encode()
_MADE: dict[str, tuple[bytes, ...]] = {
    "onnx_graph": ((DEFAULT_BUNDLE / "fusion.onnx").read_bytes(), _CONSTANT),
    "bundle_json": (_description(), b'{"format": [1, 0], "files": {}}'),
    "golden": (_npz(a=np.arange(3, dtype=np.float32), b=np.zeros((2, 2), np.uint8)), _npz()),
    "out_of_fold": (b"\0" + _TABLE, b"\x80" + gzip.compress(_TABLE, mtime=0)),
    "parquet_manifest": (_parquet(),),
    "journal": (
        json.dumps(FAILED).encode(),
        json.dumps(SCORED | {"path": "a.mp4", "warnings": ["w"]}).encode(),
        b'{"status": ',
    ),
    "ledger": (
        json.dumps(dict.fromkeys(RESULTS, 0.5)).encode(),
        json.dumps(dict.fromkeys(RESULTS, "nan")).encode(),
        b"{}",
    ),
    "adapter": tuple(bytes([number]) + tree["text"].encode("latin-1") for number, tree in enumerate(TREES)),
    "cache_json": (Identity(PreprocessConfig(), "mtcnn", "0" * 16).to_json().encode(), *SEEDS["cache_json"]),
    "shard": (member("k_0000.npz", b"123456789") + member("k.json", _CLIP), member("k.json", _RECORD)),
    "shard_header": (b"k.npz\0\0\0" + b"0" * 11 + b"\0", b"k.json\0\0" + b"0" * 10 + b"2\0{}" + b"\0" * 510),
    "record": (_RECORD, _CLIP),
}
TARGETS = {name: Target(vars(fuzz_checks)[name], seeds) for name, seeds in (SEEDS | _MADE).items()}
