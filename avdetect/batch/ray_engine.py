"""Scoring on a Ray cluster: the same crew, whose workers are actors on any machine of it.

Files are read where the actor runs: all machines must find them, and the bundle, under the same names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from avdetect import cluster
from avdetect.batch.crew import START_SECONDS, Crew, Worker
from avdetect.batch.engine import Outcome, WorkItem
from avdetect.batch.worker import Message, Scoring

if TYPE_CHECKING:
    from avdetect.batch.options import Scorer


class ScoringActor(cluster.Member):
    """A scorer on some machine; it answers in JSON, as the processes do."""

    def __init__(self) -> None:
        self._scoring = Scoring()

    def begin(self, begin: Callable[[], Scorer]) -> str:
        return json.dumps(self._scoring.begin(begin))

    def score(self, path: str) -> str:
        return json.dumps(self._scoring.score(path))


class _Remote(Worker):
    """One actor."""

    def __init__(self, cpus: float, gpus: float) -> None:
        super().__init__()
        self.actor = cluster.Actor(ScoringActor, cpus, gpus)
        self.deadline = time.monotonic() + cluster.ROOM_SECONDS
        self.ending = ""

    def give(self, path: str) -> None:
        self.actor.call("score", path)

    def kill(self) -> str:
        self.actor.kill()
        return self.ending


class RayEngine(Crew[_Remote]):
    """At most `workers` actors (None: as many as the cluster has room for), each with a scorer made by `begin`.

    cpus, gpus: what one of them counts for where Ray hands out room. address: see `cluster.connect`.
    """

    def __init__(
        self,
        begin: Callable[[], Scorer],
        workers: int | None,
        wall_seconds: float,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        super().__init__(1 if workers is None else workers, wall_seconds)
        self._begin, self._asked, self._address, self._cpus, self._gpus = begin, workers, address, cpus, gpus

    def run(self, items: Iterable[WorkItem | None]) -> Generator[Outcome | None]:
        own_cpus = self._cpus * (self._asked or len(os.sched_getaffinity(0)))
        with cluster.connect(self._address, own_cpus) as resources:
            self._count = self._asked or cluster.places(resources, self._cpus, self._gpus)
            yield from super().run(items)

    def _start(self) -> _Remote:
        return _Remote(self._cpus, self._gpus)

    def _listen(self, seconds: float) -> Iterator[tuple[_Remote, Message | None]]:
        for worker, said in cluster.answers(self._workers, seconds):
            if isinstance(said, cluster.Lost):
                worker.ending = said.reason
                yield worker, None
            elif said is cluster.PLACED:
                worker.deadline = time.monotonic() + START_SECONDS
                worker.actor.call("begin", self._begin)
            else:
                yield worker, json.loads(said)

    def _late_start(self, worker: _Remote) -> None:
        """While others work, one may wait for room: the cluster may be smaller than was asked.

        It is asked again each time: the others may be lost with their machines.
        """
        if worker.actor.host is not None:
            super()._late_start(worker)
        elif any(other.ready for other in self._workers):
            worker.deadline = time.monotonic() + cluster.ROOM_SECONDS
        else:
            raise cluster.no_room(self._cpus, self._gpus)
