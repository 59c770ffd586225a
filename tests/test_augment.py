"""Augmentation: pure functions of the generator, alike for a real and its forgery."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.datasets.augment.faces import PARTS, FaceTreatment, augment_faces, treat_faces
from avdetect.datasets.augment.mouths import MouthTreatment, augment_mouths, held_frames, treat_mouths
from avdetect.datasets.augment.voice import VoiceTreatment, augment_voice, treat_voice
from avdetect.datasets.crops import FaceCrops
from avdetect.types import SAMPLE_RATE

SIZE = 96
MARKS = np.array([[34, 40], [62, 40], [48, 54], [36, 68], [60, 68]], np.float32)
TREATMENTS = {"face": FaceTreatment, "voice": VoiceTreatment, "mouths": MouthTreatment}


def face(seed: int = 0, size: int = SIZE) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(50, 206, (size // 8, size // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def faces(count: int = 2, seed: int = 0) -> FaceCrops:
    return FaceCrops(np.stack([face(seed + i) for i in range(count)]), np.repeat(MARKS[None], count, axis=0))


def mouths() -> np.ndarray:
    return np.stack([face(i, 64)[..., 0] for i in range(6)])


def faces_of(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return augment_faces(FaceCrops(crops, np.repeat(MARKS[None], len(crops), axis=0)), rng)


CASES = {
    "face": (faces_of, faces().crops),
    "voice": (augment_voice, speech(1.0)),
    "mouths": (augment_mouths, mouths()),
}


@pytest.mark.parametrize("name", CASES)
def test_pure_functions_of_input_and_generator(name: str) -> None:
    function, given_array = CASES[name]
    before = given_array.copy()
    outputs = []
    for seed in range(30):
        out = function(given_array, np.random.default_rng(seed))
        assert out.shape == given_array.shape
        assert out.dtype == given_array.dtype
        np.testing.assert_array_equal(out, function(given_array.copy(), np.random.default_rng(seed)))
        np.testing.assert_array_equal(given_array, before, err_msg="the input was changed")
        assert not np.shares_memory(out, given_array)
        outputs.append(out)
    assert len({o.tobytes() for o in outputs}) == 30, "every generator gives another picture"


class Noting(np.random.Generator):
    """A generator that notes what it is asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.asked: list[tuple] = []

    def random(self, *args, **kwargs):
        self.asked.append(("random", args))
        return super().random(*args, **kwargs)

    def uniform(self, *args, **kwargs):
        self.asked.append(("uniform", args))
        return super().uniform(*args, **kwargs)

    def integers(self, *args, **kwargs):
        self.asked.append(("integers", args))
        return super().integers(*args, **kwargs)


@pytest.mark.parametrize("name", TREATMENTS)
def test_what_is_drawn_does_not_depend_on_what_is_used(name: str) -> None:
    """Nor on the item: two items of a pair stay in step, and so does what is drawn after them."""
    function, given_array = CASES[name]
    drawn, asked = [], set()
    for seed in range(60):
        drawn.append(TREATMENTS[name].draw(np.random.default_rng(seed)))
        rng = Noting(seed)
        function(given_array if seed % 2 else given_array[:1], rng)
        asked.add(tuple(rng.asked))
    assert len(asked) == 1
    optional = {f.name for f in dataclasses.fields(drawn[0]) if any(getattr(t, f.name) is None for t in drawn)}
    assert len(optional) >= 4
    for field in optional:
        assert any(getattr(t, field) is not None for t in drawn), f"{field} is never used"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), rows=st.tuples(st.integers(0, 60), st.integers(8, 30)))
