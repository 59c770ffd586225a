"""Runs the jobs of a store: so many processes at a time, one job each, until told to end."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from avdetect.batch.process import Message, Process
from avdetect.errors import AVDetectError, LimitError, WorkerError
from avdetect.serve.metrics import Metrics
from avdetect.serve.settings import ServeSettings
from avdetect.serve.store import TRIES, Job, Store
from avdetect.serve.worker import BUG, BUG_MESSAGE, DONE, FAILED, STAGE, UPLOAD, Score, Task, work

_TICK_SECONDS = 0.5  # how late a deadline may be noticed
_SWEEP_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0  # for a process to end
_log = logging.getLogger("avdetect.serve")


@dataclass
class _Slot:
    """A job and the process that scores it."""

    job: Job
    process: Process
    deadline: float
    stage: str = "starting"
    progress: float = 0.0
    settle: Callable[[], bool] | None = None  # writes down how it ended; kept until that succeeds


class Runner(threading.Thread):
    """The thread that all workers hang on: they die with it, however it ends."""

    def __init__(self, store: Store, settings: ServeSettings, metrics: Metrics, score: Score) -> None:
        super().__init__(name="jobs", daemon=True)
        self._store, self._settings, self._metrics, self._score = store, settings, metrics, score
        self._slots: dict[str, _Slot] = {}  # by the job's id; changed by this thread only
        self._ears, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._stopping = False
        self._turn = threading.Condition()  # notified after every round
        self._swept = float("-inf")
        self.last_round = time.monotonic()  # when the last one ended well

    def folder(self, id: str) -> Path:
        """Of a job's files."""
        return self._settings.data / "jobs" / id

    def progress(self, id: str) -> tuple[str, float]:
        """(stage, share of it that is done) of a job that runs."""
        slot = self._slots.get(id)
        return (slot.stage, slot.progress) if slot else ("starting", 0.0)

    def wake(self) -> None:
        """Look at the store at once: a job came, or was ended."""
        with suppress(BlockingIOError):  # it has been woken often enough
            os.write(self._mouth, b".")

    def wait_until_gone(self, id: str) -> bool:
        """After a job was cancelled or deleted: wait until its process is dead. False if it does not die."""
        self.wake()
        with self._turn:
            return self._turn.wait_for(lambda: id not in self._slots or not self.is_alive(), _PATIENCE_SECONDS)

    def stop(self) -> None:
        """End the workers; their jobs wait for the next start."""
        self._stopping = True
        if self.is_alive():
            self.wake()
            self.join()
        os.close(self._ears)
        os.close(self._mouth)

    def run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._round()
                    self.last_round = time.monotonic()
                except (AVDetectError, OSError) as error:  # a full disk: it may have room again later
                    _log.error("%s", error)
                    time.sleep(_TICK_SECONDS)
                except Exception:  # a bug of ours must not leave a server that takes jobs and runs none
                    _log.exception("a bug in avdetect")
                    time.sleep(_TICK_SECONDS)
                with self._turn:
                    self._turn.notify_all()
        finally:
            for slot in list(self._slots.values()):
                self._put_back(slot)
            self._slots.clear()
            with self._turn:
                self._turn.notify_all()

    def _round(self) -> None:
        self._end_the_unwanted()
        for slot in list(self._slots.values()):
            self._settle(slot)
        self._fill()
        self._listen()
        self._end_the_late()
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self.sweep()

    def sweep(self) -> None:
        """Delete what has been kept long enough."""
        for job in self._store.ended_before(time.time() - self._settings.keep_seconds):
            if job.id not in self._slots:
                self.remove(job.id)  # first: on a full disk, forgetting needs the room
                self._store.delete(job.id)
        self._store.tidy()

    def remove(self, id: str) -> None:
        """Delete a job's files."""
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def _fill(self) -> None:
        while len(self._slots) < self._settings.workers and not self._stopping:
            job = self._store.claim()
            if job is None:
                return
            options = dataclasses.replace(
                self._settings.options, start_seconds=job.start_seconds, duration_seconds=job.duration_seconds
            )
            task = Task(self.folder(job.id), job.name, options, self._settings.threads)
            try:
                process = Process(work, self._score, task)
            except BaseException as error:  # no memory, for one: it must not stay one that runs, with nothing behind it
                self._store.put_back(job.id)
                if isinstance(error, OSError):
                    raise AVDetectError(f"cannot start a scoring process: {error.strerror}") from error
                raise
            self._slots[job.id] = _Slot(job, process, time.monotonic() + options.limits.max_file_seconds)

    def _listen(self) -> None:
        """Hear the workers, and whoever wakes us, for one tick."""
        slots = {slot.process.connection: slot for slot in self._slots.values() if slot.settle is None}
        for ready in wait([self._ears, *slots], _TICK_SECONDS):
            if isinstance(ready, Connection):
                self._heard(slots[ready], slots[ready].process.hear())
            else:
                os.read(self._ears, 4096)

    def _heard(self, slot: _Slot, message: Message | None) -> None:
        id = slot.job.id
        if message is None:
            self._bury(slot)
        elif STAGE in message:
            slot.stage, slot.progress = str(message[STAGE]), float(message["progress"])
        elif DONE in message:
            self._end(slot, partial(self._store.finish, id, message[DONE]))
        elif FAILED in message:
            _log.warning("job %s failed: %s", id, message.get("detail"))
            self._end(slot, partial(self._store.fail, id, str(message[FAILED]), str(message["message"])))

    def _bury(self, slot: _Slot) -> None:
        """A worker has died."""
        id, ending = slot.job.id, slot.process.kill()
        _log.warning("job %s: its process was ended by %s", id, ending)
        if slot.job.deaths + 1 < TRIES:
            slot.settle = partial(self._store.put_back, id, died=True)
        else:
            message = f"the process that scored it was ended {TRIES} times, the last time by {ending} (out of memory?)"
            slot.settle = partial(self._store.fail, id, WorkerError.__name__, message)
        self._settle(slot)

    def _end(self, slot: _Slot, settle: Callable[[], bool]) -> None:
        slot.process.kill()
        slot.settle = settle
        self._settle(slot)

    def _settle(self, slot: _Slot) -> None:
        """Write down how a job ended, count it, and forget its video. Raises AVDetectError, to be tried again."""
        if slot.settle is None:
            return
        try:
            changed = slot.settle()
        except AVDetectError:
            raise
        except Exception:  # trying that again would hold up every other job for ever
            _log.exception("job %s: a bug in avdetect", slot.job.id)
            slot.settle = partial(self._store.fail, slot.job.id, BUG, BUG_MESSAGE)
            changed = slot.settle()
        job = self._store.get(slot.job.id)
        if job is None or job.status in ("failed", "cancelled"):
            self.remove(slot.job.id)
        elif job.status == "done":
            (self.folder(job.id) / UPLOAD).unlink(missing_ok=True)
        del self._slots[slot.job.id]
        if changed and job is not None:
            self._metrics.ended(job)

    def _end_the_unwanted(self) -> None:
        """Kill the workers whose job somebody has cancelled or deleted."""
        for slot in list(self._slots.values()):
            job = self._store.get(slot.job.id)
            if slot.settle is None and (job is None or job.status != "running"):
                self._end(slot, lambda: False)

    def _end_the_late(self) -> None:
        now, most = time.monotonic(), self._settings.options.limits.max_file_seconds
        for slot in [s for s in self._slots.values() if s.settle is None and now > s.deadline]:
            message = f"scoring it took longer than {most:g} s"
            self._end(slot, partial(self._store.fail, slot.job.id, LimitError.__name__, message))

    def _put_back(self, slot: _Slot) -> None:
        """The server ends: the job waits for its next start, unless it has ended itself."""
        try:
            if slot.settle is not None:  # its process has ended
                self._settle(slot)
            else:
                slot.process.kill()
                self._store.put_back(slot.job.id)
        except Exception as error:  # the next start takes it for cut off; the others are still put back
            _log.error("job %s: %s", slot.job.id, error)
