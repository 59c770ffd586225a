"""Cutting a manifest without cutting a group: train/dev/test for sets that have no splits, and folds for fusion."""

import hashlib
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from avdetect.errors import ManifestError

LABELS = ("fake", "video_fake", "audio_fake")
SPLITS = ("train", "dev", "test")
MAX_UNITS = 4096  # StratifiedGroupKFold takes 0.1 ms a group: beyond this number, groups are dealt out in batches


def texts(table: pd.DataFrame, column: str) -> pd.Series:
    """(N,) of str; "" where a cell is missing, or the column. Raises ManifestError where text is not Unicode."""
    if column not in table:
        return pd.Series("", index=table.index, name=column, dtype=str)
    cells = table[column]
    if cells.isna().any():
        cells = cells.astype(object).where(cells.notna(), "")
    try:
        return cells.astype(str)
    except UnicodeEncodeError as error:  # a file name that is no UTF-8
        raise ManifestError(f"{column} holds text that is not Unicode ({error.object!r}); rename the file") from error


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
    count = len(np.unique(unit))
    if count < number:
        what = "group(s)" if by == "group" else "dataset(s) that share no group"
        raise ManifestError(f"{count} {what} cannot be cut into {number} folds; {_advice(by)}")
    values = np.stack([_label(table, name) for name in labels], axis=1)  # (N, L), -1 unknown
    fold = _stratified(table, unit % MAX_UNITS, values, number, by)
    check_folds(fold, unit, values, number, by, labels)
    return pd.Series(fold, index=table.index, name="fold")


def media(table: pd.DataFrame) -> np.ndarray:
    """(N,) "clips", "speech" or "stills" by the column `kind` (speech, speech-tts, still ...), else clips."""
    first = texts(table, "kind").str.replace("-.*", "", regex=True)
    return first.map({"speech": "speech", "still": "stills"}).fillna("clips").to_numpy(object)


def origins(table: pd.DataFrame, fake: np.ndarray) -> np.ndarray:
    """(N,) what a file stands for: where `fake` (N,) its generator (`method`) if that is stated, else its source."""
    method, source = (texts(table, name).to_numpy(object) for name in ("method", "dataset"))
    return np.where(fake & (method != ""), "generator: " + method, "source: " + source)


def units(table: pd.DataFrame, by: Literal["group", "dataset"]) -> np.ndarray:
    """(N,) number of what a fold never splits: groups joined by originals, or datasets that share such a family."""
    if by not in ("group", "dataset"):
        raise ManifestError(f"folds by {by!r}: it must be 'group' or 'dataset'")
    family = families(table)
    return family if by == "group" else joined(table["dataset"], family)


def families(table: pd.DataFrame) -> np.ndarray:
    """(N,) number of the family of each row, by the first of its groups by name.

    A fake's group is of one family with the group of its original; fakes of one absent original are one family too,
    and so are files of equal bytes, where the table has their `sha256`.
    """
    group, path, original, content = (texts(table, name) for name in ("group", "path", "original", "sha256"))
    links = [(group, "group " + group)]
    for kind, name, rows in (
        ("file ", original, original != ""),
        ("file ", path, path.isin(original[original != ""])),
        ("bytes ", content, content != ""),
    ):
        links.append((group[rows], kind + name[rows]))
    left, right = (pd.concat(side, ignore_index=True) for side in zip(*links, strict=True))
    return joined(left, right)[: len(table)]


def joined(left: pd.Series | np.ndarray, right: pd.Series | np.ndarray) -> np.ndarray:
    """(N,) number of the connected component of each row, where a row joins its two names; by the first name left."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, left_codes = np.unique(np.asarray(left, object), return_inverse=True)
    b, right_codes = np.unique(np.asarray(right, object), return_inverse=True)
    size = len(a) + len(b)
    edges = coo_matrix((np.ones(len(left_codes), bool), (left_codes, right_codes + len(a))), shape=(size, size))
    return connected_components(edges, directed=False)[1][left_codes]


def _label(table: pd.DataFrame, name: str) -> np.ndarray:
    """(N,) 0, 1, or -1 where unknown, of any spelling of numbers."""
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
            cuts = list(StratifiedGroupKFold(number).split(owner, dealt["stratum"].to_numpy(), owner))
        except ValueError as error:  # no combination of labels has as many rows as there are folds
            raise ManifestError(f"{len(unit)} rows cannot be cut into {number} folds: {error}") from error
    for k, (_, held) in enumerate(cuts):
        fold[owner[held]] = k
    return fold[unit]


def check_folds(
    fold: np.ndarray, unit: np.ndarray, values: np.ndarray, number: int, by: str, labels: Sequence[str]
) -> None:
    """Raise ManifestError where a class is missing outside a fold, or in it although enough units have it. `fold`,
    `unit` (N,); `values` (N, L) with -1 for unknown."""
    what = "groups" if by == "group" else "datasets"
    if len(np.unique(fold)) < number:
        raise ManifestError(f"{len(np.unique(unit))} {what} of unequal sizes leave a fold empty; {_advice(by)}")
    for name, known in zip(labels, values.T, strict=True):
        if not ((known == 0).any() and (known == 1).any()):
            continue  # nothing to learn or to measure for this output, whatever the folds
        for value in (0, 1):
            has = known == value
            owners, inside = len(np.unique(unit[has])), np.bincount(fold[has], minlength=number)
            if inside.max() == has.sum():
                where = f"stands in fold {inside.argmax()} ({owners} of the {what})"
                raise ManifestError(f"every {name} = {value} {where}; {_advice(by)}")
            if owners >= number and not inside.all():
                raise ManifestError(f"fold {inside.argmin()} has no {name} = {value}; {_advice(by)}")


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
    given, family = texts(table, "split").to_numpy(object), families(table)
    names = table["group"].groupby(family).min().to_numpy(object)  # of each family, the first group by name
    chosen = np.full(len(names), "", object)
    chosen[family[given != ""]] = given[given != ""]
    free = np.flatnonzero(chosen == "")
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names[free])
    hashes = np.array([int.from_bytes(each[:6]) / 2**48 for each in digests])  # in [0, 1), on every machine the same
    chosen[free] = np.select([hashes < test, hashes < test + dev], ["test", "dev"], "train")
    classes = pd.DataFrame({(name, value): _label(table, name) == value for name in LABELS for value in (0, 1)})
    has = classes.groupby(family).any().to_numpy()  # (families, labels * 2) whether it has a row of this class
    _complete(chosen, free[np.argsort(hashes)], has, {"test": test, "dev": dev})
    return table.assign(split=pd.Series(np.where(given == "", chosen[family], given), index=table.index).astype(str))


def _complete(chosen: np.ndarray, free: np.ndarray, has: np.ndarray, shares: dict[str, float]) -> None:
    """Move free families (sorted by hash) from train into a wanted split that lacks a class, in place."""
    for split, share in shares.items():
        for column in range(has.shape[1]) if share > 0 else ():
            if has[chosen == split, column].any():
                continue
            for candidate in free[(chosen[free] == "train") & has[free, column]]:
                rest = chosen == "train"
                rest[candidate] = False
                if (has[rest].any(axis=0) >= has[candidate]).all():  # train keeps every class that the family has
                    chosen[candidate] = split
                    break
