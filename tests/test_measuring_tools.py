"""tools/benchmark and the check for those who have a GPU, on the CPU: its road is the same."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from benchmark.measuring import measure

ROOT = Path(__file__).parents[1]


def test_a_process_is_measured_with_its_children() -> None:
    child = "import time; kept = bytearray(80 << 20); time.sleep(0.5); sum(range(3_000_000))"
    parent = f"import subprocess, sys; print('told'); subprocess.run([sys.executable, '-c', {child!r}])"
    used = measure([sys.executable, "-c", parent])
    assert (used.stdout, used.wall_seconds > 0.5, used.cpu_seconds > 0.02) == ("told\n", True, True)
    assert 80 < used.peak("python") == used.peak() < used.tree_mib < 200
    assert used.peak("ffmpeg") == 0
    with pytest.raises(SystemExit, match="exited with 3\nwhy"):
        measure([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_the_table_is_csv_with_the_machine_above() -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    command = [sys.executable, "-m", "benchmark.rates", "decode", "--clips", "120:11", "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "# cores: " in done.stdout
    table = pd.read_csv(io.StringIO(done.stdout), comment="#")
    assert table[["run", "command", "clip"]].to_numpy().tolist() == [[0, "decode", "120:11"]]
    assert (table.wall_seconds > 0).all()
    assert (table.cpu_per_media_second < table.cpu_seconds).all()


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
