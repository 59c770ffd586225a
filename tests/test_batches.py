"""Batches: pure functions of the step, of the right classes, fakes beside their originals under one treatment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clips import FIRST_BAND, MOUTH_FRAMES, ToneNetworks, codes_of, make_track, speech, tones
from part_factory import MODEL, PAIRS, ROWS, SYNC, assert_pure, luma, media, part, part_of, spy, table_of  # noqa: F401  # some are fixtures

from avdetect.audio import log_mel
from avdetect.config import AudioConfig
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.manifest import validate
from avdetect.errors import ConfigError, ManifestError
from avdetect.training import batches as batches_module
from avdetect.training import lipsync, sampling
from avdetect.training.batches import AudioBatches, VisualBatches
from avdetect.training.lipsync import MOMENTS, SyncBatches
from avdetect.training.sampling import Draws, Originals, Subset, source_weights
from avdetect.training.streams import spec_augment
from avdetect.types import Clip, Float, UInt8, Waveform

FEW = dataclasses.replace(PAIRS, batch_size=4)
SPLICED = dataclasses.replace(PAIRS, forgeries={"splice": 1.0})  # the vocoders take their time
MASKS: dict[bytes, np.ndarray] = {}


@pytest.fixture(autouse=True)
def speech_is_found_once_in_the_same_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is most of what a batch of voices costs."""
    find = batches_module.speech_mask

    def mask(samples: Float) -> np.ndarray:
        key = samples.tobytes()
        if key not in MASKS:
            MASKS[key] = find(samples)
        return MASKS[key]

    for module in (batches_module, lipsync):
        monkeypatch.setattr(module, "speech_mask", mask)


def every_step(make: Callable[[int], dict], steps: int) -> list[dict]:
    return [make(step) for step in range(steps)]


def test_sources_and_generators_count_by_the_configured_power_of_their_size(part: Subset) -> None:
    datasets = pd.Series(["big"] * 100 + ["small"] * 4)
    for balance, ratio in ((0.0, 25), (0.5, 5), (1.0, 1)):
        weights = source_weights(datasets, balance)
        assert weights.sum() == pytest.approx(1)
        assert weights[:100].sum() / weights[100:].sum() == pytest.approx(ratio)
    files = part.archive.files
    usable = part.label("fake")[part.archive.clips["file"].to_numpy()] == 1
    rare = files.index[files["fake"].eq(1).fillna(False)][0]
    archive = copy(part.archive)
    archive.files = files.assign(method=np.where(files.index == rare, "rare", "common"))
    draws, rng = Draws(archive, usable, 1.0, "fakes", fake=True), np.random.default_rng(0)
    drawn = archive.clips["file"].to_numpy()[[draws.draw(rng) for _ in range(2000)]]
    assert 0.45 < (drawn == rare).mean() < 0.55
    with pytest.raises(ManifestError, match="no ghost"):
        Draws(archive, np.zeros(len(archive.clips), bool), 0.0, "ghost")


def test_an_original_outside_the_part_is_not_looked_at(part: Subset) -> None:
    usable = np.ones(len(part.archive.clips), bool)
    assert Originals(part, usable).of(2) == 0
    assert Originals(part, usable).of(4) is None
    assert Originals(Subset(part.archive, np.array([1, 2, 3])), usable).of(2) is None
    usable[0] = False
    assert Originals(part, usable).of(2) is None


def test_visual_batches(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = VisualBatches(part, PAIRS, 0)
    batch = batches(0)
    assert batch["crops"].shape == (16, 32, 32, 3)
    assert batch["crops"].dtype == torch.uint8
    assert batch["labels"].tolist() == [1, 0] * 8
    threes = dataclasses.replace(PAIRS, batch_size=12, reals_per_fake=3)
    assert VisualBatches(part, threes, 0)(0)["labels"].tolist() == [1, 0, 0, 0] * 3
    with pytest.raises(ConfigError, match="batch_size or accumulate"):
        VisualBatches(part, threes, 0)(0, 0, 2)
    assert_pure(lambda seed: VisualBatches(part, dataclasses.replace(PAIRS, batch_size=8), seed))
    drawn = spy(monkeypatch)
    every_step(batches, 8)
    assert set(drawn) == {0, 1, 2, 4, 8, 9}, "known to be real or forged faces; the voice does not matter"
    every_step(VisualBatches(part, dataclasses.replace(PAIRS, forged=0.0, clip_labels=True), 0), 10)
    assert 10 in drawn, "a fake of which only the clip's label is known"
    assert 3 not in drawn, "its voice explains that the clip is fake"


def test_members_of_a_pair_share_their_treatment(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[tuple[int, str]] = []  # luma and state of the generator of every augmented face

    def record(faces: FaceCrops, rng: np.random.Generator, light: bool) -> UInt8:
        states.append((int(faces.crops[0, 16, 16, 0]), str(rng.bit_generator.state)))
        return faces.crops

    monkeypatch.setattr(sampling, "augment_faces", record)
    VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0), 0)(0)
    assert all(a[1] == b[1] for a, b in zip(states[::2], states[1::2], strict=True)), "forgery and its source"
    assert len({state for _, state in states}) == 8
    states.clear()
    every_step(VisualBatches(part, dataclasses.replace(PAIRS, forged=0.0), 0), 5)
    pairs = list(zip(states[::2], states[1::2], strict=True))
    assert {a[0] for a, _ in pairs} == {luma(2), luma(9)}
    assert all(b[0] == luma(0) and a[1] == b[1] for a, b in pairs if a[0] == luma(2)), "a fake and its original"
    assert all(a[1] != b[1] for a, b in pairs if a[0] == luma(9)), "strangers are treated each for itself"


