"""The whole road through the real entry points: files in, manifest, cache, run, a bundle that scores out."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import avdetect
from avdetect.bundle import Bundle
from avdetect.datasets.manifest import validate, write_manifest
from avdetect.scoring import LEARNED_NOTHING

pytest.importorskip("torch", reason="training needs the extra `train`")

from archive_factory import make_archive
from clips import talking_clip
from readme_media import SAMPLE, make_data

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "configs" / "smoke.yaml"
BASELINE = SMOKE.with_name("baseline.yaml")


def tool(name: str) -> Callable[[list[str]], int]:
    module = importlib.import_module(name)
    return lambda arguments: module.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    make_data(folder / "data", each=6)
    assert tool("prepare")(["folder", folder / "data", "--dev", "0.3", "--out", folder / "my.parquet"]) == 0
    command = ["--manifest", folder / "my.parquet", "--cache", folder / "cache", "--config", SMOKE, "--workers", "1"]
    assert tool("preprocess")(command) == 0
    return folder / "cache"


def test_from_files_to_a_bundle_and_its_export(cache: Path, tmp_path: Path, capsys) -> None:
    """With fewer steps than smoke.yaml has, which CI runs as README says."""
    run, out, config = tmp_path / "run", tmp_path / "bundle", tmp_path / "short.yaml"
    values = yaml.safe_load(SMOKE.read_text())
    for stage in ("visual", "audio", "sync", "joint"):
        values[stage] |= {"steps": 2, "warmup_steps": 1, "checkpoint_every": 1, "evaluate_every": 2}
    config.write_text(yaml.safe_dump(values))
    command = ["--cache", cache, "--config", config, "--run", run, "--out", out, "--accelerator", "cpu"]
    assert tool("train")(command) == 0
    shown = capsys.readouterr().out
    assert f"avdetect score clip.mp4 --bundle {out}" in shown, "it ends with the one command that scores a video"
    assert "mlp" in shown
    assert "logistic" in shown
    found = avdetect.load_detector(out, device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "smoke"
    assert 0 < found.fake < 1
    training = Bundle.load(out).info.training
    assert sum(training["rows"].values()) == 12
    assert "/" not in json.dumps(training["config"]["model"])  # no path of the machine that trained it
    assert tool("export")(["--run", run, "--out", tmp_path / "again", "--name", "mine"]) == 0
    again = Bundle.load(tmp_path / "again")
    assert again.info.files == Bundle.load(out).info.files
    assert again.info.name == "mine"


def test_the_plain_baseline_ends_in_a_bundle_that_stands_beside_another(tmp_path: Path) -> None:
    """The shipped configuration with fewer steps, through training, export and evaluation, on synthetic clips."""
    number = np.arange(16)
    fake, person, sources = number % 2, number // 2, ["one", "two"]
    table = pd.DataFrame({"path": [f"/{i}.mp4" for i in number], "fake": fake, "video_fake": fake, "audio_fake": fake})
    table = table.assign(group=person.astype(str), dataset=[sources[i % 2] for i in person], method=fake.astype(str))
    table = validate(table.assign(split=np.where(number < 12, "train", "dev")))
    make_archive(tmp_path / "cache", table, [[talking_clip(45, seed=i, size=160)] for i in number])
    write_manifest(table, tmp_path / "my.csv")
    values = yaml.safe_load(BASELINE.read_text())
    values["visual"] |= {"steps": 2, "warmup_steps": 1, "batch_size": 4}
    (tmp_path / "baseline.yaml").write_text(yaml.safe_dump(values))
    command = ["--config", tmp_path / "baseline.yaml", "--run", tmp_path / "run", "--out", tmp_path / "bundle"]
    assert tool("train")([*command, "--cache", tmp_path / "cache", "--accelerator", "cpu"]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    assert (bundle.info.name, bundle.info.model.streams) == ("baseline", ("visual",))
    found = avdetect.load_detector(tmp_path / "bundle", device="cpu").score(SAMPLE, duration_seconds=2)
    silent = "visual" in bundle.info.model.fusion.silent  # so few steps may teach nothing
    assert (found.video_fake is None) == silent
    assert (found.missing.get("visual") == LEARNED_NOTHING) == silent
    assert found.audio_fake is None
    command = [tmp_path / "my.csv", "--cache", tmp_path / "cache", "--split", "dev", "--no-audit", "--no-sync"]
    assert tool("evaluate")([*command, "--bundle", tmp_path / "bundle", "--out", tmp_path / "plain"]) == 0
    beside = f"plain CNN={tmp_path / 'plain'}"
    assert (
        tool("evaluate")([*command, "--bundle", tmp_path / "bundle", "--beside", beside, "--out", tmp_path / "both"])
        == 0
    )
    metrics = pd.read_csv(tmp_path / "both" / "metrics.csv")
    rows = metrics[(metrics["table"] == "comparison") & (metrics["score"] == "plain CNN")].set_index("label")["n"]
    judged = {"fake": 4, "video_fake": 4, "audio_fake": 0}  # it says nothing of a voice
    assert rows.to_dict() == ({} if silent else judged)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cache", "nowhere", "--config", str(SMOKE)], "avdetect preprocess"),
        (["--cache", "CACHE", "--config", "nothing.yaml"], "cannot read nothing.yaml"),
        (["--cache", "CACHE", "--config", str(SMOKE.with_name("dfdc.yaml"))], "the cache was preprocessed as"),
    ],
)
def test_a_bad_start_is_one_clear_line(arguments: list[str], message: str, cache: Path, tmp_path: Path, capsys) -> None:
    given = [str(cache) if a == "CACHE" else a for a in arguments]
    command = [*given, "--run", tmp_path / "run", "--out", tmp_path / "x", "--accelerator", "cpu"]
    assert tool("train")(command) == 1
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_exporting_an_unfinished_run_is_one_clear_line(tmp_path: Path, capsys) -> None:
    assert tool("export")(["--run", tmp_path, "--out", tmp_path / "x"]) == 1
    assert "no finished run" in capsys.readouterr().err
