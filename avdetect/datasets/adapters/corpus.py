"""A folder with `clips.csv`, `speech.csv` and `stills.csv`: talking-face clips, speech, still faces."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from avdetect.datasets.adapters.listing import Listing, finish, walk
from avdetect.datasets.manifest import LABELS
from avdetect.errors import ManifestError

OPTIONAL = ("kind", "identity", "own_voice", "certain")  # what the tables of a narrower corpus leave out


def corpus(root: Path) -> Listing:
    """Rows of the three tables under `root`. Raises ManifestError when a table or column is missing.

    Speech has no picture and stills have no sound: the label of the missing half is unknown. A speaker and the
    synthetic versions of that voice on one page are one group; `pair` joins a recording with its synthetic versions,
    and the recording is their `original`. `dataset` is the source, which folds leave out whole; an identity that
    stands in several sources is one group, and so ties them. Speakers of public speech corpora (LJ Speech, VCTK) are
    not tied: they recur on so many pages that most sources would become one.

    `own_voice`: 1 where the person in the picture speaks with this sound. Where `certain` is 0, nobody says that the
    file is genuine: its labels are unknown, and its own voice is all that can be learned from it.
    """
    try:
        clips, speech, stills = (_read(root / f"{name}.csv") for name in ("clips", "speech", "stills"))
        rows = pd.concat([_clips(clips), _speech(speech), _stills(stills)], ignore_index=True)
        rows["own_voice"] = pd.concat([clips["own_voice"], speech["own_voice"], stills["own_voice"]], ignore_index=True)
        certain = pd.concat([clips["certain"], speech["certain"], stills["certain"]], ignore_index=True)
    except KeyError as error:
        raise ManifestError(f"{root} is not a corpus folder: a table lacks the column {error}") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{root} is not a corpus folder: {' '.join(str(error).split())}") from error
    rows.loc[certain == "0", list(LABELS)] = ""
    rows["fake_segments"] = [()] * len(rows)
    return finish(rows, root.resolve(), *walk(root.resolve()))


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False, dtype=str)
    return rows.assign(**{name: "" for name in OPTIONAL if name not in rows})


def _clips(rows: pd.DataFrame) -> pd.DataFrame:
    # Some people stand in both splits: all of their clips go to dev, so that no dev face or voice was trained on.
    in_dev = rows["identity"].isin(rows.loc[rows["split"] == "dev", "identity"])
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": rows["video_fake"],
            "audio_fake": rows["audio_fake"],
            "group": "clip:" + rows["identity"],
            "split": rows["split"].mask(in_dev, "dev"),
            "dataset": rows["source"],
            "method": rows["generator"],
            "original": "",
            "kind": rows["kind"],
        }
    )


def _speech(rows: pd.DataFrame) -> pd.DataFrame:
    fake = rows["fake"] == "1"
    # Several recordings of one pair (voice conversion: the words of one, the voice of another): the same voice is
    # taken before another, then the first by name.
    recordings = rows[~fake & (rows["pair"] != "")].sort_values("file")
    voices = recordings.drop_duplicates(["pair", "speaker"]).set_index(["pair", "speaker"])["file"]
    words = recordings.drop_duplicates("pair").set_index("pair")["file"]
    own = pd.Series(voices.reindex(pd.MultiIndex.from_frame(rows[["pair", "speaker"]])).to_numpy(), rows.index)
    original = own.fillna(rows["pair"].map(words)).where(fake)
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": "",
            "audio_fake": rows["fake"],
            "group": "speech:" + rows["source"].where(rows["speaker"] == "", rows["source"] + "/" + rows["speaker"]),
            "split": rows["split"],
            "dataset": rows["source"],
            "method": rows["system"].where(fake, ""),
            "original": original.fillna(""),
            "kind": rows["kind"].replace({"": "speech", "speech-human": "speech"}),
        }
    )


def _stills(rows: pd.DataFrame) -> pd.DataFrame:
    person = rows["identity"].where(rows["identity"] != "", rows["file"])
    return pd.DataFrame(
        {
            "path": rows["file"],
            "fake": rows["fake"],
            "video_fake": rows["fake"],
            "audio_fake": "",
            "group": "still:" + person,
            "split": rows["split"],
            "dataset": rows["source"],
            "method": rows["generator"],
            "original": "",
            "kind": rows["kind"].replace({"": "still", "still-real": "still"}),
        }
    )
