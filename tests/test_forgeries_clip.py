"""Forged clips: labels, what each method needs, and that nothing but the named part changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from clips import make_track, speech, talking_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.config import FaceConfig
from avdetect.datasets.crops import FaceCrops, landmarks_in_crops
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.datasets.forgeries.audiovisual import AUDIOVISUAL
from avdetect.datasets.forgeries.clip import METHODS, MOVES_THE_MOUTH, forge_clip, labels, main_track, usable
from avdetect.datasets.forgeries.pose import pose_gap
from avdetect.datasets.forgeries.visual import NEEDS, VISUAL
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


def test_every_forgery_is_a_method_once() -> None:
    assert set(METHODS) == {*VISUAL, *AUDIO, *AUDIOVISUAL}
    assert len(METHODS) == len(VISUAL) + len(AUDIO) + len(AUDIOVISUAL), "two forgeries share a name"
    assert set(VISUAL) >= MOVES_THE_MOUTH


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 2**31), frames=st.integers(25, 60))
@settings(deadline=None, max_examples=2, derandomize=True)
def test_only_the_named_part_is_forged(method: str, seed: int, frames: int) -> None:
    original, other = clip(seed % 3, frames, second=True), clip(7, 40)
    copy = clip(seed % 3, frames, second=True)
    forged = forge_clip(original, method, np.random.default_rng(seed), CONFIG, other)
    assert all(same(a, b) for a, b in zip(original.tracks, copy.tracks, strict=True)), "the input was changed"
    assert np.array_equal(original.waveform.samples, copy.waveform.samples), "the input was changed"
    assert forged.method == method
    assert (forged.fake, forged.video_fake, forged.audio_fake) == labels(method)
    assert forged.clip.waveform.start_seconds == START
    assert len(forged.clip.waveform.samples) == len(original.waveform.samples)
    for start, stop in forged.segments:
        assert START <= start < stop <= START + frames / 25 + 1e-9
    assert forged.segments
    assert same(forged.clip.tracks[0], original.tracks[0]), "only the main track is forged"
    face, before = forged.clip.tracks[1], original.tracks[1]
    assert (method not in VISUAL) == np.array_equal(face.face_crops, before.face_crops)
    assert (method not in MOVES_THE_MOUTH) == np.array_equal(face.mouth_crops, before.mouth_crops)
    assert same(dataclasses.replace(face, face_crops=before.face_crops, mouth_crops=before.mouth_crops), before)
    assert (method in VISUAL) == np.array_equal(forged.clip.waveform.samples, original.waveform.samples)
    again = forge_clip(original, method, np.random.default_rng(seed), CONFIG, other)
    assert again.segments == forged.segments
    assert all(same(a, b) for a, b in zip(again.clip.tracks, forged.clip.tracks, strict=True))
    assert np.array_equal(again.clip.waveform.samples, forged.clip.waveform.samples)


def test_labels_say_which_part_is_synthetic() -> None:
    assert labels("self_blend") == (1, 1, 0)
    assert labels("world") == (1, 0, 1)
    assert labels("offset") == labels("other_voice") == (1, 0, 0), "both halves of a mismatch are real"


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'deepfake'.*griffin_lim"):
        usable(clip(), "deepfake", None)
    with pytest.raises(ConfigError, match="'deepfake'"):
        forge_clip(clip(), "deepfake", np.random.default_rng(0), CONFIG)


def expected(method: str, face: bool, voice: bool, other: bool, moments: bool) -> bool:
    """The needs of a method, said once more."""
    if method in VISUAL:
        return face and (moments or NEEDS.get(method) != "moment") and (other or NEEDS.get(method) != "other")
    if method in AUDIO:
        return voice
    return face and voice and (other or method != "other_voice")


@pytest.mark.parametrize("face", [True, False])
@pytest.mark.parametrize("voice", [True, False])
@pytest.mark.parametrize("donor", [None, "whole", "empty"])
@pytest.mark.parametrize("frames", [25, 13])
def test_usable_is_what_forging_needs(face: bool, voice: bool, donor: str | None, frames: int) -> None:
    subject = clip(0, frames, faces=face, voice=voice)
    other = {None: None, "whole": clip(3, 30), "empty": clip(3, 30, faces=False, voice=False)}[donor]
    for method in METHODS:
        want = expected(method, face, voice, donor == "whole", frames == 25)
        assert usable(subject, method, other) == want, method
        if want and (method not in AUDIO or donor is None):  # the voice's forgeries ask nobody else
            assert forge_clip(subject, method, np.random.default_rng(1), CONFIG, other).segments
        elif not want:
            with pytest.raises(ValueError, match=method):
                forge_clip(subject, method, np.random.default_rng(1), CONFIG, other)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(32000, np.float32), np.full(32000, 0.4, np.float32), speech(0.4), speech(2.0) * np.float32(1e-3)],
)
def test_a_silent_or_short_voice_is_not_forged(samples: np.ndarray) -> None:
    subject = dataclasses.replace(clip(), waveform=Waveform(samples, START))
    assert not any(usable(subject, method, clip(1)) for method in (*AUDIO, *AUDIOVISUAL))
    assert not usable(clip(), "other_voice", subject)


def test_the_main_track_has_the_most_face_crops() -> None:
    tracks = tuple(make_track(np.zeros(n, int), track_id=n) for n in (20, 60, 40))
    assert main_track(Clip(0.0, 3.0, tracks, None)).track_id == 60
    assert main_track(Clip(0.0, 3.0, (), None)) is None


@pytest.mark.parametrize("method", sorted(MOVES_THE_MOUTH))
def test_swapped_mouths_come_from_one_other_moment(method: str) -> None:
    """The mouth crops are the same pictures at least a quarter of the track later, around its end."""
    original = clip(0, 24)
    for seed in range(8):
        forged = forge_clip(original, method, np.random.default_rng(seed), CONFIG).clip
        before, after = original.tracks[0].mouth_crops[:, 0, 0], forged.tracks[0].mouth_crops[:, 0, 0]
        shifts = [k for k in range(24) if np.array_equal(np.roll(before, -k), after)]
        assert len(shifts) == 1
        assert 6 <= shifts[0] <= 18


def test_donors_of_another_size_and_length_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a method is given: as many crops as the target, at its size, landmarks in their pixels."""
    small = make_track(np.zeros(11, int), size=80)
    other = Clip(0.0, 1.0, (small,), None)
    seen = []

    def spy(faces, rng, donors):
        seen.append((faces, donors))
        return VISUAL["self_blend"](faces, rng, donors)

    monkeypatch.setitem(VISUAL, "rand_merge", spy)
    monkeypatch.setitem(VISUAL, "mouth_swap", spy)
    for name in ("rand_merge", "mouth_swap"):
        forge_clip(clip(), name, np.random.default_rng(0), CONFIG, other)
    (faces, donors), (again, moments) = seen
    assert donors.other.crops.shape == faces.crops.shape == (12, 160, 160, 3)
    marks = landmarks_in_crops(small.boxes, small.landmarks, CONFIG.crop_margin, 160)[0]
    np.testing.assert_allclose(donors.other.landmarks, np.tile(marks, (12, 1, 1)), atol=1e-3)
    assert donors.moment is None
    assert moments.other is None
    assert moments.moment.crops.shape == again.crops.shape
    assert not any(np.array_equal(a, b) for a, b in zip(moments.moment.crops, again.crops, strict=True))


