"""The pool of workers on a Ray cluster, or on a Ray of our own on this machine: each worker is an actor.

Files are read where the actor runs: all machines must find them, and the bundle, under the same names.
Whoever reaches the ports of a Ray cluster has it run what they like. Our own asks for a token that this process makes
up, reports to nobody and ends with the connection.
"""

import json
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from avdetect import extras
from avdetect._version import __version__
from avdetect.errors import AVDetectError
from avdetect.jobs.pool import START_SECONDS, BasePool, Event, Item, Worker
from avdetect.jobs.process import Message, Session, Task

ROOM_SECONDS = 300.0  # for a cluster to have room for one actor
_REACH_SECONDS = 10.0
_OWN_STORE_BYTES = 100 * 1024**2  # of our own Ray: results are small
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints what happens to workers on standard output, where the table goes
    "RAY_worker_niceness": "0",  # of our own: its actors work no less than processes would
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # said, so that Ray does not announce that it will change
}


def ray() -> Any:
    """The package, imported with our settings where the user has none of their own."""
    if "ray" not in sys.modules:  # it reads them when it is imported
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    with extras.importing("ray", "the engine ray"):
        import ray
    return ray


@contextmanager
def connect(address: str | None, own_cpus: float) -> Iterator[dict[str, float]]:
    """Be connected to Ray; yields what it has: "CPU", "GPU" and more.

    address: of a cluster, or "auto": the one that this machine belongs to. None: $RAY_ADDRESS, or else a Ray of our
    own with `own_cpus` CPUs. A connection that the process has already is used, and left as it is: whether that
    Ray asks for a token was settled by whoever started it. Nor does our own where the process had imported `ray`
    before, which reads that setting once; set RAY_AUTH_MODE=token before the import then.
    Raises AVDetectError when there is no such cluster, or it breaks; ToolError without the package.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local" and "ray" not in sys.modules:  # it reads the token once
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it would keep one in the home folder
    library = ray()
    mine = not library.is_initialized()
    if mine:
        _join(library, address, own_cpus)
    try:
        yield library.cluster_resources()
    except (library.exceptions.RayError, ConnectionError) as error:
        if isinstance(error, OSError) and type(error) is not ConnectionError:
            raise  # what Ray raises is the class itself; a BrokenPipeError comes from the items, or the table
        raise AVDetectError(f"Ray failed ({_last_line(error)}); what is done is kept, run again") from error
    finally:
        if mine:
            library.shutdown()


def _join(library: Any, address: str, own_cpus: float) -> None:
    own = {"num_cpus": max(1, round(own_cpus)), "include_dashboard": False, "object_store_memory": _OWN_STORE_BYTES}
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:  # Ray itself would try for many minutes
            socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
        library.init(address=address, log_to_driver=False, logging_level="ERROR", **own if address == "local" else {})
    except Exception as error:  # Ray raises many kinds, and bare `Exception` where a process of its own fails
        where = "no Ray can be started here" if address == "local" else f"there is no Ray to be used at {address}"
        raise AVDetectError(f"{where}: {_first_line(error)}") from error


class WorkerActor:
    """The far side: a task on some machine of the cluster. It answers in JSON, as the processes do."""

    def greet(self, version: str, folder: str) -> tuple[str, str]:
        """Be like the process that asks: (name of this machine, what is wrong with it or "")."""
        host = socket.gethostname()
        if version != __version__:
            return host, f"avdetect is {__version__} on {host} and {version} here: install one version on all machines"
        try:
            os.chdir(folder)  # names of files are relative to it
        except OSError as error:
            share = "run the command in a folder that all machines share, the files too must lie where all find them"
            return host, f"{folder}: {error.strerror} on {host}; {share}"
        return host, ""

    def begin(self, task: Task) -> str:
        self._session = Session()
        return json.dumps(self._session.begin(task))

    def answer(self, value: str) -> str:
        return json.dumps(self._session.answer(json.loads(value)))


class _RayWorker(Worker):
    """The near side: one actor, and the call that it has not answered. It waits for room in the cluster without end."""

    def __init__(self, cpus: float, gpus: float) -> None:
        super().__init__()
        self.deadline = time.monotonic() + ROOM_SECONDS
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._handle = ray().remote(WorkerActor).options(**options).remote()
        self._ending = ""
        self.host: str | None = None  # None until it has room
        self.call("greet", __version__, os.getcwd())

    def call(self, method: str, *arguments: Any) -> None:
        self.pending: Any = getattr(self._handle, method).remote(*arguments)

    def send(self, value: Any) -> None:
        self.call("answer", json.dumps(value))

    def answer(self) -> Any:
        """What it says to the call; None where it has ended. Raises AVDetectError where it cannot go on."""
        exceptions = ray().exceptions
        pending, self.pending = self.pending, None
        try:
            return ray().get(pending)
        except exceptions.RayTaskError as error:
            raise AVDetectError(f"an actor on {self.host} cannot go on: {_last_line(error)}") from error
        except exceptions.RayError as error:  # its end, its machine's, or the loss of what it said
            line = _last_line(error) if self.host is None else f"on {self.host}"
            self._ending = f"{type(error).__name__} {line}"
            return None

    def kill(self) -> str:
        ray().kill(self._handle)  # and its children, at once
        return self._ending


class RayPool(BasePool[_RayWorker]):
    """At most `workers` actors (None: as many as the cluster has room for). Workers report no progress.

    cpus, gpus: what one of them counts for where Ray hands out room. address: see `connect`.
    """

    def __init__(
        self,
        task: Task,
        workers: int | None,
        seconds: float,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        super().__init__(1 if workers is None else workers, seconds)
        self._task, self._asked, self._address, self._cpus, self._gpus = task, workers, address, cpus, gpus

    def run(self, items: Iterable[Item | None]) -> Generator[Event | None]:
        own_cpus = self._cpus * (self._asked or len(os.sched_getaffinity(0)))
        with connect(self._address, own_cpus) as resources:
            self._count = self._asked or places(resources, self._cpus, self._gpus)
            yield from super().run(items)

    def _start(self) -> _RayWorker:
        return _RayWorker(self._cpus, self._gpus)

    def _receive(self, seconds: float) -> Iterator[tuple[_RayWorker, Message | None]]:
        by_call = {worker.pending: worker for worker in self._workers if worker.pending is not None}
        if not by_call:
            time.sleep(seconds)
            return
        done, _ = ray().wait(list(by_call), num_returns=1, timeout=seconds)
        for call in done:
            worker = by_call[call]
            answer = worker.answer()
            if answer is None or worker.host is not None:
                yield worker, None if answer is None else json.loads(answer)
                continue
            worker.host, trouble = answer
            if trouble:
                raise AVDetectError(trouble)
            worker.deadline = time.monotonic() + START_SECONDS
            worker.call("begin", self._task)

    def _late_start(self, worker: _RayWorker) -> None:
        """While others work, one may wait for room: the cluster may be smaller than was asked, or lose machines."""
        if worker.host is not None:
            super()._late_start(worker)
        elif any(other.ready for other in self._workers):
            worker.deadline = time.monotonic() + ROOM_SECONDS
        else:
            raise AVDetectError(
                f"Ray has had no room for a worker ({self._cpus:g} CPU, {self._gpus:g} GPU) for a long time: see "
                "`ray status`, and run again when there is some; what is done is kept"
            )


def places(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many actors that count so much have a place in a cluster that has `resources`; 1 at least, to wait for it."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return max(1, min(math.floor(resources.get(kind, 0) / each) for kind, each in wanted.items() if each))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
