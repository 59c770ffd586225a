"""The check for those who have a GPU, on the CPU: its road is the same."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml

gpu_check = importlib.import_module("gpu_check")

CONFIG = {
    "preprocess": {"faces": {"crop_size": 32}},
    "model": {"visual": {"encoder": "test_vit", "encoder_kwargs": {"img_size": 64}, "size": 64, "tune": "norm"}},
    "visual": {"batch_size": 4, "precision": "bf16-mixed"},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return path


def test_on_the_cpu_all_is_measured_and_two_processes_learn_the_same(config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "check.json"
    options = ["--config", str(config), "--out", str(out), "--device", "cpu", "--steps", "2", "--workers", "0"]
    assert gpu_check.main(options) == 0
    rows = {row["check"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    speeds = ("training, ready batches", "input pipeline alone", "training from the pipeline")
    assert all(rows[name]["value"] > 0 for name in speeds)
    assert rows["sample, largest difference of a probability"]["value"] == 0
    assert rows["two processes, largest difference of a loss from one's"]["passed"]
    table = capsys.readouterr().out
    assert all(name in table for name in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "check.json"
    assert gpu_check.main(["--config", str(config), "--out", str(out)]) == 1
    assert "--device cpu" in capsys.readouterr().err
    assert not out.exists()
