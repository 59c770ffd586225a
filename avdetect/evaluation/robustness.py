"""Robustness curves: the same files again after what a platform or a bad line does to them, milder and harder.

The picture is re-encoded in whole files (`datasets.augment.codecs`) and goes through the decoder and the face detector
again. The sound goes through a real codec, or has noise added, in the clips themselves: the picture is then the same to
the bit.
"""

import dataclasses
import math
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
from avdetect.errors import MediaError
from avdetect.evaluation.columns import OUTPUTS, Files, label_values, subset_masks
from avdetect.evaluation.ledger import Ledger
from avdetect.evaluation.metrics import SEED
from avdetect.evaluation.scores import FileScorer, shown
from avdetect.evaluation.sources import Feed, Use, feed_file, kept
from avdetect.media import VideoStream, probe
from avdetect.stills import STILLS
from avdetect.types import FPS, Clip, Waveform

GOOD_CRF = 18  # of a picture whose size or frame rate is what changes
SOUND = AudioCodec("aac", 128)  # beside a re-encoded picture
TWICE_SCALE = 0.75  # of the second encoding of "encoded twice"
Sound = Callable[[Waveform, np.random.Generator], Waveform]
Encoding = Callable[[VideoStream], VideoCodec]  # how a picture is encoded


def h264(crf: int, height: float = math.inf, scale: float = 1.0, fps: float | None = None) -> Encoding:
    """At most `height` pixels high and `scale` times its own height; fps None: its own."""

    def of(video: VideoStream) -> VideoCodec:
        own = min(max(video.fps or FPS, 1.0), 120.0)
        return VideoCodec("libx264", crf, min(scale, height / video.height), fps or own)

    return of


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
    listed = [Condition("h264", crf, "crf", (h264(crf),)) for crf in (18, 23, 28, 33, 38, 43)]
    listed += [Condition("height", height, "px", (h264(GOOD_CRF, height),)) for height in sizes]
    listed.append(Condition("frame rate", 15, "fps", (h264(GOOD_CRF, fps=15.0),)))
    listed.append(Condition("encoded twice", 28, "crf", (h264(28), h264(28, scale=TWICE_SCALE))))
    for kbps in (128, 64, 32, 16, 8):
        codec = AudioCodec("aac" if kbps >= 32 else "libopus", kbps)  # what is used at such rates
        listed.append(Condition("audio bit rate", kbps, "kbit/s", sound=partial(_coded, codec)))
    listed += [Condition("white noise", snr, "dB", sound=partial(_noisy, snr)) for snr in (40, 30, 20, 10, 0)]
    return listed


def _coded(codec: AudioCodec, wave: Waveform, rng: np.random.Generator) -> Waveform:
    return dataclasses.replace(wave, samples=through_audio_codec(wave.samples, codec))


def _noisy(snr_db: float, wave: Waveform, rng: np.random.Generator) -> Waveform:
    """White Gaussian noise, `snr_db` below the level of the clip's sound."""
    level = rms(wave.samples) * 10 ** (-snr_db / 20)
    noise = rng.standard_normal(len(wave.samples), dtype=np.float32) * np.float32(level)
    return dataclasses.replace(wave, samples=np.clip(wave.samples + noise, -1, 1))


def sample(table: pd.DataFrame, files_per_class: int) -> pd.DataFrame:
    """At most so many real and so many fake files of the clips, and of the speech; photographs are left out. Of every
    source in turn, so that no large one takes all places; the same for any order of the rows."""
    rng = np.random.default_rng(SEED)
    chosen = []
    masks = subset_masks(table)
    still = table["path"].str.lower().str.endswith(tuple(STILLS)).to_numpy(bool)
    for subset, label in product(("clips", "speech"), (0, 1)):
        wanted = masks[subset] & ~still & (label_values(table, "fake") == label)
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
    chosen = sample(table, files_per_class)
    folder.mkdir(parents=True, exist_ok=True)
    with Ledger(folder / "robustness.sqlite", detector.bundle.digest) as ledger:
        scorer = FileScorer(detector.bundle, detector.networks)
        used = {"clips": tried, "speech": [condition for condition in tried if condition.sound is not None]}
        for path, subset in shown(zip(chosen["path"], chosen["subset"], strict=True), "robustness", len(chosen)):
            for treatment, feed in _feeds(path, used[subset], detector, folder).items():
                if (path, treatment) not in ledger.rows:
                    ledger.add(path, treatment, scorer.score(feed))
        rows = []
        for subset, files in chosen.groupby("subset", sort=False):
            for one in (CLEAN, *used[str(subset)]):
                found = pd.DataFrame([ledger.rows[path, one.treatment] for path in files["path"]], files.index)
                head = {"subset": subset, "condition": one.name, "severity": one.severity, "unit": one.unit}
                rows += [head | row for row in _measured(files, found, rounds)]
    return pd.DataFrame(rows)


def _feeds(path: str, tried: Sequence[Condition], detector: Detector, folder: Path) -> dict[str, Feed]:
    """The clips of the file as it is ("") and by the treatment of each condition."""
    plain = kept(partial(feed_file, detector.preprocessor, path))  # decoded once for all that changes the sound
    feeds: dict[str, Feed] = {"": plain}
    for condition in tried:
        if condition.picture:
            feeds[condition.treatment] = partial(_encoded, detector, folder, Path(path), condition.picture)
        elif condition.sound is not None:
            feeds[condition.treatment] = partial(_sounding, path, plain, condition.sound)
    return feeds


def _encoded(detector: Detector, parent: Path, path: Path, picture: Sequence[Encoding], use: Use) -> dict[str, str]:
    video = probe(path).video
    if video is None:
        raise MediaError(f"{path} has no video stream to re-encode; call it speech in the manifest's column kind")
    with tempfile.TemporaryDirectory(dir=parent, prefix=".reencoded-") as folder:
        source = path
        for number, encoding in enumerate(picture):
            target = Path(folder) / f"{number}.mkv"
            reencode(source, target, Recipe(encoding(video), SOUND))
            source = target
        return feed_file(detector.preprocessor, str(source), use)


def _sounding(path: str, plain: Feed, sound: Sound, use: Use) -> dict[str, str]:
    def treat(clip: Clip) -> None:
        if clip.waveform is not None:
            rng = np.random.default_rng((SEED, zlib.crc32(path.encode()), round(clip.start_seconds * FPS)))
            clip = dataclasses.replace(clip, waveform=sound(clip.waveform, rng))
        use(clip)

    return plain(treat)


def _measured(files: pd.DataFrame, results: pd.DataFrame, rounds: int) -> list[dict[str, Any]]:
    """A row an output, of `files` and what the ledger holds of them in one condition."""
    scores, rows = Files(files.assign(**{name: results[name] for name in OUTPUTS}), None, rounds), []
    for score, label in OUTPUTS.items():
        measured = scores.row("robustness", "", score, label, np.ones(len(files), bool))
        p, truth = results[score].to_numpy(np.float64), scores.labels[label]
        row = {name: measured[name] for name in ("score", "label", "n", "fakes", "abstained")}
        for name, value in (("mean_p_real", 0), ("mean_p_fake", 1)):
            of_class = p[(truth == value) & ~np.isnan(p)]
            row[name] = float(of_class.mean()) if len(of_class) else np.nan
        row["note"] = measured.get("note", "")
        rows.append(row | {name: measured.get(name, np.nan) for name in ("auc", "auc_low", "auc_high")})
    return rows
