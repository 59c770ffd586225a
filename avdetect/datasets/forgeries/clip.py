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
from avdetect.datasets.forgeries.sounds import loudness
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL, Donors
from avdetect.errors import ConfigError
from avdetect.types import Clip, FaceTrack, Float, Waveform

METHODS: tuple[str, ...] = (*VISUAL, *AUDIO, *AUDIOVISUAL)
MOVES_THE_MOUTH = frozenset({"mouth_swap", "lower_face_swap"})  # their mouth crops come from the same other moment
MIN_MOMENTS = 4  # face crops of a track that has another moment to offer


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

    Raises ConfigError for an unknown method.
    """
    labels(method)
    track = main_track(clip)
    if method in VISUAL:
        donor = None if other is None else main_track(other)
        need = NEEDS.get(method)
        enough = need != "moment" or (track is not None and len(track.face_crops) >= MIN_MOMENTS)
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
    `other` is a clip of another person. Raises ConfigError for an unknown method, ValueError if `usable` is false.
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
    if len(faces) >= MIN_MOMENTS:
        shown, sources = _another_moment(track, rng)
        moment = FaceCrops(faces.crops[sources], faces.landmarks[sources])
        if method in MOVES_THE_MOUTH:
            mouths = mouths[shown]
    if donor is not None:
        other = _fitted(_faces(donor, config), len(faces), faces.crops.shape[1], rng)
    forged = VISUAL[method](faces, rng, Donors(moment=moment, other=other))
    return dataclasses.replace(track, face_crops=forged.crops, mouth_crops=mouths)


def _faces(track: FaceTrack, config: FaceConfig) -> FaceCrops:
    size = track.face_crops.shape[1]
    return FaceCrops(track.face_crops, landmarks_in_crops(track.boxes, track.landmarks, config.crop_margin, size))


def _another_moment(track: FaceTrack, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A shift of a quarter to three quarters of the track, around its end: for each mouth crop (T,) the one to show,
    and for each face crop (F,) the one that was cut closest to that moment."""
    count = len(track.mouth_crops)
    shift = int(rng.integers(-(-count // 4), 3 * count // 4 + 1))
    places = track.face_frames - track.first_frame
    wanted = (places + shift) % count
    return (np.arange(count) + shift) % count, np.abs(places[None] - wanted[:, None]).argmin(axis=1)


def _fitted(faces: FaceCrops, count: int, size: int, rng: np.random.Generator) -> FaceCrops:
    """`count` consecutive crops of `size` pixels from a random one on; a short track begins again."""
    chosen = (int(rng.integers(len(faces))) + np.arange(count)) % len(faces)
    crops, landmarks = faces.crops[chosen], faces.landmarks[chosen]
    if crops.shape[1] != size:
        landmarks = (landmarks * (size / crops.shape[1])).astype(np.float32)
        method = cv2.INTER_AREA if size < crops.shape[1] else cv2.INTER_LINEAR
        crops = np.stack([np.asarray(cv2.resize(crop, (size, size), interpolation=method)) for crop in crops])
    return FaceCrops(crops, landmarks)
