"""The jobs of `avdetect serve` in SQLite: states, restarts, and any order of events. The file: test_jobs_store.py."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.extras import how_to_install

pytest.importorskip("fastapi", reason=how_to_install("serve"))
from avdetect.serve.store import ENDED, JobStore

VERDICT = {"verdict": "fake", "fake": 0.9}


@pytest.fixture
def store(tmp_path: Path):
    with JobStore(tmp_path / "jobs.sqlite") as made:
        yield made


def add(store: JobStore, id: str, most: int = 100) -> bool:
    return store.add(id, f"{id}.mp4", 3, 0.0, None, most_queued=most)


def test_jobs_run_in_their_order_and_end_once(store: JobStore) -> None:
    assert all(add(store, id) for id in "abc")
    first = store.page(2)
    assert [job.id for job in first] == ["c", "b"]
    assert [job.id for job in store.page(9, before=first[-1].number)] == ["a"]
    assert store.claim().id == "a"
    assert store.position(store.get("c")) == 1
    assert store.put_back("a")
    assert store.claim().id == "a"  # in its old place
    assert store.finish("a", VERDICT)
    assert store.get("a").summary == VERDICT
    assert not store.fail("a", "MediaError", "late")
    assert not store.cancel("a")
    assert store.cancel("b")
    assert store.claim().id == "c"
    assert store.claim() is None
    assert [add(store, id, most=2) for id in "def"] == [True, True, False]  # the queue is bounded
    store.claim()
    assert add(store, "f", most=2)


def test_what_was_cut_off_is_run_once_more(tmp_path: Path) -> None:
    for cut_off in (0, 1, 2):
        with JobStore(tmp_path / "jobs.sqlite") as store:
            if cut_off == 0:
                add(store, "a")
            for _ in range(3):
                store.recover()  # one that waits is not cut off
            job = store.claim()
            assert (job is None) if cut_off == 2 else (job.cut_off == cut_off)
            assert cut_off < 2 or store.get("a").error == "WorkerError"


def test_nobody_writes_to_know_that_nothing_waits(store: JobStore) -> None:
    """The server asks several times a second; another process may hold the file, as a backup does."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store._db.execute("PRAGMA busy_timeout = 0")
        assert store.claim() is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "claim", "finish", "fail", "cancel", "put_back", "delete", "recover"]),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(EVENTS)
def test_in_any_order_of_events_an_ended_job_stays_as_it_ended(events: list[tuple[str, str]]) -> None:
    more = {"finish": (VERDICT,), "fail": ("MediaError", "broken")}
    with tempfile.TemporaryDirectory() as folder, JobStore(Path(folder) / "jobs.sqlite") as store:
        ends: dict[str, str] = {}
        for event, id in events:
            if event == "add":
                if store.get(id) is None:
                    add(store, id)
            elif event in ("claim", "recover"):
                getattr(store, event)()
            else:
                getattr(store, event)(id, *more.get(event, ()))
            if event == "delete":
                ends.pop(id, None)
            for job in store.page(10):
                assert ends.setdefault(job.id, job.status) == job.status or ends[job.id] not in ENDED
                ends[job.id] = job.status
                assert (job.ended is not None) == (job.status in ENDED)
                assert (job.summary is not None) == (job.status == "done")
                assert (job.error is not None) == (job.status == "failed")
