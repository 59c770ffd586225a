"""Forges a preprocessed clip: for the fusion's training data and for tests, where no file is to be written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from avdetect.audio import MIN_AUDIO_SECONDS, SILENCE_RMS
from avdetect.config import FaceConfig
from avdetect.datasets.crops import FaceCrops, landmarks_in_crops
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL, NEEDS_OTHER
from avdetect.datasets.forgeries.pose import pose_gap
from avdetect.datasets.forgeries.sounds import loudness
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL, Donors, identical
from avdetect.errors import ConfigError
from avdetect.types import Clip, FaceTrack, Float, Waveform

METHODS: tuple[str, ...] = (*VISUAL, *AUDIO, *AUDIOVISUAL)
MOVES_THE_MOUTH = frozenset({"mouth_swap", "lower_face_swap"})  # their mouth crops come from the same other moment
MIN_MOMENTS = 4  # face crops of a track that has another moment to offer
TRIES = 6  # at a stretch of another face that is turned alike


@dataclass(frozen=True)
class ForgedClip:
    """A forged clip with its labels (1 = fake), given that the clip was real before."""

    clip: Clip
    method: str
    fake: int
    video_fake: int  # 0 for a real voice that does not belong to the picture: both halves are real
    audio_fake: int
    segments: tuple[tuple[float, float], ...]  # seconds on the file's clock


def labels(method: str) -> tuple[int, int, int]:
    """(fake, video_fake, audio_fake) of what `method` makes. Raises ConfigError for an unknown one."""
    if method not in METHODS:
        raise ConfigError(f"unknown forgery {method!r}; there are {', '.join(METHODS)}")
    return 1, int(method in VISUAL), int(method in AUDIO)


def main_track(clip: Clip) -> FaceTrack | None:
    """The track with the most face crops, the first of equals; None without a face crop."""
    tracks = [track for track in clip.tracks if len(track.face_crops)]
    return max(tracks, key=lambda track: len(track.face_crops)) if tracks else None


def usable(clip: Clip, method: str, other: Clip | None) -> bool:
    """Does the clip have what `method` needs: a face, another moment of it, 0.5 s of voice, the same of `other`?

    A track has another moment if it has MIN_MOMENTS face crops that are not all the same picture.
    Raises ConfigError for an unknown method.
    """
    labels(method)
    track = main_track(clip)
    if method in VISUAL:
        donor = None if other is None else main_track(other)
        need = NEEDS.get(method)
        enough = need != "moment" or (track is not None and _moves(track))
        return track is not None and enough and (need != "other" or donor is not None)
    if method in NEEDS_OTHER and (other is None or _voice(other) is None):
        return False
    return _voice(clip) is not None and (method in AUDIO or track is not None)


def forge_clip(
    clip: Clip, method: str, rng: np.random.Generator, config: FaceConfig, other: Clip | None = None
) -> ForgedClip:
    """`clip` forged by `method`, one of METHODS; `config` is the one it was preprocessed with.

    Faces: every face crop of the main track. The 64 px luma mouth crops stay as they are (they are aligned and small,
    and what most methods change is colour, texture and seams), but for `mouth_swap` and `lower_face_swap`: there they
    come from the same other moment, so that the sync stream sees lips that do not fit the voice.
    Voices: the whole waveform, or the segment that the method draws.
    `other` is another clip, of another person or (for `other_voice`) the same: the caller chooses, and never gives the
    clip itself. Raises ConfigError for an unknown method, ValueError if `usable` is false.
    """
    fake, video_fake, audio_fake = labels(method)
    if not usable(clip, method, other):
        raise ValueError(f"{method} cannot forge {clip}, other {other}: ask `usable` first")
    if method in VISUAL:
        track = main_track(clip)
        assert track is not None  # `usable` said so
        forged = _forge_track(track, method, rng, config, None if other is None else main_track(other))
        tracks = tuple(forged if one is track else one for one in clip.tracks)
        segments: tuple[tuple[float, float], ...] = ((track.start_seconds, track.end_seconds),)
        return ForgedClip(
            dataclasses.replace(clip, tracks=tracks), method, fake, video_fake, audio_fake, segments=segments
        )
    waveform, donor = clip.waveform, None if other is None else _voice(other)
    assert waveform is not None  # `usable` said so
    sound = {**AUDIO, **AUDIOVISUAL}[method](waveform.samples, rng, donor)
    start = waveform.start_seconds
    segments = tuple((start + first, start + last) for first, last in sound.segments)
    changed = dataclasses.replace(clip, waveform=Waveform(sound.samples, start))
    return ForgedClip(changed, method, fake, video_fake, audio_fake, segments=segments)


def _voice(clip: Clip) -> Float | None:
    """The clip's samples, if they are long and loud enough for the audio stream."""
    wave = clip.waveform
    if wave is None or wave.duration_seconds < MIN_AUDIO_SECONDS or loudness(wave.samples) < SILENCE_RMS:
        return None
    return wave.samples


