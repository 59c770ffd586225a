"""DFDC (Dolhansky et al., 2020, arXiv 2006.07397): the training folders, the test set, and the preview set of 2019.

Only `fake` is known: a fake may be one of the picture, of the sound or of both. Reals are real in both.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from avdetect.datasets.adapters.listing import FAKE, REAL, Labels, Listing, Rows

FEW_FOLDERS = 4  # below, folders are too coarse to be cut into train, dev and folds


def dfdc(root: Path) -> Listing:
    """`dfdc_train_part_N/metadata.json` beside the videos. Group = folder: fakes of one original share it.

    Of fewer than FEW_FOLDERS folders, as when only some were downloaded, the groups are the originals with their fakes
    (said in the report): people may then stand on both sides of a split.
    """
    rows = Rows(root, "dfdc")
    found = rows.named("metadata.json")
    few = len(found) < FEW_FOLDERS
    if few and found:
        rows.problem("groups are originals", ".", f"only {len(found)} folder(s); DFDC's rule is to split by folder")
    for metadata in found:
        folder = metadata.removesuffix("metadata.json")
        part = PurePosixPath(folder or rows.root.name).name
        for name, entry in _entries(rows, metadata).items():
            labels = _label(rows, folder + name, entry.get("label"))
            if labels is not None:
                source = entry.get("original")
                original = folder + source if isinstance(source, str) and source and labels == FAKE else ""
                group = f"{part}/{PurePosixPath(original or name).stem}" if few else part
                rows.add(folder + name, labels, group, original=original)
    return rows.listing()


def dfdc_test(root: Path) -> Listing:
    """`metadata.json` (`is_fake`, and the augmentations, kept as JSON text) or else `labels.csv` (`filename,label`)."""
    rows = Rows(root, "dfdc-test")
    places = {PurePosixPath(file).name: file for file in sorted(rows.files, reverse=True)}
    found: list[tuple[str, Any, Any]] = []
    for path in rows.named("metadata.json"):
        entries = _entries(rows, path).items()
        found += [(name, entry.get("is_fake"), entry.get("augmentations")) for name, entry in entries]
    for path in rows.named("labels.csv") if not found else ():
        found += [(name, label, None) for name, label, _ in rows.csv(path, ("filename", "label"))]
    for name, label, augmentations in found:
        labels = _label(rows, name, label)
        if labels is not None:
            path = rows.first(name, places.get(PurePosixPath(name).name, name))
            text = json.dumps(augmentations, sort_keys=True) if augmentations else ""
            rows.add(path, labels, name, split="test", augmentations=text)
    return rows.listing()


def dfdc_preview(root: Path) -> Listing:
    """`dataset.json`; folders `original_videos`, `method_A`, `method_B`. Group = actor (folder); official splits."""
    rows = Rows(root, "dfdc-preview")
    for name, entry in _entries(rows, "dataset.json").items():
        labels, split = _label(rows, name, entry.get("label")), str(entry.get("set"))
        if labels is not None and split not in ("train", "test"):
            rows.problem("unknown label", name, f"set is {split!r}")
        elif labels is not None:
            parts = PurePosixPath(name).parts
            person = parts[1] if len(parts) > 2 else PurePosixPath(name).stem
            rows.add(name, labels, person, split=split, method=parts[0] if labels == FAKE else "")
    return rows.listing()


def _entries(rows: Rows, path: str) -> dict[str, dict[str, Any]]:
    """File name -> entry. What has another form is named."""
    content = rows.json(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        rows.problem("unreadable metadata", path, "not an object of file names")
        return {}
    for name in [name for name, entry in content.items() if not isinstance(entry, dict)]:
        rows.problem("unreadable metadata", path, f"the entry of {name!r} is no object")
        del content[name]
    return content


def _label(rows: Rows, path: str, value: Any) -> Labels | None:
    labels = {"FAKE": FAKE, "1": FAKE, "REAL": REAL, "0": REAL}.get(str(value).strip().upper())
    if labels is None:
        rows.problem("unknown label", path, f"label is {value!r}")
    return labels
