"""Robustness curves: the same files again after what a platform or a bad line does to them, milder and harder.

The picture is re-encoded in whole files (`datasets.augment.reencode`) and goes through the decoder and the face
detector again. The sound goes through a real codec, or has noise added, in the clips themselves: the picture is then
the same to the bit.
"""

from __future__ import annotations

import dataclasses
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avdetect.audio import rms
from avdetect.datasets.augment.codecs import AudioCodec, Recipe, VideoCodec, reencode, through_audio_codec
from avdetect.detector import Detector
from avdetect.errors import ConfigError, MediaError
from avdetect.evaluation.columns import OUTPUTS, label_values, subset_masks
from avdetect.evaluation.ledger import Ledger
from avdetect.evaluation.metrics import measure
from avdetect.evaluation.scores import FileScorer, shown
from avdetect.evaluation.sources import CachedFeed, Feed, FileClips, Use, with_sound
from avdetect.media import VideoStream, probe
from avdetect.preprocess import STILLS
from avdetect.types import FPS, Clip, Waveform

GOOD_CRF = 18  # of a picture whose size or frame rate is what changes
SOUND = AudioCodec("aac", 128)  # beside a re-encoded picture
TWICE_SCALE = 0.75  # of the second encoding of "encoded twice"
Sound = Callable[[Waveform, np.random.Generator], Waveform]


@dataclass(frozen=True)
class Encoding:
    """One H.264 encoding of the picture."""

    crf: int
    height: int | None = None  # pixels, never more than the file has; None: the file's own, times `scale`
    scale: float = 1.0
    fps: float | None = None  # None: the file's own

    def of(self, video: VideoStream) -> VideoCodec:
        """For a file with this picture."""
        scale = self.scale if self.height is None else min(1.0, self.height / video.height)
        return VideoCodec("libx264", self.crf, scale, self.fps or min(max(video.fps or FPS, 1.0), 120.0))


@dataclass(frozen=True)
class Condition:
    """One severity of one treatment, of the picture (then the sound is encoded well) or of the sound."""

    name: str  # of the curve
    severity: float  # in `unit`
    unit: str
    picture: tuple[Encoding, ...] = ()  # one after another
    sound: Sound | None = None

    @property
    def treatment(self) -> str:
        """Its name in the ledger."""
        return f"{self.name} {self.severity:g} {self.unit}" if self.picture or self.sound else ""


CLEAN = Condition("clean", float("nan"), "")


def conditions() -> list[Condition]:
    """Every curve with its severities, mild ones first."""
    sizes = (720, 480, 360, 240, 144)
    listed = [Condition("h264", crf, "crf", (Encoding(crf),)) for crf in (18, 23, 28, 33, 38, 43)]
    listed += [Condition("height", height, "px", (Encoding(GOOD_CRF, height=height),)) for height in sizes]
    listed.append(Condition("frame rate", 15, "fps", (Encoding(GOOD_CRF, fps=15.0),)))
    listed.append(Condition("encoded twice", 28, "crf", (Encoding(28), Encoding(28, scale=TWICE_SCALE))))
    for kbps in (128, 64, 32, 16, 8):
        codec = AudioCodec("aac" if kbps >= 32 else "libopus", kbps)  # what is used at such rates
        listed.append(Condition("audio bit rate", kbps, "kbit/s", sound=_coded(codec)))
    listed += [Condition("white noise", snr, "dB", sound=_noisy(snr)) for snr in (40, 30, 20, 10, 0)]
    return listed


def _coded(codec: AudioCodec) -> Sound:
    return lambda wave, _: dataclasses.replace(wave, samples=through_audio_codec(wave.samples, codec))


def _noisy(snr_db: float) -> Sound:
    """White Gaussian noise, `snr_db` below the level of the clip's sound."""

    def change(wave: Waveform, rng: np.random.Generator) -> Waveform:
        level = rms(wave.samples) * 10 ** (-snr_db / 20)
        noise = rng.standard_normal(len(wave.samples), dtype=np.float32) * np.float32(level)
        return dataclasses.replace(wave, samples=np.clip(wave.samples + noise, -1, 1))

    return change


def sample(table: pd.DataFrame, files_per_class: int, seed: int = 0) -> pd.DataFrame:
    """At most so many real and so many fake files of the clips, and of the speech; photographs are left out.

    Of every source in turn, so that no large one takes all places; the same for any order of the rows.
    """
    if files_per_class < 1:
        raise ConfigError(f"files_per_class must be at least 1, got {files_per_class}")
    rng = np.random.default_rng(seed)
    chosen = []
    masks = subset_masks(table)
    still = table["path"].str.lower().str.endswith(tuple(STILLS)).to_numpy(bool)
    for subset, label in product(("clips", "speech"), (0, 1)):
        wanted = masks[subset] & ~still & table["fake"].eq(label).fillna(False).to_numpy(bool)
        files = table[wanted].sort_values("path")
        files = files.iloc[rng.permutation(len(files))]
        turn = files.groupby("dataset").cumcount()
        chosen.append(files.assign(subset=subset).loc[turn.sort_values(kind="stable").index[:files_per_class]])
    return pd.concat(chosen, ignore_index=True)


