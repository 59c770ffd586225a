"""Where a partial forgery is: the Detection's segments, and all that its curves suggest; their average precision.

AP as LAV-DF (Cai et al., 2022) and ActivityNet (Heilbron et al., 2015) define it: the segments of all files in one list
by score, each true segment found once, precision interpolated over recall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from avdetect.errors import MediaError
from avdetect.segments import HIGH, runs
from avdetect.types import Curve, Detection, Float

Segment = tuple[float, float]  # (start_seconds, end_seconds)
Scored = tuple[float, float, float]  # (start_seconds, end_seconds, score)
IOUS = (0.5, 0.75, 0.95)
MAX_THRESHOLDS = 32  # of one curve
NMS_IOU = 0.7  # of two segments that overlap more, the better one is kept
# Score -> the streams whose curves are averaged (or whose segments are taken) for it, and the column of what is true.
CURVES = {
    "visual": (("visual",), "video_fake_segments"),
    "audio": (("audio",), "audio_fake_segments"),
    "sync": (("sync",), "fake_segments"),
    "visual and audio": (("visual", "audio"), "fake_segments"),
}


class Detects(Protocol):
    """A `detector.Detector`."""

    def score(self, path: str) -> Detection: ...


def overlap(one: Segment, other: Segment) -> float:
    """Intersection over union."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return shared / (max(one[1], other[1]) - min(one[0], other[0])) if shared > 0 else 0.0


def proposals(times: ArrayLike, values: ArrayLike, step: float = 1.0) -> list[Scored]:
    """Segments that a score curve suggests, the best first.

    times (T,) rising middles of cells `step` seconds long, values (T,). Every connected run of cells at or above a
    threshold is one, for each distinct value as threshold (of many, for quantiles). Its score is the mean inside minus
    the mean outside, 0 where nothing is outside: the outer-inner contrast of AutoLoc (Shou et al., 2018) with all of
    the rest as its outside. What overlaps a better one by more than NMS_IOU is dropped.
    """
    time, value = np.asarray(times, np.float64), np.asarray(values, np.float64)
    if time.shape != value.shape or time.ndim != 1 or (np.diff(time) <= 0).any():
        raise ValueError(f"times must rise and be as many as the values, got {time.shape} and {value.shape}")
    levels = np.unique(value)
    if len(levels) > MAX_THRESHOLDS:
        levels = np.unique(np.quantile(levels, np.linspace(0, 1, MAX_THRESHOLDS)))
    found: dict[tuple[int, int], float] = {}
    for level in levels:
        for first, last in runs(value >= level, time, step):
            inside = value[first : last + 1]
            others = len(value) - len(inside)
            outside = (value.sum() - inside.sum()) / others if others else inside.mean()
            found[first, last] = float(inside.mean() - outside)
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    segments = [(max(0.0, time[a] - step / 2), time[b] + step / 2, score) for (a, b), score in ranked]
    kept: list[Scored] = []
    for start, end, score in segments:
        if all(overlap((start, end), (k[0], k[1])) <= NMS_IOU for k in kept):
            kept.append((float(start), float(end), score))
    return kept


