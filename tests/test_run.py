"""A whole training run on synthetic clips: killed and resumed, frozen, tuned, without fakes, without voices."""

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
from avdetect.bundle import OUT_OF_FOLD, Bundle, OnnxNetworks
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
    View,
    VisualConfig,
)
from avdetect.datasets.clips import ClipArchive
from avdetect.datasets.forgeries.audio import AUDIO
from avdetect.detector import load_detector
from avdetect.errors import ConfigError, ManifestError, ModelError
from avdetect.model import Model
from avdetect.preprocess import Preprocessor
from avdetect.scoring import LEARNED_NOTHING
from avdetect.streams.whisper import WhisperEncoder
from avdetect.training import fusion
from avdetect.training import run as run_module
from avdetect.training.loop import make_fabric
from avdetect.training.results import SAMPLE, export
from avdetect.training.run import Settings, train
from avdetect.training.sampling import Subset
from avdetect.training.streams import train_streams
from avdetect.types import Clip

torch.set_num_threads(1)
SETTINGS = Settings(make_fabric(accelerator="cpu"), workers=0)
PREPROCESS = PreprocessConfig(faces=FaceConfig(crop_size=32))
PAIRS = PairLoopConfig(steps=2, batch_size=4, warmup_steps=1, checkpoint_every=1, codec=0.0)
PLAIN = StreamLoopConfig(steps=2, batch_size=2, warmup_steps=1, checkpoint_every=1, codec=0.0)
VOICES = dataclasses.replace(PAIRS, forgeries={"splice": 1.0})  # vocoders take their time
NO_PAIRS, NO_PLAIN = dataclasses.replace(PAIRS, steps=0), dataclasses.replace(PLAIN, steps=0)
CONFIG = TrainConfig(
    name="run",
    preprocess=PREPROCESS,
    model=ModelConfig(
        visual=VisualConfig(encoder="test_efficientnet"),
        audio=AudioConfig(channels=(4, 4), embedding=4),
        sync=SyncConfig(embedding=4, channels=(4, 4, 4, 4)),
    ),
    visual=PAIRS,
    audio=VOICES,
    sync=PLAIN,
    fusion=FusionFitConfig(steps=5, forged=0),
)


@pytest.fixture(scope="module", autouse=True)
def little_is_asked() -> Iterator[None]:
    """Two steps teach a tower nothing: all mouths speak, and the match is silent. Few rows need few folds. The sample
    is cut once a recipe."""
    clips, cut = Preprocessor.clips, dict[str, list[Clip]]()

    def once(preprocessor: Preprocessor, path: Path) -> list[Clip]:
        digest = preprocessor.config.digest()
        if digest not in cut:
            cut[digest] = clips(preprocessor, path)
        return cut[digest]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "MIN_SPEAKING", -1.0)
        patch.setattr(fusion, "INNER_FOLDS", (2,))
        patch.setattr(fusion, "silent_parts", lambda rows: ("sync",))
        patch.setattr(Preprocessor, "clips", once)
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


def run(config: TrainConfig, archive: ClipArchive, folder: Path, **pretrained: Path) -> dict:
    train(config, archive, folder, SETTINGS, {name: str(path) for name, path in pretrained.items()})
    return json.loads((folder / "result.json").read_text())


def started(module: torch.nn.Module, path: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """The weights of an encoder, and the file that a run takes them from."""
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, path)
    return state, path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    return archive_of(tmp_path_factory.mktemp("archive"), table_of())


@dataclasses.dataclass
class Watched:
    """A run, its bundle, and the files that its streams were trained on and scored, by the name of the fold."""

    folder: Path
    result: dict
    bundle: Bundle
    trained: dict[str, Subset]
    scored: dict[str, Subset]


def watched(config: TrainConfig, archive: ClipArchive, folder: Path, **pretrained: Path) -> Watched:
    training, scoring = Mock(wraps=run_module.train_streams), Mock(wraps=run_module.score_subset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "train_streams", training)
        patch.setattr(run_module, "score_subset", scoring)
        result = run(config, archive, folder / "run", **pretrained)
    trained = {call.args[3].name: call.args[1] for call in training.call_args_list}
    scored = {call.args[3].parent.name: call.args[2] for call in scoring.call_args_list}
    bundle, stated = export(folder / "run", folder / "bundle")
    assert stated == result
    return Watched(folder / "run", result, bundle, trained, scored)


