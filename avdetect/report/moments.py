"""The face crops of each track that its stream found most, and least, suspicious."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from avdetect.report.evidence import Moment
from avdetect.report.pictures import jpeg
from avdetect.scoring import StreamOutputs
from avdetect.types import FPS, Clip, UInt8

MAX_TRACKS = 4  # shown
PER_KIND = 2
MIN_APART_SECONDS = 1.0  # between moments of a kind: neighbouring crops show the same
CROP_SIDE, CROP_BYTES = 256, 24_000
KEPT_TRACKS = 8  # while the file passes; suspicion changes
_KEPT = 4  # crops a kind and track: two of them are MIN_APART_SECONDS apart, whichever seconds they come from


@dataclass(frozen=True)
class _Seen:
    seconds: float
    logit: float
    crop: UInt8


class _Extremes:
    """The crops of a track with the highest (sign 1) or lowest (sign -1) logits, one a second at most."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.kept: dict[int, _Seen] = {}  # by whole second

    def add(self, seconds: float, logit: float, crop: UInt8) -> None:
        second, kept = math.floor(seconds), self.kept
        if second not in kept or self._sign * logit > self._sign * kept[second].logit:
            kept[second] = _Seen(seconds, logit, crop.copy())
        if len(kept) > _KEPT:
            del kept[min(kept, key=lambda second: (self._sign * kept[second].logit, -second))]

    def best(self, bound: float = math.inf) -> list[_Seen]:
        """Best first, apart from each other, with logits below `bound`."""
        found: list[_Seen] = []
        for seen in sorted(self.kept.values(), key=lambda seen: (-self._sign * seen.logit, seen.seconds)):
            apart = all(abs(seen.seconds - f.seconds) >= MIN_APART_SECONDS for f in found)
            if seen.logit < bound and apart and len(found) < PER_KIND:
                found.append(seen)
        return found


class MomentKeeper:
    """Keeps a few crops of the most suspicious tracks while a file passes, however many it has. A track is let go when
    others look more suspicious; should it come back, its earlier crops are gone."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[_Extremes, _Extremes]] = {}

    def add(self, clip: Clip, outputs: StreamOutputs) -> None:
        """The crops of `clip`; the logits of those that were judged are the last in `outputs`."""
        for track in clip.tracks:
            points = outputs.visual.get(track.track_id, [])
            logits = dict(points[max(0, len(points) - len(track.face_frames)) :])
            for frame, crop in zip(track.face_frames.tolist(), track.face_crops, strict=True):
                if (logit := logits.get(frame / FPS)) is not None:
                    for kept in self._tracks.setdefault(track.track_id, (_Extremes(1), _Extremes(-1))):
                        kept.add(frame / FPS, logit, crop)
        if len(self._tracks) > KEPT_TRACKS:
            self._tracks = {track: self._tracks[track] for track in self._ranked(outputs)[:KEPT_TRACKS]}

    def moments(
        self, outputs: StreamOutputs, probabilities: Callable[[Sequence[float]], Sequence[float]]
    ) -> tuple[Moment, ...]:
        """The most suspicious tracks first, in each the most suspicious crops first. probabilities: of logits."""
        found = []
        for track in self._ranked(outputs)[:MAX_TRACKS]:
            highest, lowest = self._tracks[track]
            most = highest.best()
            least = lowest.best(min(seen.logit for seen in most))  # nothing as suspicious as the most suspicious ones
            kinds: tuple[tuple[Literal["most", "least"], list[_Seen]], ...] = (("most", most), ("least", least))
            for kind, chosen in kinds:
                shown = probabilities([seen.logit for seen in chosen])
                found += [_moment(track, kind, *pair) for pair in zip(chosen, shown, strict=True)]
        return tuple(found)

    def _ranked(self, outputs: StreamOutputs) -> list[int]:
        suspicion = outputs.track_logits()
        return sorted(self._tracks.keys() & suspicion, key=lambda track: (-suspicion[track], track))


def _moment(track_id: int, kind: Literal["most", "least"], seen: _Seen, probability: float) -> Moment:
    crop: np.ndarray = seen.crop
    if crop.shape[0] > CROP_SIDE:
        crop = cv2.resize(crop, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA)
    return Moment(track_id, kind, seen.seconds, probability, jpeg(crop, CROP_BYTES))
