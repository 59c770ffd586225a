"""Shortcut audit: how far real and fake can be told apart by what has nothing to do with a face or a voice.

For each output, a gradient-boosted classifier sees only the file's container, its length, its silence, its loudness or
its noise floor. It is trained on the other folds and measured on the very files that the model is measured on. A model
that does not exceed it may have learned the files instead of the forgeries.
"""

import math
import os
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

from avdetect.audio import SILENCE_RMS, rms
from avdetect.datasets.manifest import folds
from avdetect.errors import ManifestError, MediaError
from avdetect.evaluation.columns import ANSWERS, MIN_CLASS, Files, measurement_frame
from avdetect.evaluation.metrics import SEED
from avdetect.media import MediaInfo, MediaReader
from avdetect.types import SAMPLE_RATE, Float

FRAME = SAMPLE_RATE // 50  # samples in 20 ms
FLOOR = 1e-10  # of a power: digital silence reads -100 dB
QUIET_DB = 40  # a frame this far below the loudest one is silence, like one below the house's -55 dBFS
NOISE_PERCENTILE = 10  # of the energies of the frames
CHUNK_SECONDS = 10.0
# Names by ffmpeg. The code of a name is its place here, so only append; 0: there is none; -1: not listed.
CODECS = (
    *("", "h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "ffv1", "prores", "gif"),
    *("aac", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "mp2", "amr_nb", "amr_wb", "wmav2", "wmv2"),
    *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw", "flv1"),
)
CONTAINERS = ("", *"mov matroska avi mpegts mpeg ogg wav flac mp3 aac flv asf gif webm aiff caf amr image2".split())
FEATURE_SETS = {
    "container facts": (
        *("width", "height", "fps", "bit_rate", "file_bytes", "sample_rate", "channels", "has_video_stream"),
        *("has_audio_stream", "container", "video_codec", "audio_codec"),
    ),
    "duration": ("duration_seconds",),
    "silence": ("silence_share", "leading_silence_seconds"),
    "loudness": ("loudness_db",),
    "noise floor": ("noise_floor_db",),
}
FEATURE_SETS["all shortcuts"] = tuple(name for names in FEATURE_SETS.values() for name in names)
FACTS = FEATURE_SETS["all shortcuts"]
# Small trees and coarse bins: a few hundred files, and a shortcut that needs more is none.
BOOSTING: dict[str, Any] = {"max_iter": 60, "max_leaf_nodes": 8, "max_bins": 63, "min_samples_leaf": 10}
BOOSTING |= {"class_weight": "balanced", "early_stopping": False}
TRIED_FOLDS = [(by, number) for by in ("dataset", "group") for number in (5, 3, 2)]


def facts(path: str | os.PathLike[str]) -> dict[str, float]:
    """FACTS of one file; NaN where it has no picture or no sound, or does not state the fact; of what is no media, all.

    Sizes and rates are those that the header states, but for the bit rate: it is that of the whole file, bytes over
    seconds (`MediaInfo` knows none of a single stream).
    """
    try:
        with MediaReader(path) as reader:
            try:
                parts = [chunk.samples for chunk in reader.audio(CHUNK_SECONDS)] if reader.info.audio else []
            except MediaError:  # the header promises sound that cannot be decoded: there is none to describe
                parts = []
            found = _container(reader.info, os.path.getsize(path))
    except MediaError:
        return dict.fromkeys(FACTS, math.nan)
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    found |= sound_facts(samples)
    if math.isnan(found["duration_seconds"]) and len(samples):
        found["duration_seconds"] = len(samples) / SAMPLE_RATE
    found["bit_rate"] = found["file_bytes"] * 8 / max(found["duration_seconds"], 1 / 25)
    return {name: float(found[name]) for name in FACTS}


def _container(info: MediaInfo, size: int) -> dict[str, float]:
    video, audio = info.video, info.audio
    stated = {name: getattr(video, name, None) for name in ("width", "height", "fps")}
    stated |= {name: getattr(audio, name, None) for name in ("sample_rate", "channels")}
    stated |= {"duration_seconds": info.duration_seconds, "fps": stated["fps"] or None}
    return {
        **{name: math.nan if value is None else value for name, value in stated.items()},
        **{"file_bytes": size, "has_video_stream": video is not None, "has_audio_stream": audio is not None},
        "container": _code(CONTAINERS, info.container),
        "video_codec": _code(CODECS, video.codec if video else ""),
        "audio_codec": _code(CODECS, audio.codec if audio else ""),
    }


def _code(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else -1


def sound_facts(samples: Float) -> dict[str, float]:
    """Silence, loudness and noise floor of (num_samples,) at 16 kHz; NaN for less than one frame of 20 ms. The noise
    floor is the 10th percentile of the frames' energies. dB are relative to full scale."""
    names = ("silence_share", "leading_silence_seconds", "loudness_db", "noise_floor_db")
    count = len(samples) // FRAME
    if not count:
        return dict.fromkeys(names, math.nan)
    frames = samples[: count * FRAME].astype(np.float64).reshape(count, FRAME)
    energy = 10 * np.log10(np.mean(frames**2, axis=1) + FLOOR)  # (count,) dB
    silent = energy < max(20 * math.log10(SILENCE_RMS), energy.max() - QUIET_DB)
    leading = count if silent.all() else int(silent.argmin())
    loudness = 10 * math.log10(rms(samples) ** 2 + FLOOR)
    values = (silent.mean(), leading * FRAME / SAMPLE_RATE, loudness, np.percentile(energy, NOISE_PERCENTILE))
    return dict(zip(names, map(float, values), strict=True))


def evaluation_folds(scores: pd.DataFrame) -> pd.Series:
    """The fold of each row. The name of the series says how it was cut: "given", "dataset" or "group".

    Given: the column `fold`, where every file has one and there are two or more. Else five folds that never split a
    dataset, so that a shortcut must hold in sources it has not seen; three or two where there are too few sources; else
    the same by group. Raises ManifestError for a table that cannot be cut at all.
    """
    if "fold" in scores and scores["fold"].notna().all() and scores["fold"].nunique() > 1:
        return scores["fold"].astype(np.int64).rename("given")
    for by, number in TRIED_FOLDS:
        try:
            return folds(scores, number, by=by).rename(by)  # type: ignore[arg-type]
        except ManifestError as error:
            reason = str(error)
    raise ManifestError(f"no folds for the shortcut audit: {reason}")


def guess_column(label: str, name: str) -> str:
    """The column of `guesses` for one label and one of FEATURE_SETS."""
    return f"shortcut:{label}:{name}"


def guesses(scores: pd.DataFrame, facts: pd.DataFrame, fold: np.ndarray | pd.Series) -> pd.DataFrame:
    """What each of FEATURE_SETS alone says of each file of clips and speech, for each label: (N,) `guess_column`s.

    By classifiers that were trained on the other folds. `facts` and `fold` (N,) belong to the rows of `scores`. Only
    files with a known label that the model judged are used; the others are NaN, and so are those that no classifier
    could be trained for, because the other folds lack a class.
    """
    files, parts = Files(scores, None, 0), np.asarray(fold)
    columns: dict[str, np.ndarray] = {}
    for _, label, known in _guessed(files):
        for name, used in FEATURE_SETS.items():
            x = facts.loc[known, list(used)].to_numpy(np.float64)
            p = out_of_fold(x, files.labels[label][known], parts[known])
            columns.setdefault(guess_column(label, name), np.full(len(scores), np.nan))[known] = p
    return pd.DataFrame(columns, index=scores.index)


def _guessed(files: Files) -> Iterator[tuple[str, str, np.ndarray]]:
    """(subset, label, files) that are enough of both classes for classifiers."""
    for subset, label in product(("clips", "speech"), ANSWERS):
        judged = [files.masks[subset] & files.judged(f"p_{label}", label, value) for value in (0, 1)]
        if min(mask.sum() for mask in judged) >= MIN_CLASS:
            yield subset, label, judged[0] | judged[1]


def shortcuts(scores: pd.DataFrame, rounds: int = 500, measured: np.ndarray | None = None) -> pd.DataFrame:
    """One measurement (`evaluation.columns`) for each output, on clips and speech, and each of FEATURE_SETS.

    table is "audit", score the feature set. `scores` holds the columns of `guesses`; without them there is nothing to
    measure. `abstained` counts the files without a guess. measured (N,): the rows to measure on (None: all).
    """
    files = Files(scores, None, rounds)
    wanted = np.ones(len(scores), bool) if measured is None else measured
    rows = []
    for subset, label, known in _guessed(files):
        for name in (name for name in FEATURE_SETS if guess_column(label, name) in scores):
            row = files.row("audit", subset, guess_column(label, name), label, known & wanted)
            rows.append(row | {"score": name})
    return measurement_frame(rows)


@threadpool_limits.wrap(limits=1)  # trees this small gain nothing from threads, and wait for busy cores
def out_of_fold(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N,) probability of 1 by a classifier trained on the other folds, both classes alike; NaN if those lack a class.

    x (N, F), NaN allowed; y (N,) of 0 and 1. scikit-learn's histogram gradient boosting: deterministic, and it takes a
    missing fact for what it is. Facts that are missing everywhere tell nothing and are left out.
    """
    p = np.full(len(y), np.nan)
    for part in np.unique(fold):
        held, seen = fold == part, fold != part
        if len(np.unique(y[seen])) < 2:
            continue
        usable = ~np.isnan(x[seen]).all(axis=0)
        if not usable.any():
            p[held] = 0.5  # the classifier that knows nothing: all files are tied
            continue
        model = HistGradientBoostingClassifier(**BOOSTING, random_state=SEED).fit(x[seen][:, usable], y[seen])
        p[held] = model.predict_proba(x[held][:, usable])[:, 1]
    return p


def best_shortcuts(audit_rows: pd.DataFrame) -> pd.DataFrame:
    """Of each subset and label, the audit's row with the highest AUC."""
    ordered = audit_rows.dropna(subset=["auc"]).sort_values("auc", ascending=False, kind="stable")
    return ordered.drop_duplicates(["subset", "label"]).sort_index()


def beaten(measurements: pd.DataFrame, audit_rows: pd.DataFrame) -> list[str]:
    """A sentence for each output of the model whose AUC does not exceed that of the best shortcut on the same files."""
    outputs = measurements[(measurements["table"] == "output") & measurements["auc"].notna()]
    sentences = []
    for row in best_shortcuts(audit_rows).to_dict("records"):
        same = outputs[(outputs["subset"] == row["subset"]) & (outputs["label"] == row["label"])]
        for auc in same.loc[same["auc"] <= row["auc"], "auc"]:
            ours, theirs = (f"{value:.2f}".removeprefix("0") for value in (auc, row["auc"]))  # as the field writes it
            sentences.append(
                f"{row['subset']}/{row['label']}: the model's AUC {ours} does not beat {row['score']} alone ({theirs})"
            )
    return sentences
