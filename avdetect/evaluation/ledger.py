"""What every scored file has given, kept as soon as it is known, so that a run that was killed is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError, WorkerError
from avdetect.jobs.store import Kind, Store
from avdetect.pooling import FEATURES, STREAMS

OUTPUTS = ("p_fake", "p_video_fake", "p_audio_fake", "p_mismatch")
NUMBERS = (*FEATURES, "sync_offset_seconds", "duration_seconds", *OUTPUTS)
TEXTS = (*(f"missing_{stream}" for stream in STREAMS), "error")
RESULTS = ("bundle", "treatment", *NUMBERS, *TEXTS)
KIND = Kind(
    name="ledger of scores",
    code=0x41565343,  # "AVSC"
    version=1,
    tables="CREATE TABLE scores (path TEXT, treatment TEXT, result TEXT, PRIMARY KEY (path, treatment)) WITHOUT ROWID",
    advice="name another folder, or delete it",
)


class Ledger:
    """Rows of one bundle, by the file's path and what was done to it ("": nothing). A context manager.

    path: a SQLite file; None keeps the rows in memory only. A file whose worker died has no row in the next run: it is
    tried again. Raises ConfigError when the file holds something else, AVDetectError when it cannot be written.
    """

    def __init__(self, path: Path | None, digest: str) -> None:
        self.path, self.digest = path, digest
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}  # (path, treatment) -> RESULTS
        self._store = Store(path, KIND, {"bundle": digest})
        try:
            for row in self._store.rows("SELECT * FROM scores"):
                values = self._read(row["treatment"], row["result"])
                if not values["error"].startswith(WorkerError.__name__):
                    self.rows[json.loads(row["path"]), row["treatment"]] = values
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def add(self, path: str, treatment: str, values: Mapping[str, Any]) -> None:
        """Keep the row of a file; `values` are its NUMBERS and TEXTS."""
        text = json.dumps({name: values[name] for name in (*NUMBERS, *TEXTS)})
        self._store.change("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", json.dumps(path), treatment, text)
        self.rows[path, treatment] = self._read(treatment, text)
        self._store.sync_if_due()

    def _read(self, treatment: str, text: str) -> dict[str, Any]:
        try:
            values = json.loads(text)
            numbers = {name: float(values[name]) for name in NUMBERS}
            texts = {name: str(values[name]) for name in TEXTS}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ConfigError(f"{self.path} is damaged: {KIND.advice}") from error
        return {"bundle": self.digest, "treatment": treatment, **numbers, **texts}
