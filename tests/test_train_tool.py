"""The whole road through the real entry points: files in, manifest, cache, run, a bundle that scores out."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import export
import prepare
import preprocess
import pytest
import train
import yaml
from readme_media import SAMPLE, make_data

import avdetect
from avdetect.bundle import Bundle

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"


def run(tool: ModuleType, *arguments: object) -> int:
    return tool.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    make_data(folder / "data", each=6)
    assert run(prepare, "folder", folder / "data", "--dev", 0.3, "--out", folder / "my.parquet") == 0
    command = ("--manifest", folder / "my.parquet", "--cache", folder / "cache", "--config", SMOKE, "--workers", 1)
    assert run(preprocess, *command) == 0
    return folder / "cache"


def test_from_files_to_a_bundle_and_its_export(cache: Path, tmp_path: Path, capsys) -> None:
    """With fewer steps than smoke.yaml has, which CI runs as README says."""
    folder, out, config = tmp_path / "run", tmp_path / "bundle", tmp_path / "short.yaml"
    values = yaml.safe_load(SMOKE.read_text())
    for stage in ("visual", "audio", "sync"):
        values[stage] |= {"steps": 2, "warmup_steps": 1, "checkpoint_every": 1, "evaluate_every": 2}
    config.write_text(yaml.safe_dump(values))
    command = ("--cache", cache, "--config", config, "--run", folder, "--out", out, "--accelerator", "cpu")
    assert run(train, *command) == 0
    shown = capsys.readouterr().out
    assert f"avdetect score clip.mp4 --bundle {out}" in shown, "it ends with the one command that scores a video"
    assert "logistic" in shown
    found = avdetect.load_detector(out, device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "smoke"
    assert 0 < found.fake < 1
    training = Bundle.load(out).info.training
    assert sum(training["rows"].values()) == 12
    assert "/" not in json.dumps(training["config"]["model"])  # no path of the machine that trained it
    assert run(export, "--run", folder, "--out", tmp_path / "again", "--name", "mine") == 0
    again = Bundle.load(tmp_path / "again")
    assert again.info.files == Bundle.load(out).info.files
    assert again.info.name == "mine"


def test_a_bad_start_is_one_clear_line(cache: Path, tmp_path: Path, capsys) -> None:
    out = ("--run", tmp_path / "run", "--out", tmp_path / "x", "--accelerator", "cpu")
    dfdc = SMOKE.with_name("dfdc.yaml")
    for config, message in (("nothing.yaml", "cannot read nothing.yaml"), (dfdc, "the cache was preprocessed as")):
        assert run(train, "--cache", cache, "--config", config, *out) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
