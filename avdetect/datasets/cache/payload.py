"""One Clip as the bytes of one .npz, whose pictures can be read and decoded one at a time.

Every entry is a plain array, stored (not deflated): pictures and sound are compressed inside their entries, so that
`np.load` on a window into a larger file seeks to one of them and decodes nothing else. What is read back is bit for bit
what was written. Of the lossless codecs tried on real crops, WebP at its fastest setting made face crops smallest for
the time it takes (30 % of raw), PNG with run lengths the mouth crops (48 %). A wave's bytes are sorted by significance
before zlib: the noise of the low bits no longer hides what the high bits repeat (83 %).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import cv2
import numpy as np

from avdetect.datasets.crops import FaceCrops, landmarks_in_crops
from avdetect.errors import ManifestError
from avdetect.types import Clip, FaceTrack, Float, UInt8, Waveform

MOUTH_CHUNK = 25  # mouth crops in one tall picture
_LONGEST = 16383  # pixels a side of a WebP picture; what is longer is stored raw
_LAYOUT = ("track_id", "first_frame", "mouth_crops", "mouth_size", "face_crops", "face_size")
_ARRAYS = ("face_frames", "boxes", "landmarks", "confidences")


def encode_clip(clip: Clip) -> bytes:
    """The .npz of `clip`: equal clips give equal bytes."""
    rows = [[t.track_id, t.first_frame, *_square(t.mouth_crops), *_square(t.face_crops)] for t in clip.tracks]
    entries: dict[str, np.ndarray] = {
        "span": np.array([clip.start_seconds, clip.duration_seconds], np.float64),
        "tracks": np.array(rows, np.int64).reshape(-1, len(_LAYOUT)),
    }
    if clip.waveform is not None:
        entries["sound_span"] = np.array([clip.waveform.start_seconds, len(clip.waveform.samples)], np.float64)
        entries["sound"] = _pack_samples(clip.waveform.samples)
    for number, track in enumerate(clip.tracks):
        entries |= {f"{number}.{name}": getattr(track, name) for name in _ARRAYS}
        for index, crop in enumerate(track.face_crops):
            entries[f"{number}.face{index:04d}"] = pack_picture(crop)
        for index, start in enumerate(range(0, len(track.mouth_crops), MOUTH_CHUNK)):
            chunk = track.mouth_crops[start : start + MOUTH_CHUNK]
            entries[f"{number}.mouth{index:04d}"] = pack_picture(chunk.reshape(-1, chunk.shape[2]))
    target = io.BytesIO()
    np.savez(target, **cast(dict[str, Any], entries))
    return target.getvalue()


class ClipReader:
    """The parts of one encoded clip, each read from `source` (positioned anywhere, seekable) when it is asked for.

    Use it as a context manager. Damaged bytes are an error of zipfile's, NumPy's or our own; every entry has a CRC.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._entries = np.load(source, allow_pickle=False)
        self._rows = [dict(zip(_LAYOUT, row, strict=True)) for row in self._entries["tracks"].tolist()]
        counts = (len(_ARRAYS) + row["face_crops"] + -(-row["mouth_crops"] // MOUTH_CHUNK) for row in self._rows)
        if len(self._entries.files) != 2 + sum(counts) + 2 * ("sound" in self._entries):
            raise ManifestError("its parts are not those that it names")  # a damaged name must not pass for silence

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def clip(self) -> Clip:
        start, duration = self._entries["span"].tolist()
        return Clip(start, duration, tuple(self._track(number) for number in range(len(self._rows))), self.waveform())

    def waveform(self) -> Waveform | None:
        if "sound" not in self._entries:
            return None
        start, count = self._entries["sound_span"].tolist()
        return Waveform(_unpack_samples(self._entries["sound"], int(count)), start)

    def face_frames(self, track: int) -> np.ndarray:
        """(F,) int64 frame numbers of the face crops of `track`."""
        self._row(track)
        return cast(np.ndarray, self._entries[f"{track}.face_frames"])

    def faces(self, track: int, indices: Sequence[int], margin: float) -> FaceCrops:
        """The face crops of `track` at `indices`, with their landmarks; the crops were cut with `margin`."""
        row, index = self._row(track), np.asarray(indices, np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < row["face_crops"]:
            raise IndexError(f"track {track} has {row['face_crops']} face crops, asked for {list(indices)}")
        boxes, landmarks = (self._entries[f"{track}.{name}"][index] for name in ("boxes", "landmarks"))
        crops = self._faces(track, index.tolist())
        return FaceCrops(crops, landmarks_in_crops(boxes, landmarks, margin, row["face_size"]))

    def mouths(self, track: int, start: int, stop: int) -> UInt8:
        """(stop - start, M, M) mouth crops of `track`."""
        row = self._row(track)
        if not 0 <= start <= stop <= row["mouth_crops"]:
            raise IndexError(f"track {track} has {row['mouth_crops']} mouth crops, asked for [{start}, {stop})")
        first, size = start // MOUTH_CHUNK, row["mouth_size"]
        parts = [np.zeros((0, size, size), np.uint8)]
        for chunk in range(first, -(-stop // MOUTH_CHUNK)) if start < stop else ():
            picture = _unpack_picture(self._entries[f"{track}.mouth{chunk:04d}"], 2)
            parts.append(picture.reshape(-1, size, size))
        return np.concatenate(parts)[start - first * MOUTH_CHUNK :][: stop - start]

    def _row(self, track: int) -> dict[str, int]:
        if not 0 <= track < len(self._rows):
            raise IndexError(f"the clip has {len(self._rows)} tracks, asked for {track}")
        return self._rows[track]

    def _track(self, number: int) -> FaceTrack:
        row = self._rows[number]
        return FaceTrack(
            track_id=row["track_id"],
            first_frame=row["first_frame"],
            mouth_crops=self.mouths(number, 0, row["mouth_crops"]),
            face_crops=self._faces(number, range(row["face_crops"])),
            **{name: self._entries[f"{number}.{name}"] for name in _ARRAYS},
        )

    def _faces(self, track: int, indices: Sequence[int]) -> UInt8:
        size = self._rows[track]["face_size"]
        crops = np.empty((len(indices), size, size, 3), np.uint8)
        for place, index in enumerate(indices):
            crops[place] = _unpack_picture(self._entries[f"{track}.face{index:04d}"], 3)
        return crops


def _square(crops: UInt8) -> tuple[int, int]:
    """How many crops, and how many pixels a side."""
    count, height, width = crops.shape[:3]
    if height != width:
        raise ValueError(f"crops are square, got {crops.shape}")
    return count, height


def pack_picture(picture: UInt8) -> np.ndarray:
    """(H, W, 3) RGB or (H, W) gray as a 1-D array of encoded bytes; left as it is where the codec cannot hold it."""
    if picture.size == 0 or max(picture.shape[:2]) > _LONGEST:
        return picture
    if picture.ndim == 2:
        # OpenCV's run-length strategy: faster than deflate's search and, on mouth crops, smaller.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        return cast(np.ndarray, cv2.imencode(".png", picture, options)[1]).reshape(-1)
    from PIL import Image  # OpenCV's lossless WebP knows one setting, twelve times slower for a tenth of the size

    target = io.BytesIO()
    Image.fromarray(picture).save(target, "WEBP", lossless=True, quality=0, method=0)
    return np.frombuffer(target.getvalue(), np.uint8)


def _unpack_picture(stored: np.ndarray, ndim: int) -> UInt8:
    if stored.ndim == ndim:
        return cast(UInt8, stored)
    picture = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != ndim:
        raise ManifestError("a stored picture cannot be decoded")
    return cast(UInt8, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if ndim == 3 else picture)


def _pack_samples(samples: Float) -> np.ndarray:
    """(N,) float32 as compressed bytes: first every sample's lowest byte, then every second byte, …"""
    planes = np.ascontiguousarray(samples, "<f4").view(np.uint8).reshape(-1, 4).T
    return np.frombuffer(zlib.compress(planes.tobytes(), 1), np.uint8)


def _unpack_samples(stored: np.ndarray, count: int) -> Float:
    try:
        planes = np.frombuffer(zlib.decompress(stored.tobytes()), np.uint8).reshape(4, count)
    except (zlib.error, ValueError) as error:
        raise ManifestError(f"stored sound cannot be decoded: {error}") from error
    return np.ascontiguousarray(planes.T).reshape(-1).view("<f4").astype(np.float32, copy=False)
