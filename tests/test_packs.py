"""Packs of face crops: what is drawn, that nothing is lost of it, and the road from a pack back into a run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pack_faces
import pytest
import torch
import train_pack
import yaml
from archive_factory import make_archive
from clips import talking_clip
from manifests import manifest_of
from safetensors.torch import load_file

from avdetect.bundle import Bundle
from avdetect.cli import run_script
from avdetect.config import FaceConfig, PairLoopConfig, PreprocessConfig
from avdetect.datasets.clips import ClipArchive
from avdetect.errors import ManifestError
from avdetect.training.batches import VisualBatches
from avdetect.training.packs import Chosen, open_pack, write_pack
from avdetect.training.sampling import Subset

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
TRAIN, EXPORT = (partial(run_script, name) for name in ("train", "export"))
PREPROCESS = PreprocessConfig(faces=FaceConfig(crop_size=32))
TUNED = {"tune": "norm", "unit_features": True}
ENCODER = {"encoder": "test_vit", "encoder_kwargs": {"img_size": 64}, "size": 64}
CONFIG = {
    "preprocess": {"faces": {"crop_size": 32}},
    "model": {"visual": ENCODER | TUNED},
    "visual": {"batch_size": 4, "alignment": 0.1, "uniformity": 0.5, "weight_decay": 0, "codec": 0},
    "audio": {"steps": 0},
    "sync": {"steps": 0},
    "fusion": {"steps": 5, "forged": 0},
}


def run(command: Callable[[list[str]], int], *arguments: object) -> int:
    return command([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ClipArchive:
    """24 files of two clips and four sources, a fake beside its original; nine of the fakes are of one generator,
    and of two fakes only the second clip is forged."""
    number = range(24)
    fake, pair = [i % 2 for i in number], [i // 2 for i in number]
    table = manifest_of(
        [f"/secret/{i}.mp4" for i in number],
        **{"fake": fake, "video_fake": fake, "audio_fake": 0},
        group=[f"person{p}" for p in pair],
        split=["dev" if p >= 10 else "train" for p in pair],
        dataset=[f"source{p % 4}" for p in pair],
        method=[("rare" if p % 4 == 0 else "common") * y for p, y in zip(pair, fake, strict=True)],
        original=[f"/secret/{i - 1}.mp4" * y for i, y in zip(number, fake, strict=True)],
        fake_segments=[((2.0, 3.5),) if i in (1, 3) else () for i in number],
    )
    starts = ((0, 0), (100, 50))  # seed and frame of each clip
    clips = [[talking_clip(45, seed=i + seed, start_frame=start, size=32) for seed, start in starts] for i in number]
    return make_archive(tmp_path_factory.mktemp("archive"), table, clips, PREPROCESS)


def whole(archive: ClipArchive) -> Subset:
    return Subset(archive, np.arange(len(archive.files)))


@pytest.fixture(scope="module")
def written(archive: ClipArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Chosen]:
    path = tmp_path_factory.mktemp("pack") / "faces.zip"
    return path, write_pack(whole(archive), path, 300_000)


def test_a_pack_holds_pairs_as_they_were(archive: ClipArchive, written: tuple[Path, Chosen], tmp_path: Path) -> None:
    pack, chosen = written
    packed = open_pack(pack, tmp_path / "a")
    assert packed.clips["main_faces"].sum() == sum(map(len, chosen.values()))
    source = {(file, clip): row for row, (file, clip) in enumerate(archive.clips[["file", "clip"]].to_numpy())}
    names = {sha256: row for row, sha256 in enumerate(archive.files["sha256"])}
    for row, (file, number, faces) in enumerate(packed.clips[["file", "clip", "main_faces"]].to_numpy()):
        if faces:
            theirs = source[names[packed.files["sha256"].iat[file]], number]
            kept = sorted(chosen[theirs])
            found, expected = packed.faces(row, 0, range(faces)), archive.faces(theirs, 0, kept)
            np.testing.assert_array_equal(found.crops, expected.crops)
            np.testing.assert_array_equal(found.landmarks, expected.landmarks)
            np.testing.assert_array_equal(packed.face_times(row, 0), archive.face_times(theirs, 0)[kept])
    batches = VisualBatches(whole(packed), PairLoopConfig(forged=0.0, batch_size=4), 0)
    assert batches.fake is not None
    rng = np.random.default_rng(0)
    for _ in range(50):
        fake, real, twins = batches.moments(batches.fake, rng)
        assert twins, "every fake came with its original …"
        times = [packed.face_times(clip, 0)[index] for clip, index in (fake, real)]
        assert times[0] == times[1], "… at the same time"


def test_a_pack_is_balanced_bounded_and_anonymous(
    archive: ClipArchive, written: tuple[Path, Chosen], tmp_path: Path
) -> None:
    pack, chosen = written
    assert 150_000 < pack.stat().st_size <= 300_000
    packed = open_pack(pack, tmp_path)
    crops = packed.clips.groupby("file")["main_faces"].sum()
    by_method = crops.groupby(packed.files["method"]).sum()
    assert by_method["rare"] > by_method["common"] / 2, "though it has a third of the files"
    content = b"".join(p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file())
    assert b".mp4" not in content
    assert b"secret" not in content
    marked = packed.files["original"].map(str).str.len() > 0
    assert marked.sum() == (packed.files["fake"] == 1).sum()
    unforged = archive.files["fake_segments"].map(len).to_numpy()[archive.clips["file"]] > 0
    first = archive.clips["clip"].to_numpy() == 0
    assert not set(np.flatnonzero(unforged & first)) & set(chosen)
    small = [write_pack(whole(archive), tmp_path / name, 60_000) for name in ("a.zip", "b.zip")]
    assert small[0] == small[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the tar open
def test_webdataset_reads_a_shard(archive: ClipArchive) -> None:
    webdataset = pytest.importorskip("webdataset")
    tar = archive.root / "shards" / "000000.tar"
    samples = itertools.islice(webdataset.WebDataset(str(tar), shardshuffle=False).decode(), 6)
    *clips, one, two = sorted(samples, key=lambda sample: "json" in sample)
    assert [one["json"]["source"], two["json"]["source"]] == ["/secret/0.mp4", "/secret/1.mp4"]
    keys = [f"{record['json']['key']}_{number:04d}" for record in (one, two) for number in (0, 1)]
    assert [clip["__key__"] for clip in clips] == keys
    np.testing.assert_array_equal(clips[3]["npz"]["span"], [2.0, 1.8])


def test_what_is_no_pack_is_one_clear_error(archive: ClipArchive, tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(ManifestError, match=r"no\.zip is no pack.*pack_faces"):
        open_pack(tmp_path / "no.zip", tmp_path / "a")
    with pytest.raises(ManifestError, match="no fake and its original"):
        write_pack(whole(archive), tmp_path / "small.zip", 1000)
    assert not (tmp_path / "small.zip").exists()


def test_from_a_pack_to_an_encoder_that_a_run_starts_from(
    archive: ClipArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("avdetect.training.packs.IN_VAIN", 10)  # the pack has room for all that there is
    faces, config, out = tmp_path / "faces.zip", tmp_path / "config.yaml", tmp_path / "trained"
    config.write_text(yaml.safe_dump(CONFIG))
    assert run(pack_faces.main, "--cache", archive.root, "--out", faces, "--max-mib", 0.5) == 0
    assert "crops of 20 files" in capsys.readouterr().out, "those of the split train"
    training = ("--pack", faces, "--config", config, "--out", out, "--steps", 4, "--max-mib", 0.3)
    training += ("--accelerator", "cpu", "--workers", 0)
    assert run(train_pack.main, *training) == 0
    first, *looks = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert set(first["sources"]["seen"]) | set(first["sources"]["held out"]) == {f"source{k}" for k in range(4)}
    assert not set(first["sources"]["seen"]) & set(first["sources"]["held out"])
    assert [look["step"] for look in looks] == [1, 2, 3, 4]
    assert all(0 <= look["auc"] <= 1 and look["log_loss"] > 0 for look in looks)
    files = sorted((out / "encoder").iterdir())
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) <= 0.3 * 1024**2
    weights = {name: value for file in files for name, value in load_file(file).items()}
    capsys.readouterr()
    assert run(train_pack.main, *training) == 0, "nothing is left to do"
    assert all(torch.equal(value, weights[name]) for file in files for name, value in load_file(file).items())
    assert run(train_pack.main, *training, "--held-out", 0.5) == 1
    assert "belongs to another run (held_out" in capsys.readouterr().err
    views = {"views": [{}, {"encoder": "test_resnet"}]}
    config.write_text(yaml.safe_dump({**CONFIG, "model": {"visual": ENCODER | TUNED | views}}))
    assert run(train_pack.main, *training) == 1
    assert "one encoder is trained, and the views have" in capsys.readouterr().err

    values = {**CONFIG, "visual": {"steps": 2, "batch_size": 4, "codec": 0, "checkpoint_every": 1}}
    values["model"] = {"visual": ENCODER | {"tune": "none"}}
    config.write_text(yaml.safe_dump(values))
    command = ("--cache", archive.root, "--config", config, "--run", tmp_path / "run", "--out", tmp_path / "bundle")
    assert run(TRAIN, *command, "--pretrained", out / "encoder", "--accelerator", "cpu", "--workers", 0) == 0
    shown = capsys.readouterr().out
    assert f"avdetect score clip.mp4 --bundle {tmp_path / 'bundle'}" in shown, "the one command that scores a video"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["model"]["visual"]["tune"] == "none"
    started = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, started[f"visual.encoder.{name}"]) for name, value in weights.items())
    assert run(EXPORT, "--run", tmp_path / "run", "--out", tmp_path / "again", "--name", "mine") == 0
    bundle, again = (Bundle.load(tmp_path / name) for name in ("bundle", "again"))
    assert (again.info.name, again.info.files) == ("mine", bundle.info.files)


def test_a_bad_start_is_one_clear_line(archive: ClipArchive, tmp_path: Path, capsys) -> None:
    other = ROOT / "configs" / "dfdc.yaml"
    for config, message in (("nothing.yaml", "cannot read nothing.yaml"), (other, "the cache was preprocessed as")):
        command = ("--cache", archive.root, "--config", config, "--run", tmp_path / "run", "--out", tmp_path / "bundle")
        assert run(TRAIN, *command, "--accelerator", "cpu") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
