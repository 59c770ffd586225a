"""The whole road through the real entry point: a manifest of files in, a bundle that scores out."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

import avdetect
from avdetect.bundle import Bundle

pytest.importorskip("torch", reason="training needs the extra `train`")

from readme_media import SAMPLE, make_manifest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def train():
    spec = importlib.util.spec_from_file_location("train_tool", ROOT / "tools" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_from_files_to_a_bundle_and_on_after_a_stop(train, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    run, out = tmp_path / "run", tmp_path / "bundle"
    command = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--run", str(run), "--out", str(out)]
    assert train(["--manifest", str(manifest), *command]) == 0
    found = avdetect.load_detector(out, device="cpu").score(SAMPLE, duration_seconds=2)
    assert found.model["bundle"] == "tiny"
    assert 0 < found.fake < 1
    info = Bundle.load(out).info
    assert info.training["rows"] == {"train": 12, "dev": 4}
    assert "/" not in json.dumps(info.training["config"]["model"])  # no path of the machine that trained it
    # Again, with the last fold's outputs lost: everything else is taken up where it was, and the bundle is the same.
    shutil.rmtree(out)
    (run / "fold1" / "features.npy").unlink()
    assert train(["--manifest", str(manifest), *command]) == 0
    assert Bundle.load(out).info.files == info.files


HEADER = "path,fake,video_fake,audio_fake,group,split,dataset,method\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}{SAMPLE},1,1,1,a,train,b,c\n", "both splits: 1 train, 0 dev"),
        ("path,fake\na.mp4,1\n", "lacks the column"),
        ("", "cannot read"),
    ],
)
def test_a_bad_manifest_is_one_clear_line(train, tmp_path: Path, capsys, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    command = ["--config", str(ROOT / "configs" / "tiny.yaml"), "--run", str(tmp_path), "--out", "x"]
    assert train(["--manifest", str(tmp_path / "bad.csv"), *command]) == 1
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert len(shown.splitlines()) == 1
