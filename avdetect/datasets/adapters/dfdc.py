"""DFDC (Dolhansky et al., 2020, arXiv 2006.07397): the training folders, the test set, and the preview set of 2019.

Only `fake` is known: a fake may be one of the picture, of the sound or of both. Reals are real in both.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from avdetect.datasets.adapters.listing import FAKE, REAL, Listing, Rows

FEW_FOLDERS = 4  # below, folders are too coarse to be cut into train, dev and folds


def dfdc(root: Path) -> Listing:
    """`dfdc_train_part_N/metadata.json` beside the videos. Group = folder: fakes of one original share it.

    Of fewer than FEW_FOLDERS folders, as when only some were downloaded, the groups are the originals with their fakes
    (said in the report): people may then stand on both sides of a split.
    """
    rows = Rows(root, "dfdc")
    found = sorted(f for f in rows.files if PurePosixPath(f).name == "metadata.json")
    few = len(found) < FEW_FOLDERS
    if few and found:
        rows.problem("groups are originals", ".", f"only {len(found)} folder(s); DFDC's rule is to split by folder")
    for metadata in found:
        folder = metadata.removesuffix("metadata.json")
        entries = _entries(rows, metadata)
        for name, entry in entries.items():
            labels = _label(entry.get("label"))
            if labels is None:
                rows.problem("unknown label", folder + name, f"label is {entry.get('label')!r}")
                continue
            source = entry.get("original")
            original = folder + source if isinstance(source, str) and source and labels == FAKE else ""
            part = PurePosixPath(folder or rows.root.name).name
            group = f"{part}/{PurePosixPath(original or name).stem}" if few else part
            rows.add(folder + name, labels, group, original=original)
    return rows.listing()


def dfdc_test(root: Path) -> Listing:
    """`metadata.json` (`is_fake`, and the augmentations, kept as JSON text) or else `labels.csv` (`filename,label`)."""
    rows = Rows(root, "dfdc-test")
    by_name: dict[str, str] = {}
    for file in sorted(rows.files, reverse=True):
        by_name[PurePosixPath(file).name] = file
    metadata = [f for f in rows.files if PurePosixPath(f).name == "metadata.json"]
    tables = [f for f in rows.files if PurePosixPath(f).name == "labels.csv"]
    found: list[tuple[str, Any, str]] = []
    for path in sorted(metadata):
        for name, entry in _entries(rows, path).items():
            augmentations = entry.get("augmentations")
            found.append(
                (name, entry.get("is_fake"), json.dumps(augmentations, sort_keys=True) if augmentations else "")
            )
    if not found:
        for path in sorted(tables):
            found += [(name, label, "") for name, label, _ in rows.csv(path, ("filename", "label"))]
    for name, label, augmentations in found:
        labels = _label(label)
        if labels is None:
            rows.problem("unknown label", name, f"label is {label!r}")
        else:
            path = rows.first(name, by_name.get(PurePosixPath(name).name, name))
            rows.add(path, labels, name, split="test", augmentations=augmentations)
    return rows.listing()


def dfdc_preview(root: Path) -> Listing:
    """`dataset.json`; folders `original_videos`, `method_A`, `method_B`. Group = actor (folder); official splits."""
    rows = Rows(root, "dfdc-preview")
    for name, entry in _entries(rows, "dataset.json").items():
        labels, split = _label(entry.get("label")), entry.get("set")
        if labels is None or split not in ("train", "test"):
            detail = f"label is {entry.get('label')!r}, set is {split!r}"
            rows.problem("unknown label", name, detail)
            continue
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
    for name, entry in content.items():
        if not isinstance(entry, dict):
            rows.problem("unreadable metadata", path, f"the entry of {name!r} is no object")
    return {name: entry for name, entry in content.items() if isinstance(entry, dict)}


def _label(value: Any) -> tuple[int | None, ...] | None:
    return {"FAKE": FAKE, "1": FAKE, "REAL": REAL, "0": REAL}.get(str(value).strip().upper())
