"""KoDF (Kwon et al., ICCV 2021): Korean speakers, five generators. Names alone tell what a file is."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import REAL, VIDEO, Listing, Rows

REAL_NAME = re.compile(r"([A-Za-z0-9]+)_(\d{3})")
FAKE_NAME = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9]+)_(\w)_(\w+)")
METHODS = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}


def kodf(root: Path) -> Listing:
    """Real `<actor>_<NNN>.mp4`; fake `<target>_<source>_<code>_<seq>.mp4`, in any folder.

    Group = the actor in the picture (target). What a fake's voice is, is not said: unknown.
    """
    rows = Rows(root, "kodf")
    for path in sorted(f for f in rows.files if f.lower().endswith(VIDEO)):
        stem = PurePosixPath(path).stem
        real, fake = REAL_NAME.fullmatch(stem), FAKE_NAME.fullmatch(stem)
        if real:
            rows.add(path, REAL, real[1])
        elif fake and fake[3] in METHODS:
            rows.add(path, (1, 1, None), fake[1], method=METHODS[fake[3]])
        else:
            rows.problem("unknown name", path, "neither <actor>_<NNN> nor <target>_<source>_<code 1-5>_<seq>")
    return rows.listing(suffixes=())
