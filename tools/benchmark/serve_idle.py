"""A server that many clients hold on to: each sends requests without an end and reads no answer.

    python tools/benchmark/serve_idle.py [--connections 500] [--reopen 20] [--seconds 20]

Starts `avdetect serve` on loopback with a folder of its own, and opens the connections: a third asks for what anybody
may see, a third for the page, a third for the list of jobs. Of those that the server ends, `--reopen` are opened anew
each second. Meanwhile another client asks for /healthz ten times a second. Prints the server's memory before and at
most, and how long those requests took. Exits with 1 where memory passed MOST_MIB or a request was not served.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress

import numpy as np
from measuring import Table, machine

from avdetect.extras import script_imports

with script_imports("serve_idle", "dev"):
    import httpx
    import psutil

MOST_MIB = 300
COLUMNS = ("connections", "opened_in_all", "rss_start_mib", "rss_most_mib", "served", "failed", "p50_ms", "p95_ms")
PATHS = ("/static/app.css", "/", "/v1/jobs")


def hold(port: int, count: int, reopen: float, until: float) -> int:
    """Keep so many connections, which only write, until then; how many there were in all."""
    ready, opened, began = selectors.DefaultSelector(), 0, time.monotonic()
    while (now := time.monotonic()) < until:
        while len(ready.get_map()) < count and opened < count + reopen * (now - began):
            held = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            held.connect(("127.0.0.1", port))
            held.setblocking(False)
            request = f"GET {PATHS[opened % len(PATHS)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            ready.register(held, selectors.EVENT_WRITE, request * 500)
            opened += 1
        for key, _ in ready.select(0.1):
            try:
                key.fileobj.send(key.data)  # type: ignore[union-attr]
            except BlockingIOError:
                continue
            except OSError:  # the server has ended it
                ready.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
        time.sleep(0.05)
    for key in list(ready.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return opened


def measured(url: str, pid: int, connections: int, reopen: float, seconds: float) -> dict:
    """The row of the table."""
    process, took, failed = psutil.Process(pid), [], 0
    memory = [process.memory_info().rss / 1024**2]
    until, opened = time.monotonic() + seconds, [0]
    holder = threading.Thread(
        target=lambda: opened.__setitem__(0, hold(httpx.URL(url).port or 0, connections, reopen, until))
    )
    holder.start()
    while time.monotonic() < until:
        began = time.perf_counter()
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/healthz", timeout=10, trust_env=False).status_code == 200:
                took.append(1000 * (time.perf_counter() - began))
                began = 0.0
        failed += began != 0.0
        memory.append(process.memory_info().rss / 1024**2)
        time.sleep(0.1)
    holder.join()
    p50, p95 = np.percentile(took, [50, 95]) if took else (np.nan, np.nan)
    return {
        **{"connections": connections, "opened_in_all": opened[0], "served": len(took), "failed": failed},
        **{"rss_start_mib": round(memory[0], 1), "rss_most_mib": round(max(memory), 1)},
        **{"p50_ms": round(p50, 1), "p95_ms": round(p95, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--reopen", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Table(COLUMNS, machine(), None) as table:
        command = [sys.executable, "-m", "avdetect.cli", "serve", "--port", "0", "--data", f"{folder}/data"]
        environment = {name: value for name, value in os.environ.items() if name != "AVDETECT_TOKEN"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            try:
                assert server.stdout is not None
                row = measured(
                    server.stdout.readline().split()[3], server.pid, args.connections, args.reopen, args.seconds
                )
            finally:
                server.terminate()
        table.row(**row)
    sys.exit(1 if row["rss_most_mib"] > MOST_MIB or row["failed"] else 0)


if __name__ == "__main__":
    main()
