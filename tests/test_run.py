"""A whole training run on synthetic clips: killed and resumed, without fakes, without voices, with clip labels only."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from copy import copy
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
from avdetect.bundle import OUT_OF_FOLD
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
from avdetect.training.pools import Part
from avdetect.training.results import SAMPLE, export
from avdetect.training.run import Settings, train

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


@pytest.fixture(scope="module", autouse=True)
def every_mouth_speaks() -> Iterator[None]:
    """To a tower of two steps all mouths look alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "MIN_SPEAKING", -1.0)
        yield


def table_of(fakes: str = "both", sound: bool = True) -> pd.DataFrame:
    """12 train and 4 dev files of two sources. `fakes`: both parts known, only the clip's label, or none."""
    rows = []
    for i in range(16):
        fake = int(i % 2 and fakes != "none")
        part = "" if fake and fakes == "clip" else fake
        rows.append(
            {
                "path": f"/{i}.mp4",
                "fake": fake,
                "video_fake": part,
                "audio_fake": part if sound else "",
                "group": f"person{i // 2}",
                "split": "dev" if i >= 12 else "train",
                "dataset": f"source{i // 2 % 2}",
                "method": "made" * fake,
                "original": f"/{i - 1}.mp4" if fake else "",
            }
        )
    return validate(pd.DataFrame(rows))


def archive_of(root: Path, fakes: str = "both", sound: bool = True) -> ClipArchive:
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
    return folder, run(CONFIG, archive, folder)


def test_a_run_ends_in_a_bundle_that_scores(finished: tuple[Path, dict], tmp_path: Path) -> None:
    folder, result = finished
    bundle, _ = export(folder, tmp_path / "bundle")
    found = load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "run"
    assert 0 < found.fake < 1
    training = bundle.info.training
    assert training["rows"] == {"train": 12, "dev": 4, "test": 0}
    assert set(training["fusion"]["oof_log_loss"]) == {"mlp", "logistic", "parts"}
    assert training["fusion"]["kind"] in ("mlp", "logistic", "parts")
    assert bundle.info.calibration.clip == result["calibration"]["clip"]
    assert "/" not in json.dumps(training["config"]["model"]), "no path of the machine that trained it"
    named, _ = export(folder, tmp_path / "other", name="mine", licence="CC0")
    assert (named.info.name, named.info.licence) == ("mine", "CC0")


def test_a_run_goes_on_where_it_was(finished: tuple[Path, dict], archive: ClipArchive, tmp_path: Path) -> None:
    folder, result = finished
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for lost in ("result.json", "model.safetensors", "fold1/scores/000000.npz"):
        (again / lost).unlink()
    shutil.rmtree(again / "final")
    assert run(CONFIG, archive, again) == result
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_folder_belongs_to_one_run(finished: tuple[Path, dict], archive: ClipArchive) -> None:
    with pytest.raises(
        ConfigError, match=r"belongs to another run \(config.seed: 0 there, 1 now\): name a new folder as --run"
    ):
        run(dataclasses.replace(CONFIG, seed=1), archive, finished[0])


def test_another_order_of_the_files_is_another_run(finished: tuple[Path, dict], tmp_path: Path) -> None:
    """Scores are kept by place: taken up after the cache was made anew in another order, they would be other files'."""
    clips = [[talking_clip(75, seed=i, size=32)] for i in range(16)]
    order = [*range(1, 16), 0]
    table = table_of().iloc[order].reset_index(drop=True)
    other = make_archive(tmp_path / "other", table, [clips[i] for i in order], PREPROCESS)
    with pytest.raises(ConfigError, match=r"belongs to another run \(data: "):
        run(CONFIG, other, finished[0])


def test_other_generators_are_another_run(finished: tuple[Path, dict], archive: ClipArchive) -> None:
    """What is drawn depends on them."""
    other = copy(archive)
    other.files = archive.files.assign(method="another")
    with pytest.raises(ConfigError, match=r"belongs to another run \(data: "):
        run(CONFIG, other, finished[0])


