"""What is scored stays on the machine: nothing is written to the home folder, no report is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "avdetect" / "weights" / "sample" / "sample.mp4"
CODE = f"""
import avdetect
avdetect.load_detector().score({str(SAMPLE)!r}, duration_seconds=1.0)
"""


def test_scoring_leaves_the_home_folder_empty(tmp_path: Path) -> None:
    """ONNX Runtime's wheels keep a number of the device and a queue of reports there unless they are told not to."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", CODE], env=environment, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
