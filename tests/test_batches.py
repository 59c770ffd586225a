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
from archive_factory import make_archive
from clips import FIRST_BAND, MOUTH_FRAMES, ToneNetworks, codes_of, make_track, speech, tones

from avdetect.audio import log_mel
from avdetect.config import (
    AudioConfig,
    FaceConfig,
    ModelConfig,
    PairLoopConfig,
    PreprocessConfig,
    StreamLoopConfig,
    SyncConfig,
    TrainConfig,
    VisualConfig,
)
from avdetect.datasets.augment.codecs import through_audio_codec
from avdetect.datasets.crops import FaceCrops
from avdetect.datasets.manifest import validate
from avdetect.errors import ConfigError, ManifestError
from avdetect.model import Model
from avdetect.training import batches as module
from avdetect.training import treatment
from avdetect.training.batches import AudioBatches, VisualBatches
from avdetect.training.joint import CROPS, FACES, JointBatches, JointModel, clip_only, joint_loss
from avdetect.training.lipsync import MOMENTS, STRETCH, SyncBatches
from avdetect.training.pools import Originals, Part, Pool, source_weights
from avdetect.training.streams import make_stage, spec_augment
from avdetect.types import Clip, Float, UInt8, Waveform

CONFIG = PreprocessConfig(faces=FaceConfig(crop_size=32))
PAIRS = PairLoopConfig(batch_size=16, codec=0.0)
SYNC = StreamLoopConfig(batch_size=4, codec=0.0)
MODEL = ModelConfig()
ROWS = [  # (kind, fake, video_fake, audio_fake, dataset, original): luma and tone of a file state its row
    ("clip", 0, 0, 0, "news", ""),
    ("clip", 0, 0, "", "news", ""),
    ("clip", 1, 1, 0, "swaps", "/0"),
    ("clip", 1, "", 1, "dubs", "/0"),
    ("clip", 1, 0, 0, "mismatch", ""),
    ("clip", "", "", "", "unlabelled", ""),
    ("speech", 1, "", 1, "tts", "/7"),
    ("speech", 0, "", 0, "people", ""),
    ("still", 0, 0, "", "photos", ""),
    ("still", 1, 1, "", "gan", ""),
    ("clip", 1, "", "", "contest", "/0"),
]


def luma(row: int) -> int:
    return 20 + 20 * row


def media(row: int, kind: str) -> list[Clip]:
    """All crops of a row have its luma, its tone stands above the voice."""
    track = make_track(np.zeros(60, int), size=32)
    level = np.full_like(track.face_crops, luma(row))
    level[:, :4, :4] = np.arange(len(level), dtype=np.uint8)[:, None, None, None]  # no two moments are alike
    track = dataclasses.replace(track, face_crops=level, mouth_crops=np.full_like(track.mouth_crops, luma(row)))
    wave = Waveform(tones(np.full(63, row))[:40_000])
    return [Clip(0, 2.4, () if kind == "speech" else (track,), None if kind == "still" else wave)]


def table_of(rows=ROWS) -> pd.DataFrame:
    kind, fake, video, audio, dataset, original = zip(*rows, strict=True)
    names = [f"/{i}" for i in range(len(rows))]
    labels = {"kind": kind, "fake": fake, "video_fake": video, "audio_fake": audio}
    places = {"path": names, "group": names, "dataset": dataset, "original": original}
    return validate(pd.DataFrame(labels | places | {"split": "train", "method": "", "fake_segments": ""}))


def part_of(root: Path, clips: list[list[Clip]], table: pd.DataFrame | None = None) -> Part:
    archive = make_archive(root, table_of() if table is None else table, clips, CONFIG)
    return Part(archive, np.arange(len(archive.files)))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    clips = [media(i, row[0]) for i, row in enumerate(ROWS)]
    return part_of(tmp_path_factory.mktemp("archive"), clips)


def spy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the archive's clips that pools give, as they are drawn."""
    rows: list[int] = []
    draw = Pool.draw

    def noted(self: Pool, rng: np.random.Generator) -> int:
        rows.append(draw(self, rng))
        return rows[-1]

    monkeypatch.setattr(Pool, "draw", noted)
    return rows


