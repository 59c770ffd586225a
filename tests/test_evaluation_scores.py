"""The scores table: the numbers of the Detector, once a file, whatever the source of the clips; streams masked out."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from clips import speech, talking_clip
from face_factory import background, paste
from manifests import manifest_of
from media_factory import MediaFactory, encode
from readme_media import SAMPLE

from avdetect.bundle import Bundle
from avdetect.detector import Detector
from avdetect.errors import ConfigError, MediaError
from avdetect.evaluation import scores as scores_module
from avdetect.evaluation.ledger import NUMBERS, OUTPUTS, RESULTS, TEXTS, Ledger
from avdetect.evaluation.scores import masked, score_table
from avdetect.evaluation.sources import ClipSource, FileClips, Use
from avdetect.pooling import FEATURES, STREAMS
from avdetect.types import Clip, Waveform


def manifest(paths: list[str], **columns: list[object]) -> pd.DataFrame:
    """Reals and fakes in turn; the first fake has a segment."""
    fake = [i % 2 for i in range(len(paths))]
    segments = [((0.5, 1.0),) if i == 1 else () for i in range(len(paths))]
    return manifest_of(paths, fake=fake, video_fake=fake, split="dev", fake_segments=segments, **columns)


@pytest.fixture(scope="module")
def files(media: MediaFactory, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A face with its voice, the voice alone, neither, a photograph, and what is no media at all."""
    folder = tmp_path_factory.mktemp("scored")
    cut = ("-t", "1.5", "-i", str(SAMPLE))
    face = encode(folder / "face, and voice.mp4", *cut, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")
    photo = folder / "photo.png"
    cv2.imwrite(str(photo), cv2.cvtColor(paste(background(), 300, 320, 160), cv2.COLOR_RGB2BGR))
    made = [face, encode(folder / "voice.wav", *cut, "-vn"), media("silent_film.mp4"), photo, media("text.mp4")]
    return manifest(list(map(str, made)), kind=["real", "speech", "real", "still", "real"])


@pytest.fixture(scope="module")
def scores(files: pd.DataFrame, detector: Detector) -> pd.DataFrame:
    source = copy.copy(FileClips(files, detector.bundle.info.preprocess))  # what a worker process gets
    return score_table(files, source, Bundle.load())


# -- from files


def test_the_numbers_are_those_of_the_detector(scores: pd.DataFrame, detector: Detector) -> None:
    for row in scores[:3].to_dict("records"):
        found = detector.score(row["path"])
        for name in ("fake", "video_fake", "audio_fake", "mismatch"):
            stated = getattr(found, name)
            assert (np.isnan(row[f"p_{name}"]) and stated is None) or row[f"p_{name}"] == stated, "bit for bit"
        assert {stream: row[f"missing_{stream}"] for stream in STREAMS if row[f"missing_{stream}"]} == found.missing
        assert row["duration_seconds"] == found.duration_seconds
        by_name = {stream.name: stream.score for stream in found.streams}
        for stream in ("visual", "audio"):
            assert row[f"{stream}_logit"] == np.float32(by_name.get(stream, 0)), "features are float32"
        offset = found.sync.offset_seconds if found.sync else np.nan
        np.testing.assert_allclose(row["sync_offset_seconds"], offset, atol=1e-9)


def test_a_row_keeps_the_manifest_and_says_what_is_missing(scores: pd.DataFrame, files: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(scores[list(files)], files)
    assert list(scores)[len(files.columns) :] == list(RESULTS)
    _, _, silent, photo, unread = (row for _, row in scores.iterrows())
    assert silent[list(OUTPUTS)].isna().all()
    assert silent[list(FEATURES)].eq(0).all()
    assert silent["missing_audio"] == photo["missing_audio"] == "no audio stream"
    assert (photo["has_visual"], photo["has_audio"], photo["has_sync"]) == (1, 0, 0)
    assert 0 < photo["p_video_fake"] < 1
    assert (scores["error"][:4] == "").all()
    assert unread["error"].startswith("MediaError: ")
    assert unread[list(NUMBERS)].isna().all()


# -- from clips in memory


class Clips:
    """A source of given clips that counts, and can be told to stop."""

    def __init__(self, clips: list[list[Clip]], stop_at: int = -1) -> None:
        self.clips, self.stop_at, self.asked = clips, stop_at, list[int]()

    def feed(self, row: int, use: Use) -> dict[str, str]:
        if row == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(row)
        if not self.clips[row]:
            raise MediaError('damaged,\n"at" its start; copy it again')
        for clip in self.clips[row]:
            use(clip)
        return {}


def mute(seed: int) -> Clip:
    return dataclasses.replace(talking_clip(15, seed=seed, size=480), waveform=None)


def voice(seed: int) -> Clip:
    return Clip(0, 1, (), Waveform(speech(1, seed)))


CLIPS = [[talking_clip(50, seed=0, size=480)], [mute(1)], [], [voice(2)], [talking_clip(50, seed=3, size=480)]]
TABLE = manifest([f"/media/{i}.mp4" for i in range(len(CLIPS))])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load()


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> pd.DataFrame:
    return score_table(TABLE, Clips(CLIPS), bundle)


def test_a_killed_run_goes_on_where_it_stopped_and_mixes_nothing_in(
    bundle: Bundle, whole: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "scores.sqlite"
    first, second, third = Clips(CLIPS, stop_at=3), Clips(CLIPS), Clips(CLIPS)
    with pytest.raises(KeyboardInterrupt):
        score_table(TABLE, first, bundle, out)
    with Ledger(out, bundle.digest) as ledger:
        assert len(ledger.rows) == 3
    found = score_table(TABLE, second, bundle, out)
    assert (first.asked, second.asked) == ([0, 1, 2], [3, 4])
    pd.testing.assert_frame_equal(found, whole)
    other = dataclasses.replace(bundle, digest="f" * 16)
    with pytest.raises(ConfigError, match=rf"bundle: {bundle.digest} there, f{{16}} now\): name another folder"):
        score_table(TABLE, Clips(CLIPS), other, out)
    pd.testing.assert_frame_equal(score_table(TABLE, third, bundle, out), whole)
    assert third.asked == []
    fourth = Clips([[mute(9)], *CLIPS])
    again = score_table(manifest(["/media/new.mp4", *TABLE["path"]]), fourth, bundle, out)
    assert fourth.asked == [0], "of a longer manifest only what is new"
    pd.testing.assert_frame_equal(again[list(RESULTS)][1:].reset_index(drop=True), whole[list(RESULTS)])
    assert [path.name for path in tmp_path.iterdir()] == ["scores.sqlite"]
    (tmp_path / "scores.csv").write_text("path,fake\na.mp4,1\n")
    with pytest.raises(ConfigError, match="no ledger of scores"):
        score_table(TABLE, Clips(CLIPS), bundle, tmp_path / "scores.csv")


@dataclasses.dataclass
class Deadly(ClipSource):
    """A source whose second file kills whoever reads it and whose third never ends, until `harmless` exists."""

    harmless: Path

    def feed(self, row: int, use: Use) -> dict[str, str]:
        if not self.harmless.exists():
            if row == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600 * (row == 2))
        use(voice(row))
        return {}


def test_a_file_that_kills_its_worker_or_hangs_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_module, "FILE_SECONDS", 2.0)
    progress, table, source = tmp_path / "scores.sqlite", TABLE[:4], Deadly(tmp_path / "harmless")
    hung = "LimitError: it took longer than 2 s"
    first, died, *more = score_table(table, source, bundle, progress, workers=2)["error"]
    assert [first, *more] == ["", hung, ""]
    assert died.startswith("WorkerError: its worker was ended 2 times, the last time by SIGKILL")
    source.harmless.touch()
    again = score_table(table, source, bundle, progress, workers=2)
    assert again["error"].tolist() == ["", "", hung, ""], "who died is tried again by the next run"
    alone = score_table(table, source, bundle).drop(index=2)
    pd.testing.assert_frame_equal(again.drop(index=2), alone, atol=1e-6)
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        score_table(TABLE, Clips(CLIPS), bundle, workers=0)


@pytest.mark.parametrize("text", ["", "[1]", "{}", json.dumps(dict.fromkeys((*NUMBERS, *TEXTS), "x"))])
def test_a_damaged_row_is_said(text: str, tmp_path: Path) -> None:
    with Ledger(tmp_path / "scores.sqlite", "d") as ledger:
        ledger.add("a\n\udcff.mp4", "", dict.fromkeys(NUMBERS, 0.1) | {"p_fake": math.nan} | dict.fromkeys(TEXTS, "ü"))
        written = ledger.rows
    with Ledger(tmp_path / "scores.sqlite", "d") as ledger:
        np.testing.assert_equal(ledger.rows, written)
        ledger._store.change("UPDATE scores SET result = ?", text)
    with pytest.raises(ConfigError, match="is damaged: name another folder"):
        Ledger(tmp_path / "scores.sqlite", "d")


# -- streams left out


def test_masks_of_every_subset(bundle: Bundle, whole: pd.DataFrame) -> None:
    found = masked(whole, bundle)
    deaf = [[dataclasses.replace(clip, waveform=None) for clip in clips] for clips in CLIPS]
    removed = score_table(TABLE, Clips(deaf), bundle)["p_fake"]
    np.testing.assert_allclose(removed, found["masked:visual"], atol=1e-6)  # a mask is as good as no sound
    assert not bundle.info.model.fusion.silent
    names = ["visual", "audio", "sync", "visual+audio", "visual+sync", "audio+sync"]
    assert list(found)[len(whole.columns) :] == [f"masked:{name}" for name in names]
    # mute: the picture alone; unreadable: nothing; a voice: the sound alone
    has = {"visual": [1, 1, 0, 0, 1], "audio": [1, 0, 0, 1, 1], "sync": whole["has_sync"].fillna(0).tolist()}
    for name in names:
        present = np.any([has[stream] for stream in name.split("+")], axis=0)
        np.testing.assert_array_equal(found[f"masked:{name}"].notna(), present)
    for stream, output in (("visual", "p_video_fake"), ("audio", "p_audio_fake"), ("sync", "p_mismatch")):
        np.testing.assert_allclose(found[f"masked:{stream}"], whole[output], atol=1e-6)
    pair = found["masked:visual+audio"]
    assert (pair.dropna() >= found[["masked:visual", "masked:audio"]].max(axis=1)[pair.notna()] - 1e-6).all()
    there = masked(whole.assign(visual_logit=whole["visual_logit"] + 3), bundle)
    pd.testing.assert_series_equal(found["masked:audio"], there["masked:audio"])  # what a mask hides is not seen
    assert not found["masked:visual"].equals(there["masked:visual"])
