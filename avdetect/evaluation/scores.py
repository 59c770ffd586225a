"""The scores table: a row a file of the manifest, with what a bundle says of it. Everything else is measured on it.

The manifest's columns, then: the bundle's digest and what was done to the clips (`treatment`), the nine
`pooling.FEATURES`, `sync_offset_seconds` (> 0: the audio lags), `duration_seconds`, `p_fake`, `p_video_fake`,
`p_audio_fake`, `p_mismatch` (calibrated; NaN where the model abstains or the part was not judged), why a stream is
missing, and `error` for a file that could not be read (all numbers are NaN then). The numbers are those of
`avdetect score`.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from avdetect.bundle import Bundle, OnnxNetworks
from avdetect.datasets.manifest import SEGMENTS, read_manifest
from avdetect.datasets.segments import segments_text, typed_segments
from avdetect.detector import probabilities
from avdetect.errors import AVDetectError, ConfigError, ManifestError, MediaError
from avdetect.evaluation.ledger import NUMBERS, OUTPUTS, RESULTS, STREAMS, TEXTS, Ledger
from avdetect.evaluation.sources import CacheClips, ClipSource, Feed, FileClips, Without
from avdetect.files import replacing
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE
from avdetect.scoring import StreamScorer
from avdetect.types import Clip, Float

__all__ = [
    "NUMBERS",
    "OUTPUTS",
    "RESULTS",
    "STREAMS",
    "TEXTS",
    "CacheClips",
    "ClipSource",
    "FileClips",
    "FileScorer",
    "masked",
    "read_scores",
    "score_table",
]

Removed = Literal["", "video", "audio"]


class FileScorer:
    """What a bundle says of one file after the other, as rows of the scores table."""

    def __init__(self, bundle: Bundle, networks: OnnxNetworks) -> None:
        self.bundle, self.networks = bundle, networks
        self._scorer = StreamScorer(networks, bundle.info.model, bundle.info.preprocess.faces)

    def score(self, feed: Feed) -> dict[str, Any]:
        """NUMBERS and TEXTS of the file whose clips `feed` gives; one that cannot be read has its error and no
        numbers."""
        outputs, begins, ends = self._scorer.start(), [], [0.0]

        def use(clip: Clip) -> None:
            self._scorer.add(outputs, clip)
            begins.append(clip.start_seconds)
            ends.append(clip.start_seconds + clip.duration_seconds)

        try:
            missing = feed(use)
        except MediaError as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return dict.fromkeys(NUMBERS, math.nan) | dict.fromkeys(TEXTS, "") | {"error": text}
        self._scorer.finish(outputs, missing)
        judged = probabilities(self.networks, self.bundle.info.calibration, outputs)
        reading = outputs.sync_reading()
        return {
            **dict(zip(FEATURES, outputs.features().tolist(), strict=True)),
            "sync_offset_seconds": reading[1].offset_seconds if reading else math.nan,
            "duration_seconds": round(ends[-1] - (begins[0] if begins else 0.0), 3),
            **{name: math.nan if p is None else p for name, p in zip(OUTPUTS, judged, strict=True)},
            **{f"missing_{stream}": outputs.missing.get(stream, "") for stream in STREAMS},
            "error": "",
        }


def score_table(
    table: pd.DataFrame,
    source: ClipSource,
    bundle: Bundle,
    out: Path | None = None,
    *,
    workers: int = 1,
    device: str = "auto",
    remove: Removed = "",
) -> pd.DataFrame:
    """The scores table of `table`, whose rows `source` has clips of, through `bundle`.

    out: a CSV that every row is written to as soon as it is scored. Rows that are there are not scored again, so that
    a run that was killed goes on; at the end it holds the scores table. remove: "video" or "audio" is taken out of the
    clips first. workers: processes, of one thread each when there are several.
    Raises ConfigError when `out` holds scores of another bundle, AVDetectError when a process dies.
    """
    treatment = f"without {remove}" if remove else ""
    paths = table["path"].tolist()
    with Ledger(out, bundle.digest) as ledger:
        other = next((name for _, name in ledger.rows if name != treatment), None)
        if other is not None:
            raise ConfigError(f"{out} holds scores of files {other or 'as they are'}: name another file, or delete it")
        rows = [row for row, path in enumerate(paths) if (path, treatment) not in ledger.rows]
        with closing(_scored(bundle, Without(source, remove) if remove else source, rows, workers, device)) as scored:
            for row, values in zip(rows, _shown(scored, len(rows)), strict=True):
                ledger.add(paths[row], treatment, values)
        scores = _joined(table, [ledger.rows[path, treatment] for path in paths])
    if out is not None:
        _write_scores(scores, out)
    return scores


def read_scores(path: Path) -> pd.DataFrame:
    """What `score_table` wrote, as it returned it. Raises ManifestError."""
    scores = read_manifest(path)
    lacking = [name for name in RESULTS if name not in scores]
    if lacking:
        raise ManifestError(f"{path} is no scores table, it lacks {lacking[0]}: write one with avdetect evaluate")
    numbers = {name: pd.to_numeric(scores[name], errors="coerce").astype(np.float64) for name in NUMBERS}
    return scores.assign(**numbers)


def _joined(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=list(RESULTS), index=table.index).astype(dict.fromkeys(NUMBERS, np.float64))
    return table.drop(columns=[name for name in RESULTS if name in table]).join(found)


def _write_scores(scores: pd.DataFrame, out: Path) -> None:
    """Whole or not at all."""
    texts = {name: segments_text(typed_segments(scores[name])) for name in SEGMENTS if name in scores}
    with replacing(out) as file:
        scores.assign(**texts).to_csv(file, index=False)


def masked(scores: pd.DataFrame, bundle: Bundle, device: str = "auto") -> pd.DataFrame:
    """`scores` with the probability of fake for every subset of the streams, through the bundle's own fusion.

    `ablation:<streams>:shipped` masks the other streams out, as if they were missing. `ablation:<streams>:max` is the
    highest of the single streams' probabilities. NaN where a file has none of the streams that the fusion listens to.
    """
    heard = [name for name in STREAMS if name not in bundle.info.model.fusion.silent]
    networks = OnnxNetworks(bundle, device)
    features = scores[list(FEATURES)].to_numpy(np.float32)
    present = (np.nan_to_num(features[:, NUM_VALUES:]) > 0) & np.isin(STREAMS, heard)  # (N, 3); errors have no stream
    single: dict[str, Float] = {}
    columns = {}
    for subset in (s for size in range(1, len(heard) + 1) for s in combinations(heard, size)):
        keep = present & np.isin(STREAMS, subset)
        name = "all" if len(subset) == len(heard) else "+".join(subset)
        columns[f"ablation:{name}:shipped"] = _fused(features, keep, networks, bundle)
        if len(subset) == 1:
            single[name] = columns[f"ablation:{name}:shipped"]
        else:
            columns[f"ablation:{name}:max"] = np.fmax.reduce([single[stream] for stream in subset])
    return scores.assign(**columns)


def _fused(features: Float, keep: np.ndarray, networks: OnnxNetworks, bundle: Bundle) -> Float:
    """(N,) P(fake) with only the streams of `keep` (N, 3); NaN where it keeps none."""
    usable = keep.any(axis=1)
    fused = np.full(len(features), np.nan)
    if usable.any():
        values = np.where(keep[:, STREAM_OF_VALUE], features[:, :NUM_VALUES], 0)
        inputs = np.concatenate([values, keep], axis=1).astype(np.float32)[usable]
        fused[usable] = bundle.info.calibration.probabilities(networks.fusion(inputs))[:, 0]
    return fused


def _shown(scored: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """With a progress bar, where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(scored, "score", total, console=console, disable=not (console.is_terminal and total)))


def _scored(
    bundle: Bundle, source: ClipSource, rows: Sequence[int], workers: int, device: str
) -> Generator[dict[str, Any]]:
    """The results of `rows`, in their order."""
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if workers == 1 or len(rows) < 2:
        scorer = FileScorer(bundle, OnnxNetworks(bundle, device)) if rows else None
        for row in rows:
            assert scorer is not None
            yield scorer.score(partial(source.feed, row))
        return
    context = multiprocessing.get_context("spawn")  # forking would copy the parent's locks and threads
    pool = ProcessPoolExecutor(min(workers, len(rows)), context, _begin, (bundle, device, source))
    try:
        yield from pool.map(_score_row, rows)
    except BrokenProcessPool as error:
        raise AVDetectError(
            "a scoring process was ended (out of memory?); run again with fewer workers, what is scored is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[FileScorer, ClipSource]  # of a worker process, set when it begins


def _begin(bundle: Bundle, device: str, source: ClipSource) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)
    _worker = FileScorer(bundle, OnnxNetworks(bundle, device, threads=1)), source


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score_row(row: int) -> dict[str, Any]:
    scorer, source = _worker
    return scorer.score(partial(source.feed, row))
