"""The scores table of files that a bundle was trained on, by streams and fusions that never saw their source.

Training keeps these outputs in the bundle (`bundle.OUT_OF_FOLD`), keyed by the SHA-256 of the files: neither paths nor
machine matter.
"""

import io
from contextlib import suppress

import numpy as np
import pandas as pd

from avdetect._untrusted import gunzip
from avdetect.bundle import OUT_OF_FOLD, Bundle
from avdetect.datasets.cache.store import file_sha256
from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ConfigError, ModelError
from avdetect.evaluation.ledger import NUMBERS, OUTPUTS, TEXTS
from avdetect.pooling import FEATURES

NOT_HELD_OUT = "NotScored: the bundle holds no out-of-fold output of this file"
NOT_RECORDED = "not recorded out of fold"  # why a stream is missing
NOT_TRAINED = "the folds trained no such stream"


def held_out_table(bundle: Bundle) -> pd.DataFrame:
    """sha256 (index), fold, FEATURES, the four probabilities and `ablation:*`, as training wrote them. Raises
    ConfigError for a bundle without such a table, ModelError for one that cannot be read."""
    content = bundle.files.get(OUT_OF_FOLD)
    if content is None:
        raise ConfigError(
            f"the bundle {bundle.folder} holds no {OUT_OF_FOLD}: measure it without --out-of-fold on files that it was "
            "not trained on, or train a bundle with this version"
        )
    try:
        table = pd.read_csv(io.BytesIO(gunzip(content)), dtype={"sha256": str})
    except (ValueError, OverflowError) as error:  # pandas' own errors are among them
        raise ModelError(
            f"{OUT_OF_FOLD} of {bundle.folder} cannot be read ({error}); train or copy it again"
        ) from error
    lacking = [name for name in ("sha256", "fold", *FEATURES, *OUTPUTS) if name not in table]
    texts = [name for name in table if name != "sha256" and not pd.api.types.is_numeric_dtype(table[name])]
    what = ""
    if texts:
        what = f"holds text where numbers belong ({texts[0][:80]!r})"
    elif lacking:
        what = f"lacks the columns {', '.join(lacking)}"
    elif table["sha256"].duplicated().any():
        what = "states a file twice"
    if what:
        raise ModelError(f"{OUT_OF_FOLD} of {bundle.folder} {what}; train or copy the bundle again")
    return table.set_index("sha256")


def held_out_scores(table: pd.DataFrame, bundle: Bundle, archive: ClipArchive | None = None) -> pd.DataFrame:
    """The scores table of a manifest; files without an out-of-fold output get NOT_HELD_OUT as their `error`.

    The files' hashes are taken from the cache where it knows them. `missing_*` says only that a stream is missing.
    Raises ConfigError when no file has an output.
    """
    held = held_out_table(bundle)
    hashes = file_hashes(table, archive)
    found = held.reindex(hashes).set_axis(table.index)
    known = np.isin(hashes, held.index.to_numpy(object))
    if not known.any():
        raise ConfigError(
            f"none of the {len(table)} files of the manifest has an out-of-fold output in {bundle.folder}: it was "
            "trained on other files; measure it without --out-of-fold"
        )
    columns: dict[str, object] = {"bundle": bundle.digest, "treatment": ""}
    columns |= {name: found[name].astype(np.float64) if name in found else np.nan for name in NUMBERS}
    for name in TEXTS:
        has = name.replace("missing_", "has_")
        reason = NOT_RECORDED if has in held and held[has].eq(1).any() else NOT_TRAINED
        columns[name] = np.where(known & (found[has].to_numpy() != 1), reason, "") if has in found else ""
    columns["error"] = np.where(known, "", NOT_HELD_OUT)
    columns |= {name: found[name].astype(np.float64) for name in found if str(name).startswith("ablation:")}
    columns["fold"] = found["fold"].astype("Int64")
    return table.drop(columns=[name for name in columns if name in table]).assign(**columns)


def file_hashes(table: pd.DataFrame, archive: ClipArchive | None) -> np.ndarray:
    """(N,) SHA-256 of each file's bytes; "" for a file that is neither in the cache nor there."""
    known = {} if archive is None else dict(zip(archive.files["path"], archive.files["sha256"], strict=True))
    for path in table["path"]:
        if not known.get(path):
            with suppress(OSError):
                known[path] = file_sha256(path)
    return np.array([known.get(path, "") for path in table["path"]], object)
