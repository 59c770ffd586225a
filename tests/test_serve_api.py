"""`avdetect serve` as a program meets it: uploads, jobs, limits, errors. A real server, real worker processes."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
import serve_scorers
from batch_commands import all_gone
from serve_running import BODY, FORM, SAMPLE, Running, eventually, running

from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.errors import ServerError
from avdetect.jobs import pool
from avdetect.report.data import SCHEMA_FILE
from avdetect.serve import runner, worker
from avdetect.serve.service import display_name
from avdetect.serve.worker import score_upload


def files_of(server: Running, id: str) -> list[str]:
    folder = server.service.runner.folder(id)
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_video_becomes_a_verdict_a_result_and_a_report(server: Running) -> None:
    answer = server.send("0.9", "my clip.mp4", start_seconds="1", duration_seconds="2.5")
    assert answer.status_code == 202
    job = server.ended(answer.json()["id"])
    assert (job["status"], job["stage"], job["progress"]) == ("done", "done", 1.0)
    assert job["verdict"] == {
        **{"verdict": "fake", "reason": "the voice looks manipulated", "fake": 0.9, "video_fake": None},
        **{"audio_fake": 0.9, "mismatch": None, "fake_threshold": 0.5, "undecided_threshold": 0.5},
        **{"duration_seconds": 2.5, "limit": "A score is not proof."},
        **{"title": "Fake", "tag": "fake", "tone": "fake"},
    }
    document = server.http.get(job["urls"]["result"]).json()
    assert document["schema"] == "avdetect.results/2"
    assert (document["results"][0]["path"], document["results"][0]["start_seconds"]) == ("my clip.mp4", 1)
    report = server.http.get(job["urls"]["report"])
    assert "my clip.mp4" in report.text
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert files_of(server, job["id"]) == ["detection.json", "report.html"]  # the video is gone


def test_the_real_detector_scores_a_real_file(tmp_path: Path) -> None:
    with running(tmp_path / "data", score_upload) as server:
        id = server.send(SAMPLE.read_bytes(), "<b>me & you.mp4", duration_seconds="4").json()["id"]
        with server.http.stream("GET", f"/v1/jobs/{id}/events") as events:
            stages = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
        assert stages[-1]["status"] == "done"
        shares = [job["progress"] for job in stages if job["stage"] == "scoring"]
        assert shares == sorted(shares)
        assert len(set(shares)) > 1
        document = server.http.get(f"/v1/jobs/{id}/result").json()
        jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
        assert document["results"][0]["fake"] is not None
        report = server.http.get(f"/v1/jobs/{id}/report").text
        assert "&lt;b&gt;me &amp; you" in report
        assert "<b>me" not in report
        assert str(tmp_path) not in report


def test_progress_never_runs_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are decoded ahead of the clip that is scored."""
    monkeypatch.setattr(worker, "NICENESS", -20)  # this process keeps its own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "upload").write_text("0.9")
    news: list[dict] = []

    def score(task: worker.Task, say: worker.Say) -> tuple:
        for share in (0.5, 0.2, 0.7):
            say("scoring", share)
        return serve_scorers.by_text(task, lambda stage, share: None)

    worker.scoring(score, ScoringOptions(), 1)({"folder": str(tmp_path), "name": "a", "window": {}}, news.append)
    assert [each["progress"] for each in news if each["stage"] == "scoring"] == [0.5, 0.5, 0.7]


def test_a_broken_file_says_why_under_its_own_name(server: Running) -> None:
    job = server.ended(server.submit("bad", "holiday.mp4"))
    assert (job["status"], job["error"]["error"]) == ("failed", "MediaError")
    assert job["error"]["message"].startswith("'holiday.mp4' cannot be read")
    assert server.http.get(job["urls"]["result"]).json()["results"][0]["status"] == "failed"
    assert server.http.get(job["urls"]["report"]).status_code == 409
    assert files_of(server, job["id"]) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        *(("model", "ModelError"), ("bug", "InternalError"), ("full", "ServerError")),
        ("undecoded", "InternalError"),  # no database takes its message
    ],
)
def test_no_failure_tells_a_path_or_a_traceback_or_holds_up_others(server: Running, text: str, error: str) -> None:
    id, next_one = server.submit(text), server.submit("0.5")
    job = server.ended(id)
    assert (job["status"], job["error"]["error"]) == ("failed", error)
    said = "".join(server.http.get(f"/v1/jobs/{id}{end}").text for end in ("", "/result", "/report", "/events"))
    for secret in (serve_scorers.SECRET, str(server.service.settings.data), "Traceback", "upload'", ".py"):
        assert secret not in said
    assert server.ended(next_one)["status"] == "done"