def average_precision(
    predicted: Mapping[str, Sequence[Scored]], truth: Mapping[str, Sequence[Segment]], iou: float
) -> float:
    """AP in 0..1 of segments by file; NaN when there is no true segment.

    In the order of the scores (ties: as they are given), a segment is right when it overlaps a true one of its file
    that no better segment has taken by at least `iou`; it takes the one that it fits best.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must be in (0, 1], got {iou}")
    total = sum(map(len, truth.values()))
    if not total:
        return float("nan")
    pooled = [(score, file, (start, end)) for file, segments in predicted.items() for start, end, score in segments]
    pooled.sort(key=lambda item: -item[0])
    free = {file: list(segments) for file, segments in truth.items()}
    right = np.zeros(len(pooled))
    for place, (_, file, segment) in enumerate(pooled):
        fits = [overlap(segment, other) for other in free.get(file, ())]
        if fits and max(fits) >= iou:
            free[file].pop(int(np.argmax(fits)))
            right[place] = 1
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    return float((envelope * right).sum() / total)


def measure_localisation(table: pd.DataFrame, detector: Detects) -> pd.DataFrame:
    """AP@IOUS, and their mean, of each stream's curve and of the Detection's segments; empty when no file of the
    manifest has `fake_segments`.

    AP is measured on the files with segments and on the real files of their datasets (where every segment is wrong). A
    stream is held against the segments of its own part where the manifest has them. Columns: table, score, method
    (`proposals` from curves, or the Detection's own `segments`), files, segments, failed (files that could not be read:
    what is true in them is missed), ap_50, ap_75, ap_95, ap_mean. Of `segments` also real (real files that were read),
    false_alarms (share of them with a segment), whole (files of these datasets of which the part is fake from end to
    end), covered (mean share of their time that segments hold; NaN without any).
    """
    if "fake_segments" not in table or not table["fake_segments"].map(bool).any():
        return pd.DataFrame()
    files = table[table["dataset"].isin(table.loc[table["fake_segments"].map(bool), "dataset"])]
    found = dict[str, Detection]()
    for path in files["path"]:
        with suppress(MediaError):
            found[path] = detector.score(path)
    partial = files["fake_segments"].map(bool).to_numpy(bool)
    real = files["fake"].eq(0).fillna(False).to_numpy(bool)
    judged = files[partial | real]
    lost = int((~judged["path"].isin(list(found))).sum())
    rows = []
    for score, (streams, column) in CURVES.items():
        segments = judged[column if column in judged else "fake_segments"]
        truth = {path: list(parts) for path, parts in zip(judged["path"], segments, strict=True) if parts}
        if not truth:
            continue
        seen = {path: found[path] for path in judged["path"] if path in found}
        about = {"table": "localisation", "score": score, "files": len(judged), "failed": lost}
        curves = {path: [s.curves for s in one.streams if s.name in streams] for path, one in seen.items()}
        suggested = {path: proposals(*joined_curve(of)) for path, of in curves.items()}
        rows.append(about | {"method": "proposals"} | _precisions(suggested, truth))
        if set(streams) <= set(HIGH):
            own = {path: _segments(one, streams) for path, one in seen.items()}
            alarms = [bool(own[path]) for path in files.loc[real, "path"] if path in own]
            whole = [found[path] for path in _wholly_fake(files[~partial], streams) if path in found]
            beside = _shares("real", "false_alarms", alarms) | _shares("whole", "covered", _covered(whole, streams))
            rows.append(about | {"method": "segments"} | _precisions(own, truth) | beside)
    return pd.DataFrame(rows)


def _precisions(predicted: Mapping[str, Sequence[Scored]], truth: Mapping[str, Sequence[Segment]]) -> dict[str, float]:
    values = [average_precision(predicted, truth, iou) for iou in IOUS]
    named = {f"ap_{round(100 * iou)}": value for iou, value in zip(IOUS, values, strict=True)}
    return {"segments": sum(map(len, truth.values())), **named, "ap_mean": float(np.mean(values))}


def _segments(found: Detection, streams: Sequence[str]) -> list[Scored]:
    """The segments of some streams."""
    return [(s.start_seconds, s.end_seconds, s.score) for s in found.segments if s.stream in streams]


def _wholly_fake(files: pd.DataFrame, streams: Sequence[str]) -> list[str]:
    """Paths, of files without segments, of those whose part is fake: all of it is."""
    parts = {"visual": "video_fake", "audio": "audio_fake"}
    fake = np.logical_or.reduce([files[parts[name]].eq(1).fillna(False).to_numpy(bool) for name in streams])
    return files.loc[fake, "path"].tolist()


def _covered(found: Iterable[Detection], streams: Sequence[str]) -> list[float]:
    """Of each file the share of what was scored that segments of some streams hold, together."""
    shares = []
    for one in found:
        held, reached = 0.0, -np.inf
        for start, end, _ in sorted(_segments(one, streams)):
            held += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        shares.append(min(1.0, held / one.duration_seconds) if one.duration_seconds else 0.0)
    return shares


def _shares(count: str, mean: str, values: Sequence[float]) -> dict[str, float]:
    return {count: len(values), mean: float(np.mean(values)) if values else float("nan")}


def joined_curve(streams: Iterable[Sequence[Curve]]) -> tuple[Float, Float]:
    """(T,) seconds and (T,) values: of each stream's tracks the highest in every second, of the streams their mean."""
    by_second: dict[float, list[float]] = {}
    for curves in streams:
        highest: dict[float, float] = {}
        for curve in curves:
            for second, value in zip(curve.times_seconds, curve.values, strict=True):
                highest[second] = max(value, highest.get(second, value))
        for second, value in highest.items():
            by_second.setdefault(second, []).append(value)
    times = sorted(by_second)
    return np.array(times), np.array([np.mean(by_second[second]) for second in times])
