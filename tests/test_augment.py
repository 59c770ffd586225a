"""Augmentation: pure functions of the generator, alike for a real and its forgery."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from clips import speech
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.config import PairLoopConfig
from avdetect.datasets.augment.faces import PARTS, FaceTreatment, augment_faces, treat_faces
from avdetect.datasets.augment.mouths import MouthTreatment, augment_mouths, held_frames, treat_mouths
from avdetect.datasets.augment.voice import VoiceTreatment, augment_voice, treat_voice
from avdetect.datasets.crops import FaceCrops
from avdetect.training.batches import VisualBatches
from avdetect.types import SAMPLE_RATE, UInt8

SIZE = 96
MARKS = np.array([[34, 40], [62, 40], [48, 54], [36, 68], [60, 68]], np.float32)


def face(seed: int = 0, size: int = SIZE) -> UInt8:
    """Coarse shapes under fine grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(50, 206, (size // 8, size // 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def item(*crops: UInt8) -> FaceCrops:
    return FaceCrops(np.stack(crops), np.repeat(MARKS[None], len(crops), axis=0))


CASES = {
    "face": (FaceTreatment, lambda x, rng: augment_faces(item(*x), rng), np.stack([face(0), face(1)])),
    "light": (FaceTreatment, lambda x, rng: augment_faces(item(*x), rng, light=True), np.stack([face(0), face(1)])),
    "voice": (VoiceTreatment, augment_voice, speech(1.0)),
    "mouths": (MouthTreatment, augment_mouths, np.stack([face(i, 64)[..., 0] for i in range(6)])),
}


@pytest.mark.parametrize("name", CASES)
def test_pure_functions_of_input_and_generator(name: str) -> None:
    """What is drawn depends neither on what is used nor on the item: two items of a pair stay in step, and so does what
    is drawn after them."""
    kind, function, given_array = CASES[name]
    before = given_array.copy()
    outputs, drawn, asked = set(), [], set()
    for seed in range(40):
        drawn.append(kind.draw(np.random.default_rng(seed)))
        rng = Mock(wraps=np.random.default_rng(seed))
        some = given_array if seed % 2 else given_array[:1]
        out = function(some, rng)
        asked.add(str(rng.method_calls))
        assert (out.shape, out.dtype) == (some.shape, some.dtype)
        np.testing.assert_array_equal(given_array, before, err_msg="the input was changed")
        assert not np.shares_memory(out, given_array)
        if seed < 12:
            np.testing.assert_array_equal(out, function(some.copy(), np.random.default_rng(seed)))
        outputs.add(out.tobytes() if seed % 2 else seed)
    assert len(outputs) == 40, "every generator gives another picture"
    assert len(asked) == 1
    optional = {f.name for f in dataclasses.fields(kind) if any(getattr(t, f.name) is None for t in drawn)}
    assert len(optional) >= 4
    for field in optional:
        assert any(getattr(t, field) is not None for t in drawn), f"{field} is never used"


PLAIN = FaceTreatment(
    **{"angle_degrees": 0.0, "scale": 1.0, "shift": (0.0, 0.0), "flip": False, "contrast": 1.0, "brightness": 0.0},
    **{"tint": (0.0, 0.0, 0.0), "saturation": 1.0, "resolution": None, "shrink": cv2.INTER_AREA},
    **{"grow": cv2.INTER_LINEAR, "blur_sigma": None, "noise_level": None, "noise_seed": 0, "jpeg_quality": None},
    **{"cover": None, "box": (0.1, 0.1, 0.2, 0.2), "cover_level": 255},
)


def treated(crop: UInt8, **changes) -> UInt8:
    return treat_faces(item(crop), dataclasses.replace(PLAIN, **changes))[0]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), top=st.integers(0, 60), height=st.integers(8, 30))
