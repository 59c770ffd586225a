"""Adapter for a folder with `clips.csv`, `speech.csv` and `stills.csv` (talking-face clips, speech, still faces)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from avdetect.datasets.manifest import validate
from avdetect.errors import ManifestError


def corpus_manifest(root: str | Path) -> pd.DataFrame:
    """One manifest from the three tables under `root`. Raises ManifestError when a table or column is missing.

    Speech has no picture and stills have no sound: the label of the missing half is unknown. A speaker
    and the synthetic versions of that voice on one page are one group.
    """
    root = Path(root)
    try:
        clips, speech, stills = (
            pd.read_csv(root / f"{name}.csv", keep_default_na=False) for name in ("clips", "speech", "stills")
        )
        table = pd.concat([_clips(clips), _speech(speech), _stills(stills)], ignore_index=True)
    except (OSError, KeyError) as error:
        raise ManifestError(f"{root} is not a corpus folder: {error}") from error
    table["path"] = [str((root / p).resolve()) for p in table["path"]]
    return validate(table)


def _clips(rows: pd.DataFrame) -> pd.DataFrame:
    # Some people stand in both splits: all of their clips go to dev, so that no dev face or voice was trained on.
    in_dev = rows["identity"].isin(rows.loc[rows["split"] == "dev", "identity"])
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": rows["video_fake"],
            "audio_fake": rows["audio_fake"],
            "group": "clip:" + rows["identity"].astype(str),
            "split": rows["split"].mask(in_dev, "dev"),
            "dataset": rows["source"],
            "method": rows["generator"],
            "kind": rows["kind"],
        }
    )


def _speech(rows: pd.DataFrame) -> pd.DataFrame:
    named = rows["speaker"].astype(str) != ""
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": "",
            "audio_fake": rows["fake"],
            "group": "speech:" + rows["source"].where(~named, rows["source"] + "/" + rows["speaker"]),
            "split": rows["split"],
            "dataset": rows["source"],
            "method": rows["system"].where(rows["fake"].astype(str) == "1", ""),
            "kind": "speech",
        }
    )


def _stills(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": rows["fake"],
            "audio_fake": "",
            "group": "still:" + rows["file"],
            "split": rows["split"],
            "dataset": rows["source"],
            "method": rows["generator"],
            "kind": "still",
        }
    )
