"""FaceForensics++ (Roessler et al., ICCV 2019) and DeepFakeDetection (DFD, Google 2019). Pictures without sound.

Every compression that is there is listed (column `compression`): take one with a filter on that column.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from avdetect.datasets.adapters.listing import SILENT_REAL, VIDEO, Listing, Rows
from avdetect.datasets.splits import joined

PLACE = re.compile(r"(?:.*/)?(original|manipulated)_sequences/([^/]+)/(raw|c23|c40)/videos/([^/]+)\.\w+")
SPLITS = {"train.json": "train", "val.json": "dev", "test.json": "test"}
FAKE_NAME = {"faceforensics": re.compile(r"(\d+)_(\d+)"), "dfd": re.compile(r"(\d+)_(\d+)__(.+)__(\w+)")}
REAL_NAME = {"faceforensics": re.compile(r"(\d+)"), "dfd": re.compile(r"(\d+)__(.+)")}


def faceforensics(root: Path) -> Listing:
    """Group = the videos (FF++) or actors (DFD) that pairs join: in DFD that may be nearly all of them.

    Official splits from train.json, val.json and test.json under the root; DFD has none.
    """
    rows = Rows(root, "faceforensics")
    pairs, split_of = _official(rows)
    found: list[tuple[str, str, str, str, re.Match[str]]] = []
    edges: dict[str, list[tuple[str, str]]] = {"faceforensics": list(pairs), "dfd": []}
    for path in sorted(f for f in rows.files if f.lower().endswith(VIDEO)):
        place = PLACE.fullmatch(path)
        if not place:
            continue
        kind, method, compression, stem = place.groups()
        dataset = "dfd" if method in ("actors", "DeepFakeDetection") else "faceforensics"
        name = (FAKE_NAME if kind == "manipulated" else REAL_NAME)[dataset].fullmatch(stem)
        if not name:
            rows.problem("unknown name", path, f"no {kind} file of {dataset}")
            continue
        fake = kind == "manipulated"
        edges[dataset].append((name[1], name[2] if fake else name[1]))
        found.append((path, dataset, method if fake else "", compression, name))
    groups = {dataset: components(these) for dataset, these in edges.items()}
    for path, dataset, method, compression, name in found:
        group = groups[dataset][name[1]]
        split = split_of.get(name[1], "") if dataset == "faceforensics" else ""
        original = _original(path, dataset, compression, name) if method else ""
        labels = (1, 1, None) if method else SILENT_REAL
        rows.add(
            path, labels, group, split=split, method=method, original=original, dataset=dataset, compression=compression
        )
    _missing(rows, [f[0] for f in found], pairs)
    return rows.listing(ignore=("/masks/",))


def _official(rows: Rows) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """All pairs, and video -> split."""
    pairs: list[tuple[str, str]] = []
    split_of: dict[str, str] = {}
    for path in sorted(f for f in rows.files if PurePosixPath(f).name in SPLITS):
        content = rows.json(path)
        if content is None:
            continue
        split = SPLITS[PurePosixPath(path).name]
        for pair in content if isinstance(content, list) else [content]:
            if not _is_pair(pair):
                rows.problem("unreadable metadata", path, f"{str(pair)[:60]} is no pair of names")
                continue
            pairs.append((pair[0], pair[1]))
            for name in pair:
                if split_of.setdefault(name, split) != split:
                    rows.problem("video in two splits", name, f"{split_of[name]} and {split}; the first was taken")
    if not pairs:
        rows.problem("missing file", "train.json", "no official splits (train.json, val.json, test.json)")
    return pairs, split_of


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)


def components(edges: list[tuple[str, str]]) -> dict[str, str]:
    """Name -> the smallest name of those that pairs join it with."""
    if not edges:
        return {}
    names = pd.DataFrame([*edges, *((b, a) for a, b in edges)], columns=["a", "b"])
    # The sides are told apart by a prefix, and each name is joined with itself.
    own = pd.DataFrame({"a": names["a"].unique(), "b": names["a"].unique()})
    names = pd.concat([names, own], ignore_index=True)
    names["part"] = joined(names["a"], "=" + names["b"])
    return dict(zip(names["a"], names.groupby("part")["a"].transform("min"), strict=True))


def _original(path: str, dataset: str, compression: str, name: re.Match[str]) -> str:
    """519_515 and 24_23__scene__ID: the first is the target, whose video was changed."""
    base = path[: path.index("manipulated_sequences/")]
    real = f"youtube/{compression}/videos/{name[1]}" if dataset == "faceforensics" else ""
    real = real or f"actors/{compression}/videos/{name[1]}__{name[3]}"
    return f"{base}original_sequences/{real}{PurePosixPath(path).suffix}"


def _missing(rows: Rows, paths: list[str], pairs: list[tuple[str, str]]) -> None:
    """Files that the official pairs name and that a folder lacks."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        if "/actors/" not in path and "/DeepFakeDetection/" not in path:
            folders.setdefault(str(PurePosixPath(path).parent), set()).add(PurePosixPath(path).stem)
    for folder, stems in folders.items():
        fake = "manipulated_sequences/" in folder
        wanted = {name for a, b in pairs for name in ((f"{a}_{b}", f"{b}_{a}") if fake else (a, b))}
        for stem in sorted(wanted - stems):
            rows.problem("missing file", f"{folder}/{stem}.mp4", "named by the official pairs")
