"""A server under load: many clients upload good and bad files, and ask how they are; is a job lost, does memory grow?

    PYTHONPATH=tools python -m benchmark.serve_load [--jobs 200] [--clients 8] [--workers 2] [--attackers 0] > load.csv

Attackers hold connections beside the clients, each in one of the ways of ATTACKS. Exits with 1 if a job was lost, ended
otherwise than it should, or the server's memory grew by more than GROWTH_MIB from the middle on (rule: README.md).
"""

import argparse
import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from avdetect.extras import script_imports
from benchmark.measuring import SAMPLE, Table, memory_mib

with script_imports("serve_load", "dev"):
    import httpx

GROWTH_MIB = 20
BAD = 10  # every tenth file is no video
BACK_SECONDS = 0.2  # until an attacker that was put out connects again
_ASKS = b"GET /openapi.json HTTP/1.1\r\nHost: {host}\r\n\r\n"
_UPLOADS = (
    b"POST /v1/score HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999\r\nContent-Type: multipart/form-data; "
    b'boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="slow.mp4"\r\n\r\n'
)
# What an attacker sends first, and then each half second until it is put out; whether it reads what is said.
ATTACKS = (
    (b"", _ASKS * 1000, False),
    (_UPLOADS, b"x" * 64, False),
    (b"GET / HTTP/1.1\r\nHost: {host}\r\n", b"X-More: and more\r\n", False),
    (b"POST /v1/score HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", b"", True),
    (_ASKS, b"", False),  # and keeps the connection
)


def _attacks(first: bytes, then: bytes, reads: bool, address: tuple[str, int]) -> None:
    """One attacker, who comes back whenever it is put out, and after a minute."""
    first, then = (some.replace(b"{host}", f"{address[0]}:{address[1]}".encode()) for some in (first, then))
    while True:
        with suppress(OSError), socket.create_connection(address, timeout=60) as connection:
            connection.sendall(first)
            until = time.monotonic() + 60
            while time.monotonic() < until and (not reads or connection.recv(65536)):
                connection.sendall(then)
                time.sleep(0.5)
        time.sleep(BACK_SECONDS)


@contextmanager
def served(workers: int, attackers: int) -> Iterator[tuple[str, int]]:
    """A server: its address and its process; with attackers at work, each a process, until this program ends."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", "0", "--data", f"{folder}/data", "--workers", str(workers)]
        command = [sys.executable, "-m", "avdetect.cli", "serve", *options]
        environment = {name: value for name, value in os.environ.items() if name != "AVDETECT_TOKEN"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            try:
                url = httpx.URL(server.stdout.readline().split()[3])
                for attack in itertools.islice(itertools.cycle(ATTACKS), attackers):
                    arguments = (*attack, (url.host, url.port))
                    multiprocessing.Process(target=_attacks, args=arguments, daemon=True).start()
                yield str(url), server.pid
            finally:
                server.terminate()


def job(http: httpx.Client, number: int, seconds: list[float]) -> bool:
    """One client's file, from upload to report; whether it ended as it should."""
    bad = number % BAD == 0
    file = b"this is no video\n" * 1000 if bad else SAMPLE.read_bytes()
    while True:
        answer = http.post("/v1/score", files={"file": (f"{number}.mp4", file, "video/mp4")})
        if answer.status_code != 503:  # the queue is full: as told, later
            break
        time.sleep(float(answer.headers["retry-after"]))
    url, status = f"/v1/jobs/{answer.raise_for_status().json()['id']}", "queued"
    while status in ("queued", "running"):
        time.sleep(0.1)
        began = time.perf_counter()
        status = http.get(url).raise_for_status().json()["status"]
        seconds.append(time.perf_counter() - began)
    if bad:
        return bool(status == "failed")
    return status == "done" and all(http.get(f"{url}/{what}").status_code == 200 for what in ("result", "report"))


def loaded(url: str, pid: int, jobs: int, clients: int) -> dict[str, float]:
    seconds: list[float] = []
    rss, began, wrong = [memory_mib(pid)], time.perf_counter(), 0
    with httpx.Client(base_url=url, timeout=60) as http, ThreadPoolExecutor(clients) as pool:
        for number, good in enumerate(pool.map(lambda n: job(http, n, seconds), range(1, jobs + 1)), 1):
            wrong += not good
            if number in (jobs // 2, jobs):
                rss.append(memory_mib(pid))
    row = {"wrong": wrong, "wall_seconds": time.perf_counter() - began, "status_requests": len(seconds)}
    row |= zip(("status_p50_ms", "status_p95_ms"), np.percentile(seconds, [50, 95]) * 1000, strict=True)
    return row | dict(zip(("rss_start_mib", "rss_middle_mib", "rss_end_mib"), rss, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("jobs", 200), ("clients", 8), ("workers", 2), ("attackers", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    table = Table()
    with served(args.workers, args.attackers) as (url, process):
        row = loaded(url, process, args.jobs, args.clients)
    table.row(**vars(args), **row)
    sys.exit(1 if row["wrong"] or row["rss_end_mib"] - row["rss_middle_mib"] > GROWTH_MIB else 0)


if __name__ == "__main__":
    main()