def test_jobs_end_with_all_that_they_started_when_they_are_cancelled_or_deleted(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, processes=True, queue=1, workers=2) as server:

        def hanging() -> tuple[str, int]:
            """A job that runs, and the process that its scorer has started."""
            id = server.submit("hang")
            server.scoring(id)
            return id, int((server.service.runner.folder(id) / "child").read_text())

        def cancel(id: str) -> httpx.Response:
            return server.http.post(f"/v1/jobs/{id}/cancel")

        (cancelled, child), (deleted, other_child) = hanging(), hanging()
        assert "avdetect_running_jobs 2.0" in server.http.get("/metrics").text
        waiting = server.submit("hang")
        assert server.job(waiting)["queue_position"] == 1
        full = server.send("0.5")
        assert (full.status_code, full.json()["error"]) == (503, "QueueFull")
        assert int(full.headers["retry-after"]) > 0
        for id in (waiting, cancelled, cancelled):  # it stays cancelled
            assert cancel(id).json()["status"] == "cancelled"
            assert files_of(server, id) == []
        assert server.http.get(f"/v1/jobs/{cancelled}/result").status_code == 409
        assert server.http.delete(f"/v1/jobs/{deleted}").status_code == 204
        assert files_of(server, deleted) == []
        assert server.http.delete(f"/v1/jobs/{deleted}").status_code == 404
        assert all_gone([child, other_child])
        done = server.submit("0.1")
        assert server.ended(done)["status"] == "done"  # there is room again
        assert cancel(done).status_code == 409


def test_deletion_takes_the_files_before_the_row_which_a_full_disk_has_no_room_to_forget(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = server.submit("0.9")
    server.ended(id)
    delete = server.service.store.delete

    def full(id: str) -> bool:
        assert files_of(server, id) == []
        return delete(id)

    monkeypatch.setattr(server.service.store, "delete", full)
    assert server.http.delete(f"/v1/jobs/{id}").status_code == 204
    for end in ("", "/result", "/report", "/events"):
        assert server.http.get(f"/v1/jobs/{id}{end}").status_code == 404


def one(content: bytes = b"0.5", kind: str = "video/mp4", **fields: str) -> dict:
    return {"files": {"file": ("a", content, kind)}, "data": fields}


def in_pieces(*pieces: bytes) -> dict:
    """A body whose length is not stated."""
    return {"content": iter(pieces), "headers": FORM}


WRONG_FIELDS = (
    *({"start_seconds": "-1"}, {"start_seconds": "nan"}, {"duration_seconds": "0"}, {"duration_seconds": "9" * 65}),
    {"colour": "red"},
)


@pytest.mark.parametrize(
    ("request_of", "status", "error"),
    [
        (one(b"x" * 100_001), 413, "TooLarge"),
        (one(b"x" * 1_000_000), 413, "TooLarge"),
        (in_pieces(BODY, *[b"x" * 1000] * 200), 413, "TooLarge"),
        (in_pieces(BODY + b"0.5\r\n--b--\r\n", *[b"x" * 1000] * 200), 413, "TooLarge"),  # what follows the form
        (one(b""), 422, "Invalid"),
        ({"files": {"other": ("a.mp4", b"0.5")}}, 422, "Invalid"),
        ({"files": [("file", ("a.mp4", b"0.5")), ("file", ("b.mp4", b"0.5"))]}, 422, "Invalid"),
        *((one(**fields), 422, "Invalid") for fields in WRONG_FIELDS),
        (one(b"%PDF", "application/pdf"), 415, "UnsupportedType"),
        ({"json": {"file": "a.mp4"}}, 415, "UnsupportedType"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "BadRequest"),
        ({"content": b"x", "headers": FORM}, 400, "BadRequest"),
        ({"content": BODY + b"0.5", "headers": FORM}, 400, "BadRequest"),
    ],
)
def test_uploads_that_are_refused(server: Running, request_of: dict, status: int, error: str) -> None:
    before = [job["id"] for job in server.http.get("/v1/jobs").json()["jobs"]]
    answer = server.http.post("/v1/score", **request_of)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert [job["id"] for job in server.http.get("/v1/jobs").json()["jobs"]] == before
    assert os.listdir(server.service.settings.data / "incoming") == []
    assert f'avdetect_rejections_total{{reason="{error}"}}' in server.http.get("/metrics").text


def test_a_client_that_goes_away_leaves_nothing(server: Running) -> None:
    def body() -> Iterator[bytes]:
        yield BODY
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError), httpx.Client(base_url=server.url) as http:
        http.post("/v1/score", content=body(), headers=FORM)
    eventually(lambda: os.listdir(server.service.settings.data / "incoming") == [], 10)


