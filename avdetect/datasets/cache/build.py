"""A manifest's files into a preprocessing cache: in parallel, resumable, every file once.

The parent hashes and decides, and a pool of workers preprocesses: it knows what the cache holds, submits one file at a
time, and publishes the tables when all is done. A run that ends early, however it ends, loses the files that were being
written, no more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.augment.codecs import Recipe
from avdetect.datasets.cache.records import Record, Source, sample_key
from avdetect.datasets.cache.store import Identity, Outcome, Store
from avdetect.datasets.cache.worker import Order, Setup, making
from avdetect.errors import AVDetectError, MediaError, WorkerError
from avdetect.extras import require
from avdetect.faces import build_detector
from avdetect.jobs.pool import Done, Failed, Item, Pool
from avdetect.jobs.ray import RayPool

Progress = Callable[[int, int], None]  # files that are finished, and how many of these were preprocessed now
_MAX_FAILED = 3  # files in a row that killed their workers: that is the machine, not the files


@dataclass(frozen=True)
class Options:
    """How a run works; nothing here changes what a clip holds."""

    workers: int = 1  # 0: as many as there are CPUs, here or in the cluster
    engine: str = "process"  # or "ray"
    ray_address: str | None = None  # see `jobs.ray.connect`
    model: Path | None = None  # of the face detector; None: its default
    limits: MediaLimits = field(default_factory=MediaLimits)
    copies: int = 0  # re-encoded copies of each video
    seed: int = 0  # of the copies' recipes
    retry_failed: bool = False


@dataclass(frozen=True)
class Report:
    """What a run did."""

    files: int  # of the manifest
    preprocessed: int  # now; the others were in the cache, or have the bytes of another
    salvaged: int  # files taken from shards that an earlier run left open
    clips: int
    duplicates: list[tuple[str, str]]  # path, and the path before it that has the same bytes
    failures: pd.DataFrame  # path, copy, error, message


def preprocess(
    table: pd.DataFrame, root: Path, config: PreprocessConfig, options: Options, progress: Progress | None = None
) -> Report:
    """Bring the cache `root` up to `table` (a valid manifest) and publish it for ClipArchive.

    Raises ConfigError when the cache was made with another configuration or detector, ManifestError when another run
    writes it or files of equal bytes contradict each other, ModelError without the detector's weights, AVDetectError
    when a worker cannot go on (a full disk).
    """
    detector = build_detector(config.detector, path=options.model)
    if options.engine == "ray":
        require("ray", "the engine ray")
    with Store(root, Identity(config, detector.name, detector.fingerprint)) as store:
        run = _Run(store, table, options, progress or (lambda finished, made: None))
        run.work(_pool(store, options))
        store.gather()
        clips, failures = store.publish(table, [run.outcome(row) for row in run.rows])
        return Report(len(table), run.made, store.salvaged, clips, run.duplicates(), failures)


def _pool(store: Store, options: Options) -> Pool | RayPool:
    identity, limits = store.identity, options.limits
    task = partial(making, Setup(store.root, identity.config, limits, options.model, identity.to_json()))
    seconds = limits.max_file_seconds * (1 + options.copies)
    if options.engine == "ray":
        return RayPool(task, options.workers or None, seconds, address=options.ray_address)
    return Pool(task, options.workers or len(os.sched_getaffinity(0)), seconds)


@dataclass
class _Row:
    """A row of the manifest while the run goes on."""

    number: int
    source: Source
    original: _Row | None = None  # where it stands in the manifest, and the run makes copies
    sha256: str = ""
    order: Order | None = None  # what a worker was told
    transient: tuple[str, str] | None = None  # a failure that every run tries again


def recipe_rng(seed: int, copy: int, sha256: str) -> np.random.Generator:
    """What draws the recipe of copy `copy` (from 1) of the file with this hash (hex digits), wherever it lies."""
    digest = hashlib.sha256(sha256.encode()).digest()
    return np.random.default_rng((seed, copy, int.from_bytes(digest[:8])))


class _Run:
    def __init__(self, store: Store, table: pd.DataFrame, options: Options, progress: Progress) -> None:
        self._store, self._options, self._progress = store, options, progress
        self.rows = [_Row(number, Source(path, 0, 0)) for number, path in enumerate(table["path"])]
        if options.copies:
            by_path = {row.source.path: row for row in self.rows}
            for row, original in zip(self.rows, table["original"], strict=True):
                row.original = by_path.get(original)
        self._taken: set[str] = set()  # keys that a worker was told to make
        self._finished = self.made = self._failed_in_a_row = 0

    def work(self, pool: Pool | RayPool) -> None:
        with closing(pool.run(self._items())) as events:
            for event in events:
                if isinstance(event, Done | Failed):
                    row = self.rows[int(event.item.key)]
                    if isinstance(event, Failed):
                        self._fail(row, event)
                    else:
                        self._failed_in_a_row = 0
                        self.made += event.answer is None
                        row.transient = None if event.answer is None else ("MediaError", event.answer)
                    self._finish()

    def _items(self) -> Iterator[Item]:
        for row in self.rows:
            row.order = self._order(row)
            if row.order is None:
                self._finish()
            else:
                yield Item(str(row.number), msgspec.to_builtins(row.order))

    def _hash(self, row: _Row) -> None:
        """Set `sha256`, or `transient`: why there is none."""
        try:
            if not row.sha256:
                row.source, row.sha256 = self._store.identify(row.source.path)
        except MediaError as error:
            row.transient = "MediaError", str(error)

    def _variants(self, row: _Row) -> list[tuple[Record, Recipe | None]]:
        """The file itself, once its hash is known, and its copies.

        The recipes hang on the original's bytes where that stands in the manifest and can be read, else on its own.
        """
        source, options = row.source, self._options
        drawn_from = (row.original.sha256 if row.original else "") or row.sha256
        recipes = [Recipe.draw(recipe_rng(options.seed, copy, drawn_from)) for copy in range(1, options.copies + 1)]
        found: list[tuple[Record, Recipe | None]] = []
        for copy, recipe in enumerate((None, *recipes)):
            digest = recipe.digest() if recipe else ""
            key = sample_key(row.sha256, copy, digest)
            record = Record(key, row.sha256, source.path, source.size, source.mtime_ns, copy, digest)
            found.append((record, recipe))
        return found

    def _order(self, row: _Row) -> Order | None:
        """What the cache lacks of a row: None where that is nothing, or the file cannot be read."""
        self._hash(row)
        if row.original is not None:
            self._hash(row.original)
        if not row.sha256:
            return None
        itself, *copies = self._variants(row)
        known, again = self._store.stored, self._options.retry_failed
        stored = known.get(itself[0].key)
        if stored is not None and not (stored.has_video or (stored.error and again)):
            copies = []  # of a file that failed, or has no picture
        wanted = [
            (record, recipe)
            for record, recipe in (itself, *copies)
            if record.key not in self._taken and (record.key not in known or (known[record.key].error and again))
        ]
        if not wanted:
            return None
        records, recipes = map(list, zip(*wanted, strict=True))
        self._taken |= {record.key for record in records}
        return Order(records, recipes, has_video=stored is not None and stored.has_video)

    def _fail(self, row: _Row, event: Failed) -> None:
        assert row.order is not None
        message = f"{row.source.path} could not be preprocessed: {event.reason}; --retry-failed tries once more"
        failed = [dataclasses.replace(record, error=event.error, message=message) for record in row.order.records]
        self._store.fail(failed)
        if event.error == WorkerError.__name__:
            self._failed_in_a_row += 1
            if self._failed_in_a_row == _MAX_FAILED:
                raise AVDetectError(f"{message}. It is the third file in a row: run again with fewer --workers")

    def _finish(self) -> None:
        self._finished += 1
        self._progress(self._finished, self.made)

    def outcome(self, row: _Row) -> Outcome:
        outcome = Outcome(row.source, row.sha256)
        for record, _ in self._variants(row) if row.sha256 else ():
            stored = self._store.stored.get(record.key)
            if stored is not None and stored.error:
                outcome.failures[record.copy] = stored.error, stored.message
            elif stored is not None:
                outcome.keys[record.copy] = record.key
        if 0 not in outcome.keys:
            message = f"{row.source.path} has the bytes of another file, which was not finished; run again"
            outcome.failures.setdefault(0, row.transient or ("MediaError", message))
        return outcome

    def duplicates(self) -> list[tuple[str, str]]:
        first: dict[str, str] = {}
        rows = [(row.source.path, row.sha256) for row in self.rows if row.sha256]
        return [(path, first[sha256]) for path, sha256 in rows if first.setdefault(sha256, path) != path]
