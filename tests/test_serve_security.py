"""Who may ask `avdetect serve`: hosts, token, origins, headers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import httpx
import pytest
import serve_scorers
from serve_running import Running, connected, running

from avdetect.errors import ConfigError
from avdetect.serve import security
from avdetect.serve.settings import ServeSettings, default_data, read_token

TOKEN = "correct-horse-battery-staple"
BEARER = {"authorization": f"Bearer {TOKEN}"}
UPLOAD = {"files": {"file": ("a.mp4", "0.5", "video/mp4")}}
PRIVATE = ("/v1/jobs", "/v1/server", "/metrics", "/openapi.json", "/static/app.js", "/nothing")
OTHER_PAGES = (
    *({"origin": origin} for origin in ("http://evil.example", "null", "http://localhost:1")),
    *({"sec-fetch-site": site} for site in ("cross-site", "same-site", "none")),
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded") / "data", serve_scorers.by_text, token=TOKEN) as made:
        yield made


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/static/app.js", "/nothing"])
def test_every_answer_has_its_headers_and_none_of_cors(server: Running, path: str) -> None:
    answer = server.http.get(path, headers={"origin": "http://evil.example"})
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    for headers in (answer.headers, server.http.options(path, headers=asked).headers):
        assert not [name for name in headers if name == "server" or name.startswith("access-control")]


def test_other_names_are_not_ours(server: Running) -> None:
    for host in (
        *("evil.example", "evil.example:80", "192.0.2.1", "localhost.evil.example", ""),
        *("localhost:", "localhost:evil.example", "localhost:65536", "localhost:8@evil.example", "localhost:8:9"),
        *("[::1]evil.example", "[::1", "::1"),
    ):
        answer = server.http.get("/v1/jobs", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]) == (421, "WrongHost"), host
    for ours in ("localhost:9", "127.0.0.1:1", "[::1]:8765", "LocalHost"):
        assert server.http.get("/v1/jobs", headers={"host": ours}).status_code == 200


def test_other_pages_cannot_change_anything(server: Running) -> None:
    for headers in OTHER_PAGES:
        for method, path in (("POST", "/v1/score"), ("POST", "/v1/jobs/x/cancel"), ("DELETE", "/v1/jobs/x")):
            answer = server.http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden"), headers
    for ours in ({"origin": server.url, "sec-fetch-site": "same-origin"}, {}):
        assert server.http.post("/v1/score", **UPLOAD, headers=ours).status_code == 202


def test_without_the_token_nothing_is_told(guarded: Running, monkeypatch) -> None:
    monkeypatch.setattr(security, "GUESS_SECONDS", 0)
    wrong = [{"authorization": given} for given in ("Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer")]
    wrong += [{}, {"cookie": f"avdetect={TOKEN}"}, {"cookie": "avdetect="}]
    jobs = (("POST", "/v1/score"), ("GET", "/v1/jobs/x"), ("DELETE", "/v1/jobs/x"))
    for headers, (method, path) in product(wrong, (*(("GET", path) for path in PRIVATE), *jobs)):
        answer = guarded.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized"), (headers, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.http.get("/healthz").json() == {"status": "ok"}


def test_a_program_bears_the_token(guarded: Running) -> None:
    # A page of another site does not know it, so who bears it is none.
    for headers in (BEARER, BEARER | {"origin": "http://x.example"}):
        assert guarded.http.post("/v1/score", **UPLOAD, headers=headers).status_code == 202
    document = guarded.http.get("/openapi.json", headers=BEARER).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    asking = {path: methods[min(methods)].get("security") for path, methods in document["paths"].items()}
    assert asking.pop("/healthz") is None
    assert all(asks == [{"token": []}] for asks in asking.values())


def test_a_browser_logs_in_and_out(guarded: Running) -> None:
    page = guarded.http.get("/", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert "password" in guarded.http.get("/login").text
    ours = {"origin": guarded.url, "sec-fetch-site": "same-origin"}
    right = guarded.http.post("/login", data={"token": f" {TOKEN} "}, headers=ours)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert guarded.http.get("/").status_code == 200  # httpx keeps the cookie
    foreign = guarded.http.post("/v1/score", **UPLOAD, headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert guarded.http.post("/v1/score", **UPLOAD, headers=ours).status_code == 202
    kept = {"cookie": f"avdetect={guarded.http.cookies['avdetect']}"}
    assert guarded.http.get("/v1/jobs", headers=kept).status_code == 200
    guarded.http.post("/logout", headers=ours)
    assert guarded.http.get("/v1/jobs").status_code == 401
    assert guarded.http.get("/v1/jobs", headers=kept).status_code == 401  # whoever has copied the cookie


def guess(server: Running, **headers: str) -> httpx.Response:
    return httpx.get(f"{server.url}/v1/jobs", headers={"authorization": "Bearer wrong"} | headers, timeout=30)


def test_wrong_tokens_wait_one_behind_the_other(tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(security, "GUESS_SECONDS", 0.4)
    with running(tmp_path, serve_scorers.by_text, token=TOKEN) as server, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        guesses = [pool.submit(guess, server) for _ in range(2)]
        guesses.append(pool.submit(httpx.post, f"{server.url}/login", data={"token": "wrong"}))
        for headers in (BEARER, {}):  # {}: who has none yet
            server.http.get("/v1/jobs", headers=headers)
        assert time.monotonic() - began < 0.4
        assert [each.result().status_code for each in guesses] == [401] * 3
        assert time.monotonic() - began >= 3 * 0.4
        assert caplog.messages == ["wrong tokens: 1, the latest from 127.0.0.1"]
        guess(server)
        assert caplog.messages[1:] == ["wrong tokens: 3, the latest from 127.0.0.1"]
        assert server.http.post("/login", content=b"x" * 100_000).status_code == 413
        for _ in range(20):  # who has gone holds no place
            with connected(server) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n")
        began = time.monotonic()
        assert guess(server).status_code == 401
        assert time.monotonic() - began < 4


STATED = {
    "192.0.2.7": "192.0.2.7",
    "spoofed, ::ffff:192.0.2.7": "192.0.2.7",
    "fe80::1%\x1b[2J" + "x" * 999: "fe80::1",
    "\x1b[2J" + "x" * 60_000: "127.0.0.1",
    "192.0.2.7, nobody": "127.0.0.1",
}


def test_only_an_address_is_a_client(guarded: Running, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(security, "GUESS_SECONDS", 0)
    head = "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nX-Forwarded-For: "
    for stated in STATED:
        with connected(guarded) as connection:
            connection.sendall(f"{head}{stated}\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 401"
    assert [said.partition("latest from ")[2] for said in caplog.messages] == list(STATED.values())


def test_a_login_that_is_broken_off_is_no_bug(guarded: Running, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        with connected(guarded) as connection:
            connection.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            time.sleep(0.05)
    assert guarded.http.get("/healthz").status_code == 200
    assert caplog.messages == []


def test_cookies_of_other_servers_on_this_host_log_nobody_out(guarded: Running) -> None:
    with httpx.Client(base_url=guarded.url) as http:
        http.post("/login", data={"token": TOKEN})
        ours = f"avdetect={http.cookies['avdetect']}"
    for other in ('a={"x": 1}', "a=b c", "a", "="):
        for cookie in (f"{other}; {ours}", f"{ours}; {other}"):
            assert guarded.http.get("/v1/jobs", headers={"cookie": cookie}).status_code == 200
        assert guarded.http.get("/v1/jobs", headers={"cookie": f"{other}; avdetect=ü".encode()}).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_open_port_needs_a_token(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="token_urlsafe"):
        ServeSettings(data=tmp_path, host=host)
    settings = ServeSettings(data=tmp_path, host=host, token=TOKEN, allowed_hosts=("Videos.example",))
    for name in ("videos.example", "localhost", "192.0.2.7", "[2001:db8::1]"):  # addresses are nobody's DNS
        assert settings.allows_host(name)
    assert not settings.allows_host("evil.example")
    assert TOKEN not in repr(settings)
    for ours in ("127.0.0.53", "::1", "localhost"):
        ServeSettings(data=tmp_path, host=ours)
    numbers = ({"workers": 0}, {"port": 70000}, {"keep_seconds": math.inf}, {"stall_seconds": math.nan})
    for wrong in ({"token": "short"}, {"token": "ü" * 20}, *numbers):
        with pytest.raises(ConfigError):
            ServeSettings(data=tmp_path, **wrong)


def test_where_token_and_data_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVDETECT_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("AVDETECT_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    (tmp_path / "token").write_text("from the file it came\n")
    assert read_token(tmp_path / "token") == "from the file it came"
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "absent"):
        with pytest.raises(ConfigError, match="--token-file"):
            read_token(tmp_path / name)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_data() == Path("/state/avdetect/serve")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # which the standard has ignored
    assert default_data() == Path.home() / ".local/state/avdetect/serve"
