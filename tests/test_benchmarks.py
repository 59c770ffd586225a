"""tools/benchmark: whole processes are measured with their children."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
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
