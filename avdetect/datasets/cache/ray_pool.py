"""Preprocessing on a Ray cluster: the pool of pool.py, whose workers are actors on any machine of it.

Each actor writes shards of its own into the cache: it and the files must lie on storage that all machines share.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from avdetect import cluster
from avdetect.datasets.cache.pool import Death
from avdetect.datasets.cache.store import Identity
from avdetect.datasets.cache.worker import Hash, Make, Maker, Setup, answered
from avdetect.errors import AVDetectError, ConfigError

_START_DEATHS = 3  # of actors in a row before they were ready
_CLOSE: Any = "close"


class Numbers(cluster.Member):
    """Counts the shards of all actors."""

    def start(self, first: int) -> None:
        self._next = first

    def take(self) -> int:
        self._next += 1
        return self._next - 1


class MakingActor(cluster.Member):
    """A Maker on some machine."""

    def begin(self, setup: Setup, identity: str, numbers: Any) -> Any:
        """Load the face detector. An AVDetectError where it is not the one of `identity`."""

        def build() -> bool:
            self._maker = Maker(setup, lambda: int(cluster.ray().get(numbers.take.remote())))
            detector = self._maker.detector
            if Identity(setup.config, detector.name, detector.fingerprint).to_json() != identity:
                raise ConfigError(
                    f"{os.uname().nodename} would preprocess otherwise than this machine: give all machines one "
                    "avdetect, and one place for what --detector-model names"
                )
            return True

        return answered(build)

    def carry_out(self, order: Hash | Make) -> Any:
        return answered(lambda: self._maker.carry_out(order))

    def close(self) -> Any:
        return answered(self._maker.close)


class RayWorker:
    """One actor, and what it was last told to do."""

    def __init__(self) -> None:
        self.actor = cluster.Actor(MakingActor, cpus=1)
        self.task: Any = None  # the caller's; None: the worker is idle
        self.ready = False

    def kill(self) -> None:
        self.actor.kill()


class RayPool:
    """See `pool.Pool`. count: 0 takes as many actors as the cluster has CPUs."""

    def __init__(self, setup: Setup, identity: Identity, count: int, first_shard: int, address: str | None):
        self._setup, self._identity, self._first_shard = setup, identity.to_json(), first_shard
        self._asked, self._address = count, address
        self._workers: list[RayWorker] = []
        self._waiting: deque[tuple[Any, Hash | Make]] = deque()  # what no worker has been given yet
        self._start_deaths = 0

    def __enter__(self) -> RayPool:
        with ExitStack() as stack:
            own_cpus = self._asked or len(os.sched_getaffinity(0))
            resources = stack.enter_context(cluster.connect(self._address, own_cpus))
            self._count = self._asked or cluster.places(resources, 1.0, 0.0)
            self._numbers = cluster.here(Numbers)
            stack.callback(self._end)
            self._numbers.start.remote(self._first_shard)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _end(self) -> None:
        while self._workers:
            self._workers.pop().kill()
        cluster.ray().kill(self._numbers)

    def next_shard(self) -> int:
        return int(cluster.ray().get(self._numbers.take.remote()))

    @property
    def busy(self) -> int:
        return len(self._waiting) + sum(worker.task is not None for worker in self._workers)

    @property
    def has_room(self) -> bool:
        return self.busy < self._count

    def submit(self, task: Any, order: Hash | Make, worker: Any = None) -> None:
        if worker is None:
            self._waiting.append((task, order))
            self._hand_out()
        else:
            self._give(worker, task, order)

    def answers(self) -> Iterator[tuple[RayWorker, Any, Any]]:
        heard = False
        for worker, said in cluster.answers(self._workers, cluster.ROOM_SECONDS):
            heard = True
            if isinstance(said, AVDetectError):
                raise said
            if isinstance(said, cluster.Lost):
                self._bury(worker, said.reason)
                if worker.task is not None:
                    yield worker, worker.task, Death(said.reason)
            elif said is cluster.PLACED:
                worker.actor.call("begin", self._setup, self._identity, self._numbers)
            elif not worker.ready:
                worker.ready, self._start_deaths = True, 0
            else:
                task, worker.task = worker.task, None
                yield worker, task, said
        if not heard and not any(worker.ready for worker in self._workers):
            raise cluster.no_room(1, 0)
        self._hand_out()

    def close(self) -> None:
        for worker in self._workers:
            if worker.ready:
                worker.task = _CLOSE
                worker.actor.call("close")
        while any(worker.task is _CLOSE for worker in self._workers):
            for _ in self.answers():
                pass

    def _give(self, worker: RayWorker, task: Any, order: Hash | Make) -> None:
        worker.task = task
        worker.actor.call("carry_out", order)

    def _hand_out(self) -> None:
        """Orders go to who is ready first: the cluster may have room for fewer actors than were asked for."""
        for worker in self._workers:
            if self._waiting and worker.ready and worker.task is None:
                self._give(worker, *self._waiting.popleft())
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - starting, self._count - len(self._workers))):
            self._workers.append(RayWorker())

    def _bury(self, worker: RayWorker, reason: str) -> None:
        self._workers.remove(worker)
        worker.kill()
        if not worker.ready:
            self._start_deaths += 1
            if self._start_deaths >= _START_DEATHS:
                raise AVDetectError(f"actors end before they are ready ({reason}); what is done is kept, run again")