def assert_pure(make: Callable[[int], Callable]) -> None:
    """make(seed) -> batches."""
    batches, fresh = make(0), make(0)
    one = batches(7)
    batches(3)
    for key, value in one.items():
        assert value.equal(batches(7)[key]), "nothing depends on what was drawn before"
        assert value.equal(fresh(7)[key])
        for parts in (2, 4):
            joined = torch.cat([batches(7, p, parts)[key] for p in range(parts)])
            assert value.equal(joined), "the parts of a step are its joint batch"
    assert any(not v.equal(batches(8)[k]) for k, v in one.items()), "the step counts"
    assert any(not v.equal(make(1)(7)[k]) for k, v in one.items()), "the seed counts"


# -- pools


def test_sources_count_by_the_configured_power_of_their_size() -> None:
    datasets = pd.Series(["big"] * 100 + ["small"] * 4)
    for balance, ratio in ((0.0, 25), (0.5, 5), (1.0, 1)):
        weights = source_weights(datasets, balance)
        assert weights.sum() == pytest.approx(1)
        assert weights[:100].sum() / weights[100:].sum() == pytest.approx(ratio)


def test_fakes_are_drawn_by_generator(part: Part) -> None:
    files = part.archive.files
    usable = part.label("fake")[part.archive.clips["file"].to_numpy()] == 1
    rare = files.index[files["fake"].eq(1).fillna(False)][0]
    archive = copy(part.archive)
    archive.files = files.assign(method=np.where(files.index == rare, "rare", "common"))
    pool, rng = Pool(archive, usable, 1.0, "fakes", fake=True), np.random.default_rng(0)
    drawn = archive.clips["file"].to_numpy()[[pool.draw(rng) for _ in range(2000)]]
    assert 0.45 < (drawn == rare).mean() < 0.55


def test_a_pool_draws_files_by_weight_and_their_clips_alike(part: Part) -> None:
    archive = part.archive
    pool = Pool(archive, np.ones(len(archive.clips), bool), 0.0, "anything")
    rng = np.random.default_rng(0)
    counts = np.bincount([pool.draw(rng) for _ in range(4400)], minlength=len(archive.clips))
    assert counts.min() > 300
    with pytest.raises(ManifestError, match="no ghost"):
        Pool(archive, np.zeros(len(archive.clips), bool), 0.0, "ghost")


def test_an_original_outside_the_part_is_not_looked_at(part: Part) -> None:
    usable = np.ones(len(part.archive.clips), bool)
    assert Originals(part, usable).of(2) == 0
    assert Originals(part, usable).of(4) is None
    assert Originals(Part(part.archive, np.array([1, 2, 3])), usable).of(2) is None
    usable[0] = False
    assert Originals(part, usable).of(2) is None


# -- faces


