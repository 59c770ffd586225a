"""The pages: the one that takes videos, and the login. Neither needs another host."""

import asyncio
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from avdetect.report.words import tone_css
from avdetect.serve.models import Refusal
from avdetect.serve.security import COOKIE, is_token

_STATIC = Path(__file__).parent / "static"
_FILES = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MOST_LOGIN_BYTES = 4096
_LOGIN_SECONDS = 10.0
_COOKIE_SECONDS = 30 * 24 * 3600
_LOGOUT = '<form method="post" action="/logout"><button class="quiet">Log out</button></form>'

pages = APIRouter(include_in_schema=False)


@pages.get("/")
def index(request: Request) -> HTMLResponse:
    return _filled("index.html", "<!-- logout -->", _LOGOUT if _token(request) else "")


@pages.get("/static/{name}")
def static(name: str) -> Response:
    if name == "tones.css":
        return Response(tone_css(), media_type="text/css")
    if name not in _FILES:
        raise Refusal("NotFound", "there is no such file")
    return FileResponse(_STATIC / name, media_type=_FILES[name])


@pages.get("/login")
def login_page(request: Request) -> Response:
    return _login() if _token(request) else RedirectResponse("/", 303)


@pages.post("/login")
async def login(request: Request) -> Response:
    answer, token = RedirectResponse("/", 303), _token(request)
    if not token:
        return answer
    body = b""
    try:
        async with asyncio.timeout(_LOGIN_SECONDS):  # nobody has been let in yet
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_LOGIN_BYTES:
                    raise Refusal("TooLarge", "that is no token")
    except TimeoutError:
        raise Refusal("UploadTimeout", "the form took too long") from None
    given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
    if not is_token(given, token):
        await request.app.state.guesses.wait(request.scope["client"][0], request.receive)
        return _login('<p class="problem" role="alert">That is not this server\'s token.</p>', 401)
    cookie, secure = request.app.state.sessions.begin(), request.url.scheme == "https"
    answer.set_cookie(COOKIE, cookie, _COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
    return answer


@pages.post("/logout")
def logout(request: Request) -> Response:
    request.app.state.sessions.end(request.headers)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _token(request: Request) -> str | None:
    token: str | None = request.app.state.service.settings.token
    return token


def _login(problem: str = "", status: int = 200) -> HTMLResponse:
    return _filled("login.html", "<!-- problem -->", problem, status)


def _filled(name: str, place: str, text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse((_STATIC / name).read_text(encoding="utf-8").replace(place, text), status)
