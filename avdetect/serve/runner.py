"""Runs the jobs of a store through a pool of workers, one fresh process a job, until told to end."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from avdetect.batch.options import threads_of
from avdetect.errors import AVDetectError
from avdetect.jobs.pool import Done, Event, Failed, Item, Pool, Progress
from avdetect.serve.metrics import Metrics
from avdetect.serve.settings import ServeSettings
from avdetect.serve.store import ENDED, Job, JobStore
from avdetect.serve.worker import BUG, BUG_MESSAGE, UPLOAD, Score, job_item, scoring

_LOOK_SECONDS = 0.5  # between looks at the store, unless somebody wakes us
_SWEEP_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0  # for a process to end
_log = logging.getLogger("avdetect.serve")


@dataclass
class _Running:
    """A job that the pool works on, or whose end is not written down yet."""

    job: Job
    stage: str = "starting"
    progress: float = 0.0
    finish: Callable[[], bool] | None = None  # writes down how it ended; kept until that succeeds


@contextmanager
def _logged() -> Iterator[None]:
    """A full disk may have room again later, and a bug must not leave a server that takes jobs and runs none."""
    try:
        yield
    except (AVDetectError, OSError) as error:
        _log.error("%s", error)
    except Exception:
        _log.exception("a bug in avdetect")


class Runner(threading.Thread):
    """The thread that all workers hang on: they die with it, however it ends."""

    def __init__(self, store: JobStore, settings: ServeSettings, metrics: Metrics, score: Score) -> None:
        super().__init__(name="jobs", daemon=True)
        self._store, self._settings, self._metrics = store, settings, metrics
        task = partial(scoring, score, settings.options, threads_of(settings.workers))
        self._pool = Pool(task, settings.workers, settings.options.limits.max_file_seconds, fresh=True)
        self._running: dict[str, _Running] = {}  # by the job's id; changed by this thread only
        self._woken = threading.Event()
        self._stopping = False
        self._turn = threading.Condition()  # notified after every look
        self._looked = self._swept = float("-inf")
        self._may_claim = True  # whether the store may have a job that waits
        self.last_round = time.monotonic()  # when the last one ended well

    def folder(self, id: str) -> Path:
        """Of a job's files."""
        return self._settings.data / "jobs" / id

    def progress(self, id: str) -> tuple[str, float]:
        """(stage, share of it that is done) of a job that runs."""
        running = self._running.get(id)
        return (running.stage, running.progress) if running else ("starting", 0.0)

    def wake(self) -> None:
        """Look at the store at once: a job came, or was ended."""
        self._woken.set()

    def clear(self, id: str) -> None:
        """After a job was cancelled or deleted: wait until its process is dead, and delete its files."""
        self.wake()
        with self._turn:
            if not self._turn.wait_for(lambda: id not in self._running or not self.is_alive(), _PATIENCE_SECONDS):
                _log.error("job %s: its process does not die", id)
        self.remove(id)

    def stop(self) -> None:
        """End the workers; their jobs wait for the next start."""
        self._stopping = True
        self.join()

    def run(self) -> None:
        try:
            while not self._stopping:
                with _logged(), closing(self._pool.run(self._items())) as events:
                    for event in events:
                        self._round(event)
                        if self._stopping:
                            break
                self._put_back()
                time.sleep(0 if self._stopping else _LOOK_SECONDS)
        finally:
            self._running.clear()
            with self._turn:
                self._turn.notify_all()

    def sweep(self) -> None:
        """Delete what has been kept long enough."""
        for job in self._store.ended_before(time.time() - self._settings.keep_seconds):
            if job.id not in self._running:
                self.remove(job.id)  # first: on a full disk, forgetting needs the room
                self._store.delete(job.id)
        self._store.sync()  # names of forgotten jobs leave the disk

    def remove(self, id: str) -> None:
        """Delete a job's files."""
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def _items(self) -> Iterator[Item | None]:
        """The jobs that wait, oldest first, as workers are free for them."""
        while not self._stopping:
            job = None
            if self._may_claim:
                with _logged():
                    job = self._store.claim()
                self._may_claim = job is not None
            if job is None:
                yield None
                continue
            self._running[job.id] = _Running(job)
            yield job_item(self.folder(job.id), job)

    def _round(self, event: Event | None) -> None:
        with _logged():
            if event is not None and event.item.key in self._running:
                self._take(self._running[event.item.key], event)
            if self._woken.is_set() or time.monotonic() - self._looked > _LOOK_SECONDS:
                self._look()
            self.last_round = time.monotonic()

    def _take(self, running: _Running, event: Event) -> None:
        id = running.job.id
        if isinstance(event, Progress):
            running.stage, running.progress = str(event.news["stage"]), float(event.news["progress"])
            return
        if isinstance(event, Failed):
            _log.warning("job %s: %s", id, event.reason)
            running.finish = partial(self._store.fail, id, event.error, f"it was not scored: {event.reason}")
        elif isinstance(event, Done) and "done" in event.answer:
            running.finish = partial(self._store.finish, id, event.answer["done"])
        else:
            _log.warning("job %s failed: %s", id, event.answer["detail"])
            running.finish = partial(self._store.fail, id, event.answer["failed"], event.answer["message"])
        self._finish(running)

    def _look(self) -> None:
        """Do what does not come from the pool: end cancelled jobs, write down what could not be, forget old jobs."""
        self._woken.clear()
        self._looked, self._may_claim = time.monotonic(), True
        for running in list(self._running.values()):
            job = self._store.get(running.job.id)
            if running.finish is None and (job is None or job.status != "running"):
                self._pool.cancel(running.job.id)
                running.finish = lambda: False
            if running.finish is not None:
                self._finish(running)
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self.sweep()
        with self._turn:
            self._turn.notify_all()

    def _finish(self, running: _Running) -> None:
        """Write down how a job ended, count it, and forget its video. Raises AVDetectError, to be tried again."""
        id, finish = running.job.id, running.finish
        assert finish is not None
        try:
            changed = finish()
        except AVDetectError:
            raise
        except Exception:  # trying that again would hold up every other job for ever
            _log.exception("job %s: a bug in avdetect", id)
            running.finish = partial(self._store.fail, id, BUG, BUG_MESSAGE)
            changed = running.finish()
        job = self._store.get(id)
        if job is None or job.status in ("failed", "cancelled"):
            self.remove(id)
        elif job.status == "done":
            (self.folder(id) / UPLOAD).unlink(missing_ok=True)
        del self._running[id]
        if changed and job is not None and job.status in ENDED:
            self._metrics.ended(job)

    def _put_back(self) -> None:
        """No process is left: the jobs wait for the next one, or the next start, unless they have ended themselves."""
        for running in list(self._running.values()):
            running.finish = running.finish or partial(self._store.put_back, running.job.id)
            with _logged():  # what fails is tried again later, or the next start takes it for cut off
                self._finish(running)
