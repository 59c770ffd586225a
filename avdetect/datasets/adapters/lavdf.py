"""LAV-DF (Cai et al., DICTA 2022): short spans of voice (SV2TTS) and lips (Wav2Lip) are replaced."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from avdetect.datasets.adapters.listing import Listing, Rows

SPLITS = {"train": "train", "dev": "dev", "val": "dev", "test": "test"}


def lavdf(root: Path) -> Listing:
    """`metadata.min.json` or `metadata.json`, a list. Official splits. Group = the original and its fakes."""
    rows = Rows(root, "lavdf")
    names = ("metadata.min.json", "metadata.json")
    path = next((f for name in names for f in sorted(rows.files) if PurePosixPath(f).name == name), names[0])
    folder = path[: len(path) - len(PurePosixPath(path).name)]
    content = rows.json(path)
    if content is not None and not isinstance(content, list):
        rows.problem("unreadable metadata", path, "not a list")
    for entry in content if isinstance(content, list) else []:
        _add(rows, path, folder, entry)
    return rows.listing()


def _add(rows: Rows, path: str, folder: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        rows.problem("unreadable metadata", path, f"{str(entry)[:60]} names no file")
        return
    file, split = folder + entry["file"], SPLITS.get(str(entry.get("split")))
    video, audio = entry.get("modify_video"), entry.get("modify_audio")
    if not isinstance(video, bool) or not isinstance(audio, bool) or split is None:
        detail = f"modify_video {video!r}, modify_audio {audio!r}, split {entry.get('split')!r}"
        rows.problem("unknown label", file, detail)
        return
    fake, periods = video or audio, entry.get("fake_periods")
    if (entry.get("n_fakes", int(fake)) != 0) != fake or (periods and not fake):
        rows.problem("unknown label", file, "n_fakes or fake_periods contradict modify_video and modify_audio")
        return
    source = entry.get("original")
    original = folder + source if fake and isinstance(source, str) and source else ""
    method = "+".join(name for name, used in (("wav2lip", video), ("sv2tts", audio)) if used)
    rows.add(
        file,
        (int(fake), int(video), int(audio)),
        original or file,
        split=split,
        method=method,
        original=original,
        segments=periods,
    )
