"""Forges a preprocessed clip: for the fusion's training data and for tests, where no file is to be written."""

from dataclasses import replace

import numpy as np

from avdetect.audio import MIN_AUDIO_SECONDS, SILENCE_RMS
from avdetect.config import FaceConfig
from avdetect.datasets.crops import FaceCrops, landmarks_in_crops
from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL, NEEDS_OTHER, loudness
from avdetect.datasets.forgeries.visual import NEEDS_MOMENT, VISUAL
from avdetect.errors import ConfigError
from avdetect.types import Clip, FaceTrack, Float, Waveform

METHODS: tuple[str, ...] = (*VISUAL, *AUDIO, *AUDIOVISUAL)
MIN_MOMENTS = 4  # face crops of a track that has another moment to offer


def labels(method: str) -> tuple[int, int, int]:
    """(fake, video_fake, audio_fake) of what `method` makes of real media. Raises ConfigError for an unknown one. A
    real voice that does not belong to the picture is (1, 0, 0): both halves are real."""
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
        return track is not None and (method not in NEEDS_MOMENT or _moves(track))
    if method in NEEDS_OTHER and (other is None or _voice(other) is None):
        return False
    return _voice(clip) is not None and (method in AUDIO or track is not None)


def forge_clip(
    clip: Clip, method: str, rng: np.random.Generator, config: FaceConfig, other: Clip | None = None
) -> tuple[Clip, tuple[tuple[float, float], ...]]:
    """`clip` forged by `method`, one of METHODS, and where, in seconds on the file's clock.

    `config` is the one it was preprocessed with.

    Faces: every face crop of the main track. The 64 px luma mouth crops stay as they are (they are aligned and small,
    and what most methods change is colour, texture and seams), but for `mouth_swap`: there they come from the same
    other moment, so that the sync stream sees lips that do not fit the voice.
    Voices: the whole waveform, or the segment that the method draws. `other` is another clip, of another person or (for
    `other_voice`) the same: the caller chooses, and never gives the clip itself.
    Raises ConfigError for an unknown method, ValueError if `usable` is false.
    """
    if not usable(clip, method, other):
        raise ValueError(f"{method} cannot forge {clip}, other {other}: ask `usable` first")
    track, waveform = main_track(clip), clip.waveform
    if method in VISUAL:
        assert track is not None  # `usable` said so
        forged = _forge_track(track, method, rng, config)
        tracks = tuple(forged if one is track else one for one in clip.tracks)
        return replace(clip, tracks=tracks), ((track.start_seconds, track.end_seconds),)
    assert waveform is not None  # `usable` said so
    sound = {**AUDIO, **AUDIOVISUAL}[method](waveform.samples, rng, None if other is None else _voice(other))
    start = waveform.start_seconds
    segments = tuple((start + first, start + last) for first, last in sound.segments)
    return replace(clip, waveform=Waveform(sound.samples, start)), segments


def _voice(clip: Clip) -> Float | None:
    """The clip's samples, if they are long and loud enough for the audio stream."""
    wave = clip.waveform
    if wave is None or wave.duration_seconds < MIN_AUDIO_SECONDS or loudness(wave.samples) < SILENCE_RMS:
        return None
    return wave.samples


def _forge_track(track: FaceTrack, method: str, rng: np.random.Generator, config: FaceConfig) -> FaceTrack:
    size, moment, mouths = track.face_crops.shape[1], None, track.mouth_crops
    faces = FaceCrops(track.face_crops, landmarks_in_crops(track.boxes, track.landmarks, config.crop_margin, size))
    if method in NEEDS_MOMENT:
        shown, moment = _moment(faces, track, rng)
        mouths = mouths[shown]
    return replace(track, face_crops=VISUAL[method](faces, rng, moment).crops, mouth_crops=mouths)


def _moves(track: FaceTrack) -> bool:
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
        if not np.array_equal(faces.crops, moment.crops):
            return (np.arange(count) + shift) % count, moment
    raise ValueError(f"{track} shows the same pictures again and again: it has no other moment")
