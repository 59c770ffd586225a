"""Lines of CSV with texts of strangers in them, which people open in spreadsheets."""

import re
from collections.abc import Iterable
from typing import Any

# For a spreadsheet that separates by ; or tab, and so knows no quotes within a cell, one begins behind each of these.
_BEGINNING, _FORMULA = r"(?:^|(?<=[;\t\r\n]))", r"[ '\"]*[=+\-@]"


def defused(cell: Any) -> Any:
    """A cell in which no spreadsheet finds a formula, whatever it takes for a separator: an apostrophe stands before
    what would begin one. Other values are left as they are."""
    return re.sub(rf"{_BEGINNING}(?={_FORMULA})", "'", cell) if isinstance(cell, str) else cell


def fused(cell: str) -> str:
    """What `defused` was given."""
    return re.sub(rf"{_BEGINNING}'(?={_FORMULA})", "", cell)


def csv_line(cells: Iterable[Any]) -> str:
    """A line of CSV: None and NaN are empty, numbers have four decimals. What holds the separator of any spreadsheet is
    quoted."""
    return ",".join(map(_csv_cell, cells)) + "\n"


def _csv_cell(cell: Any) -> str:
    if cell is None or cell != cell:
        return ""
    text = f"{cell:.4f}" if isinstance(cell, float) else str(cell)
    return '"' + text.replace('"', '""') + '"' if re.search('[,;\t"\r\n]', text) else text