def test_a_real_and_its_forgery_part_only_where_they_were_different(seed: int, top: int, height: int) -> None:
    real, moved = face(3), np.ones((SIZE, SIZE, 3), np.uint8) * 255
    forged = real.copy()
    forged[top : top + height, 40:60] //= 2
    moved[top : top + height, 40:60] = 0
    treatment = dataclasses.replace(FaceTreatment.draw(np.random.default_rng(seed)), jpeg_quality=None)
    one, two = treat_faces(item(real), treatment), treat_faces(item(forged), treatment)
    geometry = {name: getattr(treatment, name) for name in ("angle_degrees", "scale", "shift", "flip")}
    # Blur, and going down to a quarter and back, carry a difference some pixels away.
    same = cv2.erode((treated(moved, **geometry)[..., 0] > 254).astype(np.uint8), np.ones((27, 27))) > 0
    assert same.any()
    np.testing.assert_allclose(one[:, same].astype(int), two[:, same].astype(int), atol=2)


def test_all_crops_of_an_item_are_treated_alike_and_stay_faces() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        treatment = FaceTreatment.draw(rng)
        treatment = dataclasses.replace(treatment.lighter(rng) if seed % 2 else treatment, noise_level=None)
        out = treat_faces(item(face(1), face(1), face(1)), treatment)
        assert (out == out[0]).all()
        assert out.std() > 8
        assert 20 < out.mean() < 235
        mouths = augment_mouths(np.repeat(face(4, 64)[None, ..., 0], 6, axis=0), np.random.default_rng(seed))
        assert (mouths == mouths[0]).all(), "jitter between frames would look like speech"
    noisy = treat_faces(item(face(1), face(1)), dataclasses.replace(PLAIN, noise_level=6.0))
    assert (noisy[0] != noisy[1]).mean() > 0.5, "the noise of a sensor is new in every frame"


def test_each_face_operation_does_what_it_says() -> None:
    crop = face(4)
    original = crop.astype(int)
    np.testing.assert_array_equal(treated(crop), original)
    np.testing.assert_array_equal(treated(crop, flip=True), original[:, ::-1])
    assert np.ptp(treated(crop, saturation=0.0, tint=(9.0, -9.0, 5.0)).astype(int), axis=2).max() == 0
    assert treated(crop, contrast=0.5).std() == pytest.approx(original.std() / 2, rel=0.05)
    assert treated(crop, brightness=15.0).mean() == pytest.approx(original.mean() + 15, abs=1)
    np.testing.assert_array_equal(treated(crop, shift=(0.25, 0.0))[:, 24:], original[:, :-24])
    noise = np.random.default_rng(0).integers(0, 256, crop.shape, dtype=np.uint8)
    for change in ({"resolution": 0.3}, {"blur_sigma": 1.5}):
        before, after = (cv2.Laplacian(picture, cv2.CV_32F).std() for picture in (noise, treated(noise, **change)))
        assert after < 0.5 * before
    assert (treated(crop, noise_level=6.0) - original).std() == pytest.approx(6, rel=0.1)
    losses = [np.abs(treated(crop, jpeg_quality=q) - original).mean() for q in (95, 60, 30)]
    assert 0 < losses[0] < losses[1] < losses[2] < 12


@pytest.mark.parametrize("part", [*PARTS, "box"])
def test_a_cover_lies_on_its_part_also_when_the_face_has_moved(part: str) -> None:
    moved = {"angle_degrees": 9.0, "scale": 0.9, "shift": (0.05, -0.05), "flip": True}
    covered = np.abs(treated(face(4), cover=part, **moved).astype(int) - treated(face(4), **moved)).max(2) > 10
    assert 0.01 < covered.mean() < 0.4
    dots = np.zeros((5, SIZE, SIZE, 3), np.uint8)
    for dot, (x, y) in zip(dots, MARKS.astype(int), strict=True):
        cv2.circle(dot, (x, y), 2, (255, 255, 255), -1)
    seen = treat_faces(item(*dots), dataclasses.replace(PLAIN, **moved))[..., 0]
    hidden = {i for i, dot in enumerate(seen) if covered[dot > 128].mean() > 0.5}
    assert hidden >= {"eyes": {0, 1}, "nose": {2}, "mouth": {3, 4}, "box": set()}[part]
    assert len(hidden) <= 2
    for wild in (MARKS * 0, MARKS * 1e9, MARKS * np.nan, MARKS - 500):
        out = treat_faces(FaceCrops(face()[None], wild[None]), dataclasses.replace(PLAIN, cover=part))
        assert out.shape == (1, SIZE, SIZE, 3)