def test_segments_of_a_late_voice_are_on_the_file_clock() -> None:
    subject = talking_clip(50)
    subject = dataclasses.replace(subject, waveform=Waveform(speech(1.5), 0.5))
    assert forge_clip(subject, "world", np.random.default_rng(0), CONFIG).segments == ((0.5, 2.0),)
    assert forge_clip(subject, "self_blend", np.random.default_rng(0), CONFIG).segments == ((0.0, 2.0),)


MOMENTS = sorted(name for name, need in NEEDS.items() if need == "moment")


@pytest.mark.parametrize("method", MOMENTS)
def test_a_still_has_no_other_moment(method: str) -> None:
    """However many crops of it there are: swapped with itself it would be genuine and labelled fake."""
    moving = clip(0, 40)
    track = moving.tracks[0]
    assert usable(moving, method, None)
    still = dataclasses.replace(track, face_crops=track.face_crops[:1].repeat(len(track.face_crops), 0))
    frozen = dataclasses.replace(moving, tracks=(still,))
    assert not usable(frozen, method, None)
    with pytest.raises(ValueError, match=method):
        forge_clip(frozen, method, np.random.default_rng(0), CONFIG)


@pytest.mark.parametrize("method", MOMENTS)
def test_a_loop_is_forged_at_a_moment_that_differs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = clip(0, 40)
    track = original.tracks[0]
    loop = dataclasses.replace(track, face_crops=track.face_crops[[0, 1] * (len(track.face_crops) // 2)])
    looped = dataclasses.replace(original, tracks=(loop,))
    seen = []

    def spy(faces, rng, donors):
        seen.append(np.array_equal(faces.crops, donors.moment.crops))
        return VISUAL["self_blend"](faces, rng, donors)

    monkeypatch.setitem(VISUAL, method, spy)
    for seed in range(20):
        forge_clip(looped, method, np.random.default_rng(seed), CONFIG)
    assert not any(seen)


def test_of_another_face_the_stretch_that_is_turned_alike_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance takes any stretch; the best of several is turned much more alike on average."""
    donor = make_track(np.zeros(200, int), size=160)
    marks = donor.landmarks.copy()
    marks[:, 2, 0] += np.linspace(-0.15, 0.15, len(marks)) * np.ptp(donor.boxes[:, ::2], axis=1)
    donor = dataclasses.replace(donor, landmarks=marks.astype(np.float32))
    found = []

    def spy(faces, rng, donors):
        found.append(pose_gap(faces, donors.other))
        return VISUAL["self_blend"](faces, rng, donors)

    monkeypatch.setitem(VISUAL, "rand_merge", spy)
    for seed in range(12):
        forge_clip(clip(0, 20), "rand_merge", np.random.default_rng(seed), CONFIG, Clip(0.0, 8.0, (donor,), None))
    subject = forge_clip(clip(0, 20), "self_blend", np.random.default_rng(0), CONFIG).clip.tracks[0]
    size = subject.face_crops.shape[1]
    faces, others = (
        FaceCrops(t.face_crops, landmarks_in_crops(t.boxes, t.landmarks, CONFIG.crop_margin, size))
        for t in (subject, donor)
    )
    count = len(faces)
    every = [
        pose_gap(faces, FaceCrops(others.crops[i : i + count], others.landmarks[i : i + count]))
        for i in range(len(others) - count + 1)
    ]
    assert np.mean(found) < 0.6 * np.mean(every)
