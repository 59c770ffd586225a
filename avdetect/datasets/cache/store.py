"""The folder of a preprocessing cache, for its one writer: what is in it, what is missing, and how it is published.

cache.json        format, version of the preprocessing code, its config and that one's digest, face detector and the
                  fingerprint of its weights
shards/           the clips (avdetect.datasets.cache.shards)
sources.jsonl     path, size, mtime and SHA-256 of every file ever hashed; only ever appended to
manifest.parquet  the manifest of the last run, with what became of each file
clips.parquet     where each clip of these files lies, in the manifest's order
failures.csv      the files that gave no clips, and why
conflicts.csv     where files of equal bytes contradict each other, which keeps a run from being published
lock              held while a run writes

Files are known by the hash of their bytes: neither their path nor the machine matters.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import pandas as pd

from avdetect._csv import csv_line, defused
from avdetect.config import PreprocessConfig, from_dict, to_dict
from avdetect.datasets.cache.records import INDEX_COLUMNS, Record, Source
from avdetect.datasets.cache.shards import ShardWriter, finish, read_clips, read_files, shard_numbers, write_parquet
from avdetect.datasets.manifest import LABELS, write_manifest
from avdetect.errors import ConfigError, ManifestError, MediaError
from avdetect.files import check_same, only_ours, replacing, write_whole
from avdetect.preprocess import PREPROCESS_VERSION

FORMAT = 1
SHARDS, TEMPORARY, CACHE, SOURCES = "shards", "tmp", "cache.json", "sources.jsonl"
MANIFEST, CLIPS, FAILURES, CONFLICTS = "manifest.parquet", "clips.parquet", "failures.csv", "conflicts.csv"
ADDED = ("sha256", "source_bytes", "source_mtime_ns", "failure", "failure_message")  # columns of manifest.parquet
ONE_CONTENT = (*LABELS, "split")  # what files of equal bytes must agree in; their groups are joined when folds are cut


@dataclass(frozen=True)
class Identity:
    """What the clips of a cache depend on besides the files."""

    config: PreprocessConfig
    detector: str  # name
    fingerprint: str  # of the detector's weights
    version: int = PREPROCESS_VERSION  # of the preprocessing code

    def to_json(self) -> str:
        values = {"format": FORMAT, "preprocess_version": self.version, "preprocess": to_dict(self.config)}
        values |= {"preprocess_digest": self.config.digest()}
        return json.dumps(values | {"detector": self.detector, "detector_fingerprint": self.fingerprint}, indent=1)

    @classmethod
    def read(cls, root: Path) -> Identity:
        """Raises ManifestError when `root` is no cache of this format."""
        another = "preprocess into a new --cache folder"
        try:
            values = json.loads((root / CACHE).read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ManifestError(
                    f"{root} is a cache of format {values['format']}, this version reads {FORMAT}; {another}"
                )
            config = from_dict(PreprocessConfig, values["preprocess"], CACHE)
            version = values.get("preprocess_version", 1)  # the first caches did not say it
            return cls(config, values["detector"], values["detector_fingerprint"], version)
        except OSError as error:
            raise ManifestError(
                f"{root} is no preprocessing cache ({error.strerror}: {CACHE}); run avdetect preprocess first"
            ) from error
        except (ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
            raise ManifestError(f"{root / CACHE} is damaged ({error}); {another}") from error


@dataclass
class Outcome:
    """What became of one row of the manifest: the keys of its samples, by copy, or why there are none."""

    source: Source
    sha256: str = ""  # "": the file could not be read at all
    keys: dict[int, str] = field(default_factory=dict)  # copy -> key of stored samples
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)  # copy -> class of the error, message


@dataclass(frozen=True)
class Stored:
    """What the cache holds under a key."""

    shard: int
    error: str
    message: str
    has_video: bool


class Store:
    """A cache folder opened for writing. A context manager; a second run on the same folder is refused.

    Raises ManifestError when another run holds the folder or it is damaged, ConfigError when its clips were made
    with another configuration or detector.
    """

    def __init__(self, root: Path, identity: Identity) -> None:
        self.root, self.identity, self.shards = root, identity, root / SHARDS
        self.temporary = root / TEMPORARY  # for a moment: emptied when the cache is opened and closed
        self.shards.mkdir(parents=True, exist_ok=True)
        self._lock = open(root / "lock", "ab", opener=only_ours)  # noqa: SIM115
        try:
            self._open()
            self.stored: dict[str, Stored] = {}
            self._learned: set[int] = set()  # shards
            self.salvaged = self.gather()
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir()
            self._hashes = _read_sources(root)
            self._journal = open(root / SOURCES, "a", encoding="utf-8", opener=only_ours)  # noqa: SIM115
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self._lock.close()

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ManifestError(f"another run is writing {self.root}; wait for it or end it") from None
        if not (self.root / CACHE).exists():
            if shard_numbers(self.shards):
                raise ManifestError(f"{self.root} holds shards but no {CACHE}; preprocess into a new --cache folder")
            write_whole(self.root / CACHE, f"{self.identity.to_json()}\n".encode())
        theirs, ours = (json.loads(identity.to_json()) for identity in (Identity.read(self.root), self.identity))
        check_same(f"{self.root}", theirs, ours, "name a new --cache folder")

    def writer(self) -> ShardWriter:
        return ShardWriter(self.shards)

    def identify(self, path: str) -> tuple[Source, str]:
        """The file, and the SHA-256 of its bytes; they are read where that is not known. Raises MediaError."""
        try:
            source = Source.of(path)
            sha256 = self._hashes.get(source) or file_sha256(path)
        except OSError as error:
            raise MediaError(f"cannot read {path}: {error.strerror}") from error
        if source not in self._hashes:
            if not source.is_same():
                raise MediaError(f"{path} was changed while it was read; run again")
            self._hashes[source] = sha256
            self._journal.write(json.dumps(asdict(source) | {"sha256": sha256}) + "\n")
            self._journal.flush()
        return source, sha256

    def fail(self, records: Sequence[Record]) -> None:
        """Record failures of a file that no worker lived to record, as a shard."""
        writer = self.writer()
        for record in records:
            writer.begin()
            writer.end(record)
        writer.close()

    def gather(self) -> int:
        """Close the shards that workers left open, and learn what is new; the number of files in those."""
        left = sum(finish(path) for path in sorted(self.shards.glob("*.tar.partial")))
        for number in shard_numbers(self.shards):
            if number not in self._learned:
                self._learn(number)
        return left

    def _learn(self, number: int) -> None:
        files = read_files(self.shards / f"{number:06d}.tar")
        columns = (files[name].tolist() for name in ("key", "error", "message", "has_video"))
        for key, error, message, has_video in zip(*columns, strict=True):
            # A file that failed and was tried again stands in two shards: the later one counts, a success always.
            if not error or self.stored.get(key, Stored(0, "?", "", False)).error:
                self.stored[key] = Stored(number, error, message, has_video)
        self._learned.add(number)

    def publish(self, table: pd.DataFrame, outcomes: Sequence[Outcome]) -> tuple[int, pd.DataFrame]:
        """Write the tables that training reads, of `table` (a valid manifest) and what became of each row.

        Returns the number of clips, and a row for each file, or copy of one, that gave none: path, copy, error,
        message. Raises ManifestError, and publishes nothing, where files of equal bytes have different labels or
        splits: one of them is wrong, or a clip would be trained on and judged.
        """
        _refuse_conflicts(table, outcomes, self.root / CONFLICTS)
        failed = [outcome.failures.get(0, ("", "")) for outcome in outcomes]
        table = table.reset_index(drop=True).assign(
            sha256=[o.sha256 for o in outcomes],
            source_bytes=[o.source.size for o in outcomes],
            source_mtime_ns=[o.source.mtime_ns for o in outcomes],
            failure=[error for error, _ in failed],
            failure_message=[message for _, message in failed],
        )
        clips = self._clips_of(outcomes)
        rows = [
            (path, copy, *why)
            for path, outcome in zip(table["path"], outcomes, strict=True)
            for copy, why in sorted(outcome.failures.items())
        ]
        failures = pd.DataFrame(rows, columns=["path", "copy", "error", "message"])
        _write_csv(failures, self.root / FAILURES)
        write_manifest(table, self.root / MANIFEST)
        clips.attrs["manifest"] = file_sha256(self.root / MANIFEST)  # tells the reader that the two belong together
        write_parquet(clips, self.root / CLIPS)
        return len(clips), failures

    def _clips_of(self, outcomes: Sequence[Outcome]) -> pd.DataFrame:
        """The rows of all shards that belong to `outcomes`: file (row of the manifest), copy, clip, shard, …"""
        rows = [
            (row, copy, key, self.stored[key].shard)
            for row, outcome in enumerate(outcomes)
            for copy, key in outcome.keys.items()
        ]
        types = {"file": "int32", "copy": "int32", "shard": "int32"}
        wanted = pd.DataFrame(rows, columns=["file", "copy", "key", "shard"]).astype(types)
        parts = [
            group.merge(read_clips(self.shards / f"{number:06d}.tar"), on="key")
            for number, group in wanted.groupby("shard")
        ]
        nothing = {name: pd.Series(dtype=dtype) for name, dtype in INDEX_COLUMNS.items() if name != "key"}
        clips = pd.concat(parts, ignore_index=True) if parts else wanted.assign(**nothing)
        return clips.drop(columns="key").sort_values(["file", "copy", "clip"], ignore_index=True)


def _refuse_conflicts(table: pd.DataFrame, outcomes: Sequence[Outcome], place: Path) -> None:
    """Raises ManifestError where files differ from the first one of the same bytes in ONE_CONTENT; `place` has all. A
    file that gave no clips contradicts nobody (a hundred empty files are one content)."""
    place.unlink(missing_ok=True)
    sha256 = [outcome.sha256 if 0 in outcome.keys else "" for outcome in outcomes]
    given = table.reset_index(drop=True)[["path", *ONE_CONTENT]].astype(object).assign(sha256=sha256)
    given = given[(given["sha256"] != "") & given["sha256"].duplicated(keep=False)].fillna("unknown")
    first = given.groupby("sha256").transform("first")
    rows = []
    for mine, other in zip(given.to_dict("records"), first.to_dict("records"), strict=True):
        differs = [f"{name} ({mine[name]} against {other[name]})" for name in ONE_CONTENT if mine[name] != other[name]]
        if differs:
            rows.append((mine["path"], other["path"], ", ".join(differs)))
    if rows:
        _write_csv(pd.DataFrame(rows, columns=["path", "other", "differs"]), place)
        path, same, what = rows[0]
        raise ManifestError(
            f"{path} has the bytes of {same}, but not its {what}; leave one of them out of the manifest, or give "
            f"both the same ({len(rows)} such files, all in {place}); the clips are kept, run again then"
        )


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """For people; `fused` gives the names back."""
    with replacing(path) as file:
        for row in (list(table), *table.itertuples(index=False)):
            file.write(csv_line(map(defused, row)).encode())


def file_sha256(path: str | os.PathLike[str]) -> str:
    """64 hex digits of a file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Hashed(msgspec.Struct):
    path: str
    size: int
    mtime_ns: int
    sha256: str


def _read_sources(root: Path) -> dict[Source, str]:
    """The journal of hashes; later lines count, what a kill cut off is passed over: that file is hashed again."""
    hashes: dict[Source, str] = {}
    if (root / SOURCES).exists():
        with open(root / SOURCES, "r+", encoding="utf-8", errors="replace", opener=only_ours) as file:
            line = "\n"
            for line in file:
                try:
                    values = msgspec.json.decode(line, type=_Hashed)
                except (ValueError, RecursionError):
                    continue
                hashes[Source(values.path, values.size, values.mtime_ns)] = values.sha256
            if not line.endswith("\n"):
                file.write("\n")
    return hashes
