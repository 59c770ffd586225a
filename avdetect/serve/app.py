"""The server's routes. What they do is `service`'s; who may ask is `security`'s."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from avdetect._version import __version__
from avdetect.errors import ServerError
from avdetect.preprocess import MIN_DURATION_SECONDS
from avdetect.report.data import Failure, to_json
from avdetect.serve.models import REFUSALS, Health, JobPage, JobView, Limits, Problem, Refusal, view
from avdetect.serve.pages import pages
from avdetect.serve.security import REPORT_POLICY, Guard, Guesses, Sessions
from avdetect.serve.service import Service
from avdetect.serve.store import ENDED, Job
from avdetect.serve.uploads import linger, receive
from avdetect.serve.worker import REPORT, RESULT, UPLOAD

_log = logging.getLogger("avdetect.serve")
_EVENT_SECONDS = 0.25  # between looks at a job whose events somebody listens to
_BEAT_SECONDS = 15.0  # between signs of life when nothing changes
_RETRY = {"retry-after": "10"}

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
    token = service.settings.token
    app = FastAPI(
        title="avdetect",
        version=__version__,
        description="Was a video manipulated, and was it the face, the voice, or the match between them?",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        responses=_problems("Forbidden", "WrongHost", "Storage", *(["Unauthorized"] if token else [])),
    )
    app.state.service, app.state.stopping = service, stopping
    app.state.sessions, app.state.guesses = Sessions(), Guesses()
    # It says in OpenAPI that a token is asked for; `Guard` looks at it.
    bearer = [Depends(HTTPBearer(scheme_name="token", auto_error=False))] if token else []
    app.include_router(jobs_api, dependencies=bearer)
    app.include_router(server_api, dependencies=bearer)
    app.include_router(open_api)
    app.include_router(pages)
    for kind in (Refusal, ServerError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _explain)
    app.add_middleware(Guard, state=app.state)
    return app


def _problems(*names: str) -> dict[int | str, dict[str, Any]]:
    """With the schema by its name: as a `model` it would stand there as what the route answers with, HTML for one."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {status: {"description": said, "content": content} for status, said in map(REFUSALS.__getitem__, names)}


async def _explain(request: Request, error: Exception) -> JSONResponse:
    """Every error is a Problem, and none holds a path or a traceback."""
    match error:
        case Refusal():
            refusal = error
        case ServerError():
            refusal = Refusal("Storage", "the server cannot keep its jobs: its disk may be full")
        case HTTPException():
            name = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
            refusal = Refusal(name, str(error.detail), error.headers)
        case RequestValidationError():
            said = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
            refusal = Refusal("Invalid", "; ".join(said))
        case ClientDisconnect():
            refusal = Refusal("BadRequest", "the request was broken off")
        case _:
            refusal = Refusal("InternalError", "a bug in avdetect; the server's log says more")
    if refusal.name == "Storage":
        _log.error("%s (%s)", error, error.__cause__)
    request.app.state.service.metrics.rejected(refusal.name)
    return refusal.answer()


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]
jobs_api, server_api, open_api = APIRouter(tags=["jobs"]), APIRouter(tags=["server"]), APIRouter(tags=["server"])


def _known(service: Service, id: str) -> Job:
    if found := service.store.get(id):
        return found
    raise Refusal("NotFound", "there is no such job; it may have been deleted")


def _seen(service: Service, known: Job) -> JobView:
    return view(known, service.runner, service.store)


@jobs_api.post(
    "/v1/score",
    status_code=202,
    openapi_extra=_FORM,
    responses=_problems("BadRequest", "UploadTimeout", "TooLarge", "UnsupportedType", "Invalid", "QueueFull"),
)
async def score(request: Request, service: Serving) -> JobView:
    """Upload a video to be scored. Its address stays the same until the job is deleted."""
    full = Refusal("QueueFull", "as many videos wait, in all or from you, as may; try again later", _RETRY)
    client = request.client.host if request.client else ""
    try:
        with ExitStack() as held:
            folder = await run_in_threadpool(held.enter_context, service.upload(client))
            if folder is None:
                await linger(request.stream())
                raise full
            upload = await receive(request, folder / UPLOAD, service.settings)
            start = upload.seconds("start_seconds", 0.0, 0.0) or 0.0
            duration = upload.seconds("duration_seconds", MIN_DURATION_SECONDS, None)
            queued = await run_in_threadpool(service.submit, folder, upload.name, start, duration, client)
    except asyncio.CancelledError:  # the server ends; nothing of the upload is kept
        raise Refusal("QueueFull", "the server is ending", _RETRY) from None
    if queued is None:
        raise full
    return await run_in_threadpool(_seen, service, queued)


