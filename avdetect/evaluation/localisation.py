"""Where a partial forgery is: how well the Detection's segments fit the true ones; their average precision.

AP as LAV-DF (Cai et al., 2022) and ActivityNet (Heilbron et al., 2015) define it: the segments of all files in one list
by score, each true segment found once, precision interpolated over recall.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from avdetect.detector import Detector
from avdetect.errors import MediaError
from avdetect.evaluation.columns import label_values
from avdetect.types import Detection

Segment = tuple[float, float]  # (start_seconds, end_seconds)
Scored = tuple[float, float, float]  # (start_seconds, end_seconds, score)
IOUS = (0.5, 0.75, 0.95)
# Score -> the streams whose segments are taken for it, and the column of what is true.
MEASURED = {
    "visual": (("visual",), "video_fake_segments"),
    "audio": (("audio",), "audio_fake_segments"),
    "visual and audio": (("visual", "audio"), "fake_segments"),
}
LABELS = {"visual": "video_fake", "audio": "audio_fake"}


def overlap(one: Segment, other: Segment) -> float:
    """Intersection over union."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return shared / (max(one[1], other[1]) - min(one[0], other[0])) if shared > 0 else 0.0


def average_precision(
    predicted: Mapping[str, Sequence[Scored]], truth: Mapping[str, Sequence[Segment]], iou: float
) -> float:
    """AP in 0..1 of segments by file; NaN when there is no true segment. iou: in (0, 1].

    In the order of the scores (ties: as they are given), a segment is right when it overlaps a true one of its file
    that no better segment has taken by at least `iou`; it takes the one that it fits best.
    """
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


def measure_localisation(table: pd.DataFrame, detector: Detector) -> pd.DataFrame:
    """AP@IOUS, and their mean, of the Detection's segments, on the files with `fake_segments` and on the real files of
    their datasets (where every segment is wrong).

    A stream is held against the segments of its own modality where the manifest has them. Columns: table, score, files,
    failed (files that could not be read: what is true in them is missed), method, segments, ap_50, ap_75, ap_95,
    ap_mean, real (real files that were read), false_alarms (share of them with a segment), whole (files of these
    datasets that are fake from end to end), covered (mean share of their time that segments hold; NaN without any).
    """
    partial = table["fake_segments"].map(bool)
    files = table[table["dataset"].isin(table.loc[partial, "dataset"])]
    found = dict[str, Detection]()
    for path in files["path"]:
        with suppress(MediaError):
            found[path] = detector.score(path)
    partial, real = partial[files.index], label_values(files, "fake") == 0
    judged = files[partial | real]
    rows: list[dict[str, Any]] = []
    for score, (streams, column) in MEASURED.items():
        segments = judged[column if column in judged else "fake_segments"]
        truth = {path: list(parts) for path, parts in zip(judged["path"], segments, strict=True) if parts}
        if not truth:
            continue
        own = {path: _segments(found[path], streams) for path in judged["path"] if path in found}
        fake = np.logical_or.reduce([label_values(files, LABELS[name]) == 1 for name in streams])
        alarms = [bool(own[path]) for path in files.loc[real, "path"] if path in own]
        covered = [_covered(found[path], streams) for path in files.loc[fake & ~partial, "path"] if path in found]
        precisions = [average_precision(own, truth, iou) for iou in IOUS]
        rows.append(
            {
                **{"table": "localisation", "score": score, "files": len(judged)},
                **{"failed": int((~judged["path"].isin(list(found))).sum()), "method": "segments"},
                "segments": sum(map(len, truth.values())),
                **{f"ap_{round(100 * iou)}": value for iou, value in zip(IOUS, precisions, strict=True)},
                "ap_mean": _mean(precisions),
                **{"real": len(alarms), "false_alarms": _mean(alarms)},
                **{"whole": len(covered), "covered": _mean(covered)},
            }
        )
    return pd.DataFrame(rows)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _segments(found: Detection, streams: Iterable[str]) -> list[Scored]:
    return [(s.start_seconds, s.end_seconds, s.score) for s in found.segments if s.stream in streams]


def _covered(found: Detection, streams: Iterable[str]) -> float:
    """The share of what was scored that segments of some streams hold, together."""
    held, reached = 0.0, -np.inf
    for start, end, _ in sorted(_segments(found, streams)):
        held += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return min(1.0, held / found.duration_seconds) if found.duration_seconds else 0.0
