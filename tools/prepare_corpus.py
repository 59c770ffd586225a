"""Make a manifest of the corpus that the default bundle was trained on: talking-face clips, speech, still faces.

CORPUS holds `clips.csv`, `speech.csv` and `stills.csv`. They become one list, of which `avdetect prepare csv` makes the
manifest; the options behind CORPUS are its own (`avdetect prepare --help`): --out corpus.parquet.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avdetect.cli import run_script
from avdetect.extras import script_imports

with script_imports("prepare_corpus", "evaluate"):
    import numpy as np
    import pandas as pd

OPTIONAL = ("kind", "identity", "own_voice", "certain")  # what the tables of a narrower corpus leave out
LABELS = ["fake", "video_fake", "audio_fake"]
COLUMNS = ["path", *LABELS, "group", "split", "dataset", "method", "original", "kind", "own_voice"]


def corpus_list(root: Path) -> pd.DataFrame:
    """One row a file. Raises OSError, KeyError (a table lacks a column).

    Speech has no picture and stills have no sound: the label of the missing modality is unknown. A speaker and the
    synthetic versions of that voice on one page are one group; `pair` joins a recording with its synthetic versions,
    and the recording is their `original`. `dataset` is the source, which folds leave out whole; an identity that
    stands in several sources ties them. Speakers of public speech corpora (LJ Speech, VCTK) are not tied: they recur
    on so many pages that most sources would become one. Where `certain` is 0, nobody says that the file is genuine:
    all that can be learned from it is its own voice (`own_voice`: 1 where the person in the picture speaks).
    """
    rows = pd.concat([_clips(root), _speech(root), _stills(root)], ignore_index=True)
    rows.loc[rows["certain"] == "0", LABELS] = ""
    rows["path"] = str(root.resolve()) + "/" + rows["file"]
    rows["original"] = (str(root.resolve()) + "/" + rows["original"]).where(rows["original"] != "", "")
    return rows.rename(columns={"source": "dataset", "generator": "method"})[COLUMNS]


def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, keep_default_na=False, dtype=str)
    return rows.assign(**{name: "" for name in OPTIONAL if name not in rows}, original="")


def _clips(root: Path) -> pd.DataFrame:
    rows = _read(root / "clips.csv")
    # Some people stand in both splits: all of their clips go to dev, so that no dev face or voice was trained on.
    in_dev = rows["identity"].isin(rows.loc[rows["split"] == "dev", "identity"])
    return rows.assign(group="clip:" + rows["identity"], split=rows["split"].mask(in_dev, "dev"))


def _speech(root: Path) -> pd.DataFrame:
    rows = _read(root / "speech.csv")
    fake = rows["fake"] == "1"
    # Several recordings of one pair (voice conversion: the words of one, the voice of another): the same voice is
    # taken before another, then the first by name.
    recordings = rows[~fake & (rows["pair"] != "")].sort_values("file")
    voices = recordings.drop_duplicates(["pair", "speaker"]).set_index(["pair", "speaker"])["file"]
    words = recordings.drop_duplicates("pair").set_index("pair")["file"]
    own = pd.Series(voices.reindex(pd.MultiIndex.from_frame(rows[["pair", "speaker"]])).to_numpy(), rows.index)
    rows["group"] = "speech:" + rows["source"] + np.where(rows["speaker"] == "", "", "/" + rows["speaker"])
    rows["original"] = own.fillna(rows["pair"].map(words)).where(fake).fillna("")
    rows["kind"] = rows["kind"].replace({"": "speech", "speech-human": "speech"})
    return rows.assign(video_fake="", audio_fake=rows["fake"], generator=rows["system"].where(fake, ""))


def _stills(root: Path) -> pd.DataFrame:
    rows = _read(root / "stills.csv")
    group = "still:" + rows["identity"].where(rows["identity"] != "", rows["file"])
    kind = rows["kind"].replace({"": "still", "still-real": "still"})
    return rows.assign(video_fake=rows["fake"], audio_fake="", group=group, kind=kind)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("prepare_corpus", description=__doc__)
    parser.add_argument("corpus", type=Path)
    given, options = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            corpus_list(given.corpus).to_csv(f"{folder}/corpus.csv", index=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            parser.error(f"{given.corpus} is no such corpus: {error}")
        return run_script("prepare", ["csv", f"{folder}/corpus.csv", *options])


if __name__ == "__main__":
    raise SystemExit(main())
