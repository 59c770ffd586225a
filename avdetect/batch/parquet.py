"""Parquet in and out, in batches of rows. The one module of scoring that names pyarrow, and only when it is asked for.

pyarrow is no dependency of scoring; `require` says how to get it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from avdetect.errors import ConfigError
from avdetect.extras import importing
from avdetect.report.data import CSV_COLUMNS, CSV_NUMBERS

_ROWS = 4096  # of a row group: a few megabytes


def require() -> None:
    """Raises ToolError without pyarrow."""
    with importing("evaluate", "Parquet (CSV needs nothing)", only="pyarrow"):
        import pyarrow  # noqa: F401


def read_column(path: Path, column: str) -> Iterator[str]:
    """The cells of a text column. Raises ConfigError."""
    require()
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise ConfigError(f"{path} has no column {column!r}: it must be a CSV or Parquet file with one")
            for batch in file.iter_batches(_ROWS, columns=[column]):
                for cell in batch.column(0).to_pylist():
                    if cell is not None and not isinstance(cell, str):
                        raise ConfigError(f"{path}: the column {column!r} must hold text, not {type(cell).__name__}")
                    yield cell or ""
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: a name that is no UTF-8
        raise ConfigError(f"cannot read the manifest {path}: {' '.join(str(error).split())}") from error


class RowGroups:
    """Writes rows of `report.data.to_row` to `file`, a row group at a time."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow
        import pyarrow.parquet

        types = [(name, pyarrow.float64() if name in CSV_NUMBERS else pyarrow.string()) for name in CSV_COLUMNS]
        self._schema, self._table = pyarrow.schema(types), pyarrow.Table
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def close(self, *, whole: bool = True) -> None:
        """Write the end of the file, and what is left before it; not whole: let go of a file that is not wanted."""
        if whole:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []
