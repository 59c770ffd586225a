"""A whole training run on synthetic clips: killed and resumed, without fakes, without voices, with clip labels only."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from archive_factory import make_archive
from clips import talking_clip
from manifests import manifest_of
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
SETTINGS = Settings(make_fabric(accelerator="cpu"), workers=0)
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
    return manifest_of(
        [f"/{i}.mp4" for i in number],
        **{"fake": fake, "video_fake": fake, "audio_fake": fake if sound else ""},
        group=[f"person{i // 2}" for i in number],
        dataset=[f"source{i // 2 % 2}" for i in number],
        original=[f"/{i - 1}.mp4" * y for i, y in zip(number, fake, strict=True)],
        split=np.where(number < 12, "train", "dev"),
        method=np.where(fake, "made", ""),
    )


def archive_of(root: Path, table: pd.DataFrame, sound: bool = True) -> ClipArchive:
    clips = [talking_clip(75, seed=int(Path(path).stem), size=32) for path in table["path"]]
    if not sound:
        clips = [dataclasses.replace(clip, waveform=None) for clip in clips]
    return make_archive(root, table, [[clip] for clip in clips], PREPROCESS)


def run(config: TrainConfig, archive: ClipArchive, folder: Path) -> dict:
    train(config, archive, folder, SETTINGS)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    return archive_of(tmp_path_factory.mktemp("archive"), table_of())


@dataclasses.dataclass
class Watched:
    """A run, and the files that its streams were trained on and scored, by the name of the fold."""

    folder: Path
    result: dict
    trained: dict[str, Subset]
    scored: dict[str, Subset]


def watched(config: TrainConfig, archive: ClipArchive, folder: Path) -> Watched:
    training, scoring = Mock(wraps=run_module.train_streams), Mock(wraps=run_module.score_subset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "train_streams", training)
        patch.setattr(run_module, "score_subset", scoring)
        result = run(config, archive, folder)
    trained = {call.args[3].name: call.args[1] for call in training.call_args_list}
    scored = {call.args[3].parent.name: call.args[2] for call in scoring.call_args_list}
    return Watched(folder, result, trained, scored)


@pytest.fixture(scope="module")
def finished(archive: ClipArchive, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(LEARNED, archive, tmp_path_factory.mktemp("run"))


def test_a_run_ends_in_a_bundle_that_scores(finished: Watched, tmp_path: Path) -> None:
    folder, result = finished.folder, finished.result
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


def test_a_run_of_an_earlier_version_is_exported(finished: Watched, tmp_path: Path) -> None:
    """It states a stage and settings that are gone; so do bundles."""
    old = shutil.copytree(finished.folder, tmp_path / "old")
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


def test_a_run_goes_on_where_it_was(finished: Watched, archive: ClipArchive, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished.folder, again)
    for lost in ("result.json", "model.safetensors", "fold1/scores/000000.npz"):
        (again / lost).unlink()
    shutil.rmtree(again / "final")
    assert run(LEARNED, archive, again) == finished.result
    assert (again / "model.safetensors").read_bytes() == (finished.folder / "model.safetensors").read_bytes()


def test_a_folder_belongs_to_one_run(finished: Watched, archive: ClipArchive, tmp_path: Path) -> None:
    """Scores are kept by place: taken up after the cache was made anew in another order, they would be other files'."""
    other = archive_of(tmp_path / "other", table_of().iloc[[*range(1, 16), 0]].reset_index(drop=True))
    with pytest.raises(ConfigError, match=r"belongs to another run \(data: "):
        run(LEARNED, other, finished.folder)
    with pytest.raises(ConfigError, match=r"\(config.seed: 5 there, 1 now\): name a new folder as --run"):
        run(dataclasses.replace(LEARNED, seed=1), archive, finished.folder)


@pytest.mark.parametrize("release", [False, True])
def test_no_stream_scores_what_it_was_trained_on(
    finished: Watched, archive: ClipArchive, tmp_path: Path, release: bool
) -> None:
    """The fusion learns how far to trust a stream on new people, or new sources; scores of known ones would tell it too
    much. A release trains on dev too, and measures it out of fold."""
    seen, apart, everything = finished, "group", list(range(12))
    if release:
        apart, everything = "dataset", list(range(16))
        seen = watched(dataclasses.replace(CONFIG, release=True, fold_by=apart), archive, tmp_path / "run")
    assert set(seen.trained) == {"fold0", "fold1", "final"}
    assert sorted(seen.trained["final"].rows.tolist()) == everything
    assert sorted(row for subset in seen.scored.values() for row in subset.rows.tolist()) == everything
    for fold, held in seen.scored.items():
        assert sorted([*seen.trained[fold].rows.tolist(), *held.rows.tolist()]) == everything
        assert not set(seen.trained[fold].table[apart]) & set(held.table[apart])
    assert set(seen.result["metrics"]) == ({"out of fold"} if release else {"out of fold", "dev"})
    assert len(pd.read_csv(seen.folder / OUT_OF_FOLD)) == len(everything)


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
    train(config, archive, tmp_path / "run", SETTINGS, pretrained={"visual": str(tmp_path / "start.safetensors")})
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
    train(config, archive, tmp_path / "run", SETTINGS, pretrained={"audio": str(tmp_path / "whisper.safetensors")})
    bundle, _ = export(tmp_path / "run", tmp_path / "bundle")
    trained = Model.load(bundle.info.model, tmp_path / "run" / "model.safetensors").speech.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in trained.items()) == frozen
    assert len(bundle.files["golden.npz"]) < 1_000_000
    found = load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=4)
    silent = bundle.info.model.fusion.silent  # so few steps may teach nothing
    assert found.missing == dict.fromkeys(silent, LEARNED_NOTHING)


def test_real_videos_alone_end_in_a_bundle(tmp_path: Path) -> None:
    only_forged = dataclasses.replace(PAIRS, forged=1.0)
    config = dataclasses.replace(
        CONFIG, visual=only_forged, audio=only_forged, fusion=FusionFitConfig(steps=5, forged=2)
    )
    result = run(config, archive_of(tmp_path / "cache", table_of(fakes=False)), tmp_path / "run")
    assert result["fusion"]["clip_chosen_on"] == "train, out of fold"
    export(tmp_path / "run", tmp_path / "bundle")


def test_faces_without_voices_end_in_a_bundle_that_says_so(tmp_path: Path) -> None:
    silent = archive_of(tmp_path / "cache", table_of(sound=False), sound=False)
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


def test_what_cannot_be_trained_is_one_clear_error_before_anything_is(archive: ClipArchive, tmp_path: Path) -> None:
    none, magic = dataclasses.replace(PAIRS, steps=0), dataclasses.replace(PAIRS, forgeries={"magic": 1.0})
    for changes, message in (
        ({"preprocess": PreprocessConfig()}, "avdetect preprocess"),
        ({"visual": none, "audio": none}, "nothing to train"),
        ({"audio": magic}, "magic"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(dataclasses.replace(CONFIG, **changes), archive, tmp_path / message)
        assert not (tmp_path / message / "fold0").exists()
    with pytest.raises(ModelError, match="no finished run"):
        export(tmp_path, tmp_path / "bundle")
    with pytest.raises(ManifestError, match="split dev"):
        run(CONFIG, archive_of(tmp_path / "cache", table_of().assign(split="train")), tmp_path / "alone")
