"""Celeb-DF v2 (Li et al., CVPR 2020): face swaps of celebrities. The files have no sound that was judged."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import SILENT_REAL, VIDEO, Listing, Rows

FAKE_NAME = re.compile(r"(id\d+)_(id\d+)_(\d+)")
REAL_NAME = re.compile(r"(id\d+)_(\d+)")
TEST_LIST = "List_of_testing_videos.txt"


def celebdf(root: Path) -> Listing:
    """Labels from the folders (in the test list 1 means real). Group = the person in the picture (target).

    The official test list names single videos: the other videos of its people go to test as well (else they leak), and
    the column `official` tells them apart ("test" where the list names the file).
    """
    rows = Rows(root, "celebdf")
    places = {f.lower(): f for f in rows.files}  # YouTube-real is also spelled Youtube-real
    tested = _test_list(rows, places)
    for path in sorted(f for f in rows.files if f.lower().endswith(VIDEO)):
        folder, stem = PurePosixPath(path).parent.name.lower(), PurePosixPath(path).stem
        fake, real = FAKE_NAME.fullmatch(stem), REAL_NAME.fullmatch(stem)
        official = "test" if path in tested else ""
        if folder == "celeb-synthesis" and fake:
            target, _, take = fake.groups()
            name = PurePosixPath(path).parent.parent / "Celeb-real" / f"{target}_{take}{PurePosixPath(path).suffix}"
            original = places.get(str(name).lower(), str(name))
            labels, group, method = (1, 1, None), target, "Celeb-synthesis"
        elif folder == "celeb-real" and real:
            labels, group, method, original = SILENT_REAL, real[1], "", ""
        elif folder == "youtube-real":
            labels, group, method, original = SILENT_REAL, f"youtube-{stem}", "", ""
        else:
            if folder in ("celeb-real", "celeb-synthesis"):
                rows.problem("unknown name", path, "neither <person>_<take> nor <target>_<source>_<take>")
            continue
        if official and tested[path] != str(1 - labels[0]):
            rows.problem("conflicting label", path, f"{TEST_LIST} says {tested[path]!r}; the folder was believed")
        rows.add(path, labels, group, split=official, method=method, original=original, official=official)
    return rows.listing()


def _test_list(rows: Rows, places: dict[str, str]) -> dict[str, str]:
    """Path -> label as written."""
    lists = sorted(f for f in rows.files if PurePosixPath(f).name == TEST_LIST)
    if not lists:
        rows.problem("missing file", TEST_LIST, "no official test split")
        return {}
    folder, found = lists[0].removesuffix(TEST_LIST), {}
    for line in rows.text(lists[0]).splitlines():
        label, _, name = line.strip().partition(" ")
        path = places.get((folder + name.strip()).lower())
        if path:
            found[path] = label
        elif line.strip():
            rows.problem("missing file", folder + (name.strip() or line.strip()), f"named in {TEST_LIST}")
    return found
