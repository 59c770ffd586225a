"""A whole training run on synthetic clips: killed and resumed, without fakes, without voices, with clip labels only."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from archive_factory import make_archive
from clips import talking_clip
from safetensors.torch import save_file

from avdetect import pooling
from avdetect.bundle import OUT_OF_FOLD, Bundle
from avdetect.config import (
    AudioConfig,
    FaceConfig,
    FusionFitConfig,
    ModelConfig,
    PairLoopConfig,
    PreprocessConfig,
    StreamLoopConfig,
    SyncConfig,
    TrainConfig,
    VisualConfig,
)
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.manifest import validate
from avdetect.detector import load_detector
from avdetect.errors import ConfigError, ManifestError, ModelError
from avdetect.model import Model
from avdetect.scoring import LEARNED_NOTHING
from avdetect.streams.whisper import WhisperEncoder
from avdetect.training import run as run_module
from avdetect.training.loop import make_fabric
from avdetect.training.results import SAMPLE, export
from avdetect.training.run import Settings, train
from avdetect.training.sampling import Subset

torch.set_num_threads(1)
PREPROCESS = PreprocessConfig(faces=FaceConfig(crop_size=32))
PAIRS = PairLoopConfig(steps=2, batch_size=4, warmup_steps=1, checkpoint_every=1, codec=0.0)
PLAIN = StreamLoopConfig(steps=2, batch_size=2, warmup_steps=1, checkpoint_every=1, codec=0.0)
CONFIG = TrainConfig(
    name="run",
    preprocess=PREPROCESS,
    model=ModelConfig(
        visual=VisualConfig(encoder="test_efficientnet"),
        audio=AudioConfig(channels=(4, 4), embedding=4),
        sync=SyncConfig(embedding=4, channels=(4, 4, 4, 4)),
    ),
    visual=PAIRS,
    audio=PAIRS,
    sync=PLAIN,
    fusion=FusionFitConfig(steps=5),
)
LEARNED = dataclasses.replace(CONFIG, seed=5)  # two steps teach the face something: who learned nothing abstains


@pytest.fixture(scope="module", autouse=True)
def every_mouth_speaks() -> Iterator[None]:
    """To a tower of two steps all mouths look alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "MIN_SPEAKING", -1.0)
        yield


def table_of(fakes: bool = True, sound: bool = True) -> pd.DataFrame:
    """12 train and 4 dev files of two sources; the odd ones are fakes of the even ones, if there are `fakes`."""
    number = np.arange(16)
    fake = number % 2 if fakes else 0 * number
    table = pd.DataFrame({"path": [f"/{i}.mp4" for i in number], "fake": fake, "video_fake": fake})
    table["audio_fake"] = fake if sound else ""
    table["group"] = [f"person{i // 2}" for i in number]
    table["dataset"] = [f"source{i // 2 % 2}" for i in number]
    table["original"] = ["/" * y + f"{i - 1}.mp4" * y for i, y in zip(number, fake, strict=True)]
    return validate(table.assign(split=np.where(number < 12, "train", "dev"), method=np.where(fake, "made", "")))


def archive_of(root: Path, fakes: bool = True, sound: bool = True) -> ClipArchive:
    clips = [talking_clip(75, seed=i, size=32) for i in range(16)]
    if not sound:
        clips = [dataclasses.replace(clip, waveform=None) for clip in clips]
    return make_archive(root, table_of(fakes, sound), [[clip] for clip in clips], PREPROCESS)