def test_a_real_and_its_forgery_part_only_where_they_were_different(seed, count, rows) -> None:
    real = faces(count, 3)
    forged = FaceCrops(real.crops.copy(), real.landmarks)
    top, height = rows
    forged.crops[:, top : top + height, 40:60] //= 2
    treatment = dataclasses.replace(FaceTreatment.draw(np.random.default_rng(seed)), jpeg_quality=None)
    one, two = treat_faces(real, treatment), treat_faces(forged, treatment)
    moved = np.ones((SIZE, SIZE), np.uint8)
    moved[top : top + height, 40:60] = 0
    geometry = {name: getattr(treatment, name) for name in ("angle_degrees", "scale", "shift", "flip")}
    picture = FaceCrops(np.repeat(moved[None, :, :, None] * 255, 3, 3), MARKS[None])
    shown = treat_faces(picture, dataclasses.replace(PLAIN, **geometry))[0, :, :, 0]
    # Blur, and going down to a quarter and back, carry a difference some pixels away.
    same = cv2.erode((shown > 254).astype(np.uint8), np.ones((27, 27))) > 0
    assert same.any()
    np.testing.assert_allclose(one[:, same].astype(int), two[:, same].astype(int), atol=2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_two_recordings_go_through_equal_operations(seed: int, share: float) -> None:
    """Level, room and filters are linear: half the input gives half the output, noise and all."""
    treatment = dataclasses.replace(VoiceTreatment.draw(np.random.default_rng(seed)), gain_db=-12.0)
    one = treat_voice(speech(0.4) * np.float32(0.2), treatment)
    two = treat_voice(speech(0.4) * np.float32(0.2 * share), treatment)
    np.testing.assert_allclose(two, one * share, atol=2e-5)


# -- faces


def test_all_crops_of_an_item_are_treated_alike() -> None:
    still = FaceCrops(np.repeat(face(1)[None], 3, axis=0), np.repeat(MARKS[None], 3, axis=0))
    for seed in range(20):
        treatment = dataclasses.replace(FaceTreatment.draw(np.random.default_rng(seed)), noise_level=None)
        out = treat_faces(still, treatment)
        assert (out == out[0]).all()
    noisy = treat_faces(still, dataclasses.replace(treatment, noise_level=6.0, jpeg_quality=None))
    assert (noisy[0] != noisy[1]).mean() > 0.5, "the noise of a sensor is new in every frame"


def test_faces_stay_faces() -> None:
    """No augmentation wipes the picture out: the face remains the most of what is seen."""
    for seed in range(60):
        out = augment_faces(faces(1, 2), np.random.default_rng(seed)).astype(float)
        assert out.std() > 8
        assert 20 < out.mean() < 235


PLAIN = FaceTreatment(
    angle_degrees=0.0,
    scale=1.0,
    shift=(0.0, 0.0),
    flip=False,
    contrast=1.0,
    brightness=0.0,
    tint=(0.0, 0.0, 0.0),
    saturation=1.0,
    resolution=None,
    shrink=cv2.INTER_AREA,
    grow=cv2.INTER_LINEAR,
    blur_sigma=None,
    noise_level=None,
    noise_seed=0,
    jpeg_quality=None,
    cover=None,
    box=(0.1, 0.1, 0.2, 0.2),
    cover_level=255,
)


def one_face(**changes) -> np.ndarray:
    return treat_faces(faces(1, 4), dataclasses.replace(PLAIN, **changes))[0]


def test_each_face_operation_does_what_it_says() -> None:
    original = face(4).astype(int)
    np.testing.assert_array_equal(one_face(), original)
    np.testing.assert_array_equal(one_face(flip=True), original[:, ::-1])
    assert np.ptp(one_face(saturation=0.0, tint=(9.0, -9.0, 5.0)).astype(int), axis=2).max() == 0
    assert one_face(contrast=0.5).std() == pytest.approx(original.std() / 2, rel=0.05)
    assert one_face(brightness=15.0).mean() == pytest.approx(original.mean() + 15, abs=1)
    moved = one_face(shift=(0.25, 0.0))
    np.testing.assert_array_equal(moved[:, 24:], original[:, :-24])

    def sharpness(picture: np.ndarray) -> float:
        return float(cv2.Laplacian(picture.astype(np.uint8), cv2.CV_32F).std())

    noisy = face(4)[None] // 2 + np.random.default_rng(0).integers(0, 100, (1, SIZE, SIZE, 3), dtype=np.uint8)
    crops = FaceCrops(noisy, MARKS[None])
    for change in ({"resolution": 0.3}, {"blur_sigma": 1.5}):
        assert sharpness(treat_faces(crops, dataclasses.replace(PLAIN, **change))[0]) < 0.5 * sharpness(noisy[0])
    assert (one_face(noise_level=6.0) - original).std() == pytest.approx(6, rel=0.1)
    losses = [np.abs(one_face(jpeg_quality=q) - original).mean() for q in (95, 60, 30)]
    assert 0 < losses[0] < losses[1] < losses[2] < 12


@pytest.mark.parametrize("part", [*PARTS, "box"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_cover_lies_on_its_part_also_when_the_face_has_moved(part: str, flip: bool) -> None:
    moved = {"angle_degrees": 9.0, "scale": 0.9, "shift": (0.05, -0.05), "flip": flip}
    covered = np.abs(one_face(cover=part, **moved).astype(int) - one_face(**moved)).max(2) > 10
    assert 0.01 < covered.mean() < 0.4
    dots = np.zeros((5, SIZE, SIZE, 3), np.uint8)
    for dot, (x, y) in zip(dots, MARKS.astype(int), strict=True):
        cv2.circle(dot, (x, y), 2, (255, 255, 255), -1)
    seen = treat_faces(FaceCrops(dots, np.repeat(MARKS[None], 5, 0)), dataclasses.replace(PLAIN, **moved))[..., 0]
    hidden = {i for i, dot in enumerate(seen) if covered[dot > 128].mean() > 0.5}
    assert hidden >= {"eyes": {0, 1}, "nose": {2}, "mouth": {3, 4}, "box": set()}[part]
    assert len(hidden) <= 2


@pytest.mark.parametrize("marks", [MARKS * 0, MARKS * 1e9, MARKS * np.nan, MARKS - 500], ids="0 1e9 nan -500".split())
def test_wild_landmarks_do_no_harm(marks: np.ndarray) -> None:
    for part in PARTS:
        out = treat_faces(FaceCrops(face()[None], marks[None]), dataclasses.replace(PLAIN, cover=part))
        assert out.shape == (1, SIZE, SIZE, 3)


def test_every_face_operation_occurs() -> None:
    drawn = [FaceTreatment.draw(np.random.default_rng(seed)) for seed in range(500)]
    shares = {
        "flip": (np.mean([t.flip for t in drawn]), 0.5),
        "gray": (np.mean([t.saturation == 0 for t in drawn]), 0.06),
        "resolution": (np.mean([t.resolution is not None for t in drawn]), 0.5),
        "jpeg": (np.mean([t.jpeg_quality is not None for t in drawn]), 0.6),
        "cover": (np.mean([t.cover is not None for t in drawn]), 0.3),
    }
    for name, (share, expected) in shares.items():
        assert share == pytest.approx(expected, abs=0.06), name
    assert {t.cover for t in drawn} == {None, "box", *PARTS}


# -- voice


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 4000), st.integers(0, 10_000))
def test_a_voice_of_any_length_stays_in_range(count: int, seed: int) -> None:
    out = augment_voice(speech(0.3)[:count], np.random.default_rng(seed))
    assert out.shape == (count,)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.abs(out).max(initial=0) <= 1


def test_silence_stays_silent() -> None:
    for seed in range(20):
        assert np.abs(augment_voice(np.zeros(8000, np.float32), np.random.default_rng(seed))).max() < 1e-6


def test_a_voice_keeps_its_place_in_time() -> None:
    """Sync is trained on augmented sound: an augmentation that delays it would teach a wrong offset."""
    samples = np.zeros(16_000, np.float32)
    samples[8000:8200] = 0.9 * np.sin(np.arange(200) * 0.6)
    for seed in range(40):
        out = augment_voice(samples, np.random.default_rng(seed))
        energy = np.convolve(out**2, np.ones(200), "same")
        assert abs(int(energy.argmax()) - 8100) < 160, "less than a log-mel frame"


QUIET = VoiceTreatment(
    gain_db=0.0,
    room_seconds=None,
    room_level=0.5,
    low_cut_hz=None,
    tilt_db=None,
    cutoff_hz=None,
    slope_hz=300.0,
    snr_db=None,
    noise_color=1.0,
    seed=5,
    clip=None,
)


def band_db(samples: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return 10 * np.log10(power[(frequency >= low) & (frequency < high)].mean())


def test_each_voice_operation_does_what_it_says() -> None:
    # Syllables of noise: sound in every band.
    syllables = 0.15 + 0.1 * np.sin(2 * np.pi * 4 * np.arange(32_000) / 16_000)
    original = (np.random.default_rng(0).standard_normal(32_000) * syllables * 0.5).astype(np.float32)

    def treated(**changes) -> np.ndarray:
        return treat_voice(original, dataclasses.replace(QUIET, **changes))

    def change_db(out: np.ndarray, low: float, high: float) -> float:
        return band_db(out, low, high) - band_db(original, low, high)

    np.testing.assert_allclose(treated(), original, atol=1e-6)
    assert change_db(treated(gain_db=-6.0), 0, 8000) == pytest.approx(-6, abs=0.05)
    assert change_db(treated(low_cut_hz=300.0), 20, 60) < -20
    assert change_db(treated(low_cut_hz=300.0), 1000, 4000) == pytest.approx(0, abs=0.2)
    tilted = treated(tilt_db=3.0)
    assert change_db(tilted, 2000, 2100) - change_db(tilted, 500, 525) == pytest.approx(6, abs=0.3)
    narrow = treated(cutoff_hz=3500.0)
    assert change_db(narrow, 6000, 8000) < -30
    assert change_db(narrow, 200, 2000) == pytest.approx(0, abs=0.2)
    noise = treated(snr_db=20.0) - original
    assert 10 * np.log10(np.mean(original**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.2)
    assert band_db(noise, 100, 200) - band_db(noise, 1600, 3200) == pytest.approx(12, abs=2), "pink: 3 dB an octave"
    clipped = treated(clip=0.4)
    assert np.abs(clipped).max() == pytest.approx(0.4 * np.abs(original).max(), rel=1e-4)
    assert np.mean(np.abs(clipped) >= 0.999 * np.abs(clipped).max()) > 0.001


def test_a_room_rings_after_the_sound_and_never_before() -> None:
    click = np.zeros(16_000, np.float32)
    click[6000] = 0.5
    out = treat_voice(click, dataclasses.replace(QUIET, room_seconds=0.05, room_level=0.5))
    assert np.abs(out[:6000]).max() < 1e-6
    assert out[6000] == pytest.approx(0.5, abs=1e-4)
    tail = out[6001:].astype(float)
    assert np.sqrt(np.sum(tail**2)) == pytest.approx(0.25, rel=0.05)
    assert np.sum(tail[:800] ** 2) > 3 * np.sum(tail[800:] ** 2)


# -- mouths


def test_the_mouths_of_a_clip_move_as_one() -> None:
    still = np.repeat(face(4, 64)[None, ..., 0], 6, axis=0)
    for seed in range(20):
        out = augment_mouths(still, np.random.default_rng(seed))
        assert (out == out[0]).all(), "jitter between frames would look like speech"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 80), st.floats(5, 60), st.floats(0, 0.999))
def test_a_slow_camera_holds_frames_and_never_sees_ahead(count: int, fps: float, phase: float) -> None:
    shown = held_frames(count, fps, phase)
    frames = np.arange(count)
    assert shown.shape == (count,)
    assert (np.diff(shown) >= 0).all()
    assert (shown <= frames).all(), "the future is not seen"
    assert (frames - shown < max(25 / fps, 0) + 1).all()
    assert (shown >= 0).all()
    if fps >= 25:
        np.testing.assert_array_equal(shown, frames)
    elif count:
        assert len(set(shown.tolist())) == pytest.approx(count * fps / 25, abs=2)


def test_mouths_of_a_slow_camera_are_frames_of_the_clip() -> None:
    codes = np.broadcast_to(np.arange(0, 240, 10, np.uint8)[:, None, None], (24, 64, 64))
    plain = MouthTreatment(
        angle_degrees=0.0,
        scale=1.0,
        shift=(0.0, 0.0),
        flip=False,
        contrast=1.0,
        brightness=0.0,
        resolution=None,
        blur_sigma=None,
        jpeg_quality=None,
        fps=15.0,
        phase=0.3,
    )
    out = treat_mouths(np.ascontiguousarray(codes), plain)
    np.testing.assert_array_equal(out[:, 0, 0] // 10, held_frames(24, 15.0, 0.3))
    rates = [MouthTreatment.draw(np.random.default_rng(seed)).fps for seed in range(200)]
    used = [rate for rate in rates if rate is not None]
    assert 0.2 < len(used) / 200 < 0.4
    assert min(used) < 17
    assert max(used) > 28
    assert min(used) >= 15
    assert max(used) <= 30
