"""`avdetect serve` as a program meets it: uploads, jobs, limits, errors. A real server, real worker processes."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
import httpx
import serve_scorers
from serve_running import Running, eventually, running

from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError, ServerError
from avdetect.jobs import pool
from avdetect.jobs.process import Process
from avdetect.report.data import SCHEMA_FILE
from avdetect.serve.service import Service, display_name
from avdetect.serve.settings import ServeSettings

SAMPLE = Path(__file__).parents[1] / "avdetect" / "weights" / "sample" / "sample.mp4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("serve") / "data", serve_scorers.by_text, max_upload_bytes=100_000) as made:
        yield made


def files_of(server: Running, id: str) -> list[str]:
    folder = server.service.runner.folder(id)
    return sorted(os.listdir(folder)) if folder.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    assert document["results"][0]["path"] == "my clip.mp4"
    assert document["results"][0]["start_seconds"] == 1
    report = server.http.get(job["urls"]["report"])
    assert "my clip.mp4" in report.text
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert files_of(server, job["id"]) == ["detection.json", "report.html"]  # the video is gone


def test_the_real_detector_scores_a_real_file(tmp_path: Path) -> None:
    limits = ScoringOptions(limits=MediaLimits())
    with running(tmp_path / "data", serve_scorers.really, options=limits) as server:
        good, bad = server.submit(SAMPLE.read_bytes(), "sample.mp4"), server.submit(b"\0" * 5000, "zeros.mp4")
        stages = []
        with server.http.stream("GET", f"/v1/jobs/{good}/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    stages.append(json.loads(line[6:]))
        assert stages[-1]["status"] == "done"
        shares = [job["progress"] for job in stages if job["stage"] == "scoring"]
        assert shares == sorted(shares)
        assert len(set(shares)) > 1
        document = server.http.get(f"/v1/jobs/{good}/result").json()
        assert document["results"][0]["verdict"] == "fake"
        assert server.ended(bad)["error"]["error"] == "MediaError"


def test_with_the_real_report(tmp_path: Path) -> None:
    pytest.importorskip("avdetect.report.recorder")
    pytest.importorskip("avdetect.report.page")
    from avdetect.serve.worker import score_upload

    with running(tmp_path / "data", score_upload) as server:
        job = server.ended(server.submit(SAMPLE.read_bytes(), "<b>me & you.mp4"))
        assert job["status"] == "done", job
        jsonschema.validate(server.http.get(job["urls"]["result"]).json(), json.loads(SCHEMA_FILE.read_text()))
        report = server.http.get(job["urls"]["report"]).text
        assert "&lt;b&gt;me &amp; you" in report
        assert "<b>me" not in report
        assert str(tmp_path) not in report


def test_a_broken_file_says_why_under_its_own_name(server: Running) -> None:
    job = server.ended(server.submit("bad", "holiday.mp4"))
    assert job["status"] == "failed"
    assert job["error"]["error"] == "MediaError"
    assert job["error"]["message"].startswith("'holiday.mp4' cannot be read")
    document = server.http.get(job["urls"]["result"]).json()
    assert document["results"][0]["status"] == "failed"
    assert server.http.get(job["urls"]["report"]).status_code == 409
    assert files_of(server, job["id"]) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [("model", "ModelError"), ("bug", "InternalError"), ("full", "ServerError"), ("die", "WorkerError")],
)
def test_no_failure_tells_a_path_or_a_traceback(server: Running, text: str, error: str) -> None:
    id = server.submit(text)
    job = server.ended(id)
    assert (job["status"], job["error"]["error"]) == ("failed", error)
    said = "".join(server.http.get(f"/v1/jobs/{id}{end}").text for end in ("", "/result", "/report", "/events"))
    for secret in (serve_scorers.SECRET, str(server.service.settings.data), "Traceback", "upload'", ".py"):
        assert secret not in said


def test_cancel_kills_the_process_and_what_it_started(server: Running) -> None:
    id = server.submit("hang")
    server.scoring(id)
    child = int((server.service.runner.folder(id) / "child").read_text())
    assert alive(child)
    waiting = server.submit("hang")
    assert server.job(waiting)["queue_position"] == 1
    assert server.http.post(f"/v1/jobs/{waiting}/cancel").json()["status"] == "cancelled"
    assert server.http.post(f"/v1/jobs/{id}/cancel").json()["status"] == "cancelled"
    eventually(lambda: not alive(child), 5)
    assert files_of(server, id) == files_of(server, waiting) == []
    assert server.http.post(f"/v1/jobs/{id}/cancel").status_code == 200  # it stays cancelled
    assert server.http.get(f"/v1/jobs/{id}/result").status_code == 409
    done = server.submit("0.1")
    assert server.ended(done)["status"] == "done"  # the place is free again
    assert server.http.post(f"/v1/jobs/{done}/cancel").status_code == 409


def test_deletion_takes_the_files_and_ends_a_job_that_runs(server: Running) -> None:
    done = server.submit("0.9")
    server.ended(done)
    hanging = server.submit("hang")
    server.scoring(hanging)
    child = int((server.service.runner.folder(hanging) / "child").read_text())
    for id in (done, hanging):
        assert server.http.delete(f"/v1/jobs/{id}").status_code == 204
        assert not server.service.runner.folder(id).exists()
        for end in ("", "/result", "/report", "/events"):
            assert server.http.get(f"/v1/jobs/{id}{end}").status_code == 404
        assert server.http.delete(f"/v1/jobs/{id}").status_code == 404
    eventually(lambda: not alive(child), 5)


def test_the_list_is_paged_newest_first(server: Running) -> None:
    ids = [server.submit("0.5") for _ in range(3)]
    first = server.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == ids[:0:-1]
    second = server.http.get("/v1/jobs", params={"limit": 2, "before": first["next"]}).json()
    assert second["jobs"][0]["id"] == ids[0]
    assert server.http.get("/v1/jobs", params={"limit": 0}).status_code == 422
    for id in ids:
        server.ended(id)


@pytest.mark.parametrize(
    ("request_of", "status", "error"),
    [
        ({"files": {"file": ("big.mp4", b"x" * 100_001)}}, 413, "TooLarge"),
        ({"files": {"file": ("huge.mp4", b"x" * 1_000_000)}}, 413, "TooLarge"),
        ({"files": {"file": ("empty.mp4", b"")}}, 422, "Invalid"),
        ({"files": {"other": ("a.mp4", b"0.5")}}, 422, "Invalid"),
        ({"files": [("file", ("a.mp4", b"0.5")), ("file", ("b.mp4", b"0.5"))]}, 422, "Invalid"),
        ({"files": {"file": ("a.mp4", b"0.5")}, "data": {"start_seconds": "-1"}}, 422, "Invalid"),
        ({"files": {"file": ("a.mp4", b"0.5")}, "data": {"start_seconds": "nan"}}, 422, "Invalid"),
        ({"files": {"file": ("a.mp4", b"0.5")}, "data": {"duration_seconds": "0"}}, 422, "Invalid"),
        ({"files": {"file": ("a.mp4", b"0.5")}, "data": {"duration_seconds": "9" * 65}}, 422, "Invalid"),
        ({"files": {"file": ("a.mp4", b"0.5")}, "data": {"colour": "red"}}, 422, "Invalid"),
        ({"files": {"file": ("a.pdf", b"%PDF", "application/pdf")}}, 415, "UnsupportedType"),
        ({"json": {"file": "a.mp4"}}, 415, "UnsupportedType"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "BadRequest"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "BadRequest"),
        (
            {
                "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n0.5',
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
            400,
            "BadRequest",
        ),
    ],
)
def test_uploads_that_are_refused(server: Running, request_of: dict, status: int, error: str) -> None:
    before = server.http.get("/v1/jobs").json()
    answer = server.http.post("/v1/score", **request_of)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert server.http.get("/v1/jobs").json() == before
    assert os.listdir(server.service.settings.data / "incoming") == []
    assert f'avdetect_rejections_total{{reason="{error}"}}' in server.http.get("/metrics").text


def test_an_upload_without_a_stated_length_is_cut_off(server: Running) -> None:
    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        for _ in range(200):
            yield b"x" * 1000

    answer = server.http.post("/v1/score", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413


def test_what_follows_the_form_is_limited_too(server: Running) -> None:
    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n0.5\r\n--b--\r\n'
        for _ in range(200):
            yield b"x" * 1000

    answer = server.http.post("/v1/score", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413


def test_an_upload_that_stands_still_is_ended(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, stall_seconds=0.2) as server:

        def body():
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
            time.sleep(1.5)
            yield b"x\r\n--b--\r\n"

        answer = server.http.post(
            "/v1/score", content=body(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert (answer.status_code, answer.json()["error"]) == (408, "UploadTimeout")
        assert os.listdir(server.service.settings.data / "incoming") == []


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, queue=1) as server:
        server.scoring(server.submit("hang"))
        server.submit("0.5")
        answer = server.send("0.5")
        assert (answer.status_code, answer.json()["error"]) == (503, "QueueFull")
        assert int(answer.headers["retry-after"]) > 0


def test_two_are_scored_at_once_where_there_are_two_workers(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, workers=2) as server:
        both = [server.submit("hang"), server.submit("hang")]
        for id in both:
            server.scoring(id)
        assert "avdetect_running_jobs 2.0" in server.http.get("/metrics").text


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    options = ScoringOptions(limits=MediaLimits(max_file_seconds=2))
    with running(tmp_path / "data", serve_scorers.by_text, options=options) as server:
        job = server.ended(server.submit("hang"))
        assert (job["status"], job["error"]["error"]) == ("failed", "LimitError")


def test_what_is_kept_long_enough_is_deleted(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, keep_seconds=0.01) as server:
        id = server.submit("0.5")
        server.ended(id)
        time.sleep(0.02)
        server.service.runner.sweep()
        assert server.http.get(f"/v1/jobs/{id}").status_code == 404
        assert not server.service.runner.folder(id).exists()


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


def test_on_a_full_disk_a_deletion_makes_room_first(server: Running, monkeypatch) -> None:
    id = server.submit("0.5")
    server.ended(id)
    delete = server.service.store.delete

    def full(id: str) -> bool:
        if files_of(server, id):
            raise ServerError("the disk is full")
        return delete(id)

    monkeypatch.setattr(server.service.store, "delete", full)
    assert server.http.delete(f"/v1/jobs/{id}").status_code == 204
    assert server.http.get(f"/v1/jobs/{id}").status_code == 404


def test_an_end_that_cannot_be_written_down_is_written_later(tmp_path: Path, monkeypatch) -> None:
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        finish, tries = server.service.store.finish, []

        def full(*values) -> bool:
            tries.append(values)
            if len(tries) < 3:
                raise ServerError("the disk is full")
            return finish(*values)

        monkeypatch.setattr(server.service.store, "finish", full)
        assert server.ended(server.submit("0.5"))["status"] == "done"
        assert len(tries) == 3


def test_an_end_that_is_never_written_down_is_a_job_cut_off(tmp_path: Path, monkeypatch) -> None:
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        tries = []

        def full(*values) -> bool:
            tries.append(values)
            raise ServerError("the disk is full")

        monkeypatch.setattr(server.service.store, "finish", full)
        id = server.submit("0.5")
        eventually(lambda: tries)
    with running(tmp_path / "data", serve_scorers.by_text) as server:
        assert server.ended(id)["status"] == "done"


def test_an_end_that_no_database_takes_holds_up_nobody(server: Running) -> None:
    bad, good = server.submit("undecoded"), server.submit("0.5")
    assert server.ended(bad)["error"]["error"] == "InternalError"
    assert server.ended(good)["status"] == "done"


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EAGAIN, "try again"), ValueError("a bug")])
def test_a_job_whose_process_cannot_start_waits(server: Running, monkeypatch, error: Exception) -> None:
    tries = []

    def start(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise error
        return Process(*arguments)

    monkeypatch.setattr(pool, "Process", start)
    assert server.ended(server.submit("0.5"))["status"] == "done"
    assert len(tries) == 2


@pytest.mark.parametrize("what", ["it has ended", "it hangs"])
def test_a_server_that_runs_no_jobs_says_so(server: Running, monkeypatch, what: str) -> None:
    if what == "it hangs":
        monkeypatch.setattr("avdetect.serve.service._LONGEST_ROUND_SECONDS", -1.0)
    else:
        monkeypatch.setattr(server.service.runner, "is_alive", lambda: False)
    answer = server.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})


def test_a_disk_that_is_nearly_full_takes_no_upload(tmp_path: Path) -> None:
    with running(tmp_path / "data", serve_scorers.by_text, free_bytes=10**18) as server:
        for _ in range(2):
            answer = server.send("0.5")
            assert (answer.status_code, answer.json()["error"]) == (507, "Storage")
        assert not list((tmp_path / "data" / "incoming").iterdir())


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    settings = ServeSettings(data=tmp_path / "data")
    with Service(settings, serve_scorers.by_text), pytest.raises(ConfigError, match="another avdetect serve"):
        Service(settings, serve_scorers.by_text).__enter__()
    with Service(settings, serve_scorers.by_text):
        pass  # the lock went with the first one


def test_a_folder_that_is_a_file_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--data"):
        Service(ServeSettings(data=tmp_path / "file"), serve_scorers.by_text).__enter__()


@pytest.mark.parametrize("name", ["incoming", "jobs"])
def test_a_folder_of_somebody_elses_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "holiday").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ConfigError, match="holds other files"):
            Service(ServeSettings(data=tmp_path), serve_scorers.by_text).__enter__()
    assert (tmp_path / name / "holiday").is_dir()


def test_what_is_on_the_disk_is_for_our_eyes_only(server: Running) -> None:
    id = server.submit("0.5")
    server.ended(id)
    data = server.service.settings.data
    for path in (data, data / "jobs", data / "incoming", server.service.runner.folder(id)):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (data / "jobs.sqlite").stat().st_mode & 0o077 == 0


def test_health_and_metrics(server: Running) -> None:
    assert server.http.get("/healthz").json() == {"status": "ok"}
    text = server.http.get("/metrics").text
    for name in ("avdetect_jobs_total", "avdetect_scoring_seconds_bucket", "avdetect_queued_jobs",
                 "avdetect_upload_bytes_total", "process_resident_memory_bytes"):  # fmt: skip
        assert name in text


def test_unknown_addresses_and_methods_answer_in_the_same_form(server: Running) -> None:
    for method, path, status in (
        ("GET", "/v1/none", 404),
        ("PUT", "/v1/jobs", 405),
        ("GET", "/static/..%2fapp.py", 404),
    ):
        answer = server.http.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "message"}


def test_the_documentation_needs_no_other_host(server: Running) -> None:
    page = server.http.get("/docs").text
    for path in server.http.get("/openapi.json").json()["paths"]:
        assert path in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\clip.mp4", "clip.mp4"),
        ("a\nb\x1b[31m.mp4", "a\\nb\\x1b[31m.mp4"),
        ("evil\u202e4pm.exe", "evil\\u202e4pm.exe"),
        ("", "upload"),
        ("/", "upload"),
        ("..", ".."),
        ("ü" * 500 + ".mp4", "ü" * 60 + "…" + "ü" * 55 + ".mp4"),
    ],
)
def test_names_of_uploads_are_fit_to_be_shown(given: str, shown: str) -> None:
    assert display_name(given) == shown


def test_a_client_that_goes_away_leaves_nothing(server: Running) -> None:
    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n0.5'
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError), httpx.Client(base_url=server.url) as http:
        http.post("/v1/score", content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    eventually(lambda: os.listdir(server.service.settings.data / "incoming") == [], 10)
