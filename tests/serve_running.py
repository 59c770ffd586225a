"""A server of avdetect.serve that runs in this process, or as the command does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import pytest
from batch_commands import eventually

from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
from avdetect.jobs.pool import Done, Event, Item, Pool, Progress
from avdetect.serve import runner, worker
from avdetect.serve.command import http_server, listen
from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings
from avdetect.serve.worker import Score

TESTS = Path(__file__).parent
ROOT = TESTS.parent
SAMPLE = ROOT / "avdetect" / "weights" / "sample" / "sample.mp4"
FORM = {"content-type": "multipart/form-data; boundary=b"}
BODY = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'  # the beginning of one
ENDED = ("done", "failed", "cancelled")


class Client:
    """What a program does with a server."""

    http: httpx.Client

    def send(self, text: str | bytes = "0.9", name: str = "clip.mp4", **fields: str) -> httpx.Response:
        return self.http.post("/v1/score", files={"file": (name, text, "video/mp4")}, data=fields)

    def submit(self, text: str | bytes = "0.9", name: str = "clip.mp4") -> str:
        answer = self.send(text, name)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def job(self, id: str) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{id}").json()

    def ended(self, id: str) -> dict[str, Any]:
        return eventually(lambda: (job := self.job(id))["status"] in ENDED and job)

    def scoring(self, id: str) -> dict[str, Any]:
        return eventually(lambda: (job := self.job(id))["stage"] == "scoring" and job)


@dataclass
class Running(Client):
    """A server in this process."""

    url: str
    service: Service
    http: httpx.Client


class PoolHere(Pool):
    """Works in this process, one job after the other: for scorers that do not die, and end when the upload is gone."""

    def run(self, items: Iterable[Item | None]) -> Generator[Event | None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "NICENESS", -20)  # this process keeps its own
            work = self._task()
        for item in items:
            yield None
            if item is None:
                time.sleep(0.005)
                continue
            news: SimpleQueue[Any] = SimpleQueue()
            with chdir("."), ThreadPoolExecutor(1) as thread:  # the work goes elsewhere
                answer = thread.submit(work, item.value, news.put)
                while not answer.done() or not news.empty():
                    try:
                        yield Progress(item, news.get(timeout=0.01))
                    except Empty:
                        yield None
            yield Done(item, json.loads(json.dumps(answer.result())))


@contextmanager
def running(data: Path, score: Score, processes: bool = False, **settings: Any) -> Iterator[Running]:
    """A server on a port of its own, in a thread. processes: jobs have their own, as ever; else see PoolHere."""
    chosen = ServeSettings(data=data, port=0, **settings)
    with pytest.MonkeyPatch.context() as patch, listen(chosen) as listener, ExitStack() as held:
        patch.setattr(runner, "Pool", Pool if processes else PoolHere)
        service = held.enter_context(Service(chosen, score))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = http_server(service)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=30) as http:
                yield Running(url, service, http)
        finally:
            server.should_exit = True
            thread.join()


def connected(server: Running) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=20)


class Command(Client):
    """The server as `avdetect serve` runs it, with a scorer of the tests; ended on leaving. before: code of Python."""

    def __init__(self, data: Path, before: str = "") -> None:
        code = (
            f"import sys; from pathlib import Path; import serve_scorers; from avdetect.serve import command\n"
            f"from avdetect.serve.settings import ServeSettings\nfrom avdetect import cli\n{before}\n"
            f"settings = ServeSettings(data=Path({str(data)!r}), port=0)\n"
            f"cli.app = lambda **_: command.serve(settings, lambda t: print(t, flush=True), serve_scorers.by_text)\n"
            f"sys.exit(cli.run())"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def __enter__(self) -> Command:
        assert "listening on " in self.first_line, self.process.communicate()
        self.http = httpx.Client(base_url=self.first_line.split()[3], timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal to all of it; (exit code, standard error)."""
        os.killpg(self.process.pid, number)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err
