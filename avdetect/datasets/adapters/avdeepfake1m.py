"""AV-Deepfake1M (Cai et al., ACM MM 2024) and AV-Deepfake1M++ (2025): spans of voice and lips are replaced."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from avdetect.datasets.adapters.listing import Listing, Rows

SPLITS = {"train": "train", "val": "dev", "dev": "dev", "test": "test"}
# (fake, video_fake, audio_fake); hyphens are written for underscores in some releases
TYPES = {"real": (0, 0, 0), "visual_modified": (1, 1, 0), "audio_modified": (1, 0, 1), "both_modified": (1, 1, 1)}
LISTS = re.compile(r"(?:.*/)?((train|val|test\w*)_metadata)\.json")
SINGLES = re.compile(r"(?:.*/)?((train|val|test\w*)_metadata)/.+\.json")
UNLABELLED = re.compile(r"(?:.*/)?(test\w*)_files\.txt")


def avdeepfake1m(root: Path) -> Listing:
    """`train_metadata.json` and `val_metadata.json`, or else one JSON a video under `train_metadata/`; official splits.

    The files of `test_files.txt` (testA, testB) are rows with unknown labels. Group = a person. The official train and
    val share people: a leak like any other, which avdetect prepare refuses; its --resplit cuts dev anew.
    """
    rows = Rows(root, "avdeepfake1m")
    whole = {match[2]: path for path in sorted(rows.files) if (match := LISTS.fullmatch(path))}
    for part, path in whole.items():
        content = rows.json(path)
        if content is not None and not isinstance(content, list):
            rows.problem("unreadable metadata", path, "not a list")
        for entry in content if isinstance(content, list) else []:
            _add(rows, path, part, entry)
    for path in sorted(rows.files):
        single = SINGLES.fullmatch(path)
        if single and single[2] not in whole and (entry := rows.json(path)) is not None:
            _add(rows, path, single[2], entry)
    for path in sorted(rows.files):
        if listed := UNLABELLED.fullmatch(path):
            _add_unlabelled(rows, path, listed[1])
    return rows.listing()


def _add(rows: Rows, path: str, part: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        rows.problem("unreadable metadata", path, f"{str(entry)[:60]} names no file")
        return
    base = path[: path.index(f"{part}_metadata")]
    file = _locate(rows, base, part, entry["file"])
    labels = TYPES.get(str(entry.get("modify_type")).replace("-", "_"))
    split = SPLITS.get(str(entry.get("split") or part))
    if labels is None or split is None:
        rows.problem("unknown label", file, f"modify_type {entry.get('modify_type')!r}, split {entry.get('split')!r}")
        return
    fake, video, audio = labels
    names = ("fake_segments", "visual_fake_segments", "audio_fake_segments")
    whole, seen, heard = (rows.segments(file, entry.get(name)) for name in names)
    if (whole and not fake) or (seen and not video) or (heard and not audio):
        rows.problem("unknown label", file, "its segments contradict modify_type")
        return
    source = entry.get("original") if fake else None
    models = [str(entry[name]) for name in ("video_model", "audio_model") if entry.get(name)]
    rows.add(
        file,
        labels,
        _person(entry["file"]),
        split=split,
        method="+".join(models) if fake else "",
        original=_locate(rows, base, part, source) if isinstance(source, str) and source else "",
        segments=whole,
        video_fake_segments=seen,
        audio_fake_segments=heard,
    )


def _add_unlabelled(rows: Rows, path: str, part: str) -> None:
    base = path[: path.index(f"{part}_files.txt")]
    known = set(rows.columns["path"])
    for line in rows.text(path).splitlines():
        if line.strip():
            file = _locate(rows, base, part, line.strip())
            if file not in known:  # the metadata of the test set, where you have it, says more
                rows.add(file, (None, None, None), f"test:{file}", split="test")


def _locate(rows: Rows, base: str, part: str, name: str) -> str:
    """Names are relative to the folder of their split, in some releases to the root."""
    return rows.first(f"{base}{part}/{name}", f"{base}{name}", f"{base}test/{name}")


def _person(file: str) -> str:
    """VoxCeleb2's id00012/video/clip/..., LRS3's source/talk/..., or the clip's own folder."""
    parts = PurePosixPath(file).parts
    ids = [part for part in parts if re.fullmatch(r"id\d+", part)]
    return ids[0] if ids else "/".join(parts[:-1][:2]) or file