@pytest.fixture(scope="module")
def finished(archive: ClipArchive, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(CONFIG, archive, tmp_path_factory.mktemp("finished"))


ENCODERS = ("test_efficientnet", "test_efficientnet_gn")  # each of a view of its own
FROZEN = VisualConfig(
    views=tuple(View(encoder=name) for name in ENCODERS), levels=("blocks.0", "blocks.2"), tune="none"
)
WHISPER = AudioConfig(encoder="whisper-tiny.en", frozen=True, levels=("stem",), window_seconds=4.0)
RELEASE = dataclasses.replace(
    CONFIG,
    release=True,
    fold_by="dataset",
    model=dataclasses.replace(CONFIG.model, visual=FROZEN, audio=WHISPER),
    visual=dataclasses.replace(PAIRS, augmentation="light", forged=1.0),
)


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], Path]]:
    """Encoders to start from."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("starts")
    (folder / ENCODERS[1]).mkdir()
    pictures: dict[str, torch.Tensor] = {}
    for number, (name, path) in enumerate(zip(ENCODERS, (ENCODERS[0], f"{ENCODERS[1]}/part"), strict=True)):
        encoder = timm.create_model(name, num_classes=0, exportable=True)
        state, _ = started(encoder, folder / f"{path}.safetensors")
        pictures |= {f"{'others.0' if number else 'encoder'}.maps.{key}": value for key, value in state.items()}
    return {
        "visual": (pictures, folder),
        "audio": started(WhisperEncoder(("stem",)), folder / "audio.safetensors"),
    }


@pytest.fixture(scope="module")
def release(archive: ClipArchive, starts: dict, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The recipe of the default bundle: heads on features of frozen encoders, trained on dev too."""
    paths = {name: path for name, (_, path) in starts.items()}
    return watched(RELEASE, archive, tmp_path_factory.mktemp("release"), **paths)


