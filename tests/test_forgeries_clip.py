"""Forged clips: labels, what each method needs, and that nothing but the named part changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from clips import make_track, speech, talking_clip

from avdetect.config import FaceConfig
from avdetect.datasets.forgeries.audio import AUDIO, AUDIOVISUAL
from avdetect.datasets.forgeries.clip import METHODS, forge_clip, labels, main_track, usable
from avdetect.datasets.forgeries.visual import NEEDS_MOMENT, VISUAL
from avdetect.errors import ConfigError
from avdetect.types import Clip, FaceTrack, Waveform

CONFIG = FaceConfig()
START = 12.0  # seconds; everything is on the file's clock


def clip(seed: int = 0, frames: int = 60, *, voice: bool = True, faces: bool = True, second: bool = False) -> Clip:
    """A face of smooth noise at 160 px (so that whatever moves or blurs it shows) and a voice, from START on."""
    rng = np.random.default_rng(seed)
    track = make_track(np.arange(frames) % 24, round(START * 25), size=160)
    coarse = rng.integers(30, 226, (len(track.face_crops), 40, 40, 3), dtype=np.uint8)
    track = dataclasses.replace(track, face_crops=coarse.repeat(4, axis=1).repeat(4, axis=2))
    tracks: tuple[FaceTrack, ...] = (track,) if faces else ()
    if second:
        tracks = (make_track(np.arange(20) % 24, round(START * 25), track_id=1, size=160), *tracks)
    sound = Waveform(speech(frames / 25, seed), START) if voice else None
    return Clip(START, frames / 25, tracks, sound)


def same(a: FaceTrack, b: FaceTrack) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(FaceTrack))


@pytest.mark.parametrize("method", METHODS)
def test_only_the_named_part_is_forged(method: str) -> None:
    seed, frames = METHODS.index(method), 31
    original, other = clip(seed % 3, frames, second=True), clip(7, 40)
    copy = clip(seed % 3, frames, second=True)
    forged, segments = forge_clip(original, method, np.random.default_rng(seed), CONFIG, other)
    assert all(same(a, b) for a, b in zip(original.tracks, copy.tracks, strict=True)), "the input was changed"
    assert np.array_equal(original.waveform.samples, copy.waveform.samples), "the input was changed"
    assert forged.waveform.start_seconds == START
    assert len(forged.waveform.samples) == len(original.waveform.samples)
    assert segments
    assert all(START <= start < stop <= START + frames / 25 + 1e-9 for start, stop in segments)
    assert same(forged.tracks[0], original.tracks[0]), "only the main track is forged"
    face, before = forged.tracks[1], original.tracks[1]
    assert (method not in VISUAL) == np.array_equal(face.face_crops, before.face_crops)
    assert (method not in NEEDS_MOMENT) == np.array_equal(face.mouth_crops, before.mouth_crops)
    assert same(dataclasses.replace(face, face_crops=before.face_crops, mouth_crops=before.mouth_crops), before)
    assert (method in VISUAL) == np.array_equal(forged.waveform.samples, original.waveform.samples)
    again, same_segments = forge_clip(original, method, np.random.default_rng(seed), CONFIG, other)
    assert same_segments == segments
    assert all(same(a, b) for a, b in zip(again.tracks, forged.tracks, strict=True))
    assert np.array_equal(again.waveform.samples, forged.waveform.samples)


def test_labels_say_which_part_is_synthetic() -> None:
    assert len(METHODS) == len({*VISUAL, *AUDIO, *AUDIOVISUAL}), "two forgeries share a name"
    assert labels("self_blend") == (1, 1, 0)
    assert labels("world") == (1, 0, 1)
    assert labels("offset") == labels("other_voice") == (1, 0, 0), "both halves of a mismatch are real"
    with pytest.raises(ConfigError, match=r"'deepfake'.*griffin_lim"):
        usable(clip(), "deepfake", None)


@pytest.mark.parametrize(
    ("face", "voice", "donor", "frames"),
    [
        *((True, True, "whole", 25), (True, True, None, 13), (True, True, "empty", 25), (True, False, "whole", 13)),
        *((False, True, "whole", 25), (False, False, "whole", 25)),
    ],
)
def test_usable_is_what_forging_needs(face: bool, voice: bool, donor: str | None, frames: int) -> None:
    subject = clip(0, frames, faces=face, voice=voice)
    other = {None: None, "whole": clip(3, 30), "empty": clip(3, 30, faces=False, voice=False)}[donor]
    for method in METHODS:
        if method in VISUAL:
            want = face and (frames == 25 or method not in NEEDS_MOMENT)
        elif method in AUDIO:
            want = voice
        else:
            want = face and voice and (donor == "whole" or method != "other_voice")
        assert usable(subject, method, other) == want, method
        if not want:
            with pytest.raises(ValueError, match=method):
                forge_clip(subject, method, np.random.default_rng(1), CONFIG, other)


def test_a_silent_or_short_voice_is_not_forged() -> None:
    subject, quiet = clip(), speech(2.0) * np.float32(1e-3)
    for samples in (np.zeros(32000, np.float32), np.full(32000, 0.4, np.float32), speech(0.4), quiet):
        silent = dataclasses.replace(subject, waveform=Waveform(samples, START))
        assert not any(usable(silent, method, subject) for method in (*AUDIO, *AUDIOVISUAL))
        assert not usable(subject, "other_voice", silent)


def test_the_main_track_has_the_most_face_crops() -> None:
    tracks = tuple(make_track(np.zeros(n, int), track_id=n) for n in (20, 60, 40))
    assert main_track(Clip(0.0, 3.0, tracks, None)).track_id == 60
    assert main_track(Clip(0.0, 3.0, (), None)) is None


@pytest.mark.parametrize("loop", [False, True])
def test_swapped_mouths_come_from_one_other_moment(loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mouth crops are the same pictures at least a quarter of the track later, around its end; the face crops
    always differ, in a loop too."""
    original = clip(0, 24)
    track = original.tracks[0]
    if loop:
        crops = track.face_crops[np.arange(len(track.face_crops)) % 2]
        original = dataclasses.replace(original, tracks=(dataclasses.replace(track, face_crops=crops),))
    given_moments = []
    swap = VISUAL["mouth_swap"]
    monkeypatch.setitem(VISUAL, "mouth_swap", lambda f, r, m: (given_moments.append((f, m)), swap(f, r, m))[1])
    for seed in range(4):
        forged, _ = forge_clip(original, "mouth_swap", np.random.default_rng(seed), CONFIG)
        before, after = track.mouth_crops[:, 0, 0], forged.tracks[0].mouth_crops[:, 0, 0]
        (shift,) = [k for k in range(24) if np.array_equal(np.roll(before, -k), after)]
        assert 6 <= shift <= 18
    assert not any(np.array_equal(faces.crops, moment.crops) for faces, moment in given_moments)


def test_a_still_has_no_other_moment() -> None:
    """However many crops of it there are: swapped with itself it would be genuine and labelled fake."""
    moving = clip(0, 40)
    track = moving.tracks[0]
    still = dataclasses.replace(track, face_crops=track.face_crops[:1].repeat(len(track.face_crops), 0))
    assert usable(moving, "mouth_swap", None)
    assert not usable(dataclasses.replace(moving, tracks=(still,)), "mouth_swap", None)


def test_segments_of_a_late_voice_are_on_the_file_clock() -> None:
    subject = dataclasses.replace(talking_clip(50), waveform=Waveform(speech(1.0), 0.5))
    assert forge_clip(subject, "pitch", np.random.default_rng(0), CONFIG)[1] == ((0.5, 1.5),)
    assert forge_clip(subject, "self_blend", np.random.default_rng(0), CONFIG)[1] == ((0.0, 2.0),)
