"""What results are written to, one by one and in order: `add` each, then `close` once, or `abort`.

CSV and JSON Lines grow while they are written. JSON and Parquet are whole or absent: they grow under a hidden name
beside the target, which takes its name when closed. Every `add` takes what `report.data.to_dict` makes of a result.

Files are UTF-8, whatever the terminal speaks. A CSV for Excel begins with a byte order mark, without which Excel reads
é as Ã©. It has to be asked for: to Python's csv and to R the mark is a part of the first column's name.
"""

from __future__ import annotations

import io
import json
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import Replacement
from avdetect.report.data import CSV_COLUMNS, SCHEMA, csv_line, csv_row, printable, to_row

_SUBMISSION = "filename,label\n"  # the first line
NO_ANSWER = 0.5  # what a submission must say of a file that was not judged; nothing else ever says it


class Table(Protocol):
    """Where results go."""

    def add(self, result: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


@contextmanager
def _writing(target: Path | None) -> Iterator[None]:
    """Turns an OSError into what the user can do. One of standard output (None) is the command line's to explain."""
    try:
        yield
    except OSError as error:
        if target is None:
            raise
        raise AVDetectError(f"cannot write {target}: {error.strerror or error}") from error


class _TextTable:
    """Text that goes to standard output (None), or to a file: at once, or (whole) only when all of it is there."""

    def __init__(self, target: Path | None, head: str = "", *, whole: bool = False) -> None:
        self._target, self._file = target, sys.stdout
        self._hidden: Replacement | None = None
        if target is not None:
            with _writing(target):
                self._hidden = Replacement(target) if whole else None
                file = self._hidden.file if self._hidden else target.open("wb")
                self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._write(head)

    def _write(self, text: str) -> None:
        with _writing(self._target):
            self._file.write(text)
            if self._target is not None:
                self._file.flush()

    def close(self) -> None:
        with _writing(self._target):
            self._file.flush()
            if self._hidden is not None:
                self._hidden.finish()
            if self._target is not None:
                self._file.close()

    def abort(self) -> None:
        if self._hidden is not None:
            self._hidden.abandon()
        if self._target is not None:
            with suppress(OSError):
                self._file.close()


class CsvTable(_TextTable):
    """A header, and a row a result. excel: begin with a byte order mark."""

    def __init__(self, target: Path | None, *, excel: bool = False) -> None:
        super().__init__(target, ("\ufeff" if excel else "") + csv_line(CSV_COLUMNS))

    def add(self, result: Mapping[str, Any]) -> None:
        self._write(csv_row(result))


class JsonLines(_TextTable):
    """A line a result, each what stands in `results` of the JSON document."""

    def add(self, result: Mapping[str, Any]) -> None:
        self._write(json.dumps(result) + "\n")


class JsonDocument(_TextTable):
    """The text of `report.data.to_json`, without holding more than one result."""

    def __init__(self, target: Path | None) -> None:
        super().__init__(target, f'{{\n  "schema": "{SCHEMA}",\n  "results": [', whole=True)
        self._empty = True

    def add(self, result: Mapping[str, Any]) -> None:
        text = textwrap.indent(json.dumps(result, indent=2), "    ")
        self._write(("\n" if self._empty else ",\n") + text)
        self._empty = False

    def close(self) -> None:
        self._write("]\n}\n" if self._empty else "\n  ]\n}\n")
        super().close()


class ParquetTable:
    """The rows of the CSV, with numbers at full precision."""

    def __init__(self, target: Path) -> None:
        from avdetect.batch.parquet import RowGroups

        self._target = target
        with _writing(target):
            self._hidden = Replacement(target)
            self._rows = RowGroups(self._hidden.file)

    def add(self, result: Mapping[str, Any]) -> None:
        with _writing(self._target):
            self._rows.add(to_row(result))

    def close(self) -> None:
        with _writing(self._target):
            self._rows.close()
            self._hidden.finish()

    def abort(self) -> None:
        with suppress(OSError):
            self._rows.close(whole=False)
        with suppress(OSError):
            self._hidden.abandon()


class KaggleTable(_TextTable):
    """DFDC's submission: `filename,label`, the label being P(fake), and NO_ANSWER where there is none."""

    def __init__(self, target: Path) -> None:
        super().__init__(target, _SUBMISSION)
        self._unanswered: Counter[str] = Counter()  # "abstained", "failed"
        self._names: Counter[str] = Counter()

    def add(self, result: Mapping[str, Any]) -> None:
        fake = result.get("fake")
        if fake is None:
            self._unanswered["failed" if result["status"] == "failed" else "abstained"] += 1
        name = printable(os.path.basename(result["path"]))
        self._names[name] += 1
        self._write(csv_line([name, f"{NO_ANSWER if fake is None else fake:.6f}"]))

    def notes(self) -> Iterator[str]:
        """What the user should know of it."""
        if self._unanswered:
            said = " and ".join(f"{count} that {kind}" for kind, count in sorted(self._unanswered.items()))
            yield f"--kaggle: the label is 0.5 for {said}; it says nothing about these files"
        if repeated := sum(count > 1 for count in self._names.values()):
            names = "1 name stands" if repeated == 1 else f"{repeated} names stand"
            yield f"--kaggle: {names} in it more than once (listed twice, or in several folders)"


def is_submission(path: Path) -> bool:
    """Whether a file begins as a KaggleTable does."""
    with suppress(OSError), path.open("rb") as file:
        return file.readline(len(_SUBMISSION)) == _SUBMISSION.encode()
    return False


class TerminalTable:
    """For people: printed when all is there, as long as it can be read at all."""

    MOST_ROWS = 1000

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._more = 0

    def add(self, result: Mapping[str, Any]) -> None:
        if len(self._rows) == self.MOST_ROWS:
            self._more += 1
            return
        added = {name: result.get(name) for name in ("undecided_threshold", "fake_threshold", "limit")}
        self._rows.append(to_row(result) | added)

    def close(self) -> None:
        from rich.console import Console

        from avdetect.report.text import table

        console = Console(highlight=False)
        console.print(table(self._rows))
        if limit := next((row["limit"] for row in self._rows if row["limit"]), ""):
            console.print(f"\n{printable(limit)}", markup=False)
        if self._more:
            console.print(f"... and {self._more} more: --out FILE writes them all")

    def abort(self) -> None:
        pass


_TABLES = {".csv": CsvTable, ".jsonl": JsonLines, ".json": JsonDocument, ".parquet": ParquetTable}


def check_name(target: Path) -> None:
    """Raises ConfigError where no table has a name like this, ToolError where its library is missing."""
    if target.suffix not in _TABLES:
        raise ConfigError(f"--out {target}: the name must end in .csv, .jsonl, .json or .parquet")
    if target.suffix == ".parquet":
        from avdetect.batch import parquet

        parquet.require()


def table_for(target: Path, *, excel: bool = False) -> Table:
    """The table that a checked name asks for, opened. excel: of a CSV. Raises AVDetectError."""
    make: Callable[[Path], Table] = partial(CsvTable, excel=True) if excel else _TABLES[target.suffix]
    return make(target)


def table_for_stdout(as_json: bool) -> Table:
    """JSON where it is asked for, CSV in a pipe, and a table on a terminal."""
    return JsonDocument(None) if as_json else TerminalTable() if sys.stdout.isatty() else CsvTable(None)
