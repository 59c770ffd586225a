"""tools/benchmark: whole processes are measured with their children, and the soak sees what it is there to see."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[1] / "tools" / "benchmark"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_a_process_is_measured_with_its_children(tool) -> None:
    child = "import time; kept = bytearray(80 << 20); time.sleep(0.5); sum(range(3_000_000))"
    parent = f"import subprocess, sys; print('told'); subprocess.run([sys.executable, '-c', {child!r}])"
    used = tool("measuring").measure([sys.executable, "-c", parent])
    assert used.stdout == "told\n"
    assert used.wall_seconds > 0.5
    assert used.cpu_seconds > 0.02
    assert 80 < used.peak("python") == used.peak() < used.tree_mib < 200
    assert used.peak("ffmpeg") == 0


def test_a_command_that_fails_ends_the_benchmark(tool) -> None:
    with pytest.raises(SystemExit, match="exited with 3\nwhy"):
        tool("measuring").measure([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_the_table_is_csv_with_the_machine_above(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    options = ["--only", "decode", "--height", "120", "--seconds", "12", "--runs", "2", "--out", str(out)]
    done = subprocess.run([sys.executable, FOLDER / "pipelines.py", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == out.read_text()
    assert "# cores: " in done.stdout
    assert "core-hours" in done.stdout
    table = pd.read_csv(out, comment="#")
    assert table[["run", "command", "stage"]].to_numpy().tolist() == [[run, "decode", "process"] for run in (0, 1)]
    assert (table.wall_seconds > 0).all()


def soaked(soak: ModuleType, found=None, **more: list[float]) -> list[str]:
    """What the soak says of 1,000 files."""
    counts = range(50, 1001, 50)
    steady = {"rss_mib": 300.0, "fds": 7, "threads": 9, "children": 0, "temp_files": 0}
    rows = [{"count": n, **steady} | {k: v[i] for k, v in more.items()} for i, n in enumerate(counts)]
    return soak.judged(soak.Table((), {}), rows, found or soak.Findings())


def test_the_soak_sees_what_stays_behind(tool) -> None:
    soak = tool("soak")
    assert soaked(soak) == []
    assert soaked(soak, rss_mib=[300.0] * 3 + [400.0] * 17) == []  # before anything has settled
    assert soaked(soak, rss_mib=[300 + n / 2 for n in range(20)]) == ["memory grows by 10.2 KiB a file"]
    assert soaked(soak, fds=[7] * 19 + [8]) == ["fds went from 7 to 8"]
    assert soaked(soak, children=[0] * 19 + [1], temp_files=[2] * 20) == ["1 children left", "2 temp_files left"]


def test_the_soak_sees_other_scores(tool) -> None:
    class Detector:
        scores = iter((0.5, 0.5 + 1e-7, 0.6, None, 0.1))

        def score(self, file: Path):
            return type("Detection", (), {"fake": next(self.scores)})

    soak = tool("soak")
    found, a, b = soak.Findings(), Path("a"), Path("b")
    for file, differing in ((a, set()), (a, set()), (a, {"a"}), (b, {"a"}), (b, {"a", "b"})):
        soak.score(Detector(), file, found)
        assert found.differing == differing
    assert soaked(soak, found) == ["other scores than at first: a, b"]
