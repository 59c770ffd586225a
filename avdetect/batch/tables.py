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
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

from avdetect.errors import AVDetectError, ConfigError
from avdetect.files import Replacement
from avdetect.report.data import CSV_COLUMNS, SCHEMA, THRESHOLDS, csv_line, csv_row, printable, to_row

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
_SUBMISSION = "filename,label\n"  # the first line
NO_ANSWER = 0.5  # what a submission must say of a file that was not judged; nothing else ever says it


class Table(Protocol):
    """Where results go."""

    def add(self, result: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Stream:
    """Text that ends up in standard output, or in a file: at once, or (whole) only when all of it is there."""

    def __init__(self, target: Path | None, *, whole: bool = False) -> None:
        self._target, self._file = target, sys.stdout
        self._hidden: Replacement | None = None
        if target is not None:
            with _writing(target):
                self._hidden = Replacement(target) if whole else None
                file = self._hidden.file if self._hidden else target.open("wb")
                self._file = io.TextIOWrapper(file, encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        if self._target is None:
            self._file.write(text)  # an OSError of standard output is the command line's to explain
            return
        with _writing(self._target):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        if self._target is None:
            self._file.flush()
            return
        with _writing(self._target):
            if self._hidden is not None:
                self._file.flush()
                self._hidden.finish()
            self._file.close()

    def abort(self) -> None:
        if self._hidden is not None:
            self._hidden.abandon()
        if self._target is not None:
            with suppress(OSError):
                self._file.close()


class _writing:
    """Turns an OSError into what the user can do."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _where: Any) -> None:
        if isinstance(error, OSError):
            raise AVDetectError(f"cannot write {self._target}: {error.strerror or error}") from error


class _Text:
    """A table that is text. target: None is standard output."""

    def __init__(self, target: Path | None, *, whole: bool = False) -> None:
        self._out = _Stream(target, whole=whole)

    def close(self) -> None:
        self._out.close()

    def abort(self) -> None:
        self._out.abort()


class CsvTable(_Text):
    """A header, and a row a result. excel: begin with a byte order mark."""

    def __init__(self, target: Path | None, *, excel: bool = False) -> None:
        super().__init__(target)
        self._out.write(("\ufeff" if excel else "") + csv_line(CSV_COLUMNS))

    def add(self, result: Mapping[str, Any]) -> None:
        self._out.write(csv_row(result))


class JsonLines(_Text):
    """A line a result, each what stands in `results` of the JSON document."""

    def add(self, result: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(result) + "\n")


class JsonDocument(_Text):
    """The text of `report.data.to_json`, without holding more than one result."""

    def __init__(self, target: Path | None) -> None:
        super().__init__(target, whole=True)
        self._empty = True
        self._out.write(f'{{\n  "schema": "{SCHEMA}",\n  "results": [')

    def add(self, result: Mapping[str, Any]) -> None:
        text = textwrap.indent(json.dumps(result, indent=2), "    ")
        self._out.write(("\n" if self._empty else ",\n") + text)
        self._empty = False

    def close(self) -> None:
        self._out.write("]\n}\n" if self._empty else "\n  ]\n}\n")
        super().close()


class ParquetTable:
    """The rows of the CSV, with numbers at full precision."""

    def __init__(self, target: Path) -> None:
        from avdetect.batch import parquet

        self._target = target
        with _writing(target):
            self._hidden = Replacement(target)
            self._rows = parquet.RowGroups(self._hidden.file)

    def add(self, result: Mapping[str, Any]) -> None:
        with _writing(self._target):
            self._rows.add(to_row(result))

    def close(self) -> None:
        with _writing(self._target):
            self._rows.close()
            self._hidden.finish()

    def abort(self) -> None:
        with suppress(OSError):
            self._rows.abort()
        with suppress(OSError):
            self._hidden.abandon()


class KaggleTable(_Text):
    """DFDC's submission: `filename,label`, the label being P(fake), and NO_ANSWER where there is none."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._out.write(_SUBMISSION)
        self.unanswered: Counter[str] = Counter()  # "abstained", "failed"
        self._names: Counter[str] = Counter()

    @property
    def repeated(self) -> int:
        """Names that stand in it more than once, as files of one name in several folders do."""
        return sum(count > 1 for count in self._names.values())

    def add(self, result: Mapping[str, Any]) -> None:
        fake = result.get("fake")
        if fake is None:
            self.unanswered["failed" if result["status"] == "failed" else "abstained"] += 1
        name = printable(os.path.basename(result["path"]))
        self._names[name] += 1
        self._out.write(csv_line([name, f"{NO_ANSWER if fake is None else fake:.6f}"]))


def is_submission(path: Path) -> bool:
    """Whether a file begins as a KaggleTable does."""
    try:
        with path.open("rb") as file:
            return file.readline(len(_SUBMISSION)) == _SUBMISSION.encode()
    except OSError:
        return False


class TerminalTable:
    """For people: printed when all is there, as long as it can be read at all."""

    MOST_ROWS = 1000

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._count = 0

    def add(self, result: Mapping[str, Any]) -> None:
        self._count += 1
        if self._count <= self.MOST_ROWS:
            self._rows.append(to_row(result) | {name: result.get(name) for name in (*THRESHOLDS, "limit")})

    def close(self) -> None:
        from rich.console import Console

        from avdetect.report.text import table

        console = Console(highlight=False)
        console.print(table(self._rows))
        if limit := next((row["limit"] for row in self._rows if row.get("limit")), ""):
            console.print(f"\n{limit}")
        if more := self._count - len(self._rows):
            console.print(f"... and {more} more: --out FILE writes them all")

    def abort(self) -> None:
        pass


def check_name(target: Path) -> None:
    """Raises ConfigError where no table has a name like this, ToolError where its library is missing."""
    if target.suffix not in SUFFIXES:
        raise ConfigError(f"--out {target}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if target.suffix == ".parquet":
        from avdetect.batch import parquet

        parquet.require()


def table_for(target: Path, *, excel: bool = False) -> Table:
    """The table that its name asks for, opened. excel: of a CSV. Raises ConfigError, AVDetectError."""
    check_name(target)
    kinds: dict[str, Callable[[Path], Table]] = {
        ".csv": partial(CsvTable, excel=excel),
        ".jsonl": JsonLines,
        ".json": JsonDocument,
        ".parquet": ParquetTable,
    }
    return kinds[target.suffix](target)


def table_for_stdout(as_json: bool, stream: TextIO) -> Table:
    """JSON where it is asked for, CSV in a pipe, and a table on a terminal."""
    return JsonDocument(None) if as_json else TerminalTable() if stream.isatty() else CsvTable(None)
