"""The pages: the one that takes videos, the login, and the interface's documentation. None needs another host."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from jinja2 import Environment

from avdetect.report.words import tone_css
from avdetect.serve.refusals import NotFound, TooLarge, UploadTimeout
from avdetect.serve.security import COOKIE, Sessions, is_token, wrong_guess
from avdetect.serve.settings import ServeSettings

_STATIC = Path(__file__).parent / "static"
_FILES = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MOST_LOGIN_BYTES = 4096
_LOGIN_SECONDS = 10.0
_COOKIE_SECONDS = 30 * 24 * 3600


def routes(app: FastAPI, settings: ServeSettings, sessions: Sessions) -> APIRouter:
    """The pages of a server."""
    api = APIRouter(include_in_schema=False)

    @api.get("/")
    def index() -> HTMLResponse:
        page = (_STATIC / "index.html").read_text(encoding="utf-8")
        logout = '<form method="post" action="/logout"><button class="quiet">Log out</button></form>'
        return HTMLResponse(page.replace("<!-- logout -->", logout if settings.token else ""))

    @api.get("/static/{name}")
    def static(name: str) -> Response:
        if name == "tones.css":
            return Response(tone_css(), media_type="text/css")
        if name not in _FILES:
            raise NotFound("there is no such file")
        return FileResponse(_STATIC / name, media_type=_FILES[name])

    @api.get("/login")
    def login_page() -> Response:
        return _login() if settings.token else RedirectResponse("/", 303)

    @api.post("/login")
    async def login(request: Request) -> Response:
        answer = RedirectResponse("/", 303)
        if not settings.token:
            return answer
        body = b""
        try:
            async with asyncio.timeout(_LOGIN_SECONDS):  # nobody has been let in yet
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > _MOST_LOGIN_BYTES:
                        raise TooLarge("that is no token")
        except TimeoutError:
            raise UploadTimeout("the form took too long") from None
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        if not is_token(given, settings.token):
            await wrong_guess(request.client.host if request.client else "")
            return _login("That is not this server's token.", 401)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, sessions.begin(), _COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
        return answer

    @api.post("/logout")
    def logout(request: Request) -> Response:
        sessions.end(request.headers)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    @api.get("/docs")
    def docs() -> HTMLResponse:
        return HTMLResponse(documentation(app.openapi()))

    return api


def _login(problem: str = "", status: int = 200) -> HTMLResponse:
    page = (_STATIC / "login.html").read_text(encoding="utf-8")
    said = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return HTMLResponse(page.replace("<!-- problem -->", said), status)


def documentation(openapi: dict[str, Any]) -> str:
    """An OpenAPI document as a plain page."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_STATIC / "docs.html.j2").read_text("utf-8")).render(openapi, kind=_kind)


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", "any"))