def test_visual_batches(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = VisualBatches(part, PAIRS, 0)
    batch = batches(0)
    assert batch["crops"].shape == (16, 32, 32, 3)
    assert batch["crops"].dtype == torch.uint8
    assert batch["labels"].tolist() == [1, 0] * 8
    assert_pure(lambda seed: VisualBatches(part, PAIRS, seed))
    drawn = spy(monkeypatch)
    for step in range(30):
        batches(step)
    assert set(drawn) == {0, 1, 2, 4, 8, 9}, "known to be real or forged faces; the voice does not matter"


def test_the_shares_of_a_batch_are_those_of_the_configuration(part: Part) -> None:
    config = dataclasses.replace(PAIRS, batch_size=12, reals_per_fake=3, forged=0.0)
    assert VisualBatches(part, config, 0)(0)["labels"].tolist() == [1, 0, 0, 0] * 3
    plain = VisualBatches(part, config, 0, augment=False)
    for step in range(5):
        batch = plain(step)
        faces = batch["crops"][:, 16, 16, 0]
        assert set(faces[::4].tolist()) <= {luma(2), luma(9)}, "real fakes only"
        assert set(faces[batch["labels"] == 0].tolist()) <= {luma(i) for i in (0, 1, 4, 8)}


def test_a_fake_stands_beside_its_original(part: Part) -> None:
    plain = VisualBatches(part, dataclasses.replace(PAIRS, forged=0.0), 0, augment=False)
    seen = set()
    for step in range(10):
        faces = plain(step)["crops"][:, 16, 16, 0].tolist()
        for fake, real in zip(faces[::2], faces[1::2], strict=True):
            seen.add(fake)
            if fake == luma(2):
                assert real == luma(0)
    assert seen == {luma(2), luma(9)}


def note_treatments(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """(luma, state of the generator) of every augmented face."""
    states: list[tuple[int, str]] = []

    def record(faces: FaceCrops, rng: np.random.Generator, light: bool) -> UInt8:
        states.append((int(faces.crops[0, 16, 16, 0]), str(rng.bit_generator.state)))
        return faces.crops

    monkeypatch.setattr(treatment, "augment_faces", record)
    return states


def test_members_of_a_pair_share_their_treatment(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    states = note_treatments(monkeypatch)
    VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0), 0)(0)
    assert all(a[1] == b[1] for a, b in zip(states[::2], states[1::2], strict=True)), "forgery and its source"
    assert len({state for _, state in states}) == 8
    states.clear()
    batches = VisualBatches(part, dataclasses.replace(PAIRS, forged=0.0), 0)
    for step in range(5):
        batches(step)
    pairs = list(zip(states[::2], states[1::2], strict=True))
    assert all(a[1] == b[1] for a, b in pairs if a[0] == luma(2)), "a fake and its original"
    assert all(a[1] != b[1] for a, b in pairs if a[0] == luma(9)), "strangers are treated each for itself"


def test_forgeries_of_the_configuration_are_made(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    known = dict(module.visual_forgeries.VISUAL)
    for name, forge in known.items():
        monkeypatch.setitem(
            module.visual_forgeries.VISUAL, name, lambda *a, n=name, f=forge: (made.append(n), f(*a))[1]
        )
    VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0, forgeries={"rand_merge": 1, "mouth_swap": 1}), 0)(0)
    assert set(made) == {"rand_merge", "mouth_swap"}
    with pytest.raises(ConfigError, match=r"visual\.forgeries: unknown forgery 'magic'"):
        VisualBatches(part, dataclasses.replace(PAIRS, forgeries={"magic": 1.0}), 0)


def test_a_share_of_the_forgeries_is_given_back(part: Part) -> None:
    config = dataclasses.replace(PAIRS, forged=1.0, reconstructed=0.5)
    asked: list[int] = []

    def reconstruct(crops: UInt8, rng: np.random.Generator) -> UInt8:
        asked.append(int(crops[0, 16, 16, 0]))
        return 255 - crops

    batches = VisualBatches(part, config, 0, augment=False, reconstruct=reconstruct)
    for step in range(10):
        batch = batches(step)
        changed = (batch["crops"][::2] != batch["crops"][1::2]).flatten(1).any(1)
        assert changed.all(), "every forgery differs from its original"
    assert 20 < len(asked) < 60, "about half of eighty"
    assert set(asked) <= {luma(i) for i in (0, 1, 4, 8)}, "real faces only"
    assert_pure(lambda seed: VisualBatches(part, config, seed, reconstruct=lambda crops, rng: 255 - crops))
    asked.clear()
    VisualBatches(part, dataclasses.replace(config, reconstructed=0.0), 0, reconstruct=reconstruct)(0)
    assert not asked
    assert int(batches.real_crop(np.random.default_rng(0))[16, 16, 0]) in {luma(i) for i in (0, 1, 4, 8)}


def test_real_media_alone_is_enough_when_everything_is_forged(part: Part) -> None:
    reals = Part(part.archive, np.array([0, 1, 7, 8]))
    for make in (
        lambda config: VisualBatches(reals, config, 0),
        lambda config: AudioBatches(reals, AudioConfig(), config, 0),
    ):
        assert make(dataclasses.replace(PAIRS, forged=1.0))(0)["labels"].sum() == 8
        with pytest.raises(ManifestError, match="forged: 1"):
            make(PAIRS)


