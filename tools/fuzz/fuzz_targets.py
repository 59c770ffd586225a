"""Every fuzz target: its name, what runs, and the inputs that fuzzing begins with (the rest of them: seeds.toml)."""

import gzip
import hashlib
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    run: Callable[[bytes, Path], None]  # takes the bytes, and a folder of its own for what it must write
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


def _made(write: Callable[..., object], **options: Any) -> bytes:
    target = io.BytesIO()
    write(target, **options)
    return target.getvalue()


def _json(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


# The default bundle's, without what it says of its training.
_FILES = dict.fromkeys((*(f"{graph}.onnx" for graph in GRAPHS), "golden.npz"), hashlib.sha256().hexdigest())
_BUNDLE = json.loads((DEFAULT_BUNDLE / "bundle.json").read_bytes())
_BUNDLE |= {"files": _FILES, "training": {"seed": 1}, "versions": {}}
# A graph with one Constant: an int64 tensor in packed numbers, as no exporter of ours writes it.
_CONSTANT = b'\x08\x08:$\n""\x08Constant*\x16\n\x05value*\n\n\x02\x02\x01\x10\x07:\x02\x05\x06\xa0\x01\x04B\x02\x10\x11'
_ARRAYS = {"a": np.arange(3, dtype=np.float32), "b": np.zeros((2, 2), np.uint8)}
_TABLE = b"".join(gzip.decompress((DEFAULT_BUNDLE / OUT_OF_FOLD).read_bytes()).splitlines(keepends=True)[:3])
_MANIFEST = pd.read_csv(io.BytesIO(SEEDS["manifest"][0]), keep_default_na=False, dtype=str)
_ONE = [dict.fromkeys(CLIP_COLUMNS, 0) | {"crc32": 3421780262}]
_RECORDS = _json(asdict(Record("k", "0" * 64, "a.mp4", 1, 2)), asdict(Record("k", "0" * 64, "a", 1, 2, clips=_ONE)))
_MADE: dict[str, tuple[bytes, ...]] = {
    "onnx_graph": ((DEFAULT_BUNDLE / "fusion.onnx").read_bytes(), _CONSTANT),
    "bundle_json": _json(_BUNDLE, {"format": [1, 0], "files": {}}),
    "golden": (_made(np.savez_compressed, **_ARRAYS), _made(np.savez_compressed)),
    "out_of_fold": (b"\0" + _TABLE, b"\x80" + gzip.compress(_TABLE, mtime=0)),
    "parquet_manifest": (_made(_MANIFEST.to_parquet, index=False),),
    "journal": (*_json(FAILED, SCORED | {"path": "a.mp4", "warnings": ["w"]}), b'{"status": '),
    "ledger": _json(dict.fromkeys(RESULTS, 0.5), dict.fromkeys(RESULTS, "nan"), {}),
    "adapter": tuple(bytes([number]) + tree["text"].encode("latin-1") for number, tree in enumerate(TREES)),
    "cache_json": (Identity(PreprocessConfig(), "mtcnn", "0" * 16).to_json().encode(), *SEEDS["cache_json"]),
    "shard": (member("k_0000.npz", b"123456789") + member("k.json", _RECORDS[1]), member("k.json", _RECORDS[0])),
    "shard_header": (b"k.npz\0\0\0" + b"0" * 11 + b"\0", b"k.json\0\0" + b"0" * 10 + b"2\0{}" + b"\0" * 510),
    "record": _RECORDS,
}
TARGETS = {name: Target(vars(fuzz_checks)[name], seeds) for name, seeds in (SEEDS | _MADE).items()}

# Damage to inputs: to their bytes, and to values of the JSON or table in them

_TOKENS = (b"\0", b"\xff", b'"', b"\n", b"\r", b",", b"[" * 3000, b"9" * 5000, b"1e999", b"{}", b"\xed\xa0\x80")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", "\0", "a\nb", "\ud800", "/", "../x"),
    *("1", "é" * 300, [], {}, [[]], [0, 1], {"a": 1}, [None], {"": []}, "9" * 5000, [[1, 2, 3]], [["x", "y"]]),
)
# A text, a small list or object, a word or number of JSON; a cell of a table.
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|\[[^\[\]]*\]|\{[^{}]*\}|[-+.\w]+|(?<=,)(?=[,\n])')


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One damaged copy: of a value in it, where there is one, half of the time: another, none, or the same twice."""
    found = list(_VALUE.finditer(data)) if rng.random() < 0.5 else []
    if not found:
        return _bytes(data, rng)
    place, value = rng.choice(found), rng.choice(_VALUES)
    new = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    cell = b'"' + new.replace(b'"', b'""') + b'"'  # as a table has it
    new = rng.choice((new, new, cell, cell, b"", place[0] + b"," + place[0]))
    return data[: place.start()] + new + data[place.end() :]


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, length = rng.randrange(len(out) + 1), rng.randrange(1, 9)
        kind = rng.randrange(9)
        if kind < 2:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind < 4:
            del out[at : at + length]
        elif kind < 6:
            out[at:at] = out[at : at + length] * rng.randrange(1, 4)
        elif kind < 8:
            out[at : at + rng.randrange(3)] = rng.choice(_TOKENS)
        else:
            del out[at:]
    return bytes(out)
