"""AVLips (Liu et al., NeurIPS 2024, LipFD): lip-synced videos, each with its sound in a .wav beside."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from avdetect.datasets.adapters.listing import REAL, VIDEO, Listing, Rows


def avlips(root: Path) -> Listing:
    """`0_real/N.mp4`, `1_fake/N.mp4`, `wav/...`. Group = the number N: what shares one may share a source.

    Of a fake only the lips are known to be made: its `audio_fake` is unknown. The .wav files are counted, not listed.
    """
    rows = Rows(root, "avlips")
    for path in sorted(f for f in rows.files if f.lower().endswith(VIDEO)):
        place = PurePosixPath(path)
        if place.parent.name in ("0_real", "1_fake"):
            fake = place.parent.name == "1_fake"
            rows.add(path, (1, 1, None) if fake else REAL, place.stem, method="lip-sync" if fake else "")
    sounds = [f for f in rows.files if f.lower().endswith(".wav")]
    if sounds:
        rows.problem("separate sound", min(sounds), f"{len(sounds)} .wav files beside the videos are not listed")
    return rows.listing()
