"""Training: exact resume, no unknown label, balanced batches, and a calibration that was fitted on other groups."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clips import make_track, speech, talking_clip
from torch import nn

from avdetect.bundle import Calibration
from avdetect.config import AudioConfig, FaceConfig, FusionConfig, LoopConfig, ModelConfig, SyncConfig, VisualConfig
from avdetect.datasets.manifest import fold_of, validate
from avdetect.errors import ManifestError
from avdetect.pooling import FEATURES, NUM_VALUES, fusion_features
from avdetect.scoring import SYNC_FRAMES, SYNC_MELS
from avdetect.training import fusion as fusion_training
from avdetect.training.batches import AudioBatches, SyncBatches, VisualBatches, main_track, source_weights
from avdetect.training.fusion import _best_threshold, class_weights, fit_and_calibrate, label_matrix, logits_of
from avdetect.training.loop import fit, learning_rate
from avdetect.training.losses import contrastive_sync, masked_bce
from avdetect.types import Clip, Waveform

torch.set_num_threads(1)  # networks this small only wait for a second thread
LOOP = LoopConfig(steps=6, batch_size=8, lr=0.05, warmup_steps=2, checkpoint_every=3)


# -- the loop


class Sample(nn.Module):
    """Everything that carries state from step to step: dropout's generator, batch statistics, Adam's moments."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).squeeze(1)