def robustness(
    table: pd.DataFrame,
    detector: Detector,
    folder: Path,
    files_per_class: int = 20,
    seed: int = 0,
    *,
    rounds: int = 500,
    tried: Sequence[Condition] | None = None,
) -> pd.DataFrame:
    """A sample of the manifest's files as they are and in each condition (`tried`; None: `conditions()`).

    A row for each subset (clips, speech), condition, severity and output, all on the same files: n, fakes, abstained,
    mean_p_real, mean_p_fake, and of `metrics.measure` note, auc, auc_low and auc_high (none without both classes).
    condition "clean": the files as they are. Speech is not given the picture's conditions.
    folder: `robustness.sqlite` in it keeps every file that is scored, so that a killed run goes on; temporary
    files are in it too, and removed.
    Raises ConfigError when the folder holds scores of another bundle, ToolError when ffmpeg lacks an encoder.
    """
    tried = conditions() if tried is None else tried
    chosen = sample(table, files_per_class, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder / "robustness.sqlite", detector.bundle.digest) as ledger:
        run = _Run(detector, ledger, folder, seed)
        used = {"clips": tried, "speech": [condition for condition in tried if condition.sound is not None]}
        for path, subset in shown(zip(chosen["path"], chosen["subset"], strict=True), "robustness", len(chosen)):
            run.score(path, used[subset])
        rows = []
        for subset, files in chosen.groupby("subset", sort=False):
            for one in (CLEAN, *used[str(subset)]):
                found = pd.DataFrame([ledger.rows[path, one.treatment] for path in files["path"]], files.index)
                head = {"subset": subset, "condition": one.name, "severity": one.severity, "unit": one.unit}
                rows += [head | row for row in _measured(files, found, rounds, seed)]
    return pd.DataFrame(rows)


class _Run:
    """Scores files in conditions that the ledger does not know yet."""

    def __init__(self, detector: Detector, ledger: Ledger, folder: Path, seed: int) -> None:
        self._scorer = FileScorer(detector.bundle, detector.networks)
        self._files = FileClips(pd.DataFrame({"path": []}), detector.preprocessor)
        self._ledger, self._folder, self._seed = ledger, folder, seed

    def score(self, path: str, tried: Sequence[Condition]) -> None:
        """The file as it is, and in each condition."""
        plain = CachedFeed(partial(self._files.feed_file, path))  # decoded once for all that changes only the sound
        feeds: dict[str, Feed] = {"": plain}
        for condition in tried:
            if condition.picture:
                feeds[condition.treatment] = partial(self._encoded, Path(path), condition.picture)
            elif condition.sound is not None:
                feeds[condition.treatment] = partial(self._sounding, path, plain, condition.sound)
        for treatment, feed in feeds.items():
            if (path, treatment) not in self._ledger.rows:
                self._ledger.add(path, treatment, self._scorer.score(feed))

    def _encoded(self, path: Path, picture: tuple[Encoding, ...], use: Use) -> dict[str, str]:
        video = probe(path).video
        if video is None:
            raise MediaError(f"{path} has no video stream to re-encode; call it speech in the manifest's column kind")
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".reencoded-") as folder:
            source = path
            for number, encoding in enumerate(picture):
                target = Path(folder) / f"{number}.mkv"
                reencode(source, target, Recipe(encoding.of(video), SOUND))
                source = target
            return self._files.feed_file(str(source), use)

    def _sounding(self, path: str, plain: Feed, sound: Sound, use: Use) -> dict[str, str]:
        def treat(clip: Clip) -> None:
            rng = np.random.default_rng((self._seed, zlib.crc32(path.encode()), round(clip.start_seconds * FPS)))
            use(with_sound(clip, lambda wave: sound(wave, rng)))

        return plain(treat)


def _measured(files: pd.DataFrame, results: pd.DataFrame, rounds: int, seed: int) -> list[dict[str, Any]]:
    """A row an output, of `files` and what the ledger holds of them in one condition."""
    rows = []
    for score, label in OUTPUTS.items():
        truth = label_values(files, label)
        known = ~np.isnan(truth)
        judged = known & results[score].notna().to_numpy(bool)
        y, p = truth[judged].astype(np.int64), results[score][judged].to_numpy(np.float64)
        row: dict[str, Any] = {"score": score, "label": label, "n": len(y), "fakes": int(y.sum())}
        row |= {"abstained": int(known.sum()) - len(y)}
        for name, value in (("mean_p_real", 0), ("mean_p_fake", 1)):
            row[name] = float(p[y == value].mean()) if (y == value).any() else np.nan
        measured = measure(y, p, files[judged], proper=False, rounds=rounds, seed=seed)
        row["note"] = measured.get("note", "")
        rows.append(row | {name: measured.get(name, np.nan) for name in ("auc", "auc_low", "auc_high")})
    return rows
