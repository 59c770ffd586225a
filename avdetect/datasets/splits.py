"""Cutting a manifest without cutting a group: train/dev/test for sets that have no splits, and folds for fusion."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from avdetect.errors import ManifestError

LABELS = ("fake", "video_fake", "audio_fake")
SPLITS = ("train", "dev", "test")
MAX_UNITS = (
    4096  # StratifiedGroupKFold takes a good 0.1 ms a group: beyond this number, groups are dealt out in batches
)


def folds(
    table: pd.DataFrame, number: int, by: Literal["group", "dataset"] = "group", labels: Sequence[str] = LABELS
) -> pd.Series:
    """The fold (0 .. number - 1) of every row, the same for any order of the rows.

    `by` names the column that is never split; a group, and a fake's group with its original's, is never split either
    way, so that with by="dataset" the datasets that share one stay together. Stratified over the medium and the
    combination of `labels` with scikit-learn's StratifiedGroupKFold: by="group" deals out files, by="dataset" sources
    of real material and generators (`origins`), which weigh alike however many files they have.

    Raises ManifestError where a fold could not be trained or judged: too few groups, or an output of which one class is
    missing outside the fold, or in it although enough groups have that class.
    """
    if number < 2:
        raise ManifestError(f"{number} fold(s): at least 2 are needed")
    unit = units(table, by)
    count = int(unit.max()) + 1 if len(unit) else 0
    if count < number:
        what = "group(s)" if by == "group" else "dataset(s) that share no group"
        raise ManifestError(f"{count} {what} cannot be cut into {number} folds; {_advice(by)}")
    values = np.stack([_label(table, name) for name in labels], axis=1)  # (N, L), -1 unknown
    fold = _stratified(table, unit % MAX_UNITS, values, number, by)
    check_folds(fold, unit, values, number, by, labels)
    return pd.Series(fold, index=table.index, name="fold")


def media(table: pd.DataFrame) -> np.ndarray:
    """(N,) "clips", "speech" or "stills" by the column `kind` (speech, speech-tts, still ...), else clips."""
    first = _text(table, "kind").str.replace("-.*", "", regex=True)
    return first.map({"speech": "speech", "still": "stills"}).fillna("clips").to_numpy(object)


def origins(table: pd.DataFrame, fake: np.ndarray) -> np.ndarray:
    """(N,) what a file stands for: where `fake` (N,) bool, its generator (`method`), else the source that it is from.

    A fake of unstated method is one of its source's.
    """
    method, source = (_text(table, name).to_numpy(object) for name in ("method", "dataset"))
    return np.where(fake & (method != ""), "generator: " + method, "source: " + source)


def _text(table: pd.DataFrame, column: str) -> pd.Series:
    """(N,) of str; "" where missing, or where there is no such column."""
    if column not in table:
        return pd.Series("", index=table.index)
    return table[column].astype(object).where(table[column].notna(), "").astype(str)


def units(table: pd.DataFrame, by: Literal["group", "dataset"]) -> np.ndarray:
    """(N,) number of what a fold never splits: groups joined by originals, or datasets that share such a family."""
    if by not in ("group", "dataset"):
        raise ManifestError(f"folds by {by!r}: it must be 'group' or 'dataset'")
    _, group, family = families(table)
    return family[group] if by == "group" else joined(table["dataset"], pd.Series(family[group]))


def families(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the groups (G,), sorted; the group of each row (N,); the family of each group (G,).

    A fake's group is of one family with the group of its original; fakes of one absent original are one family too,
    and so are files of equal bytes, where the table has their `sha256`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names, group = np.unique(table["group"].to_numpy(object), return_inverse=True)
    if not {"path", "original"} <= set(table.columns):
        return names, group, np.arange(len(names))
    original = table["original"].fillna("").astype(str)
    fakes = (original != "").to_numpy(bool)
    sources = table["path"].isin(original[fakes]).to_numpy(bool)
    files, place = np.unique(
        np.concatenate([table["path"].to_numpy(object)[sources], original.to_numpy(object)[fakes]]), return_inverse=True
    )
    owner, place = np.concatenate([group[sources], group[fakes]]), place + len(names)
    size = len(names) + len(files)
    if "sha256" in table:
        contents = table["sha256"].fillna("").astype(str)
        known = (contents != "").to_numpy(bool)
        content = np.unique(contents.to_numpy(object)[known], return_inverse=True)[1]
        owner, place = np.concatenate([owner, group[known]]), np.concatenate([place, content + size])
        size += len(content)
    ends = owner, place
    edges = coo_matrix((np.ones(len(place), bool), ends), shape=(size, size))
    return names, group, connected_components(edges, directed=False)[1][: len(names)]


def joined(left: pd.Series, right: pd.Series) -> np.ndarray:
    """(N,) number of the connected component of each row, where a row joins its two names."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, left_codes = np.unique(left.to_numpy(object), return_inverse=True)
    b, right_codes = np.unique(right.to_numpy(object), return_inverse=True)
    size = len(a) + len(b)
    edges = coo_matrix((np.ones(len(left), bool), (left_codes, right_codes + len(a))), shape=(size, size))
    return connected_components(edges, directed=False)[1][left_codes]


def _label(table: pd.DataFrame, name: str) -> np.ndarray:
    """(N,) 0, 1, or -1 where unknown, of any spelling of labels."""
    return pd.to_numeric(table[name], errors="coerce").astype("Float64").fillna(-1).to_numpy(np.int64)


