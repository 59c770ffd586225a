"""The soundtrack for a report: its log-mel picture and the peaks of its waveform, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import cv2
import numpy as np

from avdetect.audio import N_FFT, N_MELS, WIN_LENGTH
from avdetect.errors import ToolError
from avdetect.report.evidence import Peaks, Sound
from avdetect.report.pictures import png
from avdetect.types import HOP, SAMPLE_RATE, Float, UInt8, Waveform

MAX_COLUMNS = 1600  # of the picture
MAX_PEAKS = 1024
MEL_HEIGHT = 160  # pixels: two a band
TOP_DB = 80.0  # what is weaker than the loudest by more is as dark as silence
# Power of a mel band: without anything louder, silence is drawn as silence and not stretched to full brightness.
_QUIET_POWER = 1e-2
_LEVELS = 64  # of brightness: 1.25 dB each, and a picture half as large as with 256


class Thinned:
    """A series of rows of any length, in at most `most` rows: each stands for the same number of the rows added.

    join: (N, K, ...) -> (N, ...), K rows into one. When there are `most`, pairs are joined and the step doubles.
    """

    def __init__(self, most: int, join: Callable[[Float], Float]) -> None:
        if most % 2:
            raise ValueError(f"most must be even, got {most}")
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

    def cells(self, count: int) -> list[Float]:
        """`count` stretches of equal length over all that was added; each the rows (at least one) that it touches."""
        rows = self.rows()
        edges = np.linspace(0, self.total / self.step, count + 1)
        first = np.minimum(edges[:-1].astype(int), len(rows) - 1)
        last = np.maximum(np.ceil(edges[1:] - 1e-9).astype(int), first + 1)
        return [rows[i:j] for i, j in zip(first, last, strict=True)]


def extremes(rows: Float) -> Float:
    """(N, K, 2) lowest and highest -> (N, 2)."""
    return np.stack([rows[..., 0].min(1), rows[..., 1].max(1)], axis=-1)


def hop_peaks(samples: Float) -> Float:
    """(num_samples,) -> (num_samples // HOP, 2) lowest and highest sample of each hop."""
    hops = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    return np.stack([hops.min(1), hops.max(1)], axis=-1)


def as_peaks(cells: list[Float]) -> Peaks:
    """Stretches (K, 2) of lowest and highest samples -> one pair each."""
    return tuple((round(float(c[:, 0].min()), 3), round(float(c[:, 1].max()), 3)) for c in cells)


class SoundStrip:
    """Takes a file's sound in, piece by piece; an hour of it is as large as a minute. Raises ToolError."""

    def __init__(self) -> None:
        load_librosa()  # now, while nothing is lost if it cannot be
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
        self._mel.add(mel_power(waveform.samples))
        self._peaks.add(hop_peaks(waveform.samples))

    def sound(self) -> Sound | None:
        """None when there was none."""
        if self._start is None:
            return None
        columns, bins = (-(-strip.total // strip.step) for strip in (self._mel, self._peaks))
        power = np.stack([cell[0] for cell in self._mel.cells(columns)])  # so that the columns are equally wide
        peaks = as_peaks(self._peaks.cells(bins))
        return Sound(self._start, self._peaks.total * HOP / SAMPLE_RATE, png(mel_picture(power)), peaks)


def load_librosa() -> ModuleType:
    """librosa, with what it loads lazily. Raises ToolError.

    It takes seconds, the first time after an installation half a minute of CPU: numba compiles, and keeps the result
    beside librosa or in the user's cache. Where it can write to neither, it refuses.
    """
    import librosa

    try:
        librosa.feature.melspectrogram  # noqa: B018  # the attribute imports the module
    except (ImportError, RuntimeError, OSError) as error:
        raise ToolError(
            f"librosa, which draws the sound of reports, cannot be loaded ({error}); if it is about a cache, set "
            "NUMBA_CACHE_DIR to a folder that can be written"
        ) from error
    return librosa


def mel_power(samples: Float) -> Float:
    """(num_samples,) at 16 kHz -> (num_samples // HOP, N_MELS) power: bands, window and hop of `avdetect.audio`."""
    librosa = load_librosa()
    count = len(samples) // HOP
    padded = np.pad(samples, (0, max(0, N_FFT - len(samples))))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=N_FFT, win_length=WIN_LENGTH, hop_length=HOP, n_mels=N_MELS
    )
    return np.ascontiguousarray(mel.T[:count], np.float32)


def mel_picture(power: Float) -> UInt8:
    """(T, N_MELS) -> (MEL_HEIGHT, T, 3) RGB: decibels below the loudest band in magma, low frequencies at the bottom.

    Magma is even in lightness, so that it reads alike for the colour-blind and in print.
    """
    loudest = max(float(power.max()), _QUIET_POWER)
    decibels = np.maximum(load_librosa().power_to_db(power, ref=loudest, top_db=None), -TOP_DB)
    steps = np.round((decibels / TOP_DB + 1) * (_LEVELS - 1))
    levels = np.round(steps * (255 / (_LEVELS - 1))).astype(np.uint8).T[::-1]
    levels = levels.repeat(MEL_HEIGHT // N_MELS, axis=0)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
