"""Who may ask: the host that a request is addressed to, the token, and where a change comes from; and how long a
connection may take.

A browser page of another site can send requests to this machine, and with DNS rebinding read the answers. So a request
must be addressed to a name of ours; one that changes something must come from our own page or from no page at all.
No header of CORS is ever sent.
"""

import asyncio
import hmac
import logging
import math
import os
import re
import secrets
import time
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from avdetect.serve.models import Refusal
from avdetect.serve.settings import address, is_loopback

COOKIE = "avdetect"
OPEN_PATHS = frozenset({"/healthz", "/login", "/static/app.css"})  # nothing private is there
GUESS_SECONDS = 1.0  # from the answer to one wrong token to that to the next
HEAD_SECONDS = 10.0  # for a request's line and headers, and for the rest of a body that was answered already
READ_SECONDS = 30.0  # for a peer to take what has been written to it, 64 KiB at most
MOST_OF_A_PEER = 64  # connections; loopback may have all, since a proxy stands there (which has limits of its own)
_MOST_AHEAD = 16 * 1024  # bytes of later requests
_MOST_SESSIONS = 1000
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")  # a name or address, and a port
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger("avdetect.serve")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The report holds pictures and scripts of its own; what it may run is said by the hashes of its own policy. Here: no
# origin (it cannot call this server), nothing from elsewhere.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",  # with no-referrer, browsers say of our own forms that their origin is null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Sessions:
    """Browsers that are logged in, until they log out or the server ends. Their cookies do not hold the token."""

    def __init__(self) -> None:
        self._open: dict[str, None] = {}  # the cookies, oldest first

    def begin(self) -> str:
        """The cookie of a new one; the oldest ends where there are too many."""
        if len(self._open) >= _MOST_SESSIONS:
            del self._open[next(iter(self._open))]
        self._open[cookie := secrets.token_urlsafe()] = None
        return cookie

    def holds(self, headers: Headers) -> bool:
        """Whether a request comes from one."""
        return _cookie(headers) in self._open

    def end(self, headers: Headers) -> None:
        """Log out the browser that a request comes from."""
        self._open.pop(_cookie(headers), None)


def _cookie(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")  # other servers of this host set odd ones


class Guard:
    """ASGI middleware that refuses what may not be asked, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state, self._settings = app, state, state.service.settings
        # uvicorn's, which finds the client in the headers of a trusted proxy: asked for that alone.
        trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        self._proxy: Any = ProxyHeadersMiddleware(lambda *_: asyncio.sleep(0), trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._find_client(scope)
        app, asked = self._app, Headers(scope=scope)
        try:
            self._check(scope, asked)
        except Refusal as refusal:
            self._state.service.metrics.rejected(refusal.name)
            app = refusal.answer()
            if refusal.name == "Unauthorized" and "authorization" in asked:
                await self._state.guesses.wait(scope["client"][0], receive)
            elif refusal.name == "Unauthorized" and scope["method"] == "GET" and "text/html" in asked.get("accept", ""):
                app = RedirectResponse("/login", 303)
        await app(scope, receive, send_with_headers)

    async def _find_client(self, scope: Scope) -> None:
        """A proxy on this machine says who its client is. Others there can say so too: only an address is believed."""
        own = address((scope["client"] or ("",))[0]) or ""
        scope["client"] = str(own), 0
        await self._proxy(scope, None, None)
        scope["client"] = str(address(scope["client"][0]) or own), 0

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if named is None or int(named[2] or 80) > 65535 or not self._settings.allows_host(named[1]):
            raise Refusal("WrongHost", "this server does not go by that name; its owner can add it with --allowed-host")
        token = self._settings.token
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = token is not None and scheme.lower() == "bearer" and is_token(given.strip(), token)
        if (
            token is not None
            and scope["path"] not in OPEN_PATHS
            and not bearer
            and not self._state.sessions.holds(headers)
        ):
            message = "send the server's token: `Authorization: Bearer TOKEN`, or log in with a browser"
            raise Refusal("Unauthorized", message, {"www-authenticate": 'Bearer realm="avdetect"'})
        if scope["method"] not in _SAFE_METHODS and not bearer:
            _check_origin(headers, hosts[0].lower())


def _check_origin(headers: Headers, host: str) -> None:
    """A change must come from our own page, or from a program, which says nothing of a page. Raises Refusal."""
    site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
    if site != "same-origin" or (origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}")):
        raise Refusal("Forbidden", "this request comes from another site's page")


def is_token(given: str, token: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode(), token.encode())


class Guesses:
    """Tokens that are not ours. Each waits for its answer, one behind the other: nobody tries many, from anywhere."""

    def __init__(self) -> None:
        self._turn, self._unsaid, self._said = asyncio.Lock(), 0, -math.inf

    async def wait(self, client: str, receive: Receive) -> None:
        """For one that came from `client`. It gives up its place where the request says that nobody waits any more."""
        self._unsaid += 1
        if time.monotonic() - self._said >= GUESS_SECONDS:  # anybody can cause it, and it must not fill a disk
            _log.warning("wrong tokens: %d, the latest from %s", self._unsaid, client)
            self._unsaid, self._said = 0, time.monotonic()
        ways = [asyncio.ensure_future(way) for way in (self._in_turn(), _gone(receive))]
        with suppress(asyncio.CancelledError):  # the server ends
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()

    async def _in_turn(self) -> None:
        async with self._turn:
            await asyncio.sleep(GUESS_SECONDS)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(GUESS_SECONDS / 10)  # what it sends on is thrown away


class Impatient(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever for a request and for its answer to be read, and buffers
    whatever is sent before an answer is complete: a few hundred would keep others out, or fill the memory."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # `pause_writing` tells of every byte that is not taken
        peer = self.client[0] if self.client else ""
        theirs = sum((getattr(other, "client", None) or ("",))[0] == peer for other in self.connections)
        if theirs > MOST_OF_A_PEER and not is_loopback(peer):
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._answers() and not self.cycle.more_body:
            self.cycle.keep_alive = False  # it sends the next request already: dropped, and the connection ends
            return
        super().data_received(data)
        if self._answers() and not self.cycle.more_body and (ahead := self.conn.trailing_data[0]):
            self.cycle.keep_alive = False
            if len(ahead) > _MOST_AHEAD:
                self.transport.abort()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._deadline)
        _cancel(self._unread)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the clock where a request is awaited; it runs on until there is one, whatever trickles in."""
        if self._answers():
            _cancel(self._deadline)
            self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._deadline = None
        if not self._answers():
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
