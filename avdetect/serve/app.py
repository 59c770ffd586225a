"""The server's routes. What they do is `service`'s; who may ask is `security`'s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from avdetect._version import __version__
from avdetect.errors import ServerError
from avdetect.report.data import Failure, to_json
from avdetect.serve import pages
from avdetect.serve.models import Health, JobPage, JobView, Limits, Problem, has_ended, view
from avdetect.serve.refusals import BadRequest, Conflict, Invalid, NotFound, QueueFull, Refusal, Storage
from avdetect.serve.security import REPORT_POLICY, Guard, Sessions
from avdetect.serve.service import Service
from avdetect.serve.store import Job
from avdetect.serve.uploads import MIN_DURATION_SECONDS, linger, receive
from avdetect.serve.worker import REPORT, RESULT, UPLOAD

_log = logging.getLogger("avdetect.serve")
_EVENT_SECONDS = 0.25  # between looks at a job whose events somebody listens to
_BEAT_SECONDS = 15.0  # between signs of life when nothing changes
_RETRY_SECONDS = 10

_SECONDS = {"type": "number", "minimum": 0, "maximum": 999999}
_FIELDS = {
    "file": {"type": "string", "format": "binary", "minLength": 1, "description": "a video, or a sound"},
    "start_seconds": _SECONDS,
    "duration_seconds": _SECONDS | {"minimum": MIN_DURATION_SECONDS},
}
_SCHEMA = {"type": "object", "required": ["file"], "additionalProperties": False, "properties": _FIELDS}
_FORM = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}}


def build_app(service: Service, stopping: Callable[[], bool] = lambda: False) -> FastAPI:
    """The application on a service that runs. stopping: whether long answers must come to their end."""
    app = FastAPI(
        title="avdetect",
        version=__version__,
        description="Was a video manipulated, and was it the face, the voice, or the match between them?",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        responses=_problems(401, 403, 421, 507) if service.settings.token else _problems(403, 421, 507),
    )
    app.include_router(_jobs(service, stopping))
    app.include_router(_about(service))
    sessions = Sessions()
    app.include_router(pages.routes(app, service.settings, sessions))
    _explain_errors(app, service)
    if service.settings.token:
        _say_who_may_ask(app)
    app.add_middleware(Guard, settings=service.settings, sessions=sessions, rejected=service.metrics.rejected)
    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """With the schema by its name: as a `model` it would stand there as what the route answers with, HTML for one."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {status: {"description": _WORDS[status], "content": content} for status in statuses}


_WORDS = {refusal.status: (refusal.__doc__ or "").strip() for refusal in Refusal.__subclasses__()}


def _jobs(service: Service, stopping: Callable[[], bool]) -> APIRouter:
    """Uploads, and what becomes of them."""
    api = APIRouter(tags=["jobs"])
    _add_upload(api, service)
    _add_views(api, service, stopping)
    _add_outcomes(api, service)
    _add_endings(api, service)
    return api


def _known(service: Service, id: str) -> Job:
    job = service.store.get(id)
    if job is None:
        raise NotFound("there is no such job; it may have been deleted")
    return job


def _seen(service: Service, id: str) -> JobView:
    return view(_known(service, id), service.runner, service.store)


def _add_upload(api: APIRouter, service: Service) -> None:
    @api.post("/v1/score", status_code=202, openapi_extra=_FORM, responses=_problems(400, 408, 413, 415, 422, 503))
    async def score(request: Request) -> JobView:
        """Upload a video to be scored. Its address stays the same until the job is deleted."""
        client = request.client.host if request.client else ""
        try:
            with service.upload(client) as folder:
                if folder is None:
                    await linger(request.stream())
                    raise _full()
                form = await receive(request, folder / UPLOAD, service.settings)
                start = form.seconds("start_seconds", 0.0, 0.0) or 0.0
                duration = form.seconds("duration_seconds", MIN_DURATION_SECONDS, None)
                job = await run_in_threadpool(service.submit, folder, form.name, start, duration, client)
        except ClientDisconnect:
            raise BadRequest("the upload was broken off") from None
        except asyncio.CancelledError:  # the server ends; nothing of the upload is kept
            raise QueueFull("the server is ending", _RETRY_SECONDS) from None
        if job is None:
            raise _full()
        return await run_in_threadpool(view, job, service.runner, service.store)


def _add_views(api: APIRouter, service: Service, stopping: Callable[[], bool]) -> None:
    @api.get("/v1/jobs", responses=_problems(422))
    def jobs(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of the page before")] = None,
    ) -> JobPage:
        """The jobs of this server, newest first."""
        found = service.store.page(limit + 1, before)
        shown = [view(job, service.runner, service.store) for job in found[:limit]]
        return JobPage(jobs=shown, next=found[limit - 1].number if len(found) > limit else None)

    @api.get("/v1/jobs/{id}", responses=_problems(404))
    def job(id: str) -> JobView:
        """A job as it stands."""
        return _seen(service, id)

    @api.get(
        "/v1/jobs/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **_problems(404)},
    )
    async def events(id: str) -> StreamingResponse:
        """The job, whenever it changes, as server-sent events named `job`; the stream ends with the job."""
        first = await run_in_threadpool(_seen, service, id)
        return StreamingResponse(_events(first, lambda: _seen(service, id), stopping), media_type="text/event-stream")


