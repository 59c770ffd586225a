"""The soundtrack for a report: its log-mel picture and the peaks of its waveform, in bounded memory."""

from collections.abc import Callable

import cv2
import numpy as np

from avdetect.audio import FLOOR, N_MELS, log_mel
from avdetect.report.evidence import Peaks, Sound
from avdetect.report.pictures import png
from avdetect.types import HOP, SAMPLE_RATE, Float, UInt8, Waveform

MAX_COLUMNS = 1600  # of the picture
MAX_PEAKS = 1024
MIN_GAP = SAMPLE_RATE // HOP  # a second, in hops: less is rounding
MAX_SILENCE = 60 * MIN_GAP  # hops at once
MEL_HEIGHT = 160  # pixels: two a band
_LOUD = 0.0  # log power of a band in speech: without anything louder, silence is not stretched to full brightness
_LEVELS = 64  # of brightness: about a decibel each, and a picture half as large as with 256


class Thinned:
    """A series of rows of any length, in at most `most` rows: each stands for the same number of the rows added.

    join: (N, K, ...) -> (N, ...), K rows into one. When there are `most` (even), pairs are joined and the step doubles.
    """

    def __init__(self, most: int, join: Callable[[Float], Float]) -> None:
        self._most, self._join = most, join
        self.step, self.total = 1, 0  # rows added for each one kept; rows added in all
        self._kept: list[Float] = []
        self._pending: Float | None = None  # rows that do not fill a step yet

    def add(self, rows: Float) -> None:
        """rows (N, ...), next in order."""
        self.total += len(rows)
        rows = rows if self._pending is None else np.concatenate([self._pending, rows])
        while len(rows) >= self.step:
            count = min(len(rows) // self.step, self._most - len(self._kept))
            used = count * self.step
            self._kept += list(self._join(rows[:used].reshape(count, self.step, *rows.shape[1:])))
            rows = rows[used:]
            if len(self._kept) == self._most:
                kept = np.stack(self._kept)
                self._kept = list(self._join(kept.reshape(self._most // 2, 2, *kept.shape[1:])))
                self.step *= 2
        self._pending = rows.copy()

    def rows(self) -> Float:
        """(R, ...); the last one may stand for less than a step. Raises ValueError when nothing was added."""
        rest = [self._join(self._pending[None])[0]] if self._pending is not None and len(self._pending) else []
        return np.stack([*self._kept, *rest])


def extremes(rows: Float) -> Float:
    """(N, K, 2) lowest and highest -> (N, 2)."""
    return np.stack([rows[..., 0].min(1), rows[..., 1].max(1)], axis=-1)


def hop_peaks(samples: Float) -> Float:
    """(num_samples,) -> (num_samples // HOP, 2) lowest and highest sample of each hop, within full scale."""
    hops = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    return np.clip(np.stack([hops.min(1), hops.max(1)], axis=-1), -1, 1)


def as_peaks(rows: Float) -> Peaks:
    """(N, 2) lowest and highest samples as numbers."""
    return tuple((round(low, 3), round(high, 3)) for low, high in rows.tolist())


class SoundStrip:
    """Takes a file's sound in, piece by piece; an hour of it is as large as a minute."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._mel = Thinned(MAX_COLUMNS, lambda rows: rows.mean(1))
        self._peaks = Thinned(MAX_PEAKS, extremes)

    @property
    def end_seconds(self) -> float | None:
        """Of the sound so far; None while there is none."""
        return None if self._start is None else self._start + self._peaks.total * HOP / SAMPLE_RATE

    def add(self, waveform: Waveform) -> None:
        """The next piece; what is less than 10 ms at its end is left out."""
        if len(waveform.samples) < HOP:
            return
        if self._start is None:
            self._start = waveform.start_seconds
        unheard = round((waveform.start_seconds - (self.end_seconds or 0.0)) * SAMPLE_RATE / HOP)
        if unheard > MIN_GAP:  # between the stretches of a sample: drawn as silence, hours of it a minute at a time
            for hops in (*[MAX_SILENCE] * (unheard // MAX_SILENCE), unheard % MAX_SILENCE):
                self._mel.add(np.full((hops, N_MELS), FLOOR, np.float32))
                self._peaks.add(np.zeros((hops, 2), np.float32))
        self._mel.add(np.exp(log_mel(waveform.samples)))
        self._peaks.add(hop_peaks(waveform.samples))

    def sound(self) -> Sound | None:
        """None when there was none."""
        if self._start is None:
            return None
        mel, peaks = png(mel_picture(self._mel.rows())), as_peaks(self._peaks.rows())
        return Sound(self._start, self._peaks.total * HOP / SAMPLE_RATE, mel, peaks)


def mel_picture(power: Float) -> UInt8:
    """(T, N_MELS) -> (MEL_HEIGHT, T, 3) RGB: log power in magma, low frequencies at the bottom.

    From the floor of the log-mel (black) to the loudest band. Magma is even in lightness, so that it reads alike for
    the colour-blind and in print.
    """
    log_power, floor = np.log(np.maximum(power, FLOOR)), np.log(FLOOR)
    loudest = max(float(log_power.max()), _LOUD)
    steps = np.round((log_power - floor) / (loudest - floor) * (_LEVELS - 1))
    levels = np.round(steps * (255 / (_LEVELS - 1))).astype(np.uint8).T[::-1]
    levels = levels.repeat(MEL_HEIGHT // N_MELS, axis=0)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