def test_a_job_that_dies_or_takes_too_long_is_ended_and_one_kept_long_enough_deleted(tmp_path: Path) -> None:
    options = ScoringOptions(limits=MediaLimits(max_file_seconds=1))
    settings = {"processes": True, "options": options, "keep_seconds": 0.01}
    with running(tmp_path / "data", serve_scorers.by_text, **settings) as server:
        for text, error in (("hang", "LimitError"), ("die", "WorkerError")):
            job = server.ended(server.submit(text))
            assert (job["status"], job["error"]["error"]) == ("failed", error)
        time.sleep(0.02)
        server.service.runner.sweep()
        assert server.http.get("/v1/jobs").json()["jobs"] == []


def test_a_folder_that_cannot_be_written_is_said_and_loses_nothing(server: Running, caplog) -> None:
    incoming = server.service.settings.data / "incoming"
    incoming.rename(incoming.with_name("elsewhere"))
    try:
        answer = server.send("0.5")
    finally:
        incoming.with_name("elsewhere").rename(incoming)
    assert (answer.status_code, answer.json()["error"]) == (507, "Storage")
    assert str(incoming) not in answer.text
    assert "cannot keep an upload: No such file" in caplog.text  # to the owner
    assert server.ended(server.submit("0.5"))["status"] == "done"


@pytest.mark.parametrize("again", [True, False])
def test_an_end_that_cannot_be_written_down_is_written_later_or_the_job_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.05)
    tries: list[object] = []
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        finish = server.service.store.finish

        def full(*values) -> bool:
            tries.append(values)
            if again and len(tries) == 3:
                return finish(*values)
            raise ServerError("the disk is full")

        monkeypatch.setattr(server.service.store, "finish", full)
        id = server.submit("0.5")
        eventually(lambda: len(tries) == 3)
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        assert server.ended(id)["status"] == "done"


def test_a_job_whose_process_cannot_start_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, errors = pool.ProcessWorker, [MemoryError(), OSError(errno.EAGAIN, "try again"), ValueError("a bug")]
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.05)

    def fail_first(*arguments):
        if errors:
            raise errors.pop()
        return start(*arguments)

    monkeypatch.setattr(pool, "ProcessWorker", fail_first)
    with running(tmp_path / "data", serve_scorers.by_text, processes=True) as server:
        assert server.ended(server.submit("0.5"))["status"] == "done"
    assert errors == []


def test_health_metrics_and_unknown_addresses(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for method, path, status in (("GET", "/v1/none", 404), ("PUT", "/v1/jobs", 405), ("GET", "/static/..%2fa.py", 404)):
        answer = server.http.request(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "message"})
    assert server.http.get("/healthz").json() == {"status": "ok"}
    text = server.http.get("/metrics").text
    for name in ("jobs_total", "scoring_seconds_bucket", "queued_jobs", "upload_bytes_total"):
        assert f"avdetect_{name}" in text
    assert "process_resident_memory_bytes" in text
    for place, value in (("service._LONGEST_ROUND_SECONDS", -1.0), ("runner.Runner.is_alive", lambda self: False)):
        with monkeypatch.context() as patch:
            patch.setattr(f"avdetect.serve.{place}", value)  # it hangs, or has ended
            answer = server.http.get("/healthz")
            assert (answer.status_code, answer.json()) == (503, {"status": "failing"})


def test_names_of_uploads_are_fit_to_be_shown() -> None:
    for given, shown in (
        *(("../../etc/passwd", "passwd"), ("C:\\videos\\clip.mp4", "clip.mp4"), ("/", "upload"), ("..", "..")),
        ("a\nb\x1b[31m\u202e.mp4", "a\\nb\\x1b[31m\\u202e.mp4"),
        ("ü" * 500 + ".mp4", "ü" * 60 + "…" + "ü" * 55 + ".mp4"),
    ):
        assert display_name(given) == shown
