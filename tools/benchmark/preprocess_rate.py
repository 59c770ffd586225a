"""Preprocessing: files a second, what they cost in CPU, and bytes of the cache for each second of clips.

    python tools/benchmark/preprocess_rate.py --manifest my.csv --workers 1 2 --config configs/small.yaml --files 30

Prints one CSV row for each number of workers. Each preprocesses the same files, spread over the manifest, into a
temporary cache of its own, which is deleted.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from avdetect.config import PreprocessConfig, TrainConfig, load_yaml
from avdetect.errors import AVDetectError
from avdetect.extras import script_imports

with script_imports("preprocess_rate", "evaluate"):
    import pandas as pd

    from avdetect.datasets.cache.build import Options, preprocess
    from avdetect.datasets.cache.store import SHARDS
    from avdetect.datasets.clips import ClipArchive
    from avdetect.datasets.manifest import read_manifest

PARTS = ("faces", "mouths", "sound", "rest")  # rest: all else in the shards, and the tables beside them


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="YAML of a training; its `preprocess` is used")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--files", type=int, help="so many, spread over the manifest (default: all)")
    parser.add_argument("--copies", type=int, default=0, help="re-encoded copies of each video")
    args = parser.parse_args(argv)
    try:
        config = (load_yaml(TrainConfig, args.config) if args.config else TrainConfig()).preprocess
        table = read_manifest(args.manifest)
        if args.files is not None and args.files < len(table):
            table = table.iloc[np.linspace(0, len(table) - 1, args.files).astype(int)].reset_index(drop=True)
        for number, workers in enumerate(args.workers):
            options = Options(workers=workers, copies=args.copies)
            print(measured(table, config, options).to_csv(index=False, header=number == 0), end="", flush=True)
    except AVDetectError as error:
        print(f"preprocess_rate: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def measured(table: pd.DataFrame, config: PreprocessConfig, options: Options) -> pd.DataFrame:
    """One row: a run of tools/preprocess.py, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        cpu, began = _cpu_seconds(), time.perf_counter()
        report = preprocess(table, Path(folder), config, options)
        wall, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
        archive = ClipArchive(folder)
        seconds = float(archive.clips["duration_seconds"].sum())
        if not seconds:
            raise AVDetectError("not one of the files gave a clip: nothing to measure")
        sizes = _bytes_by_part(Path(folder))
    row: dict[str, float] = {
        "workers": options.workers,
        "copies": options.copies,
        "files": report.preprocessed,
        "clips": report.clips,
    }
    row |= {"failed": len(report.failures), "media_s": round(seconds, 1), "wall_s": round(wall, 1)}
    rates = {
        "files_per_s": report.preprocessed / wall,
        "media_s_per_s": seconds / wall,
        "cpu_s_per_media_s": cpu / seconds,
    }
    row |= {name: round(value, 3) for name, value in rates.items()}
    row |= {f"{part}_bytes_per_clip_s": round(sizes[part] / seconds) for part in PARTS}
    row |= {"bytes_per_clip_s": round(sum(sizes.values()) / seconds)}
    return pd.DataFrame([row | {"detector": config.detector, "cores": len(os.sched_getaffinity(0))}])


def _cpu_seconds() -> float:
    """User and system seconds of this process and of all its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _bytes_by_part(root: Path) -> dict[str, int]:
    sizes = dict.fromkeys(PARTS, 0)
    for tar in sorted((root / SHARDS).glob("*.tar")):
        for name, size in _entries(tar):
            entry = name.removesuffix(".npy").rpartition(".")[2].rstrip("0123456789")  # 0.face0003.npy: face
            sizes[{"face": "faces", "mouth": "mouths", "sound": "sound"}.get(entry, "rest")] += size
    whole = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return sizes | {"rest": whole - sum(sizes[part] for part in PARTS if part != "rest")}


def _entries(tar: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of every entry of every clip in a shard."""
    with tarfile.open(tar) as shard:
        for member in shard:
            if member.name.endswith(".npz") and (file := shard.extractfile(member)) is not None:
                with zipfile.ZipFile(file) as clip:
                    yield from ((info.filename, info.file_size) for info in clip.infolist())


if __name__ == "__main__":
    sys.exit(main())
