"""Who may ask: the host that a request is addressed to, the token, and where a change comes from; and how long a
connection may take.

A browser page of another site can send requests to this machine, and with DNS rebinding read the answers. So a request
must be addressed to a name of ours; one that changes something must come from our own page or from no page at all.
No header of CORS is ever sent.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from avdetect.serve.models import Refusal
from avdetect.serve.settings import ServeSettings, is_loopback

COOKIE = "avdetect"
OPEN_PATHS = frozenset({"/healthz", "/login", "/static/app.css"})  # nothing private is there
GUESS_SECONDS = 1.0  # that a wrong token waits for its answer
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

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, sessions: Sessions, rejected: Callable[[str], None]
    ) -> None:
        self._app, self._settings, self._sessions, self._rejected = app, settings, sessions, rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app, asked = self._app, Headers(scope=scope)
        try:
            self._check(scope, asked)
        except Refusal as refusal:
            self._rejected(refusal.name)
            app = refusal.answer()
            if refusal.name == "Unauthorized" and "authorization" in asked:
                await wrong_guess((scope["client"] or [""])[0])
            elif refusal.name == "Unauthorized" and scope["method"] == "GET" and "text/html" in asked.get("accept", ""):
                app = RedirectResponse("/login", 303)
        await app(scope, receive, send_with_headers)

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if named is None or int(named[2] or 80) > 65535 or not self._settings.allows_host(named[1]):
            raise Refusal("WrongHost", "this server does not go by that name; its owner can add it with --allowed-host")
        token = self._settings.token
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = token is not None and scheme.lower() == "bearer" and is_token(given.strip(), token)
        if token is not None and scope["path"] not in OPEN_PATHS and not bearer and not self._sessions.holds(headers):
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


async def wrong_guess(client: str) -> None:
    """Somebody has sent a token that is not ours: say so in the log, and let them wait."""
    _log.warning("a wrong token from %s", client)
    await asyncio.sleep(GUESS_SECONDS)


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