def test_real_media_alone_is_enough_when_everything_is_forged(part: Subset) -> None:
    reals = Subset(part.archive, np.array([0, 1, 7, 8]))
    for config, make in (
        (PAIRS, lambda config: VisualBatches(reals, config, 0)),
        (SPLICED, lambda config: AudioBatches(reals, AudioConfig(), config, 0)),
    ):
        assert make(dataclasses.replace(config, forged=1.0))(0)["labels"].sum() == 8
        with pytest.raises(ManifestError, match="forged: 1"):
            make(config)


def test_crops_come_from_the_forged_span(tmp_path: Path) -> None:
    """Taken from anywhere else in the clip, a genuine crop would be called fake."""
    (clip,) = media(1, "clip")
    track = clip.tracks[0]
    number = np.arange(len(track.face_crops), dtype=np.uint8)[:, None, None, None]
    marked = dataclasses.replace(track, face_crops=np.broadcast_to(10 * number, track.face_crops.shape).copy())
    clips = [media(0, "clip"), [dataclasses.replace(clip, tracks=(marked,))]]
    table = table_of([ROWS[0], ("clip", 1, 1, 0, "partial", "/0")])
    config = dataclasses.replace(PAIRS, forged=0.0)

    def batches_of(name: str, span: tuple[float, float]) -> VisualBatches:
        segments = pd.Series([(), (span,)], dtype=object)
        part = part_of(tmp_path / name, clips, validate(table.assign(fake_segments=segments)))
        return VisualBatches(part, config, 0, augment=False)

    plain = batches_of("a", (0.75, 1.3))
    seen = {int(v) for step in range(5) for v in plain(step)["crops"][::2, 0, 0, 0]}
    times = track.face_frames / 25
    assert seen == {10 * i for i in np.flatnonzero((times >= 0.75) & (times <= 1.3)).tolist()}
    with pytest.raises(ManifestError, match="no forged face"):
        batches_of("b", (0.05, 0.15))  # between two crops


def test_a_face_without_another_moment_needs_a_method_without(tmp_path: Path) -> None:
    short = [Clip(0, 0.4, (make_track(np.zeros(10, int), size=32),), None)]
    part = part_of(tmp_path / "a", [short], table_of(ROWS[:1]))
    with pytest.raises(ConfigError, match=r"visual\.forgeries: unknown forgery 'magic'"):
        VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0, forgeries={"magic": 1.0}), 0)
    with pytest.raises(ConfigError, match="single picture"):
        VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0, forgeries={"mouth_swap": 1.0}), 0)(0)


