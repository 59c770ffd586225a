"""The scores table: a row a file of the manifest, with what a bundle says of it. Everything else is measured on it.

The manifest's columns, then: the bundle's digest, what was done to the clips (`treatment`: nothing), the nine
`pooling.FEATURES`, `sync_offset_seconds` (> 0: the audio lags), `duration_seconds`, `p_fake`, `p_video_fake`,
`p_audio_fake`, `p_mismatch` (calibrated; NaN where the model abstains or the part was not judged), why a stream is
missing, and `error` for a file that could not be read (all numbers are NaN then). The numbers are those of
`avdetect score`.
"""

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from avdetect.bundle import Bundle, OnnxNetworks
from avdetect.config import MediaLimits
from avdetect.detector import probabilities
from avdetect.errors import ConfigError, MediaError
from avdetect.evaluation.ledger import NUMBERS, RESULTS, TEXTS, Ledger
from avdetect.evaluation.sources import ClipSource, Feed
from avdetect.jobs.pool import Done, Failed, Item, Pool
from avdetect.jobs.process import Work
from avdetect.pooling import FEATURES, NUM_VALUES, STREAM_OF_VALUE, STREAMS
from avdetect.scoring import StreamScorer
from avdetect.types import Clip

T = TypeVar("T")
FILE_SECONDS = MediaLimits().max_file_seconds  # of a worker, for one file


class FileScorer:
    """What a bundle says of one file after the other, as rows of the scores table."""

    def __init__(self, bundle: Bundle, networks: OnnxNetworks) -> None:
        self.bundle, self.networks = bundle, networks
        self._scorer = StreamScorer(networks, bundle.info.model, bundle.info.preprocess.faces)

    def score(self, feed: Feed) -> dict[str, Any]:
        """NUMBERS and TEXTS of the file whose clips `feed` gives."""
        outputs, begins, ends = self._scorer.start(), [], [0.0]

        def use(clip: Clip) -> None:
            self._scorer.add(outputs, clip)
            begins.append(clip.start_seconds)
            ends.append(clip.start_seconds + clip.duration_seconds)

        try:
            missing = feed(use)
        except MediaError as error:
            return _failed(type(error).__name__, str(error))
        self._scorer.finish(outputs, missing)
        judged = probabilities(self.networks, self.bundle.info.calibration, outputs)
        reading = outputs.sync_reading()
        return {
            **dict(zip(FEATURES, outputs.features().tolist(), strict=True)),
            "sync_offset_seconds": reading[1].offset_seconds if reading else math.nan,
            "duration_seconds": round(ends[-1] - (begins[0] if begins else 0.0), 3),
            **{f"p_{name}": math.nan if p is None else p for name, p in judged.items()},
            **{f"missing_{stream}": outputs.missing.get(stream, "") for stream in STREAMS},
            "error": "",
        }


def _failed(error: str, message: str) -> dict[str, Any]:
    text = " ".join(f"{error}: {message}".split())
    return dict.fromkeys(NUMBERS, math.nan) | dict.fromkeys(TEXTS, "") | {"error": text}


def score_table(
    table: pd.DataFrame, source: ClipSource, bundle: Bundle, progress: Path | None = None, *, workers: int = 1
) -> pd.DataFrame:
    """The scores table of `table`, whose rows `source` has clips of, through `bundle`.

    progress: a `Ledger`, where every file stands as soon as it is scored. Files that stand there are not scored again,
    so that a run that was killed is resumed.
    workers: processes, of one thread each when there are several; a file that kills two of them has an error.
    Raises ConfigError when `progress` holds scores of another bundle.
    """
    paths = table["path"].tolist()
    with Ledger(progress, bundle.digest) as ledger:
        rows = [row for row, path in enumerate(paths) if (path, "") not in ledger.rows]
        with closing(_scored(bundle, source, rows, workers)) as scored:
            for row, values in shown(scored, "score", len(rows)):
                ledger.add(paths[row], "", values)
        done = [ledger.rows[path, ""] for path in paths]
    found = pd.DataFrame(done, columns=list(RESULTS), index=table.index).astype(dict.fromkeys(NUMBERS, np.float64))
    return table.drop(columns=[name for name in RESULTS if name in table]).join(found)


def masked(scores: pd.DataFrame, bundle: Bundle) -> pd.DataFrame:
    """`scores` with what the bundle's own fusion says where the other streams are masked out, as if they were missing.

    `masked:<stream>` is the probability of the stream's own cause, `masked:<a>+<b>` that of fake. NaN where a file has
    none of the streams. Of those that the fusion does not listen to, there is none.
    """
    heard = [name for name in bundle.info.model.streams if name not in bundle.info.model.fusion.silent]
    networks = OnnxNetworks(bundle)
    features = scores[list(FEATURES)].to_numpy(np.float32)
    present = np.nan_to_num(features[:, NUM_VALUES:]) > 0  # (N, 3); errors have no stream
    columns = {}
    for subset in (s for size in range(1, len(heard)) for s in combinations(heard, size)):
        keep = present & np.isin(STREAMS, subset)
        usable = keep.any(axis=1)
        values = np.where(keep[:, STREAM_OF_VALUE], features[:, :NUM_VALUES], 0)
        found = np.full(len(scores), np.nan)
        if usable.any():
            fused = networks.fusion(np.concatenate([values, keep], axis=1).astype(np.float32)[usable])
            output = 1 + STREAMS.index(subset[0]) if len(subset) == 1 else 0
            found[usable] = bundle.info.calibration.probabilities(fused)[:, output]
        columns[f"masked:{'+'.join(subset)}"] = found
    return scores.assign(**columns)


def shown(items: Iterable[T], title: str, total: int) -> Iterable[T]:
    """With a progress bar, where somebody watches."""
    console = Console(stderr=True)
    return track(items, title, total, console=console, disable=not (console.is_terminal and total))


def _scored(
    bundle: Bundle, source: ClipSource, rows: Sequence[int], workers: int
) -> Generator[tuple[int, dict[str, Any]]]:
    """(row, its results), in any order."""
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not rows:
        return
    if workers == 1 or len(rows) == 1:
        scorer = FileScorer(bundle, OnnxNetworks(bundle))
        for row in rows:
            yield row, scorer.score(partial(source.feed, row))
        return
    pool = Pool(partial(_scoring, bundle, source), min(workers, len(rows)), FILE_SECONDS)
    with closing(pool.run(Item(str(row), row) for row in rows)) as events:
        for event in events:
            if isinstance(event, Done):
                yield event.item.value, event.answer
            elif isinstance(event, Failed):
                yield event.item.value, _failed(event.error, event.reason)


def _scoring(bundle: Bundle, source: ClipSource) -> Work:
    cv2.setNumThreads(1)
    scorer = FileScorer(bundle, OnnxNetworks(bundle, threads=1))
    return lambda row, report: scorer.score(partial(source.feed, row))
