"""A CSV that every scored file is written to as soon as it is known, so that a run that was killed goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError
from avdetect.files import replacing
from avdetect.pooling import FEATURES, STREAMS

OUTPUTS = ("p_fake", "p_video_fake", "p_audio_fake", "p_mismatch")
NUMBERS = (*FEATURES, "sync_offset_seconds", "duration_seconds", *OUTPUTS)
TEXTS = (*(f"missing_{stream}" for stream in STREAMS), "error")
RESULTS = ("bundle", "treatment", *NUMBERS, *TEXTS)


class Ledger:
    """Rows of one bundle, by the file's path and what was done to it ("": nothing). Close it, or use `with`.

    path: the CSV; None keeps the rows in memory only. Raises ConfigError when it holds something else.
    """

    def __init__(self, path: Path | None, digest: str) -> None:
        self.path, self.digest = path, digest
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}  # (path, treatment) -> RESULTS
        self._file: io.TextIOBase | None = None
        if path is not None and path.exists():
            self._read(path)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                text = file.read()
            text = text[: text.rfind("\n") + 1]  # a kill may tear the last line
            lines = csv.DictReader(io.StringIO(text, newline=""))
            if text and not {"path", *RESULTS} <= set(lines.fieldnames or ()):
                raise ConfigError(f"{path} is no scores table: name another file")
            for line in lines:
                if None in line or None in line.values():
                    continue  # torn
                if line["bundle"] != self.digest:
                    raise ConfigError(
                        f"{path} holds scores of the bundle {line['bundle']}, this one is {self.digest}: name another "
                        "file, or delete it"
                    )
                numbers = {name: float(line[name] or "nan") for name in NUMBERS}
                key = line["path"], line["treatment"]
                self.rows[key] = {name: line[name] for name in RESULTS} | numbers
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"{path} cannot be read as a scores table ({error}): delete it") from error

    def add(self, path: str, treatment: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep, and return, the row of a file; `values` are its NUMBERS and TEXTS."""
        row = self.rows[path, treatment] = {"bundle": self.digest, "treatment": treatment, **values}
        if self._file is not None:
            self._write(path, row)
        elif self.path is not None:
            self._begin(self.path)
        return row

    def _begin(self, target: Path) -> None:
        """A new file with every row so far, to which the next ones are appended."""
        with replacing(target) as file:
            self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")
            csv.writer(self._file).writerow(["path", *RESULTS])
            for (path, _), row in self.rows.items():
                self._write(path, row)
            self._file.detach()
        self._file = target.open("a", encoding="utf-8", newline="")

    def _write(self, path: str, row: Mapping[str, Any]) -> None:
        assert self._file is not None
        cells = ["" if row[name] != row[name] else row[name] for name in RESULTS]  # NaN: empty
        csv.writer(self._file).writerow([path, *cells])
        self._file.flush()