def test_a_damaged_run_folder_is_one_clear_error(archive: ClipArchive, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"data": ')
    with pytest.raises(ConfigError, match="damaged"):
        run(CONFIG, archive, tmp_path)


def test_no_stream_scores_what_it_was_trained_on(
    archive: ClipArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fusion learns how far to trust a stream on new people; scores of known ones would tell it too much."""
    trained: dict[str, Part] = {}
    scored: dict[str, Part] = {}
    train_streams, score_part = run_module.train_streams, run_module.score_part

    def spy_train(config, part, dev, folder, fabric, workers, probes):
        trained[folder.name] = part
        return train_streams(config, part, dev, folder, fabric, workers, probes)

    def spy_score(config, model, part, folder, fabric):
        scored[folder.parent.name] = part
        return score_part(config, model, part, folder, fabric)

    monkeypatch.setattr(run_module, "train_streams", spy_train)
    monkeypatch.setattr(run_module, "score_part", spy_score)
    run(CONFIG, archive, tmp_path / "run")
    everything = set(np.flatnonzero(archive.files["split"] == "train").tolist())
    assert set(trained) == {"fold0", "fold1", "final"}
    assert set(scored) == {"fold0", "fold1"}
    for fold in scored:
        seen, held = trained[fold], scored[fold]
        assert set(seen.rows.tolist()) | set(held.rows.tolist()) == everything
        assert not set(seen.rows.tolist()) & set(held.rows.tolist())
        assert not set(seen.table["group"]) & set(held.table["group"])
    assert set().union(*(part.rows.tolist() for part in scored.values())) == everything
    assert set(trained["final"].rows.tolist()) == everything


def test_the_bundle_carries_what_was_scored_out_of_fold(finished: tuple[Path, dict], tmp_path: Path) -> None:
    folder, result = finished
    bundle, _ = export(folder, tmp_path / "bundle")
    assert bundle.files[OUT_OF_FOLD] == (folder / OUT_OF_FOLD).read_bytes()
    table = pd.read_csv(folder / OUT_OF_FOLD)
    assert len(table) == 12, "every training file, none of dev, no forgery"
    assert set(table["fold"]) == {0, 1}
    clip = result["calibration"]["clip"]
    assert table["p_fake"].between(clip - 1e-6, 1 - clip + 1e-6).all()
    for streams in ("visual", "audio", "visual+audio", "all"):
        for kind in ("mlp", "logistic"):
            assert table[f"ablation:{streams}:{kind}"].between(0, 1).all()
    alone = table[[f"ablation:{name}:logistic" for name in ("visual", "audio", "sync")]]
    np.testing.assert_allclose(table["ablation:all:max"], alone.max(axis=1), rtol=1e-4)


def test_a_release_trains_on_dev_and_measures_it_out_of_fold(
    archive: ClipArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, Part] = {}
    train_streams = run_module.train_streams

    def spy(config, part, dev, folder, fabric, workers, probes):
        trained[folder.name] = part
        return train_streams(config, part, dev, folder, fabric, workers, probes)

    monkeypatch.setattr(run_module, "train_streams", spy)
    config = dataclasses.replace(
        CONFIG,
        release=True,
        **{
            name: dataclasses.replace(getattr(CONFIG, name), evaluate_every=0)
            for name in ("visual", "audio", "sync", "joint")
        },
    )
    result = run(config, archive, tmp_path)
    assert set(trained["final"].rows.tolist()) == set(range(16))
    seen = [set(trained[f"fold{k}"].rows.tolist()) for k in range(2)]
    assert seen[0] | seen[1] == set(range(16))
    assert not seen[0] & seen[1]
    assert set(result["metrics"]) == {"out of fold"}
    assert len(pd.read_csv(tmp_path / OUT_OF_FOLD)) == 16
    with pytest.raises(ConfigError, match="evaluate_every"):
        dataclasses.replace(config, audio=dataclasses.replace(config.audio, evaluate_every=1))


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
    assert OUT_OF_FOLD in bundle.files
    assert not result["config"]["model"]["visual"]["pretrained"] or "/" not in json.dumps(result["config"]["model"])
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


@pytest.mark.parametrize("release", [False, True])
def test_a_fold_sees_no_source_that_it_holds_out(archive: ClipArchive, release: bool) -> None:
    """Both sources have files in train and in dev."""
    config = dataclasses.replace(CONFIG, release=release, folds=2, fold_by="dataset")
    part = run_module._parts(config, archive)["train"]
    held, seen = run_module._folds(config, part)
    for out, rest in zip(held, seen, strict=True):
        assert not set(out.table["dataset"]) & set(rest.table["dataset"])
        assert sorted([*out.rows, *rest.rows]) == part.rows.tolist()
    assert sorted(np.concatenate([out.rows for out in held])) == part.rows.tolist()


def test_what_is_wrong_shows_before_anything_is_trained(archive: ClipArchive, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, audio=dataclasses.replace(PAIRS, forgeries={"magic": 1.0}))
    with pytest.raises(ConfigError, match="magic"):
        run(config, archive, tmp_path / "run")
    assert not (tmp_path / "run" / "fold0").exists()


def test_forgeries_of_the_held_out_reals_are_fitted_on(finished: tuple[Path, dict]) -> None:
    for k in range(2):
        with np.load(finished[0] / f"fold{k}" / "scores" / "000000.npz", allow_pickle=False) as arrays:
            assert len(arrays["forged"]) == len(arrays["source"]) > 0
            assert (arrays["labels"][:, 0] == 1).all()
            assert len(set(arrays["method"].tolist())) > 1
            assert (arrays["method"] == "other_voice").sum() >= 3, "one for each of the reals, at least"
            assert (arrays["source"] % 2 == 0).all(), "the even files are the real ones"


def test_real_videos_alone_end_in_a_bundle(tmp_path: Path) -> None:
    only_forged = dataclasses.replace(PAIRS, forged=1.0)
    config = dataclasses.replace(
        CONFIG, visual=only_forged, audio=only_forged, fusion=FusionFitConfig(steps=5, forged=2)
    )
    result = run(config, archive_of(tmp_path / "cache", fakes="none"), tmp_path / "run")
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


def test_clip_labels_alone_are_trained_on_jointly(tmp_path: Path) -> None:
    only_forged = dataclasses.replace(PAIRS, forged=1.0)
    config = dataclasses.replace(
        CONFIG,
        visual=only_forged,
        audio=only_forged,
        joint=dataclasses.replace(PLAIN, batch_size=4, evaluate_every=1),
    )
    run(config, archive_of(tmp_path / "cache", fakes="clip"), tmp_path / "run")
    assert (tmp_path / "run" / "final" / "joint.ckpt").exists()
    assert len((tmp_path / "run" / "final" / "joint.dev.csv").read_text().splitlines()) == 3


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
