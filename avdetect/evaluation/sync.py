"""Lip-sync measured as lip-sync: known shifts of the sound that must be found, and the voice of somebody else.

On files with enough of a face and its own voice. Mouths and voice are embedded once; a shift only changes the frame at
which the voice begins, which is what it does to a file (the clock has 25 ticks a second).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from avdetect.config import ModelConfig
from avdetect.datasets.manifest import own_voice
from avdetect.errors import MediaError
from avdetect.evaluation.metrics import MIN_FILES, SEED, TOO_FEW, interval, measure, multiplicities
from avdetect.evaluation.sources import ClipSource
from avdetect.pooling import SyncDistances, SyncReading, read_sync, sync_distances
from avdetect.scoring import Networks, audio_windows, mouths_of, seen_mouths, speech_frames, voice_by_frame
from avdetect.speech import speech_mask
from avdetect.types import FPS, Clip, Float

MIN_SECONDS = 2.5  # of one face with sound
MAX_SHIFT = 15  # frames
TOLERANCE = 1  # frames
# Score of a mismatch -> how it follows from a reading; higher = face and voice belong together less.
MISMATCH = {
    "-sync_confidence": lambda reading: -reading.confidence,
    "sync_min_distance": lambda reading: reading.min_distance,
    "-sync_match": lambda reading: -reading.match,
}


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Mouths and voice of one clip."""

    mouths: tuple[tuple[int, int, Float], ...]  # (track id, frame of the first, (W, E) unit vectors)
    voice: Float  # (V, E) unit vectors
    voice_frame: int
    valid: np.ndarray  # (V,) whether the frame is speech


