"""What `avdetect serve` says of itself in OpenAPI is what it does: Schemathesis, with bounded, repeatable examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from serve_running import Running

from avdetect.extras import how_to_install
from avdetect.serve.app import build_app
from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings

DOCUMENT = build_app(Service(ServeSettings(data=Path("unused")))).openapi()
OPERATIONS = [f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods]
CHOSEN = settings(
    **{"max_examples": 5, "deadline": None, "derandomize": True, "database": None},
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def api() -> Any:
    """Imported where it is used: that takes seconds, and each worker of pytest-xdist imports all test files."""
    return pytest.importorskip("schemathesis", reason=how_to_install("dev")).openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "positive") for name in OPERATIONS]
    # The others take no parameter that could be wrong: any text may be the name of a job.
    + [(name, "negative") for name in ("POST /v1/score", "GET /v1/jobs")],
)
def test_every_answer_is_as_the_schema_says(name: str, mode: str, api: Any, server: Running) -> None:
    from schemathesis import GenerationMode

    method, path = name.split()

    @CHOSEN
    @given(api[path][method].as_strategy(generation_mode=GenerationMode(mode)))
    def check(case) -> None:
        case.call_and_validate(base_url=server.url, timeout=10)

    check()


def test_every_state_of_a_job_is_as_the_schema_says(api: Any, server: Running) -> None:
    ended = [server.submit(text) for text in ("0.9", "abstain", "bad")]
    slow, waiting = server.submit("slow"), server.submit("0.1")
    server.scoring(slow)
    for id in (*ended, waiting, slow):
        for end in ("", "/result", "/report", "/cancel"):
            operation = api[f"/v1/jobs/{{id}}{end}"]["POST" if end == "/cancel" else "GET"]
            operation.Case(path_parameters={"id": id}).call_and_validate(base_url=server.url)
    api["/v1/jobs"]["GET"].Case().call_and_validate(base_url=server.url)