def _add_outcomes(api: APIRouter, service: Service) -> None:
    @api.get(
        "/v1/jobs/{id}/result",
        response_class=Response,
        responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **_problems(404, 409)},
    )
    def result(id: str) -> Response:
        """The document that `avdetect score --json` prints, of schema avdetect.results/2."""
        job = _known(service, id)
        if job.status == "failed":
            failure = Failure(job.name, job.error or "", job.message or "")
            return Response(to_json([failure]), media_type="application/json")
        return FileResponse(service.file(job, RESULT), media_type="application/json")

    @api.get("/v1/jobs/{id}/report", response_class=HTMLResponse, responses=_problems(404, 409))
    def report(id: str) -> FileResponse:
        """The report, one page of HTML that needs nothing else."""
        page = service.file(_known(service, id), REPORT)
        return FileResponse(page, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def _add_endings(api: APIRouter, service: Service) -> None:
    @api.post("/v1/jobs/{id}/cancel", responses=_problems(404, 409))
    def cancel(id: str) -> JobView:
        """End a job that waits or runs; its video is deleted. A job that was cancelled before stays so."""
        if not service.cancel(id) and _known(service, id).status != "cancelled":
            raise Conflict("the job has ended already")
        return _seen(service, id)

    @api.delete("/v1/jobs/{id}", status_code=204, response_class=Response, responses=_problems(404))
    def delete(id: str) -> Response:
        """Forget a job: its video, result and report are deleted. One that runs is ended."""
        if not service.delete(id):
            _known(service, id)
        return Response(status_code=204)


def _about(service: Service) -> APIRouter:
    """The server itself."""
    api = APIRouter(tags=["server"])

    @api.get("/v1/server")
    def server() -> Limits:
        """What this server takes."""
        settings = service.settings
        return Limits(
            avdetect=__version__,
            max_upload_bytes=settings.max_upload_bytes,
            queue=settings.queue,
            workers=settings.workers,
            keep_hours=settings.keep_seconds / 3600,
        )

    @api.get("/healthz", responses={503: {"model": Health, "description": "Jobs are not being run."}})
    def healthz(response: Response) -> Health:
        """Whether jobs are being run. Needs no token."""
        if not service.healthy:
            response.status_code = 503
        return Health(status="ok" if service.healthy else "failing")

    @api.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return api


async def _events(first: JobView, look: Callable[[], JobView], stopping: Callable[[], bool]) -> AsyncIterator[str]:
    said, job, quiet = "", first, 0.0
    while True:
        text = job.model_dump_json()
        if text != said:
            said, quiet = text, 0.0
            yield f"event: job\ndata: {text}\n\n"
        elif quiet >= _BEAT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        if has_ended(job) or stopping():
            return
        await asyncio.sleep(_EVENT_SECONDS)
        quiet += _EVENT_SECONDS
        try:
            job = await run_in_threadpool(look)
        except NotFound:
            yield "event: gone\ndata: {}\n\n"
            return


def _full() -> QueueFull:
    return QueueFull("as many videos wait, in all or from you, as may; try again later", _RETRY_SECONDS)


def _explain_errors(app: FastAPI, service: Service) -> None:
    """Every error is a Problem, and none holds a path or a traceback."""

    def answer(status: int, error: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        service.metrics.rejected(error)
        return JSONResponse(Problem(error=error, message=message).model_dump(), status, headers)

    @app.exception_handler(Refusal)
    async def refused(_request: Request, refusal: Refusal) -> JSONResponse:
        if isinstance(refusal, Storage):
            _log.error("%s (%s)", refusal, refusal.__cause__)
        after = refusal.retry_after_seconds
        return answer(refusal.status, refusal.name, refusal.message, {"retry-after": str(after)} if after else None)

    @app.exception_handler(ServerError)
    async def cannot_keep(_request: Request, error: ServerError) -> JSONResponse:
        _log.error("%s", error)
        return answer(Storage.status, Storage.__name__, "the server cannot keep its jobs: its disk may be full")

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> JSONResponse:
        name = {404: NotFound.__name__, 405: "MethodNotAllowed"}.get(error.status_code, BadRequest.__name__)
        return answer(error.status_code, name, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def bug(_request: Request, _error: Exception) -> JSONResponse:
        return answer(500, "InternalError", "a bug in avdetect; the server's log says more")

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return answer(Invalid.status, Invalid.__name__, said)


def _say_who_may_ask(app: FastAPI) -> None:
    """The token, in OpenAPI."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/healthz"]["get"]["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]
