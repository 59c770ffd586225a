"""Datasets whose folders and file names alone say what a file is: Celeb-DF, KoDF, AVLips."""

import re
from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import FAKE_FACE, REAL, SILENT_REAL, Listing, Rows

CELEBDF_FAKE = re.compile(r"(id\d+)_id\d+_(\d+)")
CELEBDF_REAL = re.compile(r"(id\d+)_\d+")
CELEBDF_TEST = "List_of_testing_videos.txt"
KODF_REAL = re.compile(r"([A-Za-z0-9]+)_(\d{3})")
KODF_FAKE = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9]+)_(\w)_(\w+)")
KODF_METHODS = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}


def celebdf(root: Path) -> Listing:
    """Celeb-DF v2 (Li et al., CVPR 2020): face swaps of celebrities, without sound. Group = person in the picture.

    Labels from the folders (in the test list 1 means real). The official test list names single videos: the other
    videos of its people go to test as well (else they leak), and the column `official` tells them apart ("test" where
    the list names the file).
    """
    rows = Rows(root, "celebdf")
    places = {path.lower(): path for path in rows.files}  # YouTube-real is also spelled Youtube-real
    tested = _celebdf_test(rows, places)
    for path in rows.videos():
        place = PurePosixPath(path)
        folder, stem = place.parent.name.lower(), place.stem
        fake, real = CELEBDF_FAKE.fullmatch(stem), CELEBDF_REAL.fullmatch(stem)
        official, original = "test" if path in tested else "", ""
        if folder == "celeb-synthesis" and fake:
            name = str(place.parent.parent / "Celeb-real" / f"{fake[1]}_{fake[2]}{place.suffix}")
            labels, group, original = FAKE_FACE, fake[1], places.get(name.lower(), name)
        elif folder == "celeb-real" and real:
            labels, group = SILENT_REAL, real[1]
        elif folder == "youtube-real":
            labels, group = SILENT_REAL, f"youtube-{stem}"
        else:
            if folder in ("celeb-real", "celeb-synthesis"):
                rows.problem("unknown name", path, "neither <person>_<take> nor <target>_<source>_<take>")
            continue
        method = "Celeb-synthesis" if labels == FAKE_FACE else ""
        if official and tested[path] != str(int(labels == SILENT_REAL)):
            rows.problem("conflicting label", path, f"{CELEBDF_TEST} says {tested[path]!r}; the folder was believed")
        rows.add(path, labels, group, split=official, method=method, original=original, official=official)
    return rows.listing()


def _celebdf_test(rows: Rows, places: dict[str, str]) -> dict[str, str]:
    """Path -> label as written."""
    found: dict[str, str] = {}
    lists = rows.named(CELEBDF_TEST)
    if not lists:
        rows.problem("missing file", CELEBDF_TEST, "no official test split")
        return found
    folder = lists[0].removesuffix(CELEBDF_TEST)
    for line in filter(str.strip, rows.text(lists[0]).splitlines()):
        label, _, name = line.strip().partition(" ")
        if path := places.get((folder + name.strip()).lower()):
            found[path] = label
        else:
            rows.problem("missing file", folder + (name.strip() or label), f"named in {CELEBDF_TEST}")
    return found


def kodf(root: Path) -> Listing:
    """KoDF (Kwon et al., ICCV 2021): Korean speakers, five generators.

    Real `<actor>_<NNN>.mp4`; fake `<target>_<source>_<code>_<seq>.mp4`, in any folder. Group = the actor in the picture
    (target). What a fake's voice is, is not said: unknown.
    """
    rows = Rows(root, "kodf")
    for path in rows.videos():
        stem = PurePosixPath(path).stem
        real, fake = KODF_REAL.fullmatch(stem), KODF_FAKE.fullmatch(stem)
        if real:
            rows.add(path, REAL, real[1])
        elif fake and fake[3] in KODF_METHODS:
            rows.add(path, FAKE_FACE, fake[1], method=KODF_METHODS[fake[3]])
        else:
            rows.problem("unknown name", path, "neither <actor>_<NNN> nor <target>_<source>_<code 1-5>_<seq>")
    return rows.listing()


def avlips(root: Path) -> Listing:
    """AVLips (Liu et al., NeurIPS 2024, LipFD): `0_real/N.mp4`, `1_fake/N.mp4`. Group = N: one N may share a source.

    Of a fake only the lips are known to be made: its `audio_fake` is unknown. The .wav files beside are counted.
    """
    rows = Rows(root, "avlips")
    for path in rows.videos():
        place = PurePosixPath(path)
        if place.parent.name == "0_real":
            rows.add(path, REAL, place.stem)
        elif place.parent.name == "1_fake":
            rows.add(path, FAKE_FACE, place.stem, method="lip-sync")
    if sounds := [path for path in rows.files if path.lower().endswith(".wav")]:
        rows.problem("separate sound", min(sounds), f"{len(sounds)} .wav files beside the videos are not listed")
    return rows.listing()