def _forge_track(
    track: FaceTrack, method: str, rng: np.random.Generator, config: FaceConfig, donor: FaceTrack | None
) -> FaceTrack:
    faces = _faces(track, config)
    moment = other = None
    mouths = track.mouth_crops
    if NEEDS.get(method) == "moment":
        shown, moment = _moment(faces, track, rng)
        if method in MOVES_THE_MOUTH:
            mouths = mouths[shown]
    if donor is not None and NEEDS.get(method) == "other":
        other = _fitted(_faces(donor, config), faces, rng)
    forged = VISUAL[method](faces, rng, Donors(moment=moment, other=other))
    return dataclasses.replace(track, face_crops=forged.crops, mouth_crops=mouths)


def _faces(track: FaceTrack, config: FaceConfig) -> FaceCrops:
    size = track.face_crops.shape[1]
    return FaceCrops(track.face_crops, landmarks_in_crops(track.boxes, track.landmarks, config.crop_margin, size))


def _moves(track: FaceTrack) -> bool:
    """Are there enough face crops, and not all the same picture?"""
    crops = track.face_crops
    return len(crops) >= MIN_MOMENTS and any(not np.array_equal(crop, crops[0]) for crop in crops[1:])


def _moment(faces: FaceCrops, track: FaceTrack, rng: np.random.Generator) -> tuple[np.ndarray, FaceCrops]:
    """The track a quarter to three quarters of its length later, around its end: for each mouth crop the one to show
    (T,), and for each face crop the one that was cut closest to that moment. A loop may repeat itself: tried again."""
    count = len(track.mouth_crops)
    places = track.face_frames - track.first_frame
    for shift in rng.permutation(np.arange(-(-count // 4), 3 * count // 4 + 1)).tolist():
        wanted = (places + shift) % count
        sources = np.abs(places[None] - wanted[:, None]).argmin(axis=1)
        moment = FaceCrops(faces.crops[sources], faces.landmarks[sources])
        if not identical(faces, moment):
            return (np.arange(count) + shift) % count, moment
    raise ValueError(f"{track} shows the same pictures again and again: it has no other moment")


def _fitted(donor: FaceCrops, faces: FaceCrops, rng: np.random.Generator) -> FaceCrops:
    """As many consecutive crops of the donor as `faces` has, at their size; a short track begins again.

    Of a few random stretches the one whose head is turned most alike.
    """
    size, best, least = faces.crops.shape[1], donor, np.inf
    for start in rng.integers(len(donor), size=TRIES).tolist():
        chosen = (start + np.arange(len(faces))) % len(donor)
        stretch = FaceCrops(donor.crops[chosen], donor.landmarks[chosen])
        gap = pose_gap(faces, stretch)
        if gap < least:
            best, least = stretch, gap
    crops, landmarks = best.crops, best.landmarks
    if crops.shape[1] != size:
        landmarks = (landmarks * (size / crops.shape[1])).astype(np.float32)
        method = cv2.INTER_AREA if size < crops.shape[1] else cv2.INTER_LINEAR
        crops = np.stack([np.asarray(cv2.resize(crop, (size, size), interpolation=method)) for crop in crops])
    return FaceCrops(crops, landmarks)
