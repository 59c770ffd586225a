"""What clients of `avdetect serve` cannot hold: connections, memory, places in the queue, the disk."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import serve_running
import serve_scorers
import uvicorn
from serve_running import BODY, FORM, Running, connected, eventually, running

from avdetect.config import MediaLimits
from avdetect.serve import command, pages, security, service, uploads
from avdetect.serve.settings import ServeSettings

ASKED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOKEN = "correct-horse-battery-staple"


def answers(connection: socket.socket) -> bytes:
    """All that is sent until the server ends the connection, however it does."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_a_connection_may_ask_again_and_who_does_not_wait_for_the_answer_gets_one_at_most(server: Running) -> None:
    with connected(server) as connection:
        for _ in range(3):
            connection.sendall(ASKED)
            said = b""
            while b'"ok"}' not in said:
                said += connection.recv(65536)
    for requests in (2, 1000):
        with connected(server) as connection:
            connection.sendall(ASKED * requests)
            got = answers(connection).count(b"HTTP/1.1 200")
        assert got == 1 or (got == 0 and requests == 1000)


def test_who_sends_on_while_it_is_answered_fills_no_memory(server: Running, monkeypatch) -> None:
    id = server.submit("slow")
    server.scoring(id)
    taken: list[int] = []
    receive = security.H11Protocol.data_received
    monkeypatch.setattr(
        security.H11Protocol, "data_received", lambda self, data: (taken.append(len(data)), receive(self, data))[1]
    )
    with connected(server) as connection:
        connection.sendall(f"GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        for _ in range(20):
            connection.sendall(ASKED * 1000)
        server.http.delete(f"/v1/jobs/{id}")
        assert answers(connection).count(b"HTTP/1.1") == 0
    assert sum(taken) < 10_000


def test_who_does_not_read_is_not_waited_for(server: Running, monkeypatch) -> None:
    monkeypatch.setattr(security, "READ_SECONDS", 0.2)
    id = server.submit()
    server.ended(id)
    large = server.service.settings.data / "large"
    large.write_bytes(b"x" * 30_000_000)
    monkeypatch.setattr(service.Service, "file", lambda *_: large)
    with connected(server) as connection:
        connection.sendall(f"GET /v1/jobs/{id}/report HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: open_connections(server) <= 1, 10)  # the other client's
        assert len(answers(connection)) < 30_000_000


def open_connections(server: Running) -> int:
    """Of the server's process, which is ours."""
    port = httpx.URL(server.url).port
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


@pytest.mark.parametrize("loopback", [True, False])
def test_another_machine_has_no_more_connections_than_it_may(server: Running, monkeypatch, loopback: bool) -> None:
    monkeypatch.setattr(security, "MOST_OF_A_PEER", 3)
    monkeypatch.setattr(security, "is_loopback", lambda peer: loopback)
    server.http.get("/healthz")
    with connected(server) as held, connected(server), connected(server) as third:
        third.sendall(ASKED)
        assert third.recv(12) == b"HTTP/1.1 200" if loopback else answers(third) == b""
        held.sendall(ASKED)
        assert held.recv(12) == b"HTTP/1.1 200"


def trickle(connection: socket.socket) -> None:
    for letter in "GET /healthz HTTP/1.1\r\nX: " + "x" * 300:
        connection.sendall(letter.encode())
        time.sleep(0.05)


def hasty(service_of_it: service.Service) -> uvicorn.Server:
    server = command.http_server(service_of_it)
    server.config.timeout_keep_alive = 1
    return server


def test_who_does_not_go_on_or_only_trickles_is_not_waited_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(security, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(pages, "_LOGIN_SECONDS", 0.3)
    monkeypatch.setattr(serve_running, "http_server", hasty)
    body = " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
    with running(tmp_path / "data", serve_scorers.by_text, token=TOKEN) as guarded, ExitStack() as held:
        expected = {
            "": b"",
            "GET /healthz HTTP/1.1\r\nHost: loc": b"",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT": b"HTTP/1.1 200",
            f"POST /logout{body}": b"HTTP/1.1 401",
            f"POST /login{body}": b"HTTP/1.1 408",
        }
        connections = {asked: held.enter_context(connected(guarded)) for asked in expected}
        for asked, connection in connections.items():
            connection.sendall(asked.encode())
        assert {asked: answers(connection)[:12] for asked, connection in connections.items()} == expected
        with pytest.raises(ConnectionError):
            trickle(held.enter_context(connected(guarded)))


def test_headers_alone_hold_no_place(tmp_path: Path) -> None:
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\nContent-Type: multipart/form-data; "
    with running(tmp_path / "data", serve_scorers.by_text, queue=1) as server, connected(server) as connection:
        connection.sendall(head + b"boundary=b\r\n\r\n--b\r\n")
        eventually(lambda: os.listdir(tmp_path / "data" / "incoming"), 10)
        server.ended(server.submit("0.5"))


def test_an_upload_that_stands_still_or_comes_too_slowly_is_ended(tmp_path: Path, monkeypatch) -> None:
    def body(pause: float) -> Iterator[bytes]:
        yield BODY
        for _ in range(3):
            time.sleep(pause)
            yield b"x" * 1000

    with running(tmp_path / "data", serve_scorers.by_text, stall_seconds=0.2) as server:
        for pause in (0.6, 0):
            if not pause:
                times = iter(range(0, 10**6, 1000))  # long ones, a chunk
                monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda times=times: next(times)))
            answer = server.http.post("/v1/score", content=body(pause), headers=FORM)
            assert (answer.status_code, answer.json()["error"]) == (408, "UploadTimeout")
            assert os.listdir(tmp_path / "data" / "incoming") == []


def test_room_on_the_disk_is_looked_at_while_an_upload_comes(tmp_path: Path, monkeypatch) -> None:
    left = iter([2**40, *[0] * 1000])  # somebody else fills it
    monkeypatch.setattr(uploads.os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=next(left), f_frsize=1))
    with running(tmp_path / "data", serve_scorers.by_text, free_bytes=2**30) as server:
        answer = server.send(b"x" * 5_000_000)
        assert (answer.status_code, answer.json()["error"]) == (507, "Storage")
        assert next(left) == 0
        assert os.listdir(tmp_path / "data" / "incoming") == []


