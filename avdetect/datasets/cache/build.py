"""A manifest's files into a preprocessing cache: in parallel, resumable, every file once.

The parent decides and the workers do: it knows what the cache holds, hands out one file at a time, and publishes the
tables when all is done. A run that ends early, however it ends, loses the files that were being written, no more.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect import cluster
from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache.pool import Death, Pool
from avdetect.datasets.cache.ray_pool import RayPool
from avdetect.datasets.cache.records import Record, Source, sample_key
from avdetect.datasets.cache.store import Identity, Outcome, Store, failure_table
from avdetect.datasets.cache.worker import Hash, Make, Setup, Variant
from avdetect.errors import AVDetectError
from avdetect.faces import build_detector

Progress = Callable[[int, int], None]  # files that are settled, and how many of these were preprocessed now
_MAX_DEATHS = 3  # of workers in a row, with no file finished between them: that is the machine, not the files
_OWN_DEATHS = 2  # of workers with one and the same file, in all runs: then it is the file, and recorded as failed


@dataclass(frozen=True)
class Options:
    """How a run works; nothing here changes what a clip holds."""

    workers: int = 1  # 0: as many as there are CPUs, here or in the cluster
    engine: str = "process"  # or "ray"
    ray_address: str | None = None  # see `cluster.connect`
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
        cluster.require()
    with Store(root, Identity(config, detector.name, detector.fingerprint)) as store:
        run = _Run(store, table, options, progress or (lambda settled, made: None))
        with _pool(store, options) as pool:
            run.work(pool)
        store.gather()
        outcomes = run.outcomes()
        clips = store.publish(table, outcomes)
        failures = failure_table(table["path"].tolist(), outcomes)
        return Report(len(table), run.made, store.salvaged, clips, run.duplicates(), failures)


def _pool(store: Store, options: Options) -> Pool | RayPool:
    setup, first = Setup(store.root, store.identity.config, options.limits, options.model), store.next_shard()
    if options.engine == "ray":
        return RayPool(setup, store.identity, options.workers, first, options.ray_address)
    return Pool(setup, options.workers or len(os.sched_getaffinity(0)), first)


def recipe_rng(seed: int, copy: int, sha256: str) -> np.random.Generator:
    """What draws the recipe of copy `copy` (from 1) of the file with this hash (hex digits), wherever it lies.

    For a fake the hash is its original's: one recipe for both.
    """
    digest = hashlib.sha256(sha256.encode()).digest()
    return np.random.default_rng((seed, copy, int.from_bytes(digest[:8])))


@dataclass
class _Row:
    """A row of the manifest while the run goes on."""

    path: str
    source: Source
    original: _Row | None = None  # where it stands in the manifest
    sha256: str = ""
    recipes: tuple[Any, ...] = ()  # of copies 1, 2, …, once the hashes of itself and of its original are known
    order: Make | None = None  # what a worker was told last
    only_hash: bool = False  # for now: its hash is needed by others
    again: bool = False  # a worker died of it in this run, and it gets another
    transient: tuple[str, str] | None = None  # a failure that every run tries again

    def variants(self) -> tuple[Variant, ...]:
        """The file and its copies, once its hash is known."""
        copies = (
            Variant(number, sample_key(self.sha256, number, recipe.digest()), recipe)
            for number, recipe in enumerate(self.recipes, 1)
        )
        return Variant(0, sample_key(self.sha256)), *copies


def _death_record(row: _Row, variant: Variant, message: str) -> Record:
    return Record(
        variant.key,
        row.sha256,
        row.path,
        row.source.size,
        row.source.mtime_ns,
        copy=variant.copy,
        recipe=variant.recipe.digest() if variant.recipe else "",
        error="WorkerDied",
        message=message,
    )


class _Run:
    def __init__(self, store: Store, table: pd.DataFrame, options: Options, progress: Progress) -> None:
        self._store, self._options, self._progress = store, options, progress
        self._rows = [_Row(path, Source(path, 0, 0)) for path in table["path"]]
        if options.copies:
            by_path = {row.path: row for row in self._rows}
            for row, original in zip(self._rows, table["original"], strict=True):
                row.original = by_path.get(original)
        self._taken: set[str] = set()  # keys that a worker was told to make
        self._again: deque[tuple[_Row, Make]] = deque()  # those whose worker died
        self._settled = self.made = self._deaths = 0

    def work(self, pool: Pool | RayPool) -> None:
        """Have everything made that is missing."""
        self._hash_originals(pool)
        for row in self._rows:
            order = self._order(row)
            if order is None:
                self._settle(row)
                continue
            while not pool.has_room:
                self._hear(pool)
            pool.submit(row, order)
        while pool.busy or self._again:
            while self._again and pool.has_room:
                pool.submit(*self._again.popleft())
            self._hear(pool)
        pool.close()

    def _hash_originals(self, pool: Pool | RayPool) -> None:
        """What the recipes of fakes hang on. One that cannot be read is met again, and reported, in its own turn."""
        for row in {id(row.original): row.original for row in self._rows if row.original is not None}.values():
            try:
                source = Source.of(row.path)
            except OSError:
                continue
            row.sha256 = self._store.known_hash(source) or ""
            if not row.sha256:
                while not pool.has_room:
                    self._hear(pool)
                row.source, row.only_hash = source, True
                pool.submit(row, Hash(row.path))
        while pool.busy:
            self._hear(pool)

    def _order(self, row: _Row) -> Hash | Make | None:
        """What has to be done next for a row: None where it is in the cache, or cannot be read."""
        try:
            row.source = Source.of(row.path)
        except OSError as error:
            row.transient = "MediaError", f"cannot read {row.path}: {error.strerror}"
            return None
        row.sha256 = self._store.known_hash(row.source) or ""
        return self._make(row) if row.sha256 else Hash(row.path)

    def _make(self, row: _Row) -> Make | None:
        row.recipes = self._recipes(row)
        itself, *copies = row.variants()
        stored = self._store.stored.get(itself.key)
        again = self._options.retry_failed
        if stored is not None and not (stored.has_video or (stored.error and again)):
            copies = []  # of a file that failed, or has no picture
        wanted = [
            variant
            for variant in (itself, *copies)
            if variant.key not in self._taken
            and ((known := self._store.stored.get(variant.key)) is None or (known.error and again))
        ]
        self._taken |= {variant.key for variant in wanted}
        has_video = stored is not None and stored.has_video
        row.order = Make(row.source, row.sha256, tuple(wanted), has_video) if wanted else None
        return row.order

    def _recipes(self, row: _Row) -> tuple[Any, ...]:
        """Of the copies of a row. An original that is not in the manifest, or not readable, counts for nothing."""
        if not self._options.copies:
            return ()
        from avdetect.datasets.augment.codecs import Recipe  # needs ffmpeg-python

        sha256 = row.original.sha256 if row.original is not None and row.original.sha256 else row.sha256
        numbers = range(1, self._options.copies + 1)
        return tuple(Recipe.draw(recipe_rng(self._options.seed, number, sha256)) for number in numbers)

    def _hear(self, pool: Pool | RayPool) -> None:
        for worker, row, answer in pool.answers():
            if isinstance(answer, Death):
                self._bury(pool, row, answer)
            elif row.only_hash:
                row.only_hash = False
                if isinstance(answer, str) and row.source.is_same():
                    row.sha256 = answer
                    self._store.remember(row.source, answer)
            elif not row.sha256:
                self._hashed(pool, worker, row, answer)
            else:
                self._deaths = 0
                self.made += answer is None
                row.transient = None if answer is None else ("MediaError", answer)
                self._settle(row)

    def _hashed(self, pool: Pool | RayPool, worker: Any, row: _Row, answer: str | OSError) -> None:
        order = None
        if isinstance(answer, OSError):
            row.transient = "MediaError", f"cannot read {row.path}: {answer.strerror}"
        elif not row.source.is_same():
            row.transient = "MediaError", f"{row.path} was changed while it was read; run again"
        else:
            row.sha256 = answer
            self._store.remember(row.source, answer)
            order = self._make(row)
        if order is None:
            self._settle(row)
        else:
            pool.submit(row, order, worker)  # the same one: the file is in this machine's memory now

    def _bury(self, pool: Pool | RayPool, row: _Row, death: Death) -> None:
        """A file whose worker dies is tried once more, and recorded as failed when that one dies too."""
        self._deaths += not row.again  # a second death is that file's affair
        message = f"the process that read {row.path} was ended ({death.ending}; out of memory?)"
        order, deaths = row.order, self._store.died(row.path, row.sha256) if row.order is not None else 0
        if order is not None and deaths >= _OWN_DEATHS:
            again = f"{message}, not for the first time; --retry-failed tries once more"
            self._store.fail(pool.next_shard(), [_death_record(row, variant, again) for variant in order.variants])
        if self._deaths == _MAX_DEATHS:
            raise AVDetectError(f"{message}, the third in a row; run again with fewer --workers")
        if order is not None and not row.again and deaths < _OWN_DEATHS:
            row.again = True
            self._again.append((row, order))
            return
        row.transient = "WorkerDied", message
        if row.only_hash:
            row.only_hash = False  # its own turn comes
        else:
            self._settle(row)

    def _settle(self, row: _Row) -> None:
        self._settled += 1
        self._progress(self._settled, self.made)

    def outcomes(self) -> list[Outcome]:
        """What became of each row, from what the store holds now."""
        return [self._outcome(row) for row in self._rows]

    def _outcome(self, row: _Row) -> Outcome:
        outcome = Outcome(row.source, row.sha256)
        for variant in row.variants() if row.sha256 else ():
            stored = self._store.stored.get(variant.key)
            if stored is not None and stored.error:
                outcome.failures[variant.copy] = stored.error, stored.message
            elif stored is not None:
                outcome.keys[variant.copy] = variant.key
        if 0 not in outcome.keys:
            other = "MediaError", f"{row.path} has the bytes of another file, which was not finished; run again"
            outcome.failures.setdefault(0, row.transient or other)
        return outcome

    def duplicates(self) -> list[tuple[str, str]]:
        first: dict[str, str] = {}
        found = [(row.path, first.setdefault(row.sha256, row.path)) for row in self._rows if row.sha256]
        return [(path, other) for path, other in found if path != other]
