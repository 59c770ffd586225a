"""Who may ask: the host that a request is addressed to, the token, and where a change comes from. ASGI middleware.

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
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avdetect.serve.refusals import Forbidden, Refusal, Unauthorized, WrongHost
from avdetect.serve.settings import ServeSettings

COOKIE = "avdetect"
OPEN_PATHS = frozenset({"/healthz", "/login", "/static/app.css"})  # nothing private is there
GUESS_SECONDS = 1.0  # that a wrong token waits for its answer
_MOST_SESSIONS = 1000
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")  # a name or address, and a port
_log = logging.getLogger("avdetect.serve")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

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


class Guard:
    """Refuses what may not be asked, and gives every answer its headers."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, sessions: Sessions, rejected: Callable[[str], None]
    ) -> None:
        self._app, self._settings, self._sessions, self._rejected = app, settings, sessions, rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            self._rejected(refusal.name)
            if isinstance(refusal, Unauthorized) and "authorization" in Headers(scope=scope):
                await wrong_guess((scope["client"] or [""])[0])
            await _answer(refusal, scope)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if named is None or int(named[2] or 80) > 65535 or not self._settings.allows_host(named[1]):
            raise WrongHost("this server does not go by that name; its owner can add it with --allowed-host")
        bearer = bears_token(headers, self._settings.token)
        if scope["path"] not in OPEN_PATHS and not bearer and not self._sessions.holds(headers):
            raise Unauthorized("send the server's token: `Authorization: Bearer TOKEN`, or log in with a browser")
        if scope["method"] not in _SAFE_METHODS and not (bearer and self._settings.token):
            _check_origin(headers, hosts[0])


def bears_token(headers: Headers, token: str | None) -> bool:
    """Whether the request has the token in its header; true where none is asked for."""
    if token is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and is_token(given.strip(), token)


def is_token(given: str, token: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode(), token.encode())


async def wrong_guess(client: str) -> None:
    """Somebody has sent a token that is not ours: say so in the log, and let them wait."""
    _log.warning("a wrong token from %s", client)
    await asyncio.sleep(GUESS_SECONDS)


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


def _check_origin(headers: Headers, host: str) -> None:
    """A change must come from our own page, or from a program, which says nothing of a page. Raises Forbidden."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        raise Forbidden("this request comes from another site's page")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise Forbidden("this request comes from another site's page")


def _answer(refusal: Refusal, scope: Scope) -> Response:
    """JSON, or for a browser without a session the way to the login page."""
    asks = isinstance(refusal, Unauthorized)
    if asks and scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", ""):
        return RedirectResponse("/login", 303)
    headers = {"www-authenticate": 'Bearer realm="avdetect"'} if asks else None
    return JSONResponse({"error": refusal.name, "message": refusal.message}, refusal.status, headers)
