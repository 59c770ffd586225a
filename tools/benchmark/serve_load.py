"""A server under load: many clients upload good and bad files, and ask how they are; is a job lost, does memory grow?

    python tools/benchmark/serve_load.py [--jobs 200] [--clients 8] [--bad 0.1] [--workers 2] [--out serve_load.csv]

Starts `avdetect serve` on loopback with a folder of its own, uploads the sample clip (and text that is no video for the
bad ones), asks for each job's status ten times a second until it has ended, and fetches the result and the report of
each good one. Exits with 1 if a job was lost, ended otherwise than it should, or the server's memory grew by more than
GROWTH_MIB from the middle to the end. Rule and data: README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measuring import Table, machine

import avdetect
from avdetect.extras import script_imports

with script_imports("serve_load", "dev"):
    import httpx
    import psutil

SAMPLE = Path(avdetect.__file__).parent / "weights" / "sample" / "sample.mp4"
GROWTH_MIB = 20
COLUMNS = (
    *("jobs", "clients", "workers", "done", "failed", "lost", "wrong", "wall_seconds", "status_requests"),
    *("status_p50_ms", "status_p95_ms", "rss_start_mib", "rss_middle_mib", "rss_end_mib"),
)


class Load:
    """What the clients did and saw."""

    def __init__(self, url: str, pid: int, count: int, bad: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=64))
        self._process, self._count = psutil.Process(pid), count
        self._every = round(1 / bad) if bad else 0  # each so many-th file is bad
        self.seconds: list[float] = []  # of status requests
        self.ends: Counter[str] = Counter()
        self.rss_mib = {"start": self._rss()}
        self._lock = threading.Lock()

    def _rss(self) -> float:
        return self._process.memory_info().rss / 1024**2

    def job(self, number: int) -> None:
        """One client's file, from upload to report."""
        bad = bool(self._every) and number % self._every == 0
        id = self._submit(number, bad)
        status = self._wait(id)
        expected = "failed" if bad else "done"
        if status == "done" and not all(
            self._http.get(f"/v1/jobs/{id}/{what}").status_code == 200 for what in ("result", "report")
        ):
            status = "lost"
        with self._lock:
            self.ends[status] += 1
            self.ends["wrong"] += status != expected
            if sum(self.ends[s] for s in ("done", "failed", "lost")) == self._count // 2:
                self.rss_mib["middle"] = self._rss()

    def _submit(self, number: int, bad: bool) -> str:
        while True:
            file = b"this is no video\n" * 1000 if bad else SAMPLE.read_bytes()
            answer = self._http.post("/v1/score", files={"file": (f"{number}.mp4", file, "video/mp4")})
            if answer.status_code != 503:  # the queue is full: as told, later
                return str(answer.raise_for_status().json()["id"])
            time.sleep(float(answer.headers["retry-after"]))

    def _wait(self, id: str) -> str:
        while True:
            began = time.perf_counter()
            answer = self._http.get(f"/v1/jobs/{id}")
            self.seconds.append(time.perf_counter() - began)
            if answer.status_code != 200:
                return "lost"
            if (status := answer.json()["status"]) not in ("queued", "running"):
                return str(status)
            time.sleep(0.1)

    def finish(self) -> None:
        """After the last job."""
        self.rss_mib["end"] = self._rss()
        self._http.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--bad", type=float, default=0.1, help="share of files that are no video")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Table(COLUMNS, machine(), args.out) as table:
        command = [sys.executable, "-m", "avdetect.cli", "serve", "--port", "0", "--data", f"{folder}/data"]
        command += ["--workers", str(args.workers)]
        environment = {name: value for name, value in os.environ.items() if name != "AVDETECT_TOKEN"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().split()[3]
                load, began = Load(url, server.pid, args.jobs, args.bad), time.perf_counter()
                with ThreadPoolExecutor(args.clients) as clients:
                    list(clients.map(load.job, range(1, args.jobs + 1)))
                load.finish()
                row = summed(load, args.jobs, args.clients, args.workers, time.perf_counter() - began)
            finally:
                server.terminate()
        table.row(**row)
    grown = row["rss_end_mib"] - row["rss_middle_mib"]
    sys.exit(1 if row["lost"] or row["wrong"] or grown > GROWTH_MIB else 0)


def summed(load: Load, jobs: int, clients: int, workers: int, wall: float) -> dict:
    """The row of the table."""
    p50, p95 = np.percentile(load.seconds, [50, 95]) * 1000
    ended = sum(load.ends[status] for status in ("done", "failed", "cancelled"))
    return {
        **{"jobs": jobs, "clients": clients, "workers": workers, "wall_seconds": round(wall, 1)},
        **{"done": load.ends["done"], "failed": load.ends["failed"], "lost": jobs - ended},
        **{"wrong": load.ends["wrong"], "status_requests": len(load.seconds)},
        **{"status_p50_ms": round(p50, 1), "status_p95_ms": round(p95, 1)},
        **{f"rss_{when}_mib": round(value, 1) for when, value in load.rss_mib.items()},
    }


if __name__ == "__main__":
    main()