@jobs_api.get("/v1/jobs", responses=_problems("Invalid"))
def jobs(
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of the page before")] = None,
) -> JobPage:
    """The jobs of this server, newest first."""
    found = service.store.page(limit + 1, before)
    shown = [_seen(service, each) for each in found[:limit]]
    return JobPage(jobs=shown, next=found[limit - 1].number if len(found) > limit else None)


@jobs_api.get("/v1/jobs/{id}", responses=_problems("NotFound"))
def job(service: Serving, id: str) -> JobView:
    """A job as it stands."""
    return _seen(service, _known(service, id))


@jobs_api.get(
    "/v1/jobs/{id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **_problems("NotFound")},
)
async def events(request: Request, service: Serving, id: str) -> StreamingResponse:
    """The job, whenever it changes, as server-sent events named `job`; the stream ends with the job."""
    first = await run_in_threadpool(job, service, id)
    return StreamingResponse(_events(service, first, request.app.state.stopping), media_type="text/event-stream")


async def _events(service: Service, seen: JobView, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    said, quiet = "", 0.0
    while True:
        text = seen.model_dump_json()
        if text != said:
            said, quiet = text, 0.0
            yield f"event: job\ndata: {text}\n\n"
        elif quiet >= _BEAT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        if seen.status in ENDED or stopping():
            return
        await asyncio.sleep(_EVENT_SECONDS)
        quiet += _EVENT_SECONDS
        try:
            seen = await run_in_threadpool(job, service, seen.id)
        except Refusal:
            yield "event: gone\ndata: {}\n\n"
            return


@jobs_api.get(
    "/v1/jobs/{id}/result",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}},
        **_problems("NotFound", "Conflict"),
    },
)
def result(service: Serving, id: str) -> Response:
    """The document that `avdetect score --json` prints, of schema avdetect.results/2."""
    ended = _known(service, id)
    if ended.status == "failed":
        failure = Failure(ended.name, ended.error or "", ended.message or "")
        return Response(to_json([failure]), media_type="application/json")
    return FileResponse(service.file(ended, RESULT), media_type="application/json")


@jobs_api.get("/v1/jobs/{id}/report", response_class=HTMLResponse, responses=_problems("NotFound", "Conflict"))
def report(service: Serving, id: str) -> FileResponse:
    """The report, one page of HTML that needs nothing else."""
    page = service.file(_known(service, id), REPORT)
    return FileResponse(page, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


@jobs_api.post("/v1/jobs/{id}/cancel", responses=_problems("NotFound", "Conflict"))
def cancel(service: Serving, id: str) -> JobView:
    """End a job that waits or runs; its video is deleted. A job that was cancelled before stays so."""
    if not service.cancel(id) and _known(service, id).status != "cancelled":
        raise Refusal("Conflict", "the job has ended already")
    return job(service, id)


@jobs_api.delete("/v1/jobs/{id}", status_code=204, response_class=Response, responses=_problems("NotFound"))
def delete(service: Serving, id: str) -> Response:
    """Forget a job: its video, result and report are deleted. One that runs is ended."""
    if not service.delete(id):
        _known(service, id)
    return Response(status_code=204)


@server_api.get("/v1/server")
def server(service: Serving) -> Limits:
    """What this server takes."""
    settings = service.settings
    return Limits(
        avdetect=__version__,
        max_upload_bytes=settings.max_upload_bytes,
        queue=settings.queue,
        workers=settings.workers,
        keep_hours=settings.keep_seconds / 3600,
    )


@server_api.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(service: Serving) -> Response:
    """Counters, for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@open_api.get("/healthz", responses={503: {"model": Health, "description": "Jobs are not being run."}})
def healthz(service: Serving, response: Response) -> Health:
    """Whether jobs are being run. Needs no token."""
    if not service.healthy:
        response.status_code = 503
    return Health(status="ok" if service.healthy else "failing")
