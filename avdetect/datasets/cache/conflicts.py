"""Files of equal bytes in a manifest that contradict each other: a wrong label, or a clip on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from avdetect.datasets.manifest import LABELS

ONE_CONTENT = (*LABELS, "split")  # what files of equal bytes must agree in; their groups are joined when folds are cut


def find_conflicts(table: pd.DataFrame, sha256: Sequence[str]) -> pd.DataFrame:
    """Files that differ from the first file of the same bytes in ONE_CONTENT: path, other, differs.

    `sha256` of each row of `table`, a valid manifest; "" for a file that gave no clips, which contradicts nobody (a
    hundred empty files are one content).
    """
    given = table.reset_index(drop=True)[["path", *ONE_CONTENT]].assign(sha256=list(sha256))
    given = given[(given["sha256"] != "") & given["sha256"].duplicated(keep=False)]
    first = given.drop_duplicates("sha256").set_index("sha256").reindex(given["sha256"])
    differs = [""] * len(given)
    for name in ONE_CONTENT:
        for row, (mine, other) in enumerate(zip(_texts(given[name]), _texts(first[name]), strict=True)):
            if mine != other:
                differs[row] += f"{', ' if differs[row] else ''}{name} ({mine} against {other})"
    found = pd.DataFrame({"path": given["path"].to_numpy(), "other": first["path"].to_numpy(), "differs": differs})
    return found[found["differs"] != ""].reset_index(drop=True)


def _texts(column: pd.Series) -> list[str]:
    return ["unknown" if value is pd.NA else str(value) for value in column]
