"""A server without its network: the folder, the store, the runner, and what may be asked of them."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from avdetect.errors import ConfigError, ServerError
from avdetect.files import not_ours, sync_folder
from avdetect.report.data import printable
from avdetect.serve.metrics import Metrics
from avdetect.serve.models import Refusal
from avdetect.serve.runner import Runner
from avdetect.serve.settings import ServeSettings
from avdetect.serve.store import ENDED, Job, JobStore
from avdetect.serve.worker import UPLOAD, Score, score_upload

_ID_BYTES = 16  # of chance, in the name of a job
_ID = re.compile(r"[A-Za-z0-9_-]{22}")  # what they make
_LONGEST_NAME = 120  # characters of an upload's name that are kept
_ANOTHER = "name a folder of its own"
_LONGEST_ROUND_SECONDS = 30.0  # of the runner: usually half a second, longer where a process does not die


class Service:
    """A context manager: inside, jobs are run. Raises ConfigError, ServerError.

    score: what a worker does; tests put something lighter there.
    """

    def __init__(self, settings: ServeSettings, score: Score = score_upload) -> None:
        self.settings, self.metrics = settings, Metrics()
        self._score = score
        self._incoming, self._jobs = settings.data / "incoming", settings.data / "jobs"
        self._database = settings.data / "jobs.sqlite"
        self._uploads: Counter[str] = Counter()  # under way, by client
        self._clients: dict[str, str] = {}  # of jobs that wait
        self._upload_lock = threading.Lock()

    def __enter__(self) -> Service:
        try:
            self._make_ready()
            self._lock_file = _lock(self.settings.data / "lock")
            try:
                self.store = JobStore(self._database)
                self._recover()
                self.runner = Runner(self.store, self.settings, self.metrics, self._score)
            except BaseException:
                os.close(self._lock_file)
                raise
        except OSError as error:
            raise ConfigError(f"cannot use --data {self.settings.data}: {error.strerror}") from error
        self.metrics.watch(lambda: self.store.count("queued"), lambda: self.store.count("running"))
        self.runner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.stop()
        self.store.close()
        os.close(self._lock_file)

    def _make_ready(self) -> None:
        """Make the folder and what is in it, for our eyes only. Raises ConfigError for one that others had a hand in,
        or that holds files of another program; OSError.
        """
        data, folders = self.settings.data, (self._incoming, self._jobs)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        tops = [path for path in (data, *folders, data / "lock") if os.path.lexists(path)]
        _check_ours(tops)
        for path in tops[1:]:
            path.chmod(0o700 if path.is_dir() else 0o600)
        known = self._database.exists() and self._database.stat().st_size
        if not known and any(folder.is_dir() and any(folder.iterdir()) for folder in folders):
            raise ConfigError(f"--data {data} holds other files, which would be deleted: {_ANOTHER}")
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)

    def _recover(self) -> None:
        """Run again what was cut off; remove folders of ours that no job owns. Raises ConfigError where a link or the
        name of a job leads elsewhere; OSError."""
        for parent, folders, files in chain(os.walk(self._incoming), os.walk(self._jobs)):  # which follows no link
            _check_ours(Path(parent, name) for name in (*folders, *files))
        if not all(_ID.fullmatch(str(id)) for id in self.store.states()):
            raise ConfigError(f"--data: {self._database} has jobs that this server has not named: {_ANOTHER}")
        self.store.recover()
        states = self.store.states()
        for folder in (*self._incoming.iterdir(), *self._jobs.iterdir()):
            if states.get(folder.name) == "done":
                (folder / UPLOAD).unlink(missing_ok=True)
            elif states.get(folder.name) not in ("queued", "running") and _ID.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)  # follows no link

    @property
    def healthy(self) -> bool:
        """Whether jobs are being run."""
        return self.runner.is_alive() and time.monotonic() - self.runner.last_round < _LONGEST_ROUND_SECONDS

    @contextmanager
    def upload(self, client: str) -> Iterator[Path | None]:
        """A new folder that takes one upload; None where the queue, or the client's share, is full. It is gone
        afterwards, unless submitted. A place in the queue is held by what has come whole. Raises ServerError.
        """
        with self._upload_lock:
            waiting = self.store.waiting()
            self._clients = {id: whose for id, whose in self._clients.items() if id in waiting}
            share = self.settings.share_of(client) - self._uploads[client]
            room = len(waiting) < self.settings.queue and list(self._clients.values()).count(client) < share
            self._uploads[client] += room
        if not room:
            yield None
            return
        folder = self._incoming / secrets.token_urlsafe(_ID_BYTES)
        try:
            with _explained():
                folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with self._upload_lock:
                self._uploads[client] -= 1
                self._uploads += Counter()  # forgets who has none

    def submit(
        self, folder: Path, name: str, start_seconds: float, duration_seconds: float | None, client: str
    ) -> Job | None:
        """Queue the upload in `folder`; None where the queue is full. Raises ServerError."""
        id, kept = folder.name, self.runner.folder(folder.name)
        added = False
        try:
            with _explained():
                size = (folder / UPLOAD).stat().st_size
                os.rename(folder, kept)
                for changed in (kept, kept.parent):
                    sync_folder(changed)  # what is accepted survives a power cut
            window = start_seconds, duration_seconds
            added = self.store.add(id, display_name(name), size, *window, most_queued=self.settings.queue)
        finally:
            if not added:
                self.runner.remove(id)
        if not added:
            return None
        with self._upload_lock:
            self._clients[id] = client
        self.metrics.upload_bytes.inc(size)
        self.runner.wake()
        return self.store.get(id)

    def cancel(self, id: str) -> bool:
        """Whether this call ended the job. Its process is dead afterwards."""
        if not self.store.cancel(id):
            return False
        self.runner.clear(id)
        if job := self.store.get(id):
            self.metrics.ended(job)
        return True

    def delete(self, id: str) -> bool:
        """Forget a job and its files; whether there was one."""
        job = self.store.get(id)
        if job is not None and job.status in ENDED:
            self.runner.remove(id)  # first: on a full disk, forgetting needs the room
        if not self.store.delete(id):
            return False
        self.runner.clear(id)
        return True

    def file(self, job: Job, name: str) -> Path:
        """RESULT or REPORT of a job that is done. Raises Refusal where there is none."""
        path = self.runner.folder(job.id) / name
        if job.status != "done" or not path.is_file():
            raise Refusal("Conflict", "the job has none: it is not done, or did not succeed")
        return path


def display_name(name: str) -> str:
    """A client's name of a file, fit to be shown: no folders, nothing that steers a terminal, not long."""
    shown = printable(name.replace("\\", "/").rstrip("/").rpartition("/")[2]).strip()
    if len(shown) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        shown = f"{shown[:half]}…{shown[1 - half :]}"
    return shown or "upload"


def _check_ours(paths: Iterable[Path]) -> None:
    """Raises ConfigError where one is a link, or others had a hand in it; OSError."""
    for path in paths:
        if why := not_ours(path) or ("" if path.is_dir() or path.is_file() else "is no file or folder"):
            raise ConfigError(f"--data: {path} {why}, so its jobs may not be this server's: {_ANOTHER}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServerError(f"cannot keep an upload: {error.strerror}") from error


def _lock(path: Path) -> int:
    """The descriptor of a file that no other server can lock until it is closed. Raises ConfigError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(f"another avdetect serve uses {path.parent}: stop it, or name another --data") from error
    return descriptor
