"""A manifest's files into a preprocessing cache: in parallel, resumable, every file once.

The parent decides and a pool of workers does: it knows what the cache holds, submits one file at a time, and publishes
the tables when all is done. A run that ends early, however it ends, loses the files that were being written, no more.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from avdetect.config import MediaLimits, PreprocessConfig
from avdetect.datasets.cache.records import Source
from avdetect.datasets.cache.store import Identity, Outcome, Store, failure_table
from avdetect.datasets.cache.worker import Order, Setup, Variant, making, variants
from avdetect.errors import AVDetectError, WorkerError
from avdetect.faces import build_detector
from avdetect.jobs.pool import Done, Event, Failed, Item, Pool
from avdetect.jobs.ray import RayPool, require

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
        require()
    with Store(root, Identity(config, detector.name, detector.fingerprint)) as store:
        run = _Run(store, table, options, progress or (lambda finished, made: None))
        run.work(_pool(store, options))
        store.gather()
        outcomes = run.outcomes()
        clips = store.publish(table, outcomes)
        failures = failure_table(table["path"].tolist(), outcomes)
        return Report(len(table), run.made, store.salvaged, clips, run.duplicates(), failures)


def _pool(store: Store, options: Options) -> Pool | RayPool:
    identity, limits = store.identity, options.limits
    task = partial(making, Setup(store.root, identity.config, limits, options.model, identity.to_json(), options.seed))
    seconds = limits.max_file_seconds * (1 + options.copies)
    if options.engine == "ray":
        return RayPool(task, options.workers or None, seconds, address=options.ray_address)
    return Pool(task, options.workers or len(os.sched_getaffinity(0)), seconds)


@dataclass
class _Row:
    """A row of the manifest while the run goes on."""

    number: int
    path: str
    source: Source
    copies: int  # of each video
    seed: int
    original: _Row | None = None  # where it stands in the manifest
    sha256: str = ""
    order: Order | None = None  # what a worker was told last
    only_hash: bool = False  # for now: its hash is needed by others
    transient: tuple[str, str] | None = None  # a failure that every run tries again

    @property
    def recipes_of(self) -> str:
        """The hash that draws its recipes. An original that is not in the manifest, or not readable, counts for
        nothing."""
        return self.original.sha256 if self.original is not None and self.original.sha256 else self.sha256

    def variants(self) -> list[Variant]:
        """The file and its copies, once its hash is known."""
        return variants(self.sha256, self.recipes_of, self.copies, self.seed)


class _Run:
    def __init__(self, store: Store, table: pd.DataFrame, options: Options, progress: Progress) -> None:
        self._store, self._options, self._progress = store, options, progress
        self._rows = [
            _Row(number, path, Source(path, 0, 0), options.copies, options.seed)
            for number, path in enumerate(table["path"])
        ]
        if options.copies:
            by_path = {row.path: row for row in self._rows}
            for row, original in zip(self._rows, table["original"], strict=True):
                row.original = by_path.get(original)
        self._taken: set[str] = set()  # keys that a worker was told to make
        self._submitted = 0  # orders that are not answered
        self._next: deque[_Row] = deque()  # hashed a moment ago: some worker's machine has them in memory
        self._finished = self.made = self._failed_in_a_row = 0

    def work(self, pool: Pool | RayPool) -> None:
        """Have everything made that is missing."""
        with closing(pool.run(self._items())) as events:
            for event in events:
                if isinstance(event, Done | Failed):
                    self._submitted -= 1
                    self._take(self._rows[int(event.item.key)], event)

    def _items(self) -> Iterator[Item | None]:
        yield from self._originals()
        for row in self._rows:
            yield from self._hashed()
            row.order = self._order(row)
            if row.order is None:
                self._finish()
            else:
                yield self._item(row)
        while self._submitted or self._next:
            yield from self._hashed()
            yield None

    def _originals(self) -> Iterator[Item | None]:
        """What the recipes of fakes hang on. One that cannot be read is met again, and reported, in its own turn."""
        for row in {row.original.number: row.original for row in self._rows if row.original is not None}.values():
            try:
                row.source = Source.of(row.path)
            except OSError:
                continue
            row.sha256 = self._store.known_hash(row.source) or ""
            if not row.sha256:
                row.order, row.only_hash = Order(**asdict(row.source)), True
                yield self._item(row)
        while self._submitted:
            yield None

    def _hashed(self) -> Iterator[Item]:
        while self._next:
            yield self._item(self._next.popleft())

    def _item(self, row: _Row) -> Item:
        assert row.order is not None
        self._submitted += 1
        return Item(str(row.number), asdict(row.order))

    def _order(self, row: _Row) -> Order | None:
        """What has to be done next for a row: None where it is in the cache, or cannot be read."""
        try:
            row.source = Source.of(row.path)
        except OSError as error:
            row.transient = "MediaError", f"cannot read {row.path}: {error.strerror}"
            return None
        row.sha256 = self._store.known_hash(row.source) or ""
        return self._make(row) if row.sha256 else Order(**asdict(row.source))

    def _make(self, row: _Row) -> Order | None:
        """What the cache lacks of a row whose hash is known."""
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
        if not wanted:
            return None
        return Order(
            **asdict(row.source),
            sha256=row.sha256,
            recipes_of=row.recipes_of,
            copies=tuple(variant.copy for variant in wanted),
            has_video=stored is not None and stored.has_video,
        )

    def _take(self, row: _Row, event: Event) -> None:
        """What came of a row's order."""
        order = row.order
        assert order is not None
        if isinstance(event, Failed):
            self._fail(row, order, event)
            return
        assert isinstance(event, Done)
        failed = event.answer.get("failed")
        if order.sha256:
            self._failed_in_a_row = 0
            self.made += failed is None
        elif failed is None and not row.source.is_same():
            failed = f"{row.path} was changed while it was read; run again"
        elif failed is None:
            row.sha256 = event.answer["sha256"]
            self._store.remember(row.source, row.sha256)
        if row.only_hash:
            row.only_hash = False  # its own turn comes
            return
        row.transient = None if failed is None else ("MediaError", failed)
        row.order = None if failed or order.sha256 else self._make(row)
        if row.order is None:
            self._finish()
        else:
            self._next.append(row)

    def _fail(self, row: _Row, order: Order, event: Failed) -> None:
        """No worker could do it: the file is recorded as failed, or has its turn in the next run."""
        message = f"{row.path} could not be preprocessed: {event.reason}"
        if order.sha256:
            message += "; --retry-failed tries once more"
            records = order.records(self._options.seed, error=event.error, message=message)
            self._store.fail([record for _, record in records])
        if event.error == WorkerError.__name__:
            self._failed_in_a_row += 1
            if self._failed_in_a_row == _MAX_FAILED:
                raise AVDetectError(f"{message}. It is the third file in a row: run again with fewer --workers")
        row.transient = event.error, message
        if row.only_hash:
            row.only_hash = False
        else:
            self._finish()

    def _finish(self) -> None:
        self._finished += 1
        self._progress(self._finished, self.made)

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
