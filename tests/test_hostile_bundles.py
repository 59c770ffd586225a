"""Bundles from anybody: nothing but regular files is opened, and nothing unpacks without end."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile_graphs import bundle_with

from avdetect._untrusted import MAX_ARRAYS, read_regular
from avdetect.bundle import DEFAULT_BUNDLE, OUT_OF_FOLD, Bundle
from avdetect.errors import ModelError
from avdetect.evaluation.held_out import held_out_table


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Opening a FIFO waits for its writer, reading a device never ends."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextmanager
def refused(match: str, megabytes: int) -> Iterator[None]:
    """A ModelError, before so much memory is taken; what the test itself makes is included."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=match) as error:
        yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000 * megabytes  # KiB
    assert len(str(error.value)) < 2000


@pytest.fixture(scope="module")
def default() -> Bundle:
    return Bundle.load()


UNPACKED = 2**23
SAYS = dict.fromkeys(("bomb", "bomb of parts", "many arrays"), ".*more than")  # it is told before it is unpacked


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of 8 MiB is as good as one of the 256 that are allowed."""
    monkeypatch.setattr("avdetect._untrusted.MAX_UNPACKED_BYTES", UNPACKED)


PLACES: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("name", ["bundle.json", "visual.onnx", OUT_OF_FOLD])
def test_only_regular_files_are_read(tmp_path: Path, name: str) -> None:
    for kind, place in PLACES.items():
        folder = bundle_with(tmp_path / kind)
        (folder / name).unlink()
        place(folder / name)
        with pytest.raises(ModelError, match=name):
            Bundle.load(folder)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    for name in ("bundle.json", "visual.onnx"):
        folder = bundle_with(tmp_path / name)
        (folder / name).unlink()
        with (folder / name).open("wb") as file:
            file.truncate(2**40)
        with refused(f"{name} is larger than", megabytes=1000):
            Bundle.load(folder)
    (tmp_path / "x").write_bytes(bytes(1001))
    assert read_regular(tmp_path / "x", 1001) == bytes(1001)
    with pytest.raises(ModelError, match="larger than"):
        read_regular(tmp_path / "x", 1000)


def deep() -> list:
    return json.loads("[" * 500 + "]" * 500)


def test_a_description_that_overflows_is_refused(tmp_path: Path) -> None:
    values = json.loads((DEFAULT_BUNDLE / "bundle.json").read_text())
    for *place, key, value in (
        ("calibration", "fake_threshold", 10**400),
        ("calibration", "scale", [10**400, 1, 1, 1]),
        ("preprocess", "clip_seconds", 10**400),
        ("preprocess", "faces", "crop_size", 10**30),
        ("training", "x", 10**4000),
        ("training", "x", deep()),
        ("model", "visual", "encoder_kwargs", deep()),
        ("files", dict.fromkeys(("a", "b"))),
        ("format", [10**400]),
        ("format", [True]),
    ):
        changed = deepcopy(values)
        part = changed
        for name in place:
            part = part[name]
        part[key] = value
        (tmp_path / "bundle.json").write_text(json.dumps(changed))
        with refused("bundle", megabytes=1000):
            Bundle.load(tmp_path)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(*entries: tuple[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return file.getvalue()


def lying(content: bytes) -> bytes:
    """Its entry states a hundred bytes more or less than are packed in it, in both of its headers."""
    return archive(("a.npy", content)).replace(len(content).to_bytes(4, "little"), b"\x90\0\0\0")


def shaped(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


NPZ: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: archive(("a.npy", npy(np.zeros(UNPACKED, np.uint8)))),
    "bomb of parts": lambda: archive(*((f"{i}.npy", npy(np.zeros(UNPACKED // 8, np.uint8))) for i in range(9))),
    "many arrays": lambda: archive(*((f"{i}.npy", npy(np.zeros(1))) for i in range(MAX_ARRAYS + 1))),
    "lying": lambda: lying(npy(np.zeros(2**22, np.uint8))),
    "other packer": lambda: archive(("a.npy", npy(np.zeros(2**20))), kind=zipfile.ZIP_BZIP2),
    "shape": lambda: archive(("a.npy", shaped("(1099511627776,)"))),
    "overflowing shape": lambda: archive(("a.npy", shaped("(4294967296, 4294967296)"))),
    "negative shape": lambda: archive(("a.npy", shaped("(-2, -2)"))),
    "nothing often": lambda: archive(("a.npy", shaped("(1099511627776,)", "|V0"))),
    "text": lambda: archive(("a.npy", shaped("(4,)", "<U1"))),
    "object": lambda: archive(("a.npy", shaped("(2,)", "|O"))),
    "record": lambda: archive(("a.npy", npy(np.zeros(1, [("a", "f4")])))),
    "no array": lambda: archive(("a.npy", b"text")),
    "deep header": lambda: archive(("a.npy", shaped("(" * 200))),
    "no archive": lambda: bz2.compress(b""),
}


@pytest.mark.parametrize("kind", NPZ)
def test_hostile_golden_scores_are_refused(default: Bundle, little_room: None, kind: str) -> None:
    bundle = replace(default, files={"golden.npz": NPZ[kind]()})
    with refused(r"golden\.npz" + SAYS.get(kind, ""), megabytes=100):
        bundle.golden()


def test_honest_golden_scores_are_as_numpy_reads_them(default: Bundle) -> None:
    with np.load(io.BytesIO(default.files["golden.npz"]), allow_pickle=False) as expected:
        found = default.golden()
        assert set(found) == set(expected.files)
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], strict=True)
    bundle = replace(default, files={"golden.npz": archive(("a.npy", npy(np.asfortranarray(np.eye(3)[:, :2]))))})
    np.testing.assert_array_equal(bundle.golden()["a"], np.eye(3)[:, :2])


TABLE = gzip.decompress((DEFAULT_BUNDLE / OUT_OF_FOLD).read_bytes())
GZIPS: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: gzip.compress(bytes(UNPACKED + 1)),
    "cut": lambda: gzip.compress(TABLE)[:-9],
    "damaged": lambda: gzip.compress(TABLE)[:2000] + b"\xff" * 2000 + gzip.compress(TABLE)[4000:],
    "followed": lambda: gzip.compress(TABLE) + b"more",
    "no gzip": lambda: TABLE,
    "empty": lambda: b"",
    "no text": lambda: gzip.compress(b"\xff\xfe\0"),
    "nothing": lambda: gzip.compress(b""),
    "text for numbers": lambda: gzip.compress(TABLE.splitlines(True)[0] + b"x," * 100 + b"x\n"),
}


@pytest.mark.parametrize("kind", GZIPS)
def test_a_hostile_table_is_refused(default: Bundle, little_room: None, kind: str) -> None:
    with refused(OUT_OF_FOLD + SAYS.get(kind, ""), megabytes=100):
        held_out_table(replace(default, files={OUT_OF_FOLD: GZIPS[kind]()}))


def test_an_honest_table_is_read(default: Bundle) -> None:
    assert len(held_out_table(default)) == TABLE.count(b"\n") - 1