def test_one_client_has_no_more_than_its_share_of_the_queue(tmp_path: Path, monkeypatch) -> None:
    share_of = ServeSettings(data=tmp_path, queue=10).share_of
    # IPv4 that IPv6 carries is IPv4: as clients come to `--host ::`.
    assert [share_of(client) for client in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == [math.inf] * 3
    assert [share_of(client) for client in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1")] == [5, 5, 5]
    monkeypatch.setattr(ServeSettings, "share_of", lambda self, client: 2)
    with running(tmp_path / "data", serve_scorers.by_text, queue=100) as server:
        running_one = server.submit("slow")
        server.scoring(running_one)
        waiting = [server.submit() for _ in range(2)]
        answer = server.send("0.5")
        assert (answer.status_code, answer.json()["error"]) == (503, "QueueFull")
        with server.service.upload("192.0.2.7") as folder:
            assert folder is not None
        server.http.delete(f"/v1/jobs/{waiting[0]}")
        assert server.send("0.5").status_code == 202
        server.http.delete(f"/v1/jobs/{running_one}")


def test_a_server_takes_less_of_a_file_than_the_command(tmp_path: Path) -> None:
    ours, theirs = ServeSettings(data=tmp_path).options.limits, MediaLimits()
    for name in ("max_duration_seconds", "max_wall_seconds", "max_file_seconds", "max_pixels"):
        assert getattr(ours, name) < getattr(theirs, name)


def test_an_answer_is_sent_as_it_comes(tmp_path: Path) -> None:
    """Without it, each waited 40 ms for an acknowledgement that the client delays."""
    listener = command.listen(ServeSettings(data=tmp_path, port=0))
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