def measure_sync(
    table: pd.DataFrame, source: ClipSource, networks: Networks, config: ModelConfig, *, rounds: int = 500
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(shifts, summary) of the files of `table` with MIN_SECONDS of a face and its own voice; empty without any.

    shifts: for each shift_frames (-15..15; > 0: the audio lags) n files, unread (no reading: counts as not recovered),
    recovered (share within TOLERANCE frames) and mean_error_frames (of those read). The sound's own offset in a file
    counts as error.
    summary: one row over all shifts (subset "shifted"), and one a score of MISMATCH (subset "another voice"): ROC AUC
    of the files with their own voice against the same with the voice of another group, both cut to the shorter of the
    two voices; n counts both. `_low` and `_high` are 95 % bounds by bootstrap over groups; of fewer than MIN_FILES
    files there are none, and `note` says so.
    """
    found: dict[int, list[Embedded]] = {}
    for row in np.flatnonzero(own_voice(table)).tolist():
        clips: list[Clip] = []
        try:
            source.feed(row, clips.append)
        except MediaError:
            continue  # counted with the scores
        if seconds_with_sound(clips) >= MIN_SECONDS:
            embedded = [one for clip in clips if (one := embed(clip, networks, config)) is not None]
            if embedded:
                found[row] = embedded
    if not found:
        return pd.DataFrame(), pd.DataFrame()
    groups = table["group"].to_numpy(object)[list(found)]
    files, max_offset = list(found.values()), config.sync.max_offset
    shifts, shifted = _shifted(files, groups, max_offset, rounds)
    return shifts, pd.DataFrame([shifted, *_swapped(files, groups, max_offset, rounds)])


def seconds_with_sound(clips: Sequence[Clip]) -> float:
    """How long the best track of a file is followed while there is sound, in seconds."""
    frames: dict[int, int] = {}
    for clip in clips:
        if clip.waveform is None:
            continue
        begin = round(clip.waveform.start_seconds * FPS)
        end = begin + int(clip.waveform.duration_seconds * FPS)
        for track in clip.tracks:
            shared = min(end, track.first_frame + len(track.mouth_crops)) - max(begin, track.first_frame)
            frames[track.track_id] = frames.get(track.track_id, 0) + max(0, shared)
    return max(frames.values(), default=0) / FPS


def embed(clip: Clip, networks: Networks, config: ModelConfig) -> Embedded | None:
    """None where there is no speech or no face long enough, as in `scoring.StreamScorer`."""
    tracks = seen_mouths(clip, config.sync)
    if clip.waveform is None or not tracks:
        return None
    speech = speech_mask(clip.waveform.samples)
    windows = audio_windows(clip.waveform, speech, config.audio)
    if not windows:
        return None
    embeddings = [one for _, frames in speech_frames(networks, windows) for one in networks.voice(frames)]
    voice, valid = voice_by_frame(windows, embeddings, speech)
    if not valid.any():
        return None
    mouths = [(track.track_id, *mouths_of(networks, track, config.sync)) for track in tracks]
    return Embedded(tuple(mouths), voice, round(clip.waveform.start_seconds * FPS), valid)


def reading(file: Sequence[Embedded], shift: int, max_offset: int) -> SyncReading | None:
    """The sync of a file whose sound comes `shift` frames later; of several faces the one that fits best."""
    by_track: dict[int, list[SyncDistances]] = {}
    for clip in file:
        for track, frame, mouth in clip.mouths:
            found = sync_distances(mouth, frame, clip.voice, clip.voice_frame + shift, clip.valid, max_offset)
            by_track.setdefault(track, []).append(found)
    readings = [read_sync(SyncDistances.join(distances)) for distances in by_track.values()]
    return max((r for r in readings if r is not None), key=lambda r: r.confidence, default=None)


def _shifted(
    files: Sequence[Sequence[Embedded]], groups: np.ndarray, max_offset: int, rounds: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    found = np.full((len(files), len(shifts)), np.nan)  # frames
    for i, file in enumerate(files):
        for j, shift in enumerate(shifts.tolist()):
            if (read := reading(file, shift, max_offset)) is not None:
                found[i, j] = round(read.offset_seconds * FPS)
    error = np.abs(found - shifts)
    recovered = error <= TOLERANCE  # False where there is no reading

    def told(columns: np.ndarray) -> dict[str, Any]:
        unread, note = int(np.isnan(found[:, columns]).sum()), TOO_FEW if len(files) < MIN_FILES else ""
        row: dict[str, Any] = {"n": len(files), "unread": unread, "note": note}
        for name, values in (("recovered", recovered), ("mean_error_frames", error)):
            row |= _with_bounds(name, values[:, columns], groups, rounds)
        return row

    table = pd.DataFrame([{"shift_frames": shift} | told(shifts == shift) for shift in shifts.tolist()])
    return table, {"table": "sync", "subset": "shifted", "score": "offset"} | told(shifts == shifts)


def _with_bounds(name: str, values: np.ndarray, groups: np.ndarray, rounds: int) -> dict[str, float]:
    """Mean of (N, K) values that are not NaN, with 95 % bounds where N is enough; whole groups of rows are drawn."""
    known = ~np.isnan(values.astype(np.float64))
    _, place = np.unique(groups.astype(str), return_inverse=True)
    count = np.bincount(place, known.sum(axis=1))
    total = np.bincount(place, np.where(known, values, 0).sum(axis=1))
    mean = float(total.sum() / count.sum()) if count.sum() else np.nan
    low, high = np.nan, np.nan
    if count.sum() and len(values) >= MIN_FILES:
        drawn = np.concatenate(list(multiplicities(len(count), rounds, SEED, rounds)))  # (rounds, groups)
        with np.errstate(invalid="ignore"):
            low, high = interval((drawn @ total) / (drawn @ count))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def partners(groups: np.ndarray) -> np.ndarray:
    """(N,) for each file another of another group, each file once; -1 where one group is most of them."""
    _, place, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(SEED).permutation(len(groups))
    order = drawn[np.argsort(place[drawn], kind="stable")]  # group by group: a step of the largest leads out of each
    partner = np.empty(len(groups), np.int64)
    partner[order] = np.roll(order, -int(sizes.max()))
    return np.where(place[partner] == place, -1, partner)


def _swapped(
    files: Sequence[Sequence[Embedded]], groups: np.ndarray, max_offset: int, rounds: int
) -> list[dict[str, Any]]:
    pairs = []
    for i, j in enumerate(partners(groups).tolist()):
        own, other = cut_to_shorter(files[i], files[j]) if j >= 0 else ([], [])
        readings = reading(own, 0, max_offset), reading(other, 0, max_offset)
        if None not in readings:
            pairs.append((groups[i], *readings))
    labels = np.tile([0, 1], len(pairs))
    people = pd.DataFrame({"group": np.repeat(np.array([group for group, *_ in pairs], object), 2)})
    counts = {"n": len(labels), "fakes": len(pairs), "abstained": 2 * (len(files) - len(pairs))}
    rows: list[dict[str, Any]] = []
    for name, of in MISMATCH.items():
        values = np.array([of(found) for _, *readings in pairs for found in readings], np.float64)
        measured = measure(labels, values, people, proper=False, rounds=rounds) if pairs else {}
        rows.append({"table": "sync", "subset": "another voice", "score": name} | measured | counts)
    return rows


def cut_to_shorter(own: Sequence[Embedded], other: Sequence[Embedded]) -> tuple[list[Embedded], list[Embedded]]:
    """The face of `own` with its own voice and with the one of `other`, clip by clip, of one length and one place."""
    mine, theirs = [], []
    for a, b in zip(own, other, strict=False):
        count = min(len(a.voice), len(b.voice))
        mine.append(dataclasses.replace(a, voice=a.voice[:count], valid=a.valid[:count]))
        theirs.append(dataclasses.replace(a, voice=b.voice[:count], valid=b.valid[:count]))
    return mine, theirs