def test_audio_batches(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = AudioBatches(part, AudioConfig(), SPLICED, 0)(0)
    assert batch["mels"].shape == (16, 200, 80)
    assert batch["mels"].dtype == torch.float32
    assert batch["labels"].tolist() == [1, 0] * 8
    few = dataclasses.replace(SPLICED, batch_size=8)
    assert_pure(lambda seed: AudioBatches(part, AudioConfig(), few, seed))
    drawn = spy(monkeypatch)
    every_step(AudioBatches(part, AudioConfig(), SPLICED, 0), 4)
    assert set(drawn) == {0, 2, 3, 4, 6, 7}


def test_a_synthetic_voice_stands_beside_its_original(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []

    def record(samples: Float, rng: np.random.Generator) -> Float:
        states.append(str(rng.bit_generator.state))
        return samples

    monkeypatch.setattr(sampling, "augment_voice", record)
    batches = AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0)
    sounds = {row: media(row, "speech")[0].waveform.samples for row in (0, 3, 6, 7)}
    expected = {row: int(log_mel(sound).mean(0)[FIRST_BAND:].argmax()) for row, sound in sounds.items()}
    for step in range(3):
        bands = batches(step)["mels"].mean(1)[:, FIRST_BAND:].argmax(1).tolist()
        for fake, real in zip(bands[::2], bands[1::2], strict=True):
            assert (fake, real) in {(expected[3], expected[0]), (expected[6], expected[7])}
    assert all(a == b for a, b in zip(states[::2], states[1::2], strict=True))


@pytest.mark.parametrize("spans", [((4.0, 4.3), (15.0, 19.0)), ((11.0, 13.0),)])
def test_every_fake_window_holds_forged_sound(spans, tmp_path: Path) -> None:
    """In a file of two clips. Spans beside the clip, and windows that only begin with the span, made genuine sound
    fake."""
    table = table_of([("speech", 0, "", 0, "people", ""), ("speech", 1, "", 1, "partial", "")])
    table["fake_segments"] = pd.Series([(), spans], dtype=object)
    sound, forged = speech(20.0), np.zeros(320_000, bool)
    for a, b in spans:
        forged[round(a * 16_000) : round(b * 16_000)] = True
    clips = [[Clip(0, 12, (), Waveform(sound[:192_000])), Clip(12, 8, (), Waveform(sound[192_000:], 12.0))]] * 2
    part = part_of(tmp_path / "a", clips, validate(table))
    batches = AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0, augment=False)
    rng, before = np.random.default_rng(0), 0
    for _ in range(40):
        window = batches._window(batches.fake.draw(rng), rng, forged=True)
        first = round(window.start_seconds * 16_000)
        held = forged[first : first + len(window.samples)]
        assert held.sum() >= min(8000, round(min(b - a for a, b in spans) * 16_000))
        before += not held[0]
    assert before > 4, "windows also begin before a span: its onset is heard"


def test_the_head_sees_stretches_of_voices_that_are_fake_or_real_from_end_to_end(part: Subset) -> None:
    audio = AudioConfig("whisper-tiny.en", frozen=True, window_seconds=2.0, stretch_seconds=0.5)
    plain = dataclasses.replace(PAIRS, forged=0.0, batch_size=8)
    stretches = torch.cat([AudioBatches(part, audio, plain, 0)(step)["stretches"] for step in range(6)])
    first, end = stretches.T
    assert 0 <= first.min() <= end.max() <= 200
    lengths = end - first
    assert (50 <= lengths.min() < 80, lengths.max() > 140) == (True, True), "from the shortest to the whole window"
    fakes, originals = stretches[::2], stretches[1::2]
    assert torch.equal(fakes, originals), "a fake and its original are cut alike"
    assert_pure(lambda seed: AudioBatches(part, audio, plain, seed))
    with pytest.raises(ManifestError, match="fake in part"):
        AudioBatches(part, audio, SPLICED, 0)
    part.archive.files["fake_segments"] = pd.Series([((0.5, 1.0),)] * len(part.archive.files), dtype=object)
    with pytest.raises(ManifestError, match="stretch_seconds to null"):
        AudioBatches(part, audio, plain, 0)


def test_short_and_partly_silent_recordings_fill_the_window(tmp_path: Path) -> None:
    partly = np.concatenate([speech(0.5), np.zeros(72_000, np.float32)])
    sounds = {7: speech(0.6), 6: partly, 3: speech(0.4), 0: np.zeros(40_000, np.float32), 2: None, 4: None}
    clips = [media(i, row[0]) for i, row in enumerate(ROWS)]
    for row, samples in sounds.items():  # 0.4 s are too short to be used
        wave = None if samples is None else Waveform(samples)
        clips[row] = [dataclasses.replace(clips[row][0], waveform=wave)]
    part = part_of(tmp_path / "a", clips)
    batches = AudioBatches(part, AudioConfig(), SPLICED, 0)
    assert len(batches.real.clips) == len(batches.fake.clips) == 1
    assert torch.isfinite(batches(0)["mels"]).all()
    plain = AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0, augment=False)
    mel = plain(0)["mels"][1]
    torch.testing.assert_close(mel[5:55], mel[65:115], atol=1e-3, rtol=0)  # 0.6 s are repeated


