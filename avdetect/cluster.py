"""Ray, as far as avdetect uses it: a connection to a cluster, or to one of our own on this machine, and actors on it.

Whoever reaches the ports of a Ray cluster has it run what they like. Our own asks for a token that this process makes
up, reports to nobody and ends with the connection.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from avdetect import extras
from avdetect._version import __version__
from avdetect.errors import AVDetectError

ROOM_SECONDS = 300.0  # for a cluster to have room for one actor
_REACH_SECONDS = 10.0
_OWN = {"include_dashboard": False, "object_store_memory": 100 * 1024**2}  # of our own Ray: results are small
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints what happens to workers on standard output, where the table goes
    "RAY_worker_niceness": "0",  # of our own: its actors work no less than processes would
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # said, so that Ray does not announce that it will change
}


def require() -> None:
    """Raises ToolError when Ray is not installed."""
    extras.require("ray", "the engine ray")


def ray() -> Any:
    """The package, imported with our settings where the user has none of their own."""
    if "ray" not in sys.modules:  # it reads them when it is imported
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with extras.importing("ray", "the engine ray"):
            import ray
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
    require()
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
    options = _OWN | {"num_cpus": max(1, round(own_cpus))} if address == "local" else {}
    try:
        _reach(address)
        library.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except Exception as error:  # Ray raises many kinds, and bare `Exception` where a process of its own fails
        where = "no Ray can be started here" if address == "local" else f"there is no Ray to be used at {address}"
        raise AVDetectError(f"{where}: {_first_line(error)}") from error


def _reach(address: str) -> None:
    """Ray itself would try for many minutes. Raises OSError, ValueError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()


class Member:
    """The far side: what runs as an actor on some machine of the cluster."""

    def greet(self, version: str, folder: str) -> tuple[str, str]:
        """Be like the process that asks: (name of this machine, what is wrong with it or "")."""
        host = socket.gethostname()
        if version != __version__:
            return host, f"avdetect is {__version__} on {host} and {version} here: install one version on all machines"
        try:
            os.chdir(folder)  # names of files are relative to it
        except OSError as error:
            return host, (
                f"{folder}: {error.strerror} on {host}; run the command in a folder that all machines share, the "
                "files too must lie where all of them find them"
            )
        return host, ""


PLACED: Any = object()


class Lost:
    """The answer of an actor that ended without one; `reason` in a few words."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Actor:
    """The near side: one actor, and the call that it has not answered.

    It waits for room in the cluster without end; `host` is None until it has got some.
    """

    def __init__(self, kind: type[Member], cpus: float, gpus: float = 0.0) -> None:
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._handle = ray().remote(kind).options(**options).remote()
        self.host: str | None = None
        self.call("greet", __version__, os.getcwd())

    def call(self, method: str, *arguments: Any) -> None:
        """Have it do something; `answers` tells what it says."""
        self.pending: Any = getattr(self._handle, method).remote(*arguments)

    def answer(self) -> Any:
        """What it says to the call, or Lost. Raises AVDetectError where it cannot do what it was asked to."""
        exceptions = ray().exceptions
        pending, self.pending = self.pending, None
        try:
            return ray().get(pending)
        except exceptions.RayTaskError as error:
            raise AVDetectError(f"an actor on {self.host} cannot go on: {_last_line(error)}") from error
        except exceptions.RayError as error:  # its end, its machine's, or the loss of what it said
            line = _last_line(error) if self.host is None else f"on {self.host}"
            return Lost(f"{type(error).__name__} {line}")

    def kill(self) -> None:
        """End it and its children, at once."""
        ray().kill(self._handle)


def here(kind: type[Member]) -> Any:
    """The handle of an actor that takes no room and shares the fate of this process: no other machine can lose it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(ray().get_runtime_context().get_node_id(), soft=False)
    return ray().remote(kind).options(num_cpus=0, max_restarts=0, scheduling_strategy=place).remote()


def places(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many actors that count so much have a place in a cluster that has `resources`; 1 at least, to wait for it."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return max(1, min(math.floor(resources.get(kind, 0) / each) for kind, each in wanted.items() if each))


def no_room(cpus: float, gpus: float) -> AVDetectError:
    """Of the actors that were started none has got a place."""
    return AVDetectError(
        f"Ray has had no room for a worker ({cpus:g} CPU, {gpus:g} GPU) for a long time: see `ray status`, and run "
        "again when there is some; what is done is kept"
    )


class HasActor(Protocol):
    @property
    def actor(self) -> Actor: ...


A = TypeVar("A", bound=HasActor)


def answers(owners: Sequence[A], seconds: float | None) -> Iterator[tuple[A, Any]]:
    """What actors say within so many seconds (None: as long as it takes), each with who owns it.

    The first of each is PLACED: the actor has a `host` then.
    """
    by_call = {owner.actor.pending: owner for owner in owners if owner.actor.pending is not None}
    if not by_call:
        time.sleep(seconds or 0)
        return
    done, _ = ray().wait(list(by_call), num_returns=1, timeout=seconds)
    for call in done:
        owner = by_call[call]
        first, said = owner.actor.host is None, owner.actor.answer()
        if first and not isinstance(said, Lost):
            owner.actor.host, trouble = said
            if trouble:
                raise AVDetectError(trouble)
            said = PLACED
        yield owner, said


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