def _stratified(table: pd.DataFrame, unit: np.ndarray, values: np.ndarray, number: int, by: str) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    medium = np.unique(media(table), return_inverse=True)[1]
    strata = np.column_stack([values + 1, medium]) @ (3 ** np.arange(values.shape[1] + 1))
    dealt = pd.DataFrame({"unit": unit, "stratum": strata})
    if by == "dataset":
        alike = dealt.assign(origin=origins(table, _label(table, "fake") == 1)).drop_duplicates()
        if alike["stratum"].value_counts().iloc[0] >= number:  # else there are too few: files are dealt out
            dealt = alike
    dealt = dealt.sort_values(["unit", "stratum"])  # no order of the rows may change a tie in the splitter
    owner = dealt["unit"].to_numpy()
    fold = np.zeros(unit.max() + 1, np.int64)  # of each unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare combination of labels is no error; a missing class is
        try:
            parts = list(StratifiedGroupKFold(number).split(owner, dealt["stratum"].to_numpy(), owner))
        except ValueError as error:  # no combination of labels has as many rows as there are folds
            raise ManifestError(f"{len(unit)} rows cannot be cut into {number} folds: {error}") from error
    for k, (_, held) in enumerate(parts):
        fold[owner[held]] = k
    return fold[unit]


def check_folds(
    fold: np.ndarray, unit: np.ndarray, values: np.ndarray, number: int, by: str, labels: Sequence[str]
) -> None:
    """Raise ManifestError where a class is missing outside a fold, or in it although enough units have it.

    `fold`, `unit` (N,); `values` (N, L) with -1 for unknown.
    """
    what = "groups" if by == "group" else "datasets"
    if len(np.unique(fold)) < number:
        raise ManifestError(f"{len(np.unique(unit))} {what} of unequal sizes leave a fold empty; {_advice(by)}")
    for name, known in zip(labels, values.T, strict=True):
        if not ((known == 0).any() and (known == 1).any()):
            continue  # nothing to learn or to measure for this output, whatever the folds
        for value in (0, 1):
            has = known == value
            owners, inside = len(np.unique(unit[has])), np.bincount(fold[has], minlength=number)
            k = int(inside.argmax())
            if inside[k] == has.sum():
                raise ManifestError(
                    f"every {name} = {value} stands in fold {k} ({owners} of the {what}); {_advice(by)}"
                )
            if owners >= number and not inside.all():
                raise ManifestError(f"fold {int(inside.argmin())} has no {name} = {value}; {_advice(by)}")


def _advice(by: str) -> str:
    return "ask for fewer folds" + (" or cut by='group'" if by == "dataset" else " or add groups of that class")


def assign_splits(table: pd.DataFrame, dev: float, test: float, seed: int) -> pd.DataFrame:
    """Fill the empty cells of `split`; whole groups go to train, dev (share `dev` of the groups) or test (`test`).

    Groups that a fake and its original join go as one (`families`). One of which some rows have a split takes that one.
    For the others a hash of seed and name (the first by name of those joined) decides; each class of each label then
    comes out near the shares. Only where a small set would leave dev or test without a class, the family with the
    lowest hash is moved there, if train can spare it.

    Rows which come later therefore move no group, with two exceptions: they join it to others, or they change which
    classes dev and test lack by the hashes alone. To keep a split for certain, write it into the manifest.
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise ManifestError(f"shares dev {dev} and test {test}: each must lie in [0, 1), their sum below 1")
    split = table["split"].astype(object).where(table["split"].notna(), "").astype(str)
    names, group, family = families(table)
    first = np.unique(family, return_index=True)[1]  # of each family, the first group by name
    unit = family[group]
    given = split.to_numpy(object)
    chosen = np.full(len(first), "", object)
    chosen[unit[given != ""]] = given[given != ""]
    free = np.flatnonzero(chosen == "")
    hashes = np.array([_hash(f"{seed}:{name}") for name in names[first[free]]])
    chosen[free] = np.select([hashes < test, hashes < test + dev], ["test", "dev"], "train")
    _complete(chosen, free[np.argsort(hashes)], _presence(table, unit, len(first)), {"test": test, "dev": dev})
    return table.assign(split=pd.Series(np.where(given == "", chosen[unit], given), index=table.index).astype(str))


def _hash(text: str) -> float:
    """In [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _presence(table: pd.DataFrame, group: np.ndarray, count: int) -> np.ndarray:
    """(groups, labels * 2) whether a group has a row of this class."""
    found = np.zeros((count, 2 * len(LABELS)), bool)
    for column, name in enumerate(LABELS):
        values = _label(table, name)
        for value in (0, 1):
            found[group[values == value], 2 * column + value] = True
    return found


def _complete(chosen: np.ndarray, free: np.ndarray, has: np.ndarray, shares: dict[str, float]) -> None:
    """Move free groups (sorted by hash) from train into a wanted split that lacks a class, in place."""
    for split, share in shares.items():
        for column in range(has.shape[1]) if share > 0 else ():
            if has[chosen == split, column].any():
                continue
            for candidate in free[(chosen[free] == "train") & has[free, column]]:
                rest = chosen == "train"
                rest[candidate] = False
                if (has[rest].any(axis=0) >= has[candidate]).all():  # train keeps every class that the group has
                    chosen[candidate] = split
                    break
