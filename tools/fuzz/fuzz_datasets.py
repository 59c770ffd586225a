"""Fuzz targets: the metadata of public datasets, and the folder of a preprocessing cache."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

from avdetect.config import PreprocessConfig
from avdetect.datasets.adapters import ADAPTERS
from avdetect.datasets.cache.records import CLIP_COLUMNS, Record
from avdetect.datasets.cache.shards import scan
from avdetect.datasets.cache.store import CACHE, Identity, _read_sources

# Adapter, the file that is fuzzed, the media files that lie there, and an example of the file.
SWAP = "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"
LAVDF = {"file": "a.mp4", "n_fakes": 1, "fake_periods": [[0.5, 1.5]], "original": "b.mp4", "split": "train"}
AV1M = {"file": "id1/a.mp4", "original": "id1/b.mp4", "split": "val", "modify_type": "both-modified"}
TREES: tuple[tuple[str, str, tuple[str, ...], object], ...] = (
    (
        "dfdc",
        "dfdc_train_part_0/metadata.json",
        ("dfdc_train_part_0/a.mp4", "dfdc_train_part_0/b.mp4"),
        {"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}, "b.mp4": {"label": "REAL"}},
    ),
    ("dfdc-test", "metadata.json", ("t/a.mp4",), {"a.mp4": {"is_fake": 1, "augmentations": {"fps": {"x": [1]}}}}),
    ("dfdc-test", "labels.csv", ("t/a.mp4",), "filename,label\na.mp4,1\n"),
    ("dfdc-preview", "dataset.json", ("m/101/a.mp4",), {"m/101/a.mp4": {"label": "fake", "set": "train"}}),
    (
        "fakeavceleb",
        "meta_data.csv",
        ("R/a.mp4",),
        "source,target1,target2,method,category,type,race,gender,path,\n"
        "id1,-,-,real,A,RealVideo-RealAudio,x,men,a.mp4,FakeAVCeleb/R\n",
    ),
    ("faceforensics", "train.json", (SWAP,), [["000", "003"], ["003", "000"]]),
    (
        "celebdf",
        "List_of_testing_videos.txt",
        ("Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4"),
        "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n",
    ),
    ("lavdf", "metadata.min.json", ("a.mp4", "b.mp4"), [LAVDF | {"modify_video": True, "modify_audio": False}]),
    (
        "avdeepfake1m",
        "val_metadata.json",
        ("val/id1/a.mp4", "val/id1/b.mp4"),
        [AV1M | {"fake_segments": [[0, 1]], "audio_fake_segments": [[0.1, 0.2]], "video_model": "x"}],
    ),
    ("avdeepfake1m", "testA_files.txt", ("testA/a.mp4",), "a.mp4\n\nb.mp4\n"),
    (
        "csv",
        "mine.csv",
        ("a.mp4", "b.mp4"),
        'path,fake,original,split,group,fake_segments\na.mp4,fake,b.mp4,val,,"[[0, 1]]"\nb.mp4,0,,valid,007,\n',
    ),
    (
        "corpus",
        "clips.csv",
        ("a.mp4",),
        "file,fake,video_fake,audio_fake,kind,generator,identity,source,split\na.mp4,1,1,,x,swap,ann,s,dev\n",
    ),
)
BESIDE = {  # the other two tables of a corpus
    "speech.csv": "file,fake,system,speaker,pair,source,split\ns.wav,1,tts,lj,p,page,train\n",
    "stills.csv": "file,fake,generator,source,split\ni.jpg,0,,s,train\n",
}


def adapter(data: bytes, folder: Path) -> None:
    """The metadata of one dataset; the first byte says of which."""
    number = data[0] % len(TREES) if data else 0
    name, file, media, _ = TREES[number]
    root = folder / str(number)
    if not root.exists():
        for path in (*media, *((*BESIDE, "s.wav", "i.jpg") if name == "corpus" else ())):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(BESIDE.get(path, ""), encoding="utf-8")
        (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(data[1:])
    listing = ADAPTERS[name](root / file if name == "csv" else root)
    assert len(listing.table)
    assert listing.table["path"].is_unique
    assert set(listing.table["split"]) <= {"", "train", "dev", "test"}


def cache_json(data: bytes, folder: Path) -> None:
    """cache.json and sources.jsonl of a preprocessing cache."""
    (folder / "sources.jsonl").write_bytes(data)
    assert all(isinstance(value, str) for value in _read_sources(folder).values())
    (folder / CACHE).write_bytes(data)
    Identity.read(folder)


def shard(data: bytes, folder: Path) -> None:
    """A shard of a preprocessing cache, as it is salvaged after a kill."""
    records, rows, end = scan(io.BytesIO(data))
    assert end <= len(data) + tarfile.BLOCKSIZE
    assert len(rows) == sum(len(record.clips) for record in records)


def record(data: bytes, folder: Path) -> None:
    """The record of a file in a shard: what follows the tar header, which is made to fit."""
    shard(_member("k.json", data), folder)


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def shard_header(data: bytes, folder: Path) -> None:
    """A shard whose first header is right but for what the bytes put into it: name and size, then what follows."""
    header = bytearray(tarfile.TarInfo("k.npz").tobuf(tarfile.USTAR_FORMAT))
    header[:8], header[124:136] = data[:8].ljust(8, b"\0"), data[8:20].ljust(12, b"\0")
    header[148:156] = b" " * 8  # as the checksum is taken
    header[148:156] = b"%06o\0 " % sum(header)
    shard(bytes(header) + data[20:], folder)


def _text(example: object) -> bytes:
    return (example if isinstance(example, str) else json.dumps(example)).encode()


_RECORD = json.dumps(asdict(Record("k", "0" * 64, "a.mp4", 1, 2))).encode()
_CLIP = json.dumps(
    asdict(Record("k", "0" * 64, "a", 1, 2, clips=[dict.fromkeys(CLIP_COLUMNS, 0) | {"crc32": 3421780262}]))
).encode()
TARGETS = {
    "adapter": (adapter, tuple(bytes([number]) + _text(tree[3]) for number, tree in enumerate(TREES))),
    "cache_json": (
        cache_json,
        (
            Identity(PreprocessConfig(), "mtcnn", "0" * 16).to_json().encode(),
            b'{"path": "a", "size": 1, "mtime_ns": 2, "sha256": "00"}\n{"path": "b"}\n{"pa',
        ),
    ),
    "shard": (shard, (_member("k_0000.npz", b"123456789") + _member("k.json", _CLIP), _member("k.json", _RECORD))),
    "shard_header": (
        shard_header,
        (b"k.npz\0\0\0" + b"0" * 11 + b"\0", b"k.json\0\0" + b"0" * 10 + b"2\0{}" + b"\0" * 510),
    ),
    "record": (record, (_RECORD, _CLIP)),
}
