"""The pages: the one that takes videos, the login, and the interface's documentation. None needs another host."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from avdetect.serve.refusals import NotFound, TooLarge, UploadTimeout
from avdetect.serve.security import COOKIE, is_token, session
from avdetect.serve.settings import ServeSettings

_STATIC = Path(__file__).parent / "static"
_FILES = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MOST_LOGIN_BYTES = 4096
_LOGIN_SECONDS = 10.0
_COOKIE_SECONDS = 30 * 24 * 3600


def routes(app: FastAPI, settings: ServeSettings) -> APIRouter:
    """The pages of a server."""
    api = APIRouter(include_in_schema=False)

    @api.get("/")
    def index() -> HTMLResponse:
        page = (_STATIC / "index.html").read_text(encoding="utf-8")
        logout = '<form method="post" action="/logout"><button class="quiet">Log out</button></form>'
        return HTMLResponse(page.replace("<!-- logout -->", logout if settings.token else ""))

    @api.get("/static/{name}")
    def static(name: str) -> FileResponse:
        if name not in _FILES:
            raise NotFound("there is no such file")
        return FileResponse(_STATIC / name, media_type=_FILES[name])

    @api.get("/login")
    def login_page() -> Response:
        return _login() if settings.token else RedirectResponse("/", 303)

    @api.post("/login")
    async def login(request: Request) -> Response:
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
        if settings.token and not is_token(given, settings.token):
            return _login("That is not this server's token.", 401)
        answer = RedirectResponse("/", 303)
        if settings.token:
            answer.set_cookie(
                COOKIE,
                session(settings.token),
                max_age=_COOKIE_SECONDS,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
        return answer

    @api.post("/logout")
    def logout() -> Response:
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
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>avdetect: REST interface</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="/static/icon.svg"><link rel="stylesheet" href="/static/app.css"></head>',
        '<body><header class="bar"><a href="/" class="brand">avdetect</a></header>',
        '<main class="docs"><h1>REST interface</h1>',
        f"<p>{escape(openapi['info']['description'])} For programs: <a href='/openapi.json'>openapi.json</a>.</p>",
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(method, path, operation))
    parts.append("<h2>Answers</h2>")
    parts += [_schema(name, schema) for name, schema in openapi.get("components", {}).get("schemas", {}).items()]
    return "".join(parts) + "</main></body></html>"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (p["name"], f"{p['in']}, {_kind(p['schema'])}", p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        fields, required = content["schema"].get("properties", {}), content["schema"].get("required", [])
        rows += [
            (name, f"form, {_kind(schema)}{'' if name in required else ', optional'}", schema.get("description", ""))
            for name, schema in fields.items()
        ]
    answers = [
        (status, answer["description"], ", ".join(_answer(c, kind) for kind, c in answer.get("content", {}).items()))
        for status, answer in sorted(operation["responses"].items())
    ]
    said = escape(operation.get("description", operation.get("summary", "")))
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{said}</p>{_table(rows)}{_table(answers)}"
        "</section>"
    )


def _answer(content: dict[str, Any], kind: str) -> str:
    reference = content.get("schema", {}).get("$ref", "")
    return reference.rpartition("/")[2] or kind


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = [(key, _kind(value), value.get("description", "")) for key, value in schema.get("properties", {}).items()]
    said = escape(schema.get("description", ""))
    return f"<section><h3><code>{escape(name)}</code></h3><p>{said}</p>{_table(rows)}</section>"


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


def _table(rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = (f"<tr><th><code>{escape(a)}</code></th><td>{escape(b)}</td><td>{escape(c)}</td></tr>" for a, b, c in rows)
    return f"<table>{''.join(lines)}</table>"
