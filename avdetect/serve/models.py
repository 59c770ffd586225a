"""What the REST interface answers: the types that OpenAPI shows, and what requests are refused for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from avdetect.report.words import TONE_OF, Tone
from avdetect.serve.runner import Runner
from avdetect.serve.store import Job, JobStore
from avdetect.types import Verdict

Stage = Literal["waiting", "starting", "reading", "scoring", "explaining", "done"]
REFUSALS = {  # name -> status, and what it means
    "BadRequest": (400, "It cannot be understood."),
    "Unauthorized": (401, "It bears no token, or a wrong one."),
    "Forbidden": (403, "It changes something, and comes from another site's page."),
    "NotFound": (404, "There is no such job (any more)."),
    "MethodNotAllowed": (405, "The address takes other methods."),
    "UploadTimeout": (408, "The upload takes too long."),
    "Conflict": (409, "The job is not in a state for it."),
    "TooLarge": (413, "The file is larger than the server takes."),
    "UnsupportedType": (415, "What was sent says itself that it is no video."),
    "WrongHost": (421, "It is addressed to a name that is not this server's."),
    "Invalid": (422, "A field is missing, unknown or out of range."),
    "InternalError": (500, "A bug in avdetect."),
    "QueueFull": (503, "As many jobs wait as may."),
    "Storage": (507, "The server has no room, or cannot write."),
}


class Refusal(Exception):
    """A request that is answered with an error: one of REFUSALS, and words for the client that hold no path."""

    def __init__(self, name: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.name, self.message, self.headers = name, message, headers

    def answer(self) -> JSONResponse:
        """A Problem."""
        return JSONResponse({"error": self.name, "message": self.message}, REFUSALS[self.name][0], self.headers)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(_Answer):
    """Why a request, or a job, failed."""

    error: str = Field(description="class of the error: MediaError, LimitError, NotFound, QueueFull ...")
    message: str = Field(description="what happened and what to do next")


class Urls(_Answer):
    """Where to go on; relative to the server."""

    self: str
    events: str = Field(description="progress, as server-sent events")
    result: str = Field(description="JSON, once the job is done or failed")
    report: str = Field(description="HTML, once the job is done")
    cancel: str = Field(description="POST ends the job")


class JobVerdict(_Answer):
    """The verdict in short; the result has all of it."""

    verdict: Verdict
    title: str = Field(description="the verdict in words")
    tag: str = Field(description="the same in two words")
    tone: Tone = Field(description="its colour on our pages")
    reason: str = Field(description="one sentence")
    fake: float | None = Field(ge=0, le=1, description="calibrated probability that anything was manipulated")
    video_fake: float | None = Field(ge=0, le=1, description="that the face was")
    audio_fake: float | None = Field(ge=0, le=1, description="that the voice was")
    mismatch: float | None = Field(ge=0, le=1, description="that these lips do not speak this voice")
    fake_threshold: float = Field(description="`fake` at or above it: the verdict is fake")
    undecided_threshold: float = Field(description="`fake` at or above it, and below the other: undecided")
    limit: str = Field(description="first sentence of the model's limits; show it beside the verdict")
    duration_seconds: float = Field(ge=0, description="how much of the file was scored")


class JobView(_Answer):
    """A job as it stands."""

    id: str
    name: str = Field(description="of the file, as it was uploaded; cut, and fit to be shown")
    size_bytes: int
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: Stage | None = Field(description="null when it failed or was cancelled")
    progress: float = Field(ge=0, le=1, description="share of the stage `scoring` that is done")
    queue_position: int | None = Field(description="1: it is next; null when it does not wait")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    start_seconds: float
    duration_seconds: float | None
    verdict: JobVerdict | None = Field(description="when done")
    error: Problem | None = Field(description="when failed")
    urls: Urls


class JobPage(_Answer):
    """Jobs, newest first."""

    jobs: list[JobView]
    next: int | None = Field(description="the `before` of the next page; null on the last one")


class Limits(_Answer):
    """What the server takes."""

    avdetect: str = Field(description="its version")
    max_upload_bytes: int
    queue: int = Field(description="jobs that may wait")
    workers: int = Field(description="jobs that are scored at a time")
    keep_hours: float = Field(description="after a job's end, all that is known of it is deleted")


class Health(_Answer):
    """Whether jobs are being run."""

    status: Literal["ok", "failing"]


def view(job: Job, runner: Runner, store: JobStore) -> JobView:
    """The job as clients see it."""
    stage: str | None = {"queued": "waiting", "done": "done"}.get(job.status)
    progress = 1.0 if job.status == "done" else 0.0
    if job.status == "running":
        stage, progress = runner.progress(job.id)
    base = f"/v1/jobs/{job.id}"
    return JobView(
        id=job.id,
        name=job.name,
        size_bytes=job.size,
        status=job.status,
        stage=stage,  # type: ignore[arg-type]  # checked by pydantic
        progress=progress,
        queue_position=store.position(job) + 1 if job.status == "queued" else None,
        created_at=_moment(job.created),  # type: ignore[arg-type]
        started_at=_moment(job.began),
        ended_at=_moment(job.ended),
        start_seconds=job.start_seconds,
        duration_seconds=job.duration_seconds,
        verdict=_verdict(job.summary) if job.summary else None,
        error=Problem(error=job.error, message=job.message or "") if job.error else None,
        urls=Urls(self=base, **{name: f"{base}/{name}" for name in ("events", "result", "report", "cancel")}),
    )


def _verdict(summary: Mapping[str, Any]) -> JobVerdict:
    verdict: Verdict = summary["verdict"]
    return JobVerdict(**summary, title=verdict.capitalize(), tag=verdict, tone=TONE_OF[verdict])


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(round(seconds, 3), UTC)
