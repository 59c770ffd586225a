"""A pack: one file of face crops, drawn from a cache so that every source and every generator has its share.

It is a zip of a small cache whose clips hold some crops of their main face and nothing else, so what trains from a
cache trains from a pack. A fake's crop comes with its original's at the same time; of a fake only forged crops are
taken. Crops stay lossless WebP, 27 kB each at 160 px: JPEG would lay its traces over every crop that is trained on and
over none that is scored, just where a forgery's traces are. No path of the machine is in a pack: names are hashes.
"""

import dataclasses
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from avdetect.config import PairLoopConfig
from avdetect.datasets.cache.payload import pack_picture
from avdetect.datasets.cache.records import Record, Source, sample_key
from avdetect.datasets.cache.store import CACHE, CLIPS, FAILURES, MANIFEST, SHARDS, Identity, Outcome, Store
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import COLUMNS
from avdetect.errors import ManifestError
from avdetect.files import write_whole
from avdetect.training.batches import VisualBatches
from avdetect.training.sampling import Subset
from avdetect.types import Clip

CLIP_BYTES = 4096  # about what a clip takes beside its crops
IN_VAIN = 500  # draws in a row that bring nothing new: all there is has been taken
EVENLY = PairLoopConfig(source_balance=1.0, forged=0.0)
Chosen = Mapping[int, set[int]]  # clip of the archive -> its face crops


def write_pack(subset: Subset, path: Path, max_bytes: int, seed: int = 0) -> Chosen:
    """Draw crops of `subset` until `max_bytes` are full, or there are no more, and write them to `path`. Raises
    ManifestError where the subset has no face of one class, or where `max_bytes` hold no pair."""
    budget = max_bytes
    while True:
        chosen = choose(subset, budget, seed)
        with tempfile.TemporaryDirectory() as folder:
            _write_cache(subset.archive, chosen, Path(folder))
            content = _zipped(Path(folder))
            if len(content) <= max_bytes:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content, sync=True)
                return chosen
        budget = int(0.98 * budget * max_bytes / len(content))


def choose(subset: Subset, budget: int, seed: int) -> Chosen:
    """The crops that about `budget` bytes hold. Each round draws a fake by generator, its original's crop and a real
    one by source; without an original the real one alone. Re-encoded copies are left out."""
    batches, rng = VisualBatches(subset, EVENLY, seed, augment=False), np.random.default_rng((seed, 6))
    assert batches.fake is not None, "EVENLY asks for fakes"
    is_copy = subset.archive.clips["copy"].to_numpy() > 0
    chosen: dict[int, set[int]] = {}
    used = vain = 0
    while vain < IN_VAIN:
        fake, real, twins = batches.moments(batches.fake, rng)
        drawn = {fake, real, batches.real_moment(rng)} if twins else {fake, real}
        new = [(c, i) for c, i in drawn if not is_copy[c] and i not in chosen.get(c, ())]
        cost = sum(_bytes_of(subset.archive, *moment) + CLIP_BYTES * (moment[0] not in chosen) for moment in new)
        if used + cost > budget:
            break
        used, vain = used + cost, 0 if new else vain + 1
        for clip, index in new:
            chosen.setdefault(clip, set()).add(index)
    if not chosen:
        raise ManifestError(f"{budget} bytes hold no fake and its original; allow the pack more")
    return chosen


def open_pack(path: Path, folder: Path) -> ClipArchive:
    """Unpack `path` into `folder`, and read it as a cache. Raises ManifestError."""
    try:
        with zipfile.ZipFile(path) as file:
            file.extractall(folder)  # which keeps every name inside the folder
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ManifestError(f"{path} is no pack ({error}); make one with tools/pack_faces.py") from error
    return ClipArchive(folder)


def _bytes_of(archive: ClipArchive, clip: int, index: int) -> int:
    crops = archive.faces(clip, int(archive.clips["main_track"].iat[clip]), [index]).crops
    return len(pack_picture(crops[0])) + 300  # and the header of its entry


def _write_cache(archive: ClipArchive, chosen: Chosen, root: Path) -> None:
    clips = archive.clips.loc[sorted(chosen)]
    files = archive.files.loc[sorted(set(clips["file"]))]
    table = files[[*COLUMNS, *({"kind"} & set(files))]].assign(fake_segments="")
    for column in ("path", "original"):
        table[column] = [_name(path) if path else "" for path in table[column]]
    outcomes = []
    with Store(root, Identity(archive.config, archive.detector, archive.fingerprint, archive.version)) as store:
        writer = store.writer()
        for file, (name, sha256) in zip(files.index, zip(table["path"], files["sha256"], strict=True), strict=True):
            key, source = sample_key(name), Source(name, 0, 0)
            writer.begin()
            for clip in _packed(archive, clips.index[clips["file"] == file].tolist(), chosen):
                writer.add(key, clip)
            writer.end(Record(key, sha256, name, 0, 0, has_video=True))
            outcomes.append(Outcome(source, sha256, {0: key}))
        writer.close()
        store.gather()
        store.publish(table, outcomes)


def _packed(archive: ClipArchive, rows: list[int], chosen: Chosen) -> list[Clip]:
    """The clips of one file, each at its own place, for a fake's clip is found by the number of its original's."""
    numbers = archive.clips["clip"].loc[rows].tolist()
    packed = [Clip(0.0, 0.0, (), None)] * (max(numbers) + 1)
    for row, number in zip(rows, numbers, strict=True):
        clip, keep = archive.load(row), sorted(chosen[row])
        track = clip.tracks[int(archive.clips["main_track"].iat[row])]
        kept = {n: getattr(track, n)[keep] for n in ("face_crops", "face_frames", "boxes", "landmarks", "confidences")}
        track = dataclasses.replace(track, mouth_crops=track.mouth_crops[:0], **kept)
        packed[number] = Clip(clip.start_seconds, clip.duration_seconds, (track,), None)
    return packed


def _name(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:24]


def _zipped(root: Path) -> bytes:
    """What a reader of the cache needs, not compressed again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        tables = [root / name for name in (CACHE, CLIPS, FAILURES, MANIFEST)]
        for path in [*tables, *sorted((root / SHARDS).iterdir())]:
            file.write(path, path.relative_to(root))
    return packed.getvalue()


def contents(archive: ClipArchive) -> pd.DataFrame:
    """Files and crops of each source and generator: columns dataset, method, files, crops."""
    crops = archive.clips.groupby("file")["main_faces"].sum()
    table = archive.files[["dataset", "method"]].assign(crops=crops)
    return table.groupby(["dataset", "method"])["crops"].agg(files="size", crops="sum").reset_index()
