"""A contact sheet: what forgeries look like beside their originals, one row a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from avdetect.audio import log_mel
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.forgeries.visual import ForgedFaces
from avdetect.errors import MediaError
from avdetect.types import HOP, SAMPLE_RATE, Float, UInt8

TILE, SHOWN = 128, 4  # pixels; frames of a row
GAP = 6
GAIN = 4  # of the difference
CONTEXT_SECONDS = 0.5  # of sound around what was forged
_LABEL = 22


@dataclass(frozen=True, repr=False)
class Row:
    """Original, forgery and their difference: three panels of equal size."""

    label: str
    panels: tuple[UInt8, UInt8, UInt8]  # (TILE, SHOWN * TILE, 3) RGB each

    def __repr__(self) -> str:
        return f"Row({self.label!r})"


def face_row(label: str, original: FaceCrops, forged: ForgedFaces) -> Row:
    """A few frames, evenly spread; the third panel is the difference, GAIN times, in the mask's outline."""
    picked = np.linspace(0, len(original) - 1, SHOWN).round().astype(int)
    rows: list[list[UInt8]] = [[], [], []]
    for index in picked:
        before, after = (_tile(pictures[index]) for pictures in (original.crops, forged.crops))
        change = cv2.convertScaleAbs(cv2.absdiff(_tile(original.crops[index]), after), alpha=GAIN)
        mask = (cv2.resize(forged.mask[index], (TILE, TILE)) > 0.02).astype(np.uint8)
        outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(change, outline, -1, (255, 200, 0), 1)
        for row, tile in zip(rows, (before, after, change), strict=True):
            row.append(np.asarray(tile, np.uint8))
    return Row(label, (np.hstack(rows[0]), np.hstack(rows[1]), np.hstack(rows[2])))


def sound_row(label: str, original: Float, forged: Float, segments: Sequence[tuple[float, float]]) -> Row:
    """Log-mels around the segments (their ends marked), and how the two differ."""
    margin = round(CONTEXT_SECONDS * SAMPLE_RATE)
    first = max(0, round(min(start for start, _ in segments) * SAMPLE_RATE) - margin) // HOP * HOP
    stop = min(len(original), round(max(end for _, end in segments) * SAMPLE_RATE) + margin)
    before, after = (log_mel(samples[first:stop]) for samples in (original, forged))
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    change = np.abs(after - before)
    panels = [_mel_panel(mel, low, high) for mel in (before, after)] + [_mel_panel(change, 0.0, max(high - low, 1e-6))]
    for panel in panels:
        for seconds in {edge for segment in segments for edge in segment}:
            column = round((seconds * SAMPLE_RATE - first) / max(stop - first, 1) * panel.shape[1])
            cv2.line(panel, (column, 0), (column, TILE), (255, 255, 255), 2)
    return Row(label, (panels[0], panels[1], panels[2]))


def write_sheet(rows: Sequence[Row], target: Path) -> None:
    """PNG of all rows under a heading. Raises MediaError if it cannot be written."""
    width = 3 * SHOWN * TILE + 2 * GAP
    parts = [_text("original", width, "forged", f"difference x {GAIN}")]
    for row in rows:
        gap = np.full((TILE, GAP, 3), 255, np.uint8)
        picture = np.hstack([row.panels[0], gap, row.panels[1], gap, row.panels[2]])
        parts += [_text(row.label, width), np.asarray(picture, np.uint8)]
    encoded = cv2.imencode(".png", np.vstack(parts)[:, :, ::-1])[1]
    try:
        target.write_bytes(encoded.tobytes())
    except OSError as error:
        raise MediaError(f"cannot write {target}: {error.strerror}; check the folder and the disk") from error


def _tile(picture: UInt8) -> UInt8:
    method = cv2.INTER_AREA if len(picture) > TILE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (TILE, TILE), interpolation=method), np.uint8)


def _mel_panel(mel: Float, low: float, high: float) -> UInt8:
    """(frames, mels) as a picture, time to the right and frequency upwards."""
    grey = np.clip((mel.T[::-1] - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(cv2.resize(grey, (SHOWN * TILE, TILE)), cv2.COLORMAP_MAGMA)
    return np.ascontiguousarray(coloured[:, :, ::-1], np.uint8)


def _text(label: str, width: int, *others: str) -> UInt8:
    strip = np.full((_LABEL, width, 3), 255, np.uint8)
    for index, text in enumerate((label, *others)):
        shown = text.encode("ascii", "replace").decode()
        place = (4 + index * (SHOWN * TILE + GAP), _LABEL - 7)
        cv2.putText(strip, shown, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
