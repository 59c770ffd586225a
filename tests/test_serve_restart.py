"""`avdetect serve` as a command: what a kill, a signal and a second start do; wrong usage."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import serve_scorers
from batch_commands import all_gone, family
from serve_running import Command, running

from avdetect import cli
from avdetect.serve.store import JobStore


def workers_of(server: Command) -> list[int]:
    return [pid for pid in family(server.process.pid) if pid != server.process.pid]


def test_it_ends_in_good_order_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with Command(tmp_path / "data") as server:
        done, running_one = server.submit("0.9"), server.submit("hang")
        waiting = server.submit("0.5")
        server.scoring(running_one)
        workers = workers_of(server)
        with server.http.stream("GET", f"/v1/jobs/{running_one}/events") as events:
            next(events.iter_lines())
            began = time.monotonic()
            assert server.end(signal.SIGINT) == (130, "")
            assert time.monotonic() - began < 10  # who listens does not hold it up
        assert all_gone(workers)
    with Command(tmp_path / "data") as server:
        assert server.ended(done)["verdict"]["fake"] == 0.9
        server.scoring(running_one)  # it was put back, and is no worse for it
        assert server.job(waiting)["queue_position"] == 1
        assert server.end(signal.SIGTERM) == (0, "")
    with JobStore(tmp_path / "data" / "jobs.sqlite") as store:
        assert [(job.status, job.cut_off) for job in map(store.get, (running_one, waiting))] == [("queued", 0)] * 2


def test_it_ends_while_it_still_starts(tmp_path: Path) -> None:
    slow = "from avdetect.serve.service import Service; import time\n"
    slow += "Service._recover = lambda self: (print('starting', flush=True), time.sleep(20))"
    server = Command(tmp_path / "data", slow)
    try:
        assert server.first_line == "starting\n"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.communicate(timeout=10) == ("", "")
        assert server.process.returncode == 0
    finally:
        server.process.kill()


def test_a_job_cut_off_twice_has_failed(tmp_path: Path) -> None:
    data, half = tmp_path / "data", tmp_path / "data" / "incoming" / ("A" * 22)
    id = ""
    for _ in range(2):
        with Command(data) as server:
            id = id or server.submit("hang")
            server.scoring(id)
            workers = workers_of(server)
            server.process.kill()
            server.process.wait()
            # They die with the server, except what a scorer started: that ends by its own broken pipe or limits.
            assert all_gone(workers[:2])
        half.mkdir(exist_ok=True)
        (half / "upload").write_text("half")
    with running(data, serve_scorers.by_text) as server:
        assert os.listdir(data / "incoming") == []
        message = "the server was ended twice while it scored this file"
        assert server.job(id)["error"] == {"error": "WorkerError", "message": message}
        assert os.listdir(data / "jobs") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot listen"),
        (["--bundle", "/nowhere"], "/nowhere"),
        (["--limits", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--token-file", "/nowhere.txt"], "--token-file"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], said: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("avdetect.serve.command.try_task", lambda task: task())  # in this process
    monkeypatch.delenv("AVDETECT_TOKEN", raising=False)
    if "0.0.0.0" not in arguments:
        monkeypatch.setenv("AVDETECT_TOKEN", "correct-horse-battery")
    assert cli.run(["serve", "--data", str(tmp_path / "data"), *arguments]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert said in err
