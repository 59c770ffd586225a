"""The jobs of `avdetect serve` in SQLite: states, restarts, and any order of events. The file: test_jobs_store.py."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
from avdetect.serve.store import ENDED, TRIES, JobStore

VERDICT = {"verdict": "fake", "fake": 0.9}


@pytest.fixture
def store(tmp_path: Path):
    made = JobStore(tmp_path / "jobs.sqlite")
    yield made
    made.close()


def add(store: JobStore, id: str, most: int = 100) -> bool:
    return store.add(id, f"{id}.mp4", 3, 0.0, None, most_queued=most)


def test_jobs_run_in_their_order_and_end_once(store: JobStore) -> None:
    assert all(add(store, id) for id in "abc")
    assert [job.id for job in store.page(10)] == ["c", "b", "a"]
    assert store.claim().id == "a"
    assert store.position(store.get("c")) == 1
    assert store.finish("a", VERDICT)
    assert store.get("a").summary == VERDICT
    assert not store.fail("a", "MediaError", "late")
    assert not store.cancel("a")
    assert store.cancel("b")
    assert store.claim().id == "c"
    assert store.claim() is None


def test_the_queue_is_bounded(store: JobStore) -> None:
    assert add(store, "a", most=2)
    assert add(store, "b", most=2)
    assert not add(store, "c", most=2)
    store.claim()
    assert add(store, "c", most=2)


def test_a_job_that_is_put_back_keeps_its_place(store: JobStore) -> None:
    add(store, "a")
    add(store, "b")
    store.claim()
    assert store.put_back("a")
    assert store.claim().id == "a"


def test_pages_go_on_where_the_last_one_ended(store: JobStore) -> None:
    for id in "abcde":
        add(store, id)
    first = store.page(2)
    assert [job.id for job in first] == ["e", "d"]
    assert [job.id for job in store.page(9, before=first[-1].number)] == ["c", "b", "a"]


def test_what_was_cut_off_is_run_once_more(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path)
    add(store, "a")
    for cut_off in range(TRIES):
        assert store.claim().cut_off == cut_off
        store.close()
        store = JobStore(path)
        store.recover()
    job = store.get("a")
    assert (job.status, job.error) == ("failed", "WorkerError")
    assert "twice" in job.message
    store.close()


def test_a_job_that_waits_is_not_cut_off(store: JobStore) -> None:
    add(store, "a")
    for _ in range(5):
        store.recover()
    assert store.get("a").status == "queued"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "claim", "finish", "fail", "cancel", "put_back", "delete", "recover"]),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(EVENTS)
def test_in_any_order_of_events_an_ended_job_stays_as_it_ended(events: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(Path(folder) / "jobs.sqlite")
        ends: dict[str, str] = {}
        for event, id in events:
            known = store.get(id)
            if event == "add" and known is None:
                add(store, id)
            elif event in ("claim", "recover"):
                getattr(store, event)()
            elif event == "finish":
                store.finish(id, VERDICT)
            elif event == "fail":
                store.fail(id, "MediaError", "broken")
            elif event in ("cancel", "put_back"):
                getattr(store, event)(id)
            elif event == "delete":
                store.delete(id)
                ends.pop(id, None)
            for job in store.page(10):
                assert ends.setdefault(job.id, job.status) == job.status or ends[job.id] not in ENDED
                ends[job.id] = job.status
                assert (job.ended is not None) == (job.status in ENDED)
                assert (job.summary is not None) == (job.status == "done")
                assert (job.error is not None) == (job.status == "failed")
        store.close()