def test_codecs_are_used_as_often_as_configured(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def codec(samples: Float, how) -> Float:
        used.append(how)
        return samples

    monkeypatch.setattr(sampling, "through_audio_codec", codec)
    every_step(AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, codec=0.5, forged=0.0), 0), 4)
    assert 0.35 < len(used) / 64 < 0.65
    assert len({c.name for c in used}) == 3


def test_sync_batches_come_from_real_clips_only(part: Subset, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = SyncBatches(part, MODEL, SYNC, 0)(0)
    assert batch["mouths"].shape == (4, 50, 64, 64)
    assert batch["mels"].shape == (4, 200, 80)
    assert batch["there"].all()
    assert batch["voiced"].all()
    assert_pure(lambda seed: SyncBatches(part, MODEL, SYNC, seed))
    drawn = spy(monkeypatch)
    every_step(SyncBatches(part, MODEL, SYNC, 0), 4)
    assert set(drawn) == {0, 1}
    two = SyncBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=2), 0)
    assert all(set(two._chosen(step)) == {0, 1} for step in range(9)), "no file twice"
    short = dataclasses.replace(MODEL, audio=AudioConfig(window_seconds=1.0))
    with pytest.raises(ConfigError, match=r"at least 1\.12 s.*window_seconds is 1: raise it, or set sync\.steps: 0"):
        SyncBatches(part, short, SYNC, 0)
    least = dataclasses.replace(MODEL, audio=AudioConfig(window_seconds=1.12))
    assert SyncBatches(part, least, SYNC, 0)(0)["mouths"].shape[1] == 28


def test_pairs_are_masked_alike() -> None:
    """SpecAugment: a fake, its original and the reals beside them lose the same bands and times."""
    torch.manual_seed(0)
    mels = torch.rand(12, 200, 80) + 1
    masked = spec_augment(mels, 3)
    gone = (masked == 0).view(4, 3, 200, 80)
    assert gone.flatten(1).any(1).all()
    for group in gone:
        assert group[0].equal(group[1])
        assert group[0].equal(group[2])
    assert not gone[0, 0].equal(gone[1, 0]), "groups are masked each for itself"
    kept = masked != 0
    centred = mels - mels.mean((1, 2), keepdim=True)
    torch.testing.assert_close(masked[kept], centred[kept])


def test_sync_batches_need_one_face_and_enough_of_it(tmp_path: Path) -> None:
    table = table_of(ROWS[:2])
    first, second = (media(i, "clip")[0] for i in range(2))
    two = dataclasses.replace(first, tracks=(*first.tracks, make_track(np.zeros(40, int), track_id=2, size=32)))
    short = dataclasses.replace(second, tracks=(make_track(np.zeros(27, int), size=32),))
    enough = dataclasses.replace(second, tracks=(make_track(np.zeros(28, int), size=32),))
    with pytest.raises(ManifestError, match="clip with a face and its own voice"):
        SyncBatches(part_of(tmp_path / "a", [[two], [short]], table), MODEL, SYNC, 0)
    one = dataclasses.replace(SYNC, batch_size=1)
    batch = SyncBatches(part_of(tmp_path / "b", [[two], [enough]], table), MODEL, one, 0, augment=False)(0)
    assert batch["there"][0].tolist() == [True] * 28 + [False] * 22
    assert batch["mouths"][0, 28:].equal(batch["mouths"][0, :22]), "repeated: blank ones would stand in the statistics"


@pytest.mark.parametrize(("face_from", "sound_from"), [(0, 9), (30, 22)])
def test_sync_batches_join_the_picture_and_the_sound_of_one_moment(
    face_from: int, sound_from: int, tmp_path: Path
) -> None:
    codes = codes_of(100, 4)
    begin = min(face_from, sound_from)
    faces = make_track(codes[face_from - begin :][:50], face_from, size=32)
    clip = Clip(begin / 25, 4, (faces,), Waveform(tones(codes[sound_from - begin :][:55]), sound_from / 25))
    part = part_of(tmp_path / "a", [[clip]], table_of(ROWS[:1]))
    batches = SyncBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=1), 0, augment=False)
    networks = ToneNetworks()
    for step in range(8):
        batch = batches(step)
        mouth, voice = networks.mouth(batch["mouths"].numpy())[0], networks.voice(batch["mels"].numpy()[:, :, None])[0]
        edge = MOUTH_FRAMES // 2
        there = batch["there"][0, edge:-edge].numpy()
        assert there.sum() >= MOMENTS
        agree = (mouth * voice[edge : 50 - edge]).sum(1)[there]
        assert (agree > 0.99).mean() > 0.9, "frames at the edge of the cut may lose a tone"