def test_clip_labels_are_taken_only_when_asked_for(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = spy(monkeypatch)
    config = dataclasses.replace(PAIRS, forged=0.0, clip_labels=True)
    batches = VisualBatches(part, config, 0)
    for step in range(20):
        batches(step)
    assert 10 in drawn, "a fake of which only the clip's label is known"
    assert 3 not in drawn, "its voice explains that the clip is fake"


def test_crops_come_from_the_forged_span(tmp_path: Path) -> None:
    rows = [ROWS[0], ("clip", 1, 1, 0, "partial", "/0")]
    clips = [media(0, "clip"), media(1, "clip")]
    track = clips[1][0].tracks[0]
    marked = track.face_crops.copy()
    marked[:] = np.arange(len(marked), dtype=np.uint8)[:, None, None, None] * 10
    clips[1] = [dataclasses.replace(clips[1][0], tracks=(dataclasses.replace(track, face_crops=marked),))]
    table = table_of(rows)
    table["fake_segments"] = pd.Series([(), ((0.75, 1.3),)], dtype=object)
    part = part_of(tmp_path / "a", clips, validate(table))
    plain = VisualBatches(part, dataclasses.replace(PAIRS, forged=0.0), 0, augment=False)
    seen = {int(v) for step in range(5) for v in plain(step)["crops"][::2, 0, 0, 0]}
    times = track.face_frames / 25
    assert seen == {10 * i for i in np.flatnonzero((times >= 0.75) & (times <= 1.3)).tolist()}


def test_a_span_between_two_crops_is_not_drawn_from(tmp_path: Path) -> None:
    """Taken from anywhere else in the clip, a genuine crop would be called fake."""
    table = table_of([ROWS[0], ("clip", 1, 1, 0, "partial", "/0")])
    table["fake_segments"] = pd.Series([(), ((0.05, 0.15),)], dtype=object)
    part = part_of(tmp_path / "a", [media(0, "clip"), media(1, "clip")], validate(table))
    with pytest.raises(ManifestError, match="no forged face"):
        VisualBatches(part, PAIRS, 0)


def test_a_real_face_is_never_its_own_donor(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    donors = []
    forge = module.visual_forgeries.VISUAL["rand_merge"]

    def noted(faces: FaceCrops, rng: np.random.Generator, given):
        donors.append((int(faces.crops[0, 16, 16, 0]), int(given.other.crops[0, 16, 16, 0])))
        return forge(faces, rng, given)

    monkeypatch.setitem(module.visual_forgeries.VISUAL, "rand_merge", noted)
    VisualBatches(part, dataclasses.replace(PAIRS, forged=1.0, forgeries={"rand_merge": 1.0}), 0)(0)
    assert len(donors) == 8
    assert all(face != donor for face, donor in donors)
    alone = Part(part.archive, np.array([0]))
    with pytest.raises(ConfigError, match="single picture"):
        VisualBatches(alone, dataclasses.replace(PAIRS, forged=1.0, forgeries={"rand_merge": 1.0}), 0)(0)


def test_batches_that_cannot_be_shared_are_refused(part: Part) -> None:
    with pytest.raises(ConfigError, match="batch_size or accumulate"):
        VisualBatches(part, PAIRS, 0)(0, 0, 3)


# -- voices


def test_audio_batches(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    make = lambda seed: AudioBatches(part, AudioConfig(), PAIRS, seed)  # noqa: E731
    batch = make(0)(0)
    assert batch["mels"].shape == (16, 200, 80)
    assert batch["mels"].dtype == torch.float32
    assert batch["labels"].tolist() == [1, 0] * 8
    assert_pure(make)
    drawn = spy(monkeypatch)
    batches = make(0)
    for step in range(5):
        batches(step)
    assert set(drawn) == {0, 2, 3, 4, 6, 7}


def test_a_synthetic_voice_stands_beside_its_original(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []

    def record(samples: Float, rng: np.random.Generator) -> Float:
        states.append(str(rng.bit_generator.state))
        return samples

    monkeypatch.setattr(treatment, "augment_voice", record)
    batches = AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0)
    sounds = {row: media(row, "speech")[0].waveform.samples for row in (0, 3, 6, 7)}
    expected = {row: int(log_mel(sound).mean(0)[FIRST_BAND:].argmax()) for row, sound in sounds.items()}
    for step in range(3):
        bands = batches(step)["mels"].mean(1)[:, FIRST_BAND:].argmax(1).tolist()
        for fake, real in zip(bands[::2], bands[1::2], strict=True):
            assert (fake, real) in {(expected[3], expected[0]), (expected[6], expected[7])}
    assert all(a == b for a, b in zip(states[::2], states[1::2], strict=True))


def long_voice(spans: tuple[tuple[float, float], ...], root: Path) -> tuple[AudioBatches, np.ndarray]:
    """A 20 s file in two clips with forged spans, beside a real one; and which sample of the file is forged."""
    table = table_of([("speech", 0, "", 0, "people", ""), ("speech", 1, "", 1, "partial", "")])
    table["fake_segments"] = pd.Series([(), spans], dtype=object)
    sound = speech(20.0)
    clips = [[Clip(0, 12, (), Waveform(sound[:192_000])), Clip(12, 8, (), Waveform(sound[192_000:], 12.0))]] * 2
    part = part_of(root, clips, validate(table))
    forged = np.zeros(320_000, bool)
    for a, b in spans:
        forged[round(a * 16_000) : round(b * 16_000)] = True
    return AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0, augment=False), forged


@pytest.mark.parametrize("spans", [((4.0, 5.0),), ((4.0, 4.3), (15.0, 19.0)), ((11.0, 13.0),)])
def test_every_fake_window_holds_forged_sound(spans, tmp_path: Path) -> None:
    """Spans beside the clip, and windows that only begin with the span, made genuine sound fake."""
    batches, forged = long_voice(spans, tmp_path / "a")
    assert batches.fake is not None
    rng = np.random.default_rng(0)
    before = 0
    for _ in range(300):
        window = batches._window(batches.fake.draw(rng), rng, forged=True)
        first = round(window.start_seconds * 16_000)
        held = forged[first : first + len(window.samples)]
        assert held.sum() >= min(8000, round(min(b - a for a, b in spans) * 16_000))
        before += not held[0]
    assert before > 30, "windows also begin before a span: its onset is heard"


def test_short_and_partly_silent_recordings_fill_the_window(tmp_path: Path) -> None:
    clips = [media(i, row[0]) for i, row in enumerate(ROWS)]
    partly = np.zeros(80_000, np.float32)
    partly[:8000] = speech(0.5)

    def sound(row: int, samples: Float | None) -> None:
        wave = None if samples is None else Waveform(samples)
        clips[row] = [dataclasses.replace(clips[row][0], waveform=wave)]

    sound(7, speech(0.6))
    sound(6, partly)
    sound(3, speech(0.4))  # too short to be used
    sound(0, np.zeros(40_000, np.float32))
    sound(2, None)
    sound(4, None)
    batches = AudioBatches(part_of(tmp_path / "a", clips), AudioConfig(), PAIRS, 0)
    assert len(batches.real.clips) == 1
    assert batches.fake is not None
    assert len(batches.fake.clips) == 1
    assert torch.isfinite(batches(0)["mels"]).all()
    plain = AudioBatches(batches.part, AudioConfig(), dataclasses.replace(PAIRS, forged=0.0), 0, augment=False)
    mel = plain(0)["mels"][1]
    torch.testing.assert_close(mel[5:55], mel[65:115], atol=1e-3, rtol=0)  # 0.6 s are repeated


def test_codecs_are_used_as_often_as_configured(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def codec(samples: Float, how) -> Float:
        used.append(how)
        return samples

    monkeypatch.setattr(treatment, "through_audio_codec", codec)
    batches = AudioBatches(part, AudioConfig(), dataclasses.replace(PAIRS, codec=0.5), 0)
    for step in range(20):
        batches(step)
    assert 0.35 < len(used) / 320 < 0.65
    assert len({c.name for c in used}) == 3
    monkeypatch.undo()
    sound = speech(0.5)
    assert through_audio_codec(sound, used[0]).shape == sound.shape


# -- lip-sync


def test_sync_batches_come_from_real_clips_only(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = SyncBatches(part, MODEL, SYNC, 0)(0)
    assert batch["mouths"].shape == (4, 50, 64, 64)
    assert batch["mels"].shape == (4, 200, 80)
    assert batch["there"].all()
    assert batch["voiced"].all()
    assert_pure(lambda seed: SyncBatches(part, MODEL, SYNC, seed))
    drawn = spy(monkeypatch)
    for step in range(10):
        SyncBatches(part, MODEL, SYNC, 0)(step)
    assert set(drawn) == {0, 1}


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


def test_no_clip_stands_twice_in_a_sync_batch(part: Part) -> None:
    batches = SyncBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=2), 0)
    assert all(set(batches._chosen(step)) == {0, 1} for step in range(20))


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


@pytest.mark.parametrize(("face_from", "sound_from"), [(0, 0), (6, 0), (0, 9), (30, 22), (250, 250)])
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


@pytest.mark.parametrize(("seconds", "frames"), [(1.12, 28), (1.16, 29), (2.0, 50), (4.0, STRETCH), (9.0, STRETCH)])
def test_a_stretch_is_as_long_as_a_window_of_speech(part: Part, seconds: float, frames: int) -> None:
    model = dataclasses.replace(MODEL, audio=AudioConfig(window_seconds=seconds))
    batch = SyncBatches(part, model, SYNC, 0)(0)
    assert batch["mouths"].shape[:2] == batch["there"].shape == batch["voiced"].shape == (4, frames)
    assert batch["mels"].shape == (4, round(seconds * 100), 80)
    assert batch["there"].sum(1).tolist() == [min(frames, 60)] * 4, "the clips are 60 frames long"


def test_windows_of_speech_that_are_too_short_for_lip_sync_are_refused(part: Part) -> None:
    model = dataclasses.replace(MODEL, audio=AudioConfig(window_seconds=1.0))
    with pytest.raises(ConfigError, match=r"at least 1\.12 s.*window_seconds is 1: raise it, or set sync\.steps: 0"):
        SyncBatches(part, model, SYNC, 0)


@pytest.mark.parametrize("encoder", ["cnn", "whisper-tiny.en"])
def test_sync_training_moves_both_towers_and_not_the_speech_encoder(part: Part, encoder: str) -> None:
    audio = AudioConfig(encoder=encoder, channels=(4, 4), embedding=4, levels=("stem", "blocks.0"))
    sync = SyncConfig(embedding=4, channels=(4, 4, 4, 4))
    config = TrainConfig(
        model=ModelConfig(visual=VisualConfig(encoder="test_efficientnet"), audio=audio, sync=sync), sync=SYNC
    )
    model = Model(config.model)
    stage = make_stage("sync", model, config, part)
    stage.loss(0.0)(stage.module.train(), stage.batches(0, 0, 1)).backward()
    assert all(p.grad is not None for p in model.sync.parameters())
    assert all(p.grad is None for p in (*model.speech.parameters(), *model.audio.parameters()))
    assert {id(p) for p in stage.module.parameters()} == {id(p) for p in model.sync.parameters()}


def test_a_class_without_examples_is_named(part: Part) -> None:
    with pytest.raises(ManifestError, match="no forged voice"):
        AudioBatches(Part(part.archive, np.array([0, 2, 7])), AudioConfig(), PAIRS, 0)
    with pytest.raises(ManifestError, match="no real face"):
        VisualBatches(Part(part.archive, np.array([2])), PAIRS, 0)


# -- clips of which only `fake` is known


def test_joint_batches_pair_clip_only_fakes_with_reals(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.flatnonzero(clip_only(part)).tolist() == [10]
    config = dataclasses.replace(SYNC, batch_size=8)
    make = lambda seed: JointBatches(part, MODEL, config, seed)  # noqa: E731
    batch = make(0)(0)
    assert batch["crops"].shape == (8, FACES, CROPS, 32, 32, 3)
    assert batch["has_face"].tolist() == [[True, False]] * 8
    assert batch["mels"].shape == (8, 200, 80)
    assert batch["has_voice"].all()
    assert batch["mouths"].shape == (8, MOMENTS + MOUTH_FRAMES - 1, 64, 64)
    assert batch["voices"].shape == (8, 200, 80)
    assert batch["heard"].shape == (8, MOMENTS)
    assert batch["heard"].all()
    assert batch["labels"].tolist() == [1, 0] * 4
    originals = make(0).archive.faces(0, 0, [0]).crops[0, 16, 16, 0]
    plain = JointBatches(part, MODEL, config, 0, augment=False)(0)
    assert (plain["crops"][1::2, 0, :, 16, 16, 0] == int(originals)).all(), "each beside its original"
    assert not JointBatches(part, MODEL, config, 0, match=False)(0)["heard"].any()
    assert_pure(make)


def test_what_a_clip_lacks_is_no_instance(tmp_path: Path) -> None:
    clips = [media(0, "clip"), media(1, "still"), media(2, "speech")]
    rows = [ROWS[0], ("clip", 1, "", "", "contest", ""), ("clip", 1, "", "", "contest", "")]
    part = part_of(tmp_path / "a", clips, table_of(rows))
    batches = JointBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=16), 0, augment=False)
    batch = batches(0)
    for face, voice, heard in zip(batch["has_face"][::2, 0], batch["has_voice"][::2], batch["heard"][::2], strict=True):
        assert bool(face) != bool(voice)
        assert not heard.any()


def joint_model() -> JointModel:
    torch.manual_seed(0)
    model = Model(
        ModelConfig(
            visual=VisualConfig(encoder="test_efficientnet"),
            audio=AudioConfig(channels=(4, 4), embedding=4),
            sync=SyncConfig(embedding=4, channels=(4, 4, 4, 4)),
        )
    )
    joint = JointModel(model.visual, model.speech, model.audio, model.sync)
    joint.train()
    return joint


def test_joint_training_moves_face_and_voice_but_not_the_lips(part: Part) -> None:
    joint = joint_model()
    assert not joint.sync.training
    batch = JointBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=4), 0)(0)
    logits, present = joint(batch)
    assert logits.shape == present.shape == (4, FACES + 2)
    assert present.tolist() == [[True, False, True, True]] * 4
    joint_loss(joint, batch, 0.01).backward()
    moved = {n.split(".")[0] for n, p in joint.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"visual", "audio", "match"}