def untouched(crop: UInt8, treatment: int, *, forged: bool = False, light: bool = True, augment: bool = True) -> bool:
    """Is the crop as it was when the batches are done with it?"""
    config = PairLoopConfig(augmentation="light" if light else "full", codec=0.0)
    batches: Any = SimpleNamespace(augment=augment, config=config)  # what is read of VisualBatches
    return np.array_equal(VisualBatches._augmented(batches, item(crop), treatment, forged), crop)


def test_half_of_the_real_media_stays_as_it_is_and_no_forgery() -> None:
    """A forgery's difference to its original would otherwise be whether it was treated at all."""
    numbers = np.random.default_rng(0).integers(2**32, size=60).tolist()
    fake = face()
    fake[20:30] //= 2
    kept = [untouched(face(), number) for number in numbers]
    assert 0.3 < np.mean(kept) < 0.7
    assert kept == [untouched(fake, number) for number in numbers], "a fake and its original, both or neither"
    assert not any(untouched(face(), number, forged=True) for number in numbers)
    assert not any(untouched(face(), number, light=False) for number in numbers)
    assert all(untouched(face(), number, forged=True, augment=False) for number in numbers[:5])


def test_a_lighter_treatment_is_mild_and_seldom_wears_texture_away() -> None:
    used = {"resolution": 0, "noise_level": 0, "jpeg_quality": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        full = FaceTreatment.draw(rng)
        mild = full.lighter(rng)
        assert (mild.cover, mild.blur_sigma) == (None, None)
        assert max(abs(mild.angle_degrees), abs(mild.brightness) / 2, *map(abs, mild.tint)) <= 5
        assert 0.9 <= mild.scale <= 1.075
        assert 0.875 <= mild.contrast <= 1.125
        assert 0.75 <= mild.saturation <= 1.25, "nothing becomes gray"
        assert mild.resolution is None or mild.resolution > 0.5
        assert mild.jpeg_quality is None or 60 <= mild.jpeg_quality <= 95
        assert (mild.flip, mild.shift, mild.noise_seed) == (full.flip, full.shift, full.noise_seed)
        for name in used:  # it leaves out, it adds nothing
            assert getattr(full, name) is not None or getattr(mild, name) is None
            used[name] += getattr(mild, name) is not None
    assert all(4 < count < 80 for count in used.values()), "seldom, but not never"


QUIET = VoiceTreatment(
    **{"gain_db": 0.0, "room_seconds": None, "room_level": 0.5, "low_cut_hz": None, "tilt_db": None},
    **{"cutoff_hz": None, "slope_hz": 300.0, "snr_db": None, "noise_color": 1.0, "seed": 5, "clip": None},
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 4000), st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_a_voice_of_any_length_and_level_goes_through_equal_operations(count: int, seed: int, share: float) -> None:
    """Level, room and filters are linear: half the input gives half the output, noise and all. Silence stays silent."""
    out = augment_voice(speech(0.3)[:count], np.random.default_rng(seed))
    assert (out.shape, out.dtype) == ((count,), np.float32)
    assert np.abs(out).max(initial=0) <= 1
    treatment = dataclasses.replace(VoiceTreatment.draw(np.random.default_rng(seed)), gain_db=-12.0)
    one, two = (treat_voice(speech(0.4) * np.float32(0.2 * level), treatment) for level in (1, share))
    np.testing.assert_allclose(two, one * share, atol=2e-5)
    assert np.abs(treat_voice(np.zeros(8000, np.float32), treatment)).max() < 1e-6


def test_a_voice_keeps_its_place_in_time() -> None:
    """Sync is trained on augmented sound: an augmentation that delays it would teach a wrong offset."""
    samples = np.zeros(16_000, np.float32)
    samples[8000:8200] = 0.9 * np.sin(np.arange(200) * 0.6)
    for seed in range(25):
        out = augment_voice(samples, np.random.default_rng(seed))
        energy = np.convolve(out**2, np.ones(200), "same")
        assert abs(int(energy.argmax()) - 8100) < 160, "less than a log-mel frame"
    click = np.zeros(16_000, np.float32)
    click[6000] = 0.5
    out = treat_voice(click, dataclasses.replace(QUIET, room_seconds=0.05))
    assert np.abs(out[:6000]).max() < 1e-6, "a room rings after the sound and never before"
    assert out[6000] == pytest.approx(0.5, abs=1e-4)
    tail = out[6001:].astype(float)
    assert np.sqrt(np.sum(tail**2)) == pytest.approx(0.25, rel=0.05)
    assert np.sum(tail[:800] ** 2) > 3 * np.sum(tail[800:] ** 2)


def band_db(samples: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return 10 * np.log10(power[(frequency >= low) & (frequency < high)].mean())


def test_each_voice_operation_does_what_it_says() -> None:
    # Syllables of noise: sound in every band.
    syllables = 0.15 + 0.1 * np.sin(2 * np.pi * 4 * np.arange(32_000) / 16_000)
    original = (np.random.default_rng(0).standard_normal(32_000) * syllables * 0.5).astype(np.float32)

    def changed(**changes) -> np.ndarray:
        return treat_voice(original, dataclasses.replace(QUIET, **changes))

    for change, low, high, least, most in [
        ({}, 0, 8000, 0, 0),
        ({"gain_db": -6.0}, 0, 8000, -6.05, -5.95),
        ({"low_cut_hz": 300.0}, 20, 60, -99, -20),
        ({"low_cut_hz": 300.0}, 1000, 4000, -0.2, 0.2),
        ({"tilt_db": 3.0}, 500, 525, -3.15, -2.7),
        ({"tilt_db": 3.0}, 2000, 2100, 2.85, 3.3),
        ({"cutoff_hz": 3500.0}, 6000, 8000, -999, -30),
        ({"cutoff_hz": 3500.0}, 200, 2000, -0.2, 0.2),
    ]:
        decibels = band_db(changed(**change), low, high) - band_db(original, low, high)
        assert least - 1e-4 <= decibels <= most + 1e-4, (change, low)
    noise = changed(snr_db=20.0) - original
    assert 10 * np.log10(np.mean(original**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.2)
    assert band_db(noise, 100, 200) - band_db(noise, 1600, 3200) == pytest.approx(12, abs=2), "pink: 3 dB an octave"
    clipped = changed(clip=0.4)
    assert np.abs(clipped).max() == pytest.approx(0.4 * np.abs(original).max(), rel=1e-4)
    assert np.mean(np.abs(clipped) >= 0.999 * np.abs(clipped).max()) > 0.001


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 80), st.floats(5, 60), st.floats(0, 0.999))
def test_a_slow_camera_holds_frames_and_never_sees_ahead(count: int, fps: float, phase: float) -> None:
    shown = held_frames(count, fps, phase)
    frames = np.arange(count)
    assert shown.shape == (count,)
    assert (np.diff(shown) >= 0).all()
    assert ((shown >= 0) & (shown <= frames)).all(), "the future is not seen"
    assert (frames - shown < 25 / fps + 1).all()
    if fps >= 25:
        np.testing.assert_array_equal(shown, frames)
    elif count:
        assert len(set(shown.tolist())) == pytest.approx(count * fps / 25, abs=2)


def test_mouths_of_a_slow_camera_are_frames_of_the_clip() -> None:
    drawn = [MouthTreatment.draw(np.random.default_rng(seed)) for seed in range(200)]
    used = [treatment.fps for treatment in drawn if treatment.fps is not None]
    assert 0.2 < len(used) / 200 < 0.4
    assert 15 <= min(used) < 17 < 28 < max(used) <= 30
    codes = np.broadcast_to(np.arange(0, 240, 10, np.uint8)[:, None, None], (24, 64, 64))
    off = {"resolution": None, "blur_sigma": None, "jpeg_quality": None, "contrast": 1.0, "brightness": 0.0}
    out = treat_mouths(np.ascontiguousarray(codes), dataclasses.replace(drawn[0], fps=15.0, phase=0.3, **off))
    np.testing.assert_array_equal(out[:, 0, 0] // 10, held_frames(24, 15.0, 0.3))
