"""The fuzz targets (tools/fuzz) without atheris: their seeds, what fuzzing found, and a few hundred damaged copies."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fuzz_targets import TARGETS, mutate

from avdetect.datasets.cache.records import CLIP_COLUMNS

DEEP = b"[" * 3000
HUGE = b"1" + b"0" * 400
REJECTED = {  # seeds that are there to be refused: target -> their numbers
    **{"facts": {2}, "bundle_json": {1}, "yaml_config": {3, 4}, "manifest": {1}, "ledger": {2}},
    **{"segments": {2, 3}, "cache_json": {1}, "journal": {2}},
}
SLOW = {"parquet_manifest", "adapter", "manifest", "shard", "shard_header", "record", "out_of_fold"}


def _bundle(old: bytes, new: bytes) -> bytes:
    changed = TARGETS["bundle_json"].seeds[0].replace(old, new)
    assert new in changed
    return changed


def _result(**changes: object) -> bytes:
    return json.dumps(json.loads(TARGETS["journal"].seeds[0]) | changes).encode()


def _parquet(**changes: object) -> bytes:
    """With another description of the columns than pandas wrote."""
    table = pq.read_table(io.BytesIO(TARGETS["parquet_manifest"].seeds[0]))
    target = io.BytesIO()
    stated = json.loads(table.schema.metadata[b"pandas"]) | changes
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(stated).encode()}), target)
    return target.getvalue()


# What left a target untyped, or took long, before it was mended. The first of each, and what says so, was found by
# fuzzing (atheris, or the copies below); the others are its neighbours, found by reading on from there.
FOUND: dict[str, list[bytes]] = {
    "facts": [
        b'{"container": "x", "streams_found": 1e999}',
        b'{"streams_found": ' + HUGE + b"}",
        b'{"streams": ' + DEEP,
        b'{"streams": [{"kind": "video", "codec": "x", "width": 16, "height": 16, "start": [1, 0]}]}',
        b'{"streams": [{"kind": "audio", "codec": "\\u0000", "sample_rate": 1, "channels": 1, "bit_rate": -1}]}',
    ],
    "results": [b"-\xb0d1e\xfc99"],  # a name that a spreadsheet would calculate with
    "clock": [
        b"\xff0, 0, " + b"9" * 5000 + b", 1, 1, 0x0\n",
        b"\xff0, 0, " + b"9" * 19 + b", 1, 1, 0x0\n0, 0, -" + b"9" * 19 + b", 1, 1, 0x0\n",
        b"\x000, 0, 0, 1, 1, 0x0\n" * 50,
    ],
    "bundle_json": [
        _bundle(b'"clip_seconds": 12.0', b'"clip_seconds": ' + HUGE),
        _bundle(b'"crop_size": 480', b'"crop_size": ' + HUGE),
        _bundle(b'"crop_size": 480', b'"crop_size": -' + HUGE),
        _bundle(b'"seed": 1', b'"seed": ' + b"[" * 400 + b"]" * 400),
    ],
    "out_of_fold": [
        b"\x80" + gzip.compress(b"sha256,fold\n", mtime=0)[:10] + b"\xff" * 20,
        b"\0" + TARGETS["out_of_fold"].seeds[0][1:].split(b"\n")[0] + b"\n" + b"x," * 60 + b"\n",
    ],
    "yaml_config": [
        b"\1steps: !!int ''",
        b"\1items: !!map x",
        b"\1lr: !!float ''",
        b"\1release: !!bool x",
        b"\1name: !!timestamp 2001-99-99",
        b"\0" + DEEP,  # fuzzed too: took half a minute
        b"\0max_streams: 0x" + b"f" * 5000,
        b"\0stall_seconds: 0x" + b"f" * 5000,
        b"\0? [a]\n: b",
        b"\3visual: {encoder_kwargs: {a: 2001-01-01}}",
        b"\3visual: {encoder_kwargs: {1: 2}}",
    ],
    "journal": [
        _result(path=["a"]),
        _result(error="\ud800"),  # fuzzed too, like the next
        _result(path={"a": 1}),
        DEEP,
        *(_result(status="scored", **change) for change in ({"fake": "much"}, {"missing": []}, {"sync": 1})),
        _result(status="scored"),
    ],
    "cache_json": [
        DEEP,
        b'{"path": ' + DEEP,
        b'{"path": "a", "size": 1, "mtime_ns": 2, "sha256": 1.5}\n',  # fuzzed too
    ],
    "adapter": [
        b'\5["\\ud800", ["003", "\\ud800"]]',
        TARGETS["adapter"].seeds[7].replace(b"b.mp4", b"b.mp\xed\xa0\x804"),  # fuzzed too: not all have an escape
    ],
    "manifest": [b"path,fake,video_fake,audio_fake,group,split,dataset,method\na.mp4," + HUGE + b",1,1,g,train,d,m\n"],
    "parquet_manifest": [
        TARGETS["parquet_manifest"].seeds[0].replace(b"path", b"pat\x8a"),
        _parquet(columns=[{}]),  # fuzzed too
        _parquet(columns=5),
        _parquet(index_columns=[5]),
    ],
    "shard_header": [  # none was fuzzed; of a negative size the next header is this one again
        b"k.npz\0\0\0" + b"\xff" * 10 + b"\xfe\0" + b"x" * 512,
        b"k.npz\0\0\0" + b"\x80" + b"\x7f" * 11,
        b"k.npz\0\0\0" + b"7" * 11 + b"\0",
        b"\xff.json\0\0" + b"0" * 11 + b"\0",
    ],
    "record": [  # none was fuzzed
        DEEP,
        *(
            json.dumps({"key": "k", "sha256": "", "source": "", "size": 1, "mtime_ns": 2, "clips": clips}).encode()
            for clips in ([1], 1, [dict.fromkeys(CLIP_COLUMNS, "x") | {"crc32": 0}])
        ),
    ],
}


@pytest.mark.parametrize("name", TARGETS)
def test_its_seeds_are_what_it_is_about_and_what_was_found_stays_mended(name: str, tmp_path: Path) -> None:
    """A target whose every seed is refused fuzzes the first check alone."""
    target = TARGETS[name]
    accepted = [target(seed, tmp_path) for seed in target.seeds]
    assert {number for number, ok in enumerate(accepted) if not ok} == REJECTED.get(name, set())
    for data in FOUND.get(name, ()):
        harmless(name, data, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_copies_are_refused_or_read(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    seeds = [seed for seed in (*TARGETS[name].seeds, *FOUND.get(name, ())) if len(seed) < 20_000]
    for _ in range(15 if name in SLOW else 50):
        data = rng.choice(seeds)
        for _ in range(rng.randrange(1, 4)):
            data = mutate(data, rng)[:20_000]
        harmless(name, data, tmp_path)


def harmless(name: str, data: bytes, folder: Path) -> None:
    try:
        TARGETS[name](data, folder)
    except Exception as error:
        pytest.fail(f"{data!r:.1000} leaves the target with {type(error).__name__}: {error}")
