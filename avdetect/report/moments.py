"""The face crops of each track that its stream found most, and least, suspicious."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from avdetect.report.evidence import Moment
from avdetect.report.occlusion import drops, overlay
from avdetect.report.pictures import jpeg
from avdetect.scoring import StreamOutputs
from avdetect.types import FPS, Clip, Float, UInt8

MAX_TRACKS = 4  # shown
EXPLAINED_TRACKS = 2  # whose first moment of each kind gets an overlay: the network sees 50 crops for each
PER_KIND = 2
MIN_APART_SECONDS = 1.0  # between moments of a kind: neighbouring crops show the same
CROP_SIDE, CROP_BYTES = 256, 24_000
_KEPT_TRACKS = 8  # while the file passes; suspicion changes
_KEPT = 4  # crops a kind and track: two of them are MIN_APART_SECONDS apart, whichever seconds they come from
Kind = Literal["most", "least"]
_SIGNS: Mapping[Kind, int] = {"most": 1, "least": -1}


@dataclass(frozen=True)
class _Seen:
    """A crop that may be shown."""

    seconds: float
    logit: float
    crop: UInt8


class _Track:
    """The best crop of each of the best seconds of one track, for both kinds."""

    def __init__(self) -> None:
        self._kept: dict[Kind, dict[int, _Seen]] = {"most": {}, "least": {}}  # by whole second

    def add(self, seconds: float, logit: float, crop: UInt8) -> None:
        for kind, kept in self._kept.items():
            second, value = math.floor(seconds), _SIGNS[kind] * logit
            rival = second if second in kept else None
            if rival is None and len(kept) == _KEPT:
                rival = min(kept, key=lambda s: (_SIGNS[kind] * kept[s].logit, -s))
            if rival is not None and value <= _SIGNS[kind] * kept[rival].logit:
                continue
            kept.pop(rival, None)  # type: ignore[arg-type]  # None is no key of it
            kept[second] = _Seen(seconds, logit, crop.copy())

    def chosen(self) -> dict[Kind, list[_Seen]]:
        """Best first; "least" holds nothing as suspicious as what "most" holds."""
        most = _apart(sorted(self._kept["most"].values(), key=lambda seen: (-seen.logit, seen.seconds)))
        bound = min(seen.logit for seen in most)
        rest = [seen for seen in self._kept["least"].values() if seen.logit < bound]
        return {"most": most, "least": _apart(sorted(rest, key=lambda seen: (seen.logit, seen.seconds)))}


def _apart(ranked: list[_Seen]) -> list[_Seen]:
    found: list[_Seen] = []
    for seen in ranked:
        if len(found) < PER_KIND and all(abs(seen.seconds - f.seconds) >= MIN_APART_SECONDS for f in found):
            found.append(seen)
    return found


class MomentKeeper:
    """Keeps a few crops of the most suspicious tracks while a file passes, however many it has.

    A track is let go when others look more suspicious; should it come back, its earlier crops are gone.
    """

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}

    def add(self, clip: Clip, outputs: StreamOutputs) -> None:
        """The crops of `clip`; the logits of those that were judged are the last in `outputs`."""
        for track in clip.tracks:
            points = outputs.visual.get(track.track_id, [])
            logits = dict(points[max(0, len(points) - len(track.face_frames)) :])
            for frame, crop in zip(track.face_frames.tolist(), track.face_crops, strict=True):
                if (logit := logits.get(frame / FPS)) is not None:
                    self._tracks.setdefault(track.track_id, _Track()).add(frame / FPS, logit, crop)
        if len(self._tracks) > _KEPT_TRACKS:
            suspicion = {t: _suspicion(outputs, t) for t in self._tracks}
            ranked = sorted(self._tracks, key=lambda t: (-suspicion[t], t))
            self._tracks = {t: self._tracks[t] for t in ranked[:_KEPT_TRACKS]}

    def moments(
        self,
        outputs: StreamOutputs,
        network: Callable[[UInt8], Float],
        probabilities: Callable[[Sequence[float]], Sequence[float]],
    ) -> tuple[Moment, ...]:
        """The most suspicious tracks first, in each the most suspicious crops first. probabilities: of logits."""
        suspicion = {t: _suspicion(outputs, t) for t in self._tracks if t in outputs.visual}
        ranked = sorted(suspicion, key=lambda t: (-suspicion[t], t))[:MAX_TRACKS]
        found = []
        for rank, track_id in enumerate(ranked):
            for kind, chosen in self._tracks[track_id].chosen().items():
                for place, seen in enumerate(chosen):
                    explained = network if rank < EXPLAINED_TRACKS and place == 0 else None
                    found.append(_moment(track_id, kind, seen, explained, probabilities))
        return tuple(found)


def _suspicion(outputs: StreamOutputs, track_id: int) -> float:
    logits = np.array([logit for _, logit in outputs.visual[track_id]], np.float32)
    return outputs.track_logit(logits)


def _moment(
    track_id: int,
    kind: Kind,
    seen: _Seen,
    network: Callable[[UInt8], Float] | None,
    probabilities: Callable[[Sequence[float]], Sequence[float]],
) -> Moment:
    """With an overlay if there is a network to ask."""
    crop: np.ndarray = seen.crop
    if crop.shape[0] > CROP_SIDE:
        crop = cv2.resize(crop, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA)
    picture = jpeg(crop, CROP_BYTES)
    fallen = drops(network, seen.crop) if network else None
    probability, *blurred = probabilities([seen.logit, *([] if fallen is None else [seen.logit - float(fallen.max())])])
    return Moment(
        track_id=track_id,
        kind=kind,
        seconds=seen.seconds,
        probability=probability,
        crop=picture,
        overlay=overlay(fallen, picture.width) if fallen is not None else None,
        blurred=blurred[0] if blurred else None,
    )
