"""What results are written to, one by one and in order: `add` each, then `close` once, or `abort`.

Every `add` takes what `report.data.to_dict` makes of a result, and files grow by it.

Files are UTF-8, whatever the terminal speaks. A CSV for Excel begins with a byte order mark, without which Excel reads
é as Ã©. It has to be asked for: to Python's csv and to R the mark is a part of the first column's name.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from avdetect._csv import csv_line
from avdetect.errors import AVDetectError
from avdetect.files import only_ours
from avdetect.report.data import CSV_COLUMNS, csv_row, printable, to_row

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
    """Text that goes to standard output (None), or to a file."""

    def __init__(self, target: Path | None, head: str = "") -> None:
        self._target, self._file = target, sys.stdout
        if target is not None:
            with _writing(target):
                self._file = open(target, "w", encoding="utf-8", newline="", opener=only_ours)  # noqa: SIM115
        self._write(head)

    def _write(self, text: str) -> None:
        with _writing(self._target):
            self._file.write(text)
            if self._target is not None:
                self._file.flush()

    def close(self) -> None:
        with _writing(self._target):
            self._file.flush()
            if self._target is not None:
                self._file.close()

    def abort(self) -> None:
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
    """A line a result, each what stands in `results` of `report.data.to_json`."""

    def add(self, result: Mapping[str, Any]) -> None:
        self._write(json.dumps(result) + "\n")


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
        # Also a name that a spreadsheet takes for a formula stays as it is: the competition looks for this very name.
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
    with suppress(OSError), open(path, "rb", opener=only_ours) as file:
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
        self._rows.append(to_row(result) | {"segments": result.get("segments")})

    def close(self) -> None:
        from rich.console import Console

        from avdetect.report.text import notes, table

        console = Console(highlight=False)
        console.print(table(self._rows))
        if below := notes(self._rows):
            console.print("", *below, sep="\n")
        if limit := next((row["limit"] for row in self._rows if row["limit"]), ""):
            console.print(f"\n{limit}", markup=False)
        if self._more:
            console.print(f"... and {self._more} more: --out FILE writes them all")

    def abort(self) -> None:
        pass


def table_for(target: Path, *, excel: bool = False) -> Table:
    """The table that a name in .csv or .jsonl asks for, opened. excel: of a CSV. Raises AVDetectError."""
    return JsonLines(target) if target.suffix == ".jsonl" else CsvTable(target, excel=excel)
