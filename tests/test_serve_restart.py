"""`avdetect serve` as a command: what a kill, a signal and a second start do; wrong usage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_commands import family

from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
from serve_running import ROOT, Command, eventually


def avdetect(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avdetect.cli", "serve", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if name != "AVDETECT_TOKEN"}
    variables |= {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)


def gone(pids: list[int]) -> bool:
    def ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return all(map(ended, pids))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_ends_in_good_order_and_goes_on_where_it_was(tmp_path: Path, number: int, code: int) -> None:
    with Command(tmp_path / "data") as server:
        done, running = server.submit("0.9"), server.submit("hang")
        waiting = server.submit("0.5")
        server.wait(running, "stage", "scoring")
        workers = [pid for pid in family(server.process.pid) if pid != server.process.pid]
        assert server.end(number) == (code, "")
        eventually(lambda: gone(workers), 5)
    with Command(tmp_path / "data") as server:
        assert server.wait(done, "status", "done")["verdict"]["fake"] == 0.9
        server.wait(running, "stage", "scoring")  # it was put back, and is no worse for it
        assert server.http.get(f"/v1/jobs/{waiting}").json()["queue_position"] == 1
        server.http.post(f"/v1/jobs/{running}/cancel")
        assert server.wait(waiting, "status", "done")["verdict"]["fake"] == 0.5


STARTS = """
import sys, time
from pathlib import Path
from avdetect import cli
from avdetect.serve import command, service
from avdetect.serve.settings import ServeSettings

def recover(*_):
    print("starting", flush=True)
    time.sleep(20)

service.Service._recover = recover
cli.app = lambda **_: command.serve(ServeSettings(data=Path(sys.argv[1]), port=0), print, lambda *_: None)
sys.exit(cli.run())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_ends_while_it_still_starts(tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, str(tmp_path / "data")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as server:
        assert server.stdout.readline() == "starting\n"
        server.send_signal(number)
        try:
            assert server.communicate(timeout=10) == ("", None)
        finally:
            server.kill()
    assert server.returncode == code


def test_a_job_cut_off_twice_has_failed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Command(data) as server:
        id = server.submit("hang")
        server.wait(id, "stage", "scoring")
        workers = [pid for pid in family(server.process.pid) if pid != server.process.pid]
        server.process.kill()
        server.process.wait()
        # They die with the server, except what a scorer started: that ends by its own broken pipe or limits.
        eventually(lambda: gone(workers[:2]), 5)
    half = data / "incoming" / ("A" * 22)
    half.mkdir()
    (half / "upload").write_text("half")
    with Command(data) as server:
        assert os.listdir(data / "incoming") == []
        server.wait(id, "stage", "scoring")  # once more
        server.process.kill()
        server.process.wait()
    with Command(data) as server:
        job = server.wait(id, "status", "failed")
        assert job["error"] == {
            "error": "WorkerError",
            "message": "the server was ended twice while it scored this file",
        }
        assert os.listdir(data / "jobs") == []


def test_listeners_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with Command(tmp_path / "data") as server:
        id = server.submit("hang")
        with server.http.stream("GET", f"/v1/jobs/{id}/events") as events:
            next(events.iter_lines())
            began = time.monotonic()
            assert server.end(signal.SIGINT) == (130, "")
            assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot listen"),
        (["--bundle", "/nowhere"], "/nowhere"),
        (["--device", "abacus"], "abacus"),
        (["--limits", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--token-file", "/nowhere.txt"], "--token-file"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    token = {} if "0.0.0.0" in arguments else {"AVDETECT_TOKEN": "correct-horse-battery"}
    done = avdetect("--data", tmp_path / "data", *arguments, **token)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_scoring_alone_loads_nothing_of_the_server() -> None:
    code = "import sys, avdetect.cli\nprint(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    roots = {name.split(".")[0] for name in out.split()}
    assert not roots & {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"}
    assert "avdetect.serve" not in out.split()