def test_what_is_not_there_goes_through_no_network(part: Part) -> None:
    """Blank pictures in the place of absent faces once stood in the batch statistics."""
    joint = joint_model()
    batch = JointBatches(part, MODEL, dataclasses.replace(SYNC, batch_size=4), 0)(0)
    seen: list[int] = []
    joint.visual.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    joint(batch)
    assert seen == [4 * CROPS]
    nothing = {key: torch.zeros_like(value) for key, value in batch.items()}
    _, present = joint(nothing)
    assert not present.any()
    assert seen == [4 * CROPS]
    assert joint_loss(joint, nothing, 0.01).item() == 0


def test_the_joint_loss_learns_which_face_is_fake() -> None:
    """Clips of two faces, of which the bright one is forged; only the clip's label is told."""
    torch.manual_seed(0)

    class Brightness(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(1, 1)

        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            return self.line(crops.float().mean((1, 2, 3))[:, None] / 64 - 2).squeeze(1)

    class Silence(torch.nn.Module):
        def forward(self, mels: torch.Tensor) -> torch.Tensor:
            return mels.sum((1, 2)) * 0

    joint = JointModel(Brightness(), torch.nn.Identity(), Silence(), torch.nn.Identity())
    rng = np.random.default_rng(0)
    labels = torch.tensor([1.0, 0.0] * 16)
    levels = rng.integers(20, 90, (32, FACES))
    levels[::2, 0] = rng.integers(180, 250, 16)
    crops = torch.from_numpy(np.broadcast_to(levels[:, :, None, None, None, None], (32, FACES, CROPS, 8, 8, 3)).copy())
    batch = {
        "crops": crops.to(torch.uint8),
        "has_face": torch.ones(32, FACES, dtype=torch.bool),
        "mels": torch.zeros(32, 4, 80),
        "has_voice": torch.zeros(32, dtype=torch.bool),
        "mouths": torch.zeros(32, MOMENTS, 1),
        "voices": torch.zeros(32, MOMENTS, 1),
        "heard": torch.zeros(32, MOMENTS, dtype=torch.bool),
        "labels": labels,
    }
    optimizer = torch.optim.Adam(joint.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        joint_loss(joint, batch, 0.0).backward()
        optimizer.step()
    logits, _ = joint(batch)
    assert (logits[::2, 0] > 1).all(), "the forged face of a fake clip"
    assert (logits[::2, 1] < -1).all(), "its genuine neighbour"
    assert (logits[1::2, :FACES] < -1).all()
