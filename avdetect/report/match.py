"""Lip-sync for a report: offset and confidence over time, and the mouths where the match is worst."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avdetect.pooling import MIN_STRETCH_WINDOWS, SyncDistances, SyncReading, read_sync, sync_over_time
from avdetect.report.evidence import MouthStrip, SyncCurve, SyncPoint
from avdetect.report.pictures import jpeg
from avdetect.report.sound import as_peaks, hop_peaks
from avdetect.scoring import StreamOutputs
from avdetect.types import FPS, SAMPLE_RATE, Clip, FaceTrack, Float, UInt8, Waveform

WINDOW_SECONDS = 5  # read together for each second of the curve
STRIP_SECONDS = 2
_EVERY = 2  # frames a mouth of the strip
_STRIP_BYTES = 120_000
_KEPT_TRACKS = 8  # while the file passes


def sync_curves(outputs: StreamOutputs) -> tuple[SyncCurve, ...]:
    """One for each track whose lip-sync could be read, by track id."""
    curves = []
    for track_id in sorted(outputs.readings):
        readings = sync_over_time(SyncDistances.join(outputs.sync[track_id]), WINDOW_SECONDS)
        points = [SyncPoint(s, round(r.offset_seconds, 3), round(r.confidence, 4)) for s, r in readings if r]
        curves.append(SyncCurve(track_id, tuple(points)))
    return tuple(curves)


@dataclass(frozen=True)
class _Stretch:
    """Mouths and sound of at most STRIP_SECONDS, and how much better the voice would fit elsewhere."""

    gap: float
    reading: SyncReading
    first_frame: int
    mouths: UInt8  # (T, M, M), every _EVERY-th frame
    sound: Float  # of the same stretch; zeros where there is none


class MouthKeeper:
    """Keeps the worst stretch of a few tracks while a file passes.

    That is the one with the largest gap between the mean distance at offset 0 and that at the best offset: the distance
    at 0 alone would choose turned and blurred faces, which are far from every sound. A stretch is whole seconds of one
    clip, so none spans the cut between two. Of more than _KEPT_TRACKS tracks those stay that fit the voice best so far:
    it is the speaker's mouth that is shown.
    """

    def __init__(self) -> None:
        self._worst: dict[int, _Stretch] = {}
        self._parts: dict[int, int] = {}  # of each track, how many clips had distances

    def add(self, clip: Clip, outputs: StreamOutputs) -> None:
        """The mouths of `clip`, whose distances are the last in `outputs`."""
        for track in clip.tracks:
            parts, before = outputs.sync.get(track.track_id, []), self._parts.get(track.track_id, 0)
            if clip.waveform is None or len(parts) == before:  # a track too short for distances: the last are older
                continue
            self._parts[track.track_id] = len(parts)
            for seconds, reading in _readings(parts[-1]):
                gap = reading.at_zero - reading.min_distance
                kept = self._worst.get(track.track_id)
                if kept is None or gap > kept.gap:
                    self._worst[track.track_id] = _stretch(gap, reading, seconds, track, clip.waveform)
        if len(self._worst) > _KEPT_TRACKS:
            confidence = {t: _confidence(outputs, t) for t in self._worst}
            ranked = sorted(self._worst, key=lambda t: (-confidence[t], t))
            self._worst = {t: self._worst[t] for t in ranked[:_KEPT_TRACKS]}

    def strip(self, outputs: StreamOutputs) -> MouthStrip | None:
        """Of the track that the lip-sync was read from; None when none was, or it has no stretch that could be read."""
        speaker = outputs.sync_reading()
        stretch = self._worst.get(speaker[0]) if speaker else None
        if speaker is None or stretch is None:
            return None
        count = len(stretch.mouths)
        return MouthStrip(
            track_id=speaker[0],
            start_seconds=stretch.first_frame / FPS,
            duration_seconds=count * _EVERY / FPS,
            picture=jpeg(np.concatenate(list(stretch.mouths), axis=1), _STRIP_BYTES),
            count=count,
            peaks=as_peaks(hop_peaks(stretch.sound)),
            offset_seconds=round(stretch.reading.offset_seconds, 3),
            confidence=round(stretch.reading.confidence, 4),
        )


def _readings(part: SyncDistances) -> Iterator[tuple[range, SyncReading]]:
    """Every stretch of STRIP_SECONDS whole seconds that can be read, and where a track is shorter, all of it.

    Stretches with fewer pairs than three quarters of the fullest are left out: fewer pairs give larger gaps by chance.
    """
    seconds = part.seconds
    found = []
    for first in range(int(seconds[0]), max(int(seconds[-1]) - STRIP_SECONDS + 1, int(seconds[0])) + 1):
        inside = (seconds >= first) & (seconds < first + STRIP_SECONDS)
        cut = part.within(inside)
        if inside.any() and (reading := read_sync(cut, MIN_STRETCH_WINDOWS)):
            found.append((int(cut.count.sum()), range(first, first + STRIP_SECONDS), reading))
    most = max((pairs for pairs, _, _ in found), default=0)
    yield from ((stretch, reading) for pairs, stretch, reading in found if pairs >= 0.75 * most)


def _stretch(gap: float, reading: SyncReading, seconds: range, track: FaceTrack, waveform: Waveform) -> _Stretch:
    first = max(seconds.start * FPS, track.first_frame)
    mouths = track.mouth_crops[first - track.first_frame : seconds.stop * FPS - track.first_frame : _EVERY]
    size = round(len(mouths) * _EVERY / FPS * SAMPLE_RATE)
    at = round((first / FPS - waveform.start_seconds) * SAMPLE_RATE)
    sound = np.zeros(size, np.float32)
    heard = waveform.samples[max(at, 0) : max(at + size, 0)]
    sound[max(-at, 0) :][: len(heard)] = heard
    return _Stretch(gap, reading, first, mouths.copy(), sound)


def _confidence(outputs: StreamOutputs, track_id: int) -> float:
    reading = read_sync(SyncDistances.join(outputs.sync[track_id]), MIN_STRETCH_WINDOWS)
    return reading.confidence if reading else -1.0