def test_a_run_ends_in_a_bundle_that_scores(finished: Watched) -> None:
    folder, result, bundle = finished.folder, finished.result, finished.bundle
    found = load_detector(bundle.folder, device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "run"
    assert 0 < found.fake < 1
    training = bundle.info.training
    assert training["rows"] == {"train": 12, "dev": 4, "test": 0}
    assert list(training["fusion"]["oof_log_loss"]) == ["parts", "logistic"]
    assert bundle.info.calibration.clip == result["calibration"]["clip"]
    assert bundle.files[OUT_OF_FOLD] == (folder / OUT_OF_FOLD).read_bytes()
    table = pd.read_csv(folder / OUT_OF_FOLD)
    assert len(table) == 12, "every training file, none of dev, no forgery"
    assert set(table["fold"]) == {0, 1}
    assert table[["p_fake", "ablation:visual+audio:logistic"]].stack().between(0, 1).all()


def test_a_run_of_an_earlier_version_is_exported(
    finished: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It states a stage and settings that are gone; so do bundles. An export may name it anew."""
    old = shutil.copytree(finished.folder, tmp_path / "old")
    result = json.loads((old / "result.json").read_text())
    result["config"] |= {"joint": {"steps": 0}}
    result["config"]["model"]["fusion"] |= {"hidden": 0, "dropout": 0.1}
    result["config"]["visual"] |= {"reconstructed": 0.4}
    (old / "result.json").write_text(json.dumps(result))
    write = Mock()
    monkeypatch.setattr("avdetect.training.results.export_bundle", write)
    export(old, tmp_path / "bundle", name="mine", licence="CC0")
    assert (write.call_args.kwargs["name"], write.call_args.kwargs["licence"]) == ("mine", "CC0")
    bundle = shutil.copytree(finished.bundle.folder, tmp_path / "bundle")
    values = json.loads((bundle / "bundle.json").read_text())
    values["model"]["fusion"] |= {"hidden": 0, "dropout": 0.1}
    (bundle / "bundle.json").write_text(json.dumps(values))
    assert Bundle.load(bundle).info.model.fusion.parts


def test_a_run_goes_on_where_it_was(finished: Watched, archive: ClipArchive, tmp_path: Path) -> None:
    again = shutil.copytree(finished.folder, tmp_path / "again")
    for lost in ("result.json", "model.safetensors", "fold1/scores/000000.npz"):
        (again / lost).unlink()
    shutil.rmtree(again / "final")
    assert run(CONFIG, archive, again) == finished.result
    assert (again / "model.safetensors").read_bytes() == (finished.folder / "model.safetensors").read_bytes()


def test_a_folder_belongs_to_one_run(finished: Watched, archive: ClipArchive, tmp_path: Path) -> None:
    """Scores are kept by place: taken up after the cache was made anew in another order, they would be other files'."""
    other = archive_of(tmp_path / "other", table_of().iloc[[*range(1, 16), 0]].reset_index(drop=True))
    with pytest.raises(ConfigError, match=r"belongs to another run \(data: "):
        run(CONFIG, other, finished.folder)
    with pytest.raises(ConfigError, match=r"\(config.seed: 0 there, 1 now\): name a new folder as --run"):
        run(dataclasses.replace(CONFIG, seed=1), archive, finished.folder)


@pytest.mark.parametrize(("kind", "apart"), [("finished", "group"), ("release", "dataset")])
def test_no_stream_scores_what_it_was_trained_on(kind: str, apart: str, request: pytest.FixtureRequest) -> None:
    """The fusion learns how far to trust a stream on new people, or new sources; scores of known ones would tell it too
    much. A release trains on dev too, and measures it out of fold."""
    seen = request.getfixturevalue(kind)
    everything = list(range(12 if kind == "finished" else 16))
    assert set(seen.trained) == {"fold0", "fold1", "final"}
    assert sorted(seen.trained["final"].rows.tolist()) == everything
    assert sorted(row for subset in seen.scored.values() for row in subset.rows.tolist()) == everything
    for fold, held in seen.scored.items():
        assert sorted([*seen.trained[fold].rows.tolist(), *held.rows.tolist()]) == everything
        assert not set(seen.trained[fold].table[apart]) & set(held.table[apart])
    assert set(seen.result["metrics"]) == {"out of fold", *(["dev"] if kind == "finished" else [])}
    assert len(pd.read_csv(seen.folder / OUT_OF_FOLD)) == len(everything)
    assert "/" not in json.dumps(seen.result["config"]["model"]), "no path of the machine that trained it"
    assert "/" not in json.dumps(seen.bundle.info.training["config"]["model"])


def test_frozen_encoders_end_in_a_bundle(release: Watched, starts: dict) -> None:
    bundle, result = release.bundle, release.result
    model = Model.load(bundle.info.model, release.folder / "model.safetensors")
    pictures = {key: value for key, value in model.visual.state_dict().items() if ".maps." in key}
    assert {key.partition(".maps.")[0] for key in pictures} == {"encoder", "others.0"}
    for trained, (start, _) in zip((pictures, model.speech.state_dict()), starts.values(), strict=True):
        assert trained
        assert all(torch.equal(value, start[name]) for name, value in trained.items()), "it was frozen"
    assert model.visual.head.weight.abs().max() > 0
    assert {path.parent.name for path in release.folder.rglob("sync.ckpt")} == {"fold0", "fold1", "final"}
    assert bundle.info.model.streams == ("visual", "audio", "sync")
    assert [*bundle.info.model.fusion.silent] == result["fusion"]["silent"] == ["sync"]
    scored = pd.read_csv(release.folder / OUT_OF_FOLD)
    assert scored[["has_visual", "has_audio", "has_sync"]].all(axis=None)
    whole = scored[["p_video_fake", "p_audio_fake", "p_mismatch"]].max(axis=1)
    assert (scored["p_fake"] >= whole - 1e-5).all()
    for stream, part in pooling.PART_OF.items():
        assert scored[f"p_{part}"].isna().all() == (stream == "sync")
    assert len(bundle.files["golden.npz"]) < 1_000_000
    found = load_detector(bundle.folder, device="cpu").score(SAMPLE, duration_seconds=4)
    assert found.missing == {"sync": LEARNED_NOTHING}


def test_voice_and_match_share_one_speech_encoder_that_learns(
    archive: ClipArchive, starts: dict, tmp_path: Path
) -> None:
    start, path = starts["audio"]
    audio = dataclasses.replace(WHISPER, frozen=False, pretrained=str(path))
    model = dataclasses.replace(CONFIG.model, audio=audio, streams=("audio", "sync"))
    config = dataclasses.replace(CONFIG, model=model, visual=NO_PAIRS)
    everything = Subset(archive, np.arange(16))
    trained = train_streams(config, everything, everything, tmp_path, SETTINGS.fabric, 0, {}).speech.state_dict()
    assert not all(torch.equal(value, start[name]) for name, value in trained.items())
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state"]["module"] for name in ("audio", "sync")]
    assert [any(key.startswith("speech.") for key in state) for state in saved] == [True, False], "the voice teaches it"


def test_real_videos_alone_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdetect.training.outputs.AUDIO", {"splice": AUDIO["splice"]})
    visual, audio = (dataclasses.replace(loop, forged=1.0) for loop in (PAIRS, VOICES))
    config = dataclasses.replace(
        CONFIG, visual=visual, audio=audio, sync=NO_PLAIN, fusion=FusionFitConfig(steps=5, forged=1)
    )
    result = run(config, archive_of(tmp_path / "cache", table_of(fakes=False)), tmp_path / "run")
    assert result["fusion"]["clip_chosen_on"] == "train, out of fold"


def test_faces_without_voices_end_in_a_bundle_that_says_so(tmp_path: Path) -> None:
    """The recipe of GenD: a vision transformer of 64 pixels and crops of 32, of which norms and head alone learn."""
    silent = archive_of(tmp_path / "cache", table_of(sound=False), sound=False)
    with pytest.raises(ManifestError, match="real voice"):
        run(CONFIG, silent, tmp_path / "run")
    torch.manual_seed(5)
    vit = timm.create_model("test_vit", num_classes=0, img_size=64)
    start, path = started(vit, tmp_path / "start.safetensors")
    tuned = VisualConfig(
        encoder="test_vit", encoder_kwargs={"img_size": 64}, size=64, tune="norm", unit_features=True, dropout=0.1
    )
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, visual=tuned),
        visual=dataclasses.replace(PAIRS, steps=4, alignment=0.1, uniformity=0.5, weight_decay=0.0),
        audio=NO_PAIRS,
        sync=NO_PLAIN,
    )
    run(config, silent, tmp_path / "faces", visual=path)
    bundle, _ = export(tmp_path / "faces", tmp_path / "bundle")
    visual = Model.load(bundle.info.model, tmp_path / "faces" / "model.safetensors").visual
    after = visual.encoder.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in start if "norm" in name}
    crops = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        expected, features = visual(torch.from_numpy(crops), with_features=True)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(6))
    found = OnnxNetworks(bundle, device="cpu").visual(crops)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)
    assert np.ptp(found) > 1e-3, "the logits say something of the crops"
    assert bundle.info.model.streams == ("visual",)
    scored = load_detector(bundle.folder, device="cpu").score(SAMPLE, duration_seconds=1)
    assert scored.audio_fake is None
    assert scored.missing["audio"] == "the model was trained without the voice"


def test_what_cannot_be_trained_is_one_clear_error_before_anything_is(archive: ClipArchive, tmp_path: Path) -> None:
    whisper = dataclasses.replace(RELEASE, model=dataclasses.replace(CONFIG.model, audio=WHISPER), audio=NO_PAIRS)
    magic = dataclasses.replace(PAIRS, forgeries={"magic": 1.0})
    for config, message in (
        (dataclasses.replace(CONFIG, preprocess=PreprocessConfig()), "avdetect preprocess"),
        (dataclasses.replace(CONFIG, visual=NO_PAIRS, audio=NO_PAIRS), "nothing to train"),
        (dataclasses.replace(CONFIG, audio=magic), "magic"),
        (RELEASE, "weights to start from"),
        (whisper, "--pretrained-audio"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(config, archive, tmp_path / message)
        assert not (tmp_path / message / "fold0").exists()
    with pytest.raises(ModelError, match="no finished run"):
        export(tmp_path, tmp_path / "bundle")
    with pytest.raises(ManifestError, match="split dev"):
        run(CONFIG, archive_of(tmp_path / "cache", table_of().assign(split="train")), tmp_path / "alone")
