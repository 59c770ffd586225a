"""What `avdetect serve` says of itself in OpenAPI is what it does: Schemathesis, with bounded, repeatable examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from serve_running import Running

from avdetect.extras import how_to_install
from avdetect.serve.app import build_app
from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings

pytest.importorskip("schemathesis", reason=how_to_install("dev"))
import schemathesis
from schemathesis import GenerationMode

CHOSEN = settings(
    **{"max_examples": 5, "deadline": None, "derandomize": True, "database": None},
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


# By its own document: Schemathesis's plugin for pytest breaks with pytest 9.
API = schemathesis.openapi.from_dict(build_app(Service(ServeSettings(data=Path("unused")))).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in API.get_all_operations()}


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, GenerationMode.POSITIVE) for name in OPERATIONS]
    # The others take no parameter that could be wrong: any text may be the name of a job.
    + [(name, GenerationMode.NEGATIVE) for name in ("POST /v1/score", "GET /v1/jobs")],
)
def test_every_answer_is_as_the_schema_says(name: str, mode: GenerationMode, server: Running) -> None:
    @CHOSEN
    @given(OPERATIONS[name].as_strategy(generation_mode=mode))
    def check(case) -> None:
        case.call_and_validate(base_url=server.url, timeout=10)

    check()


def test_every_state_of_a_job_is_as_the_schema_says(server: Running) -> None:
    ended = [server.submit(text) for text in ("0.9", "abstain", "bad")]
    slow, waiting = server.submit("slow"), server.submit("0.1")
    server.scoring(slow)
    for id in (*ended, waiting, slow):
        for end in ("", "/result", "/report", "/cancel"):
            operation = API[f"/v1/jobs/{{id}}{end}"]["POST" if end == "/cancel" else "GET"]
            operation.Case(path_parameters={"id": id}).call_and_validate(base_url=server.url)
    API["/v1/jobs"]["GET"].Case().call_and_validate(base_url=server.url)
