"""Datasets in which short spans of voice and lips are replaced: LAV-DF, AV-Deepfake1M."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from avdetect.datasets.adapters.listing import REAL, Labels, Listing, Rows

SPLITS = {"train": "train", "val": "dev", "dev": "dev", "test": "test"}
# Hyphens are written for underscores in some releases.
TYPES: dict[str, Labels] = {
    "real": REAL,
    "visual_modified": (1, 1, 0),
    "audio_modified": (1, 0, 1),
    "both_modified": (1, 1, 1),
}
LISTS = re.compile(r"(.*/)?(train|val|test\w*)_metadata\.json")
SINGLES = re.compile(r"(.*/)?(train|val|test\w*)_metadata/.+\.json")
UNLABELLED = re.compile(r"(.*/)?(test\w*)_files\.txt")


def lavdf(root: Path) -> Listing:
    """LAV-DF (Cai et al., DICTA 2022; SV2TTS, Wav2Lip): `metadata.min.json` or `metadata.json`, a list. Official
    splits. Group = the original and its fakes."""
    rows = Rows(root, "lavdf")
    names = ("metadata.min.json", "metadata.json")
    path = next((path for name in names for path in rows.named(name)), names[0])
    folder = path.removesuffix(PurePosixPath(path).name)
    for entry in rows.list_of(path, rows.json(path)):
        file, split = folder + entry["file"], SPLITS.get(str(entry.get("split")))
        video, audio, periods = (entry.get(name) for name in ("modify_video", "modify_audio", "fake_periods"))
        if not isinstance(video, bool) or not isinstance(audio, bool) or split is None:
            detail = f"modify_video {video!r}, modify_audio {audio!r}, split {entry.get('split')!r}"
            rows.problem("unknown label", file, detail)
            continue
        fake, source = video or audio, entry.get("original")
        if (entry.get("n_fakes", int(fake)) != 0) != fake or (periods and not fake):
            rows.problem("unknown label", file, "n_fakes or fake_periods contradict modify_video and modify_audio")
            continue
        original = folder + source if fake and isinstance(source, str) and source else ""
        method = "+".join(name for name, used in (("wav2lip", video), ("sv2tts", audio)) if used)
        labels = (int(fake), int(video), int(audio))
        rows.add(file, labels, original or file, split=split, method=method, original=original, segments=periods)
    return rows.listing()


def avdeepfake1m(root: Path) -> Listing:
    """AV-Deepfake1M (Cai et al., ACM MM 2024) and AV-Deepfake1M++ (2025).

    `train_metadata.json` and `val_metadata.json`, or else one JSON a video under `train_metadata/`; official splits.
    The files of `test_files.txt` (testA, testB) are rows with unknown labels. Group = a person. The official train and
    val share people: a leak like any other, which avdetect prepare refuses; its --resplit cuts dev anew.
    """
    rows = Rows(root, "avdeepfake1m")
    names = sorted(rows.files)
    whole = {match[2]: match for path in names if (match := LISTS.fullmatch(path))}
    for part, match in whole.items():
        for entry in rows.list_of(match[0], rows.json(match[0])):
            _add(rows, match[1] or "", part, entry)
    for match in filter(None, map(SINGLES.fullmatch, names)):
        if match[2] not in whole and (content := rows.json(match[0])) is not None:
            for entry in rows.list_of(match[0], [content]):
                _add(rows, match[1] or "", match[2], entry)
    for match in filter(None, map(UNLABELLED.fullmatch, names)):
        known = set(rows.columns["path"])
        for line in filter(None, map(str.strip, rows.text(match[0]).splitlines())):
            file = _locate(rows, match[1] or "", match[2], line)
            if file not in known:  # the metadata of the test set, where you have it, says more
                rows.add(file, (None, None, None), f"test:{file}", split="test")
    return rows.listing()


def _add(rows: Rows, base: str, part: str, entry: dict[str, Any]) -> None:
    file = _locate(rows, base, part, entry["file"])
    labels = TYPES.get(str(entry.get("modify_type")).replace("-", "_"))
    split = SPLITS.get(str(entry.get("split") or part))
    if labels is None or split is None:
        rows.problem("unknown label", file, f"modify_type {entry.get('modify_type')!r}, split {entry.get('split')!r}")
        return
    names = ("fake_segments", "visual_fake_segments", "audio_fake_segments")
    segments = [rows.segments(file, entry.get(name)) for name in names]
    if any(spans and not label for spans, label in zip(segments, labels, strict=True)):
        rows.problem("unknown label", file, "its segments contradict modify_type")
        return
    source = entry.get("original") if labels != REAL else None
    models = [str(entry[name]) for name in ("video_model", "audio_model") if entry.get(name)]
    cells: dict[str, Any] = {"split": split, "method": "+".join(models) if labels != REAL else ""}
    cells["original"] = _locate(rows, base, part, source) if isinstance(source, str) and source else ""
    cells |= {"video_fake_segments": segments[1], "audio_fake_segments": segments[2]}
    rows.add(file, labels, _person(entry["file"]), segments=segments[0], **cells)


def _locate(rows: Rows, base: str, part: str, name: str) -> str:
    """Names are relative to the folder of their split, in some releases to the root."""
    return rows.first(f"{base}{part}/{name}", f"{base}{name}", f"{base}test/{name}")


def _person(file: str) -> str:
    """VoxCeleb2's id00012/video/clip/..., LRS3's source/talk/..., or the clip's own folder."""
    parts = PurePosixPath(file).parts
    ids = [part for part in parts if re.fullmatch(r"id\d+", part)]
    return ids[0] if ids else "/".join(parts[:-1][:2]) or file
