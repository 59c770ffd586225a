"""What the journal of a batch holds, and what of it no table takes. Kills and strangers: test_jobs_store.py."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from batch_scorers import EMPTY

from avdetect.batch.journal import Journal
from avdetect.batch.sources import source_of
from avdetect.batch.tables import table_for
from avdetect.errors import ConfigError
from avdetect.report.data import Failure, csv_row, to_dict, to_row

IDENTITY = {"bundle": "abc", "start": 0.0, "limits": {"x": 1}}
NAMES = ["a.mp4", "b\n\udcff.mp4", "ü.mp4", "\ud800"]  # the second is no UTF-8, the last no name at all
STEERS = "\x1b[2J\x1b]0;owned\x07\u202e"


def add(journal: Journal, name: str, size: int | None = 1, message: str = "m") -> None:
    journal.add(name, (size, 5), to_dict(Failure(name, "MediaError", message)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.csv.journal"
    with Journal(path, IDENTITY) as journal:
        for name in NAMES:
            add(journal, name)
        journal.add("good", (1, 5), to_dict(EMPTY))
    return path


def test_it_holds_what_was_added_for_the_file_as_it_was(path: Path) -> None:
    with Journal(path, IDENTITY) as journal:
        assert all(journal.holds(name, (1, 5)) for name in NAMES)
        for name, signature in (("a.mp4", (2, 5)), ("a.mp4", (1, 6)), ("a.mp4", (None, None)), ("other", (1, 5))):
            assert not journal.holds(name, signature)
        assert [journal.read(name)["path"] for name in NAMES] == journal.paths[:-1] == NAMES
        add(journal, "a.mp4", 2, "later")
        assert journal.holds("a.mp4", (2, 5))
        add(journal, "absent", None)
        assert journal.holds("absent", (None, 5))
    with Journal(path, IDENTITY, retry_failed=True) as journal:
        assert journal.read("a.mp4")["message"] == "later"
        assert [journal.holds(name, (1, 5)) for name in (*NAMES, "good")] == [False] * len(NAMES) + [True]
        assert len(journal.paths) == len(NAMES) + 2  # their rows are not lost


DAMAGED = [
    *({"verdict": "innocent"}, {"verdict": STEERS}, {"fake_threshold": "high"}, {"path": ["a"]}, {"fake": "much"}),
    *({"missing": []}, {"sync": 1}, {"warnings": [1]}, {"status": "fine"}, {"status": ["scored"]}),
]


def test_what_no_table_can_take_is_damage(path: Path) -> None:
    for text in ("", "x", "[]", "[" * 3000, "{}", *(json.dumps(to_dict(EMPTY) | damage) for damage in DAMAGED)):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE results SET result = ? WHERE path = '\"a.mp4\"'", (text,))
        with Journal(path, IDENTITY) as journal, pytest.raises(ConfigError, match="is damaged: name another --out"):
            journal.read("a.mp4")


def test_no_cell_steers_a_terminal_or_ends_a_line() -> None:
    steered = {"path": STEERS, "reason": STEERS, "verdict": STEERS, "missing": {STEERS: STEERS}, "warnings": [STEERS]}
    for result in (to_dict(EMPTY) | steered, to_dict(Failure(STEERS, STEERS, STEERS))):
        assert all(cell.isprintable() for cell in to_row(result).values() if isinstance(cell, str))
    (row,) = csv.reader([csv_row(to_dict(Failure('a,"b"\n\udcff\r.mp4', "MediaError", "two\nlines, =1")))])
    assert (row[0], row[3], row[-3]) == ('a,"b"\\n\\udcff\\r.mp4', "", "two\\nlines, =1")


@pytest.mark.parametrize("excel", [False, True])
def test_a_table_for_excel_is_read_by_all(tmp_path: Path, excel: bool) -> None:
    out = tmp_path / "r.csv"
    table = table_for(out, excel=excel)
    table.add(to_dict(Failure("é 日本.mp4", "MediaError", "gone")))
    table.close()
    assert out.read_bytes().startswith(b"\xef\xbb\xbf") == excel
    assert pd.read_csv(out)["path"].tolist() == ["é 日本.mp4"]
    assert list(source_of([], out).open()) == [str(tmp_path / "é 日本.mp4")]
