"""Light augmentation: half of the real media stays as it is, forgeries never do, and texture is mostly kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from avdetect.config import PairLoopConfig
from avdetect.datasets.augment.faces import FaceTreatment, augment_faces, treat_faces
from avdetect.datasets.crops import FaceCrops
from avdetect.training.batches import VisualBatches
from avdetect.types import UInt8

SIZE = 64
MARKS = np.array([[22, 26], [42, 26], [32, 36], [24, 46], [40, 46]], np.float32)


def faces(count: int = 1, seed: int = 0) -> FaceCrops:
    """Coarse shapes under fine grain."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(60, 196, (8, 8, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 12, (count, SIZE, SIZE, 3))
    crops = np.clip(coarse + grain, 0, 255).astype(np.uint8)
    return FaceCrops(crops, np.repeat(MARKS[None], count, axis=0))


def light(seed: int, given_faces: FaceCrops | None = None) -> UInt8:
    return augment_faces(given_faces or faces(), np.random.default_rng(seed), light=True)


def lighter(seed: int) -> tuple[FaceTreatment, FaceTreatment]:
    """A treatment and its lighter one."""
    rng = np.random.default_rng(seed)
    full = FaceTreatment.draw(rng)
    return full, full.lighter(rng)


def batched(item: FaceCrops, treatment: int, *, forged: bool = False, mild: bool = True, augment: bool = True) -> bool:
    """Is the item as it was when the batches are done with it?"""
    config = PairLoopConfig(augmentation="light" if mild else "full", codec=0.0)
    batches: Any = SimpleNamespace(augment=augment, config=config)  # what is read of VisualBatches
    return np.array_equal(VisualBatches._augmented(batches, item, treatment, forged), item.crops[0])


# -- which items


def test_half_of_the_real_media_stays_as_it_is() -> None:
    numbers = np.random.default_rng(0).integers(2**32, size=200).tolist()
    share = np.mean([batched(faces(), number) for number in numbers])
    assert 0.4 < share < 0.6


def test_a_forgery_and_what_it_was_made_of_never_do() -> None:
    """Their difference would otherwise be whether they were treated at all."""
    assert not any(batched(faces(), number, forged=True) for number in range(60))


def test_full_augmentation_leaves_no_item_as_it_is() -> None:
    assert not any(batched(faces(), number, mild=False) for number in range(40))
    given_faces = faces()
    for seed in range(20):
        out = augment_faces(given_faces, np.random.default_rng(seed))
        full = treat_faces(given_faces, FaceTreatment.draw(np.random.default_rng(seed)))
        np.testing.assert_array_equal(out, full, err_msg="full knows nothing of light")


def test_without_augmentation_every_item_stays_as_it_is() -> None:
    assert all(batched(faces(), number, augment=False, forged=True) for number in range(10))


def test_a_fake_and_its_original_are_both_touched_or_neither() -> None:
    real, fake = faces(), faces()
    fake.crops[:, 20:30] //= 2
    kept = [batched(real, number) for number in range(60)]
    assert kept == [batched(fake, number) for number in range(60)]
    assert 0 < sum(kept) < 60


def test_light_is_a_pure_function_that_leaves_its_input_alone() -> None:
    given_faces = faces(2)
    before = given_faces.crops.copy()
    for seed in range(30):
        out = light(seed, given_faces)
        assert out.shape == before.shape
        assert out.dtype == np.uint8
        assert not np.shares_memory(out, given_faces.crops)
        np.testing.assert_array_equal(out, light(seed, given_faces))
        np.testing.assert_array_equal(given_faces.crops, before)


# -- what is done to them


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_a_lighter_treatment_is_mild(seed: int) -> None:
    full, mild = lighter(seed)
    assert mild == lighter(seed)[1], "the same generator, the same treatment"
    assert mild.cover is None
    assert mild.blur_sigma is None
    assert abs(mild.angle_degrees) <= 5
    assert 0.9 <= mild.scale <= 1.075
    assert 0.875 <= mild.contrast <= 1.125
    assert abs(mild.brightness) <= 10
    assert max(map(abs, mild.tint)) <= 5
    assert 0.75 <= mild.saturation <= 1.25, "nothing becomes gray"
    assert mild.resolution is None or mild.resolution > 0.5
    assert mild.jpeg_quality is None or 60 <= mild.jpeg_quality <= 95
    assert (mild.flip, mild.shift, mild.noise_seed) == (full.flip, full.shift, full.noise_seed)
    for name in ("resolution", "noise_level", "jpeg_quality"):  # it leaves out, it adds nothing
        assert getattr(full, name) is not None or getattr(mild, name) is None


def test_what_wears_texture_away_is_seldom_but_not_never() -> None:
    drawn = [lighter(seed)[1] for seed in range(600)]
    for name, most in (("resolution", 0.2), ("noise_level", 0.2), ("jpeg_quality", 0.4)):
        share = np.mean([getattr(treatment, name) is not None for treatment in drawn])
        assert 0.02 < share < most, name


def test_the_number_of_draws_does_not_depend_on_the_treatment() -> None:
    """What is drawn after it stays in step."""
    after = set()
    for seed in range(40):
        full = FaceTreatment.draw(np.random.default_rng(seed))
        rng = np.random.default_rng(0)
        full.lighter(rng)
        after.add(rng.random())
    assert len(after) == 1


def grain(crops: UInt8) -> float:
    """Mean absolute difference between a pixel and its right neighbour."""
    return float(np.abs(np.diff(crops.astype(float), axis=2)).mean())


def test_light_wears_less_texture_away_than_full() -> None:
    given_faces = faces()
    lost = {False: [], True: []}
    for seed in range(80):
        for mild, values in lost.items():
            out = augment_faces(given_faces, np.random.default_rng(seed), light=mild)
            values.append(abs(1 - grain(out) / grain(given_faces.crops)))
    assert np.mean(lost[True]) < 0.8 * np.mean(lost[False])


def test_all_crops_of_an_item_are_treated_alike() -> None:
    still = FaceCrops(np.repeat(faces().crops, 3, axis=0), np.repeat(MARKS[None], 3, axis=0))
    for seed in range(40):
        if FaceTreatment.draw(np.random.default_rng(seed)).noise_level is None:  # noise is new in every frame
            out = light(seed, still)
            assert (out == out[0]).all()
