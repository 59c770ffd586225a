"""tools/benchmark and the check for those who have a GPU, on the CPU: its road is the same."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from benchmark import rates
from benchmark.measuring import measure
from media_factory import encode
from readme_media import SAMPLE

gpu_check = importlib.import_module("gpu_check")

CONFIG = {
    "preprocess": {"faces": {"crop_size": 32}},
    "model": {"visual": {"encoder": "test_vit", "encoder_kwargs": {"img_size": 64}, "size": 64, "tune": "norm"}},
    "visual": {"batch_size": 4, "precision": "bf16-mixed"},
}


def test_a_process_is_measured_with_its_children() -> None:
    child = "import time; kept = bytearray(80 << 20); time.sleep(0.3); sum(range(3_000_000))"
    parent = f"import subprocess, sys; print('told'); subprocess.run([sys.executable, '-c', {child!r}])"
    used = measure([sys.executable, "-c", parent])
    assert (used.stdout, used.wall_seconds > 0.3, used.cpu_seconds > 0.02) == ("told\n", True, True)
    assert 80 < used.peak("python") == used.peak() < used.tree_mib < 200
    assert used.peak("ffmpeg") == 0
    with pytest.raises(SystemExit, match="exited with 3\nwhy"):
        measure([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_the_table_is_csv_with_the_machine_above(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["rates", "decode", "--clips", "120:11", "--runs", "1"])
    rates.main()
    said = capsys.readouterr().out
    assert "# cores: " in said
    table = pd.read_csv(io.StringIO(said), comment="#")
    assert table[["run", "command", "clip"]].to_numpy().tolist() == [[0, "decode", "120:11"]]
    assert (table.wall_seconds > 0).all()
    assert (table.cpu_per_media_second < table.cpu_seconds).all()


def as_one_process(command: list[str], **_: object) -> Any:
    """gpu_check's training of so many ranks, here and of one: tests/test_loop.py has two learn the same."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = gpu_check.main([*command[2:-1], "1"])
    return subprocess.CompletedProcess(command, code, told.getvalue(), "")


def test_on_the_cpu_all_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config, out = tmp_path / "config.yaml", tmp_path / "check.json"
    config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    if not torch.cuda.is_available():
        assert gpu_check.main(["--config", str(config), "--out", str(out)]) == 1
        assert "--device cpu" in capsys.readouterr().err
        assert not out.exists()
    short = encode(tmp_path / "short.mp4", "-i", str(SAMPLE), "-t", "3", "-c", "copy")
    monkeypatch.setattr(gpu_check, "SAMPLE", short)
    monkeypatch.setattr(gpu_check, "subprocess", SimpleNamespace(run=as_one_process))
    options = ["--config", str(config), "--out", str(out), "--device", "cpu", "--steps", "2", "--workers", "0"]
    assert gpu_check.main(options) == 0
    rows = {row["check"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    speeds = ("training, ready batches", "input pipeline alone", "training from the pipeline")
    assert all(rows[name]["value"] > 0 for name in speeds)
    assert rows["sample, largest difference of a probability"]["value"] == 0
    assert rows["two processes, largest difference of a loss from one's"]["passed"]
    table = capsys.readouterr().out
    assert all(name in table for name in rows)
    batches = gpu_check.SameBatches(gpu_check._config(config))
    for name, whole in batches(0).items():
        assert all(torch.equal(whole[part::2], batches(0, part, 2)[name]) for part in range(2))


def test_two_processes_that_learn_something_else_than_one_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    args, told = SimpleNamespace(device="cpu", config="c.yaml"), {"1": [0.7, 0.6], "2": [0.7, 0.5]}

    def run(command: list[str], **_: object) -> Any:
        return subprocess.CompletedProcess(command, 0, f"progress\n{json.dumps(told[command[-1]])}\n", "")

    monkeypatch.setattr(gpu_check, "subprocess", SimpleNamespace(run=run))
    row = gpu_check._two_processes(args)
    assert (row.passed, row.value) == (False, pytest.approx(0.1))
    told["2"] = [0.7, 0.59]
    row = gpu_check._two_processes(args)
    assert row.passed