def make_batch(step: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng((5, step))
    x = rng.standard_normal((8, 3)).astype(np.float32)
    return {"x": torch.from_numpy(x), "labels": torch.from_numpy((x[:, 0] > 0).astype(np.float32))}


def loss_of(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return masked_bce(module(batch["x"]), batch["labels"], 0.0)


def train(checkpoint: Path, config: LoopConfig = LOOP, batches=make_batch, workers: int = 0) -> nn.Module:
    """As a new process would: a fresh module, and a random state that has been used for something else."""
    torch.manual_seed(0)
    module = Sample()
    torch.rand(int.from_bytes(checkpoint.name.encode()[:1], "big"))
    return fit(module, batches, loss_of, config, seed=3, checkpoint=checkpoint, name="t", workers=workers)


class Killed(Exception):
    pass


def dies_at(step: int):
    def batches(number: int) -> dict[str, torch.Tensor]:
        if number == step:
            raise Killed
        return make_batch(number)

    return batches


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("killed_at", [3, 4, 5])
def test_a_killed_run_goes_on_exactly(tmp_path: Path, killed_at: int) -> None:
    straight = train(tmp_path / "a.ckpt")
    with pytest.raises(Killed):
        train(tmp_path / "b.ckpt", batches=dies_at(killed_at))
    assert (tmp_path / "b.ckpt").exists()
    assert len((tmp_path / "b.csv").read_text().splitlines()) == killed_at + 1
    resumed = train(tmp_path / "b.ckpt", batches=lambda s: make_batch(s) if s >= 3 else pytest.fail("step done twice"))
    assert_equal(straight, resumed)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    saved = [torch.load(tmp_path / f"{n}.ckpt", weights_only=True) for n in "ab"]
    torch.testing.assert_close(saved[0], saved[1], atol=0, rtol=0)
    assert saved[0]["step"] == 6


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    done = train(tmp_path / "a.ckpt")
    log = (tmp_path / "a.csv").read_text()
    again = train(tmp_path / "a.ckpt", batches=lambda _: pytest.fail("trained again"))
    assert_equal(done, again)
    shorter = train(tmp_path / "a.ckpt", dataclasses.replace(LOOP, steps=4), lambda _: pytest.fail("trained again"))
    assert_equal(done, shorter)
    assert (tmp_path / "a.csv").read_text() == log


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    assert_equal(train(tmp_path / "a.ckpt"), train(tmp_path / "b.ckpt", workers=1))


def test_training_learns_and_returns_the_average(tmp_path: Path) -> None:
    config = dataclasses.replace(LOOP, steps=150, checkpoint_every=150)
    module = train(tmp_path / "a.ckpt", config)
    assert not module.training
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.testing.assert_close(dict(module.state_dict()), dict(saved["average"]), atol=0, rtol=0)
    different = [k for k, v in saved["module"].items() if v.is_floating_point() and not v.equal(saved["average"][k])]
    assert different, "the average is not the last step"
    batch = make_batch(10_000)
    with torch.inference_mode():
        right = ((module(batch["x"]) > 0) == (batch["labels"] > 0)).float().mean()
    assert right >= 0.8
    log = pd.read_csv(tmp_path / "a.csv")
    assert log["step"].tolist() == list(range(150))
    assert log["loss"].tail(20).mean() < log["loss"].head(10).mean()


def test_dropout_differs_from_step_to_step(tmp_path: Path) -> None:
    seen = []

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(nn.functional.dropout(torch.ones(64), 0.5).tolist())
        return module(batch["x"]).square().mean()

    for seed in (1, 2, 5000):  # 5000 x a million is more than a 32-bit seed holds
        fit(Sample(), make_batch, loss, LOOP, seed=seed, checkpoint=tmp_path / f"{seed}.ckpt", name="t", workers=0)
    assert len({tuple(s) for s in seen}) == 18


def test_the_learning_rate_warms_up_and_cools_down() -> None:
    config = LoopConfig(steps=100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert (np.diff(rates[10:]) < 0).all()
    assert 0 < rates[-1] < 0.01
    assert learning_rate(100, config) == pytest.approx(0, abs=1e-12)
    assert learning_rate(0, LoopConfig(steps=1, warmup_steps=0)) == LoopConfig().lr


# -- losses


def test_unknown_labels_are_never_trained_on() -> None:
    logits = torch.tensor([2.0, -1.0, 5.0], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([1.0, 0.0, -1.0]), 0.0)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[2] == 0
    assert (logits.grad[:2] != 0).all()


def test_a_batch_of_unknown_labels_teaches_nothing() -> None:
    logits = torch.tensor([[9.0, -9.0, 0.0]], requires_grad=True)
    loss = masked_bce(logits, torch.full((1, 3), -1.0), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_weights_and_smoothing() -> None:
    logits, labels = torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0])
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    weighted = masked_bce(logits, labels, 0.0, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert masked_bce(logits[:1], labels[:1], 0.2).item() == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-5)
    sure = masked_bce(torch.tensor([20.0]), torch.tensor([1.0]), 0.1)
    assert sure > masked_bce(torch.tensor([3.0]), torch.tensor([1.0]), 0.1), "certainty is punished"


def test_contrastive_loss_prefers_moments_that_belong_together() -> None:
    torch.manual_seed(0)
    mouth = nn.functional.normalize(torch.randn(24, 16), dim=1)
    voice = nn.functional.normalize(mouth + 0.2 * torch.randn(24, 16), dim=1)
    aligned = contrastive_sync(mouth, voice, 12)
    assert aligned < contrastive_sync(mouth, voice.roll(1, 0), 12) - 1
    assert aligned < contrastive_sync(mouth, voice[torch.randperm(24)], 12) - 1
    torch.testing.assert_close(aligned, contrastive_sync(voice, mouth, 12))
    same = nn.functional.normalize(torch.ones(24, 16), dim=1)
    chance = math.log(12) + 0.2 * math.log(24)
    assert contrastive_sync(same, same, 12).item() == pytest.approx(chance, rel=1e-5)


def test_recognising_the_clip_is_not_enough() -> None:
    """Vectors that tell clips apart but not moments leave the loss near chance within a clip."""
    clips = nn.functional.normalize(torch.eye(2, 16), dim=1).repeat_interleave(12, dim=0)
    assert contrastive_sync(clips, clips, 12) > math.log(12)


# -- batches

ROWS = [  # (kind, fake, video_fake, audio_fake, dataset): luma and level of a file state its row
    ("clip", 0, 0, 0, "news"),
    ("clip", 0, 0, "", "news"),
    ("clip", 1, 1, 0, "swaps"),
    ("clip", 1, "", 1, "dubs"),
    ("clip", 1, 0, 0, "mismatch"),
    ("clip", "", "", "", "unlabelled"),
    ("speech", 1, "", 1, "tts"),
    ("speech", 0, "", 0, "people"),
    ("still", 0, 0, "", "photos"),
    ("still", 1, 1, "", "gan"),
]


def training_set() -> tuple[pd.DataFrame, list[list[Clip]]]:
    """One file a row of ROWS. All crops of row i have the luma 20 + 20 i, its sound is a tone of 400 + 300 i Hz."""
    clips = []
    for i, row in enumerate(ROWS):
        track = make_track(np.zeros(60, int), size=32)
        level = np.full_like(track.face_crops, 20 + 20 * i)
        track = dataclasses.replace(track, face_crops=level, mouth_crops=np.full_like(track.mouth_crops, 20 + 20 * i))
        time = np.arange(int(2.5 * 16_000)) / 16_000
        wave = Waveform((0.3 * np.sin(2 * np.pi * (400 + 300 * i) * time)).astype(np.float32))
        clips.append([Clip(0, 2.4, () if row[0] == "speech" else (track,), None if row[0] == "still" else wave)])
    columns = list(zip(*ROWS, strict=True))
    table = pd.DataFrame(
        {
            "path": [f"{i}" for i in range(len(ROWS))],
            **dict(zip(("kind", "fake", "video_fake", "audio_fake", "dataset"), columns, strict=True)),
            "group": [f"g{i}" for i in range(len(ROWS))],
            "split": "train",
            "method": "",
        }
    )
    return validate(table), clips


CONFIG = LoopConfig(batch_size=16)
FACES = FaceConfig(crop_size=32)


class Spy:
    """A Pool that writes down which rows it gave."""

    def __init__(self, pool, clips: list[list[Clip]], rows: list[int], of) -> None:
        self.pool, self.rows = pool, rows
        self.numbers = {id(of(c)): i for i, c in enumerate(clips) if c and of(c) is not None}

    def draw(self, rng: np.random.Generator):
        item = self.pool.draw(rng)
        self.rows.append(self.numbers[id(item[0] if isinstance(item, tuple) else item)])
        return item


def assert_pure(batches) -> None:
    one, again, other = batches(7), batches(7), batches(8)
    for key in one:
        assert one[key].equal(again[key])
    assert any(not one[key].equal(other[key]) for key in one)


def rebuilt(batches, *args):
    """The same class built anew gives the same batches: nothing depends on what was drawn before."""
    fresh = type(batches)(*args)
    fresh(3)
    for key, value in batches(11).items():
        assert value.equal(fresh(11)[key])
    other = type(batches)(*args[:-1], args[-1] + 1)
    assert any(not v.equal(other(11)[k]) for k, v in batches(11).items()), "the seed counts"


def test_visual_batches() -> None:
    table, clips = training_set()
    args = (table, clips, FACES, CONFIG, 0)
    batches = VisualBatches(*args)
    batch = batches(0)
    assert batch["crops"].shape == (16, 32, 32, 3)
    assert batch["crops"].dtype == torch.uint8
    assert batch["labels"].tolist() == [0, 1, 1, 0] * 4
    assert_pure(batches)
    rebuilt(batches, *args)
    real: list[int] = []
    fake: list[int] = []
    batches.real = Spy(batches.real, clips, real, main_track)  # type: ignore[assignment]
    batches.fake = Spy(batches.fake, clips, fake, main_track)  # type: ignore[assignment]
    for step in range(30):
        batches(step)
    assert set(real) == {0, 1, 4, 8}, "known to be real faces; the voice does not matter"
    assert set(fake) == {2, 9}
    assert len(real) == 2 * len(fake) == 240


def test_a_self_blend_and_its_original_share_their_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    from avdetect.training import batches as module

    table, clips = training_set()
    states = []

    def record(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        states.append((crop, str(rng.bit_generator.state)))
        return crop

    monkeypatch.setattr(module, "augment_face", record)
    monkeypatch.setattr(module, "self_blend", lambda crop, marks, rng: crop + np.uint8(1))
    VisualBatches(table, clips, FACES, CONFIG, 0)(0)
    for i in range(0, 16, 4):
        (original, one), (blend, two), (_, three) = states[i : i + 3]
        assert one == two != three
        np.testing.assert_array_equal(original + 1, blend)


def test_audio_batches() -> None:
    table, clips = training_set()
    args = (table, clips, AudioConfig(), CONFIG, 0)
    batches = AudioBatches(*args)
    batch = batches(0)
    assert batch["mels"].shape == (16, 200, 80)
    assert batch["mels"].dtype == torch.float32
    assert batch["labels"].tolist() == [0, 1] * 8
    assert_pure(batches)
    rebuilt(batches, *args)
    real: list[int] = []
    fake: list[int] = []
    batches.real = Spy(batches.real, clips, real, lambda c: c[0].waveform)  # type: ignore[assignment]
    batches.fake = Spy(batches.fake, clips, fake, lambda c: c[0].waveform)  # type: ignore[assignment]
    for step in range(5):
        batches(step)
    assert set(real) == {0, 2, 4, 7}
    assert set(fake) == {3, 6}
    assert len(real) == len(fake)


def test_short_and_partly_silent_recordings_fill_the_window() -> None:
    table, clips = training_set()
    samples = np.zeros(80_000, np.float32)
    samples[:8000] = speech(0.5)
    clips[7] = [dataclasses.replace(clips[7][0], waveform=Waveform(speech(0.6)))]
    clips[6] = [dataclasses.replace(clips[6][0], waveform=Waveform(samples))]
    clips[3] = [dataclasses.replace(clips[3][0], waveform=Waveform(speech(0.4)))]  # too short to be used
    clips[0] = [dataclasses.replace(clips[0][0], waveform=Waveform(np.zeros(40_000, np.float32)))]
    clips[2], clips[4] = [], [dataclasses.replace(clips[4][0], waveform=None)]
    batches = AudioBatches(table, clips, AudioConfig(), CONFIG, 0)
    assert len(batches.real.items) == len(batches.fake.items) == 1
    window = batches._window(clips[7][0].waveform, np.random.default_rng(0))
    assert len(window) == 32_000
    np.testing.assert_array_equal(window[:9600], window[9600:19200])
    assert torch.isfinite(batches(0)["mels"]).all()


def test_sync_batches_come_from_real_clips_only() -> None:
    table, clips = training_set()
    batches = SyncBatches(table, clips, LoopConfig(batch_size=4), 0)
    batch = batches(0)
    assert batch["mouths"].shape == (4 * 24, SYNC_FRAMES, 64, 64)
    assert batch["mels"].shape == (4 * 24, SYNC_MELS, 80)
    assert_pure(batches)
    drawn: list[int] = []
    batches.pool = Spy(batches.pool, clips, drawn, main_track)  # type: ignore[assignment]
    for step in range(10):
        batches(step)
    assert set(drawn) == {0, 1}


def test_sync_batches_need_one_face_and_enough_of_it() -> None:
    table, clips = training_set()
    two = dataclasses.replace(clips[0][0], tracks=(*clips[0][0].tracks, make_track(np.zeros(40, int), track_id=2)))
    short = dataclasses.replace(clips[1][0], tracks=(make_track(np.zeros(27, int)),))
    with pytest.raises(ManifestError, match="real clip with voice"):
        SyncBatches(table, [[two], [short], *clips[2:]], CONFIG, 0)
    enough = dataclasses.replace(clips[1][0], tracks=(make_track(np.zeros(28, int)),))
    assert SyncBatches(table, [[two], [enough], *clips[2:]], LoopConfig(batch_size=1), 0)(0)["mels"].shape[0] == 24


@pytest.mark.parametrize(("face_from", "sound_from"), [(0, 0), (6, 0), (0, 9), (30, 22), (250, 250)])
def test_sync_batches_join_the_picture_and_the_sound_of_one_moment(
    face_from: int, sound_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clips import ToneNetworks, codes_of, tones

    from avdetect.training import batches as module

    for name in ("augment_mouths", "augment_voice"):
        monkeypatch.setattr(module, name, lambda x, rng: x)
    codes = codes_of(100, 4)
    begin = min(face_from, sound_from)
    clip = Clip(
        begin / 25,
        4,
        (make_track(codes[face_from - begin :][:50], face_from),),
        Waveform(tones(codes[sound_from - begin :][:55]), sound_from / 25),
    )
    table, _ = training_set()
    batches = SyncBatches(table.iloc[:1], [[clip]], LoopConfig(batch_size=2), 0)
    networks = ToneNetworks()
    for step in range(8):
        batch = batches(step)
        mouth, voice = networks.mouth(batch["mouths"].numpy()), networks.voice(batch["mels"].numpy())
        agree = (mouth * voice).sum(1)
        assert np.median(agree) > 0.99
        assert (agree > 0.7).mean() > 0.9, "windows at the edge of the cut may lose a tone"


def test_a_class_without_examples_is_named() -> None:
    table, clips = training_set()
    humans = table["audio_fake"].fillna(0).eq(0).to_numpy()
    some = [clips[i] for i in np.flatnonzero(humans)]
    with pytest.raises(ManifestError, match="no synthetic voice"):
        AudioBatches(table[humans], some, AudioConfig(), CONFIG, 0)
    with pytest.raises(ManifestError, match="no real face"):
        VisualBatches(table.iloc[2:3], clips[2:3], FACES, CONFIG, 0)


def test_rows_and_clips_agree_whatever_the_index_says() -> None:
    table, clips = training_set()
    args = (clips, FACES, CONFIG, 0)
    shuffled = table.set_axis(range(100, 110))
    assert VisualBatches(table, *args)(0)["crops"].equal(VisualBatches(shuffled, *args)(0)["crops"])


def test_sources_count_by_the_root_of_their_size() -> None:
    weights = source_weights(pd.Series(["big"] * 100 + ["small"] * 4))
    assert weights.sum() == pytest.approx(1)
    assert weights[:100].sum() / weights[100:].sum() == pytest.approx(10 / 2)


def test_the_main_track_is_the_one_seen_most() -> None:
    long, brief = make_track(np.zeros(50, int), track_id=1), make_track(np.zeros(20, int), track_id=2)
    assert main_track([Clip(0, 2, (brief, long), None)]) is long
    assert main_track([Clip(0, 2, (), None)]) is None
    assert main_track([]) is None


# -- fusion and calibration


def separable(rows: int = 240, noise: float = 1.0, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Half face forgeries, half voice forgeries or real; the streams' logits follow the labels, with noise."""
    rng = np.random.default_rng(seed)
    video, audio = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    features = np.zeros((rows, len(FEATURES)), np.float32)
    for i in range(rows):
        visual, voice = (3 * (2 * y[i] - 1) + noise * rng.standard_normal() for y in (video, audio))
        features[i] = fusion_features(None if i % 7 == 0 else visual, None if i % 5 == 0 else voice, None)
    table = pd.DataFrame(
        {
            "path": [f"{i}.mp4" for i in range(rows)],
            "fake": video | audio,
            "video_fake": [("" if i % 11 == 0 else v) for i, v in enumerate(video)],
            "audio_fake": audio,
            "group": [f"p{i // 3}" for i in range(rows)],
            "split": "train",
            "dataset": np.where(np.arange(rows) % 4 == 0, "small", "big"),
            "method": "",
        }
    )
    return validate(table), features


FUSION_LOOP = LoopConfig(steps=60, lr=0.03, warmup_steps=5, label_smoothing=0.0)


@pytest.fixture(scope="module")
def fitted() -> fusion_training.FittedFusion:
    torch.manual_seed(0)
    return fit_and_calibrate(*separable(), FusionConfig(), FUSION_LOOP, seed=0)


def test_calibrated_probabilities_are_right_and_in_order(fitted: fusion_training.FittedFusion) -> None:
    table, features = separable(seed=9)
    labels = label_matrix(table)
    p = fitted.calibration.probabilities(logits_of(fitted.fusion, features))
    usable = features[:, NUM_VALUES : NUM_VALUES + 2].all(1)
    for column in range(3):
        known = usable & (labels[:, column] >= 0)
        y, q = labels[known, column], p[known, column]
        assert q[y == 1].mean() > 0.85
        assert q[y == 0].mean() < 0.15
        assert ((q > 0.5) == y).mean() > 0.95
        assert fitted.calibration.scale[column] > 0
    called = p[usable, 0] >= fitted.calibration.threshold
    assert (called == labels[usable, 0]).mean() > 0.95
    assert 0.01 < fitted.calibration.threshold < 0.99


def test_calibration_undoes_overconfidence() -> None:
    """On noisy features 80 % certainty must be right about 80 % of the time."""
    table, features = separable(600, noise=4.0)
    fitted = fit_and_calibrate(table, features, FusionConfig(), FUSION_LOOP, seed=0)
    judged = features[:, NUM_VALUES:].any(axis=1)
    table, features = table[judged].reset_index(drop=True), features[judged]
    labels = label_matrix(table)
    p = fitted.calibration.probabilities(fitted.oof_logits)
    weights = class_weights(table, labels, features)
    for low, high in ((0.1, 0.4), (0.6, 0.9)):
        rows = (p[:, 2] > low) & (p[:, 2] < high)
        assert rows.sum() > 30
        share = np.average(labels[rows, 2], weights=weights[rows, 2])
        assert abs(share - np.average(p[rows, 2], weights=weights[rows, 2])) < 0.12


def test_out_of_fold_logits_come_from_other_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    table, features = separable()
    features[:, 3] = np.arange(len(table))  # marks the row; masked, so that no fusion learns from it
    trained: list[set[int]] = []
    original = fusion_training.fit_fusion

    def spy(x, *args):
        trained.append(set(x[:, 3].astype(int).tolist()))
        return original(x, *args)

    monkeypatch.setattr(fusion_training, "fit_fusion", spy)
    result = fit_and_calibrate(table, features, FusionConfig(), dataclasses.replace(FUSION_LOOP, steps=2), 0, folds=3)
    assert len(trained) == 4
    judged = set(np.flatnonzero(features[:, NUM_VALUES:].any(axis=1)).tolist())
    assert trained[-1] == judged, "the fusion that is shipped saw every row that has a stream, and no other"
    fold = fold_of(table["group"], 3)
    for k, seen in enumerate(trained[:3]):
        held = set(np.flatnonzero(fold == k).tolist()) & judged
        assert held
        assert not held & seen
        assert not set(table["group"].iloc[sorted(held)]) & set(table["group"].iloc[sorted(seen)])
    assert (result.oof_logits != 0).any(axis=1).all()


def test_evidence_that_points_the_wrong_way_becomes_none() -> None:
    table, features = separable(120)
    rng = np.random.default_rng(0)
    features[:, :2] = rng.standard_normal((120, 2))
    result = fit_and_calibrate(table, features, FusionConfig(), FUSION_LOOP, seed=0)
    assert all(scale >= 0 for scale in result.calibration.scale)
    p = result.calibration.probabilities(result.oof_logits)
    assert 0.3 < p.mean() < 0.7


def test_an_output_without_both_classes_cannot_be_calibrated() -> None:
    table, features = separable(60)
    table["audio_fake"] = table["audio_fake"].where(table["audio_fake"] == 0)
    with pytest.raises(ManifestError, match="audio_fake"):
        fit_and_calibrate(table, features, FusionConfig(), dataclasses.replace(FUSION_LOOP, steps=2), 0)


def test_fitting_is_reproducible() -> None:
    table, features = separable(90)
    loop = dataclasses.replace(FUSION_LOOP, steps=10)
    one, two = (fit_and_calibrate(table, features, FusionConfig(), loop, seed=1) for _ in range(2))
    assert one.calibration == two.calibration
    torch.testing.assert_close(one.fusion.state_dict(), two.fusion.state_dict(), atol=0, rtol=0)


def test_label_matrix_marks_the_unknown() -> None:
    table = validate(
        pd.DataFrame(
            {
                "path": ["a", "b"],
                "fake": [1, ""],
                "video_fake": ["", 0],
                "audio_fake": [1, ""],
                "group": ["a", "b"],
                "split": "train",
                "dataset": "d",
                "method": "",
            }
        )
    )
    np.testing.assert_array_equal(label_matrix(table), [[1, -1, 1], [-1, 0, -1]])


def test_class_weights_balance_each_output() -> None:
    table, features = separable(100)
    features[:, NUM_VALUES:] = 1
    labels = label_matrix(table)
    weights = class_weights(table, labels, features)
    for column in range(3):
        totals = [weights[labels[:, column] == value, column].sum() for value in (0, 1)]
        assert totals[0] == pytest.approx(totals[1], rel=1e-4)
        assert (weights[labels[:, column] < 0, column] == 0).all()
    small = (table["dataset"] == "small").to_numpy()
    assert weights[small & (labels[:, 0] == 1), 0].min() > weights[~small & (labels[:, 0] == 1), 0].max()


def test_files_with_face_and_voice_weigh_as_much_as_all_others() -> None:
    table, features = separable(100)
    table["dataset"] = "one"
    labels = label_matrix(table)
    labels[:] = 1
    features[:, NUM_VALUES:] = [1, 0, 0]
    features[:5, NUM_VALUES:] = [1, 1, 1]
    weights = class_weights(table, labels, features)[:, 0]
    assert weights[:5].sum() == pytest.approx(weights[5:].sum(), rel=1e-4)


def threshold(p: list[float], y: list[int], w: list[float] | None = None) -> float:
    return _best_threshold(*(np.array(v, np.float32) for v in (p, y, w or [1] * len(p))))


def test_the_threshold_lies_between_the_classes() -> None:
    assert threshold([0.1, 0.8, 0.3, 0.9], [0, 1, 0, 1]) == pytest.approx(0.55)
    assert threshold([0.1, 0.2, 0.3, 0.9], [0, 0, 1, 1]) == pytest.approx(0.25)


def test_the_threshold_does_not_cut_through_equal_probabilities() -> None:
    """Clipped probabilities are equal: a cut at the clip calls all of them fake."""
    p, y = [0.01] * 50 + [0.99] * 50, [0] * 48 + [1] * 2 + [1] * 50
    for order in (slice(None), slice(None, None, -1)):
        assert threshold(p[order], y[order]) == pytest.approx(0.5)
    assert threshold([0.5] * 6, [0, 0, 0, 1, 1, 1]) == 0.5


@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.clip(rng.normal(0.5, 0.4, 60), 0.01, 0.99).round(2).astype(np.float32)
    y = (rng.random(60) < p).astype(np.float32)
    w = rng.uniform(0.1, 2, 60).astype(np.float32)
    found = _best_threshold(p, y, w)

    def accuracy(cut: float) -> float:
        return float((w * ((p >= cut) == y)).sum() / w.sum())

    assert accuracy(found) >= max(accuracy(c) for c in np.linspace(0.0149, 0.9851, 400)) - 1e-6


# -- all three streams, through the real entry point


def test_three_streams_train_and_score(tmp_path: Path) -> None:
    from avdetect.config import PreprocessConfig, TrainConfig
    from avdetect.training.streams import score_streams, train_streams

    table, clips = training_set()
    for i in (0, 1):
        clips[i] = [talking_clip(60, seed=i, size=32)]
    loop = LoopConfig(steps=2, batch_size=4, checkpoint_every=1, warmup_steps=1)
    config = TrainConfig(
        preprocess=PreprocessConfig(faces=FACES),
        model=ModelConfig(
            VisualConfig(encoder="test_efficientnet"),
            AudioConfig(channels=(4, 4), embedding=4),
            SyncConfig(embedding=4, channels=(4, 4, 4, 4)),
        ),
        **dict.fromkeys(("visual", "audio", "sync"), loop),
    )
    model = train_streams(config, table, clips, tmp_path / "run")
    assert not model.visual.training
    names = ("visual", "audio", "sync")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {f"{n}{s}" for n in names for s in (".ckpt", ".csv")}
    outputs = score_streams(model, clips)
    assert len(outputs) == len(ROWS)
    masks = np.stack([o.features()[NUM_VALUES:] for o in outputs])
    np.testing.assert_array_equal(masks[:, 0], [row[0] != "speech" for row in ROWS])
    np.testing.assert_array_equal(masks[:, 1], [row[0] != "still" for row in ROWS])
    np.testing.assert_array_equal(masks[:, 2], [row[0] == "clip" for row in ROWS])
    assert all(np.isfinite(o.features()).all() for o in outputs)
    again = train_streams(config, table, clips, tmp_path / "run")
    torch.testing.assert_close(again.audio.state_dict(), model.audio.state_dict(), atol=0, rtol=0)


def test_calibration_type_is_the_bundles(fitted: fusion_training.FittedFusion) -> None:
    assert isinstance(fitted.calibration, Calibration)
    assert fitted.calibration.clip == 0.01
    assert not fitted.fusion.training
