"""DeepfakeTIMIT (Korshunov & Marcel, 2018, arXiv 1812.08685): GAN face swaps on VidTIMIT, in two qualities.

The sound (always real) lies in .wav files beside the .avi. A row is one file, so the .avi is listed with an unknown
`audio_fake` and the .wav is not; their number is reported.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.faceforensics import components
from avdetect.datasets.adapters.listing import SILENT_REAL, VIDEO, Listing, Rows

FAKE_PLACE = re.compile(r"(?:.*/)?(higher|lower)_quality/([^/]+)/([^/]+?)-video-([^/]+)\.\w+")
REAL_PLACE = re.compile(r"(?!.*_quality/)(?:.*/)?([a-z]\w{3}\d)/(?:video/)?([^/-]+)\.\w+")


def deepfaketimit(root: Path) -> Listing:
    """`{higher,lower}_quality/<target>/<sentence>-video-<source>.avi`; reals `<person>/<sentence>.<any video>`.

    Group = the two people who were swapped. VidTIMIT's reals are pictures: they count once they are made video files.
    """
    rows = Rows(root, "deepfaketimit")
    videos = sorted(f for f in rows.files if f.lower().endswith(VIDEO))
    fakes = {path: place for path in videos if (place := FAKE_PLACE.fullmatch(path))}
    reals = {path: place for path in videos if path not in fakes and (place := REAL_PLACE.fullmatch(path))}
    pairs = [(p[2], p[4]) for p in fakes.values()] + [(p[1], p[1]) for p in reals.values()]
    groups = components(pairs)
    originals = {(place[1], place[2]): path for path, place in reals.items()}
    for path, place in fakes.items():
        quality, target, sentence, _ = place.groups()
        original = originals.get((target, sentence), "")
        rows.add(path, (1, 1, None), groups[target], method=f"faceswap-gan-{quality}", original=original)
    for path, place in reals.items():
        rows.add(path, SILENT_REAL, groups[place[1]])
    sounds = [f for f in rows.files if PurePosixPath(f).suffix.lower() == ".wav"]
    if sounds:
        rows.problem("separate sound", min(sounds), f"{len(sounds)} .wav files beside the videos are not listed")
    return rows.listing()