def run(config: TrainConfig, archive: ClipArchive, folder: Path) -> dict:
    train(config, archive, folder, Settings(make_fabric(accelerator="cpu"), workers=0))
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    return archive_of(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def finished(archive: ClipArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(LEARNED, archive, folder)


def test_a_run_ends_in_a_bundle_that_scores(finished: tuple[Path, dict], tmp_path: Path) -> None:
    folder, result = finished
    bundle, _ = export(folder, tmp_path / "bundle")
    found = load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "run"
    assert 0 < found.fake < 1
    training = bundle.info.training
    assert training["rows"] == {"train": 12, "dev": 4, "test": 0}
    assert list(training["fusion"]["oof_log_loss"]) == ["parts", "logistic"]
    assert bundle.info.calibration.clip == result["calibration"]["clip"]
    assert "/" not in json.dumps(training["config"]["model"]), "no path of the machine that trained it"
    assert bundle.files[OUT_OF_FOLD] == (folder / OUT_OF_FOLD).read_bytes()
    table = pd.read_csv(folder / OUT_OF_FOLD)
    assert len(table) == 12, "every training file, none of dev, no forgery"
    assert set(table["fold"]) == {0, 1}
    assert table[["p_fake", "ablation:visual+audio:logistic"]].stack().between(0, 1).all()
    named, _ = export(folder, tmp_path / "other", name="mine", licence="CC0")
    assert (named.info.name, named.info.licence) == ("mine", "CC0")


def test_a_run_of_an_earlier_version_is_exported(finished: tuple[Path, dict], tmp_path: Path) -> None:
    """It states a stage and settings that are gone; so do bundles."""
    old = shutil.copytree(finished[0], tmp_path / "old")
    result = json.loads((old / "result.json").read_text())
    result["config"] |= {"joint": {"steps": 0}}
    result["config"]["model"]["fusion"] |= {"hidden": 0, "dropout": 0.1}
    result["config"]["visual"] |= {"reconstructed": 0.4}
    (old / "result.json").write_text(json.dumps(result))
    export(old, tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    values = json.loads(path.read_text())
    values["model"]["fusion"] |= {"hidden": 0, "dropout": 0.1}
    path.write_text(json.dumps(values))
    assert Bundle.load(tmp_path / "bundle").info.model.fusion.parts


def test_a_run_goes_on_where_it_was(finished: tuple[Path, dict], archive: ClipArchive, tmp_path: Path) -> None:
    folder, result = finished
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for lost in ("result.json", "model.safetensors", "fold1/scores/000000.npz"):
        (again / lost).unlink()
    shutil.rmtree(again / "final")
    assert run(LEARNED, archive, again) == result
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_folder_belongs_to_one_run(finished: tuple[Path, dict], archive: ClipArchive, tmp_path: Path) -> None:
    """Scores are kept by place: taken up after the cache was made anew in another order, they would be other files'."""
    clips = [[talking_clip(75, seed=i, size=32)] for i in range(16)]
    order = [*range(1, 16), 0]
    table = table_of().iloc[order].reset_index(drop=True)
    other = make_archive(tmp_path / "other", table, [clips[i] for i in order], PREPROCESS)
    with pytest.raises(ConfigError, match=r"belongs to another run \(data: "):
        run(LEARNED, other, finished[0])
    with pytest.raises(ConfigError, match=r"\(config.seed: 5 there, 1 now\): name a new folder as --run"):
        run(dataclasses.replace(LEARNED, seed=1), archive, finished[0])


@pytest.mark.parametrize("release", [False, True])
def test_no_stream_scores_what_it_was_trained_on(
    archive: ClipArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: bool
) -> None:
    """The fusion learns how far to trust a stream on new people, or new sources; scores of known ones would tell it too
    much. A release trains on dev too, and measures it out of fold."""
    trained: dict[str, Subset] = {}
    scored: dict[str, Subset] = {}
    train_streams, score_subset = run_module.train_streams, run_module.score_subset

    def spy_train(config, subset, dev, folder, *more):
        trained[folder.name] = subset
        return train_streams(config, subset, dev, folder, *more)

    def spy_score(config, model, subset, folder, fabric):
        scored[folder.parent.name] = subset
        return score_subset(config, model, subset, folder, fabric)

    monkeypatch.setattr(run_module, "train_streams", spy_train)
    monkeypatch.setattr(run_module, "score_subset", spy_score)
    apart = "dataset" if release else "group"
    result = run(dataclasses.replace(CONFIG, release=release, fold_by=apart), archive, tmp_path / "run")
    everything = list(range(16 if release else 12))
    assert set(trained) == {"fold0", "fold1", "final"}
    assert sorted(trained["final"].rows.tolist()) == everything
    assert sorted(row for subset in scored.values() for row in subset.rows.tolist()) == everything
    for fold, held in scored.items():
        assert sorted([*trained[fold].rows.tolist(), *held.rows.tolist()]) == everything
        assert not set(trained[fold].table[apart]) & set(held.table[apart])
    assert set(result["metrics"]) == ({"out of fold"} if release else {"out of fold", "dev"})
    assert len(pd.read_csv(tmp_path / "run" / OUT_OF_FOLD)) == len(everything)


def test_a_frozen_encoder_ends_in_a_bundle(archive: ClipArchive, tmp_path: Path) -> None:
    """The recipe of the default bundle: heads on features that are drawn once, a release."""
    torch.manual_seed(0)
    start = timm.create_model("test_efficientnet", num_classes=0, exportable=True)
    save_file(start.state_dict(), tmp_path / "start.safetensors")
    visual = VisualConfig(encoder="test_efficientnet", levels=("blocks.0", "blocks.2"), tune="none")
    config = dataclasses.replace(
        CONFIG,
        release=True,
        model=dataclasses.replace(CONFIG.model, visual=visual),
        visual=dataclasses.replace(PAIRS, augmentation="light"),
        fusion=FusionFitConfig(steps=5, kind="parts"),
    )
    with pytest.raises(ConfigError, match="weights to start from"):
        run(config, archive, tmp_path / "run")
    settings = Settings(make_fabric(accelerator="cpu"), workers=0)
    train(config, archive, tmp_path / "run", settings, pretrained={"visual": str(tmp_path / "start.safetensors")})
    bundle, result = export(tmp_path / "run", tmp_path / "bundle")
    assert "/" not in json.dumps(result["config"]["model"]), "no path of the machine that trained it"
    trained = Model.load(bundle.info.model, tmp_path / "run" / "model.safetensors").visual
    theirs = {k.removeprefix("encoder.maps."): v for k, v in trained.state_dict().items() if "encoder.maps" in k}
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in theirs.items()), "it was frozen"
    assert trained.head.weight.abs().max() > 0
    assert {path.parent.name for path in (tmp_path / "run").rglob("sync.ckpt")} == {"fold0", "fold1", "final"}
    scored = pd.read_csv(tmp_path / "run" / OUT_OF_FOLD)
    assert scored[["has_visual", "has_audio", "has_sync"]].all(axis=None)
    assert set(bundle.info.model.fusion.silent) == set(result["fusion"]["silent"])
    whole = scored[["p_video_fake", "p_audio_fake", "p_mismatch"]].max(axis=1)
    assert (scored["p_fake"] >= whole - 1e-5).all()
    for stream, part in pooling.PART_OF.items():
        assert scored[f"p_{part}"].isna().all() == (stream in result["fusion"]["silent"])
    assert bundle.info.model.streams == ("visual", "audio", "sync")


@pytest.mark.parametrize("frozen", [True, False])
def test_voice_and_match_share_one_speech_encoder(archive: ClipArchive, tmp_path: Path, frozen: bool) -> None:
    torch.manual_seed(0)
    start = WhisperEncoder(("stem",)).state_dict()
    save_file(start, tmp_path / "whisper.safetensors")
    audio = AudioConfig(encoder="whisper-tiny.en", frozen=frozen, levels=("stem",), window_seconds=4.0)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, audio=audio))
    without = dataclasses.replace(config, audio=dataclasses.replace(PAIRS, steps=0))
    with pytest.raises(ConfigError, match="--pretrained-audio"):
        run(without, archive, tmp_path / "none")
    settings = Settings(make_fabric(accelerator="cpu"), workers=0)
    train(config, archive, tmp_path / "run", settings, pretrained={"audio": str(tmp_path / "whisper.safetensors")})
    bundle, _ = export(tmp_path / "run", tmp_path / "bundle")
    trained = Model.load(bundle.info.model, tmp_path / "run" / "model.safetensors").speech.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in trained.items()) == frozen
    assert len(bundle.files["golden.npz"]) < 1_000_000
    found = load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=4)
    silent = bundle.info.model.fusion.silent  # so few steps may teach nothing
    assert found.missing == dict.fromkeys(silent, LEARNED_NOTHING)


