"""FaceForensics++ (Roessler et al., ICCV 2019) and DeepFakeDetection (DFD, Google 2019). Pictures without sound.

Every compression that is there is listed (column `compression`): take one with a filter on that column.
"""

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from avdetect.datasets.adapters.listing import FAKE_FACE, SILENT_REAL, Listing, Rows
from avdetect.datasets.splits import joined

PLACE = re.compile(r"(.*/)?(original|manipulated)_sequences/([^/]+)/(raw|c23|c40)/videos/([^/]+)(\.\w+)")
SPLITS = {"train.json": "train", "val.json": "dev", "test.json": "test"}
# Of a fake the first name is the target's, whose video was changed.
FAKE_NAME = {"faceforensics": re.compile(r"(\d+)_(\d+)"), "dfd": re.compile(r"(\d+)_(\d+)__(.+)__\w+")}
REAL_NAME = {"faceforensics": re.compile(r"(\d+)"), "dfd": re.compile(r"(\d+)__.+")}


def faceforensics(root: Path) -> Listing:
    """Group = the videos (FF++) or actors (DFD) that pairs join: in DFD that may be nearly all of them. Official splits
    from train.json, val.json and test.json under the root; DFD has none."""
    rows = Rows(root, "faceforensics")
    rows.files -= {path for path in rows.files if "/masks/" in path}
    pairs, split_of = _official(rows)
    found: list[tuple[re.Match[str], str, re.Match[str]]] = []
    edges: dict[str, list[tuple[str, str]]] = {"faceforensics": list(pairs), "dfd": []}
    for place in filter(None, map(PLACE.fullmatch, rows.videos())):
        dataset = "dfd" if place[3] in ("actors", "DeepFakeDetection") else "faceforensics"
        fake = place[2] == "manipulated"
        name = (FAKE_NAME if fake else REAL_NAME)[dataset].fullmatch(place[5])
        if name:
            edges[dataset].append((name[1], name[2] if fake else name[1]))
            found.append((place, dataset, name))
        else:
            rows.problem("unknown name", place[0], f"no {place[2]} file of {dataset}")
    groups = {dataset: _components(these) for dataset, these in edges.items()}
    for place, dataset, name in found:
        fake, compression = place[2] == "manipulated", place[4]
        real = f"actors/{compression}/videos/{name[1]}__{name[3]}" if dataset == "dfd" and fake else ""
        real = real or f"youtube/{compression}/videos/{name[1]}"
        cells = {"split": split_of.get(name[1], "") if dataset == "faceforensics" else "", "dataset": dataset}
        if fake:
            cells |= {"method": place[3], "original": f"{place[1] or ''}original_sequences/{real}{place[6]}"}
        labels = FAKE_FACE if fake else SILENT_REAL
        rows.add(place[0], labels, groups[dataset][name[1]], compression=compression, **cells)
    return rows.listing()


def _official(rows: Rows) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """All pairs, and video -> split."""
    pairs: list[tuple[str, str]] = []
    split_of: dict[str, str] = {}
    for path in rows.named(*SPLITS):
        content, split = rows.json(path), SPLITS[PurePosixPath(path).name]
        for pair in content if isinstance(content, list) else [content]:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
                rows.problem("unreadable metadata", path, f"{str(pair)[:60]} is no pair of names")
                continue
            pairs.append((pair[0], pair[1]))
            for name in pair:
                if split_of.setdefault(name, split) != split:
                    rows.problem("video in two splits", name, f"{split_of[name]} and {split}; the first was taken")
    if not pairs:
        rows.problem("missing file", "train.json", "no official splits (train.json, val.json, test.json)")
    return pairs, split_of


def _components(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Name -> the smallest name of those that pairs join it with."""
    if not pairs:
        return {}
    names = pd.Series([name for pair in pairs for name in pair])
    pair = np.repeat(np.arange(len(pairs)), 2)
    return dict(zip(names, names.groupby(joined(names, pair)).transform("min"), strict=True))