def test_what_is_wrong_shows_before_anything_is_trained(archive: ClipArchive, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, audio=dataclasses.replace(PAIRS, forgeries={"magic": 1.0}))
    with pytest.raises(ConfigError, match="magic"):
        run(config, archive, tmp_path / "run")
    assert not (tmp_path / "run" / "fold0").exists()


def test_real_videos_alone_end_in_a_bundle(tmp_path: Path) -> None:
    only_forged = dataclasses.replace(PAIRS, forged=1.0)
    config = dataclasses.replace(
        CONFIG, visual=only_forged, audio=only_forged, fusion=FusionFitConfig(steps=5, forged=2)
    )
    result = run(config, archive_of(tmp_path / "cache", fakes=False), tmp_path / "run")
    assert result["fusion"]["clip_chosen_on"] == "train, out of fold"
    export(tmp_path / "run", tmp_path / "bundle")


def test_faces_without_voices_end_in_a_bundle_that_says_so(tmp_path: Path) -> None:
    silent = archive_of(tmp_path / "cache", sound=False)
    with pytest.raises(ManifestError, match="real voice"):
        run(CONFIG, silent, tmp_path / "run")
    none = dataclasses.replace(PLAIN, steps=0)
    config = dataclasses.replace(CONFIG, audio=dataclasses.replace(PAIRS, steps=0), sync=none)
    run(config, silent, tmp_path / "faces")
    bundle, _ = export(tmp_path / "faces", tmp_path / "bundle")
    assert bundle.info.model.streams == ("visual",)
    found = load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.audio_fake is None
    assert found.missing["audio"] == "the model was trained without an audio stream"


def test_what_cannot_be_trained_is_one_clear_error(archive: ClipArchive, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, preprocess=PreprocessConfig())
    with pytest.raises(ConfigError, match=r"avdetect preprocess"):
        run(other, archive, tmp_path / "a")
    none = dataclasses.replace(PAIRS, steps=0)
    with pytest.raises(ConfigError, match="nothing to train"):
        run(dataclasses.replace(CONFIG, visual=none, audio=none), archive, tmp_path / "b")
    with pytest.raises(ModelError, match="no finished run"):
        export(tmp_path, tmp_path / "c")
    table = table_of().assign(split="train")
    alone = make_archive(tmp_path / "d", table, [[talking_clip(75, seed=i, size=32)] for i in range(16)], PREPROCESS)
    with pytest.raises(ManifestError, match="split dev"):
        run(CONFIG, alone, tmp_path / "e")
